//! The part `poison`: poison jobs, which panic, abort the process, never await or allocate memory, are executed
//! together with well-behaved jobs.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    bench::{Concurrency, Hints, QueueBench},
    ledger,
};
use crate::{
    child::Child,
    measurement::{Measurement, number},
};

const PROCESSES: usize = 2;
const CONCURRENCY: Concurrency = Concurrency { concurrency: 16, prefetch: 32 };
/// Poison jobs of the drill: the kind, the parameter of the kind, the number of jobs, and the maximum attempts of a
/// job.
const POISON: [(&str, u64, usize, i32); 4] =
    [("panic", 0, 3, 3), ("abort", 0, 2, 3), ("spin", 0, 1, 2), ("allocate", 100, 3, 3)];
const COMPLETION_TIMEOUT: Duration = Duration::from_mins(10);
const SETTLE_TIME: Duration = Duration::from_secs(1);
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Query for the milliseconds from push to first start of no-op jobs, from the recorded events.
const START: &str = "SELECT extract(epoch FROM min(start.at) - min(push.at)) * 1000
    FROM drill_event AS push JOIN drill_event AS start USING (id)
    WHERE push.what = 'pushed' AND start.what = 'started' AND push.kind = 'noop' GROUP BY id";

/// Query for the milliseconds from push to completion of no-op jobs.
const DONE: &str = "SELECT extract(epoch FROM finished_at - queued_at) * 1000 FROM job_history WHERE kind = 'noop'";

/// Start and completion latencies in milliseconds: p50, p99 and maximum.
struct Latency {
    start: [f64; 3],
    done: [f64; 3],
}

/// Runs the part: first only well-behaved jobs, then well-behaved and poison jobs together.
pub(crate) async fn run(bench: &QueueBench) -> Result<Measurement> {
    let (usual, poisoned): (u32, u32) = bench.either((30, 120), (10, 60));
    let mut measurement = Measurement::new(
        "poison",
        format!(
            "100 no-op jobs/s for {PROCESSES} processes ({CONCURRENCY}), which are restarted when they exit: {usual} s alone, then at least \
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

/// Pushes no-op jobs at a fixed rate for this number of seconds, with or without poison jobs. Returns the latencies of
/// the no-op jobs.
async fn phase(
    bench: &QueueBench,
    seconds: u32,
    is_poisoned: bool,
    measurement: &mut Measurement,
) -> Result<Latency> {
    bench.ledger.clear().await?;
    bench.ledger.start_recording().await?;
    // Waits until all processes have registered and listen for hints, so that their startup is not measured.
    let fleet = bench.fleet(PROCESSES, CONCURRENCY).await?;
    tokio::time::sleep(SETTLE_TIME).await;
    let fleet = fleet.into_iter().map(|worker| worker.child).collect();
    let is_done = Cell::new(false);
    let began = Instant::now();
    let work = async {
        let done = push(bench, seconds, is_poisoned).await;
        is_done.set(true);
        done
    };
    let ((), (fleet, exits)) = tokio::try_join!(work, supervise(bench, fleet, &is_done))?;
    // SIGKILL, because a process that executes a job that never awaits does not exit after SIGTERM.
    for worker in fleet {
        worker.kill()?;
    }
    let name = if is_poisoned { "beside poison" } else { "alone" };
    if is_poisoned {
        measurement.figure("processes that exited", f64::from(exits), "");
        measurement.figure(
            "time until all poison jobs were buried",
            began.elapsed().as_secs_f64(),
            "s",
        );
    }
    let well_behaved =
        "SELECT count(*) FROM job_history WHERE kind = 'noop' AND outcome = 'SUCCEEDED'";
    let well_behaved = bench.ledger.count(well_behaved).await?;
    measurement.check(
        format!("{name}: well-behaved jobs done"),
        well_behaved,
        i64::from(100 * seconds),
    );
    let retried = "SELECT count(*) FROM job_history WHERE kind = 'noop' AND attempt > 1";
    let retried = bench.ledger.count(retried).await?;
    measurement.figure(format!("{name}: well-behaved jobs retried"), number(retried), "");
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
    bench.ledger.wait(ledger::LIVE, COMPLETION_TIMEOUT).await
}

/// Restarts processes that have exited, as a supervisor does, until `is_done` is true. Returns the processes and the
/// number of exits.
async fn supervise(
    bench: &QueueBench,
    mut fleet: Vec<Child>,
    is_done: &Cell<bool>,
) -> Result<(Vec<Child>, u32)> {
    let mut exits = 0;
    while !is_done.get() {
        let mut exited = None;
        for (index, worker) in fleet.iter_mut().enumerate() {
            if !worker.is_running()? {
                exited = Some(index);
            }
        }
        if let Some(index) = exited {
            exits += 1;
            fleet[index] = bench.spawn(CONCURRENCY, Hints::Redis)?;
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok((fleet, exits))
}
