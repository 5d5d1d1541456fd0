//! Redis emptied, silent and gone; Postgres crashed again and again; jobs go on all the while.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{
    bench::{Ground, Hints, Pace, stop},
    ledger::{self, Ledger},
    rate::{self, SHORT},
    store::{self, Store},
};
use crate::{
    measurement::{Finding, number},
    random::Random,
    report::progress,
};

const PATIENCE: Duration = Duration::from_mins(10);
const BACK_WITHIN: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Long enough after the start of a drain to be in the middle of it.
const IN_THE_MIDDLE: Duration = Duration::from_millis(200);

/// What happens to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mishap {
    Nothing,
    Flushed,
    Silent,
    Killed,
}

/// Redis only carries hints: without it nothing is lost, and a backlog is drained as fast.
pub(crate) async fn redis(ground: &Ground) -> Result<Finding> {
    let count = ground.either(100_000, 20_000);
    let mut finding = Finding::new(
        "redis",
        format!(
            "{count} no-op jobs drained by one process ({SHORT}) while Redis is emptied, stopped (SIGSTOP) and killed."
        ),
    );
    let mut redis = Store::redis(&ground.stores.redis)?;
    let mut usual = 0.0;
    for (name, mishap) in [
        ("as usual", Mishap::Nothing),
        ("emptied", Mishap::Flushed),
        ("silent", Mishap::Silent),
        ("killed", Mishap::Killed),
    ] {
        let meanwhile = async || {
            tokio::time::sleep(IN_THE_MIDDLE).await;
            match mishap {
                Mishap::Nothing => Ok(()),
                Mishap::Flushed => flush(&ground.stores.redis),
                Mishap::Silent => redis.signal(Signal::STOP),
                Mishap::Killed => redis.crash(Signal::KILL).await,
            }
        };
        let drained = rate::drain(ground, ("noop", 0), count, 1, SHORT, meanwhile).await?;
        match mishap {
            Mishap::Nothing => usual = drained.rate,
            Mishap::Silent => {
                paced(ground, &mut finding, name).await?;
                redis.signal(Signal::CONT)?;
            }
            Mishap::Killed => {
                paced(ground, &mut finding, name).await?;
                redis.start()?;
            }
            Mishap::Flushed => {}
        }
        finding.figure(format!("{name}: rate"), drained.rate, "jobs/s");
        finding.aimed(format!("{name}: of usual"), drained.rate / usual * 100.0, "%", "≥ 90");
        finding.check(format!("{name}: jobs done"), drained.done, i64::try_from(count)?);
    }
    ground.keep(redis);
    Ok(finding)
}

/// Start latency while Redis is away: workers poll.
async fn paced(ground: &Ground, finding: &mut Finding, name: &str) -> Result<()> {
    ground.ledger.clear().await?;
    let worker = ground.work(SHORT, Hints::Redis).await?;
    ground.drill(&["paced", "100", "5"], Hints::Redis).await?;
    ground.ledger.wait(ledger::LIVE, PATIENCE).await?;
    stop(vec![worker]).await?;
    let ([_, p99, _], done) = ground.ledger.spread(rate::START, &[]).await?;
    finding.aimed(format!("{name}: start p99"), p99, "ms", "≤ 1,100");
    finding.check(format!("{name}: paced jobs done"), done, 500);
    Ok(())
}

fn flush(url: &str) -> Result<()> {
    let (password, socket) = store::redis_address(url).context("not a private Redis")?;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("AUTH {password}\r\nFLUSHALL\r\n").as_bytes())?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"+OK\r\n+OK\r\n", "Redis refuses to be emptied");
    Ok(())
}

/// Crashes of Postgres under load. The last part: it changes hands.
pub(crate) async fn postgres(ground: &mut Ground) -> Result<Finding> {
    const PROCESSES: usize = 2;
    const PACE: Pace = Pace { concurrency: 16, prefetch: 32 };
    const MILLIS: u64 = 100;
    const JOBS: usize = 600;
    let restarts = ground.either(20, 3);
    let mut finding = Finding::new(
        "postgres",
        format!(
            "{restarts} immediate restarts of Postgres under {PROCESSES} processes ({PACE}) with jobs of {MILLIS} ms that leave a \
             row, and under a pusher that it takes by surprise; seed {}.",
            ground.seed
        ),
    );
    let mut random = Random::new(ground.seed);
    ground.ledger.clear().await?;
    ground.ledger.watch().await?;
    let fleet = ground.fleet(PROCESSES, PACE).await?;
    let mut postgres = Store::postgres()?;
    let (mut acknowledged, mut back, mut down) = (0, Vec::new(), Vec::new());
    for restart in 1..=restarts {
        ground.push("effect", JOBS, JOBS / 4, MILLIS).await?;
        acknowledged += i64::try_from(JOBS)?;
        let wait = random.between(Duration::from_millis(200), Duration::from_millis(1500));
        let surprised = ground.push("effect", JOBS, 2, MILLIS);
        let crash = async {
            tokio::time::sleep(wait).await;
            let began = Instant::now();
            postgres.crash(Signal::QUIT).await?;
            postgres.start()?;
            let ledger = reopen(&ground.stores.admin).await?;
            down.push(began.elapsed().as_secs_f64());
            anyhow::Ok(ledger)
        };
        let (surprised, ledger) = tokio::join!(surprised, crash);
        // It fails, unless it was done before: what it was told of then cannot be known, but is watched all the same.
        if surprised.is_ok() {
            acknowledged += i64::try_from(JOBS)?;
        }
        let (ledger, up_at) = ledger?;
        let first = "SELECT extract(epoch FROM min(finished_at) - $1)::float8 FROM job_history WHERE finished_at > $1";
        let deadline = Instant::now() + BACK_WITHIN;
        let took = loop {
            let took = ledger.number(first, &[&up_at]).await?;
            if took > 0.0 {
                break took;
            }
            ensure!(Instant::now() < deadline, "no job is done after the restart");
            tokio::time::sleep(LOOK_EVERY).await;
        };
        back.push(took);
        ground.ledger = ledger;
        progress(&format!("queue: {restart} of {restarts} restarts"));
    }
    ground.ledger.wait(ledger::LIVE, PATIENCE).await?;
    stop(fleet).await?;
    for (name, mut values, target) in
        [("Postgres away", down, ""), ("Postgres back to first job done", back, "≤ 5")]
    {
        values.sort_unstable_by(f64::total_cmp);
        for (what, share) in [("median", 50), ("max", 100)] {
            let value = crate::load::percentile(&values, share).unwrap_or_default();
            finding.aimed(format!("{name}: {what}"), value, "s", target);
        }
    }
    let spent = "SELECT coalesce(sum(attempt - 1), 0)::bigint FROM job_history";
    let spent = ground.ledger.count(spent).await?;
    finding.aimed("attempts spent by restarts", number(spent), "", "0");
    let reaped = "SELECT count(*) FROM drill_event WHERE what = 'reaped'";
    finding.figure("leases that ran out", number(ground.ledger.count(reaped).await?), "");
    let buried = ground.ledger.count("SELECT count(*) FROM job WHERE state = 'BURIED'").await?;
    finding.check("jobs buried", buried, 0);
    ground.ledger.audit(&mut finding, acknowledged).await?;
    ground.keep(postgres);
    Ok(finding)
}

/// Waits until Postgres lets us in, and says when.
async fn reopen(url: &str) -> Result<(Ledger, chrono::DateTime<chrono::Utc>)> {
    let deadline = Instant::now() + BACK_WITHIN;
    loop {
        match Ledger::open(url).await {
            Ok(ledger) => {
                let at = ledger.now().await?;
                return Ok((ledger, at));
            }
            Err(error) => {
                ensure!(Instant::now() < deadline, "Postgres does not come back: {error:#}");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
