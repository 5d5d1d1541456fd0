//! The parts that measure throughput and latency: draining a backlog, jobs that only wait, pushing jobs, the start
//! latency, and the completion of a small batch behind a large one.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{
    bench::{Concurrency, Hints, QueueBench, pause, resume, stop},
    ledger::ANY_LIVE,
};
use crate::{measurement::Measurement, usage};

/// Concurrency settings of the processes that drain short jobs.
pub(crate) const SHORT: Concurrency = Concurrency { concurrency: 64, prefetch: 500 };
/// Number of jobs pushed per transaction.
const BATCH: usize = 1000;
const COMPLETION_TIMEOUT: Duration = Duration::from_mins(10);
/// Query for the seconds from the first start to the last completion, by the clock of Postgres.
const SPAN: &str =
    "SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM job_history";

/// Query for the milliseconds from push to claim, per job.
pub(crate) const START: &str =
    "SELECT extract(epoch FROM started_at - queued_at) * 1000 FROM job_history";

/// Throughput and cost of draining a backlog.
pub(crate) struct Drained {
    /// Throughput in jobs per second.
    pub(crate) rate: f64,
    /// Number of distinct jobs that succeeded.
    pub(crate) done: i64,
    /// CPU time of all Postgres processes.
    postgres: Duration,
    /// CPU time of all worker processes.
    workers: Duration,
    /// CPU time of the whole machine.
    machine: Duration,
}

/// Pushes a backlog and drains it with processes that start at the same time. `meanwhile` runs while the backlog is
/// drained.
pub(crate) async fn drain(
    bench: &QueueBench,
    kind: (&str, u64),
    count: usize,
    processes: usize,
    pace: Concurrency,
    meanwhile: impl AsyncFnOnce() -> Result<()>,
) -> Result<Drained> {
    bench.ledger.clear().await?;
    let mut fleet = bench.fleet(processes, pace).await?;
    pause(&mut fleet)?;
    bench.push(kind.0, count, BATCH, kind.1).await?;
    bench.ledger.execute("ANALYZE job").await?;
    let taken = |fleet: &[super::bench::Worker]| -> Result<_> {
        let workers = fleet.iter().map(|worker| usage::of_process(worker.child.pid()));
        let workers = workers.sum::<Result<Duration>>()?;
        let postgres =
            usage::of_tree(usage::child_named(std::os::unix::process::parent_id(), "postgres")?)?;
        Ok((workers, postgres, usage::of_machine()?))
    };
    let before = taken(&fleet)?;
    resume(&mut fleet)?;
    meanwhile().await?;
    bench.ledger.wait(ANY_LIVE, COMPLETION_TIMEOUT).await?;
    let after = taken(&fleet)?;
    let span = bench.ledger.number(SPAN, &[]).await?;
    stop(fleet).await?;
    let done = "SELECT count(DISTINCT id) FROM job_history WHERE outcome = 'SUCCEEDED'";
    Ok(Drained {
        done: bench.ledger.count(done).await?,
        rate: f64::from(u32::try_from(count)?) / span.max(1e-6),
        workers: after.0.saturating_sub(before.0),
        postgres: after.1.saturating_sub(before.1),
        machine: after.2.saturating_sub(before.2),
    })
}

/// Measures the throughput of no-op jobs with one and with two processes.
pub(crate) async fn noop(bench: &QueueBench) -> Result<Measurement> {
    let count = bench.either(100_000, 20_000);
    let mut measurement = Measurement::new(
        "drain",
        format!(
            "{count} no-op jobs, pushed {BATCH} per transaction, drained by processes with {SHORT}; \
             measured from first start to last completion. CPU of others: the machine's CPU time outside Postgres and the workers."
        ),
    );
    let mut rate_of_one = 0.0;
    for processes in [1, 2] {
        let drained = drain(bench, ("noop", 0), count, processes, SHORT, async || Ok(())).await?;
        let what = format!("{processes} process{}", if processes == 1 { "" } else { "es" });
        let target = if processes == 1 { "≥ 50,000" } else { "≥ 1.25 × one" };
        measurement.figure_with_target(format!("{what}: rate"), drained.rate, "jobs/s", target);
        let Drained { postgres, workers, machine, .. } = drained;
        measurement.figure(format!("{what}: CPU of Postgres"), postgres.as_secs_f64(), "s");
        measurement.figure(format!("{what}: CPU of workers"), workers.as_secs_f64(), "s");
        for (consumer, taken) in [("Postgres", postgres), ("workers", workers)] {
            let each = taken.as_secs_f64() * 1e6 / f64::from(u32::try_from(count)?);
            measurement.figure(format!("{what}: CPU of {consumer} per job"), each, "µs");
        }
        let others = machine.saturating_sub(postgres + workers);
        measurement.figure(format!("{what}: CPU of others"), others.as_secs_f64(), "s");
        if processes == 1 {
            rate_of_one = drained.rate;
        } else {
            measurement.figure_with_target(
                "throughput of two processes relative to one",
                drained.rate / rate_of_one,
                "×",
                "≥ 1.25",
            );
        }
        measurement.check(format!("{what}: jobs done"), drained.done, i64::try_from(count)?);
        let twice = "SELECT count(*) - count(DISTINCT id) FROM job_history";
        measurement.check(
            format!("{what}: jobs completed twice"),
            bench.ledger.count(twice).await?,
            0,
        );
    }
    Ok(measurement)
}

/// Measures how the throughput of jobs that only wait scales with the number of processes.
pub(crate) async fn sleep(bench: &QueueBench) -> Result<Measurement> {
    const CONCURRENCY: Concurrency = Concurrency { concurrency: 32, prefetch: 32 };
    const MILLIS: u64 = 20;
    let seconds = bench.either(10, 2);
    let ideal = u32::try_from(CONCURRENCY.concurrency)? * 1000 / u32::try_from(MILLIS)?;
    let mut measurement = Measurement::new(
        "sleep",
        format!(
            "Jobs that wait {MILLIS} ms; processes with {CONCURRENCY} and {seconds} s of work each. \
             The ideal throughput of a process is {ideal} jobs/s."
        ),
    );
    let mut rate_of_one = 0.0;
    for processes in [1_u32, 2, 4, 8] {
        let count = usize::try_from(ideal * processes * seconds)?;
        let drained = drain(
            bench,
            ("sleep", MILLIS),
            count,
            usize::try_from(processes)?,
            CONCURRENCY,
            async || Ok(()),
        )
        .await?;
        if processes == 1 {
            rate_of_one = drained.rate;
        }
        measurement.figure(format!("{processes} × process: rate"), drained.rate, "jobs/s");
        let share = drained.rate / rate_of_one / f64::from(processes) * 100.0;
        measurement.figure_with_target(
            format!("{processes} × process: throughput relative to linear scaling"),
            share,
            "%",
            "≥ 90",
        );
        measurement.check(
            format!("{processes} × process: jobs done"),
            drained.done,
            i64::try_from(count)?,
        );
    }
    Ok(measurement)
}

/// Measures the throughput of pushing jobs, one per transaction and in bulk.
pub(crate) async fn enqueue(bench: &QueueBench) -> Result<Measurement> {
    let mut measurement = Measurement::new(
        "enqueue",
        "No worker runs. Singles: one durable transaction per job. Bulk: 1,000 jobs per statement.",
    );
    let singles: usize = bench.either(5_000, 1_000);
    for clients in [1, 16] {
        bench.ledger.clear().await?;
        let count = singles * if clients == 1 { 1 } else { 4 };
        let (count_text, clients_text) = (count.to_string(), clients.to_string());
        let took = bench.drill(&["singles", &count_text, &clients_text], Hints::Redis).await?;
        let rate = f64::from(u32::try_from(count)?) / took.as_secs_f64();
        measurement.figure(format!("singles, {clients} clients"), rate, "jobs/s");
        let pushed = bench.ledger.count("SELECT count(*) FROM job").await?;
        measurement.check(
            format!("singles, {clients} clients: jobs stored"),
            pushed,
            i64::try_from(count / clients * clients)?,
        );
    }
    bench.ledger.clear().await?;
    let count = bench.either(200_000, 50_000);
    let took = bench.push("noop", count, BATCH, 0).await?;
    measurement.figure("bulk", f64::from(u32::try_from(count)?) / took.as_secs_f64(), "jobs/s");
    let pushed = bench.ledger.count("SELECT count(*) FROM job").await?;
    measurement.check("bulk: jobs stored", pushed, i64::try_from(count)?);
    bench.ledger.clear().await?;
    Ok(measurement)
}

/// Measures the latencies from push to start and from push to completion, with and without Redis.
pub(crate) async fn latency(bench: &QueueBench) -> Result<Measurement> {
    const DONE: &str = "SELECT extract(epoch FROM finished_at - queued_at) * 1000 FROM job_history";
    let seconds: u32 = bench.either(30, 5);
    let mut measurement = Measurement::new(
        "latency",
        format!(
            "100 jobs/s for {seconds} s, pushed one by one; one process with {SHORT}. Timestamps are those of the start of a transaction: \
             queued at the push, started at the claim (which commits before the handler starts), \
             done at the transaction that records the completion."
        ),
    );
    for (name, hints) in [("hints", Hints::Redis), ("no Redis", Hints::Polling)] {
        bench.ledger.clear().await?;
        let worker = bench.work(SHORT, hints).await?;
        // A warm-up, so that the startup of the process is not measured.
        bench.drill(&["paced", "100", "1"], hints).await?;
        bench.ledger.wait(super::ledger::LIVE, COMPLETION_TIMEOUT).await?;
        bench.ledger.execute("TRUNCATE job_history").await?;
        bench.drill(&["paced", "100", &seconds.to_string()], hints).await?;
        bench.ledger.wait(super::ledger::LIVE, COMPLETION_TIMEOUT).await?;
        stop(vec![worker]).await?;
        let ([p50, p99, max], count) = bench.ledger.spread(START, &[]).await?;
        let targets =
            if hints == Hints::Redis { ["", "≤ 10", ""] } else { ["", "", "≤ 1,100"] };
        for ((what, value), target) in
            [("p50", p50), ("p99", p99), ("max", max)].into_iter().zip(targets)
        {
            measurement.figure_with_target(format!("{name}: start {what}"), value, "ms", target);
        }
        let ([p50, p99, max], _) = bench.ledger.spread(DONE, &[]).await?;
        for (what, value) in [("p50", p50), ("p99", p99), ("max", max)] {
            measurement.figure(format!("{name}: done {what}"), value, "ms");
        }
        measurement.check(format!("{name}: jobs done"), count, i64::from(100 * seconds));
    }
    Ok(measurement)
}

/// Measures fairness: a small batch must not wait until a large batch, which was pushed before, is completed.
pub(crate) async fn fairness(bench: &QueueBench) -> Result<Measurement> {
    const CONCURRENCY: Concurrency = Concurrency { concurrency: 8, prefetch: 8 };
    const MILLIS: u64 = 20;
    bench.ledger.clear().await?;
    let worker = bench.work(CONCURRENCY, Hints::Redis).await?;
    let began = Instant::now();
    bench.push("sleep", 1000, 1000, MILLIS).await?;
    bench.push("effect", 10, 10, MILLIS).await?;
    let apart = began.elapsed();
    bench.ledger.wait(super::ledger::LIVE, COMPLETION_TIMEOUT).await?;
    stop(vec![worker]).await?;
    let mut measurement = Measurement::new(
        "fairness",
        format!(
            "1,000 jobs of {MILLIS} ms in one batch, then 10 in a second batch (both pushed within {} ms); one process, {CONCURRENCY}.",
            apart.as_millis()
        ),
    );
    let took = |kind: &str| {
        format!(
            "SELECT extract(epoch FROM max(finished_at) - min(queued_at))::float8 * 1000 FROM job_history WHERE kind = '{kind}'"
        )
    };
    let large = bench.ledger.number(&took("sleep"), &[]).await?;
    let small = bench.ledger.number(&took("effect"), &[]).await?;
    measurement.figure("large batch done after", large, "ms");
    measurement.figure("small batch done after", small, "ms");
    measurement.figure_with_target(
        "time of the small batch relative to the large one",
        small / large * 100.0,
        "%",
        "≤ 10",
    );
    let done = bench.ledger.count("SELECT count(*) FROM job_history").await?;
    measurement.check("jobs done", done, 1010);
    let effects = bench.ledger.count("SELECT count(*) FROM drill_effect").await?;
    measurement.check("effects", effects, 10);
    Ok(measurement)
}
