//! Subscriptions of the real server over sockets and streams: events arrive, and stop when the permission ends.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use domain::{
    Db, Origin,
    compliance::{
        range::AssetRange,
        run::{Run, RunTrigger, Started},
    },
    entity::{OrganizationId, RunId},
    testing::redis_url,
};
use jobs::{Redis, event::Publisher};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    server::{Api, TestDeployment, until},
    socket::Socket,
    team::{Person, Team, chrono_now},
};

const ALL: AssetRange = AssetRange { above: None, up_to: None };
const RUN: &str = "subscription($id: ID!) { complianceRun(id: $id) { state shardsDone } }";

/// A compliance run that a test advances.
struct RunFixture {
    db: Db,
    org: OrganizationId,
    run: RunId,
}

impl RunFixture {
    async fn new(deployment: &TestDeployment, team: &Team, redis_url: &str) -> Self {
        let redis = Redis::open(redis_url).unwrap();
        let (publisher, publishing) = Publisher::new(redis);
        tokio::spawn(publishing);
        let db = deployment.db.clone().publishing(move |events| publisher.publish(events));
        let org = team.id.parse().unwrap();
        let tx = db.write(org, Origin::system()).await.unwrap();
        let start = async || Run::start(&tx, RunTrigger::Manual, None, None, chrono_now()).await;
        let run = match start().await.unwrap() {
            Started::New(run, _) => run,
            // At most one run of all assets can be open.
            Started::Existing(open) => {
                Run::cancel(&tx, open.id, chrono_now()).await.unwrap();
                let Started::New(run, _) = start().await.unwrap() else { panic!("an old run") };
                run
            }
        };
        let sql = "UPDATE compliance_run SET shards = 1000000 WHERE id = $1";
        tx.exec(sql, &[&run.id]).await.unwrap();
        tx.commit().await.unwrap();
        Self { db, org, run: run.id }
    }

    async fn advance(&self) {
        let tx = self.db.write(self.org, Origin::system()).await.unwrap();
        Run::evaluate_shard(&tx, self.run, 1, ALL, chrono_now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Advances the run every 10 ms until the future is dropped.
    async fn keep_advancing(&self) {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            self.advance().await;
        }
    }

    async fn watch(&self, api: &Api, person: &Person) -> Socket {
        let mut socket = Socket::open(api, Some(&person.access)).await.unwrap();
        socket.subscribe("1", RUN, json!({ "id": self.run.to_string() })).await;
        assert_eq!(shards_done(&socket.next().await.unwrap()), 0);
        socket
    }
}

fn shards_done(message: &Value) -> i64 {
    let done = &message["payload"]["data"]["complianceRun"]["shardsDone"];
    done.as_i64().unwrap_or_else(|| panic!("{message}"))
}

/// A Redis of its own, which a test may kill.
pub struct OwnRedis {
    folder: std::path::PathBuf,
    child: Child,
}

impl OwnRedis {
    pub fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("redis-{}", RunId::new().uuid().simple()));
        std::fs::create_dir(&folder).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket", "redis.sock"])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server must be installed");
        Self { folder, child }
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.join("redis.sock").display())
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill(); // The process may be killed already.
        let _ = self.child.wait();
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder); // A leftover does no harm: each run has its own folder.
    }
}

/// Returns per socket the time of its last message, the time of its close, both since `began`, and the close code.
async fn ends(sockets: Vec<Socket>, began: Instant) -> Vec<(Duration, Duration, Option<u16>)> {
    let mut watching = JoinSet::new();
    for mut socket in sockets {
        watching.spawn(async move {
            let mut last = Duration::ZERO;
            loop {
                match socket.next().await {
                    Ok(message) if message["type"] == "next" => last = began.elapsed(),
                    Ok(_) => {}
                    Err(code) => return (last, began.elapsed(), code),
                }
            }
        });
    }
    watching.join_all().await
}

fn report(what: &str, ends: &[(Duration, Duration, Option<u16>)]) {
    let worst = |time: fn(&(Duration, Duration, Option<u16>)) -> Duration| {
        ends.iter().map(time).max().unwrap()
    };
    eprintln!(
        "{what}: of {} sockets the last event came {:?} and the close {:?} after the revocation began",
        ends.len(),
        worst(|end| end.0),
        worst(|end| end.1),
    );
}

#[tokio::test]
async fn what_is_watched_on_one_replica_is_heard_from_another() {
    let deployment = TestDeployment::new().await;
    let (api, other) = tokio::join!(deployment.api(), deployment.api());
    let team = Team::new(&deployment, &api).await;
    let moved = RunFixture::new(&deployment, &team, &redis_url()).await;
    let mut sockets =
        [moved.watch(&api, &team.owner).await, moved.watch(&other, &team.owner).await];
    let began = Instant::now();
    moved.advance().await;
    for socket in &mut sockets {
        assert_eq!(shards_done(&socket.next().await.unwrap()), 1);
    }
    eprintln!("an advance was sent to two replicas' sockets within {:?}", began.elapsed());
}

#[tokio::test]
async fn revoked_or_demoted_while_events_flow_nothing_comes_a_second_later() {
    let deployment = TestDeployment::new().await;
    let (api, other) = tokio::join!(deployment.api(), deployment.api());
    let team = Team::new(&deployment, &api).await;
    let bare =
        "mutation { saveRole(key: \"bare\", name: \"Bare\", permissions: [ASSET_READ]) { id } }";
    team.owner.client.get_data(bare, json!({})).await;
    for (mutation, code) in [
        ("revokeUserSessions(user: $id)", 4401),
        ("deactivateUser(user: $id) { id }", 4401),
        ("setUserRoles(user: $id, roles: [\"bare\"]) { id }", 4403),
    ] {
        let person = team.member("operator").await;
        let moved = RunFixture::new(&deployment, &team, &redis_url()).await;
        let mut sockets = Vec::new();
        for _ in 0..5 {
            sockets.push(moved.watch(&other, &person).await);
        }
        let query = format!("mutation($id: ID!) {{ {mutation} }}");
        let flowing = async {
            tokio::select! {
                () = moved.keep_advancing() => unreachable!(),
                ends = async {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    let began = Instant::now();
                    let revoked = team.owner.client.get_data(&query, json!({ "id": person.id }));
                    tokio::join!(ends(sockets, began), revoked).0
                } => ends,
            }
        };
        let ends = flowing.await;
        report(mutation, &ends);
        for (last, closed, found) in ends {
            assert_eq!(found, Some(code), "{mutation}");
            assert!(last < Duration::from_secs(1) && closed < Duration::from_secs(1), "{mutation}");
        }
    }
}

#[tokio::test]
async fn without_redis_events_are_delivered_by_polling_and_rights_are_looked_at_all_the_same() {
    let (deployment, mut redis) = (TestDeployment::new().await, OwnRedis::start());
    let url = redis.url();
    let api = deployment.api_with(&[("REDIS_URL", &url)]).await;
    let team = Team::new(&deployment, &api).await;
    let moved = RunFixture::new(&deployment, &team, &url).await;
    let person = team.member("operator").await;
    let mut socket = moved.watch(&api, &person).await;
    redis.kill();
    for done in 1..=2 {
        moved.advance().await;
        let began = Instant::now();
        assert_eq!(shards_done(&socket.next().await.unwrap()), done);
        eprintln!("without Redis an advance was sent after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(7));
    }
    let began = Instant::now();
    let query = "mutation($id: ID!) { revokeUserSessions(user: $id) }";
    let revoked = team.owner.client.get_data(query, json!({ "id": person.id }));
    let (ends, _) = tokio::join!(ends(vec![socket], began), revoked);
    report("without Redis", &ends);
    assert!(ends[0].2 == Some(4401) && ends[0].1 < Duration::from_secs(2));
}

#[tokio::test]
async fn a_sixth_socket_of_the_same_user_is_refused_and_an_anonymous_one_sees_what_is_public() {
    let (team, shared_server) = Team::on_shared_server().await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(Socket::open(&shared_server.api, Some(&team.owner.access)).await.unwrap());
    }
    let sixth = Socket::open(&shared_server.api, Some(&team.owner.access)).await;
    assert_eq!(sixth.err(), Some(Some(4429)));
    let mut nobody = Socket::open(&shared_server.api, None).await.unwrap();
    nobody.subscribe("1", "{ viewer { permissions } }", json!({})).await;
    assert_eq!(nobody.next().await.unwrap()["payload"]["data"], json!({ "viewer": null }));
    let stranger = Socket::open(&shared_server.api, Some("not-a-token")).await;
    assert_eq!(stranger.err(), Some(Some(4401)));
}

#[tokio::test]
async fn queries_and_mutations_run_on_a_socket_under_the_same_rules() {
    let (team, shared_server) = Team::on_shared_server().await;
    let viewer = team.member("viewer").await;
    let mut socket = Socket::open(&shared_server.api, Some(&viewer.access)).await.unwrap();
    socket.subscribe("1", "{ assets { totalCount } }", json!({})).await;
    let message = socket.next().await.unwrap();
    assert_eq!(message["payload"]["data"], json!({ "assets": { "totalCount": 0 } }));
    assert_eq!(socket.next().await.unwrap()["type"], "complete");
    let create = "mutation { createAsset(input: { name: \"x\", type: HOST }) { id } }";
    socket.subscribe("2", create, json!({})).await;
    let message = socket.next().await.unwrap();
    assert_eq!((&message["type"], &message["id"]), (&json!("error"), &json!("2")));
    assert_eq!(message["payload"][0]["extensions"]["code"], "FORBIDDEN");
    let deep = format!("{{ {} }}", "a { ".repeat(300) + &"}".repeat(300));
    socket.subscribe("3", &deep, json!({})).await;
    let message = socket.next().await.unwrap();
    assert_eq!(message["payload"][0]["extensions"]["code"], "QUERY_TOO_COMPLEX", "{message}");
}

#[tokio::test]
async fn a_stream_over_sse_carries_the_same_and_ends_with_the_session() {
    let (team, shared_server) = Team::on_shared_server().await;
    let moved = RunFixture::new(&shared_server.deployment, &team, &redis_url()).await;
    let person = team.member("operator").await;
    let body = json!({ "query": RUN, "variables": { "id": moved.run.to_string() } });
    let url = format!("http://{}/graphql/stream", shared_server.api.address);
    let request = crate::client::Client::http(team.address)
        .post(url)
        .bearer_auth(&person.access)
        .header("accept", "text/event-stream")
        .json(&body);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut seen = String::new();
    let mut wait_for = async |text: &str, response: &mut reqwest::Response| {
        while !seen.contains(text) {
            let chunk = tokio::time::timeout(Duration::from_secs(10), response.chunk());
            let chunk = chunk.await.unwrap_or_else(|_| panic!("{text} did not come: {seen}"));
            seen.push_str(std::str::from_utf8(&chunk.unwrap().expect("an end")).unwrap());
        }
    };
    wait_for("\"shardsDone\":0", &mut response).await;
    moved.advance().await;
    wait_for("\"shardsDone\":1", &mut response).await;
    let began = Instant::now();
    let query = "mutation($id: ID!) { revokeUserSessions(user: $id) }";
    team.owner.client.get_data(query, json!({ "id": person.id })).await;
    wait_for("UNAUTHENTICATED", &mut response).await;
    wait_for("event: complete", &mut response).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(response.chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn a_stopping_server_tells_its_sockets_to_go_elsewhere() {
    let deployment = TestDeployment::new().await;
    let mut api = deployment.api().await;
    let team = Team::new(&deployment, &api).await;
    let moved = RunFixture::new(&deployment, &team, &redis_url()).await;
    let mut socket = moved.watch(&api, &team.owner).await;
    let began = Instant::now();
    api.terminate();
    assert_eq!(socket.next().await.err(), Some(Some(1001)));
    drop(socket);
    assert!(api.end().await.success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api().await;
    let team = Team::new(&deployment, &api).await;
    let moved = RunFixture::new(&deployment, &team, &redis_url()).await;
    let socket = moved.watch(&api, &team.owner).await;
    assert_eq!(api.counted("sentryops_sockets ").await, 1);
    socket.leave().await;
    until("no socket is open", async || {
        (api.counted("sentryops_sockets ").await == 0).then_some(())
    })
    .await;
}
