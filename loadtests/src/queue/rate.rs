//! How fast: a backlog drained, jobs that wait, pushing, start latency, and a small batch behind a large one.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{
    bench::{Hints, Pace, QueueBench, pause, resume, stop},
    ledger::ANY_LIVE,
};
use crate::{measurement::Measurement, usage};

/// What drains short jobs.
pub(crate) const SHORT: Pace = Pace { concurrency: 64, prefetch: 500 };
/// Jobs of a transaction of the pusher.
const BATCH: usize = 1000;
const PATIENCE: Duration = Duration::from_mins(10);
/// From the first start to the last end, by Postgres' clock.
const SPAN: &str =
    "SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM job_history";

/// From the push to the claim, ms.
pub(crate) const START: &str =
    "SELECT extract(epoch FROM started_at - queued_at) * 1000 FROM job_history";

/// What a drained backlog cost.
pub(crate) struct Drained {
    /// Jobs a second.
    pub(crate) rate: f64,
    /// Jobs that were done, each counted once.
    pub(crate) done: i64,
    /// CPU seconds.
    postgres: Duration,
    workers: Duration,
    machine: Duration,
}

/// A backlog and processes that all begin at the same moment; `meanwhile` runs beside them.
pub(crate) async fn drain(
    bench: &QueueBench,
    kind: (&str, u64),
    count: usize,
    processes: usize,
    pace: Pace,
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
    bench.ledger.wait(ANY_LIVE, PATIENCE).await?;
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

/// Jobs that do nothing.
pub(crate) async fn noop(bench: &QueueBench) -> Result<Measurement> {
    let count = bench.either(100_000, 20_000);
    let mut measurement = Measurement::new(
        "drain",
        format!(
            "{count} no-op jobs, pushed {BATCH} a transaction, drained at {SHORT} a process; \
             from the first start to the last end. Others: what neither took of the machine's CPU time."
        ),
    );
    let mut one = 0.0;
    for processes in [1, 2] {
        let drained = drain(bench, ("noop", 0), count, processes, SHORT, async || Ok(())).await?;
        let what = format!("{processes} process{}", if processes == 1 { "" } else { "es" });
        let target = if processes == 1 { "≥ 50,000" } else { "≥ 1.25 × one" };
        measurement.aimed(format!("{what}: rate"), drained.rate, "jobs/s", target);
        let Drained { postgres, workers, machine, .. } = drained;
        measurement.figure(format!("{what}: CPU of Postgres"), postgres.as_secs_f64(), "s");
        measurement.figure(format!("{what}: CPU of workers"), workers.as_secs_f64(), "s");
        for (whose, taken) in [("Postgres", postgres), ("workers", workers)] {
            let each = taken.as_secs_f64() * 1e6 / f64::from(u32::try_from(count)?);
            measurement.figure(format!("{what}: CPU of {whose} a job"), each, "µs");
        }
        let others = machine.saturating_sub(postgres + workers);
        measurement.figure(format!("{what}: CPU of others"), others.as_secs_f64(), "s");
        if processes == 1 {
            one = drained.rate;
        } else {
            measurement.aimed("second process", drained.rate / one, "×", "≥ 1.25");
        }
        measurement.check(format!("{what}: jobs done"), drained.done, i64::try_from(count)?);
        let twice = "SELECT count(*) - count(DISTINCT id) FROM job_history";
        measurement.check(format!("{what}: jobs done twice"), bench.ledger.count(twice).await?, 0);
    }
    Ok(measurement)
}

/// Jobs that wait for something else.
pub(crate) async fn sleep(bench: &QueueBench) -> Result<Measurement> {
    const PACE: Pace = Pace { concurrency: 32, prefetch: 32 };
    const MILLIS: u64 = 20;
    let seconds = bench.either(10, 2);
    let ideal = u32::try_from(PACE.concurrency)? * 1000 / u32::try_from(MILLIS)?;
    let mut measurement = Measurement::new(
        "sleep",
        format!(
            "Jobs that wait {MILLIS} ms, {PACE} a process; {seconds} s of work each. \
             A process that loses no time does {ideal} jobs/s."
        ),
    );
    let mut one = 0.0;
    for processes in [1_u32, 2, 4, 8] {
        let count = usize::try_from(ideal * processes * seconds)?;
        let drained =
            drain(bench, ("sleep", MILLIS), count, usize::try_from(processes)?, PACE, async || {
                Ok(())
            })
            .await?;
        if processes == 1 {
            one = drained.rate;
        }
        measurement.figure(format!("{processes} × : rate"), drained.rate, "jobs/s");
        let share = drained.rate / one / f64::from(processes) * 100.0;
        measurement.aimed(format!("{processes} × : of linear"), share, "%", "≥ 90");
        measurement.check(
            format!("{processes} × : jobs done"),
            drained.done,
            i64::try_from(count)?,
        );
    }
    Ok(measurement)
}

/// Pushing.
pub(crate) async fn enqueue(bench: &QueueBench) -> Result<Measurement> {
    let mut measurement = Measurement::new(
        "enqueue",
        "No worker runs. Singles: a transaction each, durable. Bulk: 1,000 jobs a statement.",
    );
    let singles: usize = bench.either(5_000, 1_000);
    for clients in [1, 16] {
        bench.ledger.clear().await?;
        let count = singles * if clients == 1 { 1 } else { 4 };
        let (count_text, clients_text) = (count.to_string(), clients.to_string());
        let took = bench.drill(&["singles", &count_text, &clients_text], Hints::Redis).await?;
        let rate = f64::from(u32::try_from(count)?) / took.as_secs_f64();
        measurement.figure(format!("singles, {clients} at once"), rate, "jobs/s");
        let pushed = bench.ledger.count("SELECT count(*) FROM job").await?;
        measurement.check(
            format!("singles, {clients} at once: jobs there"),
            pushed,
            i64::try_from(count / clients * clients)?,
        );
    }
    bench.ledger.clear().await?;
    let count = bench.either(200_000, 50_000);
    let took = bench.push("noop", count, BATCH, 0).await?;
    measurement.figure("bulk", f64::from(u32::try_from(count)?) / took.as_secs_f64(), "jobs/s");
    let pushed = bench.ledger.count("SELECT count(*) FROM job").await?;
    measurement.check("bulk: jobs there", pushed, i64::try_from(count)?);
    bench.ledger.clear().await?;
    Ok(measurement)
}

/// From the push to the start.
pub(crate) async fn latency(bench: &QueueBench) -> Result<Measurement> {
    const DONE: &str = "SELECT extract(epoch FROM finished_at - queued_at) * 1000 FROM job_history";
    let seconds: u32 = bench.either(30, 5);
    let mut measurement = Measurement::new(
        "latency",
        format!(
            "100 jobs/s for {seconds} s, pushed one by one, one process at {SHORT}. Times are those at which transactions \
             begin: queued when the push begins, started when the claim begins (its commit comes before the handler), \
             done when the transaction begins that says so."
        ),
    );
    for (name, hints) in [("hints", Hints::Redis), ("no Redis", Hints::Nobody)] {
        bench.ledger.clear().await?;
        let worker = bench.work(SHORT, hints).await?;
        // What a process does once at its start is not what is asked.
        bench.drill(&["paced", "100", "1"], hints).await?;
        bench.ledger.wait(super::ledger::LIVE, PATIENCE).await?;
        bench.ledger.execute("TRUNCATE job_history").await?;
        bench.drill(&["paced", "100", &seconds.to_string()], hints).await?;
        bench.ledger.wait(super::ledger::LIVE, PATIENCE).await?;
        stop(vec![worker]).await?;
        let ([p50, p99, most], count) = bench.ledger.spread(START, &[]).await?;
        let aims = if hints == Hints::Redis { ["", "≤ 10", ""] } else { ["", "", "≤ 1,100"] };
        for ((what, value), aim) in
            [("p50", p50), ("p99", p99), ("max", most)].into_iter().zip(aims)
        {
            measurement.aimed(format!("{name}: start {what}"), value, "ms", aim);
        }
        let ([p50, p99, most], _) = bench.ledger.spread(DONE, &[]).await?;
        for (what, value) in [("p50", p50), ("p99", p99), ("max", most)] {
            measurement.figure(format!("{name}: done {what}"), value, "ms");
        }
        measurement.check(format!("{name}: jobs done"), count, i64::from(100 * seconds));
    }
    Ok(measurement)
}

/// Whoever comes later with little does not wait for all of a large batch.
pub(crate) async fn fairness(bench: &QueueBench) -> Result<Measurement> {
    const PACE: Pace = Pace { concurrency: 8, prefetch: 8 };
    const MILLIS: u64 = 20;
    bench.ledger.clear().await?;
    let worker = bench.work(PACE, Hints::Redis).await?;
    let began = Instant::now();
    bench.push("sleep", 1000, 1000, MILLIS).await?;
    bench.push("effect", 10, 10, MILLIS).await?;
    let apart = began.elapsed();
    bench.ledger.wait(super::ledger::LIVE, PATIENCE).await?;
    stop(vec![worker]).await?;
    let mut measurement = Measurement::new(
        "fairness",
        format!(
            "1,000 jobs of {MILLIS} ms in one batch, then 10 in another (pushed within {} ms of the first), one process, {PACE}.",
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
    measurement.aimed("small of large", small / large * 100.0, "%", "≤ 10");
    let done = bench.ledger.count("SELECT count(*) FROM job_history").await?;
    measurement.check("jobs done", done, 1010);
    let effects = bench.ledger.count("SELECT count(*) FROM drill_effect").await?;
    measurement.check("effects", effects, 10);
    Ok(measurement)
}
