//! Worker process with its own job kinds, as in a program that embeds the workers. The load tests measure and kill it.
//!
//! ```text
//! drill work CONCURRENCY PREFETCH          claims jobs until SIGTERM
//! drill push KIND COUNT BATCH [NUMBER]     pushes jobs, BATCH per transaction, and prints the duration in ms
//! drill singles COUNT CLIENTS              pushes jobs, one per transaction, from this number of concurrent clients
//! drill paced PER_SECOND SECONDS           pushes jobs one by one, at this rate
//! ```
//! KIND is one of noop, sleep (NUMBER ms), effect (NUMBER ms; leaves one row in the table `drill_effect`), panic,
//! abort, spin, allocate (NUMBER MiB). `DATABASE_URL` and `REDIS_URL` are required. The organization is the one with
//! the slug `default`.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for measuring")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    Db, Origin, access::organization::Organization, entity::OrganizationId, fleet::job::Queue,
};
use jobs::{
    Failure, Job, Redis,
    event::{Listener, Publisher},
    push, push_all,
    queue::renewal::LeaseConfig,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use workers::{Context, Handlers, QueueSettings, Retention, Settings, WorkerProcess};

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $kind:literal, $attempts:literal, $seconds:literal;)+) => {
        $($(#[$meta])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        struct $name { number: u64, id: uuid::Uuid }
        impl Job for $name {
            const QUEUE: Queue = Queue::Upkeep;
            const KIND: &'static str = $kind;
            const ATTEMPTS: i16 = $attempts;
            const TIMEOUT: Duration = Duration::from_secs($seconds);
        })+

        async fn push_kind(db: &Db, org: OrganizationId, kind: &str, count: usize, batch: usize, number: u64) {
            match kind {
                $($kind => {
                    let mut left = count;
                    while left > 0 {
                        let now = left.min(batch);
                        let jobs: Vec<$name> =
                            (0..now).map(|_| $name { number, id: uuid::Uuid::now_v7() }).collect();
                        let tx = db.write(org, Origin::system()).await.unwrap();
                        push_all(&tx, &jobs).await.unwrap();
                        tx.commit().await.unwrap();
                        left -= now;
                    }
                })+
                other => panic!("there is no kind {other}"),
            }
        }
    };
}

kinds! {
    /// Succeeds immediately, without any work.
    Noop = "noop", 5, 60;
    /// Sleeps for `number` milliseconds, then succeeds.
    Sleep = "sleep", 5, 60;
    /// Sleeps for `number` milliseconds, then inserts a row in the transaction that completes the job.
    Effect = "effect", 100, 60;
    /// Panics in every attempt of the job.
    Panic = "panic", 3, 60;
    /// Aborts the process that runs it.
    Abort = "abort", 3, 60;
    /// Loops forever without an await.
    Spin = "spin", 2, 1;
    /// Allocates `number` MiB of memory, then fails.
    Allocate = "allocate", 3, 60;
}

async fn noop(_: Context, _: Noop) -> Result<(), Failure> {
    Ok(())
}

async fn sleep(_: Context, job: Sleep) -> Result<(), Failure> {
    tokio::time::sleep(Duration::from_millis(job.number)).await;
    Ok(())
}

async fn effect(context: Context, job: Effect) -> Result<(), Failure> {
    tokio::time::sleep(Duration::from_millis(job.number)).await;
    let tx = context.finish().await?;
    tx.exec("INSERT INTO drill_effect (id) VALUES ($1)", &[&job.id]).await?;
    tx.commit().await?;
    Ok(())
}

async fn panic(_: Context, _: Panic) -> Result<(), Failure> {
    panic!("this job kind always panics")
}

async fn abort(_: Context, _: Abort) -> Result<(), Failure> {
    std::process::abort()
}

async fn spin(_: Context, _: Spin) -> Result<(), Failure> {
    loop {
        std::hint::spin_loop();
    }
}

async fn allocate(_: Context, job: Allocate) -> Result<(), Failure> {
    let memory = vec![1_u8; usize::try_from(job.number).unwrap() << 20];
    Err(Failure::retry(format!("took {} bytes", std::hint::black_box(&memory).len())))
}

async fn work(db: Db, listener: Listener, concurrency: usize, prefetch: usize) {
    let handlers =
        Handlers::new().on(noop).on(sleep).on(effect).on(panic).on(abort).on(spin).on(allocate);
    let settings = Settings {
        queues: vec![(Queue::Upkeep, QueueSettings { concurrency, prefetch })],
        leases: LeaseConfig::default(),
        drain_timeout: Duration::from_secs(30),
        maintenance_interval: Duration::from_secs(1),
        retention: Retention { history_days: 30, audit_days: 365 },
        version: "drill".to_owned(),
        host: "drill".to_owned(),
    };
    #[expect(clippy::disallowed_methods, reason = "an edge: below it, time comes in")]
    let clock = Arc::new(chrono::Utc::now);
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            let kind = tokio::signal::unix::SignalKind::terminate();
            tokio::signal::unix::signal(kind).unwrap().recv().await;
            stop.cancel();
        }
    });
    if let Err(error) =
        WorkerProcess::new(db, listener, handlers, workers::periodic_tasks(), clock, settings)
            .run(stop)
            .await
    {
        println!("{error}");
        // Exit here, because dropping the runtime would wait for the job that does not stop.
        std::process::exit(workers::EXIT_STUCK.into());
    }
}

async fn singles(db: &Db, org: OrganizationId, count: usize, clients: usize) {
    let mut pushing = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let db = db.clone();
        pushing.spawn(async move {
            for _ in 0..count / clients {
                push_one(&db, org).await;
            }
        });
    }
    pushing.join_all().await;
}

async fn paced(db: &Db, org: OrganizationId, per_second: u32, seconds: u32) {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
    for _ in 0..per_second * seconds {
        tick.tick().await;
        push_one(db, org).await;
    }
}

async fn push_one(db: &Db, org: OrganizationId) {
    let tx = db.write(org, Origin::system()).await.unwrap();
    push(&tx, &Noop { number: 0, id: uuid::Uuid::now_v7() }).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text = |index: usize| arguments.get(index).map_or("", String::as_str);
    let number = |index: usize| text(index).parse::<usize>().unwrap_or_default();
    let redis_url = std::env::var("REDIS_URL").unwrap();
    let redis = Redis::open(&redis_url).unwrap();
    let (publisher, publishing) = Publisher::new(redis.clone());
    tokio::spawn(publishing);
    let db = Db::new(&std::env::var("DATABASE_URL").unwrap(), 16, "drill").unwrap();
    let db = db.publishing(move |events| publisher.publish(events));
    if text(0) == "work" {
        let (listener, listening) = Listener::new(&redis_url, redis).unwrap();
        tokio::spawn(listening);
        return work(db, listener, number(1), number(2)).await;
    }
    let tx = db.auth(Origin::system()).await.unwrap();
    let org = Organization::find_by_slug(&tx, "default").await.unwrap().unwrap().id;
    tx.commit().await.unwrap();
    // A push ends after a short time. Its hint must not be sent before the connection to Redis is ready.
    let _redis_error = redis.ready(Duration::from_secs(1)).await;
    let started = Instant::now();
    match text(0) {
        "push" => push_kind(&db, org, text(1), number(2), number(3), number(4) as u64).await,
        "singles" => singles(&db, org, number(1), number(2)).await,
        "paced" => {
            let count = |index| u32::try_from(number(index)).unwrap();
            paced(&db, org, count(1), count(2)).await;
        }
        other => panic!("there is no command {other}"),
    }
    println!("{}", started.elapsed().as_millis());
    // The publisher may delay the last hints by 5 ms.
    tokio::time::sleep(Duration::from_millis(50)).await;
}
