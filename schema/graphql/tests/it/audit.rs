//! Tests that every mutation writes its audit entry in the transaction of the change, and none if it fails.
//!
//! A mutation without a row in [`calls`] fails these tests. Add a row with its audit actions for every new mutation.
//!
//! Long, because there is a row for every mutation.

use domain::access::permission::Permission;
use serde_json::{Value, json};

use crate::{
    harness::{self, ADDRESS, PASSWORD, Reply, SET_BURIED, Team, TestApp, client},
    sdl::roots,
};

/// A call of a mutation: the caller's bearer token, the document, its variables.
struct Call {
    bearer: Option<String>,
    document: &'static str,
    variables: Value,
}

/// Expected audit entries of a successful call: the actions in order, and the actor.
struct Recorded {
    actions: &'static [&'static str],
    by: String,
}

const CREATE_ASSET: &str =
    "mutation($input: CreateAssetInput!) { createAsset(input: $input) { id name owner { name } } }";

const IMPORT_ASSETS: &str = "mutation($content: String!) { importAssets(input: { format: CSV, content: $content }) { id } }";
const ADD_DEPENDENCY: &str = "mutation($source: ID!, $target: ID!) { addDependency(source: $source, target: $target) { id } }";

const SAVE_RULE: &str = "mutation($condition: String!) { saveRule(input: { key: \"made\", title: \"Made\", severity: LOW, condition: $condition, remediation: \"None\" }) { id } }";

const GRANT_WAIVER: &str = "mutation($rule: ID!, $until: DateTime!) { grantWaiver(input: { rule: $rule, reason: \"agreed\", expiresAt: $until }) { id } }";

const CHECK_OUT: &str = "mutation($id: ID!, $holder: ID!) { checkOutAsset(id: $id, holder: $holder, notes: \"for travel\") { id } }";

const SAVE_SCHEDULE: &str = "mutation($cron: String!) { saveSchedule(input: { name: \"nightly\", cron: $cron, action: COMPLIANCE_RUN }) { id } }";

/// Creates an asset as the team's operator and returns its id.
async fn asset(app: &TestApp, team: &Team) -> String {
    let input = json!({ "input": { "name": "web-1", "type": "HOST", "externalId": "cmdb-1" } });
    let reply = app.ask(team["operator"].bearer.as_str(), CREATE_ASSET, input).await;
    reply.data()["createAsset"]["id"].as_str().unwrap().to_owned()
}

/// Returns the id of a built-in rule.
async fn rule(app: &TestApp, team: &Team) -> Value {
    let reply = app.ask(team["viewer"].bearer.as_str(), "{ rules { id } }", json!({})).await;
    reply.data()["rules"][0]["id"].clone()
}

fn days_ahead(days: i64) -> String {
    (harness::now() + chrono::TimeDelta::days(days)).to_rfc3339()
}

/// Returns a valid call of the mutation, its expected entries, and a call that fails within the mutation.
#[expect(clippy::too_many_lines, reason = "a table, a row a mutation")]
async fn calls(app: &TestApp, team: &Team, mutation: &str) -> (Call, Recorded, Call) {
    let (owner, admin, operator) = (&team["owner"], &team["admin"], &team["operator"]);
    let nobody = domain::entity::UserId::new().to_string();
    let (role, document, good, actions, bad): (&str, _, _, &[&str], _) = match mutation {
        "login" => (
            "",
            "mutation($email: String!, $password: String!) { login(email: $email, password: $password) { tokens { accessToken } } }",
            json!({ "email": owner.email, "password": PASSWORD }),
            &["auth.login"],
            json!({ "email": owner.email, "password": "wrong horse" }),
        ),
        "refreshSession" => (
            "",
            "mutation($token: String!) { refreshSession(refreshToken: $token) { accessToken } }",
            json!({ "token": owner.refresh }),
            &["auth.refreshed"],
            json!({ "token": "unknown" }),
        ),
        "logout" => ("owner", "mutation { logout }", json!({}), &["auth.logout"], Value::Null),
        "switchOrganization" => (
            "owner",
            "mutation($id: ID!) { switchOrganization(organization: $id) { accessToken } }",
            json!({ "id": team.org.id }),
            &["session.organization_switched"],
            json!({ "id": domain::entity::OrganizationId::new() }),
        ),
        "changePassword" => (
            "owner",
            "mutation($current: String!) { changePassword(current: $current, new: \"another pelican mosaic\") }",
            json!({ "current": PASSWORD }),
            &["auth.password_changed"],
            json!({ "current": "wrong horse" }),
        ),
        "acceptInvitation" | "declineInvitation" => {
            let host = app.team(&format!("{}-host", mutation.to_lowercase())).await;
            let create = "mutation($email: String!) { createUser(input: { email: $email, name: \"Guest\", password: \"the seventeenth heron\" }) { id } }";
            let invite = json!({ "email": owner.email });
            app.ask(host["admin"].bearer.as_str(), create, invite).await.data();
            let (good, bad) = (host.org.id, domain::entity::OrganizationId::new());
            let (document, actions): (_, &[_]) = if mutation == "acceptInvitation" {
                (
                    "mutation($id: ID!) { acceptInvitation(organization: $id, password: \"correct pelican mosaic\", invitationPassword: \"the seventeenth heron\", newPassword: \"another pelican mosaic\") { permissions } }",
                    &["member.joined", "auth.password_changed"],
                )
            } else {
                (
                    "mutation($id: ID!) { declineInvitation(organization: $id) }",
                    &["member.declined"],
                )
            };
            ("owner", document, json!({ "id": good }), actions, json!({ "id": bad }))
        }
        "revokeSession" => {
            app.sign_in(owner.id, owner.email.clone()).await;
            let sessions = "{ viewer { sessions { id current } } }";
            let reply = app.ask(owner.bearer.as_str(), sessions, harness::nothing()).await;
            let sessions = reply.data()["viewer"]["sessions"].as_array().unwrap();
            let other = sessions.iter().find(|session| session["current"] == false).unwrap();
            (
                "owner",
                "mutation($id: ID!) { revokeSession(id: $id) }",
                json!({ "id": other["id"] }),
                &["session.revoked"],
                json!({ "id": domain::entity::SessionId::new() }),
            )
        }
        "createUser" => (
            "admin",
            "mutation($input: CreateUserInput!) { createUser(input: $input) { id roles { key } } }",
            json!({ "input": { "email": "new@created.example", "name": "New", "password": PASSWORD } }),
            &["user.created", "member.role_changed"],
            json!({ "input": { "email": owner.email, "name": "New", "password": PASSWORD } }),
        ),
        "updateUser" => (
            "admin",
            "mutation($id: ID!, $input: UpdateUserInput!) { updateUser(id: $id, input: $input) { name } }",
            json!({ "id": operator.id, "input": { "name": "Renamed", "password": "another pelican mosaic" } }),
            &["user.updated", "session.revoked", "user.password_reset"],
            json!({ "id": operator.id, "input": { "email": owner.email } }),
        ),
        "setUserRoles" => (
            "owner",
            "mutation($user: ID!, $roles: [String!]!) { setUserRoles(user: $user, roles: $roles) { roles { key } } }",
            json!({ "user": operator.id, "roles": ["viewer"] }),
            &["member.role_changed"],
            // The last owner: rejected at the commit, after the entry was written.
            json!({ "user": owner.id, "roles": ["viewer"] }),
        ),
        "deactivateUser" => (
            "owner",
            "mutation($user: ID!) { deactivateUser(user: $user) { active } }",
            json!({ "user": operator.id }),
            &["member.deactivated", "session.revoked"],
            json!({ "user": owner.id }),
        ),
        "revokeUserSessions" => (
            "admin",
            "mutation($user: ID!) { revokeUserSessions(user: $user) }",
            json!({ "user": operator.id }),
            &["session.revoked"],
            json!({ "user": nobody }),
        ),
        "saveRole" => (
            "owner",
            "mutation($key: String!) { saveRole(key: $key, name: \"Night\", permissions: [CHECK_RUN]) { id } }",
            json!({ "key": "night" }),
            &["role.created"],
            json!({ "key": "owner" }),
        ),
        "deleteRole" => {
            let save = "mutation { saveRole(key: \"night\", name: \"Night\", permissions: [CHECK_RUN]) { id } }";
            app.ask(owner.bearer.as_str(), save, harness::nothing()).await.data();
            (
                "owner",
                "mutation($key: String!) { deleteRole(key: $key) }",
                json!({ "key": "night" }),
                &["role.deleted"],
                json!({ "key": "viewer" }),
            )
        }
        "createApiKey" => {
            let input = |at: &str| json!({ "input": { "name": "ci", "permissions": ["ASSET_READ"], "expiresAt": at } });
            let soon = (harness::now() + chrono::TimeDelta::days(1)).to_rfc3339();
            (
                "admin",
                "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { apiKey { id } } }",
                input(&soon),
                &["api_key.created"],
                input("2001-01-01T00:00:00Z"),
            )
        }
        "revokeApiKey" => {
            let (key, _) = app.api_key(team, "ci", &[Permission::AssetRead]).await;
            (
                "admin",
                "mutation($id: ID!) { revokeApiKey(id: $id) }",
                json!({ "id": key }),
                &["api_key.revoked"],
                json!({ "id": domain::entity::ApiKeyId::new() }),
            )
        }
        "createAsset" => {
            asset(app, team).await;
            (
                "operator",
                CREATE_ASSET,
                json!({ "input": { "name": "db-1", "type": "HOST" } }),
                &["asset.created"],
                json!({ "input": { "name": "db-1", "type": "HOST", "externalId": "cmdb-1" } }),
            )
        }
        "updateAsset" => {
            let id = asset(app, team).await;
            (
                "operator",
                "mutation($id: ID!, $input: UpdateAssetInput!) { updateAsset(id: $id, input: $input) { name } }",
                json!({ "id": id, "input": { "name": "web-2" } }),
                &["asset.updated"],
                json!({ "id": id, "input": { "name": "web-2", "owner": nobody } }),
            )
        }
        "setAssetLifecycle" => {
            let id = asset(app, team).await;
            (
                "operator",
                "mutation($id: ID!, $state: LifecycleState!) { setAssetLifecycle(id: $id, state: $state) { name } }",
                json!({ "id": id, "state": "RETIRED" }),
                &["asset.lifecycle_changed"],
                json!({ "id": id, "state": "DISPOSED" }),
            )
        }
        "deleteAsset" => {
            let id = asset(app, team).await;
            let still_active = asset_named(app, team, "web-3").await;
            let retire = "mutation($id: ID!) { setAssetLifecycle(id: $id, state: RETIRED) { id } }";
            app.ask(operator.bearer.as_str(), retire, json!({ "id": id })).await.data();
            (
                "admin",
                "mutation($id: ID!) { deleteAsset(id: $id) }",
                json!({ "id": id }),
                &["asset.deleted"],
                json!({ "id": still_active }),
            )
        }
        "addDependency" => {
            let (web, db) = (asset(app, team).await, asset_named(app, team, "db-1").await);
            let both = json!({ "source": web, "target": db });
            app.ask(operator.bearer.as_str(), ADD_DEPENDENCY, both.clone()).await.data();
            (
                "operator",
                ADD_DEPENDENCY,
                json!({ "source": db, "target": web }),
                &["asset.dependency_added"],
                both,
            )
        }
        "removeDependency" => {
            let (web, db) = (asset(app, team).await, asset_named(app, team, "db-1").await);
            let both = json!({ "source": web, "target": db });
            let added = app.ask(operator.bearer.as_str(), ADD_DEPENDENCY, both).await;
            (
                "operator",
                "mutation($id: ID!) { removeDependency(id: $id) }",
                json!({ "id": added.data()["addDependency"]["id"] }),
                &["asset.dependency_removed"],
                json!({ "id": domain::entity::DependencyId::new() }),
            )
        }
        "checkOutAsset" => {
            let id = asset(app, team).await;
            (
                "operator",
                CHECK_OUT,
                json!({ "id": id, "holder": admin.id }),
                &["asset.checked_out"],
                json!({ "id": id, "holder": nobody }),
            )
        }
        "checkInAsset" => {
            let (held, free) = (asset(app, team).await, asset_named(app, team, "db-1").await);
            let lend = json!({ "id": held, "holder": admin.id });
            app.ask(operator.bearer.as_str(), CHECK_OUT, lend).await.data();
            (
                "operator",
                "mutation($id: ID!) { checkInAsset(id: $id) { id } }",
                json!({ "id": held }),
                &["asset.checked_in"],
                json!({ "id": free }),
            )
        }
        "createTag" => (
            "operator",
            "mutation($name: String!) { createTag(name: $name) { id } }",
            json!({ "name": "edge" }),
            &["tag.created"],
            json!({ "name": "a,b" }),
        ),
        "deleteTag" => {
            let create = "mutation { createTag(name: \"edge\") { id } }";
            let made = app.ask(operator.bearer.as_str(), create, json!({})).await;
            (
                "operator",
                "mutation($id: ID!) { deleteTag(id: $id) }",
                json!({ "id": made.data()["createTag"]["id"] }),
                &["tag.deleted"],
                json!({ "id": domain::entity::TagId::new() }),
            )
        }
        "importAssets" => (
            "operator",
            IMPORT_ASSETS,
            json!({ "content": "name,type\nweb-1,host\n" }),
            &["import_run.started"],
            json!({ "content": "nmae,type\nweb-1,host\n" }),
        ),
        "cancelImportRun" => {
            let content = json!({ "content": "name,type\nweb-1,host\n" });
            let started = app.ask(operator.bearer.as_str(), IMPORT_ASSETS, content).await;
            (
                "operator",
                "mutation($id: ID!) { cancelImportRun(id: $id) { id } }",
                json!({ "id": started.data()["importAssets"]["id"] }),
                &["import_run.cancelled"],
                json!({ "id": domain::entity::ImportRunId::new() }),
            )
        }
        "saveRule" => (
            "admin",
            SAVE_RULE,
            json!({ "condition": "attr.disk_encrypted" }),
            &["rule.created"],
            json!({ "condition": "attr.disk_encypted" }),
        ),
        "setRuleParams" => (
            "admin",
            "mutation($params: JSON) { setRuleParams(key: \"patch-age\", params: $params) { id } }",
            json!({ "params": { "max_age_days": 14 } }),
            &["rule.updated"],
            json!({ "params": { "max_age_days": "14" } }),
        ),
        // `tryRule` changes nothing, so it records nothing.
        "tryRule" => (
            "operator",
            "mutation($condition: String!) { tryRule(input: { key: \"made\", title: \"Made\", severity: LOW, condition: $condition, remediation: \"None\" }) { passed } }",
            json!({ "condition": "attr.disk_encrypted" }),
            &[],
            json!({ "condition": "attr.disk_encypted" }),
        ),
        "grantWaiver" => (
            "admin",
            GRANT_WAIVER,
            json!({ "rule": rule(app, team).await, "until": days_ahead(30) }),
            &["waiver.granted"],
            json!({ "rule": rule(app, team).await, "until": days_ahead(-1) }),
        ),
        "revokeWaiver" => {
            let input = json!({ "rule": rule(app, team).await, "until": days_ahead(30) });
            let granted = app.ask(admin.bearer.as_str(), GRANT_WAIVER, input).await;
            (
                "admin",
                "mutation($id: ID!) { revokeWaiver(id: $id) { state } }",
                json!({ "id": granted.data()["grantWaiver"]["id"] }),
                &["waiver.revoked"],
                json!({ "id": domain::entity::WaiverId::new() }),
            )
        }
        "startComplianceRun" => (
            "operator",
            "mutation($key: String) { startComplianceRun(idempotencyKey: $key) { id } }",
            json!({ "key": "today" }),
            &["compliance_run.started"],
            json!({ "key": "" }),
        ),
        "cancelComplianceRun" => {
            let start = "mutation { startComplianceRun { id } }";
            let started = app.ask(operator.bearer.as_str(), start, json!({})).await;
            (
                "operator",
                "mutation($id: ID!) { cancelComplianceRun(id: $id) { id } }",
                json!({ "id": started.data()["startComplianceRun"]["id"] }),
                &["compliance_run.cancelled"],
                json!({ "id": domain::entity::RunId::new() }),
            )
        }
        "retryJob" => (
            "admin",
            "mutation($id: ID!) { retryJob(id: $id) { state } }",
            json!({ "id": app.job(team, SET_BURIED).await }),
            &["job.retried"],
            json!({ "id": app.job(team, "").await }),
        ),
        "retryJobs" => {
            app.job(team, SET_BURIED).await;
            (
                "admin",
                "mutation($filter: JobFilter!) { retryJobs(filter: $filter) }",
                json!({ "filter": { "queue": "SCAN" } }),
                &["job.all_retried"],
                json!({ "filter": { "state": ["RUNNING"] } }),
            )
        }
        "discardJob" => (
            "admin",
            "mutation($id: ID!) { discardJob(id: $id) { state } }",
            json!({ "id": app.job(team, SET_BURIED).await }),
            &["job.discarded"],
            json!({ "id": app.job(team, "").await }),
        ),
        "cancelJob" => (
            "admin",
            "mutation($id: ID!) { cancelJob(id: $id) { state } }",
            json!({ "id": app.job(team, "watched = true").await }),
            &["job.cancelled"],
            json!({ "id": app.job(team, SET_BURIED).await }),
        ),
        "saveSchedule" => (
            "operator",
            SAVE_SCHEDULE,
            json!({ "cron": "0 2 * * *" }),
            &["schedule.created"],
            json!({ "cron": "0 24 * * *" }),
        ),
        "deleteSchedule" => {
            let cron = json!({ "cron": "0 2 * * *" });
            let saved = app.ask(operator.bearer.as_str(), SAVE_SCHEDULE, cron).await;
            (
                "operator",
                "mutation($id: ID!) { deleteSchedule(id: $id) }",
                json!({ "id": saved.data()["saveSchedule"]["id"] }),
                &["schedule.deleted"],
                json!({ "id": domain::entity::ScheduleId::new() }),
            )
        }
        other => panic!("the mutation {other} has no row in tests/it/audit.rs: add one"),
    };
    let by = match role {
        "" | "owner" => owner.id,
        "admin" => admin.id,
        _ => operator.id,
    };
    let bearer = (!role.is_empty()).then(|| team[role].bearer.clone());
    // `logout` cannot fail: without a signed-in caller it does nothing.
    let bad_bearer = if bad.is_null() { None } else { bearer.clone() };
    let bad = if bad.is_null() { json!({}) } else { bad };
    (
        Call { bearer, document, variables: good },
        Recorded { actions, by: by.to_string() },
        Call { bearer: bad_bearer, document, variables: bad },
    )
}

async fn asset_named(app: &TestApp, team: &Team, name: &str) -> String {
    let input = json!({ "input": { "name": name, "type": "HOST" } });
    let reply = app.ask(team["operator"].bearer.as_str(), CREATE_ASSET, input).await;
    reply.data()["createAsset"]["id"].as_str().unwrap().to_owned()
}

async fn run(app: &TestApp, call: &Call, request_id: &str) -> Reply {
    let (bearer, variables) = (call.bearer.as_deref(), call.variables.clone());
    harness::ask(&app.engine, bearer, call.document, variables, client(request_id)).await
}

/// An audit entry: action, actor, IP address, request id.
type Entry = (String, Option<String>, Option<String>, Option<String>);

/// Returns the audit entries with this request id.
async fn entries(app: &TestApp, request_id: &str) -> Vec<Entry> {
    let rows = app
        .test
        .superuser()
        .await
        .query(
            "SELECT action, actor_kind || ' ' || actor_id AS actor, host(source_ip) AS source_ip, request_id
             FROM audit_entry WHERE request_id = $1 ORDER BY id",
            &[&request_id],
        )
        .await
        .unwrap();
    rows.iter()
        .map(|row| {
            (row.get("action"), row.get("actor"), row.get("source_ip"), row.get("request_id"))
        })
        .collect()
}

/// Returns a digest of all rows, per table.
async fn digest(app: &TestApp) -> Vec<(&'static str, String)> {
    let client = app.test.superuser().await;
    let mut digest = Vec::new();
    for table in [
        "organization",
        "\"user\"",
        "role",
        "membership",
        "membership_role",
        "session",
        "refresh_token",
        "api_key",
        "audit_entry",
        "asset",
        "dependency",
        "custody",
        "job",
        "job_history",
        "compliance_run",
        "schedule",
        "rule",
        "rule_version",
        "waiver",
        "finding",
        "posture",
        "posture_due",
    ] {
        let sql = format!(
            "SELECT coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM {table} AS t"
        );
        let row = client.query_one(&sql, &[]).await.unwrap();
        digest.push((table, row.get(0)));
    }
    digest
}

#[tokio::test]
async fn every_mutation_leaves_its_entry() {
    let mut wrong = Vec::new();
    let app = TestApp::new().await;
    for mutation in roots("Mutation") {
        let team = app.team(&mutation.to_lowercase()).await;
        let (call, recorded, _) = calls(&app, &team, &mutation).await;
        run(&app, &call, &mutation).await.data();
        let uuid = recorded.by.parse::<domain::entity::UserId>().unwrap().uuid();
        let expected: Vec<Entry> = recorded
            .actions
            .iter()
            .map(|action| {
                (
                    (*action).to_owned(),
                    Some(format!("user {uuid}")),
                    Some(ADDRESS.to_owned()),
                    Some(mutation.clone()),
                )
            })
            .collect();
        let found = entries(&app, &mutation).await;
        if found != expected {
            wrong.push((mutation, found, expected));
        }
    }
    assert!(wrong.is_empty(), "mutation, recorded, expected: {wrong:#?}");
}

#[tokio::test]
async fn a_failing_mutation_leaves_none() {
    let mut wrong = Vec::new();
    let app = TestApp::new().await;
    for mutation in roots("Mutation") {
        let team = app.team(&mutation.to_lowercase()).await;
        let (.., call) = calls(&app, &team, &mutation).await;
        let reply = run(&app, &call, &mutation).await;
        assert_eq!(reply.errors().is_empty(), mutation == "logout", "{mutation}: {:#}", reply.json);
        let found: Vec<_> =
            entries(&app, &mutation).await.into_iter().map(|(action, ..)| action).collect();
        let expected: &[&str] = match mutation.as_str() {
            "login" => &["auth.login_failed"],
            "changePassword" => &["auth.password_refused"],
            _ => &[],
        };
        if found != expected {
            wrong.push((mutation, found));
        }
    }
    assert!(wrong.is_empty(), "mutation, recorded: {wrong:#?}");
}

/// The entry and the change share a transaction: if the entry cannot be written, the change is rolled back.
#[tokio::test]
async fn what_cannot_be_recorded_does_not_happen() {
    let mut wrong = Vec::new();
    let app = TestApp::new().await;
    app
        .execute_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the trail is full'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON audit_entry EXECUTE FUNCTION refuse();
             ALTER TABLE audit_entry DISABLE TRIGGER refuse",
        )
        .await;
    for mutation in roots("Mutation") {
        let team = app.team(&mutation.to_lowercase()).await;
        let (call, recorded, _) = calls(&app, &team, &mutation).await;
        app.execute_sql("ALTER TABLE audit_entry ENABLE TRIGGER refuse").await;
        let before = digest(&app).await;
        let reply = run(&app, &call, &mutation).await;
        app.execute_sql("ALTER TABLE audit_entry DISABLE TRIGGER refuse").await;
        // A mutation that changes nothing records nothing, so it succeeds.
        let is_refused = !reply.errors().is_empty() && reply.code() == "INTERNAL";
        if is_refused == recorded.actions.is_empty() || digest(&app).await != before {
            wrong.push((mutation, reply.json));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_api_key_is_the_actor_of_what_it_changes() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let (key, secret) =
        app.api_key(&team, "ci", &[Permission::AssetRead, Permission::AssetWrite]).await;
    let call = Call {
        bearer: Some(secret),
        document: CREATE_ASSET,
        variables: json!({ "input": { "name": "db-1", "type": "HOST" } }),
    };
    run(&app, &call, "the-call").await.data();
    let actor = Some(format!("api_key {}", key.uuid()));
    assert_eq!(entries(&app, "the-call").await[0].1, actor);
}

#[tokio::test]
async fn the_trail_shows_what_was_changed_and_by_whom() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let id = asset(&app, &team).await;
    let update = "mutation($id: ID!) { updateAsset(id: $id, input: { location: \"Rack 7\", attributes: { os_name: \"Debian 12\" } }) { id } }";
    app.ask(team["operator"].bearer.as_str(), update, json!({ "id": id })).await.data();
    let trail = "query($id: ID!) { auditEntries(filter: { entityId: $id }) {
        nodes { action entityType entityId changedPaths sourceIp requestId actor { ... on User { name } } }
    } }";
    let reply = app.ask(team["admin"].bearer.as_str(), trail, json!({ "id": id })).await;
    assert_eq!(
        reply.data()["auditEntries"]["nodes"][0],
        json!({
            "action": "asset.updated",
            "entityType": "asset",
            "entityId": id,
            "changedPaths": ["attributes.os_name", "location"],
            "sourceIp": ADDRESS,
            "requestId": "the-request",
            "actor": { "name": "alfa operator" },
        })
    );
}
