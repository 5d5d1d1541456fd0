//! Poison jobs, which panic, abort, never await or allocate memory, executed beside well-behaved jobs.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    bench::{Hints, Pace, QueueBench},
    ledger,
};
use crate::{
    child::Child,
    measurement::{Measurement, number},
};

const PROCESSES: usize = 2;
const PACE: Pace = Pace { concurrency: 16, prefetch: 32 };
/// Poison kinds of the drill: the kind, its parameter, the number of jobs, and the maximum attempts of each.
const POISON: [(&str, u64, usize, i32); 4] =
    [("panic", 0, 3, 3), ("abort", 0, 2, 3), ("spin", 0, 1, 2), ("allocate", 100, 3, 3)];
const PATIENCE: Duration = Duration::from_mins(10);
const REST: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Milliseconds from push to first start, from the recorded events.
const START: &str = "SELECT extract(epoch FROM min(start.at) - min(push.at)) * 1000
    FROM drill_event AS push JOIN drill_event AS start USING (id)
    WHERE push.what = 'pushed' AND start.what = 'started' AND push.kind = 'noop' GROUP BY id";

/// Milliseconds from push to completion.
const DONE: &str = "SELECT extract(epoch FROM finished_at - queued_at) * 1000 FROM job_history WHERE kind = 'noop'";

/// Start and completion latencies in milliseconds: p50, p99 and maximum.
struct Latency {
    start: [f64; 3],
    done: [f64; 3],
}

/// Runs the poison part: well-behaved jobs alone, then beside poison jobs.
pub(crate) async fn run(bench: &QueueBench) -> Result<Measurement> {
    let (usual, poisoned): (u32, u32) = bench.either((30, 120), (10, 60));
    let mut measurement = Measurement::new(
        "poison",
        format!(
            "100 no-op jobs/s for {PROCESSES} processes ({PACE}), which are restarted when they exit: {usual} s alone, then at least \
             {poisoned} s beside jobs that panic, abort, never await and allocate 100 MiB, until these are buried. \
             Start latency is the time from push to first claim."
        ),
    );
    let alone = phase(bench, usual, false, &mut measurement).await?;
    let beside = phase(bench, poisoned, true, &mut measurement).await?;
    for (what, alone, beside) in
        [("start", alone.start, beside.start), ("done", alone.done, beside.done)]
    {
        for ((share, alone), beside) in ["p50", "p99", "max"].into_iter().zip(alone).zip(beside) {
            measurement.figure(format!("alone: {what} {share}"), alone, "ms");
            measurement.figure(format!("beside poison: {what} {share}"), beside, "ms");
            if share == "p99" {
                measurement.figure_with_target(
                    format!("{what} p99 beside poison"),
                    beside / alone,
                    "× alone",
                    "< 2",
                );
            }
        }
    }
    for (kind, _, count, attempts) in POISON {
        let buried = format!(
            "SELECT count(*) FROM job WHERE kind = '{kind}' AND state = 'BURIED' AND attempt = {attempts}"
        );
        let buried = bench.ledger.count(&buried).await?;
        measurement.check(
            format!("{kind}: jobs buried after {attempts} attempts"),
            buried,
            i64::try_from(count)?,
        );
        let starts =
            format!("SELECT count(*) FROM drill_event WHERE kind = '{kind}' AND what = 'started'");
        let starts = bench.ledger.count(&starts).await?;
        measurement.check(
            format!("{kind}: starts"),
            starts,
            i64::try_from(count)? * i64::from(attempts),
        );
    }
    Ok(measurement)
}

/// Pushes no-op jobs at a fixed rate for some seconds, with or without poison jobs; returns their latencies.
async fn phase(
    bench: &QueueBench,
    seconds: u32,
    is_poisoned: bool,
    measurement: &mut Measurement,
) -> Result<Latency> {
    bench.ledger.clear().await?;
    bench.ledger.watch().await?;
    // All processes have registered and are listening, so that their startup is not measured.
    let fleet = bench.fleet(PROCESSES, PACE).await?;
    tokio::time::sleep(REST).await;
    let fleet = fleet.into_iter().map(|worker| worker.child).collect();
    let is_over = Cell::new(false);
    let began = Instant::now();
    let work = async {
        let done = push(bench, seconds, is_poisoned).await;
        is_over.set(true);
        done
    };
    let ((), (fleet, ends)) = tokio::try_join!(work, keep(bench, fleet, &is_over))?;
    // A process may be draining and still execute a job that never ends, so SIGTERM is not enough.
    for worker in fleet {
        worker.kill()?;
    }
    let name = if is_poisoned { "beside poison" } else { "alone" };
    if is_poisoned {
        measurement.figure("processes that exited", f64::from(ends), "");
        measurement.figure(
            "time until all poison jobs were buried",
            began.elapsed().as_secs_f64(),
            "s",
        );
    }
    let good = "SELECT count(*) FROM job_history WHERE kind = 'noop' AND outcome = 'SUCCEEDED'";
    let good = bench.ledger.count(good).await?;
    measurement.check(format!("{name}: well-behaved jobs done"), good, i64::from(100 * seconds));
    let again = "SELECT count(*) FROM job_history WHERE kind = 'noop' AND attempt > 1";
    let again = bench.ledger.count(again).await?;
    measurement.figure(format!("{name}: well-behaved jobs retried"), number(again), "");
    let (start, _) = bench.ledger.spread(START, &[]).await?;
    let (done, _) = bench.ledger.spread(DONE, &[]).await?;
    Ok(Latency { start, done })
}

async fn push(bench: &QueueBench, seconds: u32, is_poisoned: bool) -> Result<()> {
    let seconds = seconds.to_string();
    let paced = ["paced", "100", &seconds];
    let paced = bench.drill(&paced, Hints::Redis);
    let poison = async {
        if is_poisoned {
            for (kind, number, count, _) in POISON {
                bench.push(kind, count, count, number).await?;
            }
        }
        anyhow::Ok(())
    };
    let (paced, poison) = tokio::join!(paced, poison);
    paced?;
    poison?;
    bench.ledger.wait(ledger::LIVE, PATIENCE).await
}

/// Replaces processes that have exited, as a supervisor does, until `is_over`. Returns the processes and the number of
/// exits.
async fn keep(
    bench: &QueueBench,
    mut fleet: Vec<Child>,
    is_over: &Cell<bool>,
) -> Result<(Vec<Child>, u32)> {
    let mut ends = 0;
    while !is_over.get() {
        let mut gone = None;
        for (place, worker) in fleet.iter_mut().enumerate() {
            if !worker.is_running()? {
                gone = Some(place);
            }
        }
        if let Some(place) = gone {
            ends += 1;
            fleet[place] = bench.spawn(PACE, Hints::Redis)?;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok((fleet, ends))
}
