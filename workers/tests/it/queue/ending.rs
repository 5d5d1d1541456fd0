//! Ends of jobs and of their workers.

use std::time::Duration;

use domain::fleet::{job::JobState, worker::Worker};

use crate::harness::{Behaviour, OPEN_JOBS, TestFleet, TestJob, eventually};

#[tokio::test]
async fn a_job_exists_if_and_only_if_its_change_does() {
    let fleet = TestFleet::new().await;
    let tx = fleet.write().await;
    let job = TestJob { name: "never".to_owned(), does: Behaviour::Effect };
    let never = jobs::push(&tx, &job).await.unwrap();
    tx.rollback().await.unwrap();
    let id = fleet.push("a", Behaviour::Effect).await;
    fleet.start();
    fleet.until(id, JobState::Succeeded).await;
    assert!(fleet.job(never).await.is_none());
    assert_eq!(fleet.log.started(), ["a"]);
}

#[tokio::test]
async fn a_done_job_is_history() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let id = fleet.push("a", Behaviour::Effect).await;
    let job = fleet.until(id, JobState::Succeeded).await;
    assert_eq!((job.kind.as_str(), job.attempt), ("test.drill", 1));
    assert!(job.finished_at.unwrap() >= job.started_at.unwrap());
    assert_eq!(fleet.count(OPEN_JOBS).await, 0);
}

#[tokio::test]
async fn a_stop_lets_running_jobs_finish_and_gives_the_others_back() {
    let fleet = TestFleet::new().await;
    let running = fleet.push("running", Behaviour::Wait).await;
    let stop = fleet.start_with(fleet.handlers(), TestFleet::settings(1, 8));
    fleet.log.until_started(1).await;
    let waiting = fleet.push("waiting", Behaviour::Effect).await;
    eventually(async || fleet.job(waiting).await.unwrap().state == JobState::Running).await;
    stop.cancel();
    let back = fleet.until(waiting, JobState::Waiting).await;
    assert_eq!(back.attempt, 0);
    fleet.log.permits.add_permits(1);
    fleet.stop_all().await;
    assert_eq!(fleet.job(running).await.unwrap().state, JobState::Succeeded);
    assert_eq!(fleet.log.started(), ["running"]);
}

#[tokio::test]
async fn a_stop_gives_back_what_does_not_finish_in_time() {
    let fleet = TestFleet::new().await;
    let id = fleet.push("a", Behaviour::Hang).await;
    let mut settings = TestFleet::settings(4, 0);
    settings.drain_timeout = Duration::from_millis(50);
    fleet.start_with(fleet.handlers(), settings);
    fleet.log.until_started(1).await;
    fleet.stop_all().await;
    let job = fleet.job(id).await.unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Waiting, 0));
}

#[tokio::test]
async fn a_running_job_that_is_cancelled_stops() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let id = fleet.push("a", Behaviour::Hang).await;
    fleet.log.until_started(1).await;
    fleet.run_sql("UPDATE job SET is_cancelling = true").await;
    let job = fleet.until(id, JobState::Cancelled).await;
    assert_eq!(job.error.as_deref(), Some("cancelled while the job was running"));
}

#[tokio::test]
async fn a_worker_is_known_while_it_is_there() {
    let fleet = TestFleet::new().await;
    let workers = async || {
        let tx = fleet.db.fleet().await.unwrap();
        let workers = Worker::list(&tx).await.unwrap();
        tx.commit().await.unwrap();
        workers
    };
    fleet.start();
    eventually(async || workers().await.len() == 1).await;
    assert_eq!(workers().await[0].capacity, 4 * 3, "four of each queue");
    fleet.stop_all().await;
    assert!(workers().await.is_empty());
}
