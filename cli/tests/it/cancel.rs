//! A client that disconnects cancels its statements in the database.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio_postgres::Client as Postgres;

use crate::{
    client::Client,
    server::{TestDeployment, until, within},
    team::Team,
    wire,
};

/// Counts the statements of this database that wait for a lock.
pub async fn waiting(postgres: &Postgres) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'";
    postgres.query_one(sql, &[]).await.unwrap().get(0)
}

/// Locks the table of assets, so that every reader waits.
pub async fn lock(deployment: &TestDeployment) -> Postgres {
    let holder = deployment.db.superuser().await;
    holder.batch_execute("BEGIN; LOCK TABLE asset IN ACCESS EXCLUSIVE MODE").await.unwrap();
    holder
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_query_leaves_nothing_running() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api().await;
    let team = Team::new(&deployment, &api).await;
    let watcher = deployment.db.superuser().await;
    let body = br#"{"query":"{ assets { nodes { name } totalCount } }"}"#;
    let request = wire::post(Some(&team.owner.access), body);
    let holder = lock(&deployment).await;
    // More clients than the pool has connections: no connection may leak.
    for _ in 0..8 {
        let mut stream = wire::connect(&api).await;
        stream.write_all(&request).await.unwrap();
        let is_waiting = async || (waiting(&watcher).await > 0).then_some(());
        until("the query waits for the lock", is_waiting).await;
        drop(stream);
        let is_calm = async || (waiting(&watcher).await == 0).then_some(());
        within(Duration::from_secs(1), "the query is cancelled", is_calm).await;
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let is_clean = async || {
        let open: i64 = watcher.query_one(sql, &[]).await.unwrap().get(0);
        (open == 0).then_some(())
    };
    within(Duration::from_secs(1), "no transaction is left open", is_clean).await;
    let answer = team.owner.client.execute("{ assets { totalCount } }").await;
    assert_eq!(answer.codes(), Vec::<&str>::new(), "{}", answer.text);
}

#[tokio::test]
async fn a_mutation_whose_client_left_is_whole_or_not_at_all() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api().await;
    let team = Team::new(&deployment, &api).await;
    let watcher = deployment.db.superuser().await;
    let body =
        br#"{"query":"mutation { createAsset(input: { name: \"Half\", type: HOST }) { id } }"}"#;
    let request = wire::post(Some(&team.owner.access), body);
    let counts = async || -> (i64, i64) {
        let sql = "SELECT (SELECT count(*) FROM asset),
                          (SELECT count(*) FROM audit_entry WHERE action = 'asset.created')";
        let row = watcher.query_one(sql, &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    let holder = lock(&deployment).await;
    let mut stream = wire::connect(&api).await;
    stream.write_all(&request).await.unwrap();
    until("the insert waits", async || (waiting(&watcher).await > 0).then_some(())).await;
    drop(stream);
    let is_calm = async || (waiting(&watcher).await == 0).then_some(());
    within(Duration::from_secs(1), "the insert is cancelled", is_calm).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(counts().await, (0, 0));
    let client: &Client = &team.owner.client;
    let answer = client
        .execute("mutation { createAsset(input: { name: \"Whole\", type: HOST }) { id } }")
        .await;
    assert_eq!(answer.codes(), Vec::<&str>::new(), "{}", answer.text);
    assert_eq!(counts().await, (1, 1));
}
