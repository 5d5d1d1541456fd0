//! The scenario `start`: startup time and idle memory. The startup time is that from the start of `sentryops up --demo`
//! to the first response to `{ __typename }`, which is sent every 2 ms. It is measured cold (without a data folder) and
//! warm (with the data folder of an earlier start).
//!
//! The page cache is not cleared: the first cold start may read the binary from disk, later starts do not.

use std::{path::Path, time::Duration};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    folder::Folder,
    load::percentile,
    options::Options,
    report::{self, Circumstances, Table, progress},
    server::Server,
    usage::Memory,
};

/// Arguments of the `start` scenario.
#[derive(Args)]
#[command(mut_arg("quick", |quick| quick.help("Smoke test: fewer runs and a shorter idle time")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
}

/// Measurements of one cold or warm start.
#[derive(Debug, Serialize)]
struct Run {
    is_cold: bool,
    first_answer_seconds: f64,
    stop_seconds: f64,
    api: Memory,
    postgres: Memory,
    redis: Memory,
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    circumstances: Circumstances,
    rest_seconds: f64,
    runs: Vec<Run>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let (rounds, rest) = options.either((5, 5), (1, 1));
    let rest = Duration::from_secs(rest);
    let circumstances = options.circumstances()?;
    let mut runs = Vec::new();
    for round in 1..=rounds {
        progress(&format!("start: round {round} of {rounds}"));
        let folder = Folder::new()?;
        runs.push(once(&options.binary, folder.path(), true, rest).await?);
        runs.push(once(&options.binary, folder.path(), false, rest).await?);
    }
    let report =
        Report { scenario: "start", circumstances, rest_seconds: rest.as_secs_f64(), runs };
    report::print(&report.render())?;
    report::save(options.json.as_deref(), &report)
}

async fn once(binary: &Path, folder: &Path, is_cold: bool, rest: Duration) -> Result<Run> {
    let server = Server::up(binary, folder, None).await?;
    tokio::time::sleep(rest).await;
    let pid = server.pid();
    Ok(Run {
        is_cold,
        first_answer_seconds: server.startup_time.as_secs_f64(),
        api: Memory::of(pid)?,
        postgres: Memory::below(pid, &["postgres"])?,
        redis: Memory::below(pid, &["redis", "valkey"])?,
        stop_seconds: server.stop().await?.as_secs_f64(),
    })
}

/// Returns the minimum, the median and the maximum of the values; zeros if there are none.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    [0, 50, 100]
        .map(|share| percentile(&values, share).or(values.first().copied()).unwrap_or_default())
}

impl Report {
    fn render(&self) -> String {
        let count = self.runs.len() / 2;
        let mut seconds = Table::new(&["seconds", "min", "median", "max"]);
        let mut memory = Table::new(&["MiB, median", "RSS", "PSS"]);
        let mut add_seconds = |name: &str, runs: &dyn Fn(&Run) -> bool, value: fn(&Run) -> f64| {
            let values = self.runs.iter().filter(|run| runs(run)).map(value);
            let cells = spread(values).map(|value| format!("{value:.2}"));
            seconds.row([name.to_owned()].into_iter().chain(cells));
        };
        add_seconds("cold start to first response", &|run| run.is_cold, |run| {
            run.first_answer_seconds
        });
        add_seconds("warm start to first response", &|run| !run.is_cold, |run| {
            run.first_answer_seconds
        });
        add_seconds("SIGTERM to exit 0", &|_| true, |run| run.stop_seconds);
        let mut add_memory = |name: &str, is_cold: bool, of: fn(&Run) -> Memory| {
            let middle = |kib: fn(Memory) -> u32| {
                let runs = self.runs.iter().filter(|run| run.is_cold == is_cold);
                let [_, median, _] = spread(runs.map(|run| f64::from(kib(of(run)))));
                format!("{:.1}", median / 1024.0)
            };
            memory.row([
                name.to_owned(),
                middle(|memory| memory.rss_kib),
                middle(|memory| memory.pss_kib),
            ]);
        };
        add_memory("API process, cold", true, |run| run.api);
        add_memory("API process, warm", false, |run| run.api);
        add_memory("private Postgres, all processes, warm", false, |run| run.postgres);
        add_memory("private Redis, warm", false, |run| run.redis);
        format!(
            "start: `sentryops up --demo`, {count} × cold (no data folder) and {count} × warm (the same data folder again)\n{}\n{}\nIdle, {} s after the first response:\n{}RSS counts shared pages in every process, PSS divides them among the processes. Target: API process, including its worker, at most 150 MiB.\n",
            self.circumstances.render(),
            seconds.render(),
            self.rest_seconds,
            memory.render(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_in_order() {
        let check = |values: &[f64], expected: [f64; 3]| {
            assert_eq!(
                spread(values.iter().copied()).map(f64::to_bits),
                expected.map(f64::to_bits)
            );
        };
        check(&[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]);
        check(&[4.0], [4.0, 4.0, 4.0]);
        check(&[], [0.0, 0.0, 0.0]);
    }
}
