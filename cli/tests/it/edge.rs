//! The edge of the real server: limits that hold on every transport, full job queues, and readiness.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    client::{Answer, Client, own_address},
    server::{Api, TestDeployment, until},
    socket::Socket,
    sockets::OwnRedis,
    team::{Team, chrono_now},
    tokens::forged,
};

const TRIVIAL: &str = "{ viewer { permissions } }";
const START: &str = "mutation { startComplianceRun { id } }";

/// Sends a document over HTTP in the media type whose status names the error.
async fn send(client: &Client, query: &str) -> Answer {
    let request = client.post().header("accept", "application/graphql-response+json");
    Answer::of(request.json(&json!({ "query": query }))).await
}

/// Returns the codes of the errors of a document over HTTP, as an event, and on a socket.
async fn codes(api: &Api, bearer: &str, query: &str) -> [Option<String>; 3] {
    let code = |errors: &Value| errors[0]["extensions"]["code"].as_str().map(ToOwned::to_owned);
    let client = Client::new(api, own_address()).with(bearer);
    let over_http = code(&send(&client, query).await.body["errors"]);

    let stream = Client::http(own_address())
        .post(format!("{}/stream", api.url()))
        .header("authorization", format!("Bearer {bearer}"))
        .json(&json!({ "query": query }));
    let events = stream.send().await.unwrap().text().await.unwrap();
    let event = events.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&events);
    let event: Value = serde_json::from_str(event).unwrap();
    let over_sse = code(&event["errors"]);

    let mut socket = Socket::open(api, Some(bearer)).await.unwrap();
    socket.subscribe("1", query, json!({})).await;
    let message = socket.next().await.unwrap();
    let on_socket = match message["type"].as_str() {
        Some("error") => code(&message["payload"]),
        _ => code(&message["payload"]["errors"]),
    };
    [over_http, over_sse, on_socket]
}

#[tokio::test]
async fn the_allowlist_holds_on_every_transport() {
    let deployment = TestDeployment::new().await;
    let plain = deployment.api().await;
    let team = Team::new(&deployment, &plain).await;
    let list = std::env::temp_dir().join(format!("allowlist-{}.json", std::process::id()));
    let digest = format!("{:x}", Sha256::digest(TRIVIAL));
    std::fs::write(&list, json!({ digest: TRIVIAL }).to_string()).unwrap();
    let settings =
        [("GRAPHQL_ALLOWLIST", "enforce"), ("GRAPHQL_ALLOWLIST_FILE", list.to_str().unwrap())];
    let api = deployment.api_with(&settings).await;
    std::fs::remove_file(&list).unwrap();
    let bearer = &team.owner.access;
    assert_eq!(codes(&api, bearer, TRIVIAL).await, [None, None, None]);
    let forbidden = || Some("FORBIDDEN".to_owned());
    for unlisted in ["{ viewer { permissions  } }", "{ roles { key } }", "{ __typename }"] {
        let refused = codes(&api, bearer, unlisted).await;
        assert_eq!(refused, [forbidden(), forbidden(), forbidden()], "{unlisted}");
    }
}

#[tokio::test]
async fn a_socket_ends_with_its_token() {
    let (team, shared_server) = Team::on_shared_server().await;
    let expires_at = chrono_now().timestamp() + 2;
    let key = &shared_server.deployment.jwt.secret;
    let token = forged(&team.owner.access, key, &json!({}), &json!({ "exp": expires_at }));
    let mut socket = Socket::open(&shared_server.api, Some(&token)).await.unwrap();
    socket.subscribe("1", "subscription { jobs { id } }", json!({})).await;
    let end = loop {
        if let Err(code) = socket.next().await {
            break code;
        }
    };
    assert_eq!(end, Some(4401));
    let late_ms = chrono_now().timestamp_millis() - expires_at * 1000;
    assert!((0..1_000).contains(&late_ms), "{late_ms} ms after the token's end");
    // The session goes on: only the token has ended.
    assert!(Socket::open(&shared_server.api, Some(&team.owner.access)).await.is_ok());
}

#[tokio::test]
async fn operations_are_counted_over_replicas_and_transports() {
    let deployment = TestDeployment::new().await;
    let plain = deployment.api().await;
    let team = Team::new(&deployment, &plain).await;
    // The owner has sent requests under another limit.
    let (person, other) = (team.member("viewer").await, team.member("viewer").await);
    let limit = [("REQUEST_LIMIT", "6/day")];
    let (a, b) = tokio::join!(deployment.api_with(&limit), deployment.api_with(&limit));
    let bearer = &person.access;
    assert_eq!(codes(&a, bearer, TRIVIAL).await, [None, None, None]);
    assert_eq!(codes(&b, bearer, TRIVIAL).await, [None, None, None]);
    let limited = || Some("RATE_LIMITED".to_owned());
    for api in [&a, &b] {
        assert_eq!(codes(api, bearer, TRIVIAL).await, [limited(), limited(), limited()]);
    }
    let refused = send(&Client::new(&a, own_address()).with(bearer), TRIVIAL).await;
    assert_eq!(refused.status, 429, "{}", refused.text);
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(seconds > 0);
    assert_eq!(codes(&a, &other.access, TRIVIAL).await, [None, None, None]);
}

#[tokio::test]
async fn an_address_is_refused_before_its_token_is_looked_at() {
    let deployment = TestDeployment::new().await;
    let settings = [("ADDRESS_LIMIT", "5/day"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let api = deployment.api_with(&settings).await;
    let run = std::process::id() % 250;
    let client = Client::new(&api, own_address()).with("nonsense");
    let from = async |hop: String| {
        let request = client.post().header("accept", "application/graphql-response+json");
        let request = request.header("x-forwarded-for", hop);
        Answer::of(request.json(&json!({ "query": TRIVIAL }))).await
    };
    for port in 0..5 {
        let answer = from(format!("198.51.{run}.7:400{port}")).await;
        answer.assert_refused("UNAUTHENTICATED");
    }
    let refused = from(format!("198.51.{run}.7")).await;
    refused.assert_refused("RATE_LIMITED");
    assert_eq!(refused.status, 429);
    from(format!("198.51.{run}.8")).await.assert_refused("UNAUTHENTICATED");
}

#[tokio::test]
async fn full_queues_refuse_new_work_with_503_until_they_are_drained() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api_with(&[("SHED_QUEUE_DEPTH", "3")]).await;
    let team = Team::new(&deployment, &api).await;
    let client = Client::new(&api, own_address()).with(&team.owner.access);
    let jobs = format!(
        "INSERT INTO job (id, org_id, queue, kind, version, payload, state, priority, run_at, max_attempts, actor_kind,
                          queued_at, changed_at)
         SELECT gen_random_uuid(), '{}', 'NOTIFY', 'notify.test', 1, '{{}}', 'WAITING', 0, now(), 3, 'system', now(), now()
         FROM generate_series(1, 3)",
        team.id.parse::<domain::entity::OrganizationId>().unwrap().uuid()
    );
    let database = deployment.db.superuser().await;
    database.batch_execute(&jobs).await.unwrap();
    let full = async || (api.counted("sentryops_queues_full").await == 1).then_some(());
    until("the queues are full", full).await;
    let refused = send(&client, START).await;
    refused.assert_refused("DEPENDENCY_UNAVAILABLE");
    assert_eq!((refused.status, refused.headers["retry-after"].as_bytes()), (503, &b"10"[..]));
    assert_eq!(send(&client, TRIVIAL).await.status, 200);
    assert_eq!(api.readiness().await.0, 200);
    assert_eq!(api.counted("sentryops_operations_shed_total").await, 1);

    database.batch_execute("DELETE FROM job").await.unwrap();
    let drained = async || (api.counted("sentryops_queues_full").await == 0).then_some(());
    until("the queues are drained", drained).await;
    assert_eq!(send(&client, START).await.codes(), Vec::<&str>::new());
}

#[tokio::test]
async fn without_redis_the_api_is_degraded_and_no_request_waits_for_it() {
    let mut redis = OwnRedis::start();
    let deployment = TestDeployment::new().await;
    let url = redis.url();
    let api = deployment.api_with(&[("REDIS_URL", &url)]).await;
    let team = Team::new(&deployment, &api).await;
    let client = Client::new(&api, own_address()).with(&team.owner.access);
    let times = async || {
        let mut times = Vec::new();
        for _ in 0..200 {
            let began = Instant::now();
            assert_eq!(send(&client, TRIVIAL).await.status, 200);
            times.push(began.elapsed());
        }
        times.sort();
        (times[100], times[198])
    };
    let with_redis = times().await;
    redis.kill();
    let degraded = (200, json!({ "status": "degraded", "degraded": ["redis"] }));
    until("degraded", async || (api.readiness().await == degraded).then_some(())).await;
    let without_redis = times().await;
    eprintln!("median and p99 with Redis {with_redis:?}, without {without_redis:?}");
    // The median, because other builds may slow this machine down. A query to Redis would time out after 250 ms.
    assert!(without_redis.0 < Duration::from_millis(100), "{without_redis:?}");
    let metric = "sentryops_dependency_up{dependency=\"redis\"}";
    assert_eq!(api.counted(metric).await, 0);
    assert_eq!(api.counted("sentryops_dependency_up{dependency=\"keys\"}").await, 1);
}

#[tokio::test]
async fn without_migrations_or_postgres_the_api_is_not_ready_and_names_them() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api().await;
    let newest =
        "DELETE FROM schema_migration WHERE version = (SELECT max(version) FROM schema_migration)";
    deployment.db.superuser().await.batch_execute(newest).await.unwrap();
    let down = |names: &[&str]| (503, json!({ "status": "unavailable", "down": names }));
    assert_eq!(api.readiness().await, down(&["migrations"]));

    let mut command = deployment.command(&["api"]);
    command.env("DATABASE_URL", "postgres://nobody:password@127.0.0.1:1/none?sslmode=disable");
    let api = Api::start_unready(command).await;
    assert_eq!(api.readiness().await, down(&["postgres", "migrations"]));
}
