//! The audit trail is written in the transaction of the change, or not at all.

use async_graphql::MaybeUndefined;
use domain::{
    Actor, Error, Id, Origin,
    access::{
        audit::{AuditEntry, AuditQuery},
        organization::Organization,
    },
    base::page::PageRequest,
    entity::OrganizationId,
    inventory::asset::{Asset, LifecycleState, UpdateAssetInput},
};
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::harness::{HOME, TestOrg, at, host, host_with};

const ALL: PageRequest = PageRequest { size: 100, backward: false, after: None, before: None };

fn page(size: usize) -> PageRequest {
    PageRequest { size, ..ALL }
}

/// Returns the audit entries of assets, newest first.
async fn entries(test: &TestOrg) -> Vec<AuditEntry> {
    let tx = test.db.read(test.org).await.unwrap();
    let query = AuditQuery { entity_type: Some("asset".into()), ..Default::default() };
    AuditEntry::list(&tx, &query, &ALL).await.unwrap().rows
}

#[tokio::test]
async fn a_change_that_is_rolled_back_leaves_neither_itself_nor_its_entry() {
    let test = TestOrg::new().await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let asset = Asset::create(&tx, &host("web-1"), at(0)).await.unwrap();
    tx.rollback().await.unwrap();
    assert!(entries(&test).await.is_empty());
    let tx = test.db.read(test.org).await.unwrap();
    assert!(Asset::find(&tx, asset.id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_change_without_its_entry_is_none() {
    let test = TestOrg::new().await;
    let superuser = test.db.superuser().await;
    let revoke = "DO $$ BEGIN EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM sentryops_app', 'audit_append'::regproc::regprocedure); END $$";
    superuser.batch_execute(revoke).await.unwrap();
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    assert!(Asset::create(&tx, &host("web-1"), at(0)).await.is_err());
    assert!(tx.commit().await.is_err());
    let row = superuser.query_one("SELECT count(*) AS rows FROM asset", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>("rows"), 0);
}

#[tokio::test]
async fn an_entry_says_who_did_it_from_where_and_what_differs() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@x.com", &["operator"]).await;
    let asset =
        test.asset(host_with("web-1", json!({"os": "Debian", "disk": {"size_gb": 10}}))).await;
    let origin =
        Origin { actor: Actor::User(ada), source_ip: Some(HOME), request_id: Some("req-7".into()) };
    let tx = test.db.write(test.org, origin).await.unwrap();
    let patch = UpdateAssetInput {
        name: MaybeUndefined::Value("web-2".into()),
        owner: MaybeUndefined::Value(ada),
        custom_fields: MaybeUndefined::Value(
            json!({"os": null, "disk": {"size_gb": 20}, "a.b": 1, "ram_gb": 4}),
        ),
        ..Default::default()
    };
    Asset::update(&tx, asset.id, &patch, at(5)).await.unwrap();
    tx.commit().await.unwrap();
    let entry = &entries(&test).await[0];
    assert_eq!((entry.actor, entry.action.as_str()), (Actor::User(ada), "asset.updated"));
    assert_eq!((entry.entity_type.as_str(), entry.entity_id), ("asset", asset.id.uuid()));
    assert_eq!(entry.source_ip.as_deref(), Some("198.51.100.7"));
    assert_eq!(entry.request_id.as_deref(), Some("req-7"));
    assert_eq!(
        entry.changed_paths,
        [
            "customFields.\"a.b\"",
            "customFields.disk.size_gb",
            "customFields.os",
            "customFields.ram_gb",
            "name",
            "owner"
        ]
    );
    assert_eq!(entry.before.as_ref().unwrap()["name"], "web-1");
    assert_eq!(entry.after.as_ref().unwrap()["owner"], ada.to_string());
}

#[tokio::test]
async fn a_life_is_told_from_its_beginning_to_its_end() {
    let test = TestOrg::new().await;
    let asset = test.asset(host("web-1")).await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    Asset::set_lifecycle(&tx, asset.id, LifecycleState::Retired, at(1)).await.unwrap();
    Asset::delete(&tx, asset.id, at(2)).await.unwrap();
    tx.commit().await.unwrap();
    let [deleted, moved, created] = &entries(&test).await[..] else { panic!("not three") };
    assert_eq!((created.action.as_str(), &created.before), ("asset.created", &None));
    assert_eq!(moved.action, "asset.lifecycle_changed");
    assert_eq!(moved.changed_paths, ["lifecycleState"]);
    assert_eq!((deleted.action.as_str(), &deleted.after), ("asset.deleted", &None));
    assert!(deleted.changed_paths.contains(&"name".to_owned()));
}

#[tokio::test]
async fn entries_are_found_by_thing_actor_and_action() {
    let test = TestOrg::new().await;
    let key = Actor::ApiKey(Id::new());
    let first = test.asset(host("first")).await;
    let origin = Origin { actor: key, ..Origin::system() };
    let tx = test.db.write(test.org, origin).await.unwrap();
    let second = Asset::create(&tx, &host("second"), at(1)).await.unwrap();
    tx.commit().await.unwrap();
    let Actor::ApiKey(key) = key else { unreachable!() };
    let tx = test.db.read(test.org).await.unwrap();
    let found = async |query: AuditQuery| {
        let rows = AuditEntry::list(&tx, &query, &ALL).await.unwrap().rows;
        assert_eq!(
            AuditEntry::count(&tx, &query).await.unwrap(),
            i64::try_from(rows.len()).unwrap()
        );
        rows.iter().map(|entry| entry.entity_id).collect::<Vec<_>>()
    };
    let none = AuditQuery::default;
    let none_found: [uuid::Uuid; 0] = [];
    let (first, second) = (first.id.uuid(), second.id.uuid());
    assert_eq!(found(AuditQuery { entity_id: Some(first), ..none() }).await, [first]);
    assert_eq!(found(AuditQuery { actor_id: Some(key.uuid()), ..none() }).await, [second]);
    let action = |action: &str| AuditQuery { action: Some(action.into()), ..none() };
    assert_eq!(found(action("asset.created")).await, [second, first]);
    assert_eq!(found(action("asset.deleted")).await, none_found);
    assert_eq!(found(action("\0")).await, none_found, "no text holds U+0000");
    let kind = AuditQuery { entity_type: Some("asset\0".into()), ..none() };
    assert_eq!(found(kind).await, none_found);
}

#[tokio::test]
async fn entries_are_paged_newest_first() {
    let test = TestOrg::new().await;
    for name in ["a", "b", "c"] {
        test.asset(host(name)).await;
    }
    let tx = test.db.read(test.org).await.unwrap();
    let query = AuditQuery { entity_type: Some("asset".into()), ..Default::default() };
    let first = AuditEntry::list(&tx, &query, &page(2)).await.unwrap();
    assert!(first.has_next && first.rows[0].id > first.rows[1].id);
    let after = PageRequest { after: Some(first.rows[1].position()), ..page(2) };
    let rest = AuditEntry::list(&tx, &query, &after).await.unwrap();
    assert_eq!((rest.rows.len(), rest.has_next, rest.has_previous), (1, false, true));
}

/// Asserts that the statement is refused for lack of a privilege, in a transaction of each role.
async fn assert_refused(test: &TestOrg, sql: &str) {
    let app = test.db.write(test.org, Origin::system()).await.unwrap();
    let auth = test.db.auth(Origin::system()).await.unwrap();
    let fleet = test.db.fleet().await.unwrap();
    let answers = [app.exec(sql, &[]).await, auth.exec(sql, &[]).await, fleet.exec(sql, &[]).await];
    for answer in answers {
        let refusal = answer.unwrap_err();
        let Error::Postgres(refusal) = refusal else { panic!("{refusal:?}") };
        assert_eq!(refusal.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}");
    }
}

#[tokio::test]
async fn an_entry_is_not_altered_by_any_of_our_roles() {
    let test = TestOrg::new().await;
    test.asset(host("web-1")).await;
    for sql in [
        "UPDATE audit_entry SET action = 'x'",
        "DELETE FROM audit_entry",
        "TRUNCATE audit_entry",
        "DELETE FROM audit_entry_rest",
        "SELECT audit_create_month(now())",
    ] {
        assert_refused(&test, sql).await;
    }
}

#[tokio::test]
async fn an_entry_is_not_made_up_by_any_of_our_roles() {
    let test = TestOrg::new().await;
    let org = test.org.uuid();
    let insert = format!(
        "INSERT INTO audit_entry (org_id, id, at, actor_kind, action, entity_type, entity_id, changed_paths)
         VALUES ('{org}', gen_random_uuid(), now() - interval '1 year', 'system', 'x', 'asset', gen_random_uuid(), '{{}}')"
    );
    assert_refused(&test, &insert).await;
    assert_refused(&test, &insert.replace("audit_entry ", "audit_entry_rest ")).await;
}

#[tokio::test]
async fn the_application_appends_to_the_trail_of_its_organization_only() {
    let test = TestOrg::new().await;
    let other = test.db.auth(Origin::system()).await.unwrap();
    let other_org = Organization::create(&other, "other", "Other", false, at(0)).await.unwrap().id;
    other.commit().await.unwrap();
    let append = |org: OrganizationId| {
        format!(
            "SELECT audit_append('{}', NULL, NULL, '{{system}}', '{{NULL}}', '{{x}}', '{{asset}}', ARRAY[gen_random_uuid()],
             '{{\"\"}}', ARRAY[NULL]::jsonb[], ARRAY[NULL]::jsonb[])",
            org.uuid()
        )
    };
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    tx.exec(&append(test.org), &[]).await.unwrap();
    let refusal = tx.exec(&append(other_org), &[]).await.unwrap_err();
    let Error::Postgres(refusal) = refusal else { panic!("{refusal:?}") };
    assert_eq!(refusal.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
}

#[tokio::test]
async fn postgres_sets_the_time_and_the_order_of_entries() {
    let test = TestOrg::new().await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let began = tx.now().await.unwrap();
    let inputs: Vec<_> = (0..300).map(|n| host(&format!("web-{n}"))).collect();
    for input in &inputs {
        Asset::create(&tx, input, at(0)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let superuser = test.db.superuser().await;
    let sql = "SELECT count(*) FILTER (WHERE at >= $1 AND at <= clock_timestamp()) AS in_time,
            array_agg(after ->> 'name' ORDER BY id) AS names, min(get_byte(uuid_send(id), 6) >> 4) AS version,
            bool_and(abs(extract(epoch FROM at) * 1000
                - ('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint) <= 1) AS is_that_time
        FROM audit_entry WHERE action = 'asset.created'";
    let row = superuser.query_one(sql, &[&began]).await.unwrap();
    assert_eq!(row.get::<_, i64>("in_time"), 300);
    assert_eq!(row.get::<_, i32>("version"), 7);
    assert!(row.get::<_, bool>("is_that_time"));
    let names: Vec<String> = row.get("names");
    assert_eq!(names, inputs.iter().map(|input| input.name.clone()).collect::<Vec<_>>());
}

/// Returns the names of the partitions.
async fn partitions(test: &TestOrg) -> Vec<String> {
    let sql = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_entry'::regclass ORDER BY 1";
    let rows = test.db.superuser().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn months_are_made_ahead_and_dropped_after_the_retention() {
    let test = TestOrg::new().await;
    test.asset(host("web-1")).await;
    let superuser = test.db.superuser().await;
    let old = "SET ROLE sentryops_owner;
        SELECT audit_create_month(now() - interval '200 days'), audit_create_month(now() - interval '60 days');
        DROP TABLE audit_entry_MONTH; RESET ROLE";
    let last = "SELECT to_char((now() AT TIME ZONE 'UTC') + interval '2 months', 'YYYYMM')";
    let last: String = superuser.query_one(last, &[]).await.unwrap().get(0);
    superuser.batch_execute(&old.replace("MONTH", &last)).await.unwrap();
    let before = partitions(&test).await;
    let rotate = async |days: u16| {
        let tx = test.db.fleet().await.unwrap();
        AuditEntry::rotate(&tx, days).await.unwrap();
        tx.commit().await.unwrap();
        partitions(&test).await
    };
    let kept = rotate(365).await;
    assert_eq!(kept.len(), before.len() + 1, "{kept:?}");
    assert!(kept.contains(&format!("audit_entry_{last}")));
    let recent = rotate(1).await;
    assert_eq!(recent.len(), kept.len() - 1, "at least 90 days are kept: {recent:?}");
    assert_eq!(entries(&test).await.len(), 1);
}
