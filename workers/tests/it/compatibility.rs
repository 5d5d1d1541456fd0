//! Compatibility of job payloads: today's workers run the jobs that an earlier version stored, and its workers can read
//! those that are stored today.

use domain::{
    base::run_state::RunState,
    compliance::run::Run,
    entity::{ImportRunId, RunId},
    inventory::import::ImportRun,
    testing::earlier,
};
use jobs::{
    Job,
    compliance::{
        posture::{Reevaluate, ReevaluateFlips, Refresh, Verify},
        run::RunShard,
    },
    fleet::schedule::ScheduledRun,
    inventory::import::{ImportChunk, ImportSweep},
};
use serde_json::Value;

use crate::harness::{TestFleet, eventually};

/// Ids of a run and an import with waiting jobs, and of a run and an import with a cancelled job.
const RUN: &str = "run_01m8qjc1nzedet4jysabqbseg8";
const IMPORT: &str = "imp_01m8qjc1p2ej7vrx0skzbmyscf";
const CANCELLED_RUN: &str = "run_01m8qjc1pqer0vqmgknqwyqq0k";
const CANCELLED_IMPORT: &str = "imp_01m8qjc1p5e1fswtfr1dw3fsxn";

/// Restores the rows of the earlier version and uses its organization. No worker runs yet.
async fn restored() -> TestFleet {
    let mut fleet = TestFleet::new().await;
    earlier::restore(&fleet.db).await;
    fleet.org = earlier::organization();
    fleet
}

async fn run(fleet: &TestFleet, id: &str) -> Run {
    let tx = fleet.db.read(fleet.org).await.unwrap();
    let run = Run::get(&tx, id.parse::<RunId>().unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    run
}

async fn import(fleet: &TestFleet, id: &str) -> ImportRun {
    let tx = fleet.db.read(fleet.org).await.unwrap();
    let run = ImportRun::get(&tx, id.parse::<ImportRunId>().unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    run
}

/// Returns the kind, queue, version, payload, maximum attempts and watched flag of the stored jobs.
async fn stored(fleet: &TestFleet) -> Vec<(String, String, i16, Value, i16, bool)> {
    let sql =
        "SELECT kind, queue, version, payload, max_attempts, watched FROM job ORDER BY kind, id";
    let rows = fleet.db.superuser().await.query(sql, &[]).await.unwrap();
    let read = |row: &tokio_postgres::Row| {
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5))
    };
    rows.iter().map(read).collect()
}

/// Checks that today's push would store each job of the kind as the earlier version did.
async fn is_stored_alike<J: Job>(fleet: &TestFleet) {
    let rows = stored(fleet).await;
    let of_kind: Vec<_> = rows.into_iter().filter(|row| row.0 == J::KIND).collect();
    assert!(!of_kind.is_empty(), "no {} was stored", J::KIND);
    for (kind, queue, version, payload, attempts, is_watched) in of_kind {
        let job: J = serde_json::from_value(payload.clone()).unwrap();
        assert_eq!(serde_json::to_value(&job).unwrap(), payload, "{kind}");
        let columns = (queue.as_str(), version, attempts, is_watched);
        assert_eq!(columns, (J::QUEUE.as_str(), J::VERSION, J::ATTEMPTS, J::WATCHED), "{kind}");
    }
}

#[tokio::test]
async fn payloads_and_columns_of_every_kind_are_those_of_before() {
    let fleet = restored().await;
    is_stored_alike::<RunShard>(&fleet).await;
    is_stored_alike::<Reevaluate>(&fleet).await;
    is_stored_alike::<ReevaluateFlips>(&fleet).await;
    is_stored_alike::<Refresh>(&fleet).await;
    is_stored_alike::<Verify>(&fleet).await;
    is_stored_alike::<ScheduledRun>(&fleet).await;
    is_stored_alike::<ImportChunk>(&fleet).await;
    is_stored_alike::<ImportSweep>(&fleet).await;
}

#[tokio::test]
async fn every_stored_job_is_done() {
    let fleet = restored().await;
    let kinds: Vec<_> = stored(&fleet).await.into_iter().map(|row| row.0).collect();
    let expected = [
        "import.chunk",
        "import.chunk.ended",
        "import.sweep",
        "import.sweep",
        "scan.follow",
        "scan.refresh",
        "scan.scheduled",
        "scan.shard",
        "scan.shard.ended",
        "scan.turn",
        "scan.verify",
    ];
    assert_eq!(kinds, expected);
    // A sweep that runs before its import has ended snoozes for ten minutes. The end of the import brings it forward.
    fleet
        .run_sql(
            "CREATE TABLE stored AS SELECT id FROM job;
             UPDATE job SET state = 'WAITING', run_at = now() WHERE kind <> 'import.sweep';
             UPDATE job SET run_at = now() + interval '1 hour' WHERE kind = 'import.sweep'",
        )
        .await;
    fleet.start();
    let open = "SELECT id FROM job WHERE id IN (SELECT id FROM stored) AND state <> 'BURIED'";
    eventually(async || fleet.count(open).await == 0).await;
    let done =
        "SELECT id FROM job_history WHERE id IN (SELECT id FROM stored) AND outcome = 'SUCCEEDED'";
    assert_eq!(fleet.count(done).await, expected.len());
}

#[tokio::test]
async fn a_stored_shard_is_judged_and_ends_its_run() {
    let fleet = restored().await;
    assert_eq!(run(&fleet, RUN).await.state, RunState::Queued);
    fleet.start();
    eventually(async || run(&fleet, RUN).await.state.has_ended()).await;
    let run = run(&fleet, RUN).await;
    assert_eq!((run.state, run.shards_done, run.error), (RunState::Succeeded, 1, None));
    assert!(run.passed > 0 && run.failed > 0, "{run:?}", run = (run.passed, run.failed));
}

/// The earlier version wrote payload version 2 and could read 1, which is the same without a round.
#[tokio::test]
async fn a_stored_shard_of_payload_version_1_ends_its_run() {
    let fleet = restored().await;
    fleet
        .run_sql(
            "UPDATE job SET version = 1, payload = payload - 'round' WHERE kind = 'scan.shard'",
        )
        .await;
    fleet.start();
    eventually(async || run(&fleet, RUN).await.state.has_ended()).await;
    assert_eq!(run(&fleet, RUN).await.state, RunState::Succeeded);
}

#[tokio::test]
async fn a_stored_chunk_is_imported_and_ends_its_run() {
    let fleet = restored().await;
    fleet.start();
    eventually(async || import(&fleet, IMPORT).await.state.has_ended()).await;
    let run = import(&fleet, IMPORT).await;
    assert_eq!((run.state, run.created, run.failed), (RunState::Succeeded, 2, 0));
    let there = "SELECT id FROM asset WHERE external_id IN ('old:late-1', 'old:late-2')";
    assert_eq!(fleet.count(there).await, 2);
}

#[tokio::test]
async fn a_run_is_told_of_its_cancelled_shard() {
    let fleet = restored().await;
    fleet.start();
    eventually(async || run(&fleet, CANCELLED_RUN).await.state.has_ended()).await;
    let run = run(&fleet, CANCELLED_RUN).await;
    assert_eq!(
        (run.state, run.error.as_deref()),
        (RunState::Failed, Some("a shard was cancelled"))
    );
}

#[tokio::test]
async fn an_import_is_told_of_its_cancelled_chunk() {
    let fleet = restored().await;
    fleet.start();
    eventually(async || import(&fleet, CANCELLED_IMPORT).await.state.has_ended()).await;
    assert_ne!(import(&fleet, CANCELLED_IMPORT).await.state, RunState::Succeeded);
}
