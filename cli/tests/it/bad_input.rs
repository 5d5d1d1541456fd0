//! Invalid requests: the response states the error with code and request id, and nothing is executed.

use serde_json::{Value, json};

use crate::{
    client::{Answer, CODES, Client},
    server::{Api, TestDeployment},
    team::{PASSWORD, Team, word},
    wire,
};

const QUERY: &str = "{ viewer { permissions } }";
const CREATE: &str = "mutation { createAsset(input: { name: \\\"Ghost\\\", type: HOST }) { id } }";

/// Raw response: status, and body as JSON.
fn parse(answer: &str) -> (u16, Value) {
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn assets(client: &Client) -> Value {
    let counted = client.get_data("{ assets { totalCount } }", json!({})).await;
    counted["assets"]["totalCount"].clone()
}

#[tokio::test]
async fn a_body_that_is_no_json_object_of_the_right_type_is_refused() {
    let (team, _world) = Team::on_shared_server().await;
    let client = &team.owner.client;
    let create = format!("{{\"query\":\"{CREATE}\"}}");
    let boundary = format!(
        "--x\r\nContent-Disposition: form-data; name=\"operations\"\r\n\r\n{create}\r\n--x--\r\n"
    );
    let form =
        "query=mutation%7BcreateAsset(input%3A%7Bname%3A%22Ghost%22%2Ctype%3AHOST%7D)%7Bid%7D%7D";
    let deep =
        format!("{{\"query\":\"{QUERY}\",\"variables\":{}{}}}", "[".repeat(500), "]".repeat(500));
    let json = "application/json";
    let check = async |content_type: &str, body: &[u8], status: u16| {
        let request = client.post().header("content-type", content_type).body(body.to_vec());
        let answer = Answer::of(request).await;
        answer.assert_refused("VALIDATION");
        assert_eq!(answer.status, status, "{content_type}: {}", answer.text);
        assert!(answer.is_not_executed());
    };
    for (body, status) in [
        (&b""[..], 400),
        (b"null", 400),
        (b"42", 400),
        (b"\"{viewer{permissions}}\"", 400),
        (b"{", 400),
        (b"{\"query\":1}", 400),
        (b"{\"query\":null}", 400),
        (b"{\"variables\":{}}", 400),
        (b"{\"query\":\"{viewer{permissions}}\",\"variables\":[]}", 400),
        (b"{\"query\":\"{viewer{permissions}}\",\"query\":\"{viewer{permissions}}\"}", 400),
        (b"{\"query\":\"\xff\xfe\"}", 400),
        (b"\xff", 400),
        (b"\xef\xbb\xbf{}", 400),
        (deep.as_bytes(), 400),
        (format!("[{create},{create}]").as_bytes(), 400),
        (format!("[{create}]").as_bytes(), 400),
    ] {
        check(json, body, status).await;
    }
    for (content_type, body) in [
        ("multipart/form-data; boundary=x", boundary.as_str()),
        ("text/plain", create.as_str()),
        ("text/plain; application/json", create.as_str()),
        ("application/x-www-form-urlencoded", form),
        ("application/graphql", "mutation { logout }"),
        ("application/json; charset=utf-16", create.as_str()),
        ("application/json, text/plain", create.as_str()),
        ("", create.as_str()),
    ] {
        check(content_type, body.as_bytes(), 415).await;
    }
    let gzip = client.post().header("content-type", json).header("content-encoding", "gzip");
    let answer = Answer::of(gzip.body(create.clone())).await;
    answer.assert_refused("VALIDATION");
    assert_eq!(answer.status, 415);
    assert_eq!(assets(client).await, 0);
}

#[tokio::test]
async fn a_body_of_a_mebibyte_is_read_and_a_byte_more_is_not() {
    let (team, shared_server) = Team::on_shared_server().await;
    let bearer = Some(team.owner.access.as_str());
    let padded = |bytes: usize| {
        let body = format!("{{\"query\":\"{CREATE}\",\"extensions\":{{}}}}");
        let mut body = body.into_bytes();
        body.resize(bytes, b' ');
        body
    };
    let chunked = |body: &[u8]| {
        let token = &team.owner.access;
        let mut request = format!(
            "POST /graphql HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .into_bytes();
        for chunk in body.chunks(60_000) {
            request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        request
    };
    let limit = 1 << 20;
    for (request, fits) in [
        (wire::post(bearer, &padded(limit)), true),
        (chunked(&padded(limit)), true),
        (wire::post(bearer, &padded(limit + 1)), false),
        (chunked(&padded(limit + 1)), false),
        (wire::post(bearer, &padded(2 * limit)), false),
        (chunked(&padded(2 * limit)), false),
    ] {
        let answer = wire::exchange(&shared_server.api, &request).await;
        let (status, body) = parse(&answer);
        if fits {
            assert_eq!(status, 200, "{answer}");
            assert!(body["data"]["createAsset"]["id"].is_string(), "{answer}");
        } else {
            assert_eq!(status, 413, "{answer}");
            assert_eq!(body["errors"][0]["extensions"]["code"], "VALIDATION");
        }
    }
    assert_eq!(assets(&team.owner.client).await, 2);
}

#[tokio::test]
async fn bytes_that_are_no_request_are_answered_or_cut_off() {
    let (team, shared_server) = Team::on_shared_server().await;
    let line = "a".repeat(70_000);
    for request in [
        "GARBAGE\r\n\r\n".to_owned(),
        "GET /graphql HTTP/9.9\r\n\r\n".to_owned(),
        format!("GET /graphql?query={line} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /graphql HTTP/1.1\r\nHost: x\r\nX-Long: {line}\r\n\r\n"),
        format!("GET /graphql HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Many: 1\r\n".repeat(200)),
        "POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}"
            .into(),
        "POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}".into(),
        "POST /graphql HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".into(),
    ] {
        let answer = wire::exchange(&shared_server.api, request.as_bytes()).await;
        let (status, body) = parse(&answer);
        assert!((400..500).contains(&status), "{}: {answer}", &request[..30.min(request.len())]);
        let code = body["errors"][0]["extensions"]["code"].as_str().unwrap_or("none");
        assert!(CODES.contains(&code), "{answer}");
        assert!(body["errors"][0]["extensions"]["requestId"].is_string(), "{answer}");
    }
    assert_eq!(team.owner.client.execute(QUERY).await.codes(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_get_reads_and_never_changes() {
    let (team, _world) = Team::on_shared_server().await;
    let client = &team.owner.client;
    let mutation = CREATE.replace('\\', "");
    let named = format!(
        "query A {{ viewer {{ permissions }} }} {}",
        mutation.replacen("mutation", "mutation B", 1)
    );
    for parameters in
        [vec![("query", mutation.as_str())], vec![("query", &named), ("operationName", "B")]]
    {
        let answer = Answer::of(client.get(&parameters)).await;
        answer.assert_refused("VALIDATION");
        assert_eq!(answer.status, 405);
        assert_eq!(answer.headers["allow"], "POST");
    }
    let answer = Answer::of(client.get(&[("query", &named), ("operationName", "A")])).await;
    assert!(answer.body["data"]["viewer"].is_object(), "{}", answer.text);
    assert_eq!(assets(client).await, 0);
}

#[tokio::test]
async fn an_illegal_move_is_a_conflict_that_names_the_legal_ones() {
    let (team, _world) = Team::on_shared_server().await;
    let id = team.asset("Old", "DISPOSED").await;
    let mutation = "mutation($id: ID!, $state: LifecycleState!) { setAssetLifecycle(id: $id, state: $state) { lifecycleState } }";
    let execute = async |state: &str| {
        team.owner.client.execute_with(mutation, json!({ "id": id, "state": state })).await
    };
    let answer = execute("ACTIVE").await;
    answer.assert_refused("CONFLICT");
    execute("HALF").await.assert_refused("VALIDATION");
    let active = team.asset("New", "ACTIVE").await;
    let delete = "mutation($id: ID!) { deleteAsset(id: $id) }";
    let answer = team.owner.client.execute_with(delete, json!({ "id": active })).await;
    answer.assert_refused("CONFLICT");
    let left = "{ assets(orderBy: { field: NAME }) { nodes { name lifecycleState } } }";
    let left = team.owner.client.get_data(left, json!({})).await;
    let expected = json!([
        { "name": "New", "lifecycleState": "ACTIVE" },
        { "name": "Old", "lifecycleState": "DISPOSED" }
    ]);
    assert_eq!(left["assets"]["nodes"], expected);
}

#[tokio::test]
async fn a_page_is_between_1_and_100_and_its_cursor_is_ours() {
    let (team, _world) = Team::on_shared_server().await;
    let client = &team.owner.client;
    for index in 0..3 {
        team.asset(&format!("Asset {index}"), "ACTIVE").await;
    }
    for arguments in [
        "first: 101",
        "first: 0",
        "first: -1",
        "last: 101",
        "last: 0",
        "first: 1, last: 1",
        "first: 2147483648",
    ] {
        let answer = client.execute(&format!("{{ assets({arguments}) {{ totalCount }} }}")).await;
        answer.assert_refused("VALIDATION");
    }
    let query = "query($after: String, $text: String) { assets(first: 1, after: $after, filter: { text: $text }) { nodes { name } pageInfo { endCursor } } }";
    let page = client.get_data(query, json!({})).await;
    let cursor = word(&page["assets"]["pageInfo"]["endCursor"]);
    let next = client.get_data(query, json!({ "after": cursor })).await;
    assert_eq!(next["assets"]["nodes"][0]["name"], "Asset 1");
    let mut tampered: Vec<_> =
        (0..cursor.len()).step_by(3).map(|at| flipped(&cursor, at)).collect();
    tampered.extend([
        String::new(),
        "x".into(),
        cursor[..cursor.len() - 1].into(),
        format!("{cursor}A"),
        "x".repeat(10_000),
    ]);
    for cursor in tampered {
        let answer = client.execute_with(query, json!({ "after": cursor })).await;
        answer.assert_refused("VALIDATION");
    }
    // A cursor is valid only for its list, filter and organization.
    let answer = client.execute_with(query, json!({ "after": cursor, "text": "Asset" })).await;
    answer.assert_refused("VALIDATION");
    let users = "query($after: String) { users(after: $after) { nodes { id } } }";
    client.execute_with(users, json!({ "after": cursor })).await.assert_refused("VALIDATION");
    let (other, _world) = Team::on_shared_server().await;
    let answer = other.owner.client.execute_with(query, json!({ "after": cursor })).await;
    answer.assert_refused("VALIDATION");
}

fn flipped(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn an_id_of_elsewhere_is_not_found_and_one_of_another_type_is_named() {
    let (team, _world) = Team::on_shared_server().await;
    let (other, _world) = Team::on_shared_server().await;
    let theirs = other.asset("Theirs", "RETIRED").await;
    let client = &team.owner.client;
    let update = "mutation($id: ID!) { updateAsset(id: $id, input: { name: \"Mine\" }) { id } }";
    let delete = "mutation($id: ID!) { deleteAsset(id: $id) }";
    let roles = "mutation($id: ID!) { setUserRoles(user: $id, roles: [\"viewer\"]) { id } }";
    for (mutation, id) in [(update, &theirs), (delete, &theirs), (roles, &other.owner.id)] {
        client.execute_with(mutation, json!({ "id": id })).await.assert_refused("NOT_FOUND");
    }
    let node = "query($id: ID!) { node(id: $id) { id } }";
    for id in [&theirs, &other.owner.id, &other.id] {
        assert_eq!(client.get_data(node, json!({ "id": id })).await["node"], Value::Null);
    }
    let answer = client.execute_with(update, json!({ "id": team.owner.id })).await;
    answer.assert_refused("VALIDATION");
    assert!(
        answer.message().contains("user") && answer.message().contains("asset"),
        "{}",
        answer.text
    );
    for id in [
        "",
        "ast_",
        "ast_0",
        "nothing",
        "ast_zzzzzzzzzzzzzzzzzzzzzzzzzz",
        "AST_01j8xq4m9ke5trv3yx2f7nbc6d",
        "'; DROP TABLE asset",
    ] {
        client.execute_with(update, json!({ "id": id })).await.assert_refused("VALIDATION");
        client.execute_with(node, json!({ "id": id })).await.assert_refused("VALIDATION");
    }
    let stored = other.owner.client.get_data("{ assets { nodes { name } } }", json!({})).await;
    assert_eq!(stored["assets"]["nodes"], json!([{ "name": "Theirs" }]));
    assert_eq!(other.owner.client.execute(QUERY).await.codes(), Vec::<&str>::new());
}

#[tokio::test]
async fn one_request_verifies_at_most_one_password() {
    let deployment = TestDeployment::new().await;
    let api: Api = deployment.api().await;
    let team = Team::new(&deployment, &api).await;
    let postgres = deployment.db.superuser().await;
    let counted = async || -> i64 {
        let sql = "SELECT (SELECT count(*) FROM login_guard) + (SELECT count(*) FROM audit_entry WHERE action = 'auth.login_failed')
                   + (SELECT count(*) FROM session)";
        postgres.query_one(sql, &[]).await.unwrap().get(0)
    };
    let before = counted().await;
    let login = |alias: &str, password: &str| {
        format!(
            "{alias}:login(email:\"{}\",password:\"{password}\"){{mfaChallenge}}",
            team.owner.email
        )
    };
    let many = |count: usize, password: &str| -> String {
        (0..count).map(|index| login(&format!("a{index}"), password)).collect()
    };
    for document in [
        format!("mutation{{{}}}", many(1000, "wrong")),
        format!("mutation{{{}}}", many(100, "wrong")),
        format!("mutation{{{}}}", many(20, PASSWORD)),
        format!("mutation{{{}}}", many(2, PASSWORD)),
        format!(
            "mutation{{{} ...F}} fragment F on Mutation{{{}}}",
            login("a", PASSWORD),
            login("b", PASSWORD)
        ),
        format!("mutation{{{} logout}}", login("a", PASSWORD)),
        format!("mutation{{{} changePassword(current:\"a\",new:\"b\")}}", login("a", PASSWORD)),
    ] {
        let answer = team.owner.client.execute(&document).await;
        answer.assert_well_formed();
        assert!(answer.is_not_executed(), "{}", answer.text);
        assert_eq!(counted().await, before, "{}", &document[..80]);
    }
    // Two selections under one response key are one field, which runs once.
    let twice = format!("mutation{{{} {}}}", login("a", PASSWORD), login("a", PASSWORD));
    let answer = team.nobody.execute(&twice).await;
    answer.assert_well_formed();
    assert!(counted().await <= before + 1, "{}", answer.text);
    assert_eq!(team.owner.client.execute(QUERY).await.codes(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_document_that_does_not_fit_the_schema_changes_nothing() {
    let (team, _world) = Team::on_shared_server().await;
    let client = &team.owner.client;
    let create = "createAsset(input: { name: \"Ghost\", type: HOST }) { id }";
    for document in [
        format!("mutation {{ {create} nothing }}"),
        format!("mutation {{ {create} other: createAsset(input: {{ name: \"X\" }}) {{ id }} }}"),
        format!("mutation {{ {create} logout(id: 1) }}"),
        format!("mutation($x: Int!) {{ {create} }}"),
        format!("mutation {{ {create} }} mutation {{ logout }}"),
        format!("subscription {{ {create} }}"),
        format!("mutation {{ {create} {{ }}"),
        format!("mutation {{ {create} ...None }}"),
        format!("mutation {{ {create} @nothing }}"),
        "mutation { createAsset(input: { name: \"\", type: HOST }) { id } }".into(),
        format!("mutation {{ createAsset(input: {{ name: \"{}\", type: HOST }}) {{ id }} }}", "x".repeat(256)),
        "mutation { createAsset(input: { name: \"A\\u0000B\", type: HOST }) { id } }".into(),
        "mutation { createAsset(input: { name: \"A\", type: HOST, attributes: [1] }) { id } }".into(),
        "mutation { createAsset(input: { name: \"A\", type: HOST, customFields: \"x\" }) { id } }".into(),
        "mutation { createAsset(input: { name: \"A\", type: HOST, owner: \"usr_00000000000000000000000000\" }) { id } }".into(),
    ] {
        let answer = client.execute(&document).await;
        answer.assert_well_formed();
        assert!(!answer.errors().is_empty(), "{document}: {}", answer.text);
        assert!(!answer.codes().contains(&"INTERNAL"), "{document}: {}", answer.text);
        assert_eq!(assets(client).await, 0, "{document}");
    }
}
