//! Tests of import runs: dry runs, and the clean-up after a run.

use domain::{
    Origin,
    inventory::{
        asset::Asset,
        import::{
            self, Chunk, EmptyCells, ImportFormat, ImportKind, ImportOrder, ImportRun, Opened,
            Sweep, Table,
        },
        owners::Owners,
    },
};

use crate::harness::{TestOrg, at, host};

#[tokio::test]
async fn what_a_large_run_leaves_behind_is_swept_in_time() {
    let test = TestOrg::new().await;
    let order = ImportOrder {
        kind: ImportKind::Assets,
        format: ImportFormat::Csv,
        dry_run: false,
        empty_cells: EmptyCells::Keep,
        idempotency_key: None,
    };
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let Opened::New(run) = ImportRun::open(&tx, &order, at(0)).await.unwrap() else {
        panic!("it is the first")
    };
    ImportRun::fail(&tx, run.id, "the upload broke off", at(1)).await.unwrap();
    tx.commit().await.unwrap();
    let sql = "INSERT INTO import_key (org_id, run_id, key, \"row\")
        SELECT $1, $2, 'external_id n:' || n, n FROM generate_series(1, 30000) AS n";
    test.db.superuser().await.execute(sql, &[&test.org, &run.id]).await.unwrap();

    let mut looks = 0;
    loop {
        let tx = test.db.write(test.org, Origin::system()).await.unwrap();
        let swept = ImportRun::sweep(&tx, run.id, at(2)).await.unwrap();
        tx.commit().await.unwrap();
        looks += 1;
        if swept == Sweep::Done {
            break;
        }
    }
    assert_eq!(looks, 3);
}

/// Imports assets and dependencies, one per line, and rolls back. Returns the rows created and updated, and the errors.
async fn tried(
    test: &TestOrg,
    assets: &[String],
    dependencies: &[String],
    dry_run: bool,
) -> (i32, i32, Vec<String>) {
    let order = ImportOrder {
        kind: ImportKind::Assets,
        format: ImportFormat::Csv,
        dry_run,
        empty_cells: EmptyCells::Keep,
        idempotency_key: None,
    };
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let Opened::New(run) = ImportRun::open(&tx, &order, at(0)).await.unwrap() else {
        panic!("there is no key")
    };
    for (kind, header, lines) in [
        (ImportKind::Assets, "code external_id name type", assets),
        (
            ImportKind::Dependencies,
            "source_code source_external_id target_code target_external_id",
            dependencies,
        ),
    ] {
        let columns = header.split(' ').map(str::to_owned).collect();
        let rows = i32::try_from(lines.len()).unwrap();
        let content = lines.join("\n") + "\n";
        let chunk = Chunk {
            rows,
            numbers: (2..2 + rows).collect(),
            content: content.into_bytes(),
            faults: Vec::new(),
        };
        let table = Table { kind, columns, delimiter: b',' };
        ImportRun::add_chunk(&tx, run.id, &table, &chunk).await.unwrap();
    }
    ImportRun::mark_received(&tx, run.id, at(1)).await.unwrap();
    let mut faults = Vec::new();
    for index in 0..2 {
        let begun = ImportRun::begin_chunk(&tx, run.id, index).await.unwrap().unwrap();
        let outcome = import::apply(&tx, &begun, Owners::Included, at(1)).await.unwrap();
        let messages = |fault: &import::RowError| format!("{} {}", fault.row, fault.message);
        faults.extend(outcome.faults.iter().map(messages));
        ImportRun::close_chunk(&tx, &begun, &outcome, at(1)).await.unwrap();
    }
    let run = ImportRun::get(&tx, run.id).await.unwrap();
    tx.rollback().await.unwrap();
    (run.created, run.updated, faults)
}

#[tokio::test]
async fn a_dry_run_knows_assets_of_the_file_by_both_of_their_names() {
    let test = TestOrg::new().await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let there = Asset::create(&tx, &host("there"), at(0)).await.unwrap().code;
    tx.commit().await.unwrap();
    let assets = ["NEW-1,e-new,new,host".to_owned(), format!("{there},e-there,there,host")];
    let dependencies = [
        format!("NEW-1,,{there},"),
        ",e-new,,e-there".to_owned(),
        format!("{there},e-there,NEW-1,e-new"),
        "NEW-1,,,e-new".to_owned(),
        format!("{there},,NEW-2,"),
    ];
    let expected = [
        "5 is the source itself: an asset cannot depend on itself",
        "6 there is no asset with the code \"NEW-2\"",
        "3 this dependency is already in row 2, and only that row is imported",
    ];
    for dry_run in [true, false] {
        let (created, updated, faults) = tried(&test, &assets, &dependencies, dry_run).await;
        assert_eq!(
            (created, updated, &faults[..]),
            (3, 1, &expected.map(str::to_owned)[..]),
            "{dry_run}"
        );
    }
}
