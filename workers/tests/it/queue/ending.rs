//! How jobs and their workers end.

use std::time::Duration;

use domain::fleet::{job::JobState, worker::Worker};

use crate::harness::{Does, Drill, Stage, TO_DO, eventually};

#[tokio::test]
async fn a_job_exists_if_and_only_if_its_change_does() {
    let stage = Stage::new().await;
    let tx = stage.write().await;
    let job = Drill { name: "never".to_owned(), does: Does::Effect };
    let never = jobs::push(&tx, &job).await.unwrap();
    tx.rollback().await.unwrap();
    let id = stage.push("a", Does::Effect).await;
    stage.start();
    stage.until(id, JobState::Succeeded).await;
    assert!(stage.job(never).await.is_none());
    assert_eq!(stage.log.started(), ["a"]);
}

#[tokio::test]
async fn a_done_job_is_history() {
    let stage = Stage::new().await;
    stage.start();
    let id = stage.push("a", Does::Effect).await;
    let job = stage.until(id, JobState::Succeeded).await;
    assert_eq!((job.kind.as_str(), job.attempt), ("test.drill", 1));
    assert!(job.finished_at.unwrap() >= job.started_at.unwrap());
    assert_eq!(stage.count(TO_DO).await, 0);
}

#[tokio::test]
async fn a_stop_lets_running_jobs_finish_and_gives_the_others_back() {
    let stage = Stage::new().await;
    let running = stage.push("running", Does::Wait).await;
    let stop = stage.start_with(stage.handlers(), Stage::settings(1, 8));
    stage.log.until_started(1).await;
    let waiting = stage.push("waiting", Does::Effect).await;
    eventually(async || stage.job(waiting).await.unwrap().state == JobState::Running).await;
    stop.cancel();
    let back = stage.until(waiting, JobState::Waiting).await;
    assert_eq!(back.attempt, 0);
    stage.log.leave.add_permits(1);
    stage.stop_all().await;
    assert_eq!(stage.job(running).await.unwrap().state, JobState::Succeeded);
    assert_eq!(stage.log.started(), ["running"]);
}

#[tokio::test]
async fn a_stop_gives_back_what_does_not_finish_in_time() {
    let stage = Stage::new().await;
    let id = stage.push("a", Does::Hang).await;
    let mut settings = Stage::settings(4, 0);
    settings.drain = Duration::from_millis(50);
    stage.start_with(stage.handlers(), settings);
    stage.log.until_started(1).await;
    stage.stop_all().await;
    let job = stage.job(id).await.unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Waiting, 0));
}

#[tokio::test]
async fn a_running_job_that_is_cancelled_stops() {
    let stage = Stage::new().await;
    stage.start();
    let id = stage.push("a", Does::Hang).await;
    stage.log.until_started(1).await;
    stage.meddle("UPDATE job SET is_cancelling = true").await;
    let job = stage.until(id, JobState::Cancelled).await;
    assert_eq!(job.error.as_deref(), Some("cancelled while it ran"));
}

#[tokio::test]
async fn a_worker_is_known_while_it_is_there() {
    let stage = Stage::new().await;
    let workers = async || {
        let tx = stage.db.fleet().await.unwrap();
        let workers = Worker::list(&tx).await.unwrap();
        tx.commit().await.unwrap();
        workers
    };
    stage.start();
    eventually(async || workers().await.len() == 1).await;
    assert_eq!(workers().await[0].capacity, 4 * 3, "four of each queue");
    stage.stop_all().await;
    assert!(workers().await.is_empty());
}
