//! The parts `redis` and `postgres`: outages under load. Redis is flushed, unresponsive and killed; Postgres is crashed
//! and restarted repeatedly.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{
    bench::{Concurrency, Hints, QueueBench, stop},
    ledger::{self, Ledger},
    rate::{self, SHORT},
    store::{self, Store},
};
use crate::{
    measurement::{Measurement, number},
    random::Random,
    report::progress,
};

const COMPLETION_TIMEOUT: Duration = Duration::from_mins(10);
const RECOVERY_TIMEOUT: Duration = Duration::from_mins(2);
const POLL_EVERY: Duration = Duration::from_millis(5);
/// Delay between the start of a drain and the fault, so that the fault occurs in the middle of the drain.
const FAULT_DELAY: Duration = Duration::from_millis(200);

/// Fault that is injected into Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    Flushed,
    Silent,
    Killed,
}

/// Runs the Redis part. Redis carries only hints, i.e. notifications without content that jobs may be ready. Without
/// Redis, no job may be lost, and a backlog must be drained at nearly the same rate.
pub(crate) async fn redis(bench: &QueueBench) -> Result<Measurement> {
    let count = bench.either(100_000, 20_000);
    let mut measurement = Measurement::new(
        "redis",
        format!(
            "{count} no-op jobs are drained by one process ({SHORT}) while Redis is flushed, stopped (SIGSTOP) and killed."
        ),
    );
    let mut redis = Store::redis(&bench.stores.redis)?;
    let mut normal_rate = 0.0;
    for (name, fault) in [
        ("normal", Fault::Nothing),
        ("flushed", Fault::Flushed),
        ("unresponsive", Fault::Silent),
        ("killed", Fault::Killed),
    ] {
        let meanwhile = async || {
            tokio::time::sleep(FAULT_DELAY).await;
            match fault {
                Fault::Nothing => Ok(()),
                Fault::Flushed => flush(&bench.stores.redis),
                Fault::Silent => redis.signal(Signal::STOP),
                Fault::Killed => redis.crash(Signal::KILL).await,
            }
        };
        let drained = rate::drain(bench, ("noop", 0), count, 1, SHORT, meanwhile).await?;
        match fault {
            Fault::Nothing => normal_rate = drained.rate,
            Fault::Silent => {
                paced(bench, &mut measurement, name).await?;
                redis.signal(Signal::CONT)?;
            }
            Fault::Killed => {
                paced(bench, &mut measurement, name).await?;
                redis.start()?;
            }
            Fault::Flushed => {}
        }
        measurement.figure(format!("{name}: rate"), drained.rate, "jobs/s");
        measurement.figure_with_target(
            format!("{name}: rate relative to normal"),
            drained.rate / normal_rate * 100.0,
            "%",
            "≥ 90",
        );
        measurement.check(format!("{name}: jobs done"), drained.done, i64::try_from(count)?);
    }
    bench.keep_running(redis);
    Ok(measurement)
}

/// Measures the start latency while Redis is unavailable and workers poll.
async fn paced(bench: &QueueBench, measurement: &mut Measurement, name: &str) -> Result<()> {
    bench.ledger.clear().await?;
    let worker = bench.work(SHORT, Hints::Redis).await?;
    bench.drill(&["paced", "100", "5"], Hints::Redis).await?;
    bench.ledger.wait(ledger::LIVE, COMPLETION_TIMEOUT).await?;
    stop(vec![worker]).await?;
    let ([_, p99, _], done) = bench.ledger.spread(rate::START, &[]).await?;
    measurement.figure_with_target(format!("{name}: start p99"), p99, "ms", "≤ 1,100");
    measurement.check(format!("{name}: paced jobs done"), done, 500);
    Ok(())
}

fn flush(url: &str) -> Result<()> {
    let (password, socket) =
        store::redis_address(url).context("the Redis URL is not that of a private Redis")?;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("AUTH {password}\r\nFLUSHALL\r\n").as_bytes())?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"+OK\r\n+OK\r\n", "Redis did not confirm AUTH and FLUSHALL");
    Ok(())
}

/// Runs the Postgres part: crashes under load. This must be the last part, because a restarted Postgres is a child of
/// this process and no longer of `sentryops services`.
pub(crate) async fn postgres(bench: &mut QueueBench) -> Result<Measurement> {
    const PROCESSES: usize = 2;
    const CONCURRENCY: Concurrency = Concurrency { concurrency: 16, prefetch: 32 };
    const MILLIS: u64 = 100;
    const JOBS: usize = 600;
    let restarts = bench.either(20, 3);
    let mut measurement = Measurement::new(
        "postgres",
        format!(
            "{restarts} immediate shutdowns and restarts of Postgres under {PROCESSES} processes ({CONCURRENCY}) with jobs of {MILLIS} ms that insert a \
             row, and under a client that is pushing jobs; seed {}.",
            bench.seed
        ),
    );
    let mut random = Random::new(bench.seed);
    bench.ledger.clear().await?;
    bench.ledger.start_recording().await?;
    let fleet = bench.fleet(PROCESSES, CONCURRENCY).await?;
    let mut postgres = Store::postgres()?;
    let (mut acknowledged, mut recovery_times, mut downtimes) = (0, Vec::new(), Vec::new());
    for restart in 1..=restarts {
        bench.push("effect", JOBS, JOBS / 4, MILLIS).await?;
        acknowledged += i64::try_from(JOBS)?;
        let wait = random.between(Duration::from_millis(200), Duration::from_millis(1500));
        let interrupted_push = bench.push("effect", JOBS, 2, MILLIS);
        let crash = async {
            tokio::time::sleep(wait).await;
            let began = Instant::now();
            postgres.crash(Signal::QUIT).await?;
            postgres.start()?;
            let ledger = reconnect(&bench.stores.admin).await?;
            downtimes.push(began.elapsed().as_secs_f64());
            anyhow::Ok(ledger)
        };
        let (interrupted_push, ledger) = tokio::join!(interrupted_push, crash);
        // The push fails if the crash interrupts it. The number of acknowledged jobs is then unknown, but the triggers
        // have recorded every committed job.
        if interrupted_push.is_ok() {
            acknowledged += i64::try_from(JOBS)?;
        }
        let (ledger, up_at) = ledger?;
        let first = "SELECT extract(epoch FROM min(finished_at) - $1)::float8 FROM job_history WHERE finished_at > $1";
        let deadline = Instant::now() + RECOVERY_TIMEOUT;
        let took = loop {
            let took = ledger.number(first, &[&up_at]).await?;
            if took > 0.0 {
                break took;
            }
            ensure!(
                Instant::now() < deadline,
                "no job completed within {} s of the restart",
                RECOVERY_TIMEOUT.as_secs()
            );
            tokio::time::sleep(POLL_EVERY).await;
        };
        recovery_times.push(took);
        bench.ledger = ledger;
        progress(&format!("queue: {restart} of {restarts} restarts done"));
    }
    bench.ledger.wait(ledger::LIVE, COMPLETION_TIMEOUT).await?;
    stop(fleet).await?;
    for (name, mut values, target) in [
        ("Postgres unavailable", downtimes, ""),
        ("restart to first completed job", recovery_times, "≤ 5"),
    ] {
        values.sort_unstable_by(f64::total_cmp);
        for (what, share) in [("median", 50), ("max", 100)] {
            let value = crate::load::percentile(&values, share).unwrap_or_default();
            measurement.figure_with_target(format!("{name}: {what}"), value, "s", target);
        }
    }
    let spent = "SELECT coalesce(sum(attempt - 1), 0)::bigint FROM job_history";
    let spent = bench.ledger.count(spent).await?;
    measurement.figure_with_target("attempts consumed by restarts", number(spent), "", "0");
    let reaped = "SELECT count(*) FROM drill_event WHERE what = 'reaped'";
    measurement.figure("expired leases", number(bench.ledger.count(reaped).await?), "");
    let buried = bench.ledger.count("SELECT count(*) FROM job WHERE state = 'BURIED'").await?;
    measurement.check("jobs buried", buried, 0);
    bench.ledger.audit(&mut measurement, acknowledged).await?;
    bench.keep_running(postgres);
    Ok(measurement)
}

/// Waits until Postgres accepts connections. Returns a new ledger, and the current time by the clock of Postgres.
async fn reconnect(url: &str) -> Result<(Ledger, chrono::DateTime<chrono::Utc>)> {
    let deadline = Instant::now() + RECOVERY_TIMEOUT;
    loop {
        match Ledger::open(url).await {
            Ok(ledger) => {
                let at = ledger.now().await?;
                return Ok((ledger, at));
            }
            Err(error) => {
                ensure!(
                    Instant::now() < deadline,
                    "Postgres did not accept connections within {} s: {error:#}",
                    RECOVERY_TIMEOUT.as_secs()
                );
            }
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}
