//! The migrations of this binary, up and down.

use migrations::{Applied, Error, all, down, latest, up, up_to, version};
use tokio_postgres::Client;

use crate::database::TestDb;

/// Returns all objects and grants that migrations left behind, except `schema_migration`.
async fn leftovers(client: &Client) -> Vec<String> {
    let rows = client
        .query(
            "WITH home AS (SELECT oid FROM pg_namespace WHERE nspname = 'public')
             SELECT 'relation ' || relname AS entry FROM pg_class, home
             WHERE relnamespace = home.oid AND relname NOT IN ('schema_migration', 'schema_migration_pkey')
             UNION ALL
             SELECT 'function ' || proname FROM pg_proc, home WHERE pronamespace = home.oid
             UNION ALL
             SELECT 'type ' || typname FROM pg_type, home
             WHERE typnamespace = home.oid AND typname NOT IN ('schema_migration', '_schema_migration')
             UNION ALL
             SELECT 'operator ' || oprname FROM pg_operator, home WHERE oprnamespace = home.oid
             UNION ALL
             SELECT 'collation ' || collname FROM pg_collation, home WHERE collnamespace = home.oid
             UNION ALL
             SELECT 'text search ' || cfgname FROM pg_ts_config, home WHERE cfgnamespace = home.oid
             UNION ALL
             SELECT 'extension ' || extname FROM pg_extension WHERE extname <> 'plpgsql'
             UNION ALL
             SELECT 'schema ' || nspname FROM pg_namespace
             WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('public', 'information_schema')
             UNION ALL
             SELECT 'default privileges of ' || defaclrole::regrole FROM pg_default_acl
             UNION ALL
             SELECT 'event trigger ' || evtname FROM pg_event_trigger
             UNION ALL
             SELECT 'setting ' || unnest(setconfig) FROM pg_db_role_setting
             WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
             ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get("entry")).collect()
}

/// Returns the applied migrations, or panics with the error as the operator reads it.
fn expect_applied(outcome: Result<Vec<Applied>, Error>) -> Vec<Applied> {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn our_own_go_up_and_down_and_up_on_an_empty_database() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    let count = all().len();
    let newest = (count > 0).then(latest);
    for _ in 0..2 {
        assert_eq!(expect_applied(up(&mut client).await).len(), count);
        assert_eq!(version(&mut client).await.unwrap(), newest);
        assert_eq!(version(&mut db.session(&db.login).await).await.unwrap(), newest);
        assert_eq!(expect_applied(down(&mut client, 0).await).len(), count);
        assert_eq!(leftovers(&client).await, [""; 0]);
    }
    assert_eq!(expect_applied(up(&mut client).await).len(), count);
}

/// Returns a textual description of everything that a migration can create.
async fn shape(client: &Client) -> Vec<String> {
    let rows = client
        .query(
            "WITH ours AS (SELECT * FROM pg_class WHERE relnamespace = 'public'::regnamespace)
             SELECT format('%s %s %s %s', relname, relkind, relrowsecurity, relforcerowsecurity) AS entry
             FROM ours
             UNION ALL
             SELECT format('%s options %s', relname, unnest(reloptions)) FROM ours
             UNION ALL
             SELECT format('%s grants %s', relname, unnest(relacl)) FROM ours
             UNION ALL
             SELECT format('%s.%s %s %s %s', relname, attname, format_type(atttypid, atttypmod), attnotnull,
                           pg_get_expr(adbin, adrelid))
             FROM ours
             JOIN pg_attribute ON attrelid = ours.oid AND attnum > 0 AND NOT attisdropped
             LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
             UNION ALL
             SELECT format('%s.%s grants %s', relname, attname, unnest(attacl))
             FROM ours JOIN pg_attribute ON attrelid = ours.oid AND NOT attisdropped
             UNION ALL
             SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace
             UNION ALL
             SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
             UNION ALL
             SELECT pg_get_viewdef(oid) FROM ours WHERE relkind IN ('v', 'm')
             UNION ALL
             SELECT format('%s %s %s %s', polrelid::regclass, polname, pg_policies.*, polpermissive)
             FROM pg_policy JOIN pg_policies ON policyname = polname AND schemaname = 'public'
             UNION ALL
             SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
             UNION ALL
             SELECT pg_get_functiondef(oid) FROM pg_proc
             WHERE pronamespace = 'public'::regnamespace AND prokind IN ('f', 'p')
             UNION ALL
             SELECT format('%s grants %s', oid::regprocedure, unnest(proacl)) FROM pg_proc
             WHERE pronamespace = 'public'::regnamespace
             UNION ALL
             SELECT format('%s %s', typname, typtype) FROM pg_type WHERE typnamespace = 'public'::regnamespace
             UNION ALL
             SELECT format('schema grants %s', unnest(nspacl)) FROM pg_namespace WHERE nspname = 'public'
             ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get("entry")).collect()
}

#[tokio::test]
async fn each_way_down_undoes_exactly_its_way_up() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    expect_applied(up_to(&mut client, all(), 0).await);
    for migration in all() {
        let version = migration.version;
        let before = shape(&client).await;
        expect_applied(up_to(&mut client, all(), version).await);
        expect_applied(down(&mut client, version - 1).await);
        let after = shape(&client).await;
        let gone: Vec<_> = before.iter().filter(|entry| !after.contains(entry)).collect();
        let left: Vec<_> = after.iter().filter(|entry| !before.contains(entry)).collect();
        assert!(
            gone.is_empty() && left.is_empty(),
            "{version:04} {}: gone {gone:#?}, left {left:#?}",
            migration.name
        );
        expect_applied(up_to(&mut client, all(), version).await);
    }
}

#[tokio::test]
async fn what_was_known_before_facts_had_sources_is_declared() {
    let db = TestDb::new().await;
    let mut client = db.admin().await;
    expect_applied(up_to(&mut client, all(), 12).await);
    let asset = "
        INSERT INTO organization (id, slug, name, created_at) VALUES (gen_random_uuid(), 'acme', 'Acme', now());
        INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, attributes, created_at, updated_at)
        SELECT id, gen_random_uuid(), 'A-' || n, 'web', 'HOST', 'ACTIVE', 'PROD',
               CASE n WHEN 1 THEN '{\"os_name\": \"Debian\"}' ELSE '{}' END::jsonb, now(), '2026-05-01T00:00:00Z'
        FROM organization, generate_series(1, 2) AS n";
    client.batch_execute(asset).await.unwrap();
    expect_applied(up_to(&mut client, all(), 13).await);
    let rows = client.query("SELECT sources::text FROM asset ORDER BY code", &[]).await.unwrap();
    let sources: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(sources, ["{\"os_name\": [\"DECLARED\", 1777593600000]}", "{}"]);
}
