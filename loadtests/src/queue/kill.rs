//! Worker processes killed at random moments, one after the other, while jobs run and are pushed.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    bench::{Hints, Pace, QueueBench, Worker, stop},
    ledger::{self, Ledger},
};
use crate::{
    measurement::{Measurement, number},
    random::Random,
    report::progress,
};

const PROCESSES: usize = 4;
const PACE: Pace = Pace { concurrency: 8, prefetch: 8 };
/// Between two kills.
const APART: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(1));
/// The longest job.
const LONGEST: Duration = Duration::from_secs(3);
/// Pushed between two kills.
const JOBS: usize = 10;
const DONE: &str = "SELECT count(DISTINCT id) FROM job_history WHERE outcome = 'SUCCEEDED'";
const PATIENCE: Duration = Duration::from_mins(15);

/// Who was killed, and when by Postgres' clock.
#[derive(Default)]
pub(crate) struct Killed {
    workers: Vec<Uuid>,
    at: Vec<DateTime<Utc>>,
}

impl Killed {
    /// Kills a worker process.
    pub(crate) async fn kill(&mut self, ledger: &Ledger, worker: Worker) -> Result<()> {
        self.at.push(ledger.now().await?);
        self.workers.push(worker.id);
        worker.child.kill()
    }

    /// From a kill to the next start of each job that the killed process held.
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
            ("kill to taken back", "reaped", "0", "≤ 16"),
            ("kill to next start", "started", "1", "≤ 20"),
        ] {
            let (spread, count) =
                ledger.spread(&after(what, fences), &[&self.workers, &self.at]).await?;
            measurement.figure(format!("{when}{name}: jobs"), number(count), "");
            for (percentile, value) in ["p50", "p99", "max"].into_iter().zip(spread) {
                measurement.aimed(format!("{when}{name}: {percentile}"), value, "s", target);
            }
        }
        Ok(())
    }
}

/// See the module.
pub(crate) async fn run(bench: &QueueBench) -> Result<Measurement> {
    let kills = bench.either(200, 10);
    let mut random = Random::new(bench.seed);
    let mut measurement = Measurement::new(
        "kill",
        format!(
            "{kills} × kill -9 of one of {PROCESSES} processes ({PACE}) every {} to {} ms, restarted at once; jobs of 0 to {} s \
             that leave a row; seed {}. \
             Busy: one kill of two processes that have far more to do.",
            APART.0.as_millis(),
            APART.1.as_millis(),
            LONGEST.as_secs(),
            bench.seed
        ),
    );
    bench.ledger.clear().await?;
    bench.ledger.watch().await?;
    let mut fleet = bench.fleet(PROCESSES, PACE).await?;
    let (mut killed, mut pushed) = (Killed::default(), 0);
    for kill in 1..=kills {
        let lasts = random.between(Duration::ZERO, LONGEST);
        let wait = random.between(APART.0, APART.1);
        let (push, ()) = tokio::join!(
            bench.push("effect", JOBS, JOBS.div_ceil(2), u64::try_from(lasts.as_millis())?),
            tokio::time::sleep(wait)
        );
        push?;
        pushed += i64::try_from(JOBS)?;
        let victim = fleet.swap_remove(random.below(fleet.len()));
        killed.kill(&bench.ledger, victim).await?;
        fleet.push(bench.work(PACE, Hints::Redis).await?);
        if kill % 20 == 0 {
            progress(&format!("queue: {kill} of {kills} kills"));
        }
    }
    bench.ledger.wait(ledger::LIVE, PATIENCE).await?;
    stop(fleet).await?;
    let buried = bench.ledger.count("SELECT count(*) FROM job WHERE state = 'BURIED'").await?;
    measurement.check("jobs buried", buried, 0);
    bench.ledger.audit(&mut measurement, pushed).await?;
    killed.takeovers(&bench.ledger, &mut measurement, "").await?;
    busy(bench, &mut measurement).await?;
    Ok(measurement)
}

/// One kill while more work waits than there are hands for: what the killed process held must not wait behind all of it.
async fn busy(bench: &QueueBench, measurement: &mut Measurement) -> Result<()> {
    const PROCESSES: usize = 2;
    const MILLIS: u64 = 500;
    const JOBS: usize = 1500;
    bench.ledger.clear().await?;
    bench.ledger.watch().await?;
    bench.push("effect", JOBS, JOBS, MILLIS).await?;
    let mut fleet = bench.fleet(PROCESSES, PACE).await?;
    tokio::time::sleep(LONGEST).await;
    let mut killed = Killed::default();
    killed.kill(&bench.ledger, fleet.swap_remove(0)).await?;
    fleet.push(bench.work(PACE, Hints::Redis).await?);
    bench.ledger.wait(ledger::LIVE, PATIENCE).await?;
    let idle_at = bench.ledger.now().await? - killed.at[0];
    stop(fleet).await?;
    measurement.figure("busy: kill to an empty queue", idle_at.as_seconds_f64(), "s");
    let lost = JOBS - usize::try_from(bench.ledger.count(DONE).await?)?;
    measurement.check("busy: jobs lost", i64::try_from(lost)?, 0);
    killed.takeovers(&bench.ledger, measurement, "busy: ").await
}
