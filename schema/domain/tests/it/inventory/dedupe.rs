//! Tests of deduplication: an import imports each asset once, whatever identifiers its rows use. Holds in one chunk or
//! several, in a real run and in a dry run.

use domain::{
    Origin,
    base::page::PageRequest,
    entity::OrganizationId,
    inventory::{
        asset::{Asset, AssetFilter, AssetOrder},
        import::{
            self, Chunk, EmptyCells, ImportFormat, ImportKind, ImportOrder, ImportRun, Opened,
            Table,
        },
        owners::Owners,
    },
};

use crate::harness::{TestOrg, at};

const ALL: PageRequest = PageRequest { size: 100, backward: false, after: None, before: None };

/// Imports lines such as `code,external id,name`, `a_chunk` per chunk. Returns the rows created and updated, and the
/// errors.
async fn import(
    test: &TestOrg,
    org: OrganizationId,
    lines: &[&str],
    a_chunk: usize,
    dry_run: bool,
) -> (i32, i32, Vec<String>) {
    let order = ImportOrder {
        kind: ImportKind::Assets,
        format: ImportFormat::Csv,
        dry_run,
        empty_cells: EmptyCells::Keep,
        idempotency_key: None,
    };
    let tx = test.db.write(org, Origin::system()).await.unwrap();
    let Opened::New(run) = ImportRun::open(&tx, &order, at(1)).await.unwrap() else {
        panic!("there is no key")
    };
    let columns = ["code", "external_id", "name", "type"].map(str::to_owned).to_vec();
    let table = Table { kind: ImportKind::Assets, columns, delimiter: b',' };
    let numbered: Vec<_> = (2..).zip(lines).collect();
    for part in numbered.chunks(a_chunk) {
        let lines: Vec<&str> = part.iter().map(|(_, line)| **line).collect();
        let content = lines.join(",host\n") + ",host\n";
        let chunk = Chunk {
            rows: i32::try_from(part.len()).unwrap(),
            numbers: part.iter().map(|(number, _)| *number).collect(),
            content: content.into_bytes(),
            faults: Vec::new(),
        };
        ImportRun::add_chunk(&tx, run.id, &table, &chunk).await.unwrap();
    }
    ImportRun::mark_received(&tx, run.id, at(1)).await.unwrap();
    let (mut index, mut faults) = ((!lines.is_empty()).then_some(0), Vec::new());
    while let Some(next) = index {
        let begun = ImportRun::begin_chunk(&tx, run.id, next).await.unwrap().unwrap();
        let outcome = import::apply(&tx, &begun, Owners::Included, at(1)).await.unwrap();
        faults
            .extend(outcome.faults.iter().map(|fault| format!("{} {}", fault.row, fault.message)));
        index = ImportRun::close_chunk(&tx, &begun, &outcome, at(1)).await.unwrap();
    }
    let run = ImportRun::get(&tx, run.id).await.unwrap();
    tx.commit().await.unwrap();
    (run.created, run.updated, faults)
}

async fn names(test: &TestOrg) -> Vec<String> {
    let tx = test.db.read(test.org).await.unwrap();
    let page =
        Asset::list(&tx, &AssetFilter::default(), AssetOrder::default(), &ALL).await.unwrap();
    let messages = page.rows.into_iter().map(|asset| {
        let external_id = asset.external_id.unwrap_or_default();
        format!("{} {external_id} {}", asset.code, asset.name)
    });
    let mut messages: Vec<_> = messages.collect();
    messages.sort();
    messages
}

/// Imports `first`, then `rows`, and checks the errors and the assets afterwards. A row for the same asset as an
/// earlier row must have no effect.
async fn check(first: &[&str], rows: &[&str], messages: &[&str], after: &[&str]) {
    for a_chunk in [10, 1] {
        let test = TestOrg::new().await;
        import(&test, test.org, first, 10, false).await;
        let before = names(&test).await;
        let dry = import(&test, test.org, rows, a_chunk, true).await;
        assert_eq!(names(&test).await, before, "a dry run changes nothing");
        let done = import(&test, test.org, rows, a_chunk, false).await;
        assert_eq!(done.2, messages, "{a_chunk} a chunk");
        assert_eq!(names(&test).await, after, "{a_chunk} a chunk");
        assert_eq!(dry, done, "the dry run says what the run does");
    }
}

#[tokio::test]
async fn two_new_rows_of_one_code_are_one_asset() {
    let messages = ["3 this asset is already in row 2, and only that row is imported"];
    check(
        &[],
        &["HST-A,e1,one", "HST-A,e2,two", "HST-C,e3,three"],
        &messages,
        &["HST-A e1 one", "HST-C e3 three"],
    )
    .await;
}

#[tokio::test]
async fn an_asset_that_is_there_is_changed_by_one_row() {
    let messages = ["3 this asset is already in row 2, and only that row is imported"];
    check(&["HST-A,,one"], &["HST-A,e1,uno", "HST-A,e2,due"], &messages, &["HST-A e1 uno"]).await;
}

#[tokio::test]
async fn an_external_id_that_a_row_gives_is_taken_for_the_next() {
    let messages = ["3 this asset is already in row 2, and only that row is imported"];
    let first = ["HST-A,,one"];
    check(&first, &["HST-A,e1,uno", ",e1,due"], &messages, &["HST-A e1 uno"]).await;
}

#[tokio::test]
async fn a_code_that_differs_is_told() {
    let messages = ["2 is not the code of this asset, which is HST-A: a code cannot change"];
    check(&["HST-A,e1,one"], &["HST-B,e1,uno"], &messages, &["HST-A e1 one"]).await;
}
