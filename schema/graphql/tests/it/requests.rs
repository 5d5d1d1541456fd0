//! Tests of a request's transactions: one for reads, one connection at a time, none for rejected documents.

use std::time::Duration;

use domain::entity::AssetId;
use serde_json::{Value, json};

use crate::{
    harness::{Reply, Team, TestApp, nothing},
    wire::Wire,
};

const CREATE: &str =
    "mutation($input: CreateAssetInput!) { createAsset(input: $input) { id name owner { name } } }";

/// A document that selects many lists and relations at the same time.
const BUSY: &str = "query($id: ID!) {
    viewer { organizations { name } sessions { id } organization { name } roles { key } actor { ... on User { name roles { key } } } }
    node(id: $id) { id ... on User { name roles { key } } }
    assets(first: 10) { totalCount nodes { name owner { name roles { key } } } }
    users(first: 10) { totalCount nodes { name roles { key } } }
    auditEntries(first: 10) { nodes { action actor { ... on User { name } } } }
    roles { key }
    apiKeys { name createdBy { name } }
}";

async fn add_asset(app: &TestApp, team: &Team) {
    let input = json!({ "input": { "name": "web-1", "type": "HOST", "owner": team["viewer"].id } });
    app.ask(team["owner"].bearer.as_str(), CREATE, input).await.data();
}

/// Fails if requests wait for each other's connections, before the pool's own timeout of five seconds.
async fn promptly(reply: impl Future<Output = Reply>) -> Reply {
    tokio::time::timeout(Duration::from_secs(4), reply)
        .await
        .expect("it waits for a connection of its own")
}

#[tokio::test]
async fn all_that_a_document_reads_is_read_in_one_transaction() {
    let (app, wire) = Wire::app(4).await;
    let team = app.team("alfa").await;
    add_asset(&app, &team).await;
    wire.take();
    let document = "query($id: ID!) {
        node(id: $id) { ... on User { name roles { key } } }
        viewer { organization { name } roles { key } }
        assets(first: 10) { totalCount nodes { name owner { name roles { key } } } }
        users(first: 10) { nodes { name roles { key } } }
        roles { key }
    }";
    let owner = &team["owner"];
    app.ask(owner.bearer.as_str(), document, json!({ "id": owner.id })).await.data();
    let seen = wire.take();
    assert_eq!((seen.count("BEGIN READ ONLY"), seen.count("BEGIN")), (1, 2), "{seen:#?}");
}

#[tokio::test]
async fn a_request_opens_no_transaction_beside_another() {
    let (app, wire) = Wire::app(8).await;
    let team = app.team("alfa").await;
    add_asset(&app, &team).await;
    wire.take();
    let owner = &team["owner"];
    promptly(app.ask(owner.bearer.as_str(), BUSY, json!({ "id": owner.id }))).await.data();
    let seen = wire.take();
    assert_eq!(seen.most_open, 1, "{:#?}", seen.statements);
}

#[tokio::test]
async fn a_request_hands_its_connection_back_in_order() {
    let (app, wire) = Wire::app(1).await;
    let team = app.team("alfa").await;
    add_asset(&app, &team).await;
    wire.take();
    let owner = &team["owner"];
    for _ in 0..3 {
        promptly(app.ask(owner.bearer.as_str(), BUSY, json!({ "id": owner.id }))).await.data();
    }
    assert_eq!(wire.take().connections, 0, "connections were thrown away and made anew");
}

/// Selects pairs of fields together on a pool of one connection.
#[tokio::test]
async fn one_connection_is_enough_for_any_document() {
    let app = TestApp::with_connections(1).await;
    let team = app.team("alfa").await;
    add_asset(&app, &team).await;
    app.execute_sql("UPDATE membership SET permissions = '{FLEET_READ}'").await;
    app.job(&team, &format!("actor_kind = 'user', actor_id = '{}'", team["owner"].id.uuid())).await;
    let parts = [
        "viewer { organizations { name } }",
        "viewer { sessions { id } }",
        "viewer { organization { name } roles { key } actor { ... on User { name } } }",
        "node(id: $id) { id ... on User { name } }",
        "assets { nodes { name owner { name } } totalCount }",
        "users { nodes { name roles { key } } totalCount }",
        "auditEntries { nodes { action actor { ... on User { name } } } }",
        "apiKeys { name createdBy { name } }",
        "jobs { nodes { kind actor { ... on User { name } } } totalCount }",
        "queues(fleet: true) { waiting }",
        "workers { host }",
        "schedules { name actor { ... on User { name } } }",
    ];
    let owner = &team["owner"];
    let mut stuck = Vec::new();
    for one in parts {
        for other in parts {
            let document =
                format!("query($id: ID!) {{ {one} {other} use: node(id: $id) {{ id }} }}");
            let asked = app.ask(owner.bearer.as_str(), &document, json!({ "id": owner.id }));
            match tokio::time::timeout(Duration::from_secs(2), asked).await {
                Ok(reply) if reply.errors().is_empty() => {}
                other => stuck.push((document, other.map(|reply| reply.json))),
            }
        }
    }
    assert!(stuck.is_empty(), "{} documents: {:#?}", stuck.len(), stuck.first());
}

#[tokio::test]
async fn a_mutation_and_what_is_selected_of_its_result_share_one_connection() {
    let app = TestApp::with_connections(1).await;
    let team = app.team("alfa").await;
    let document = "mutation($owner: ID!) {
        a: createAsset(input: { name: \"web-1\", type: HOST, owner: $owner }) { name owner { name roles { key } } }
        b: createAsset(input: { name: \"web-2\", type: HOST, owner: $owner }) { name owner { name roles { key } } }
        updateUser(id: $owner, input: { name: \"Renamed\", password: \"another pelican mosaic\" }) { name roles { key } }
        c: setUserRoles(user: $owner, roles: [\"operator\"]) { name roles { key } }
    }";
    let variables = json!({ "owner": team["viewer"].id });
    let reply = promptly(app.ask(team["owner"].bearer.as_str(), document, variables)).await;
    let owner = |role: &str, name: &str| json!({ "name": name, "roles": [{ "key": role }] });
    assert_eq!(
        reply.data(),
        &json!({
            "a": { "name": "web-1", "owner": owner("viewer", "alfa viewer") },
            "b": { "name": "web-2", "owner": owner("viewer", "alfa viewer") },
            "updateUser": owner("viewer", "Renamed"),
            "c": owner("operator", "Renamed"),
        })
    );
}

#[tokio::test]
async fn requests_at_once_share_few_connections() {
    let app = TestApp::with_connections(2).await;
    let team = app.team("alfa").await;
    add_asset(&app, &team).await;
    let owner = &team["owner"];
    let asked = (0..24).map(|_| app.ask(owner.bearer.as_str(), BUSY, json!({ "id": owner.id })));
    for reply in futures_util::future::join_all(asked).await {
        reply.data();
    }
}

#[tokio::test]
async fn the_second_of_two_mutations_sees_the_first() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let document = "mutation {
        made: saveRole(key: \"night\", name: \"Night\", permissions: [CHECK_RUN]) { key }
        held: createUser(input: { email: \"n@alfa.example\", name: \"N\", password: \"correct pelican mosaic\", roles: [\"night\"] }) { roles { key } }
    }";
    let reply = app.ask(team["owner"].bearer.as_str(), document, nothing()).await;
    assert_eq!(
        reply.data(),
        &json!({ "made": { "key": "night" }, "held": { "roles": [{ "key": "night" }] } })
    );
}

#[tokio::test]
async fn the_first_of_two_mutations_stays_when_the_second_fails() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let document = "mutation {
        a: createAsset(input: { name: \"web-1\", type: HOST, externalId: \"x\" }) { name }
        b: createAsset(input: { name: \"web-2\", type: HOST, externalId: \"x\" }) { name }
    }";
    let bearer = team["owner"].bearer.as_str();
    let reply = app.ask(bearer, document, nothing()).await;
    assert_eq!((reply.code(), &reply.error()["path"]), ("CONFLICT", &json!(["b"])));
    let reply = app.ask(bearer, "{ assets { nodes { name } } }", nothing()).await;
    assert_eq!(reply.data(), &json!({ "assets": { "nodes": [{ "name": "web-1" }] } }));
}

#[tokio::test]
async fn what_is_refused_for_its_looks_touches_no_database() {
    let (app, wire) = Wire::app(1).await;
    let team = app.team("alfa").await;
    wire.take();
    let many = |times: usize, part: &str| part.repeat(times);
    let times = |times: usize, field: &str| {
        let fields: Vec<_> = (0..times).map(|time| format!("a{time}: {field}")).collect();
        format!("{{ {} }}", fields.join(" "))
    };
    let nested = format!("{{ viewer {} {} }}", many(40, "{ a "), many(40, "}"));
    for (what, document) in [
        ("no GraphQL", "{ viewer {".to_owned()),
        ("too large", format!("{{ viewer {{ {} }} }}", many(20_000, "roles "))),
        ("too deep", nested),
        ("too many roots", times(21, "roles { key }")),
        ("too expensive", times(20, "users(first: 100) { nodes { roles { key } } }")),
        ("two sign-ins", "mutation { a: login(email: \"\", password: \"\") { mfaChallenge } b: login(email: \"\", password: \"\") { mfaChallenge } }".to_owned()),
    ] {
        let reply = app.ask(team["owner"].bearer.as_str(), &document, nothing()).await;
        assert!(!reply.executed && !reply.errors().is_empty(), "{what}: {:#}", reply.json);
        let seen = wire.take();
        assert!(seen.statements.is_empty(), "{what}: {seen:#?}");
    }
}

#[tokio::test]
async fn what_is_refused_for_who_asks_reads_nothing_of_the_organization() {
    let (app, wire) = Wire::app(1).await;
    let team = app.team("alfa").await;
    wire.take();
    let viewer = Some(team["viewer"].bearer.as_str());
    for (document, bearer, code) in [
        ("{ assets { nodes { name } } }", None, "UNAUTHENTICATED"),
        ("mutation { deleteRole(key: \"x\") }", None, "UNAUTHENTICATED"),
        ("{ viewer { roles { key } } users { nodes { name } } }", viewer, "FORBIDDEN"),
        ("mutation { deleteRole(key: \"x\") }", viewer, "FORBIDDEN"),
        ("{ assets { nodes { nmae } } }", viewer, "VALIDATION"),
    ] {
        let reply = app.ask(bearer, document, nothing()).await;
        assert_eq!(reply.json["errors"][0]["extensions"]["code"], code, "{:#}", reply.json);
        assert!(!reply.executed, "{document}: {:#}", reply.json);
        let seen = wire.take();
        let recognised = usize::from(bearer.is_some());
        assert_eq!(seen.count("BEGIN"), recognised, "{document}: {seen:#?}");
        assert_eq!(seen.count("BEGIN READ ONLY"), 0, "{document}: {seen:#?}");
    }
}

/// Variables are checked before any field runs: the first of two mutations must not run if a variable of the second
/// is invalid.
#[tokio::test]
async fn variables_that_do_not_fit_refuse_the_document_whole() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let owner = team["owner"].bearer.as_str();
    let document = "mutation($id: ID!, $input: UpdateAssetInput!, $state: LifecycleState!) {
        createAsset(input: { name: \"too early\", type: HOST }) { id }
        updateAsset(id: $id, input: $input) { id }
        setAssetLifecycle(id: $id, state: $state) { id }
    }";
    let id = AssetId::new();
    let mut wrong = Vec::new();
    for (what, variables) in [
        ("none", json!({})),
        ("one is missing", json!({ "input": {}, "state": "ACTIVE" })),
        ("the last is missing", json!({ "id": id, "input": {} })),
        ("null", json!({ "id": null, "input": {}, "state": "ACTIVE" })),
        ("another type", json!({ "id": id, "input": 1, "state": "ACTIVE" })),
        ("no value of the enum", json!({ "id": id, "input": {}, "state": "GONE" })),
        (
            "a field that is not there",
            json!({ "id": id, "input": { "nmae": "x" }, "state": "ACTIVE" }),
        ),
        ("a field of another type", json!({ "id": id, "input": { "name": 1 }, "state": "ACTIVE" })),
    ] {
        let reply = app.ask(owner, document, variables).await;
        let count = app.ask(owner, "{ assets { totalCount } }", nothing()).await;
        let made = count.data()["assets"]["totalCount"].as_i64().unwrap();
        app.execute_sql("DELETE FROM asset").await;
        if reply.executed
            || made > 0
            || reply.json["errors"][0]["extensions"]["code"] != "VALIDATION"
        {
            wrong.push((what, made, reply.json));
        }
    }
    assert!(wrong.is_empty(), "what, made, answer: {wrong:#?}");
}

#[tokio::test]
async fn a_document_is_refused_whole() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let document = "mutation {
        createAsset(input: { name: \"web-1\", type: HOST }) { id }
        saveRole(key: \"night\", name: \"Night\", permissions: []) { id }
    }";
    let reply = app.ask(team["operator"].bearer.as_str(), document, nothing()).await;
    assert_eq!((reply.code(), &reply.error()["path"]), ("FORBIDDEN", &json!(["saveRole"])));
    let reply =
        app.ask(team["operator"].bearer.as_str(), "{ assets { totalCount } }", nothing()).await;
    assert_eq!(reply.data()["assets"]["totalCount"], 0);
}

#[tokio::test]
async fn keys_stand_in_the_order_of_the_document() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    add_asset(&app, &team).await;
    let document = "{
        z: roles { name key }
        assets { nodes { owner { roles { key name } name } name code: type } totalCount }
        ...F
        viewer { permissions actor { __typename ... on User { name id } } }
        a: __typename
    } fragment F on Query { users(first: 1) { pageInfo { hasNextPage } nodes { name id: __typename } } }";
    let reply = app.ask(team["owner"].bearer.as_str(), document, nothing()).await;
    let parts: Vec<_> = reply.text.split("\":").collect();
    // The text between the last quote of a part and the colon is a key; the last part is followed by none.
    let keys =
        parts[..parts.len() - 1].iter().map(|part| part.rsplit('"').next().unwrap_or_default());
    let keys: Vec<_> = keys.collect();
    let asset = "owner roles key name name name code";
    let (role, page) = ("name key", "hasNextPage");
    let expected = format!(
        "data z {role} {role} {role} {role} assets nodes {asset} totalCount users pageInfo {page} nodes name id \
         viewer permissions actor __typename name id a"
    );
    assert_eq!(keys.join(" "), expected);
}

#[tokio::test]
async fn a_viewer_who_is_nobody_is_null_whatever_is_asked_of_them() {
    let app = TestApp::new().await;
    for document in [
        "{ viewer { organization { name } actor { ... on User { name email } } sessions { id } } }",
        "{ who: viewer { organizations { name } roles { key } } }",
        "{ ...F } fragment F on Query { viewer { permissions } }",
    ] {
        let reply = app.ask(None, document, nothing()).await;
        let who = reply.data().as_object().unwrap().values().collect::<Vec<_>>();
        assert_eq!(who, [&Value::Null], "{document}");
    }
}

#[tokio::test]
async fn a_bearer_that_is_no_good_is_refused_except_to_sign_in_or_out() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let owner = &team["owner"];
    app.ask(owner.bearer.as_str(), "mutation { logout }", nothing()).await.data();
    let over = owner.bearer.as_str();
    assert_eq!(
        app.ask(over, "{ viewer { permissions } }", nothing()).await.code(),
        "UNAUTHENTICATED"
    );
    app.ask(over, "mutation { logout }", nothing()).await.data();
    let login = "mutation($email: String!) { login(email: $email, password: \"correct pelican mosaic\") { tokens { accessToken } } }";
    app.ask(over, login, json!({ "email": owner.email })).await.data();
}

#[tokio::test]
async fn a_node_is_found_by_its_id_whatever_its_type() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    add_asset(&app, &team).await;
    let (key, _) =
        app.api_key(&team, "ci", &[domain::access::permission::Permission::AssetRead]).await;
    let job = app.job(&team, "").await;
    let owner = team["owner"].bearer.as_str();
    let save = "mutation { saveSchedule(input: { name: \"nightly\", cron: \"0 2 * * *\", action: COMPLIANCE_RUN }) { id } }";
    let saved = app.ask(owner, save, nothing()).await.data().clone();
    let ids = "{ assets { nodes { id } } roles { id } auditEntries(first: 1) { nodes { id } } viewer { organization { id } } }";
    let ids = app.ask(owner, ids, nothing()).await.data().clone();
    let document = "query($id: ID!) { node(id: $id) { __typename id } }";
    for (kind, id) in [
        ("Asset", &ids["assets"]["nodes"][0]["id"]),
        ("Role", &ids["roles"][0]["id"]),
        ("AuditEntry", &ids["auditEntries"]["nodes"][0]["id"]),
        ("Organization", &ids["viewer"]["organization"]["id"]),
        ("User", &json!(team["viewer"].id)),
        ("ApiKey", &json!(key)),
        ("Job", &json!(job)),
        ("Schedule", &saved["saveSchedule"]["id"]),
    ] {
        let reply = app.ask(owner, document, json!({ "id": id })).await;
        assert_eq!(reply.data(), &json!({ "node": { "__typename": kind, "id": id } }));
    }
    let gone = AssetId::new();
    assert_eq!(
        app.ask(owner, document, json!({ "id": gone })).await.data(),
        &json!({ "node": null })
    );
}
