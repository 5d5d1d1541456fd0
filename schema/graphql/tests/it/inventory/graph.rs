//! Tests of dependencies, custody, changes and labels through GraphQL.

use serde_json::{Value, json};

use crate::harness::{Team, TestApp, nothing};

const ADD: &str = "mutation($source: ID!, $target: ID!, $kind: String, $criticality: Criticality) {
    addDependency(source: $source, target: $target, kind: $kind, criticality: $criticality) {
        id kind criticality createdAt source { name } target { name }
    }
}";

const CHECK_OUT: &str = "mutation($id: ID!, $holder: ID!) {
    checkOutAsset(id: $id, holder: $holder, notes: \"for travel\") {
        notes checkedInAt asset { name } holder { name } checkedOutBy { ... on User { name } } checkedInBy { __typename }
    }
}";

async fn asset(app: &TestApp, team: &Team, name: &str, kind: &str) -> Value {
    let create = "mutation($name: String!, $type: AssetType!) { createAsset(input: { name: $name, type: $type }) { id code } }";
    let variables = json!({ "name": name, "type": kind });
    let reply = app.ask(team["operator"].bearer.as_str(), create, variables).await;
    reply.data()["createAsset"].clone()
}

async fn add(app: &TestApp, team: &Team, source: &Value, target: &Value) -> Value {
    let both = json!({ "source": source["id"], "target": target["id"] });
    let reply = app.ask(team["operator"].bearer.as_str(), ADD, both).await;
    reply.data()["addDependency"].clone()
}

/// Creates a shop that depends on a web server that depends on a database.
async fn shop(app: &TestApp) -> (Team, [Value; 3]) {
    let team = app.team("alfa").await;
    let shop = asset(app, &team, "shop", "SERVICE").await;
    let web = asset(app, &team, "web", "HOST").await;
    let db = asset(app, &team, "db", "HOST").await;
    add(app, &team, &shop, &web).await;
    add(app, &team, &web, &db).await;
    (team, [shop, web, db])
}

#[tokio::test]
async fn what_needs_what_is_seen_from_both_ends() {
    let app = TestApp::new().await;
    let (team, [_, web, _]) = shop(&app).await;
    let document = "query($id: ID!) { asset(id: $id) {
        dependsOn { depth asset { name } via { source { name } target { name } } }
        dependents(depth: 10) { depth asset { name } via { source { name } target { name } } }
    } }";
    let reply = app.ask(team["viewer"].bearer.as_str(), document, json!({ "id": web["id"] })).await;
    let step = |source: &str, target: &str| json!({ "source": { "name": source }, "target": { "name": target } });
    assert_eq!(
        reply.data()["asset"],
        json!({
            "dependsOn": [{ "depth": 1, "asset": { "name": "db" }, "via": step("web", "db") }],
            "dependents": [{ "depth": 1, "asset": { "name": "shop" }, "via": step("shop", "web") }],
        })
    );
}

#[tokio::test]
async fn a_blast_radius_counts_all_and_shows_the_nearest() {
    let app = TestApp::new().await;
    let (team, [_, _, db]) = shop(&app).await;
    let document = "query($id: ID!) { asset(id: $id) {
        blastRadius(first: 1) { assets services truncated nodes { depth asset { name } } }
        near: blastRadius(depth: 1) { assets services truncated }
    } }";
    let reply = app.ask(team["viewer"].bearer.as_str(), document, json!({ "id": db["id"] })).await;
    assert_eq!(
        reply.data()["asset"],
        json!({
            "blastRadius": { "assets": 2, "services": 1, "truncated": true, "nodes": [{ "depth": 1, "asset": { "name": "web" } }] },
            "near": { "assets": 1, "services": 0, "truncated": false },
        })
    );
}

#[tokio::test]
async fn a_walk_out_of_bounds_is_refused_with_its_arguments() {
    let app = TestApp::new().await;
    let (team, [_, web, _]) = shop(&app).await;
    for field in [
        "dependsOn(depth: 11, first: 0) { depth }",
        "dependents(depth: 0, first: 101) { depth }",
        "blastRadius(depth: -1, first: -1) { assets }",
    ] {
        let document = format!("query($id: ID!) {{ asset(id: $id) {{ {field} }} }}");
        let id = json!({ "id": web["id"] });
        let reply = app.ask(team["viewer"].bearer.as_str(), &document, id).await;
        assert_eq!((reply.code(), reply.faults()), ("VALIDATION", vec!["depth", "first"]));
    }
}

#[tokio::test]
async fn a_dependency_is_added_shown_and_removed() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let operator = team["operator"].bearer.as_str();
    let (web, db) =
        (asset(&app, &team, "web", "HOST").await, asset(&app, &team, "db", "HOST").await);
    let input = json!({ "source": web["id"], "target": db["id"], "kind": "database", "criticality": "CRITICAL" });
    let reply = app.ask(operator, ADD, input.clone()).await;
    let added = &reply.data()["addDependency"];
    assert_eq!((&added["kind"], &added["criticality"]), (&json!("database"), &json!("CRITICAL")));
    assert_eq!((&added["source"]["name"], &added["target"]["name"]), (&json!("web"), &json!("db")));
    assert_eq!(app.ask(operator, ADD, input).await.code(), "CONFLICT");
    let id = json!({ "id": added["id"] });
    let node =
        "query($id: ID!) { node(id: $id) { id ... on Dependency { kind target { name } } } }";
    let reply = app.ask(team["viewer"].bearer.as_str(), node, id.clone()).await;
    assert_eq!(
        reply.data()["node"],
        json!({ "id": added["id"], "kind": "database", "target": { "name": "db" } })
    );
    let remove = "mutation($id: ID!) { removeDependency(id: $id) }";
    let removed = app.ask(operator, remove, id.clone()).await;
    assert_eq!(removed.data()["removeDependency"], added["id"]);
    assert_eq!(app.ask(operator, node, id.clone()).await.data()["node"], Value::Null);
    assert_eq!(app.ask(operator, remove, id).await.code(), "NOT_FOUND");
}

#[tokio::test]
async fn an_asset_that_would_need_itself_is_refused_by_argument() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let web = asset(&app, &team, "web", "HOST").await;
    let itself = json!({ "source": web["id"], "target": web["id"], "kind": "x".repeat(51) });
    let reply = app.ask(team["operator"].bearer.as_str(), ADD, itself).await;
    assert_eq!((reply.code(), reply.faults()), ("VALIDATION", vec!["kind", "target"]));
}

#[tokio::test]
async fn who_holds_an_asset_is_told_to_who_wants_it() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let laptop = asset(&app, &team, "laptop", "HOST").await;
    let lend = json!({ "id": laptop["id"], "holder": team["viewer"].id });
    let operator = team["operator"].bearer.as_str();
    let reply = app.ask(operator, CHECK_OUT, lend.clone()).await;
    assert_eq!(
        reply.data()["checkOutAsset"],
        json!({
            "notes": "for travel",
            "checkedInAt": null,
            "asset": { "name": "laptop" },
            "holder": { "name": "alfa viewer" },
            "checkedOutBy": { "name": "alfa operator" },
            "checkedInBy": null,
        })
    );
    let again = app.ask(operator, CHECK_OUT, lend).await;
    assert_eq!(again.code(), "CONFLICT");
    let messages = again.error()["message"].as_str().unwrap();
    assert!(
        messages.starts_with("The asset has been checked out to alfa viewer since 20"),
        "{messages}"
    );
}

#[tokio::test]
async fn custody_has_a_present_and_a_history() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let laptop = asset(&app, &team, "laptop", "HOST").await;
    let operator = team["operator"].bearer.as_str();
    let id = json!({ "id": laptop["id"] });
    for holder in ["viewer", "admin", "owner"] {
        let lend = json!({ "id": laptop["id"], "holder": team[holder].id });
        app.ask(operator, CHECK_OUT, lend).await.data();
        if holder != "owner" {
            let back = "mutation($id: ID!) { checkInAsset(id: $id, notes: \"scratched\") { returnNotes checkedInBy { ... on User { name } } } }";
            let reply = app.ask(operator, back, id.clone()).await;
            assert_eq!(
                reply.data()["checkInAsset"],
                json!({ "returnNotes": "scratched", "checkedInBy": { "name": "alfa operator" } })
            );
        }
    }
    let document = "query($id: ID!, $after: String) { asset(id: $id) {
        custody { id holder { name } }
        custodyHistory(first: 2, after: $after) { totalCount pageInfo { hasNextPage endCursor } nodes { id holder { name } } }
    } }";
    let reader = team["viewer"].bearer.as_str();
    let reply = app.ask(reader, document, id.clone()).await;
    let seen = &reply.data()["asset"];
    let names = |history: &Value| -> Vec<String> {
        let nodes = history["nodes"].as_array().unwrap().iter();
        nodes.map(|node| node["holder"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let history = &seen["custodyHistory"];
    assert_eq!(seen["custody"]["id"], history["nodes"][0]["id"]);
    assert_eq!(names(history), ["alfa owner", "alfa admin"]);
    assert_eq!(
        (&history["totalCount"], &history["pageInfo"]["hasNextPage"]),
        (&json!(3), &json!(true))
    );
    let after = json!({ "id": laptop["id"], "after": history["pageInfo"]["endCursor"] });
    let reply = app.ask(reader, document, after).await;
    let rest = &reply.data()["asset"]["custodyHistory"];
    assert_eq!(
        (names(rest), &rest["pageInfo"]["hasNextPage"]),
        (vec!["alfa viewer".to_owned()], &json!(false))
    );
    let node =
        "query($id: ID!) { node(id: $id) { ... on Custody { holder { name } asset { name } } } }";
    let reply = app.ask(reader, node, json!({ "id": seen["custody"]["id"] })).await;
    assert_eq!(
        reply.data()["node"],
        json!({ "holder": { "name": "alfa owner" }, "asset": { "name": "laptop" } })
    );
}

#[tokio::test]
async fn changes_say_who_did_what_where_and_no_values() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let (web, db) =
        (asset(&app, &team, "web", "HOST").await, asset(&app, &team, "db", "HOST").await);
    let update = "mutation($id: ID!) { updateAsset(id: $id, input: { location: \"Rack 7\", attributes: { os_name: \"Debian\" } }) { id } }";
    let id = json!({ "id": web["id"] });
    app.ask(team["admin"].bearer.as_str(), update, id.clone()).await.data();
    add(&app, &team, &web, &db).await;
    let document = "query($id: ID!, $after: String) { asset(id: $id) { changes(first: 2, after: $after) {
        totalCount pageInfo { endCursor hasNextPage } nodes { action paths actor { ... on User { name } } }
    } } }";
    // A viewer may not read the audit trail, but may read this history.
    let reader = team["viewer"].bearer.as_str();
    let reply = app.ask(reader, document, id).await;
    let changes = &reply.data()["asset"]["changes"];
    assert_eq!(
        changes["nodes"],
        json!([
            { "action": "asset.dependency_added", "paths": [format!("dependsOn.{}", db["id"].as_str().unwrap())], "actor": { "name": "alfa operator" } },
            { "action": "asset.updated", "paths": ["attributes.os_name", "location"], "actor": { "name": "alfa admin" } },
        ])
    );
    assert_eq!(changes["totalCount"], 3);
    let after = json!({ "id": web["id"], "after": changes["pageInfo"]["endCursor"] });
    let reply = app.ask(reader, document, after).await;
    let rest = &reply.data()["asset"]["changes"];
    assert_eq!(
        (&rest["nodes"][0]["action"], &rest["pageInfo"]["hasNextPage"]),
        (&json!("asset.created"), &json!(false))
    );
    // The cursor belongs to another asset's list.
    let elsewhere = json!({ "id": db["id"], "after": changes["pageInfo"]["endCursor"] });
    let reply = app.ask(reader, document, elsewhere).await;
    assert_eq!((reply.code(), reply.faults()), ("VALIDATION", vec!["after"]));
}

#[tokio::test]
async fn a_label_is_a_picture_of_the_code() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let web = asset(&app, &team, "web", "HOST").await;
    let reader = team["viewer"].bearer.as_str();
    let document = "query($id: ID!) { asset(id: $id) { qrSvg qrPng } }";
    let reply = app.ask(reader, document, json!({ "id": web["id"] })).await;
    let code = web["code"].as_str().unwrap();
    assert_eq!(
        reply.data()["asset"],
        json!({ "qrSvg": domain::inventory::label::svg(code), "qrPng": domain::inventory::label::png_data_url(code) })
    );
}

#[tokio::test]
async fn rows_that_an_answer_may_hold_are_counted_before_it_runs() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let reader = team["viewer"].bearer.as_str();
    for field in [
        "dependents(depth: 10) { asset { name } }",
        "blastRadius { nodes { asset { name } } }",
        "changes(first: 100) { nodes { actor { __typename } } }",
    ] {
        let document = format!("{{ assets(first: 100) {{ nodes {{ {field} }} }} }}");
        let reply = app.ask(reader, &document, nothing()).await;
        assert_eq!((reply.code(), reply.executed), ("QUERY_TOO_COMPLEX", false), "{field}");
        let few = document.replacen("100", "10", 1);
        app.ask(reader, &few, nothing()).await.data();
    }
}
