//! Limits on what one caller can make the server do: fields that a document repeats, large answers, places.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::harness::{Reply, Team, TestApp, nothing};

/// Adds assets with 1,450 custom fields each, which all depend on the first one. Returns the id of the first.
async fn add_large_assets(app: &TestApp, team: &Team, count: i32) -> String {
    let client = app.test.superuser().await;
    let org = team.org.id.uuid();
    let assets = "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, custom_fields, created_at, updated_at)
        SELECT $1, ('018f0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'L-' || n, 'large ' || n, 'HOST', 'ACTIVE', 'PROD',
               (SELECT jsonb_object_agg('k' || k, k) FROM generate_series(1, 1450) AS k), now(), now()
        FROM generate_series(1, $2) AS n";
    client.execute(assets, &[&org, &count]).await.unwrap();
    let dependencies = "INSERT INTO dependency (org_id, id, source_id, target_id, kind, criticality, created_at)
        SELECT $1, gen_random_uuid(), id, '018f0000-0000-7000-8000-000000000001', 'runs_on', 'HIGH', now()
        FROM asset WHERE org_id = $1 AND code <> 'L-1'";
    client.execute(dependencies, &[&org]).await.unwrap();
    let first: domain::entity::AssetId =
        "018f0000-0000-7000-8000-000000000001".parse::<uuid::Uuid>().unwrap().into();
    first.to_string()
}

#[tokio::test]
async fn a_field_that_is_repeated_answers_as_if_it_stood_once() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    add_large_assets(&app, &team, 3).await;
    let bearer = team["viewer"].bearer.as_str();
    for field in ["qrPng", "qrSvg", "customFields", "name", "facts { key value }"] {
        let ask = async |selection: String| {
            let document = format!(
                "query($no: Boolean = false) {{ assets {{ nodes {{ {selection} }} }} }}
                 fragment F on Asset {{ {field} }}"
            );
            app.ask(bearer, &document, nothing()).await
        };
        let once = ask("...F @include(if: $no) ...F".to_owned()).await;
        once.data();
        let often = format!(
            "{} ...F @skip(if: $no) ... on Node {{ ... on Asset {{ {field} }} }}",
            format!("{field} ").repeat(250)
        );
        assert_eq!(ask(often).await.text, once.text, "{field}");
    }
}

#[tokio::test]
async fn a_type_condition_that_no_object_meets_selects_nothing() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let document =
        "mutation($owner: ID!) { createAsset(input: { name: \"x\", type: HOST, owner: $owner }) {
        name name owner { ... on Node { ... on Asset { name } } __typename } } }";
    let owner = json!({ "owner": team["viewer"].id });
    let reply = app.ask(team["admin"].bearer.as_str(), document, owner).await;
    let expected = json!({ "createAsset": { "name": "x", "owner": { "__typename": "User" } } });
    assert_eq!(reply.data(), &expected);
}

#[tokio::test]
async fn different_arguments_under_one_key_are_refused_as_ever() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let document = "{ assets(first: 1) { nodes { id } } assets(first: 2) { nodes { id id } } }";
    let reply = app.ask(team["viewer"].bearer.as_str(), document, nothing()).await;
    assert!(!reply.executed);
    assert_eq!(reply.error()["extensions"]["code"], "VALIDATION");
}

#[tokio::test]
async fn different_fields_of_one_object_under_one_key_are_refused() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let bearer = team["viewer"].bearer.as_str();
    for document in [
        "{ assets { nodes { x: name x: code } } }",
        "{ a: tags { id } ... on Query { a: assets { totalCount } } }",
        "{ assets { nodes { x: name } } assets { nodes { x: code } } }",
        "{ node(id: \"ast_1\") { x: id ... on Asset { x: name } } }",
    ] {
        let reply = app.ask(bearer, document, nothing()).await;
        assert_eq!((reply.executed, reply.code()), (false, "VALIDATION"), "{document}");
    }
    let both = "{ node(id: \"ast_01j8xq4m9ke5trv3yx2f7nbc6d\") { ... on Asset { x: name x: name } ... on Tag { x: color } } }";
    app.ask(bearer, both, nothing()).await.data();
}

#[tokio::test]
async fn large_variables_are_counted_in_directives_and_excluded_fields_too() {
    let app = TestApp::new().await;
    let large = "x".repeat(100_000);
    for field in ["permissions @skip(if: $v)", "sessions @include(if: false) { id @skip(if: $v) }"]
    {
        let document =
            format!("query($v: JSON) {{ viewer {{ {} }} }}", format!("{field} ").repeat(100));
        let reply = app.ask(None, &document, json!({ "v": large })).await;
        assert_eq!(reply.code(), "QUERY_TOO_COMPLEX", "{field}");
        let message = reply.error()["message"].as_str().unwrap();
        assert!(message.contains("bytes of arguments"), "{message}");
    }
}

#[tokio::test]
async fn an_execution_that_ends_early_leaves_no_statement_behind() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let lock = app.test.superuser().await;
    lock.batch_execute("BEGIN; LOCK TABLE asset").await.unwrap();
    let started = std::time::Instant::now();
    let document = "{ assets(first: 1, filter: { text: \"x\" }) { nodes { id } } }";
    let reply = app.ask(team["viewer"].bearer.as_str(), document, nothing()).await;
    assert_eq!(reply.code(), "TIMEOUT");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let observer = app.test.superuser().await;
    let gone = async {
        while observer.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), gone).await.expect("the statement is cancelled");
    lock.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    add_large_assets(&app, &team, 100).await;
    let bearer = team["viewer"].bearer.as_str();
    let lists = |count: usize| {
        let list = |n| format!("a{n}: assets(first: 100) {{ nodes {{ customFields }} }}");
        format!("{{ {} }}", (0..count).map(list).collect::<Vec<_>>().join(" "))
    };
    app.ask(bearer, &lists(1), nothing()).await.data();
    let refused = app.ask(bearer, &lists(4), nothing()).await;
    assert_eq!(refused.code(), "QUERY_TOO_COMPLEX");
    let message = refused.error()["message"].as_str().unwrap();
    assert!(message.starts_with("The answer is larger than 8 MiB"), "{message}");
}

#[tokio::test]
async fn a_change_whose_answer_is_too_large_is_told_to_be_committed() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let id = add_large_assets(&app, &team, 101).await;
    let document = "mutation($id: ID!) {
        first: createTag(name: \"first\") { id }
        second: updateAsset(id: $id, input: { location: \"cellar\" }) {
            a: dependents(first: 100) { asset { customFields } } b: dependents(first: 99) { asset { customFields } }
        }
        third: createTag(name: \"third\") { id }
    }";
    let reply = app.ask(team["admin"].bearer.as_str(), document, json!({ "id": id })).await;
    let error = reply.error();
    assert_eq!(
        (reply.code(), &error["extensions"]["committed"]),
        ("QUERY_TOO_COMPLEX", &json!(true))
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.ends_with("The changes of `first`, `second` are committed, unless they failed; `third` did not run."),
        "{message}"
    );
    let seen = "query($id: ID!) { tags { name } asset(id: $id) { location } }";
    let seen = app.ask(team["viewer"].bearer.as_str(), seen, json!({ "id": id })).await;
    assert_eq!(
        seen.data(),
        &json!({ "tags": [{ "name": "first" }], "asset": { "location": "cellar" } })
    );
}

const SHORT: &str = "{ viewer { permissions } }";

/// Starts this number of requests of a caller that wait for a lock.
fn held(app: &Arc<TestApp>, bearer: &str, count: usize) -> Vec<tokio::task::JoinHandle<Reply>> {
    let start = |_| {
        let (app, bearer) = (Arc::clone(app), bearer.to_owned());
        tokio::spawn(async move {
            app.ask(bearer.as_str(), "{ assets(first: 1) { nodes { id } } }", nothing()).await
        })
    };
    (0..count).map(start).collect()
}

#[tokio::test]
async fn one_caller_and_one_organization_take_their_slots_only() {
    let app = Arc::new(TestApp::with_connections(16).await);
    let (team, other) = (app.team("alfa").await, app.team("bravo").await);
    let lock = app.test.superuser().await;
    lock.batch_execute("BEGIN; LOCK TABLE asset").await.unwrap();
    let waiting = async |count: i64| {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let observer = app.test.superuser().await;
        while observer.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) < count {
            tokio::task::yield_now().await;
        }
    };
    let ask = async |bearer: &str| -> Value {
        let reply = app.ask(bearer, SHORT, nothing()).await;
        reply.errors().first().map_or(Value::Null, |error| error["extensions"]["code"].clone())
    };
    let mut running = held(&app, &team["viewer"].bearer, 4);
    tokio::time::timeout(Duration::from_secs(10), waiting(4)).await.unwrap();
    assert_eq!(ask(&team["viewer"].bearer).await, "RATE_LIMITED", "a fifth of the same caller");
    assert_eq!(ask(&team["operator"].bearer).await, Value::Null, "another of the organization");
    running.extend(held(&app, &team["operator"].bearer, 4));
    tokio::time::timeout(Duration::from_secs(10), waiting(8)).await.unwrap();
    let refused = app.ask(team["admin"].bearer.as_str(), SHORT, nothing()).await;
    assert_eq!(refused.code(), "RATE_LIMITED", "a ninth of the organization");
    assert!(refused.error()["extensions"]["retryAfterMs"].as_u64().unwrap() >= 1_000);
    assert_eq!(ask(&other["viewer"].bearer).await, Value::Null, "another organization");
    running.pop().unwrap().abort(); // Its client went away, and its place is free again.
    assert_eq!(ask(&team["admin"].bearer).await, Value::Null);
    lock.batch_execute("COMMIT").await.unwrap();
    for request in running {
        request.await.unwrap().data();
    }
    assert_eq!(ask(&team["viewer"].bearer).await, Value::Null);
}

#[tokio::test]
async fn few_filters_for_text_fit_into_one_document() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let filters = |count: usize| {
        let list =
            |n| format!("a{n}: assets(first: 1, filter: {{ text: \"x{n}\" }}) {{ totalCount }}");
        format!("{{ {} }}", (0..count).map(list).collect::<Vec<_>>().join(" "))
    };
    let bearer = team["viewer"].bearer.as_str();
    app.ask(bearer, &filters(3), nothing()).await.data();
    let refused = app.ask(bearer, &filters(4), nothing()).await;
    assert_eq!(refused.code(), "QUERY_TOO_COMPLEX");
    assert!(refused.error()["message"].as_str().unwrap().contains("`Query.assets` costs most"));
}
