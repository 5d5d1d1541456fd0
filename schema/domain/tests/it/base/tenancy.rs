//! Isolation of organizations: no code can read or change rows of another one, even if it forgets a condition.

use async_graphql::MaybeUndefined;
use domain::{
    Origin, Tx,
    access::{
        api_key::{ApiKey, NewApiKey},
        audit::{AuditEntry, AuditQuery},
        organization::Organization,
        permission::{BuiltinRole, Permission},
        user::User,
    },
    base::{db::Kind, page::PageRequest},
    compliance::run::{Run, RunTrigger},
    entity::{ApiKeyId, AuditEntryId, OrganizationId, UserId},
    fleet::{
        job::{Job, NEW_ID},
        schedule::{Schedule, ScheduleAction, ScheduleInput},
    },
    inventory::{
        asset::{
            Asset, AssetFilter, AssetOrder, CreateAssetInput, LifecycleState, UpdateAssetInput,
        },
        custody::Custody,
        dependency::Dependency,
    },
    testing::TestDb,
};
use tokio_postgres::{Row, error::SqlState};

use crate::harness::{assert_not_found, at, conflict, host, organization, person, viewer};

/// An organization with one row of every kind.
struct Tenant {
    org: OrganizationId,
    user: UserId,
    key: ApiKeyId,
    asset: Asset,
    audit: AuditEntryId,
}

const ALL: PageRequest = PageRequest { size: 100, backward: false, after: None, before: None };

async fn tenant(db: &TestDb, slug: &str) -> Tenant {
    let org = organization(db, slug).await;
    let user = person(db, org, &format!("{slug}@x.com"), &["owner"]).await;
    let tx = db.auth(Origin::system()).await.unwrap();
    let new = NewApiKey {
        name: slug.into(),
        permissions: vec![Permission::AssetRead],
        expires_at: at(60),
        allowed_cidrs: Vec::new(),
    };
    let owner = viewer(org, user, BuiltinRole::Owner);
    let (key, _) = ApiKey::create(&tx, &owner, new, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    let tx = db.write(org, Origin::system()).await.unwrap();
    let asset = Asset::create(&tx, &host("same name"), at(0)).await.unwrap();
    let needed = Asset::create(&tx, &host("another"), at(0)).await.unwrap();
    Dependency::add(&tx, asset.id, needed.id, None, None, at(0)).await.unwrap();
    Custody::check_out(&tx, asset.id, user, None, at(0)).await.unwrap();
    let input = ScheduleInput {
        name: slug.into(),
        cron: "0 2 * * *".into(),
        time_zone: "UTC".into(),
        action: ScheduleAction::ComplianceRun,
        enabled: true,
    };
    Schedule::save(&tx, &owner, &input, at(0)).await.unwrap();
    Run::start(&tx, RunTrigger::Manual, None, None, at(0)).await.unwrap();
    for _ in 0..2 {
        let sql = format!(
            "INSERT INTO job (id, org_id, queue, kind, version, payload, state, priority, run_at, max_attempts, actor_kind,
                              queued_at, changed_at)
             VALUES ({NEW_ID}, $1, 'SCAN', 'scan.shard', 1, '{{}}', 'WAITING', 0, now(), 3, 'system', now(), now()) RETURNING id"
        );
        let job: Row = tx.one(&sql, &[&org]).await.unwrap();
        if count(&tx, "job").await == 2 {
            Job::cancel(&tx, job.get("id")).await.unwrap();
        }
    }
    let audit = AuditEntry::list(&tx, &AuditQuery::default(), &ALL).await.unwrap().rows[0].id;
    tx.commit().await.unwrap();
    Tenant { org, user, key: key.id, asset, audit }
}

async fn two() -> (TestDb, Tenant, Tenant) {
    let db = TestDb::new().await;
    let (acme, evil) = (tenant(&db, "acme").await, tenant(&db, "evil").await);
    (db, acme, evil)
}

async fn count<K: Kind>(tx: &Tx<K>, table: &str) -> i64 {
    let row: Row = tx.one(&format!("SELECT count(*) AS rows FROM {table}"), &[]).await.unwrap();
    row.get("rows")
}

const TABLES: [&str; 14] = [
    "organization",
    "\"user\"",
    "role",
    "membership",
    "membership_role",
    "api_key",
    "audit_entry",
    "asset",
    "dependency",
    "custody",
    "job",
    "job_history",
    "compliance_run",
    "schedule",
];

#[tokio::test]
async fn without_an_organization_there_are_no_rows() {
    let (db, acme, _) = two().await;
    let tx = db.read(acme.org).await.unwrap();
    for table in TABLES {
        assert!(count(&tx, table).await > 0, "{table}");
    }
    for unset in ["SET LOCAL app.org_id = ''", "RESET app.org_id"] {
        tx.exec(unset, &[]).await.unwrap();
        for table in TABLES.into_iter().chain(["session"]) {
            assert_eq!(count(&tx, table).await, 0, "{table} after {unset}");
        }
    }
}

#[tokio::test]
async fn an_organization_sees_its_own_rows_only() {
    let (db, acme, evil) = two().await;
    let tx = db.read(acme.org).await.unwrap();
    for table in TABLES.into_iter().filter(|table| !["organization", "\"user\""].contains(table)) {
        let sql = format!("SELECT count(*) AS rows FROM {table} WHERE org_id <> $1");
        let row: Row = tx.one(&sql, &[&acme.org]).await.unwrap();
        assert_eq!(row.get::<_, i64>("rows"), 0, "{table}");
    }
    assert_eq!((count(&tx, "organization").await, count(&tx, "\"user\"").await), (1, 1));
    assert_eq!(Organization::current(&tx).await.unwrap().id, acme.org);
    assert_eq!(User::of_ids(&tx, &[acme.user, evil.user]).await.unwrap().len(), 1);
    assert_eq!(User::list(&tx, &ALL).await.unwrap().rows.len(), 1);
    assert_eq!(User::count(&tx).await.unwrap(), 1);
    assert_eq!(ApiKey::list(&tx).await.unwrap().len(), 1);
    assert_eq!(ApiKey::of_ids(&tx, &[acme.key, evil.key]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_asset_of_another_organization_is_not_found() {
    let (db, acme, evil) = two().await;
    let tx = db.write(evil.org, Origin::system()).await.unwrap();
    let id = acme.asset.id;
    assert!(Asset::find(&tx, id).await.unwrap().is_none());
    assert!(Asset::find_by_code(&tx, &acme.asset.code).await.unwrap().is_none());
    let rename =
        UpdateAssetInput { name: MaybeUndefined::Value("mine now".into()), ..Default::default() };
    assert_not_found(Asset::update(&tx, id, &rename, at(1)).await);
    assert_not_found(Asset::set_lifecycle(&tx, id, LifecycleState::Retired, at(1)).await);
    assert_not_found(Asset::delete(&tx, id, at(1)).await);
    let filter = AssetFilter { text: Some("same".into()), ..Default::default() };
    let listed = Asset::list(&tx, &filter, AssetOrder::default(), &ALL).await.unwrap();
    assert_eq!(listed.rows.iter().map(|asset| asset.id).collect::<Vec<_>>(), [evil.asset.id]);
    assert_eq!(Asset::count(&tx, &filter).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let tx = db.read(acme.org).await.unwrap();
    assert_eq!(Asset::find(&tx, id).await.unwrap().as_ref(), Some(&acme.asset));
}

#[tokio::test]
async fn statements_that_name_no_organization_touch_ones_own_rows() {
    let (db, acme, evil) = two().await;
    let tx = db.write(evil.org, Origin::system()).await.unwrap();
    assert_eq!(tx.exec("UPDATE asset SET name = 'mine'", &[]).await.unwrap(), 2);
    let theirs = tx.exec("UPDATE asset SET name = 'mine' WHERE org_id = $1", &[&acme.org]).await;
    assert_eq!(theirs.unwrap(), 0);
    assert_eq!(tx.exec("DELETE FROM asset", &[]).await.unwrap(), 2);
    tx.commit().await.unwrap();
    let tx = db.read(acme.org).await.unwrap();
    assert_eq!(Asset::find(&tx, acme.asset.id).await.unwrap(), Some(acme.asset));
}

/// Returns true if the statement failed because of row security.
async fn is_refused(db: &TestDb, org: OrganizationId, sql: &str, of: OrganizationId) -> bool {
    let tx = db.write(org, Origin::system()).await.unwrap();
    match tx.exec(sql, &[&of]).await {
        Err(domain::Error::Postgres(error)) => {
            error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
        }
        _ => false,
    }
}

#[tokio::test]
async fn rows_are_not_written_into_another_organization() {
    let (db, acme, evil) = two().await;
    let insert = "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, created_at, updated_at)
        VALUES ($1, gen_random_uuid(), 'HST-X', 'x', 'HOST', 'ACTIVE', 'PROD', now(), now())";
    assert!(is_refused(&db, evil.org, insert, acme.org).await);
    assert!(is_refused(&db, evil.org, "UPDATE asset SET org_id = $1", acme.org).await);
    let audit = "INSERT INTO audit_entry (org_id, id, at, actor_kind, action, entity_type, entity_id, changed_paths)
        VALUES ($1, gen_random_uuid(), now(), 'system', 'x', 'asset', gen_random_uuid(), '{}')";
    assert!(is_refused(&db, evil.org, audit, acme.org).await);
}

#[tokio::test]
async fn the_application_changes_no_people() {
    let (db, acme, _) = two().await;
    for sql in [
        "UPDATE membership SET permissions = '{FLEET_MANAGE}' WHERE org_id = $1",
        "UPDATE role SET permissions = '{FLEET_MANAGE}' WHERE org_id = $1",
        "UPDATE organization SET name = 'x' WHERE id = $1",
        "DELETE FROM session WHERE org_id = $1",
        "SELECT password_hash FROM \"user\" WHERE id = $1",
        "SELECT secret_hash FROM api_key WHERE org_id = $1",
    ] {
        assert!(is_refused(&db, acme.org, sql, acme.org).await, "{sql}");
    }
}

#[tokio::test]
async fn the_owner_of_an_asset_is_a_member_of_its_organization() {
    let (db, acme, evil) = two().await;
    let sentence = "the owner is not a member of this organization";
    let tx = db.write(acme.org, Origin::system()).await.unwrap();
    let input = CreateAssetInput { owner: Some(evil.user), ..host("x") };
    assert_eq!(conflict(Asset::create(&tx, &input, at(1)).await), sentence);
    drop(tx);
    let tx = db.write(acme.org, Origin::system()).await.unwrap();
    let patch = UpdateAssetInput { owner: MaybeUndefined::Value(evil.user), ..Default::default() };
    assert_eq!(conflict(Asset::update(&tx, acme.asset.id, &patch, at(1)).await), sentence);
    drop(tx);
    let tx = db.write(acme.org, Origin::system()).await.unwrap();
    let patch = UpdateAssetInput { owner: MaybeUndefined::Value(acme.user), ..Default::default() };
    let owned = Asset::update(&tx, acme.asset.id, &patch, at(1)).await.unwrap();
    assert_eq!(owned.owner_id, Some(acme.user));
}

#[tokio::test]
async fn the_audit_trail_of_another_organization_is_not_seen() {
    let (db, acme, evil) = two().await;
    let tx = db.read(evil.org).await.unwrap();
    assert!(AuditEntry::find(&tx, acme.audit).await.unwrap().is_none());
    let about = |id: uuid::Uuid| AuditQuery { entity_id: Some(id), ..Default::default() };
    let theirs = about(acme.asset.id.uuid());
    assert!(AuditEntry::list(&tx, &theirs, &ALL).await.unwrap().rows.is_empty());
    assert_eq!(AuditEntry::count(&tx, &theirs).await.unwrap(), 0);
    assert_eq!(AuditEntry::count(&tx, &about(evil.asset.id.uuid())).await.unwrap(), 3);
}

#[tokio::test]
async fn who_belongs_to_two_organizations_is_seen_in_both() {
    let (db, acme, evil) = two().await;
    crate::harness::join(&db, evil.org, acme.user, &["viewer"]).await;
    for (org, members) in [(acme.org, 1), (evil.org, 2)] {
        let tx = db.read(org).await.unwrap();
        assert_eq!(User::list(&tx, &ALL).await.unwrap().rows.len(), members);
        assert_eq!(User::of_ids(&tx, &[acme.user]).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_fleet_sees_organizations_and_no_rows_of_theirs() {
    let (db, ..) = two().await;
    let tx = db.fleet().await.unwrap();
    assert_eq!(count(&tx, "organization").await, 2);
    tx.commit().await.unwrap();
    for table in ["asset", "audit_entry", "\"user\"", "session"] {
        let tx = db.fleet().await.unwrap();
        let sql = format!("SELECT count(*) AS rows FROM {table}");
        assert!(tx.one::<Row>(&sql, &[]).await.is_err(), "{table}");
    }
}
