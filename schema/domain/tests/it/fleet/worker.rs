//! Workers, as listed by their last heartbeats.

use domain::fleet::{
    job::Queue,
    worker::{NewWorker, Worker},
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::harness::TestOrg;

fn worker(host: &str) -> NewWorker {
    NewWorker {
        id: Uuid::now_v7(),
        host: host.into(),
        version: "1.2.3".into(),
        queues: vec![Queue::Scan, Queue::Import],
        capacity: 8,
    }
}

/// Moves a worker's last heartbeat into the past.
async fn silence(test: &TestOrg, host: &str, interval: &str) {
    let sql = format!(
        "UPDATE worker SET last_seen_at = now() - interval '{interval}' WHERE host = '{host}'"
    );
    test.db.superuser().await.batch_execute(&sql).await.unwrap();
}

async fn hosts(test: &TestOrg) -> Vec<String> {
    let tx = test.db.fleet().await.unwrap();
    Worker::list(&tx).await.unwrap().into_iter().map(|worker| worker.host).collect()
}

#[tokio::test]
async fn a_worker_is_seen_from_its_start_to_its_end() {
    let test = TestOrg::new().await;
    let new = worker("a");
    let tx = test.db.fleet().await.unwrap();
    Worker::register(&tx, &new).await.unwrap();
    assert!(Worker::heartbeat(&tx, new.id, 3, true).await.unwrap());
    let [seen] = &Worker::list(&tx).await.unwrap()[..] else { panic!("not one") };
    assert_eq!((&seen.id, &seen.host), (&new.id.to_string(), &new.host));
    assert_eq!((&seen.queues, seen.capacity, seen.running), (&new.queues, 8, 3));
    assert!(seen.is_draining && seen.version == "1.2.3" && seen.started_at <= seen.last_seen_at);
    Worker::deregister(&tx, new.id).await.unwrap();
    assert!(Worker::list(&tx).await.unwrap().is_empty());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn who_is_silent_is_not_shown_and_then_forgotten() {
    let test = TestOrg::new().await;
    let (quiet, gone) = (worker("quiet"), worker("gone"));
    let tx = test.db.fleet().await.unwrap();
    for new in [&worker("here"), &quiet, &gone] {
        Worker::register(&tx, new).await.unwrap();
    }
    tx.commit().await.unwrap();
    silence(&test, "quiet", "61 seconds").await;
    silence(&test, "gone", "61 minutes").await;
    assert_eq!(hosts(&test).await, ["here"]);
    let tx = test.db.fleet().await.unwrap();
    assert_eq!(Worker::delete_stale(&tx).await.unwrap(), 1);
    assert!(Worker::heartbeat(&tx, quiet.id, 0, false).await.unwrap(), "it was only quiet");
    assert!(!Worker::heartbeat(&tx, gone.id, 0, false).await.unwrap(), "it must register again");
    Worker::register(&tx, &gone).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(hosts(&test).await, ["quiet", "here", "gone"]);
}

#[tokio::test]
async fn a_queue_of_a_newer_version_hides_no_worker() {
    let test = TestOrg::new().await;
    let tx = test.db.fleet().await.unwrap();
    Worker::register(&tx, &worker("new")).await.unwrap();
    tx.exec("UPDATE worker SET queues = '{FROM_THE_FUTURE,SCAN}'", &[]).await.unwrap();
    assert_eq!(Worker::list(&tx).await.unwrap()[0].queues, [Queue::Scan]);
}

#[tokio::test]
async fn an_organization_sees_no_worker() {
    let test = TestOrg::new().await;
    let tx = test.db.read(test.org).await.unwrap();
    assert!(tx.all::<Row>("SELECT id FROM worker", &[]).await.is_err());
}
