//! Lost workers, leases and permissions: no job is lost, and no effect happens twice.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use domain::{
    Actor,
    access::permission::Permission,
    entity::UserId,
    fleet::job::{JobState, Queue},
};
use jobs::{Failure, Job, Push};
use serde::{Deserialize, Serialize};
use workers::Context;

use crate::harness::{Behaviour, OPEN_JOBS, TestFleet, TestJob, eventually};

#[tokio::test]
async fn a_killed_workers_jobs_run_again_elsewhere() {
    let fleet = TestFleet::new().await;
    let id = fleet.push("a", Behaviour::Wait).await;
    fleet.start();
    fleet.log.until_started(1).await;
    fleet.kill_first();
    fleet.start();
    fleet.log.until_started(2).await;
    fleet.log.permits.add_permits(2);
    let job = fleet.until(id, JobState::Succeeded).await;
    assert_eq!(job.attempt, 2);
    assert_eq!(fleet.effects().await["a"], 1);
}

#[tokio::test]
async fn a_job_whose_worker_always_dies_is_buried() {
    let fleet = TestFleet::new().await;
    let id = fleet.push("a", Behaviour::Hang).await;
    for attempt in 1..=2 {
        fleet.start();
        fleet.log.until_started(attempt).await;
        fleet.kill_first();
    }
    fleet.start();
    let job = fleet.until(id, JobState::Buried).await;
    assert_eq!(job.attempt, 2);
    assert_eq!(job.error.as_deref(), Some("the job's worker stopped or lost its lease"));
}

#[tokio::test]
async fn a_stale_worker_changes_nothing() {
    let fleet = TestFleet::new().await;
    let id = fleet.push("a", Behaviour::Wait).await;
    // The lease is not renewed while the test runs, so only the fencing token can prevent the completion.
    let mut settings = TestFleet::settings(4, 0);
    settings.leases.lease = Duration::from_mins(10);
    settings.leases.renew_interval = Duration::from_mins(10);
    fleet.start_with(fleet.handlers(), settings);
    fleet.log.until_started(1).await;
    fleet.run_sql("UPDATE job SET fence = fence + 1").await;
    fleet.log.permits.add_permits(1);
    fleet.stop_all().await;
    assert!(fleet.effects().await.is_empty());
    assert_eq!(fleet.job(id).await.unwrap().state, JobState::Running);
}

#[tokio::test]
async fn a_lost_lease_stops_the_job() {
    let fleet = TestFleet::new().await;
    let id = fleet.push("a", Behaviour::Hang).await;
    fleet.start();
    fleet.log.until_started(1).await;
    fleet
        .run_sql("UPDATE job SET fence = fence + 1, lease_until = now() + interval '1 hour' WHERE state = 'RUNNING'")
        .await;
    // The job hangs forever: only a stop lets the process end before the drain timeout.
    let ended = tokio::time::timeout(Duration::from_secs(9), fleet.stop_all()).await;
    assert!(ended.is_ok());
    assert_eq!(fleet.job(id).await.unwrap().attempt, 1);
}

#[tokio::test]
async fn a_worker_that_cannot_renew_stops_its_jobs_before_the_lease_ends() {
    let fleet = TestFleet::new().await;
    let id = fleet.push("a", Behaviour::Hang).await;
    let mut settings = TestFleet::settings(4, 0);
    settings.leases.lease = Duration::from_secs(6);
    fleet.start_with(fleet.handlers(), settings);
    fleet.log.until_started(1).await;
    fleet.run_sql("REVOKE UPDATE ON job FROM sentryops_fleet").await;
    eventually(async || fleet.log.ended() == ["a"]).await;
    assert_eq!(fleet.count("SELECT id FROM job WHERE lease_until > clock_timestamp()").await, 1);
    // Once leases can be renewed again, nothing is lost, not even an attempt.
    fleet.run_sql("GRANT UPDATE ON job TO sentryops_fleet").await;
    fleet.log.until_started(2).await;
    assert_eq!(fleet.job(id).await.unwrap().attempt, 1);
}

#[tokio::test]
async fn two_lost_jobs_of_one_key_keep_nobody_from_being_taken_back() {
    let fleet = TestFleet::new().await;
    let other = fleet.push("other", Behaviour::Effect).await;
    for _ in 0..2 {
        let tx = fleet.write().await;
        let job = TestJob { name: "a".to_owned(), does: Behaviour::Effect };
        Push::new(&job).key("k").send(&tx).await.unwrap();
        tx.commit().await.unwrap();
        // The state in which dead workers leave jobs.
        fleet
            .run_sql(
                "UPDATE job SET state = 'RUNNING', attempt = 1, fence = 1, lease_until = now() - interval '1 s'
                 WHERE state = 'WAITING'",
            )
            .await;
    }
    fleet.start();
    fleet.until(other, JobState::Succeeded).await;
    eventually(async || fleet.count(OPEN_JOBS).await == 0).await;
    // The effect happens once, or twice if the first job was done before the second was reaped.
    assert!(fleet.effects().await["a"] >= 1);
}

#[tokio::test]
async fn a_right_that_only_a_newer_version_knows_is_left_to_it() {
    let fleet = TestFleet::new().await;
    let newer = fleet.push("a", Behaviour::Effect).await;
    fleet.run_sql("UPDATE job SET permission = 'REPORT_SIGN'").await;
    let known = fleet.push("b", Behaviour::Effect).await;
    fleet.start();
    fleet.until(known, JobState::Succeeded).await;
    assert_eq!(fleet.job(newer).await.unwrap().state, JobState::Waiting);
}

#[tokio::test]
async fn a_job_outlives_a_worker_that_does_not_know_it() {
    let fleet = TestFleet::new().await;
    let id = fleet.push("a", Behaviour::Effect).await;
    fleet.run_sql("UPDATE job SET version = 2").await;
    fleet.start();
    let known = fleet.push("b", Behaviour::Effect).await;
    fleet.until(known, JobState::Succeeded).await;
    let job = fleet.job(id).await.unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Waiting, 0));
}

#[derive(Serialize, Deserialize)]
struct Suspect {}

impl Job for Suspect {
    const QUEUE: Queue = Queue::Upkeep;
    const KIND: &'static str = "test.suspect";
}

static RUNNING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

async fn count(_: Context, _: Suspect) -> Result<(), Failure> {
    MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    tokio::task::yield_now().await;
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

#[tokio::test]
async fn a_suspect_runs_apart_from_other_suspects() {
    let fleet = TestFleet::new().await;
    let tx = fleet.write().await;
    for _ in 0..20 {
        jobs::push(&tx, &Suspect {}).await.unwrap();
    }
    tx.commit().await.unwrap();
    fleet.run_sql("UPDATE job SET is_suspect = true").await;
    fleet.start_with(fleet.handlers().on(count), TestFleet::settings(8, 8));
    eventually(async || fleet.count(OPEN_JOBS).await == 0).await;
    assert_eq!(MOST.load(Ordering::SeqCst), 1);
}

#[derive(Serialize, Deserialize)]
struct Privileged {}

impl Job for Privileged {
    const QUEUE: Queue = Queue::Upkeep;
    const KIND: &'static str = "test.privileged";
    const PERMISSION: Option<Permission> = Some(Permission::ComplianceRun);
}

async fn never(_: Context, _: Privileged) -> Result<(), Failure> {
    panic!("nobody may do this")
}

#[tokio::test]
async fn a_job_whose_actor_lost_the_right_does_nothing_and_is_told_of() {
    let fleet = TestFleet::new().await;
    // No member has this id.
    let tx = fleet.write_as(Actor::User(UserId::new())).await;
    let id = jobs::push(&tx, &Privileged {}).await.unwrap();
    tx.commit().await.unwrap();
    fleet.start_with(fleet.handlers().on(never), TestFleet::settings(4, 0));
    let job = fleet.until(id, JobState::Cancelled).await;
    let reason = "the job's actor no longer has the permission COMPLIANCE_RUN";
    assert_eq!(job.error.as_deref(), Some(reason));
    assert_eq!(fleet.audited("job.denied_at_run").await, 1);
}
