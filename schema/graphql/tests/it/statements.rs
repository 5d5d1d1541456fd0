//! Tests for N+1 queries: a list of a hundred rows sends as many SQL statements as a list of five.

use serde_json::json;

use crate::{
    harness::{Team, TestApp},
    wire::{Traffic, Wire},
};

/// Maximum number of statements per request: authentication, one transaction, the list and its relations.
const MOST: usize = 12;

/// Inserts members `1..=count`, each with roles, an asset that the member owns, and rows that refer to both.
async fn populate(app: &TestApp, team: &Team, count: usize) {
    let org = team.org.id.uuid();
    app
        .execute_sql(&format!(
            "INSERT INTO \"user\" (id, email, name, created_at)
             SELECT gen_random_uuid(), n || '@rows.example', 'member ' || n, now() FROM generate_series(1, {count}) AS n;
             INSERT INTO membership (org_id, user_id, created_at)
             SELECT '{org}', id, now() FROM \"user\" WHERE email LIKE '%@rows.example';
             INSERT INTO membership_role (org_id, user_id, role_id)
             SELECT '{org}', \"user\".id, role.id FROM \"user\", role
             WHERE email LIKE '%@rows.example' AND role.org_id = '{org}' AND role.key IN ('viewer', 'operator');
             INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, owner_id, created_at, updated_at)
             SELECT '{org}', gen_random_uuid(), 'HST-' || row_number() OVER (), 'host', 'HOST', 'ACTIVE', 'PROD', id, now(), now()
             FROM \"user\" WHERE email LIKE '%@rows.example';
             INSERT INTO dependency (org_id, id, source_id, target_id, created_at)
             SELECT '{org}', gen_random_uuid(), source.id, target.id, now()
             FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM asset WHERE org_id = '{org}') AS source
             JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM asset WHERE org_id = '{org}') AS target
               ON target.n % {count} IN ((source.n + 1) % {count}, (source.n + 2) % {count});
             INSERT INTO custody (org_id, id, asset_id, holder_id, checked_out_at, checked_out_by_kind, checked_out_by_id,
                                  checked_in_at, checked_in_by_kind)
             SELECT '{org}', gen_random_uuid(), asset.id, owner_id, now(), 'user', owner_id, returned.at, returned.by
             FROM asset, (VALUES (NULL::timestamptz, NULL), (now(), 'system')) AS returned (at, by) WHERE org_id = '{org}';
             INSERT INTO job (org_id, id, queue, kind, version, payload, state, priority, run_at, max_attempts, actor_kind,
                              actor_id, queued_at, changed_at)
             SELECT '{org}', gen_random_uuid(), 'SCAN', 'scan.shard', 1, '{{}}', 'WAITING', 0, now(), 3, 'user', id, now(), now()
             FROM \"user\" WHERE email LIKE '%@rows.example';
             INSERT INTO schedule (org_id, id, name, cron, time_zone, action, enabled, actor_kind, actor_id, created_at, updated_at)
             SELECT '{org}', gen_random_uuid(), email, '0 2 * * *', 'UTC', 'COMPLIANCE_RUN', false, 'user', id, now(), now()
             FROM \"user\" WHERE email LIKE '%@rows.example';
             INSERT INTO tag (org_id, id, name, folded, color, created_at)
             SELECT '{org}', gen_random_uuid(), 'tag ' || n, 'tag ' || n, '#64748b', now() FROM generate_series(1, 3) AS n;
             INSERT INTO asset_tag (org_id, asset_id, tag_id)
             SELECT '{org}', asset.id, tag.id FROM asset JOIN tag USING (org_id) WHERE org_id = '{org}';
             INSERT INTO rule (org_id, id, key, slot, builtin, enabled, version, params, created_at, updated_at)
             VALUES ('{org}', gen_random_uuid(), 'disk', 0, false, true, 1, '{{}}', now(), now());
             INSERT INTO rule_version (org_id, id, rule_id, version, title, severity, controls, applies_to, params, condition,
                                       evidence, remediation, created_at)
             SELECT '{org}', gen_random_uuid(), id, 1, 'disk', 'HIGH', '[]', '{{}}', '{{}}', 'attr.disk_encrypted', '{{}}', 'see to it', now()
             FROM rule WHERE org_id = '{org}';
             INSERT INTO posture (org_id, asset_id, verdicts, passed_weight, failed_weight, waived_weight, whole_weight, facts_hash,
                                  evaluated_at)
             SELECT '{org}', id, 'N', 0, 0, 0, 5, 0, now() FROM asset WHERE org_id = '{org}';
             INSERT INTO waiver (org_id, id, rule_id, reason, granted_kind, granted_by, granted_at, expires_at)
             SELECT '{org}', gen_random_uuid(), rule.id, 'agreed', 'user', \"user\".id, now(), now() + interval '1 day'
             FROM rule, \"user\" WHERE org_id = '{org}' AND email LIKE '%@rows.example';
             INSERT INTO finding (org_id, id, asset_id, rule_id, version_id, severity, weight, state, evidence, waiver_id, opened_at,
                                  changed_at)
             SELECT '{org}', gen_random_uuid(), asset.id, rule_id, rule_version.id, severity, 5, 'WAIVED', '{{}}',
                    (SELECT id FROM waiver WHERE granted_by = asset.owner_id AND org_id = '{org}'), now(), now()
             FROM asset JOIN rule_version USING (org_id) WHERE org_id = '{org}';
             DELETE FROM audit_entry;
             INSERT INTO audit_entry (org_id, id, at, actor_kind, actor_id, action, entity_type, entity_id, changed_paths)
             SELECT '{org}', gen_random_uuid(), now(), 'user', id, 'asset.created', 'asset', id, '{{}}'
             FROM \"user\" WHERE email LIKE '%@rows.example';
             INSERT INTO audit_entry (org_id, id, at, actor_kind, actor_id, action, entity_type, entity_id, changed_paths)
             SELECT '{org}', gen_random_uuid(), now(), 'user', owner_id, 'asset.updated', 'asset', asset.id, '{{name}}'
             FROM asset WHERE org_id = '{org}'"
        ))
        .await;
}

/// Returns the traffic of the document with 5 and with 100 rows, sent by the owner. The response must contain `names`
/// once per row.
async fn costs(document: &str, names: &str) -> [Traffic; 2] {
    let mut costs = Vec::new();
    for rows in [5, 100] {
        let (app, wire) = Wire::app(4).await;
        let team = app.team("alfa").await;
        populate(&app, &team, rows).await;
        let owner = team["owner"].bearer.as_str();
        app.ask(owner, "{ viewer { permissions } }", json!({})).await.data();
        wire.take();
        let reply = app.ask(owner, document, json!({})).await;
        let shown = reply.data().to_string().matches(names).count();
        assert!(shown >= rows.min(90), "{shown} of {rows} rows: {:#}", reply.json);
        let mut seen = wire.take();
        let org = team.org.id.uuid().to_string();
        for statement in &mut seen.statements {
            *statement = statement.replace(&org, "…");
        }
        costs.push(seen);
    }
    costs.try_into().unwrap()
}

async fn check(document: &str, names: &str) {
    let [mut few, mut many] = costs(document, names).await;
    for seen in [&mut few, &mut many] {
        for statement in &mut seen.statements {
            // Eight words distinguish the statements.
            *statement = statement.split_whitespace().take(8).collect::<Vec<_>>().join(" ");
        }
        // A page and its count are sent together, in either order.
        seen.statements.sort();
    }
    assert!(
        few.statements == many.statements,
        "5 rows cost {} statements, 100 rows {}: {:#?}",
        few.statements.len(),
        many.statements.len(),
        many.statements
    );
    assert!(many.statements.len() <= MOST, "{:#?}", many.statements);
}

#[tokio::test]
async fn assets_with_their_owners() {
    check("{ assets(first: 100) { nodes { name owner { name } } } }", "member").await;
}

#[tokio::test]
async fn assets_with_their_owners_tags_facts_dependents_and_custody() {
    let document = "{ assets(first: 100) { nodes {
        name owner { name } tags { name } facts { key value source } dependents(first: 5) { depth asset { name owner { name } } } custody { holder { name } notes }
    } } }";
    let once = ["FROM asset_tag", "WITH RECURSIVE walk", "SELECT id, asset_id, holder_id"];
    check_levels(document, &once, 14).await;
}

/// Like [`check`] for documents that load users and assets at several levels, where loads may or may not share a
/// batch. Each text in `once` must occur in exactly one statement, and at most `most` statements may be sent.
async fn check_levels(document: &str, once: &[&str], most: usize) {
    for seen in costs(document, "member").await {
        for text in once {
            assert_eq!(seen.count(text), 1, "{text}: {seen:#?}");
        }
        assert!(seen.statements.len() <= most, "{seen:#?}");
    }
}

#[tokio::test]
async fn assets_with_both_directions_and_what_leads_there() {
    let document = "{ assets(first: 100) { nodes {
        dependsOn(depth: 3, first: 3) { depth asset { name } via { kind source { name } target { name } } }
        dependents(depth: 3, first: 3) { depth asset { name } }
        owner { name }
    } } }";
    check_levels(
        document,
        &["source_id = ANY (walk.frontier)", "target_id = ANY (walk.frontier)"],
        16,
    )
    .await;
}

#[tokio::test]
async fn assets_with_their_blast_radii() {
    let document = "{ assets(first: 100) { nodes {
        owner { name } blastRadius(depth: 4, first: 5) { assets services truncated nodes { depth asset { name owner { name } } } }
    } } }";
    check_levels(document, &["AS services"], 12).await;
}

#[tokio::test]
async fn assets_with_their_changes_and_custodies() {
    let document = "{ assets(first: 100) { nodes {
        changes(first: 3) { totalCount nodes { action paths actor { ... on User { name } } } }
        custodyHistory(first: 3) { totalCount nodes { checkedInAt holder { name } checkedOutBy { ... on User { name } } } }
    } } }";
    let once =
        ["FROM audit_entry WHERE entity_id = owner.id", "FROM custody WHERE asset_id = owner.id"];
    check_levels(document, &once, 14).await;
}

#[tokio::test]
async fn assets_with_their_postures_and_findings() {
    let document = "{ assets(first: 100) { nodes {
        owner { name } posture { score coverage verdicts { verdict reason rule { key } } }
        findings(first: 3) { totalCount nodes { severity lastSeenAt rule { key } waiver { reason } } }
    } } }";
    let once = [
        "found.* FROM UNNEST",
        "LEFT JOIN member AS owner",
        "FROM finding WHERE asset_id = owner.id",
        "AND rule_version.version = rule.version",
        "WHERE rule_version.id = ANY",
        "FROM waiver WHERE id = ANY",
    ];
    check_levels(document, &once, 16).await;
}

#[tokio::test]
async fn findings_with_their_assets_rules_and_waivers() {
    let document = "{ findings(first: 100) { totalCount nodes {
        severity asset { name owner { name } } rule { key } waiver { reason grantedBy { ... on User { name } } rule { key } }
    } } }";
    let once = ["WHERE rule_version.id = ANY", "FROM waiver WHERE id = ANY"];
    check_levels(document, &once, 16).await;
}

/// Each set of arguments costs one statement, whatever the number of assets.
#[tokio::test]
async fn the_same_walk_with_two_bounds_is_two_statements() {
    let document = "{ assets(first: 100) { nodes {
        owner { name } a: dependents(depth: 2, first: 3) { depth } b: dependents(depth: 2, first: 3) { depth } c: dependents(first: 3) { depth }
    } } }";
    let [_, many] = costs(document, "member").await;
    assert_eq!(many.count("WITH RECURSIVE walk"), 2, "{many:#?}");
}

#[tokio::test]
async fn assets_with_their_owners_roles() {
    check("{ assets(first: 100) { nodes { name owner { name roles { key } } } } }", "member").await;
}

#[tokio::test]
async fn members_with_their_roles() {
    check("{ users(first: 100) { nodes { name roles { key name } } } }", "member").await;
}

#[tokio::test]
async fn entries_with_their_actors() {
    let document = "{ auditEntries(first: 100) { nodes { action actor { ... on User { name roles { key } } ... on ApiKey { name } } } } }";
    check(document, "member").await;
}

#[tokio::test]
async fn jobs_with_their_actors() {
    let document = "{ jobs(first: 100, filter: { queue: SCAN }) { totalCount nodes { kind state worker actor { ... on User { name roles { key } } } } } }";
    check(document, "member").await;
}

#[tokio::test]
async fn schedules_with_their_actors() {
    check("{ schedules { name nextRunAt actor { ... on User { name } } } }", "member").await;
}

/// The number of statements depends on which list arrives first, but has a limit.
#[tokio::test]
async fn the_same_list_under_two_names() {
    let document = "{ a: assets(first: 50) { nodes { owner { name } } } b: assets(last: 50) { edges { node { owner { name } } } } }";
    let [_, many] = costs(document, "member").await;
    assert!(many.statements.len() <= MOST, "{:#?}", many.statements);
}

#[tokio::test]
async fn two_relations_of_a_row_are_one_load_each() {
    let document = "{ assets(first: 100) { edges { cursor node { owner { id name email } again: owner { name roles { key } } } } } }";
    let [_, many] = costs(document, "member").await;
    assert!(many.statements.len() <= MOST, "{:#?}", many.statements);
    assert_eq!(many.count("SELECT membership_role"), 1, "{many:#?}");
}
