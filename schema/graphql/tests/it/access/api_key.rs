//! API keys whose makers lose rights: the key loses them too, at every root field.

use domain::access::permission::{BuiltinRole, NOT_FOR_KEYS, Permission, PermissionSet};
use serde_json::json;

use crate::{
    harness::{Team, TestApp, nothing},
    sdl::{fields, permissions, types},
};

/// The root fields of queries and mutations: kind of operation, name, and required permissions.
fn root_fields() -> Vec<(&'static str, String, PermissionSet)> {
    let types = types(&graphql::sdl());
    let mut roots = Vec::new();
    for (kind, name) in [("query", "Query"), ("mutation", "Mutation")] {
        let root = types.iter().find(|definition| definition.name.node == name).unwrap();
        for field in fields(root) {
            let required = permissions(&field.node.directives);
            let required = PermissionSet::from_names(required.iter().map(String::as_str));
            roots.push((kind, field.node.name.node.to_string(), required));
        }
    }
    roots
}

/// Creates an admin with a key that has every permission a key of an admin can have.
async fn admin_with_key(app: &TestApp, team: &Team) -> (String, String) {
    let admin = app.person(&team.org, "maker", "The Maker", &["admin"]).await;
    let set = BuiltinRole::Admin.permissions().without(NOT_FOR_KEYS);
    let names: Vec<_> = set.iter().map(Permission::as_str).collect();
    let document = format!(
        "mutation {{ createApiKey(input: {{ name: \"nightly\", permissions: [{}], expiresAt: \"2030-01-01T00:00:00Z\" }}) {{ secret }} }}",
        names.join(" ")
    );
    let document = document.replace(
        "2030-01-01T00:00:00Z",
        &(crate::harness::now() + chrono::TimeDelta::days(30)).to_rfc3339(),
    );
    let made = app.ask(admin.bearer.as_str(), &document, nothing()).await;
    (admin.id.to_string(), made.data()["createApiKey"]["secret"].as_str().unwrap().to_owned())
}

/// Asserts for every root field that the key is refused exactly if it lacks a required permission.
async fn assert_allowed(app: &TestApp, key: &str, allowed: PermissionSet) {
    for (kind, field, required) in root_fields() {
        let reply =
            app.ask(key, &format!("{kind} {{ {field} {{ __typename }} }}"), nothing()).await;
        let code = reply.errors().first().and_then(|error| error["extensions"]["code"].as_str());
        let is_refused = code == Some("FORBIDDEN");
        assert_eq!(is_refused, !allowed.covers(required), "{field}: {:#}", reply.json);
    }
}

#[tokio::test]
async fn the_key_of_a_demoted_maker_can_do_what_the_maker_can() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let (maker, key) = admin_with_key(&app, &team).await;
    assert_allowed(&app, &key, BuiltinRole::Admin.permissions().without(NOT_FOR_KEYS)).await;
    let demote = "mutation($user: ID!) { setUserRoles(user: $user, roles: [\"viewer\"]) { id } }";
    app.ask(team["owner"].bearer.as_str(), demote, json!({ "user": maker })).await.data();
    assert_allowed(&app, &key, BuiltinRole::Viewer.permissions().without(NOT_FOR_KEYS)).await;
    let promote = "mutation($user: ID!) { setUserRoles(user: $user, roles: [\"admin\"]) { id } }";
    let refused = app.ask(key.as_str(), promote, json!({ "user": maker })).await;
    assert_eq!(refused.code(), "FORBIDDEN", "the key does not bring its maker back");
}

#[tokio::test]
async fn the_key_of_a_maker_without_a_membership_can_do_nothing() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    for removal in [
        "UPDATE membership SET active = false WHERE user_id = $1",
        // Nobody is removed by the API; a row that is gone all the same ends the key.
        "DELETE FROM membership_role WHERE user_id = $1",
    ] {
        let (maker, key) = admin_with_key(&app, &team).await;
        let id: domain::entity::UserId = maker.parse().unwrap();
        app.test.superuser().await.execute(removal, &[&id.uuid()]).await.unwrap();
        for (kind, field, required) in root_fields() {
            if required.is_empty() {
                continue;
            }
            let document = format!("{kind} {{ {field} {{ __typename }} }}");
            let reply = app.ask(key.as_str(), &document, nothing()).await;
            let codes: Vec<_> =
                reply.errors().iter().map(|error| &error["extensions"]["code"]).collect();
            let is_refused =
                codes.iter().all(|code| *code == "UNAUTHENTICATED" || *code == "FORBIDDEN");
            assert!(is_refused && !codes.is_empty(), "{field}: {:#}", reply.json);
        }
        let sql = "UPDATE \"user\" SET email = id::text || '@gone.example' WHERE id = $1";
        app.test.superuser().await.execute(sql, &[&id.uuid()]).await.unwrap();
    }
}
