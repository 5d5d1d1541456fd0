//! Transactions and their connections. Pools of one connection make every hand-over deterministic.

use std::sync::{Arc, Mutex};

use domain::{
    Db, Error, Origin, Tx,
    base::{
        db::{Kind, LoginRefusal},
        event::Event,
    },
    entity::{AssetId, OrganizationId},
    inventory::asset::Asset,
    testing::TestDb,
};
use tokio_postgres::{Client, Row};

use crate::harness::{at, host, organization, until};

fn pool_of_one(db: &TestDb) -> Db {
    Db::new(&db.url, 1, "one").unwrap()
}

async fn pid<K: Kind>(tx: &Tx<K>) -> i32 {
    tx.one::<Row>("SELECT pg_backend_pid() AS pid", &[]).await.unwrap().get("pid")
}

async fn seen_organization<K: Kind>(tx: &Tx<K>) -> String {
    let sql = "SELECT coalesce(current_setting('app.org_id', true), '') AS org";
    tx.one::<Row>(sql, &[]).await.unwrap().get("org")
}

/// Waits until the backend has ended, and its transaction with it.
async fn gone(superuser: &Client, pid: i32) {
    until(superuser, &format!("NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})")).await;
}

/// Asserts that the next borrower of a pool of one gets a new connection, without an organization.
async fn assert_handed_over_clean(pool: &Db, superuser: &Client, former: i32) {
    let next = pool.auth(Origin::system()).await.unwrap();
    assert_ne!(pid(&next).await, former);
    assert_eq!(seen_organization(&next).await, "");
    gone(superuser, former).await;
}

#[tokio::test]
async fn an_ended_transaction_gives_its_connection_back_without_its_organization() {
    let db = TestDb::new().await;
    let (pool, acme) = (pool_of_one(&db), organization(&db, "acme").await);
    let tx = pool.read(acme).await.unwrap();
    let former = pid(&tx).await;
    assert_eq!(seen_organization(&tx).await, acme.uuid().to_string());
    tx.commit().await.unwrap();
    let next = pool.auth(Origin::system()).await.unwrap();
    assert_eq!((pid(&next).await, seen_organization(&next).await), (former, String::new()));
    next.rollback().await.unwrap();
}

#[tokio::test]
async fn a_dropped_transaction_takes_its_connection_with_it() {
    let db = TestDb::new().await;
    let (pool, acme) = (pool_of_one(&db), organization(&db, "acme").await);
    let tx = pool.write(acme, Origin::system()).await.unwrap();
    let former = pid(&tx).await;
    Asset::create(&tx, &host("lost"), at(0)).await.unwrap();
    drop(tx);
    let superuser = db.superuser().await;
    assert_handed_over_clean(&pool, &superuser, former).await;
    let row = superuser.query_one("SELECT count(*) AS rows FROM asset", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>("rows"), 0);
}

#[tokio::test]
async fn a_transaction_dropped_while_a_statement_runs_cancels_it() {
    let db = TestDb::new().await;
    let (pool, acme) = (pool_of_one(&db), organization(&db, "acme").await);
    let superuser = db.superuser().await;
    let tx = pool.write(acme, Origin::system()).await.unwrap();
    let former = pid(&tx).await;
    let sleeps = format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE pid = {former} AND wait_event = 'PgSleep')"
    );
    tokio::select! {
        slept = tx.all::<Row>("SELECT pg_sleep(30)", &[]) => panic!("it ended: {slept:?}"),
        () = until(&superuser, &sleeps) => {}
    }
    drop(tx);
    assert_handed_over_clean(&pool, &superuser, former).await;
}

#[tokio::test]
async fn a_commit_given_up_half_way_takes_its_connection_with_it() {
    let db = TestDb::new().await;
    let (pool, acme) = (pool_of_one(&db), organization(&db, "acme").await);
    let tx = pool.write(acme, Origin::system()).await.unwrap();
    let former = pid(&tx).await;
    let mut commit = Box::pin(tx.commit());
    tokio::select! {
        biased;
        _ = &mut commit => panic!("it cannot have been answered yet"),
        () = std::future::ready(()) => {}
    }
    drop(commit);
    assert_handed_over_clean(&pool, &db.superuser().await, former).await;
}

#[tokio::test]
async fn a_transaction_dropped_after_a_failed_statement_takes_its_connection_with_it() {
    let db = TestDb::new().await;
    let (pool, acme) = (pool_of_one(&db), organization(&db, "acme").await);
    let tx = pool.read(acme).await.unwrap();
    let former = pid(&tx).await;
    assert!(tx.exec("DELETE FROM asset", &[]).await.is_err(), "it is read-only");
    drop(tx);
    assert_handed_over_clean(&pool, &db.superuser().await, former).await;
}

#[tokio::test]
async fn what_failed_cannot_be_committed() {
    let db = TestDb::new().await;
    let acme = organization(&db, "acme").await;
    let (pool, published) = listening(&db);
    let tx = pool.write(acme, Origin::system()).await.unwrap();
    Asset::create(&tx, &host("lost"), at(0)).await.unwrap();
    assert!(tx.all::<Row>("SELECT 1 / 0", &[]).await.is_err());
    assert!(tx.commit().await.is_err(), "Postgres would roll back and call it a success");
    assert_eq!(published.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn what_failed_can_be_rolled_back_and_keeps_its_connection() {
    let db = TestDb::new().await;
    let pool = pool_of_one(&db);
    let tx = pool.auth(Origin::system()).await.unwrap();
    let former = pid(&tx).await;
    assert!(tx.all::<Row>("SELECT 1 / 0", &[]).await.is_err());
    tx.rollback().await.unwrap();
    assert_eq!(pid(&pool.auth(Origin::system()).await.unwrap()).await, former);
}

fn listening(db: &TestDb) -> (Db, Arc<Mutex<Vec<Event>>>) {
    let published = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&published);
    let publish = move |events| kept.lock().unwrap().extend(events);
    (Db::new(&db.url, 1, "listening").unwrap().publishing(publish), published)
}

#[tokio::test]
async fn events_are_published_after_the_commit() {
    let db = TestDb::new().await;
    let acme = organization(&db, "acme").await;
    let (pool, published) = listening(&db);
    let tx = pool.write(acme, Origin::system()).await.unwrap();
    let asset = Asset::create(&tx, &host("web-1"), at(0)).await.unwrap();
    assert_eq!(published.lock().unwrap().len(), 0);
    tx.commit().await.unwrap();
    assert_eq!(*published.lock().unwrap(), [Event::changed(acme, asset.id)]);
}

#[tokio::test]
async fn events_of_what_did_not_happen_are_not_published() {
    let db = TestDb::new().await;
    let acme = organization(&db, "acme").await;
    let (pool, published) = listening(&db);
    let event = || Event::changed(acme, AssetId::new());
    let rolled_back = pool.write(acme, Origin::system()).await.unwrap();
    rolled_back.emit(event());
    rolled_back.rollback().await.unwrap();
    let dropped = pool.write(acme, Origin::system()).await.unwrap();
    dropped.emit(event());
    drop(dropped);
    pool.write(acme, Origin::system()).await.unwrap().commit().await.unwrap();
    assert_eq!(published.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_refusal_at_the_commit_publishes_nothing() {
    let db = TestDb::new().await;
    let (pool, published) = listening(&db);
    let superuser = db.superuser().await;
    superuser
        .batch_execute(
            "CREATE TABLE late (id int, CONSTRAINT late_key UNIQUE (id) DEFERRABLE INITIALLY DEFERRED);
             GRANT INSERT ON late TO sentryops_auth",
        )
        .await
        .unwrap();
    let tx = pool.auth(Origin::system()).await.unwrap();
    tx.exec("INSERT INTO late VALUES (1), (1)", &[]).await.unwrap();
    tx.emit(Event::changed(OrganizationId::new(), AssetId::new()));
    assert!(tx.commit().await.is_err());
    assert_eq!(published.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_reading_transaction_writes_nothing() {
    let db = TestDb::new().await;
    let acme = organization(&db, "acme").await;
    let tx = db.read(acme).await.unwrap();
    assert!(matches!(Asset::create(&tx, &host("x"), at(0)).await, Err(Error::Postgres(_))));
}

#[tokio::test]
async fn only_what_may_pass_is_worth_another_try() {
    let db = TestDb::new().await;
    let none = db.auth(Origin::system()).await.unwrap();
    let missing = none.one::<Row>("SELECT 1 AS one WHERE false", &[]).await.unwrap_err();
    assert!(!missing.is_transient(), "no row comes of asking again");
    let wrong: Error = none
        .one::<Row>("SELECT 1 AS one", &[])
        .await
        .unwrap()
        .try_get::<_, String>("one")
        .unwrap_err()
        .into();
    assert!(!wrong.is_transient(), "a column does not change its type");

    let lost = db.auth(Origin::system()).await.unwrap();
    let superuser = db.superuser().await;
    superuser.execute("SELECT pg_terminate_backend($1)", &[&pid(&lost).await]).await.unwrap();
    let error = lost.all::<Row>("SELECT 1 AS one", &[]).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn the_schema_has_the_version_of_the_last_migration() {
    let db = TestDb::new().await;
    assert_eq!(db.schema_version().await.unwrap(), migrations::latest());
}

#[tokio::test]
async fn a_schema_without_any_migration_has_version_zero() {
    let db = TestDb::new().await;
    let superuser = db.superuser().await;
    superuser.batch_execute("DROP TABLE schema_migration").await.unwrap();
    assert_eq!(db.schema_version().await.unwrap(), 0);
}

/// Creates a login with these attributes and grants, and returns the reason why the application rejects it.
async fn refusal_of(attributes: &str, grants: &str) -> String {
    let db = TestDb::new().await;
    let superuser = db.superuser().await;
    let row = superuser.query_one("SELECT current_database()::text AS name", &[]).await.unwrap();
    let login = format!("{}_login", row.get::<_, String>("name"));
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {login} LOGIN PASSWORD 'pw' {attributes}; {}",
            grants.replace("LOGIN", &login)
        ))
        .await
        .unwrap();
    let (scheme, rest) = db.url.split_once("://").unwrap();
    let (_, place) = rest.split_once('@').unwrap();
    let pool = Db::new(&format!("{scheme}://{login}:pw@{place}"), 1, "login").unwrap();
    let refusal = match pool.check_login().await {
        Ok(()) => "none".to_owned(),
        Err(LoginRefusal::TooStrong(why)) => why.to_owned(),
        Err(LoginRefusal::NotMember(role)) => format!("not a member of {role}"),
        Err(LoginRefusal::Inherits) => "inherits".to_owned(),
        Err(LoginRefusal::Unavailable(error)) => panic!("{error:?}"),
    };
    drop(pool);
    superuser
        .batch_execute(&format!("DROP ROLE {login}; DROP ROLE IF EXISTS {login}_strong"))
        .await
        .unwrap();
    refusal
}

const ALL: &str = "GRANT sentryops_app, sentryops_auth, sentryops_fleet TO LOGIN";

#[tokio::test]
async fn a_plain_login_may_serve() {
    assert_eq!(refusal_of("NOINHERIT", ALL).await, "none");
}

#[tokio::test]
async fn a_login_that_row_security_does_not_hold_is_refused() {
    assert_eq!(refusal_of("NOINHERIT SUPERUSER", ALL).await, "a superuser");
    let bypasses = "exempt from row security (BYPASSRLS)";
    assert_eq!(refusal_of("NOINHERIT BYPASSRLS", ALL).await, bypasses);
    let owner = format!("{ALL}; GRANT sentryops_owner TO LOGIN");
    assert_eq!(refusal_of("NOINHERIT", &owner).await, "the owner of the tables");
}

#[tokio::test]
async fn a_login_that_can_become_one_whom_row_security_does_not_hold_is_refused() {
    let strong = "CREATE ROLE LOGIN_strong BYPASSRLS; GRANT LOGIN_strong TO LOGIN";
    let refusal = refusal_of("NOINHERIT", &format!("{ALL}; {strong}")).await;
    assert_eq!(refusal, "exempt from row security (BYPASSRLS)");
}

#[tokio::test]
async fn a_login_that_inherits_any_of_its_roles_is_refused() {
    assert_eq!(refusal_of("INHERIT", ALL).await, "inherits");
    // From PostgreSQL 16 on, inheritance is an option of each membership.
    let one = "DO $$ BEGIN IF current_setting('server_version_num')::int >= 160000 THEN
        EXECUTE 'GRANT sentryops_auth TO LOGIN WITH INHERIT TRUE';
    ELSE EXECUTE 'ALTER ROLE LOGIN INHERIT'; END IF; END $$";
    assert_eq!(refusal_of("NOINHERIT", &format!("{ALL}; {one}")).await, "inherits");
}

#[tokio::test]
async fn a_login_that_lacks_a_role_is_refused() {
    let two = "GRANT sentryops_app, sentryops_fleet TO LOGIN";
    assert_eq!(refusal_of("NOINHERIT", two).await, "not a member of sentryops_auth");
    assert_eq!(refusal_of("NOINHERIT", "").await, "not a member of sentryops_app");
}
