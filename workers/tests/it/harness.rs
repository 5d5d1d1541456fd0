//! What the tests start from: a database, an organization, a table for effects, and fleets that do jobs of these tests.

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
use workers::{Context, Fleet, Handlers, QueueSettings, Settings};

/// As short as a loaded machine keeps.
pub(crate) const LEASES: LeaseConfig = LeaseConfig {
    lease: Duration::from_secs(2),
    every: Duration::from_millis(300),
    grace: Duration::from_mins(1),
};

/// What there is to do: the daily comparison of postures is always ahead.
pub(crate) const TO_DO: &str = "SELECT id FROM job WHERE kind <> 'scan.verify'";

/// A job that does what it is told to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TestJob {
    pub(crate) name: String,
    pub(crate) does: Does,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Does {
    /// Writes its effect in the transaction that ends it.
    Effect,
    /// Waits for the test's leave, then as above.
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

/// What happens while fleets run, and what the test lets happen.
#[derive(Clone)]
pub(crate) struct Log {
    started: Arc<Mutex<Vec<String>>>,
    ended: Arc<Mutex<Vec<String>>>,
    pub(crate) leave: Arc<Semaphore>,
}

impl Log {
    pub(crate) fn started(&self) -> Vec<String> {
        self.started.lock().unwrap().clone()
    }

    /// Whose work is over, done or stopped.
    pub(crate) fn ended(&self) -> Vec<String> {
        self.ended.lock().unwrap().clone()
    }

    pub(crate) async fn until_started(&self, count: usize) {
        eventually(async || self.started().len() >= count).await;
    }
}

/// A database of its own, and the processes that take jobs from it.
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
            leave: Arc::new(Semaphore::new(0)),
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

    /// As superuser: what no code of ours does.
    pub(crate) async fn meddle(&self, sql: &str) {
        self.db.superuser().await.batch_execute(sql).await.unwrap();
    }

    /// Lets time pass for handlers.
    pub(crate) fn tick(&self, time: TimeDelta) {
        *self.now.lock().unwrap() += time;
    }

    /// How many rows it finds.
    pub(crate) async fn count(&self, sql: &str) -> usize {
        self.db.superuser().await.query(sql, &[]).await.unwrap().len()
    }

    pub(crate) async fn push(&self, name: &str, does: Does) -> JobId {
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
            drain: Duration::from_secs(10),
            tend_every: Duration::from_millis(100),
            history_days: 30,
            version: "test".to_owned(),
            host: "test".to_owned(),
        }
    }

    pub(crate) fn handlers(&self) -> Handlers {
        let log = self.log.clone();
        workers::handlers().on(move |context, job| do_test_job(log.clone(), context, job))
    }

    /// A process of the fleet; ends with it.
    pub(crate) fn start(&self) -> CancellationToken {
        self.start_with(self.handlers(), Self::settings(4, 8))
    }

    pub(crate) fn start_with(&self, handlers: Handlers, settings: Settings) -> CancellationToken {
        let now = Arc::clone(&self.now);
        let clock = Arc::new(move || *now.lock().unwrap());
        // Hears no hints: the poll must do.
        let fleet = Fleet::new(
            self.db.db.clone(),
            Listener::deaf(),
            handlers,
            workers::duties(),
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

    /// Nearly as SIGKILL: nothing is renewed or told any more; a handler that goes on is refused by its fence.
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

    /// Waits until the job is in that state.
    pub(crate) async fn until(&self, id: JobId, state: JobState) -> Row {
        eventually(async || self.job(id).await.is_some_and(|job| job.state == state)).await;
        self.job(id).await.unwrap()
    }

    /// How often each effect happened.
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

/// Tells when a handler's work is dropped.
struct Ends(Log, String);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.ended.lock().unwrap().push(self.1.clone());
    }
}

async fn do_test_job(log: Log, context: Context, job: TestJob) -> Result<(), Failure> {
    log.started.lock().unwrap().push(job.name.clone());
    let _ends = Ends(log.clone(), job.name.clone());
    match job.does {
        Does::Wait => log.leave.acquire().await.unwrap().forget(),
        Does::Fail => return Err(Failure::retry("it always fails")),
        Does::FailOnce if context.attempt() == 1 => return Err(Failure::retry("once")),
        Does::Abort => return Err(Failure::abort("it is hopeless")),
        Does::Panic => panic!("it panics"),
        Does::Hang => std::future::pending().await,
        Does::SnoozeTwice if log.started().len() < 3 => {
            return Err(Failure::snooze("not now", Duration::ZERO));
        }
        Does::Effect | Does::FailOnce | Does::SnoozeTwice => {}
    }
    let tx = context.finish().await?;
    tx.exec("INSERT INTO effect (name) VALUES ($1)", &[&job.name]).await?;
    tx.commit().await?;
    Ok(())
}

/// Waits for a condition, for as long as a loaded machine may need.
pub(crate) async fn eventually(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), waiting).await.expect("it happens in the end");
}
