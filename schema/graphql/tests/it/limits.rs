//! Tests of what is refused for its number: the rates of callers and addresses, and operations that start jobs while
//! the job queues are full.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use async_graphql::{
    Variables,
    futures_util::{StreamExt, stream},
};
use bytes::Bytes;
use domain::{
    access::permission::Permission,
    inventory::import::{EmptyCells, ImportFormat, ImportKind, ImportOrder},
};
use graphql::{CheckIntervals, Client, Engine, Services, UploadAbort};
use jobs::{Quota, event::PollInterval, queue::depth::QueueDepth};

use crate::{
    harness::{self, Reply, Team, TestApp, client, engine_of, nothing, services},
    wire::Wire,
};

const TRIVIAL: &str = "{ viewer { permissions } }";

/// Builds an engine on the app's database with these services.
async fn engine(app: &TestApp, change: impl FnOnce(&mut Services)) -> Engine {
    let mut services = services(app.test.db.clone()).await;
    change(&mut services);
    let every = Duration::from_millis(10);
    let poll = PollInterval { listening: every, not_listening: every };
    engine_of(services, CheckIntervals { poll, debounce: every, recheck: every })
}

fn quota(name: &'static str, text: &str) -> Quota {
    Quota::parse(name, text).unwrap()
}

async fn ask(engine: &Engine, bearer: Option<&str>, document: &str) -> Reply {
    crate::harness::ask(engine, bearer, document, nothing(), client("the-request")).await
}

/// Asserts that a request was refused before execution, with the time to wait.
#[track_caller]
fn assert_limited(reply: &Reply) {
    assert_eq!((reply.executed, reply.code()), (false, "RATE_LIMITED"), "{}", reply.text);
    let wait_ms = reply.error()["extensions"]["retryAfterMs"].as_u64().unwrap();
    assert!(wait_ms > 0, "{}", reply.text);
}

#[tokio::test]
async fn requests_are_counted_by_person_whatever_the_session() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let engine = engine(&app, |services| services.request_quota = quota("request", "5/day")).await;
    let viewer = &team["viewer"];
    let other_session = app.sign_in(viewer.id, viewer.email.clone()).await;
    for bearer in [&viewer.bearer, &other_session.bearer, &viewer.bearer, &viewer.bearer] {
        ask(&engine, Some(bearer), TRIVIAL).await.data();
    }
    let forbidden = ask(&engine, Some(&viewer.bearer), "{ auditEntries { totalCount } }").await;
    assert_eq!(forbidden.code(), "FORBIDDEN", "a refused request counts too");
    for bearer in [&viewer.bearer, &other_session.bearer] {
        assert_limited(&ask(&engine, Some(bearer), TRIVIAL).await);
    }
    ask(&engine, Some(&team["operator"].bearer), TRIVIAL).await.data();
}

#[tokio::test]
async fn a_key_is_counted_apart_from_its_maker() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let (_, key) = app.api_key(&team, "ci", &[Permission::AssetRead]).await;
    let engine = engine(&app, |services| services.request_quota = quota("request", "1/day")).await;
    ask(&engine, Some(&key), TRIVIAL).await.data();
    assert_limited(&ask(&engine, Some(&key), TRIVIAL).await);
    ask(&engine, Some(&team["owner"].bearer), TRIVIAL).await.data();
}

#[tokio::test]
async fn signing_out_and_in_stays_possible() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let engine = engine(&app, |services| services.request_quota = quota("request", "1/day")).await;
    let viewer = &team["viewer"];
    ask(&engine, Some(&viewer.bearer), TRIVIAL).await.data();
    let login = format!(
        "mutation {{ login(email: \"{}\", password: \"{}\") {{ tokens {{ accessToken }} }} }}",
        viewer.email,
        crate::harness::PASSWORD
    );
    ask(&engine, Some(&viewer.bearer), &login).await.data();
}

#[tokio::test]
async fn a_subscription_counts_once_however_often_it_answers() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let quotas = |services: &mut Services| services.request_quota = quota("request", "2/day");
    let engine = engine(&app, quotas).await;
    let bearer = &team["owner"].bearer;
    let started = app.ask(bearer.as_str(), START, nothing()).await;
    let run = started.data()["startComplianceRun"]["id"].as_str().unwrap();
    let document = format!("subscription {{ complianceRun(id: \"{run}\") {{ shards }} }}");
    let watch = || {
        let prepared = engine.prepare(&document, None, Variables::default());
        let prepared = prepared.map_err(Reply::from).unwrap();
        engine.subscribe(prepared, Some(bearer.clone()), client("a-watch")).boxed()
    };
    let mut answers = watch();
    for shards in 5..9 {
        app.execute_sql(&format!("UPDATE compliance_run SET shards = {shards}")).await;
        let answer = tokio::time::timeout(Duration::from_secs(10), answers.next()).await;
        let reply = Reply::from(answer.unwrap().unwrap());
        assert_eq!(reply.data()["complianceRun"]["shards"], shards);
    }
    ask(&engine, Some(bearer), TRIVIAL).await.data();
    assert_limited(&Reply::from(watch().next().await.unwrap()));
}

async fn upload(engine: &Engine, bearer: Option<&str>) -> Result<(), Reply> {
    let order = ImportOrder {
        kind: ImportKind::Assets,
        format: ImportFormat::Csv,
        dry_run: true,
        empty_cells: EmptyCells::Keep,
        idempotency_key: None,
    };
    let file = Bytes::from_static(b"name,asset_type\nweb-1,host\n");
    let pieces = stream::iter([Ok::<_, UploadAbort>(file)]);
    engine.upload(order, bearer, client("up"), pieces).await.map(drop).map_err(Reply::from)
}

#[tokio::test]
async fn files_are_counted_like_documents() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let engine = engine(&app, |services| services.request_quota = quota("request", "1/day")).await;
    // One person for each kind of file, since all of a person's requests share one bucket.
    for role in ["viewer", "operator", "admin", "owner"] {
        let bearer = Some(team[role].bearer.as_str());
        let transfer = async || match role {
            "viewer" => {
                let pages = engine.export(ImportKind::Assets, bearer, client("x")).await;
                pages.map(drop).map_err(Reply::from)
            }
            "operator" => {
                let file = engine.report_file("latest", bearer, client("x")).await;
                file.map(drop).map_err(Reply::from)
            }
            "admin" => {
                let page = engine.print_report("latest", bearer, client("x")).await;
                page.map(drop).map_err(Reply::from)
            }
            _ => upload(&engine, bearer).await,
        };
        if let Err(reply) = transfer().await {
            assert_eq!(reply.code(), "NOT_FOUND", "{role}: there is no run yet");
        }
        assert_limited(&transfer().await.expect_err(role));
    }
}

/// Returns a client with an address in this /64 of a network that only this test uses.
fn in_subnet(network: u128, subnet: u128) -> Client {
    let address = Ipv6Addr::from_bits(network << 80 | subnet << 64 | 1);
    Client { address: IpAddr::V6(address), request_id: "the-request".to_owned() }
}

#[tokio::test]
async fn an_address_is_counted_before_anything_else_is_done() {
    let (app, wire) = Wire::app(1).await;
    let engine = engine(&app, |services| services.address_quota = quota("address", "3/day")).await;
    let network = (uuid::Uuid::now_v7().as_u128() & u128::from(u32::MAX)) << 16;
    wire.take();
    for _ in 0..3 {
        assert!(engine.admit(&in_subnet(network, 0)).await.is_ok());
    }
    let refused = engine.admit(&in_subnet(network, 0)).await.expect_err("the fourth");
    assert_limited(&Reply::from(refused));
    assert!(engine.admit(&in_subnet(network, 1)).await.is_ok(), "the neighbour");
    let seen = wire.take();
    assert_eq!((seen.connections, seen.statements.len()), (0, 0), "{seen:#?}");
}

#[tokio::test]
async fn of_25_networks_of_one_client_16_are_let_through() {
    let app = TestApp::new().await;
    let engine = engine(&app, |services| services.address_quota = quota("address", "1/day")).await;
    let network = (uuid::Uuid::now_v7().as_u128() & u128::from(u32::MAX)) << 16;
    let mut admitted = 0;
    for subnet in 0..25 {
        admitted += usize::from(engine.admit(&in_subnet(network, subnet << 8)).await.is_ok());
    }
    assert_eq!(admitted, 16);
}

#[tokio::test]
async fn sign_ins_of_one_client_are_counted_across_its_networks() {
    let app = TestApp::new().await;
    let engine = engine(&app, |services| services.auth_quota = quota("auth", "1/day")).await;
    let network = (uuid::Uuid::now_v7().as_u128() & u128::from(u32::MAX)) << 16;
    let login = |subnet| {
        format!(
            "mutation {{ login(email: \"nobody{subnet}@alfa.example\", password: \"x\") {{ tokens {{ accessToken }} }} }}"
        )
    };
    let refresh = |_| "mutation { refreshSession(refreshToken: \"x\") { accessToken } }".to_owned();
    for document in [&login as &dyn Fn(u128) -> String, &refresh] {
        let mut limited = 0;
        for subnet in 0..25 {
            let client = in_subnet(network, subnet << 8);
            let reply = harness::ask(&engine, None, &document(subnet), nothing(), client).await;
            limited += usize::from(reply.code() == "RATE_LIMITED");
        }
        assert_eq!(limited, 9, "{}", document(0));
    }
}

#[tokio::test]
async fn a_token_that_nobody_issued_opens_no_connection() {
    let (app, wire) = Wire::app(4).await;
    let team = app.team("alfa").await;
    let (_, key) = app.api_key(&team, "ci", &[Permission::AssetRead]).await;
    wire.take();
    let last = if key.ends_with('0') { "1" } else { "0" };
    let broken_key = format!("{}{last}", &key[..key.len() - 1]);
    let token = &team["owner"].bearer;
    let broken_token = format!("{}AAAA", &token[..token.len() - 4]);
    let long_key = format!("sok_{}", "a".repeat(4000));
    for bearer in
        ["", "x", "a.b.c", "sok_", "sok_x", "sok_a_b", &long_key, &broken_key, &broken_token]
    {
        let reply = app.ask(bearer, TRIVIAL, nothing()).await;
        assert_eq!(reply.code(), "UNAUTHENTICATED", "{bearer}");
        let connected = app.engine.authenticate_connection(bearer.to_owned(), client("x")).await;
        assert!(connected.is_err(), "{bearer}");
        let seen = wire.take();
        assert_eq!((seen.connections, seen.statements.len()), (0, 0), "{bearer}: {seen:#?}");
    }
    app.ask(key.as_str(), TRIVIAL, nothing()).await.data();
    assert!(wire.take().connections > 0, "a good key is looked up");
}

/// An app whose queues count as full from three waiting jobs.
async fn shedding_app() -> (TestApp, Team, Engine, QueueDepth) {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let depth = QueueDepth::new(NonZeroU32::new(3).unwrap());
    let engine = engine(&app, |services| services.queue_depth = depth.clone()).await;
    (app, team, engine, depth)
}

const START: &str = "mutation { startComplianceRun { id } }";

#[tokio::test]
async fn while_the_queues_are_full_nothing_starts_jobs_and_all_else_works() {
    let (app, team, engine, depth) = shedding_app().await;
    let buried = app.job(&team, crate::harness::SET_BURIED).await;
    let [first, _, _] =
        [app.job(&team, "").await, app.job(&team, "").await, app.job(&team, "").await];
    depth.measure(&app.test.db).await.unwrap();
    let owner = Some(team["owner"].bearer.as_str());
    let retry = format!("mutation {{ retryJob(id: \"{buried}\") {{ id }} }}");
    let import =
        "mutation { importAssets(input: { format: CSV, assets: \"name,asset_type\" }) { id } }";
    let beside =
        format!("mutation {{ cancelJob(id: \"{first}\") {{ id }} startComplianceRun {{ id }} }}");
    for document in [START, &retry, "mutation { retryJobs(filter: {}) }", import, &beside] {
        let reply = ask(&engine, owner, document).await;
        assert_eq!((reply.executed, reply.code()), (false, "DEPENDENCY_UNAVAILABLE"), "{document}");
        assert_eq!(reply.error()["extensions"]["retryAfterMs"], 10_000, "{document}");
    }
    let refused = upload(&engine, owner).await.unwrap_err();
    assert_eq!(refused.code(), "DEPENDENCY_UNAVAILABLE");
    ask(&engine, owner, "{ jobs(first: 5) { nodes { id } } assets { totalCount } }").await.data();
    let input = "mutation { createAsset(input: { name: \"a\", type: HOST }) { id } }";
    ask(&engine, owner, input).await.data();

    ask(&engine, owner, &format!("mutation {{ cancelJob(id: \"{first}\") {{ id }} }}"))
        .await
        .data();
    app.execute_sql("DELETE FROM job WHERE state = 'WAITING'").await;
    depth.measure(&app.test.db).await.unwrap();
    ask(&engine, owner, START).await.data();
}

#[tokio::test]
async fn full_queues_are_no_news_for_who_may_not_start_jobs() {
    let (app, team, engine, depth) = shedding_app().await;
    for _ in 0..3 {
        app.job(&team, "").await;
    }
    depth.measure(&app.test.db).await.unwrap();
    for (bearer, code) in
        [(None, "UNAUTHENTICATED"), (Some(team["viewer"].bearer.as_str()), "FORBIDDEN")]
    {
        assert_eq!(ask(&engine, bearer, START).await.code(), code);
        assert_eq!(upload(&engine, bearer).await.unwrap_err().code(), code);
    }
}
