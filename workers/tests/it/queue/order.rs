//! Order of jobs, and merging of jobs with the same key.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{entity::JobId, fleet::job::JobState};
use jobs::{Push, push_all};

use crate::harness::{Behaviour, TestFleet, TestJob};

fn effect(name: &str) -> TestJob {
    TestJob { name: name.to_owned(), does: Behaviour::Effect }
}

/// Returns the current time by Postgres' clock, which decides.
async fn now(fleet: &TestFleet) -> DateTime<Utc> {
    fleet.db.superuser().await.query_one("SELECT now()", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_small_batch_overtakes_the_tail_of_a_large_one() {
    let fleet = TestFleet::new().await;
    let tx = fleet.write().await;
    let large: Vec<TestJob> = (0..100).map(|_| effect("large")).collect();
    push_all(&tx, &large).await.unwrap();
    push_all(&tx, &[effect("small"), effect("small")]).await.unwrap();
    tx.commit().await.unwrap();
    fleet.start_with(fleet.handlers(), TestFleet::settings(1, 0));
    fleet.log.until_started(102).await;
    let last = fleet.log.started().iter().rposition(|name| name == "small").unwrap();
    // Both jobs have the same priority as the first eight of the large batch.
    assert!(last < 10, "{last}");
}

#[tokio::test]
async fn jobs_of_one_key_are_one_while_they_wait() {
    let fleet = TestFleet::new().await;
    let later = now(&fleet).await + TimeDelta::hours(1);
    let tx = fleet.write().await;
    let first = Push::new(&effect("a")).key("k").run_at(later).send(&tx).await.unwrap();
    let second = Push::new(&effect("b")).key("k").send(&tx).await.unwrap();
    let other = Push::new(&effect("c")).key("other").send(&tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(first, second);
    assert_ne!(first, other);
    // The earlier time counts.
    assert_eq!(fleet.job(first).await.unwrap().state, JobState::Waiting);
    fleet.start();
    fleet.until(first, JobState::Succeeded).await;
    fleet.until(other, JobState::Succeeded).await;
    assert_eq!(fleet.effects().await.len(), 2);
}

async fn push_waiting(fleet: &TestFleet) -> JobId {
    let tx = fleet.write().await;
    let job = TestJob { name: "a".to_owned(), does: Behaviour::Wait };
    let id = Push::new(&job).key("k").send(&tx).await.unwrap();
    tx.commit().await.unwrap();
    id
}

#[tokio::test]
async fn a_key_is_free_again_once_its_job_runs() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let first = push_waiting(&fleet).await;
    fleet.log.until_started(1).await;
    let second = push_waiting(&fleet).await;
    assert_ne!(first, second);
    fleet.log.permits.add_permits(2);
    fleet.until(first, JobState::Succeeded).await;
    fleet.until(second, JobState::Succeeded).await;
}

#[tokio::test]
async fn a_failed_job_gives_way_to_its_newer_twin() {
    let fleet = TestFleet::new().await;
    // A twin is pushed once the job has started, as by a change while it runs.
    fleet
        .run_sql(
            "CREATE FUNCTION twin() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO job (org_id, id, queue, kind, version, payload, state, priority, run_at, max_attempts,
                                  unique_key, actor_kind, queued_at, changed_at)
                 VALUES (NEW.org_id, gen_random_uuid(), NEW.queue, NEW.kind, NEW.version, '{}', 'SCHEDULED', 0,
                         now() + interval '1 hour', 2, NEW.unique_key, 'system', now(), now());
                 RETURN NULL;
             END $$;
             CREATE TRIGGER twin AFTER UPDATE ON job FOR EACH ROW
             WHEN (NEW.state = 'RUNNING' AND OLD.state = 'WAITING') EXECUTE FUNCTION twin()",
        )
        .await;
    let tx = fleet.write().await;
    let fails = TestJob { name: "fails".to_owned(), does: Behaviour::Fail };
    let id = Push::new(&fails).key("k").send(&tx).await.unwrap();
    tx.commit().await.unwrap();
    fleet.start();
    let job = fleet.until(id, JobState::Cancelled).await;
    assert_eq!(job.error.as_deref(), Some("replaced by a newer job of the same key"));
}

#[tokio::test]
async fn a_job_for_later_waits_for_its_time() {
    let fleet = TestFleet::new().await;
    let soon = now(&fleet).await + TimeDelta::milliseconds(400);
    let tx = fleet.write().await;
    let id = Push::new(&effect("a")).run_at(soon).send(&tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(fleet.job(id).await.unwrap().state, JobState::Scheduled);
    fleet.start();
    let job = fleet.until(id, JobState::Succeeded).await;
    assert!(job.started_at.unwrap() >= soon);
}
