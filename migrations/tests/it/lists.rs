//! The runner with example migrations, up and down.

use std::collections::BTreeMap;

use migrations::{Direction, Error, Migration, State, down_to, status_of, up_to, version};
use tokio_postgres::Client;

use crate::database::{TWO, TestDb, and_then, tables};

fn versions(applied: &[migrations::Applied]) -> Vec<(i32, Direction)> {
    applied.iter().map(|one| (one.version, one.direction)).collect()
}

async fn states(client: &mut Client, list: &[Migration]) -> Vec<(i32, &'static str)> {
    let statuses = status_of(client, list).await.unwrap();
    let word = |state| match state {
        State::Applied { .. } => "applied",
        State::Changed { .. } => "changed",
        State::Pending => "pending",
        State::Unknown { .. } => "unknown",
    };
    statuses.iter().map(|status| (status.version, word(status.state))).collect()
}

#[tokio::test]
async fn up_and_down_and_up_again() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    assert_eq!(states(&mut client, TWO).await, [(1, "pending"), (2, "pending")]);
    assert_eq!(version(&mut client).await.unwrap(), None);

    let applied = up_to(&mut client, TWO, 1).await.unwrap();
    assert_eq!(versions(&applied), [(1, Direction::Up)]);
    assert_eq!(states(&mut client, TWO).await, [(1, "applied"), (2, "pending")]);

    let applied = up_to(&mut client, TWO, 2).await.unwrap();
    assert_eq!(versions(&applied), [(2, Direction::Up)]);
    assert_eq!(version(&mut client).await.unwrap(), Some(2));
    assert_eq!(up_to(&mut client, TWO, 2).await.unwrap(), []);
    let owned =
        ["a of sentryops_owner", "b of sentryops_owner", "schema_migration of sentryops_owner"];
    assert_eq!(tables(&client).await, owned);

    let gone = down_to(&mut client, TWO, 0).await.unwrap();
    assert_eq!(versions(&gone), [(2, Direction::Down), (1, Direction::Down)]);
    assert_eq!(tables(&client).await, owned[2..]);
    assert_eq!(version(&mut client).await.unwrap(), None);
    assert_eq!(down_to(&mut client, TWO, 0).await.unwrap(), []);

    assert_eq!(up_to(&mut client, TWO, 2).await.unwrap().len(), 2);
    let gone = down_to(&mut client, TWO, 1).await.unwrap();
    assert_eq!(versions(&gone), [(2, Direction::Down)]);
}

#[tokio::test]
async fn the_session_is_left_as_it_was() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    let show = "SELECT current_user::text, current_setting('lock_timeout'), current_setting('search_path'),
                       (SELECT count(*)::text FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')";
    client.batch_execute("SET lock_timeout = '7s'; SET search_path = pg_catalog").await.unwrap();
    up_to(&mut client, TWO, 2).await.unwrap();
    let row = client.query_one(show, &[]).await.unwrap();
    let left: Vec<String> = (0..4).map(|column| row.get(column)).collect();
    assert_eq!(left[1..], ["7s", "pg_catalog", "0"]);
    assert_ne!(left[0], "sentryops_owner");
}

#[tokio::test]
async fn a_version_that_does_not_exist_is_refused() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    for requested in [-1, 3] {
        let error = up_to(&mut client, TWO, requested).await.unwrap_err();
        assert!(matches!(error, Error::Target { latest: 2, .. }), "{error}");
        let error = down_to(&mut client, TWO, requested).await.unwrap_err();
        assert!(matches!(error, Error::Target { latest: 2, .. }), "{error}");
    }
}

#[tokio::test]
async fn two_runs_at_once_apply_everything_once() {
    let db = TestDb::new().await;
    let (mut one, mut other) = (db.admin().await, db.admin().await);
    let list = and_then("SELECT pg_sleep(0.2); CREATE TABLE c ()", "DROP TABLE c");
    let (one, other) = tokio::join!(up_to(&mut one, &list, 3), up_to(&mut other, &list, 3));
    let mut counts: BTreeMap<i32, u32> = BTreeMap::new();
    for applied in one.unwrap().iter().chain(&other.unwrap()) {
        *counts.entry(applied.version).or_default() += 1;
    }
    assert_eq!(counts, BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
}

#[tokio::test]
async fn a_newer_database_is_used_but_not_taken_down() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    let newer = and_then("CREATE TABLE c ()", "DROP TABLE c");
    up_to(&mut client, &newer, 3).await.unwrap();

    assert_eq!(up_to(&mut client, TWO, 2).await.unwrap(), []);
    assert_eq!(states(&mut client, TWO).await, [(1, "applied"), (2, "applied"), (3, "unknown")]);
    assert_eq!(version(&mut client).await.unwrap(), Some(3));
    let error = down_to(&mut client, TWO, 0).await.unwrap_err();
    assert!(matches!(&error, Error::Unknown(unknown) if unknown == &[3]), "{error}");
    assert_eq!(version(&mut client).await.unwrap(), Some(3));
}

#[tokio::test]
async fn a_changed_migration_stops_both_ways() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    up_to(&mut client, TWO, 2).await.unwrap();
    let mut changed = and_then("CREATE TABLE c ()", "DROP TABLE c");
    changed[0].up = "CREATE TABLE a (id bigint PRIMARY KEY);";

    let ways = [up_to(&mut client, &changed, 3).await, down_to(&mut client, &changed, 0).await];
    for error in ways.map(Result::unwrap_err) {
        assert!(error.to_string().contains("0001 a"), "{error}");
        assert!(matches!(error, Error::Changed { version: 1, .. }));
    }
    assert_eq!(
        states(&mut client, &changed).await,
        [(1, "changed"), (2, "applied"), (3, "pending")]
    );
}

#[tokio::test]
async fn a_hole_in_what_is_applied_is_not_filled() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    up_to(&mut client, TWO, 2).await.unwrap();
    client.batch_execute("DELETE FROM schema_migration WHERE version = 1").await.unwrap();
    let error = up_to(&mut client, TWO, 2).await.unwrap_err();
    assert!(matches!(error, Error::OutOfOrder { missing: 1, applied: 2 }), "{error}");
}
