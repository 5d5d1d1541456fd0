//! Migrations that Postgres rejects, and other sessions that block them.

use std::time::{Duration, Instant};

use migrations::{Error, Failure, down_to, up_to, version};

use crate::database::{TWO, TestDb, and_then, tables};

fn failure(error: Error) -> Failure {
    match error {
        Error::Failed(failure) => *failure,
        other => panic!("{other:?}"),
    }
}

/// Applies `up` as the third migration and returns its failure; the two before it must stay applied.
async fn third(up: &'static str) -> Failure {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    let error = up_to(&mut client, &and_then(up, ""), 3).await.unwrap_err();
    assert_eq!(version(&mut client).await.unwrap(), Some(2));
    assert_eq!(tables(&client).await.len(), 3, "{error}");
    let failure = failure(error);
    assert!(failure.to_string().starts_with("0003_c.up.sql"), "{failure}");
    failure
}

#[tokio::test]
async fn a_failing_migration_leaves_nothing_of_itself_and_names_its_line() {
    let cases = [
        ("CREATE TABLE c ();\n\nCREATE TABEL d ();", "42601", 3),
        ("-- é\nCREATE TABLE c ();\nALTER TABLE c\n  ADD x nope;", "42704", 4),
        ("CREATE TABLE c ();\n-- no position in this one\nCREATE TABLE a ();", "42P07", 3),
        ("CREATE TABLE c ();\nSELECT 1;\nINSERT INTO b VALUES\n (1);", "23503", 3),
        ("CREATE TABLE c ();\nDO $$ BEGIN\n RAISE 'no; never';\nEND $$;", "P0001", 2),
        ("CREATE TABLE c ();\nCREATE INDEX CONCURRENTLY ON c ((1));", "25001", 2),
    ];
    for (up, sqlstate, line) in cases {
        let failure = third(up).await;
        assert_eq!(failure.sqlstate.as_ref().unwrap().code(), sqlstate, "{failure}");
        assert_eq!(failure.line, Some(line), "{failure}");
        let text = failure.to_string();
        assert!(text.contains(sqlstate) && text.contains(&failure.message), "{text}");
    }
}

#[tokio::test]
async fn what_fails_at_commit_has_no_line_and_is_undone() {
    let failure = third(
        "CREATE TABLE c (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO c VALUES (1);",
    )
    .await;
    assert_eq!((failure.sqlstate.unwrap().code(), failure.line), ("23503", None));
}

#[tokio::test]
async fn a_way_down_that_fails_leaves_the_migration_applied() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    let list = and_then("CREATE TABLE c ()", "DROP TABLE c;\nDROP TABLE nowhere;");
    up_to(&mut client, &list, 3).await.unwrap();
    let failure = failure(down_to(&mut client, &list, 0).await.unwrap_err());
    assert_eq!(failure.line, Some(2));
    assert!(failure.to_string().starts_with("0003_c.down.sql:2 "), "{failure}");
    assert_eq!(version(&mut client).await.unwrap(), Some(3));
    assert_eq!(tables(&client).await.len(), 4);
}

#[tokio::test]
async fn a_table_in_use_fails_the_migration_after_three_seconds() {
    let db = TestDb::new().await;
    let (mut client, user) = (db.admin().await, db.admin().await);
    up_to(&mut client, TWO, 2).await.unwrap();
    user.batch_execute("BEGIN; LOCK TABLE a").await.unwrap();

    let started = Instant::now();
    let list = and_then("SELECT 1;\nALTER TABLE a ADD x int;", "");
    let failure = failure(up_to(&mut client, &list, 3).await.unwrap_err());
    let waited = started.elapsed();
    assert!(waited > Duration::from_millis(2900) && waited < Duration::from_secs(6), "{waited:?}");
    assert_eq!((failure.sqlstate.as_ref().unwrap().code(), failure.line), ("55P03", Some(2)));
    assert!(failure.to_string().contains("run it again"), "{failure}");

    user.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(up_to(&mut client, &list, 3).await.unwrap().len(), 1);
}

#[tokio::test]
async fn limits_of_the_login_do_not_stop_a_long_migration() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    client.batch_execute("SET statement_timeout = '200ms'").await.unwrap();
    let list = and_then("SELECT pg_sleep(0.4);", "");
    assert_eq!(up_to(&mut client, &list, 3).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_broken_connection_is_told_as_such() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    let list = and_then("CREATE TABLE c ();\nSELECT pg_terminate_backend(pg_backend_pid());", "");
    let failure = failure(up_to(&mut client, &list, 3).await.unwrap_err());
    assert!(failure.to_string().starts_with("0003_c.up.sql"), "{failure}");
    let mut client = db.admin().await;
    assert_eq!(version(&mut client).await.unwrap(), Some(2));
    assert_eq!(tables(&client).await.len(), 3);
}
