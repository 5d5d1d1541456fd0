//! The part `kill`: worker processes are killed at random times, one after the other, while jobs are pushed and
//! executed.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    bench::{Concurrency, Hints, QueueBench, Worker, stop},
    ledger::{self, Ledger},
};
use crate::{
    measurement::{Measurement, number},
    random::Random,
    report::progress,
};

const PROCESSES: usize = 4;
const CONCURRENCY: Concurrency = Concurrency { concurrency: 8, prefetch: 8 };
/// Range of the interval between two kills.
const KILL_INTERVAL: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(1));
/// Duration of the longest jobs.
const MAX_DURATION: Duration = Duration::from_secs(3);
/// Number of jobs pushed between two kills.
const JOBS: usize = 10;
const DONE: &str = "SELECT count(DISTINCT id) FROM job_history WHERE outcome = 'SUCCEEDED'";
const COMPLETION_TIMEOUT: Duration = Duration::from_mins(15);

/// Killed workers, and the times of their kills by the clock of Postgres.
#[derive(Default)]
pub(crate) struct KilledWorkers {
    workers: Vec<Uuid>,
    at: Vec<DateTime<Utc>>,
}

impl KilledWorkers {
    /// Kills a worker process with SIGKILL, and records the worker's id and the time.
    pub(crate) async fn kill(&mut self, ledger: &Ledger, worker: Worker) -> Result<()> {
        self.at.push(ledger.now().await?);
        self.workers.push(worker.id);
        worker.child.kill()
    }

    /// Adds two latencies of the jobs that killed workers were executing: from the kill until the job was reaped (made
    /// claimable again), and until the job started again. `when` is the prefix of the figures' labels.
    pub(crate) async fn takeovers(
        &self,
        ledger: &Ledger,
        measurement: &mut Measurement,
        when: &str,
    ) -> Result<()> {
        let after = |what: &str, fences: &str| {
            format!(
                "SELECT extract(epoch FROM next.at - killed.at)
                 FROM unnest($1::uuid[], $2::timestamptz[]) AS killed (worker, at)
                 JOIN drill_event AS start ON start.what = 'started' AND start.worker = killed.worker
                 JOIN drill_event AS next ON next.what = '{what}' AND next.id = start.id AND next.fence = start.fence + {fences}
                 WHERE next.at > killed.at"
            )
        };
        for (name, what, fences, target) in [
            ("kill to reap", "reaped", "0", "≤ 16"),
            ("kill to next start", "started", "1", "≤ 20"),
        ] {
            let (spread, count) =
                ledger.spread(&after(what, fences), &[&self.workers, &self.at]).await?;
            measurement.figure(format!("{when}{name}: jobs"), number(count), "");
            for (percentile, value) in ["p50", "p99", "max"].into_iter().zip(spread) {
                measurement.figure_with_target(
                    format!("{when}{name}: {percentile}"),
                    value,
                    "s",
                    target,
                );
            }
        }
        Ok(())
    }
}

/// Runs the part: a sequence of kills under light load, then a single kill under full load.
pub(crate) async fn run(bench: &QueueBench) -> Result<Measurement> {
    let kills = bench.either(200, 10);
    let mut random = Random::new(bench.seed);
    let mut measurement = Measurement::new(
        "kill",
        format!(
            "{kills} times, one of {PROCESSES} processes ({CONCURRENCY}) is killed (SIGKILL), {} to {} ms apart, and replaced immediately. Jobs take 0 to {} s \
             and insert a row; seed {}. \
             Busy: one of two processes is killed while the backlog exceeds their capacity.",
            KILL_INTERVAL.0.as_millis(),
            KILL_INTERVAL.1.as_millis(),
            MAX_DURATION.as_secs(),
            bench.seed
        ),
    );
    bench.ledger.clear().await?;
    bench.ledger.start_recording().await?;
    let mut fleet = bench.fleet(PROCESSES, CONCURRENCY).await?;
    let (mut killed, mut pushed) = (KilledWorkers::default(), 0);
    for kill in 1..=kills {
        let duration = random.between(Duration::ZERO, MAX_DURATION);
        let wait = random.between(KILL_INTERVAL.0, KILL_INTERVAL.1);
        let (push, ()) = tokio::join!(
            bench.push("effect", JOBS, JOBS.div_ceil(2), u64::try_from(duration.as_millis())?),
            tokio::time::sleep(wait)
        );
        push?;
        pushed += i64::try_from(JOBS)?;
        let victim = fleet.swap_remove(random.below(fleet.len()));
        killed.kill(&bench.ledger, victim).await?;
        fleet.push(bench.work(CONCURRENCY, Hints::Redis).await?);
        if kill % 20 == 0 {
            progress(&format!("queue: {kill} of {kills} kills done"));
        }
    }
    bench.ledger.wait(ledger::LIVE, COMPLETION_TIMEOUT).await?;
    stop(fleet).await?;
    let buried = bench.ledger.count("SELECT count(*) FROM job WHERE state = 'BURIED'").await?;
    measurement.check("jobs buried", buried, 0);
    bench.ledger.audit(&mut measurement, pushed).await?;
    killed.takeovers(&bench.ledger, &mut measurement, "").await?;
    busy(bench, &mut measurement).await?;
    Ok(measurement)
}

/// Kills one process while the backlog exceeds the workers' capacity. The jobs that the killed process had claimed must
/// not wait until the whole backlog is drained.
async fn busy(bench: &QueueBench, measurement: &mut Measurement) -> Result<()> {
    const PROCESSES: usize = 2;
    const MILLIS: u64 = 500;
    const JOBS: usize = 1500;
    bench.ledger.clear().await?;
    bench.ledger.start_recording().await?;
    bench.push("effect", JOBS, JOBS, MILLIS).await?;
    let mut fleet = bench.fleet(PROCESSES, CONCURRENCY).await?;
    tokio::time::sleep(MAX_DURATION).await;
    let mut killed = KilledWorkers::default();
    killed.kill(&bench.ledger, fleet.swap_remove(0)).await?;
    fleet.push(bench.work(CONCURRENCY, Hints::Redis).await?);
    bench.ledger.wait(ledger::LIVE, COMPLETION_TIMEOUT).await?;
    let idle_at = bench.ledger.now().await? - killed.at[0];
    stop(fleet).await?;
    measurement.figure("busy: kill to empty queue", idle_at.as_seconds_f64(), "s");
    let lost = JOBS - usize::try_from(bench.ledger.count(DONE).await?)?;
    measurement.check("busy: jobs lost", i64::try_from(lost)?, 0);
    killed.takeovers(&bench.ledger, measurement, "busy: ").await
}
