//! Tests of subscriptions: every change is sent to the subscribers that are allowed to read the row, and to no others.
//!
//! Long, because all tests share one harness and each reason for the end of a subscription has a test.

use std::{pin::Pin, time::Duration};

use async_graphql::{
    Variables,
    futures_util::{Stream, StreamExt},
};
use domain::{
    Db, Origin,
    access::{organization::Organization, permission::Permission},
    compliance::{
        range::AssetRange,
        run::{Run, RunTrigger, Started},
    },
    entity::{JobId, RunId},
    testing::redis_url,
};
use graphql::{AccessLoss, CheckIntervals, Engine};
use jobs::{
    Redis,
    event::{Listener, PollInterval, Publisher},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Reply, Team, TestApp, client, engine_with, nothing, now, unlimited_quota};

const RUN: &str =
    "subscription($id: ID!) { complianceRun(id: $id) { id state shards shardsDone } }";

/// The range of all assets.
const ALL: AssetRange = AssetRange { above: None, up_to: None };
/// Intervals so long that only hints start an execution.
const HINTS: CheckIntervals = CheckIntervals {
    recheck: Duration::from_hours(1),
    debounce: Duration::from_millis(1),
    poll: PollInterval {
        listening: Duration::from_hours(1),
        not_listening: Duration::from_hours(1),
    },
};
/// Intervals for tests without hints: subscriptions poll every 20 ms.
const POLLS: CheckIntervals = CheckIntervals {
    recheck: Duration::from_millis(20),
    poll: PollInterval {
        listening: Duration::from_hours(1),
        not_listening: Duration::from_millis(20),
    },
    ..HINTS
};

/// An open subscription and its answers.
struct OpenSubscription(Pin<Box<dyn Stream<Item = Reply> + Send>>);

impl OpenSubscription {
    async fn next(&mut self) -> Option<Reply> {
        let next = timeout(Duration::from_secs(10), self.0.next());
        next.await.expect("an answer or the end within ten seconds")
    }

    /// Returns `shardsDone` of the next answer.
    async fn shards_done(&mut self) -> i64 {
        let reply = self.next().await.expect("an answer");
        reply.data()["complianceRun"]["shardsDone"].as_i64().unwrap()
    }

    /// Returns true if no answer arrives within 150 ms.
    async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_millis(150), self.0.next()).await.is_err()
    }

    /// Waits for the end of the stream, and panics on another answer.
    async fn expect_end(&mut self) {
        if let Some(reply) = self.next().await {
            panic!("not over: {:#}", reply.json);
        }
    }
}

/// An app with an engine that receives hints, or an engine that only polls.
struct SubscriptionApp {
    app: TestApp,
    engine: Engine,
    /// Database whose commits publish hints.
    db: Db,
    team: Team,
}

impl SubscriptionApp {
    async fn with_hints() -> Self {
        let (app, redis) = (TestApp::new().await, Redis::open(&redis_url()).unwrap());
        redis.ready(Duration::from_secs(10)).await.unwrap();
        let (publisher, publishing) = Publisher::new(redis.clone());
        let (listener, listening) = Listener::new(&redis_url(), redis).unwrap();
        tokio::spawn(publishing);
        tokio::spawn(listening);
        let connected = async {
            while !listener.is_listening() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(10), connected).await.unwrap();
        let db = app.test.db.clone().publishing(move |events| publisher.publish(events));
        Self::on(app, db, listener, HINTS).await
    }

    async fn without_hints() -> Self {
        let app = TestApp::new().await;
        let db = app.test.db.clone();
        Self::on(app, db, Listener::disconnected(), POLLS).await
    }

    async fn on(app: TestApp, db: Db, listener: Listener, intervals: CheckIntervals) -> Self {
        let engine = engine_with(db.clone(), unlimited_quota(), listener, intervals).await;
        let team = app.team("alfa").await;
        Self { app, engine, db, team }
    }

    fn watch(&self, bearer: Option<&str>, document: &str, variables: Value) -> OpenSubscription {
        let variables = Variables::from_json(variables);
        let answers = match self.engine.prepare(document, None, variables) {
            Ok(prepared) => {
                let bearer = bearer.map(ToOwned::to_owned);
                self.engine.subscribe(prepared, bearer, client("a-watch")).boxed()
            }
            Err(refused) => async_graphql::futures_util::stream::iter([refused]).boxed(),
        };
        OpenSubscription(answers.map(Reply::from).boxed())
    }

    fn watch_run(&self, role: &str, run: RunId) -> OpenSubscription {
        self.watch(Some(&self.team[role].bearer), RUN, json!({ "id": run }))
    }

    /// Creates a run with this number of shards.
    async fn run(&self, shards: i32) -> RunId {
        run(&self.db, &self.team.org, shards).await
    }

    async fn close_shard(&self, run: RunId) {
        let tx = self.db.write(self.team.org.id, Origin::system()).await.unwrap();
        Run::evaluate_shard(&tx, run, 1, ALL, now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn owner(&self, document: &str, variables: Value) {
        let owner = Some(self.team["owner"].bearer.as_str());
        let reply =
            crate::harness::ask(&self.engine, owner, document, variables, client("x")).await;
        reply.data();
    }
}

async fn run(db: &Db, org: &Organization, shards: i32) -> RunId {
    let tx = db.write(org.id, Origin::system()).await.unwrap();
    let started = Run::start(&tx, RunTrigger::Manual, None, None, now()).await.unwrap();
    let Started::New(run, _) = started else { panic!("an old run") };
    let sql = "UPDATE compliance_run SET shards = $2 WHERE id = $1";
    tx.exec(sql, &[&run.id, &shards]).await.unwrap();
    tx.commit().await.unwrap();
    run.id
}

async fn a_run_is_followed(set: SubscriptionApp) {
    let run = set.run(2).await;
    let mut watched = set.watch_run("viewer", run);
    assert_eq!(watched.shards_done().await, 0);
    set.close_shard(run).await;
    assert_eq!(watched.shards_done().await, 1);
    set.close_shard(run).await;
    let last = watched.next().await.unwrap();
    assert_eq!(
        last.data()["complianceRun"],
        json!({ "id": run, "state": "SUCCEEDED", "shards": 2, "shardsDone": 2 })
    );
    watched.expect_end().await;
}

#[tokio::test]
async fn a_run_is_sent_at_once_and_at_each_advance_and_the_subscription_ends_with_it() {
    a_run_is_followed(SubscriptionApp::with_hints().await).await;
}

#[tokio::test]
async fn without_redis_it_is_sent_all_the_same() {
    a_run_is_followed(SubscriptionApp::without_hints().await).await;
}

#[tokio::test]
async fn a_run_that_has_ended_is_sent_once() {
    let set = SubscriptionApp::without_hints().await;
    let run = set.run(1).await;
    set.close_shard(run).await;
    let mut watched = set.watch_run("viewer", run);
    assert_eq!(watched.shards_done().await, 1);
    watched.expect_end().await;
}

#[tokio::test]
async fn what_does_not_differ_is_not_sent_again() {
    let set = SubscriptionApp::without_hints().await;
    let run = set.run(2).await;
    let mut watched = set.watch_run("viewer", run);
    assert_eq!(watched.shards_done().await, 0);
    assert!(watched.is_quiet().await);
    set.close_shard(run).await;
    assert_eq!(watched.shards_done().await, 1);
}

#[tokio::test]
async fn a_burst_is_sent_as_what_came_of_it() {
    let set = SubscriptionApp::with_hints().await;
    let run = set.run(40).await;
    let mut watched = set.watch_run("viewer", run);
    assert_eq!(watched.shards_done().await, 0);
    // The stream is not polled meanwhile, so all hints cause a single execution.
    for _ in 0..39 {
        set.close_shard(run).await;
    }
    let mut answers = 0;
    while watched.shards_done().await < 39 {
        answers += 1;
    }
    assert!(answers <= 2, "{answers} answers before the last");
}

#[tokio::test]
async fn what_is_not_there_or_is_anothers_ends_with_not_found() {
    let set = SubscriptionApp::without_hints().await;
    let other = set.app.team("bravo").await;
    let foreign = run(&set.db, &other.org, 1).await;
    for id in [RunId::new(), foreign] {
        let mut watched = set.watch_run("owner", id);
        let reply = watched.next().await.unwrap();
        assert_eq!((reply.code(), &reply.json["data"]), ("NOT_FOUND", &Value::Null));
        assert_eq!(reply.error()["path"], json!(["complianceRun"]));
        watched.expect_end().await;
    }
}

#[tokio::test]
async fn who_may_not_see_it_is_refused_before_anything_runs() {
    let set = SubscriptionApp::without_hints().await;
    let run = set.run(1).await;
    let (_, key) = set.app.api_key(&set.team, "ci", &[Permission::AssetRead]).await;
    for (bearer, code) in [
        (None, "UNAUTHENTICATED"),
        (Some("x"), "UNAUTHENTICATED"),
        (Some(key.as_str()), "FORBIDDEN"),
    ] {
        let mut watched = set.watch(bearer, RUN, json!({ "id": run }));
        let reply = watched.next().await.unwrap();
        assert!(!reply.executed);
        assert_eq!(reply.errors()[0]["extensions"]["code"], code);
        assert_eq!(reply.errors()[0]["extensions"]["requestId"], "a-watch");
        watched.expect_end().await;
    }
}

#[tokio::test]
async fn rights_are_looked_at_each_time() {
    let set = SubscriptionApp::without_hints().await;
    let run = set.run(3).await;
    let demote = "mutation($id: ID!) { setUserRoles(user: $id, roles: [\"bare\"]) { id } }";
    let bare =
        "mutation { saveRole(key: \"bare\", name: \"Bare\", permissions: [ASSET_READ]) { id } }";
    let revoke = "mutation($id: ID!) { revokeUserSessions(user: $id) }";
    set.owner(bare, nothing()).await;
    for (role, mutation, code) in
        [("viewer", demote, "FORBIDDEN"), ("operator", revoke, "UNAUTHENTICATED")]
    {
        let mut watched = set.watch_run(role, run);
        watched.shards_done().await;
        set.owner(mutation, json!({ "id": set.team[role].id })).await;
        set.close_shard(run).await;
        let reply = watched.next().await.unwrap();
        assert!(!reply.executed, "{:#}", reply.json);
        assert_eq!(reply.errors()[0]["extensions"]["code"], code);
        watched.expect_end().await;
    }
}

#[tokio::test]
async fn a_defect_of_ours_ends_it() {
    let set = SubscriptionApp::without_hints().await;
    let run = set.run(2).await;
    let mut watched = set.watch_run("viewer", run);
    assert_eq!(watched.shards_done().await, 0);
    set.app.execute_sql("ALTER TABLE session RENAME TO away").await;
    assert_eq!(watched.next().await.unwrap().code(), "INTERNAL");
    watched.expect_end().await;
}

#[tokio::test]
async fn an_outage_of_the_database_is_waited_for() {
    let set = SubscriptionApp::without_hints().await;
    let run = set.run(2).await;
    let mut watched = set.watch_run("viewer", run);
    assert_eq!(watched.shards_done().await, 0);
    // Terminates every connection of the pool, idle or in a transaction.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..3 {
        set.app.execute_sql(cut).await;
        assert!(watched.is_quiet().await);
    }
    set.close_shard(run).await;
    assert_eq!(watched.shards_done().await, 1);
}

#[tokio::test]
async fn a_subscription_is_one_field_that_is_there() {
    let set = SubscriptionApp::without_hints().await;
    let owner = set.team["owner"].bearer.clone();
    for document in [
        "subscription { jobs { id } other: jobs { id } }",
        "subscription { jobs { id } __typename }",
        "subscription { __typename }",
        "subscription { __schema { queryType { name } } }",
        "subscription { __type(name: \"Job\") { name } }",
        "subscription { jobs @skip(if: true) { id } }",
        "subscription { jobs @include(if: false) { id } }",
        "subscription { ...F } fragment F on Subscription { jobs { id } }",
        "subscription { ... on Subscription { jobs { id } } }",
        "subscription { assets { totalCount } }",
        "subscription { jobs(queue: NOWHERE) { id } }",
    ] {
        let mut watched = set.watch(Some(&owner), document, nothing());
        let reply = watched.next().await.unwrap();
        assert!(!reply.executed, "{document}: {:#}", reply.json);
        assert_eq!(reply.code(), "VALIDATION", "{document}");
        watched.expect_end().await;
    }
}

#[tokio::test]
async fn limits_hold_for_subscriptions_too() {
    let set = SubscriptionApp::without_hints().await;
    let aliases = (0..40).map(|n| format!("a{n}: id")).collect::<Vec<_>>().join(" ");
    let document = format!("subscription {{ jobs {{ {aliases} }} }}");
    let mut watched = set.watch(Some(&set.team["owner"].bearer), &document, nothing());
    assert_eq!(watched.next().await.unwrap().code(), "QUERY_TOO_COMPLEX");
}

#[tokio::test]
async fn what_is_watched_holds_no_connection_in_between() {
    let app = TestApp::with_connections(1).await;
    let db = Db::new(&app.test.url, 1, "sentryops-test").unwrap();
    let set = SubscriptionApp::on(app, db, Listener::disconnected(), POLLS).await;
    let run = set.run(2).await;
    let mut watched: Vec<_> = (0..5).map(|_| set.watch_run("viewer", run)).collect();
    for subscription in &mut watched {
        subscription.shards_done().await;
    }
    set.close_shard(run).await;
    for subscription in &mut watched {
        assert_eq!(subscription.shards_done().await, 1);
    }
}

/// Inserts a waiting job and returns its id.
async fn job(set: &SubscriptionApp, org: &Organization, queue: &str) -> String {
    let id = JobId::new();
    let tx = set.db.write(org.id, Origin::system()).await.unwrap();
    let sql = "INSERT INTO job (id, org_id, queue, kind, version, payload, state, priority, run_at, max_attempts, actor_kind, queued_at, changed_at)
        VALUES ($1, $2, $3, 'test', 1, '{}', 'WAITING', 0, now(), 3, 'system', now(), now())";
    tx.exec(sql, &[&id, &org.id, &queue]).await.unwrap();
    tx.emit(domain::base::event::Event::jobs_changed(org.id));
    tx.commit().await.unwrap();
    id.to_string()
}

async fn jobs_are_followed(set: SubscriptionApp) {
    let bearer = set.team["viewer"].bearer.as_str();
    let other = set.app.team("bravo").await;
    job(&set, &set.team.org, "SCAN").await;
    let document =
        "subscription($queue: Queue) { jobs(queue: $queue) { id state actor { __typename } } }";
    let mut all = set.watch(Some(bearer), document, nothing());
    let mut probes = set.watch(Some(bearer), document, json!({ "queue": "PROBE" }));
    assert!(all.is_quiet().await && probes.is_quiet().await, "what was there before is no news");
    job(&set, &other.org, "SCAN").await;
    let scan = job(&set, &set.team.org, "SCAN").await;
    let jobs_of = |reply: Option<Reply>| reply.unwrap().data()["jobs"].clone();
    let system = json!({ "__typename": "System" });
    assert_eq!(
        jobs_of(all.next().await),
        json!({ "id": scan, "state": "WAITING", "actor": system })
    );
    let probe = job(&set, &set.team.org, "PROBE").await;
    assert_eq!(jobs_of(all.next().await)["id"], json!(probe));
    assert_eq!(jobs_of(probes.next().await)["id"], json!(probe));
    let tx = set.db.write(set.team.org.id, Origin::system()).await.unwrap();
    let sql = "UPDATE job SET state = 'BURIED', changed_at = now() WHERE state = 'WAITING' AND queue = 'PROBE'";
    tx.exec(sql, &[]).await.unwrap();
    tx.emit(domain::base::event::Event::jobs_changed(set.team.org.id));
    tx.commit().await.unwrap();
    assert_eq!(jobs_of(probes.next().await)["state"], "BURIED");
    assert_eq!(jobs_of(all.next().await)["state"], "BURIED");
    // The history is searched only for recent jobs, and for jobs that the subscription sent while they were unfinished.
    let old = JobId::from(uuid::Uuid::from_u128(7)).to_string();
    let tx = set.db.write(set.team.org.id, Origin::system()).await.unwrap();
    let sql = "UPDATE job SET id = '00000000-0000-0000-0000-000000000007', state = 'BURIED', changed_at = now() WHERE id = $1";
    tx.exec(sql, &[&scan.parse::<JobId>().unwrap()]).await.unwrap();
    tx.emit(domain::base::event::Event::jobs_changed(set.team.org.id));
    tx.commit().await.unwrap();
    assert_eq!(jobs_of(all.next().await)["id"], json!(old));
    for id in [&old, &probe] {
        finish(&set, id).await;
        let ended = jobs_of(all.next().await);
        assert_eq!((&ended["id"], &ended["state"]), (&json!(id), &json!("SUCCEEDED")));
    }
    assert_eq!(jobs_of(probes.next().await)["state"], "SUCCEEDED");
    assert!(all.is_quiet().await);
}

/// Moves the job's row to the history as succeeded.
async fn finish(set: &SubscriptionApp, id: &str) {
    let id: JobId = id.parse().unwrap();
    let tx = set.db.write(set.team.org.id, Origin::system()).await.unwrap();
    let sql = "WITH done AS (DELETE FROM job WHERE id = $1 RETURNING *)
        INSERT INTO job_history (id, org_id, queue, kind, outcome, priority, attempt, max_attempts, actor_kind, run_at, queued_at, finished_at)
        SELECT id, org_id, queue, kind, 'SUCCEEDED', priority, attempt, max_attempts, actor_kind, run_at, queued_at, now() FROM done";
    tx.exec(sql, &[&id]).await.unwrap();
    tx.emit(domain::base::event::Event::jobs_changed(set.team.org.id));
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn jobs_are_sent_as_they_change_by_queue_and_to_their_organization() {
    jobs_are_followed(SubscriptionApp::with_hints().await).await;
}

#[tokio::test]
async fn without_redis_jobs_are_sent_all_the_same() {
    jobs_are_followed(SubscriptionApp::without_hints().await).await;
}

/// Opens a connection, applies the change, and returns the loss of access that ended the connection.
async fn lost(set: &SubscriptionApp, bearer: &str, change: impl Future<Output = ()>) -> AccessLoss {
    let recognised = set.engine.authenticate_connection(bearer.to_owned(), client("open")).await;
    let Ok(mut recognised) = recognised else { panic!("not recognised") };
    assert!(timeout(Duration::from_millis(60), &mut recognised.lost).await.is_err());
    change.await;
    timeout(Duration::from_secs(5), recognised.lost).await.expect("noticed")
}

#[tokio::test]
async fn whoever_loses_access_or_rights_is_noticed_by_hint_and_without() {
    for set in [SubscriptionApp::with_hints().await, SubscriptionApp::without_hints().await] {
        let bare = "mutation { saveRole(key: \"bare\", name: \"Bare\", permissions: [ASSET_READ]) { id } }";
        set.owner(bare, nothing()).await;
        let (key, secret) = set.app.api_key(&set.team, "ci", &[Permission::AssetRead]).await;
        let logout = async {
            let bearer = Some(set.team["admin"].bearer.as_str());
            let document = "mutation { logout }";
            crate::harness::ask(&set.engine, bearer, document, nothing(), client("x")).await.data();
        };
        let ended = Box::pin(lost(&set, &set.team["admin"].bearer, logout)).await;
        assert_eq!(ended, AccessLoss::Access);
        for (bearer, id, mutation, expected) in [
            (
                &set.team["viewer"].bearer,
                set.team["viewer"].id.to_string(),
                "setUserRoles(user: $id, roles: [\"bare\"]) { id }",
                AccessLoss::Permission,
            ),
            (
                &set.team["operator"].bearer,
                set.team["operator"].id.to_string(),
                "deactivateUser(user: $id) { id }",
                AccessLoss::Access,
            ),
            (&secret, key.to_string(), "revokeApiKey(id: $id)", AccessLoss::Access),
        ] {
            let document = format!("mutation($id: ID!) {{ {mutation} }}");
            let change = set.owner(&document, json!({ "id": id }));
            assert_eq!(Box::pin(lost(&set, bearer, change)).await, expected, "{mutation}");
        }
    }
}

#[tokio::test]
async fn more_rights_are_no_loss() {
    let set = SubscriptionApp::without_hints().await;
    let recognised =
        set.engine.authenticate_connection(set.team["viewer"].bearer.clone(), client("open")).await;
    let Ok(mut recognised) = recognised else { panic!("not recognised") };
    assert_eq!(recognised.holder, Some(set.team["viewer"].id.to_string()));
    let promote = "mutation($id: ID!) { setUserRoles(user: $id, roles: [\"operator\"]) { id } }";
    set.owner(promote, json!({ "id": set.team["viewer"].id })).await;
    assert!(timeout(Duration::from_millis(150), &mut recognised.lost).await.is_err());
}

#[tokio::test]
async fn a_token_that_is_no_good_is_not_recognised() {
    let set = SubscriptionApp::without_hints().await;
    for bearer in ["", "x", "sok_x"] {
        let refused = set
            .engine
            .authenticate_connection(bearer.to_owned(), client("open"))
            .await
            .err()
            .unwrap();
        let reply = Reply::from(refused);
        assert_eq!((reply.executed, reply.code()), (false, "UNAUTHENTICATED"));
    }
}

#[tokio::test]
async fn what_a_token_opened_ends_with_it() {
    let set = SubscriptionApp::without_hints().await;
    let bearer = set.app.expiring_token(&set.team["viewer"].email, Duration::from_secs(1)).await;
    let recognised = set.engine.authenticate_connection(bearer, client("open")).await;
    let Ok(recognised) = recognised else { panic!("not recognised") };
    let lost = timeout(Duration::from_millis(1500), recognised.lost).await;
    assert_eq!(lost.expect("at its end, not when the leeway is over"), AccessLoss::Access);
}
