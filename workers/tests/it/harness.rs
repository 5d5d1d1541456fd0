//! Test harness: a database, an organization, a table for effects, and worker processes that run the jobs of these
//! tests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Actor, Db, Origin, Tx,
    access::organization::Organization,
    entity::{JobId, OrganizationId},
    fleet::job::{Job as Row, JobState, Queue},
    testing::TestDb,
};
use jobs::{Failure, Job, event::Listener, queue::renewal::LeaseConfig};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use workers::{Context, Handlers, QueueSettings, Retention, Settings, WorkerProcess};

/// Leases as short as a loaded machine can renew.
pub(crate) const LEASES: LeaseConfig = LeaseConfig {
    lease: Duration::from_secs(2),
    renew_interval: Duration::from_millis(300),
    grace: Duration::from_mins(1),
};

/// Query for the jobs in the queue, except the daily verification of postures, which is always scheduled.
pub(crate) const OPEN_JOBS: &str = "SELECT id FROM job WHERE kind <> 'scan.verify'";

/// A job with a behaviour that the test chooses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TestJob {
    pub(crate) name: String,
    pub(crate) does: Behaviour,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Behaviour {
    /// Writes the effect in the transaction that completes the job.
    Effect,
    /// Waits for a permit of [`Log::permits`], then writes the effect.
    Wait,
    Fail,
    FailOnce,
    Abort,
    Panic,
    Hang,
    SnoozeTwice,
}

impl Job for TestJob {
    const QUEUE: Queue = Queue::Upkeep;
    const KIND: &'static str = "test.drill";
    const ATTEMPTS: i16 = 2;
    const TIMEOUT: Duration = Duration::from_secs(30);
}

/// Record of the handlers' starts and ends, and permits for jobs that wait.
#[derive(Clone)]
pub(crate) struct Log {
    started: Arc<Mutex<Vec<String>>>,
    ended: Arc<Mutex<Vec<String>>>,
    pub(crate) permits: Arc<Semaphore>,
}

impl Log {
    pub(crate) fn started(&self) -> Vec<String> {
        self.started.lock().unwrap().clone()
    }

    /// Returns the names of the jobs with a handler that has ended, finished or stopped.
    pub(crate) fn ended(&self) -> Vec<String> {
        self.ended.lock().unwrap().clone()
    }

    pub(crate) async fn until_started(&self, count: usize) {
        eventually(async || self.started().len() >= count).await;
    }
}

/// A test's own database, and the worker processes that claim jobs from it.
pub(crate) struct TestFleet {
    pub(crate) db: TestDb,
    pub(crate) org: OrganizationId,
    pub(crate) log: Log,
    now: Arc<Mutex<DateTime<Utc>>>,
    running: Mutex<Vec<(CancellationToken, JoinHandle<()>)>>,
}

pub(crate) fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

pub(crate) async fn organization(db: &Db, slug: &str) -> OrganizationId {
    let tx = db.auth(Origin::system()).await.unwrap();
    let organization = Organization::create(&tx, slug, slug, false, at()).await.unwrap();
    tx.commit().await.unwrap();
    organization.id
}

impl TestFleet {
    pub(crate) async fn new() -> Self {
        let db = TestDb::new().await;
        let org = organization(&db, "acme").await;
        let superuser = db.superuser().await;
        superuser
            .batch_execute("CREATE TABLE effect (name text); GRANT ALL ON effect TO sentryops_app")
            .await
            .unwrap();
        let log = Log {
            started: Arc::default(),
            ended: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
        };
        Self { db, org, log, now: Arc::new(Mutex::new(at())), running: Mutex::default() }
    }

    pub(crate) async fn write(&self) -> Tx {
        self.db.write(self.org, Origin::system()).await.unwrap()
    }

    pub(crate) async fn write_as(&self, actor: Actor) -> Tx {
        let origin = Origin { actor, source_ip: None, request_id: None };
        self.db.write(self.org, origin).await.unwrap()
    }

    /// Runs SQL as superuser, for changes that the product never makes.
    pub(crate) async fn run_sql(&self, sql: &str) {
        self.db.superuser().await.batch_execute(sql).await.unwrap();
    }

    /// Advances the clock of the handlers.
    pub(crate) fn advance_clock(&self, time: TimeDelta) {
        *self.now.lock().unwrap() += time;
    }

    /// Returns the number of rows that the query finds.
    pub(crate) async fn count(&self, sql: &str) -> usize {
        self.db.superuser().await.query(sql, &[]).await.unwrap().len()
    }

    pub(crate) async fn push(&self, name: &str, does: Behaviour) -> JobId {
        let tx = self.write().await;
        let job = TestJob { name: name.to_owned(), does };
        let id = jobs::push(&tx, &job).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub(crate) fn settings(concurrency: usize, prefetch: usize) -> Settings {
        Settings {
            queues: [Queue::Upkeep, Queue::Scan, Queue::Import]
                .map(|queue| (queue, QueueSettings { concurrency, prefetch }))
                .to_vec(),
            leases: LEASES,
            drain_timeout: Duration::from_secs(10),
            maintenance_interval: Duration::from_millis(100),
            retention: Retention { history_days: 30, audit_days: 365 },
            version: "test".to_owned(),
            host: "test".to_owned(),
        }
    }

    pub(crate) fn handlers(&self) -> Handlers {
        let log = self.log.clone();
        workers::handlers().on(move |context, job| do_test_job(log.clone(), context, job))
    }

    /// Starts a worker process, which runs until this harness is dropped.
    pub(crate) fn start(&self) -> CancellationToken {
        self.start_with(self.handlers(), Self::settings(4, 8))
    }

    pub(crate) fn start_with(&self, handlers: Handlers, settings: Settings) -> CancellationToken {
        let now = Arc::clone(&self.now);
        let clock = Arc::new(move || *now.lock().unwrap());
        // The listener receives no hints: polling must suffice.
        let fleet = WorkerProcess::new(
            self.db.db.clone(),
            Listener::disconnected(),
            handlers,
            workers::periodic_tasks(),
            clock,
            settings,
        );
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let stop = stop.clone();
            async move { fleet.run(stop).await.unwrap() }
        });
        self.running.lock().unwrap().push((stop.clone(), running));
        stop
    }

    /// Stops the first process almost as SIGKILL does: the process renews no lease and writes no outcome any more. A
    /// handler that is still running cannot complete its job, because its fencing token is outdated.
    pub(crate) fn kill_first(&self) {
        let (_, running) = self.running.lock().unwrap().remove(0);
        running.abort();
    }

    pub(crate) async fn stop_all(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap());
        for (stop, running) in running {
            stop.cancel();
            running.await.unwrap();
        }
    }

    pub(crate) async fn job(&self, id: JobId) -> Option<Row> {
        let tx = self.db.read(self.org).await.unwrap();
        let job = Row::find(&tx, id).await.unwrap();
        tx.commit().await.unwrap();
        job
    }

    /// Waits until the job is in this state, and returns it.
    pub(crate) async fn until(&self, id: JobId, state: JobState) -> Row {
        eventually(async || self.job(id).await.is_some_and(|job| job.state == state)).await;
        self.job(id).await.unwrap()
    }

    /// Returns the number of times that each effect happened, by name.
    pub(crate) async fn effects(&self) -> HashMap<String, i64> {
        let tx = self.db.read(self.org).await.unwrap();
        let sql = "SELECT name, count(*) AS times FROM effect GROUP BY name";
        let rows: Vec<tokio_postgres::Row> = tx.all(sql, &[]).await.unwrap();
        tx.commit().await.unwrap();
        rows.iter().map(|row| (row.get("name"), row.get("times"))).collect()
    }

    pub(crate) async fn audited(&self, action: &str) -> usize {
        self.count(&format!("SELECT id FROM audit_entry WHERE action = '{action}'")).await
    }
}

/// Records the end of a handler when it is dropped.
struct RecordEnd(Log, String);

impl Drop for RecordEnd {
    fn drop(&mut self) {
        self.0.ended.lock().unwrap().push(self.1.clone());
    }
}

async fn do_test_job(log: Log, context: Context, job: TestJob) -> Result<(), Failure> {
    log.started.lock().unwrap().push(job.name.clone());
    let _ends = RecordEnd(log.clone(), job.name.clone());
    match job.does {
        Behaviour::Wait => log.permits.acquire().await.unwrap().forget(),
        Behaviour::Fail => return Err(Failure::retry("it always fails")),
        Behaviour::FailOnce if context.attempt() == 1 => return Err(Failure::retry("once")),
        Behaviour::Abort => return Err(Failure::abort("it is hopeless")),
        Behaviour::Panic => panic!("it panics"),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::SnoozeTwice if log.started().len() < 3 => {
            return Err(Failure::snooze("not now", Duration::ZERO));
        }
        Behaviour::Effect | Behaviour::FailOnce | Behaviour::SnoozeTwice => {}
    }
    let tx = context.finish().await?;
    tx.exec("INSERT INTO effect (name) VALUES ($1)", &[&job.name]).await?;
    tx.commit().await?;
    Ok(())
}

/// Waits until a condition is true, at most 40 s, because the machine may be loaded.
pub(crate) async fn eventually(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), waiting).await.expect("it happens in the end");
}
