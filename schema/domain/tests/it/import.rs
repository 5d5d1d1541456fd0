//! Runs of imports: what is cleared away after them.

use domain::{
    Origin,
    import::{EmptyCells, ImportFormat, ImportKind, ImportOrder, ImportRun, Opened, Sweep},
};

use crate::fixture::{House, at};

#[tokio::test]
async fn what_a_large_run_leaves_behind_is_swept_in_time() {
    let house = House::new().await;
    let order = ImportOrder {
        kind: ImportKind::Assets,
        format: ImportFormat::Csv,
        dry_run: false,
        empty_cells: EmptyCells::Keep,
        idempotency_key: None,
    };
    let tx = house.db.write(house.org, Origin::system()).await.unwrap();
    let Opened::New(run) = ImportRun::open(&tx, &order, at(0)).await.unwrap() else {
        panic!("it is the first")
    };
    ImportRun::fail(&tx, run.id, "the upload broke off", at(1)).await.unwrap();
    tx.commit().await.unwrap();
    let sql = "INSERT INTO import_key (org_id, run_id, key, \"row\")
        SELECT $1, $2, 'external_id n:' || n, n FROM generate_series(1, 30000) AS n";
    house.db.superuser().await.execute(sql, &[&house.org, &run.id]).await.unwrap();

    let mut looks = 0;
    loop {
        let tx = house.db.write(house.org, Origin::system()).await.unwrap();
        let swept = ImportRun::sweep(&tx, run.id, at(2)).await.unwrap();
        tx.commit().await.unwrap();
        looks += 1;
        if swept == Sweep::Clear {
            break;
        }
    }
    assert_eq!(looks, 3);
}
