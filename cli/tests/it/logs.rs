//! Logs: one line of JSON per event, and never a secret, at any level and after any error.

use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine};
use domain::testing::redis_url;
use serde_json::{Value, json};

use crate::{
    client::Answer,
    server::{Api, TestDeployment, TestKeyRing, until},
    team::{Team, log_in, sign_in, unique, word},
    wire,
};

fn hex(bytes: &[u8], before_each: &str) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{before_each}{byte:02x}"))
}

/// Returns every encoding in which a key could be logged.
fn spellings(ring: &TestKeyRing) -> Vec<String> {
    let hex = hex(&ring.secret, "");
    vec![
        BASE64_STANDARD.encode(ring.secret),
        BASE64_STANDARD_NO_PAD.encode(ring.secret),
        BASE64_URL_SAFE_NO_PAD.encode(ring.secret),
        hex.to_uppercase(),
        hex,
    ]
}

fn password_of(url: &str) -> String {
    let (_, rest) = url.split_once("://").unwrap();
    let (credentials, _) = rest.split_once('@').unwrap();
    credentials.rsplit_once(':').unwrap().1.to_owned()
}

/// Parses the whole log, one JSON object per line.
fn lines(log: &str) -> Vec<Value> {
    let parse = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(value) if value["timestamp"].is_string() && value["level"].is_string() => value,
        _ => panic!("no line of ours: {line:?}"),
    };
    log.lines().map(parse).collect()
}

/// Sends a secret in every wrong way that a client might.
async fn misuse(api: &Api, team: &Team, secret: &str) {
    let client = &team.nobody;
    let quoted = json!(secret).to_string();
    for document in [
        format!("mutation {{ login(email: {quoted}, password: {quoted}) {{ mfaChallenge }} }}"),
        format!("mutation {{ login(email: 1, password: {quoted}) {{ mfaChallenge }} }}"),
        format!(
            "mutation {{ login(email: \"a\", password: {quoted}, more: {quoted}) {{ nothing }} }}"
        ),
        format!("mutation {{ login(email: \"a\", password: {quoted}"),
        format!("mutation {{ refreshSession(refreshToken: {quoted}) {{ accessToken }} }}"),
        format!("mutation {{ changePassword(current: {quoted}, new: {quoted}) }}"),
        format!("{{ node(id: {quoted}) {{ id }} }}"),
        format!("query X {{ asset(code: {quoted}) {{ id }} }} # {secret}"),
    ] {
        client.execute(&document).await;
        team.owner.client.execute(&document).await;
        Answer::of(client.get(&[("query", &document)])).await;
    }
    let variables = json!({ "email": { "a": secret }, "password": [secret] });
    let query = "mutation($email: String!, $password: String!) { login(email: $email, password: $password) { mfaChallenge } }";
    client.execute_with(query, variables).await;
    client.with(secret.replace(['\n', '\r'], "")).execute("{ viewer { permissions } }").await;
    let body = format!("{{\"query\": {quoted}");
    Answer::of(client.post().header("content-type", "application/json").body(body)).await;
    let escaped = hex(secret.as_bytes(), "%");
    for request in [
        format!("GET /graphql?token={escaped} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        format!(
            "GET /{escaped} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: s={escaped}\r\n\r\n"
        ),
        format!(
            "POST /graphql HTTP/1.1\r\nHost: x\r\nX-Request-Id: {escaped}\r\nAuthorization: Basic {escaped}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        ),
        format!("{escaped} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    ] {
        wire::exchange(api, request.as_bytes()).await;
    }
}

#[tokio::test]
async fn no_secret_is_written_down_even_at_trace() {
    let deployment = TestDeployment::new().await;
    let mut api = deployment.api_with(&[("LOG_LEVEL", "trace")]).await;
    let team = Team::new(&deployment, &api).await;
    let canary = format!("Canary-{}-of-Wet-Slates-71", unique());
    let create = "mutation($input: CreateUserInput!) { createUser(input: $input) { id } }";
    let email = format!("canary@{}.test", team.slug);
    let input =
        json!({ "email": email, "name": "Canary", "password": canary, "roles": ["viewer"] });
    let made = team.owner.client.get_data(create, json!({ "input": input })).await;
    let answer = log_in(&team.nobody, &email, &canary).await;
    let tokens = answer.body["data"]["login"]["tokens"].clone();
    let (access, refresh) = (word(&tokens["accessToken"]), word(&tokens["refreshToken"]));
    let (_, key) = team.api_key("Canary", &["ASSET_READ"]).await;
    team.nobody.with(&key).get_data("{ assets { totalCount } }", json!({})).await;
    let weak = json!({ "id": made["createUser"]["id"], "password": "password123456789" });
    let update = "mutation($id: ID!, $password: String!) { updateUser(id: $id, input: { password: $password }) { id } }";
    team.owner.client.execute_with(update, weak).await.assert_refused("VALIDATION");

    let secrets = [&canary, &access, &refresh, &key];
    for secret in secrets {
        misuse(&api, &team, secret).await;
    }
    // The same when the database fails during a request.
    let postgres = deployment.db.superuser().await;
    postgres.batch_execute("ALTER TABLE session RENAME TO session_hidden").await.unwrap();
    log_in(&team.nobody, &email, &canary).await.assert_refused("INTERNAL");
    team.nobody
        .with(&access)
        .execute("{ viewer { permissions } }")
        .await
        .assert_refused("INTERNAL");
    postgres.batch_execute("ALTER TABLE session_hidden RENAME TO session").await.unwrap();
    let person = sign_in(&team.nobody, &team.owner.id, &team.owner.email).await;
    assert!(api.end().await.success());

    let log = api.log();
    let lines = lines(&log);
    assert!(lines.len() > 50, "{}", lines.len());
    let mut forbidden: Vec<String> = secrets.into_iter().cloned().collect();
    forbidden.extend([person.access, person.refresh, crate::team::PASSWORD.into()]);
    forbidden.extend([password_of(&deployment.db.url), password_of(&redis_url())]);
    forbidden
        .extend(spellings(&deployment.jwt).into_iter().chain(spellings(&deployment.encryption)));
    // Half a token is forbidden too, because it makes the rest easier to guess.
    forbidden
        .extend([access, refresh, key].iter().map(|token| token[token.len() / 2..].to_owned()));
    let escaped = hex(canary.as_bytes(), "%");
    forbidden.extend([escaped, "password123456789".into()]);
    for secret in forbidden {
        let found = log.lines().find(|line| line.contains(&secret));
        assert_eq!(found, None, "{secret} was written down");
    }
}

#[tokio::test]
async fn what_a_client_sends_forges_no_line() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api_with(&[("LOG_LEVEL", "debug")]).await;
    let team = Team::new(&deployment, &api).await;
    let forged = "x\n{\"timestamp\":\"now\",\"level\":\"INFO\",\"message\":\"forged-line\"}\r\u{2028}\u{1b}[2Jend";
    let create = "mutation($name: String!) { createAsset(input: { name: $name, type: HOST, description: $name }) { id } }";
    let named = "mutation Forged($name: String!) { createAsset(input: { name: $name, type: HOST }) { id } }";
    team.owner.client.execute_with(create, json!({ "name": forged })).await;
    for operation in [forged, "Forged"] {
        let body =
            json!({ "query": named, "operationName": operation, "variables": { "name": forged } });
        Answer::of(team.owner.client.post().json(&body)).await;
    }
    log_in(&team.nobody, forged, forged).await;
    team.nobody.execute(&format!("{{ {forged} }}")).await;
    let request = b"GET /a%0aforged-line HTTP/1.1\r\nHost: x\r\nX-Request-Id: a%0aforged-line\r\nX-Forwarded-For: forged-line\r\nConnection: close\r\n\r\n";
    wire::exchange(&api, request).await;
    let all = async || {
        let log = api.log();
        let requests = log.lines().filter(|line| line.contains("http.status")).count();
        (requests >= 7).then_some(log)
    };
    let log = until("every request has its line", all).await;
    for line in lines(&log) {
        assert_ne!(line["message"], "forged-line");
        assert_ne!(line["timestamp"], "now");
    }
    assert!(!log.contains(['\u{1b}', '\u{2028}', '\r']), "{log:?}");
}

#[tokio::test]
async fn every_request_has_its_line_under_the_id_that_the_client_was_told() {
    let (team, shared_server) = Team::on_shared_server().await;
    let answer = team.owner.client.execute("{ viewer { permissions } }").await;
    let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
    let written =
        async || shared_server.api.log().lines().find(|line| line.contains(&id)).map(str::to_owned);
    let line: Value = serde_json::from_str(&until("the line is written", written).await).unwrap();
    assert_eq!(line["http.status"], 200, "{line}");
    assert_eq!(line["http.route"], "/graphql");
    assert_eq!(line["client.address"], team.address.to_string());
    // The audit entry of a change carries the same request id.
    let create = "mutation { createAsset(input: { name: \"Traced\", type: HOST }) { id } }";
    let answer = team.owner.client.execute(create).await;
    let entries = "{ auditEntries(first: 1) { nodes { action requestId sourceIp } } }";
    let entries = team.owner.client.get_data(entries, json!({})).await;
    let expected = json!([{
        "action": "asset.created",
        "requestId": answer.headers["x-request-id"].to_str().unwrap(),
        "sourceIp": team.address.to_string(),
    }]);
    assert_eq!(entries["auditEntries"]["nodes"], expected);
}
