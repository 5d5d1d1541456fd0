//! The database roles, and the logins that may migrate.

use migrations::{Error, RolesOutcome, down_to, roles, roles_sql, status_of, up_to, version};
use tokio_postgres::Client;

use crate::database::{TWO, TestDb, tables};

async fn memberships(client: &Client, login: &str) -> Vec<String> {
    let sql = "SELECT ours.rolname::text AS name FROM pg_auth_members AS grants
               JOIN pg_roles AS ours ON ours.oid = grants.roleid
               JOIN pg_roles AS member ON member.oid = grants.member
               WHERE member.rolname = $1::text AND ours.rolname LIKE 'sentryops\\_%' ORDER BY 1";
    client.query(sql, &[&login]).await.unwrap().iter().map(|row| row.get("name")).collect()
}

const THREE: [&str; 3] = ["sentryops_app", "sentryops_auth", "sentryops_fleet"];

#[tokio::test]
async fn a_second_time_changes_nothing_and_needs_no_rights() {
    let db = TestDb::new().await;
    let mut admin = db.admin().await;
    assert_eq!(roles(&mut admin, &db.login).await.unwrap(), RolesOutcome::Unchanged);
    assert_eq!(memberships(&admin, &db.login).await, THREE);
    let mut client = db.session(&db.login).await;
    assert_eq!(roles(&mut client, &db.login).await.unwrap(), RolesOutcome::Unchanged);
}

#[tokio::test]
async fn the_login_has_no_rights_until_it_takes_a_role() {
    let db = TestDb::new().await;
    up_to(&mut db.admin().await, TWO, 2).await.unwrap();
    let mut client = db.session(&db.login).await;
    assert!(client.batch_execute("SELECT FROM a").await.is_err());
    assert!(client.batch_execute("SET ROLE sentryops_owner").await.is_err());
    client
        .batch_execute("BEGIN; SET LOCAL ROLE sentryops_app; SELECT FROM a; COMMIT")
        .await
        .unwrap();

    // The version can be read without a role, and no role stays assumed.
    assert_eq!(version(&mut client).await.unwrap(), Some(2));
    let mut tx = client.transaction().await.unwrap();
    assert_eq!(version(&mut tx).await.unwrap(), Some(2));
    let row = tx.query_one("SELECT current_user = session_user AS same", &[]).await.unwrap();
    assert!(row.get::<_, bool>("same"));
    tx.rollback().await.unwrap();
    assert_eq!(status_of(&mut client, TWO).await.unwrap().len(), 2);
}

#[tokio::test]
async fn the_version_is_readable_where_public_may_nothing() {
    let db = TestDb::new().await;
    up_to(&mut db.admin().await, TWO, 2).await.unwrap();
    let admin = db.admin().await;
    admin
        .batch_execute(
            "REVOKE ALL ON SCHEMA public FROM PUBLIC;
             GRANT USAGE ON SCHEMA public TO sentryops_app, sentryops_auth, sentryops_fleet",
        )
        .await
        .unwrap();
    let mut client = db.session(&db.login).await;
    assert_eq!(version(&mut client).await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_login_that_inherits_is_put_right() {
    let db = TestDb::bare().await;
    let login = db.create_login("inherits", "INHERIT").await;
    let mut admin = db.admin().await;
    let RolesOutcome::Fixed { problems } = roles(&mut admin, &login).await.unwrap() else {
        panic!("nothing was made")
    };
    assert!(
        problems.contains(&format!("{login} inherits the rights of its roles")),
        "{problems:?}"
    );
    let row = admin
        .query_one("SELECT rolinherit FROM pg_roles WHERE rolname = $1::text", &[&login])
        .await
        .unwrap();
    assert!(!row.get::<_, bool>("rolinherit"));
}

#[tokio::test]
async fn many_at_once_all_succeed() {
    let db = TestDb::bare().await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        let (mut client, login) = (db.admin().await, db.login.clone());
        sessions.push(tokio::spawn(async move { roles(&mut client, &login).await }));
    }
    for session in sessions {
        let outcome = session.await.unwrap().unwrap();
        assert!(!matches!(outcome, RolesOutcome::NotPermitted { .. }), "{outcome:?}");
    }
    assert_eq!(memberships(&db.admin().await, &db.login).await, THREE);
}

#[tokio::test]
async fn any_name_is_quoted() {
    let db = TestDb::bare().await;
    let mut admin = db.admin().await;
    let login = format!("{} O'\"r\\ $roles$; --", db.name);
    assert!(matches!(roles(&mut admin, &login).await.unwrap(), RolesOutcome::Fixed { .. }));
    assert_eq!(memberships(&admin, &login).await, THREE);
    admin.batch_execute(&format!("DROP ROLE \"{}\"", login.replace('"', "\"\""))).await.unwrap();
}

#[tokio::test]
async fn a_login_that_is_more_than_the_application_is_refused() {
    let db = TestDb::new().await;
    let mut admin = db.admin().await;
    let member = db.create_login("member", "IN ROLE sentryops_owner").await;
    let bypasses = db.create_login("bypasses", "BYPASSRLS").await;
    let row = admin.query_one("SELECT session_user::text AS us", &[]).await.unwrap();
    for login in [row.get("us"), member, bypasses] {
        let error = roles(&mut admin, &login).await.unwrap_err();
        assert!(matches!(error, Error::Login { .. }), "{error}");
    }
}

#[tokio::test]
async fn who_may_not_make_roles_gets_sql_that_lets_the_owner_migrate() {
    let db = TestDb::bare().await;
    let admin = db.admin().await;
    // A session of a plain sentryops_owner, as with its own DATABASE_OWNER_URL.
    let mut owner = db.admin().await;
    roles(&mut owner, &db.create_login("other", "").await).await.unwrap();
    admin.batch_execute("REVOKE ALL ON SCHEMA public FROM sentryops_owner, PUBLIC").await.unwrap();
    owner.batch_execute("SET SESSION AUTHORIZATION sentryops_owner").await.unwrap();

    let RolesOutcome::NotPermitted { problems } = roles(&mut owner, &db.login).await.unwrap()
    else {
        panic!("permitted")
    };
    assert!(problems.contains(&format!("role {} does not exist", db.login)), "{problems:?}");
    assert_eq!(memberships(&admin, &db.login).await, [""; 0]);
    let error = up_to(&mut owner, TWO, 2).await.unwrap_err();
    assert!(matches!(&error, Error::MayNotCreate { database } if *database == db.name), "{error}");

    for _ in 0..2 {
        admin.batch_execute(&roles_sql(&db.login)).await.unwrap();
    }
    assert_eq!(roles(&mut owner, &db.login).await.unwrap(), RolesOutcome::Unchanged);
    assert_eq!(up_to(&mut owner, TWO, 2).await.unwrap().len(), 2);
    assert_eq!(tables(&owner).await.len(), 3);
    owner.batch_execute("GRANT USAGE ON SCHEMA public TO sentryops_app").await.unwrap();
    let row = owner
        .query_one("SELECT has_schema_privilege('sentryops_app', 'public', 'USAGE') AS may", &[])
        .await
        .unwrap();
    assert!(row.get::<_, bool>("may"));
}

#[tokio::test]
async fn a_member_of_the_owner_migrates_and_others_are_told_how() {
    let db = TestDb::new().await;
    let member = db.create_login("member", "NOINHERIT IN ROLE sentryops_owner").await;
    let mut member = db.session(&member).await;
    up_to(&mut member, TWO, 2).await.unwrap();
    assert_eq!(version(&mut member).await.unwrap(), Some(2));
    assert_eq!(tables(&member).await[0], "a of sentryops_owner");
    down_to(&mut member, TWO, 0).await.unwrap();

    let mut application = db.session(&db.login).await;
    let error = up_to(&mut application, TWO, 2).await.unwrap_err();
    assert!(matches!(&error, Error::NotOwner { login } if *login == db.login), "{error}");
    assert!(error.to_string().contains("DATABASE_OWNER_URL"), "{error}");
}

#[tokio::test]
async fn missing_roles_are_named() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    // In a transaction that `up_to` ends by rolling back, so that other tests never miss the role.
    let hidden = format!("BEGIN; ALTER ROLE sentryops_fleet RENAME TO {}_hidden", db.name);
    client.batch_execute(&hidden).await.unwrap();
    let error = up_to(&mut client, TWO, 2).await.unwrap_err();
    assert!(
        matches!(&error, Error::RolesMissing(roles) if roles == &["sentryops_fleet"]),
        "{error}"
    );
    assert!(error.to_string().contains("`sentryops migrate roles`"), "{error}");
    assert_eq!(up_to(&mut client, TWO, 2).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_administrator_who_is_no_superuser_makes_roles_and_migrates() {
    let db = TestDb::bare().await;
    let login = db.create_login("admin", "CREATEROLE").await;
    // From Postgres 16, a login administers only roles that it created or was granted with ADMIN.
    let given = format!(
        "GRANT ALL ON SCHEMA public TO {login} WITH GRANT OPTION;
         DO $$ BEGIN
             IF current_setting('server_version_num')::int >= 160000 AND to_regrole('sentryops_owner') IS NOT NULL THEN
                 EXECUTE 'GRANT sentryops_owner, sentryops_app, sentryops_auth, sentryops_fleet TO {login}
                     WITH ADMIN TRUE, INHERIT FALSE, SET FALSE';
             END IF;
         END $$"
    );
    db.admin().await.batch_execute(&given).await.unwrap();

    let mut client = db.session(&login).await;
    let outcome = roles(&mut client, &db.login).await.unwrap();
    assert!(matches!(outcome, RolesOutcome::Fixed { .. }), "{outcome:?}");
    assert_eq!(roles(&mut client, &db.login).await.unwrap(), RolesOutcome::Unchanged);
    assert_eq!(up_to(&mut client, TWO, 2).await.unwrap().len(), 2);
    assert_eq!(memberships(&client, &db.login).await, THREE);
}
