//! Jobs that fail: retries, burials and reasons.

use std::time::Duration;

use domain::fleet::job::{JobState, Queue};
use jobs::{Failure, Job};
use serde::{Deserialize, Serialize};
use workers::Context;

use crate::harness::{Behaviour, TestFleet};

#[tokio::test]
async fn a_failed_job_is_tried_again() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let id = fleet.push("a", Behaviour::FailOnce).await;
    let job = fleet.until(id, JobState::Succeeded).await;
    assert_eq!((job.attempt, job.error), (2, None));
    assert_eq!(fleet.effects().await["a"], 1);
}

#[tokio::test]
async fn a_job_is_buried_after_exactly_its_attempts() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let id = fleet.push("a", Behaviour::Fail).await;
    let job = fleet.until(id, JobState::Buried).await;
    assert_eq!((job.attempt, job.error.as_deref()), (2, Some("it always fails")));
    assert_eq!(fleet.log.started().len(), 2);
}

#[tokio::test]
async fn a_panic_costs_an_attempt_and_harms_no_neighbour() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let panics = fleet.push("a", Behaviour::Panic).await;
    let neighbour = fleet.push("b", Behaviour::Effect).await;
    let job = fleet.until(panics, JobState::Buried).await;
    assert_eq!(
        (job.attempt, job.error.as_deref()),
        (2, Some("the handler panicked: see the worker's log"))
    );
    fleet.until(neighbour, JobState::Succeeded).await;
}

#[tokio::test]
async fn a_hopeless_job_is_buried_at_once() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let id = fleet.push("a", Behaviour::Abort).await;
    let job = fleet.until(id, JobState::Buried).await;
    assert_eq!((job.attempt, job.error.as_deref()), (1, Some("it is hopeless")));
}

#[tokio::test]
async fn a_snooze_costs_no_attempt() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let id = fleet.push("a", Behaviour::SnoozeTwice).await;
    let job = fleet.until(id, JobState::Succeeded).await;
    assert_eq!(job.attempt, 1);
    assert_eq!(fleet.log.started().len(), 3);
}

#[derive(Serialize, Deserialize)]
struct Slow {}

impl Job for Slow {
    const QUEUE: Queue = Queue::Upkeep;
    const KIND: &'static str = "test.slow";
    const ATTEMPTS: i16 = 1;
    const TIMEOUT: Duration = Duration::from_millis(50);
}

async fn hang(_: Context, _: Slow) -> Result<(), Failure> {
    std::future::pending().await
}

#[tokio::test]
async fn a_job_out_of_time_fails_and_says_so() {
    let fleet = TestFleet::new().await;
    fleet.start_with(fleet.handlers().on(hang), TestFleet::settings(4, 0));
    let tx = fleet.write().await;
    let id = jobs::push(&tx, &Slow {}).await.unwrap();
    tx.commit().await.unwrap();
    let job = fleet.until(id, JobState::Buried).await;
    assert_eq!(job.error.as_deref(), Some("the job timed out after 0.05 s"));
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_is_buried_with_the_reason() {
    let fleet = TestFleet::new().await;
    let id = fleet.push("a", Behaviour::Effect).await;
    fleet.run_sql("UPDATE job SET payload = '{\"name\": 7}'").await;
    fleet.start();
    let job = fleet.until(id, JobState::Buried).await;
    let error = job.error.unwrap();
    assert!(error.starts_with("the payload of test.drill cannot be read: "), "{error}");
    assert!(fleet.log.started().is_empty());
}

#[tokio::test]
async fn a_lost_race_costs_no_attempt_and_is_told_as_one() {
    let fleet = TestFleet::new().await;
    for code in ["40P01", "40001"] {
        let tx = fleet.write().await;
        let raise = format!("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$");
        let lost = tx.exec(&raise, &[]).await.unwrap_err();
        let reason = "another transaction changed the same rows at the same time";
        assert_eq!(Failure::from(lost), Failure::snooze(reason, Duration::from_secs(1)));
    }
}
