//! Tests of errors as clients receive them: a code, a message and faults, never the text of the driver.
//!
//! Long, because there is a test for each code.

use domain::{
    Db,
    entity::{AssetId, UserId},
    testing::TestDb,
};
use jobs::Quota;
use serde_json::{Value, json};

use crate::harness::{self, PASSWORD, Reply, TestApp, client, nothing, unlimited_quota};

const CREATE: &str = "mutation($input: CreateAssetInput!) { createAsset(input: $input) { id } }";

/// Executes a document as the owner of a new team.
async fn ask(document: &str, variables: Value) -> Reply {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    app.ask(team["owner"].bearer.as_str(), document, variables).await
}

/// Asserts that the errors contain no internals, which belong in the log.
#[track_caller]
fn assert_no_internals(reply: &Reply) {
    let output = Value::from(reply.errors().to_vec()).to_string().to_lowercase();
    for word in [
        "postgres",
        "sqlstate",
        "relation",
        "constraint",
        "panick",
        "src/",
        "at line",
        "_key",
        "_fkey",
        "_check",
        "pool",
        "tokio",
        "socket",
        "secret cause",
    ] {
        assert!(!output.contains(word), "{word}: {output}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let id = AssetId::new();
    let document = "mutation($id: ID!) { updateAsset(id: $id, input: {}) { id } }";
    let reply = ask(document, json!({ "id": id })).await;
    assert_eq!(reply.code(), "NOT_FOUND");
    assert_eq!(reply.error()["message"], format!("There is no asset {id}."));
}

#[tokio::test]
async fn what_cannot_be_changed_as_things_are_is_a_conflict() {
    let document = "mutation {
        createAsset(input: { name: \"a\", type: HOST, externalId: \"x\" }) { id }
        again: createAsset(input: { name: \"b\", type: HOST, externalId: \"x\" }) { id }
    }";
    let reply = ask(document, nothing()).await;
    assert_eq!(reply.code(), "CONFLICT");
    assert_eq!(reply.error()["message"], "Another asset has this external id.");
    assert_no_internals(&reply);
}

#[tokio::test]
async fn an_owner_from_nowhere_is_a_conflict() {
    let input = json!({ "input": { "name": "a", "type": "HOST", "owner": UserId::new() } });
    let reply = ask(CREATE, input).await;
    assert_eq!(reply.error()["message"], "The owner is not a member of this organization.");
    assert_no_internals(&reply);
}

#[tokio::test]
async fn the_last_owner_stays() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let document = "mutation($user: ID!) { deactivateUser(user: $user) { id } }";
    let reply =
        app.ask(team["owner"].bearer.as_str(), document, json!({ "user": team["owner"].id })).await;
    assert_eq!(reply.code(), "CONFLICT", "{:#}", reply.json);
    assert_no_internals(&reply);
}

#[tokio::test]
async fn all_faults_of_an_asset_are_told_at_once() {
    let input = json!({
        "name": " ", "type": "HOST", "location": "a\nb", "description": "x".repeat(4097), "externalId": "y".repeat(256),
        "attributes": [1], "customFields": { "": 1, "b": "\0" },
    });
    let reply = ask(CREATE, json!({ "input": input })).await;
    assert_eq!(reply.code(), "VALIDATION");
    assert_eq!(
        reply.error()["extensions"]["fields"],
        json!([
            { "path": "input.name", "message": "must not be empty" },
            { "path": "input.externalId", "message": "has 256 characters, at most 255 are allowed" },
            { "path": "input.location", "message": "contains the control character U+000A" },
            { "path": "input.description", "message": "has 4097 characters, at most 4096 are allowed" },
            { "path": "input.attributes", "message": "must be an object, such as {\"os_name\": \"Debian 12\"}" },
            { "path": "input.customFields.", "message": "the key must have 1 to 64 characters, no control characters and no spaces around it" },
            { "path": "input.customFields.b", "message": "contains the control character U+0000" }
        ])
    );
}

#[tokio::test]
async fn all_faults_of_a_person_are_told_at_once() {
    let document = "mutation($input: CreateUserInput!) { createUser(input: $input) { id } }";
    let input = json!({ "email": "nobody", "name": "", "password": "short", "roles": ["viewer"] });
    let mut faults = ask(document, json!({ "input": input })).await;
    faults.json["errors"][0]["extensions"]["fields"]
        .as_array_mut()
        .unwrap()
        .sort_by_key(Value::to_string);
    assert_eq!(faults.faults(), ["input.password", "input.email", "input.name"]);
}

#[tokio::test]
async fn a_role_that_is_not_there_is_told_where_and_what_there_is() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let document =
        "mutation($user: ID!) { setUserRoles(user: $user, roles: [\"viewer\", \"ownr\"]) { id } }";
    let reply = app
        .ask(team["owner"].bearer.as_str(), document, json!({ "user": team["viewer"].id }))
        .await;
    assert_eq!(
        reply.error()["extensions"]["fields"],
        json!([
            { "path": "roles.1", "message": "there is no role with this key", "suggestion": "viewer, operator, admin, owner" }
        ])
    );
}

#[tokio::test]
async fn a_fault_of_an_input_is_named_by_its_path_in_the_input() {
    let document = "mutation($input: CreateUserInput!) { createUser(input: $input) { id } }";
    let input =
        json!({ "email": "n@alfa.example", "name": "N", "password": PASSWORD, "roles": ["ownr"] });
    assert_eq!(ask(document, json!({ "input": input })).await.faults(), ["input.roles.0"]);
}

#[tokio::test]
async fn an_id_of_another_type_says_which() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let id = team["viewer"].id;
    for document in
        ["query($id: ID!) { asset(id: $id) { id } }", "mutation($id: ID!) { deleteAsset(id: $id) }"]
    {
        let reply = app.ask(team["owner"].bearer.as_str(), document, json!({ "id": id })).await;
        assert_eq!(reply.code(), "VALIDATION");
        let message = reply.error()["message"].as_str().unwrap();
        assert!(message.contains("this is the id of a user, not of an asset"), "{message}");
    }
}

#[tokio::test]
async fn what_is_no_id_is_a_validation_everywhere() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    for document in [
        "{ node(id: \"7\") { id } }",
        "{ asset(id: \"7\") { id } }",
        "{ assets(filter: { owner: \"7\" }) { nodes { id } } }",
        "{ auditEntries(filter: { entityId: \"7\" }) { nodes { id } } }",
        "{ auditEntries(filter: { actorId: \"\" }) { nodes { id } } }",
        "mutation { createAsset(input: { name: \"a\", type: HOST, owner: \"7\" }) { id } }",
        "mutation { revokeSession(id: \"ses_7\") }",
        "mutation { revokeApiKey(id: \"\") }",
        "mutation { deactivateUser(user: \"usr_\") { id } }",
        "mutation { switchOrganization(organization: 7) { accessToken } }",
    ] {
        let reply = app.ask(team["owner"].bearer.as_str(), document, nothing()).await;
        assert_eq!(reply.code(), "VALIDATION", "{document}: {:#}", reply.json);
        assert_no_internals(&reply);
    }
}

/// Postgres cannot store U+0000, so a string that contains it is rejected before it reaches the driver.
#[tokio::test]
async fn a_text_that_cannot_be_kept_is_a_validation_everywhere() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let mut wrong = Vec::new();
    for document in [
        "query($t: String!) { assets(filter: { text: $t }) { nodes { id } } }",
        "mutation($t: String!) { createAsset(input: { name: $t, type: HOST }) { id } }",
        "mutation($t: String!) { createUser(input: { name: $t, email: \"n@alfa.example\", password: \"correct pelican mosaic\" }) { id } }",
        "mutation($t: String!) { createUser(input: { name: \"N\", email: $t, password: \"correct pelican mosaic\" }) { id } }",
        "mutation($t: String!) { saveRole(key: $t, name: \"Night\", permissions: []) { id } }",
        "mutation($t: String!) { saveRole(key: \"night\", name: $t, permissions: []) { id } }",
    ] {
        let reply =
            app.ask(team["owner"].bearer.as_str(), document, json!({ "t": "n\0@b.example" })).await;
        assert_no_internals(&reply);
        if reply.code() != "VALIDATION" {
            wrong.push((document, reply.code().to_owned()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn what_is_looked_up_by_a_text_that_cannot_be_is_not_found() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let owner = team["owner"].bearer.as_str();
    let nul = || json!({ "t": "n\0" });
    let reply = app.ask(owner, "mutation($t: String!) { deleteRole(key: $t) }", nul()).await;
    assert_eq!(reply.code(), "NOT_FOUND", "{:#}", reply.json);
    let document = "query($t: String!) {
        asset(code: $t) { id }
        a: auditEntries(filter: { action: $t }) { totalCount nodes { id } }
        b: auditEntries(filter: { entityType: $t }) { totalCount nodes { id } }
    }";
    let none = json!({ "totalCount": 0, "nodes": [] });
    let reply = app.ask(owner, document, nul()).await;
    assert_eq!(reply.data(), &json!({ "asset": null, "a": none, "b": none }));
}

#[tokio::test]
async fn a_sign_in_fails_in_the_same_words_whatever_is_wrong() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let document = "mutation($email: String!, $password: String!) { login(email: $email, password: $password) { mfaChallenge } }";
    let mut output = Vec::new();
    for (email, password) in [
        (team["viewer"].email.as_str(), "wrong horse"),
        ("nobody@alfa.example", PASSWORD),
        ("no e-mail", PASSWORD),
        ("n\0@alfa.example", PASSWORD),
        (team["viewer"].email.as_str(), "\0"),
    ] {
        let reply = app.ask(None, document, json!({ "email": email, "password": password })).await;
        output.push(reply.error().clone());
    }
    assert_eq!(output[0]["message"], "Invalid email or password.");
    assert!(output.iter().all(|one| *one == output[0]), "{output:#?}");
}

#[tokio::test]
async fn too_many_sign_ins_are_told_when_to_come_back() {
    let test = TestDb::new().await;
    let db = test.db.clone();
    let app = TestApp::on(test, db, Quota::parse("auth-of-errors", "2/hour").unwrap()).await;
    let document = "mutation($email: String!) { login(email: $email, password: \"wrong horse\") { mfaChallenge } }";
    let email = format!("{}@alfa.example", UserId::new());
    let mut codes = Vec::new();
    let mut last = None;
    for _ in 0..3 {
        let reply = app.ask(None, document, json!({ "email": email })).await;
        codes.push(reply.code().to_owned());
        last = Some(reply);
    }
    assert_eq!(codes, ["UNAUTHENTICATED", "UNAUTHENTICATED", "RATE_LIMITED"]);
    let wait = last.unwrap().error()["extensions"]["retryAfterMs"].as_u64().unwrap();
    assert!((1_700_000..=1_800_000).contains(&wait), "a half of an hour: {wait}");
}

#[tokio::test]
async fn a_stranger_uses_up_no_attempts_of_a_known_address() {
    let test = TestDb::new().await;
    let db = test.db.clone();
    let app = TestApp::on(test, db, Quota::parse("auth-of-strangers", "10/hour").unwrap()).await;
    let team = app.team("alfa").await;
    let email = &team["viewer"].email; // Signed in from `ADDRESS` when the team was made.
    let document = "mutation($email: String!, $password: String!) { login(email: $email, password: $password) { mfaChallenge } }";
    let attempt = async |password: &str, address: &str| {
        let client = graphql::Client { address: address.parse().unwrap(), ..client("a-sign-in") };
        let variables = json!({ "email": email, "password": password });
        let reply = harness::ask(&app.engine, None, document, variables, client).await;
        reply.errors().first().map(|_| reply.code().to_owned()).unwrap_or_default()
    };
    let mut strangers = Vec::new();
    for number in 0..14 {
        // Several strangers, so that no address is the first to be refused.
        strangers.push(attempt("wrong horse", &format!("198.51.100.{}", number % 3)).await);
    }
    assert_eq!(strangers.iter().filter(|code| *code == "RATE_LIMITED").count(), 4, "{strangers:?}");
    for _ in 0..9 {
        assert_eq!(attempt(PASSWORD, harness::ADDRESS).await, "");
    }
    assert_eq!(attempt(PASSWORD, "198.51.100.77").await, "RATE_LIMITED", "strangers share theirs");
}

#[tokio::test]
async fn a_long_e_mail_is_refused_before_it_is_normalised() {
    let app = TestApp::new().await;
    let document = "mutation($email: String!) { login(email: $email, password: \"wrong horse\") { mfaChallenge } }";
    let email = format!("{}@x.example", "\u{fdfa}".repeat(80_000));
    let reply = app.ask(None, document, json!({ "email": email })).await;
    assert_eq!(reply.code(), "UNAUTHENTICATED", "as any other e-mail without an account");
    assert!(
        domain::access::user::normalise_email(&format!("{}@x.example", "a".repeat(1_100)))
            .is_none()
    );
}

#[tokio::test]
async fn a_database_that_is_away_is_told_so() {
    let (app, team) = {
        let app = TestApp::new().await;
        let team = app.team("alfa").await;
        (app, team)
    };
    // No server listens on port 1.
    let dead =
        Db::new("postgresql://somebody:secret@127.0.0.1:1/nowhere", 2, "sentryops-test").unwrap();
    let engine = harness::engine(dead, unlimited_quota()).await;
    let login = "mutation { login(email: \"a@b.example\", password: \"x\") { mfaChallenge } }";
    for (bearer, document) in
        [(Some(team["owner"].bearer.as_str()), "{ assets { nodes { id } } }"), (None, login)]
    {
        let reply = harness::ask(&engine, bearer, document, nothing(), client("r")).await;
        assert_eq!(reply.code(), "DEPENDENCY_UNAVAILABLE");
        assert_eq!(reply.error()["extensions"]["retryAfterMs"], 1000);
        assert_no_internals(&reply);
    }
    drop(app);
}

#[tokio::test]
async fn what_needs_no_database_is_answered_without() {
    let dead = Db::new("postgresql://somebody@127.0.0.1:1/nowhere", 2, "sentryops-test").unwrap();
    let engine = harness::engine(dead, unlimited_quota()).await;
    let reply = harness::ask(
        &engine,
        None,
        "{ viewer { permissions } __typename }",
        nothing(),
        client("r"),
    )
    .await;
    assert_eq!(reply.data(), &json!({ "viewer": null, "__typename": "Query" }));
}

/// Maps each SQLSTATE that any statement may return to an error code.
#[tokio::test]
async fn what_the_database_says_becomes_one_of_our_codes() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let input = json!({ "input": { "name": "a", "type": "HOST" } });
    let mut wrong = Vec::new();
    for (state, code) in [
        ("57014", "TIMEOUT"),                // query_canceled: statement_timeout
        ("55P03", "TIMEOUT"),                // lock_not_available: lock_timeout
        ("40001", "DEPENDENCY_UNAVAILABLE"), // serialization_failure
        ("40P01", "DEPENDENCY_UNAVAILABLE"), // deadlock_detected
        ("57P01", "DEPENDENCY_UNAVAILABLE"), // admin_shutdown
        ("57P03", "DEPENDENCY_UNAVAILABLE"), // cannot_connect_now
        ("53300", "DEPENDENCY_UNAVAILABLE"), // too_many_connections
        ("53100", "DEPENDENCY_UNAVAILABLE"), // disk_full
        ("25006", "DEPENDENCY_UNAVAILABLE"), // read_only_sql_transaction: the primary has moved
        ("42703", "INTERNAL"),               // undefined_column
        ("23514", "INTERNAL"),               // check_violation of a constraint without a message
        ("22021", "INTERNAL"),               // character_not_in_repertoire
        ("XX000", "INTERNAL"),
    ] {
        let raise = format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE 'the secret cause in relation asset' USING ERRCODE = '{state}'; END $$;
             DROP TRIGGER IF EXISTS refuse ON asset;
             CREATE TRIGGER refuse BEFORE INSERT ON asset EXECUTE FUNCTION refuse()"
        );
        app.execute_sql(&raise).await;
        let reply = app.ask(team["owner"].bearer.as_str(), CREATE, input.clone()).await;
        assert_no_internals(&reply);
        if reply.code() != code {
            wrong.push((state, reply.code().to_owned(), code));
        }
    }
    assert!(wrong.is_empty(), "state, code, expected: {wrong:#?}");
}

#[tokio::test]
async fn what_takes_too_long_is_a_timeout() {
    let test = TestDb::new().await;
    let separator = if test.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}options=-c%20statement_timeout%3D50", test.url);
    let db = Db::new(&url, 2, "sentryops-test").unwrap();
    let app = TestApp::on(test, db, unlimited_quota()).await;
    let team = app.team("alfa").await;
    // The lock is held until the client is dropped.
    let holder = app.test.superuser().await;
    holder.batch_execute("BEGIN; LOCK TABLE asset IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reply =
        app.ask(team["owner"].bearer.as_str(), "{ assets { nodes { id } } }", nothing()).await;
    assert_eq!(reply.code(), "TIMEOUT", "{:#}", reply.json);
    assert_no_internals(&reply);
}

/// A broken connection is discarded with its transaction, and the next request opens another.
#[tokio::test]
async fn a_connection_that_breaks_is_replaced() {
    let app = TestApp::with_connections(1).await;
    let team = app.team("alfa").await;
    let owner = team["owner"].bearer.as_str();
    app.ask(owner, "{ assets { nodes { id } } }", nothing()).await.data();
    app.execute_sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE datname = current_database() AND usename = 'sentryops_test'",
    )
    .await;
    let reply = app.ask(owner, "{ assets { nodes { id } } }", nothing()).await;
    assert!(
        reply.errors().is_empty() || reply.code() == "DEPENDENCY_UNAVAILABLE",
        "{:#}",
        reply.json
    );
    app.ask(owner, "{ assets { nodes { id } } }", nothing()).await.data();
}

#[tokio::test]
async fn each_error_names_the_request() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let document = "{ a: node(id: \"7\") { id } b: node(id: \"8\") { id } }";
    let reply = app.ask(team["viewer"].bearer.as_str(), document, nothing()).await;
    let ids: Vec<_> =
        reply.errors().iter().map(|error| &error["extensions"]["requestId"]).collect();
    assert_eq!(ids, ["the-request", "the-request"]);
    let reply =
        app.ask(team["viewer"].bearer.as_str(), "{ users { nodes { id } } }", nothing()).await;
    assert_eq!(reply.error()["extensions"]["requestId"], "the-request");
}
