//! `sentryops worker` as processes, and runs that continue after workers are killed.

use std::{
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    client::Client,
    server::{Api, TestDeployment, command, run, text, until, within},
    team::Team,
};

use domain::entity::OrganizationId;

const START: &str =
    "mutation($key: String) { startComplianceRun(idempotencyKey: $key) { id state } }";
const RUN: &str = "query($id: ID!) { complianceRun(id: $id) { state assets shards shardsDone passed failed notAssessed } }";

/// A running process of `sentryops worker`.
struct Worker(Child);

impl Worker {
    fn start(deployment: &TestDeployment) -> Self {
        let mut command = deployment.command(&["worker"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.0.id().cast_signed()).unwrap(), signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        until("the worker has ended", async || self.0.try_wait().unwrap()).await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill(); // The process may have ended.
        let _ = self.0.wait();
    }
}

/// Inserts assets as an import does: a third encrypted, a third not, a third unknown, all without owner.
async fn many_assets(deployment: &TestDeployment, team: &Team, count: usize) {
    let org = team.id.parse::<OrganizationId>().unwrap().uuid();
    let sql = format!(
        "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, attributes, created_at, updated_at)
         SELECT '{org}', gen_random_uuid(), 'HST-' || n, 'host ' || n, 'HOST', 'ACTIVE', 'PROD',
                CASE n % 3 WHEN 0 THEN '{{\"disk_encrypted\": true}}' WHEN 1 THEN '{{\"disk_encrypted\": false}}' ELSE '{{}}' END::jsonb,
                now(), now()
         FROM generate_series(1, {count}) AS n"
    );
    deployment.db.superuser().await.batch_execute(&sql).await.unwrap();
}

async fn start(client: &Client, key: Option<&str>) -> Value {
    let answer = client.execute_with(START, json!({ "key": key })).await;
    answer.body["data"]["startComplianceRun"].clone()
}

#[tokio::test]
async fn killed_workers_change_nothing_about_a_run() {
    let deployment = TestDeployment::new().await;
    let api = Api::start(deployment.command(&["api"])).await;
    let team = Team::new(&deployment, &api).await;
    many_assets(&deployment, &team, 90_000).await;
    let owner = &team.owner.client;
    let mut workers = [Worker::start(&deployment), Worker::start(&deployment)];
    let run = start(owner, None).await["id"].as_str().unwrap().to_owned();
    let read = async || {
        owner.execute_with(RUN, json!({ "id": run })).await.body["data"]["complianceRun"].clone()
    };
    for worker in &mut workers {
        let before = read().await["shardsDone"].as_i64().unwrap();
        until("a shard is done", async || {
            (read().await["shardsDone"].as_i64().unwrap() > before
                || read().await["state"] == "SUCCEEDED")
                .then_some(())
        })
        .await;
        worker.signal(Signal::KILL);
        *worker = Worker::start(&deployment);
    }
    // Jobs of killed workers run again when their leases expire.
    let run = within(Duration::from_mins(1), "the run has ended", async || {
        let run = read().await;
        (run["state"] == "SUCCEEDED").then_some(run)
    })
    .await;
    assert_eq!(
        run,
        json!({
            "state": "SUCCEEDED", "assets": 90_000, "shards": 45, "shardsDone": 45,
            "passed": 30_000, "failed": 120_000, "notAssessed": 1_290_000,
        })
    );
}

#[tokio::test]
async fn killed_workers_import_nothing_twice() {
    let deployment = TestDeployment::new().await;
    let api = Api::start(deployment.command(&["api"])).await;
    let team = Team::new(&deployment, &api).await;
    let owner = &team.owner.client;
    // Every tenth row describes the same asset as the row before.
    let rows = (0..7_000).map(|row| format!("n:{},h,host\n", row - i32::from(row % 10 == 9)));
    let file = format!("external_id,name,type\n{}", rows.collect::<Vec<_>>().concat());
    let mut workers = [Worker::start(&deployment), Worker::start(&deployment)];
    let import =
        "mutation($file: String!) { importAssets(input: { format: CSV, content: $file }) { id } }";
    let answer = owner.execute_with(import, json!({ "file": file })).await;
    let run = answer.body["data"]["importAssets"]["id"].as_str().unwrap().to_owned();
    let sql = "query($id: ID!) { importRun(id: $id) { state reason rows done created updated unchanged failed } }";
    let read = async || {
        owner.execute_with(sql, json!({ "id": run })).await.body["data"]["importRun"].clone()
    };
    for worker in &mut workers {
        let before = read().await["done"].as_i64().unwrap();
        within(Duration::from_mins(1), "a chunk is done", async || {
            let run = read().await;
            (run["done"].as_i64().unwrap() > before || run["state"] == "SUCCEEDED").then_some(())
        })
        .await;
        worker.signal(Signal::KILL);
        *worker = Worker::start(&deployment);
    }
    let run = within(Duration::from_mins(2), "the import has ended", async || {
        let run = read().await;
        matches!(run["state"].as_str(), Some("SUCCEEDED" | "FAILED")).then_some(run)
    })
    .await;
    assert_eq!(
        run,
        json!({
            "state": "SUCCEEDED", "reason": null, "rows": 7_000, "done": 7_000,
            "created": 6_300, "updated": 0, "unchanged": 0, "failed": 700,
        })
    );
    let superuser = deployment.db.superuser().await;
    for (what, count) in [
        ("asset", 6_300),
        ("audit_entry WHERE action = 'asset.created'", 6_300),
        ("audit_entry WHERE action = 'import_run.finished'", 1),
        ("import_error", 700),
    ] {
        let sql = format!("SELECT count(*) FROM {what}");
        let found: i64 = superuser.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(found, count, "{what}");
    }
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_ends_well() {
    let deployment = TestDeployment::new().await;
    let mut worker = Worker::start(&deployment);
    let superuser = deployment.db.superuser().await;
    until("the worker is registered", async || {
        (!superuser.query("SELECT id FROM worker", &[]).await.unwrap().is_empty()).then_some(())
    })
    .await;
    worker.signal(Signal::TERM);
    assert!(worker.ended().await.success());
    assert!(superuser.query("SELECT id FROM worker", &[]).await.unwrap().is_empty());
}

#[test]
fn a_queue_that_is_none_is_told() {
    let mut command = command(&["worker", "--queue", "scans"]);
    command.envs([
        ("DATABASE_URL", "postgres://a@127.0.0.1:1/b"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
    ]);
    let output = run(command, "");
    assert!(!output.status.success());
    let messages = text(&output.stderr);
    let expected =
        "--queue scans: no such queue; the queues are scan, probe, triage, import, notify, upkeep";
    assert!(messages.contains(expected), "{messages}");
}
