//! A closed loop: each connection asks again as soon as it has its answer, until the time is up.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    client::{self, Connection},
    question::Question,
    usage::Cpu,
};

/// What may take longer than the loop itself.
const GRACE: Duration = Duration::from_mins(1);

/// A question as bytes, and the one right answer.
#[derive(Clone)]
pub(crate) struct Ask {
    address: SocketAddr,
    request: Arc<[u8]>,
    expected: Arc<[u8]>,
}

impl Ask {
    /// Asks once, and holds the answer to be right if it is whole. The data comes along, for comparison.
    pub(crate) async fn prepare(
        address: SocketAddr,
        token: &str,
        question: &Question,
    ) -> Result<(Self, Value)> {
        let token = question.is_signed_in.then_some(token);
        let request = client::request(address, token, question.query, &Value::Null);
        let mut connection = Connection::open(address).await?;
        let answer = connection.ask(&request).await?;
        let data = client::data(&answer)?;
        question.check(&data)?;
        let ask = Self { address, request: request.into(), expected: answer.body.into() };
        Ok((ask, data))
    }

    /// Asks over so many connections at once.
    pub(crate) async fn connect(&self, at_once: usize) -> Result<Crowd<'_>> {
        let mut connections = Vec::with_capacity(at_once);
        for _ in 0..at_once {
            connections.push(Connection::open(self.address).await?);
        }
        Ok(Crowd { ask: self, connections })
    }
}

/// Connections that ask the same.
pub(crate) struct Crowd<'a> {
    ask: &'a Ask,
    connections: Vec<Connection>,
}

/// What came of it.
pub(crate) struct Loop {
    latencies: Vec<Duration>,
    took: Duration,
}

impl Crowd<'_> {
    /// Asks for this long.
    ///
    /// # Errors
    /// The first answer that is not 200 or differs from the right one.
    pub(crate) async fn ask_for(&mut self, duration: Duration) -> Result<Loop> {
        let began = Instant::now();
        let end = began + duration;
        let mut tasks = JoinSet::new();
        for connection in self.connections.drain(..) {
            tasks.spawn(ask_until(end, connection, self.ask.clone()));
        }
        let mut latencies = Vec::new();
        while let Some(task) = tokio::time::timeout(duration + GRACE, tasks.join_next())
            .await
            .context("an answer never came")?
        {
            let (connection, own) = task??;
            self.connections.push(connection);
            latencies.extend(own);
        }
        let took = began.elapsed();
        latencies.sort_unstable();
        Ok(Loop { latencies, took })
    }
}

async fn ask_until(
    end: Instant,
    mut connection: Connection,
    ask: Ask,
) -> Result<(Connection, Vec<Duration>)> {
    let mut latencies = Vec::new();
    let mut began = Instant::now();
    while began < end {
        let answer = connection.ask(&ask.request).await?;
        ensure!(
            answer.status == 200 && *answer.body == *ask.expected,
            "an answer differed, with {}: {}",
            answer.status,
            String::from_utf8_lossy(answer.body)
        );
        let now = Instant::now();
        latencies.push(now - began);
        began = now;
    }
    Ok((connection, latencies))
}

/// Numbers of one loop. CPU is of all processes of its kind, in microseconds a request.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    /// Answers, all of them right.
    pub(crate) requests: u32,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Answers a second.
    pub(crate) requests_per_second: f64,
    /// Half of the answers came within.
    pub(crate) p50_ms: f64,
    /// 95 of 100 came within.
    pub(crate) p95_ms: f64,
    /// 99 of 100 came within.
    pub(crate) p99_ms: f64,
    /// All came within.
    pub(crate) max_ms: f64,
    /// The server's CPU.
    pub(crate) server_cpu_us: f64,
    /// Postgres's CPU.
    pub(crate) postgres_cpu_us: f64,
    /// Our own CPU.
    pub(crate) client_cpu_us: f64,
    /// How much of the machine was taken by others.
    pub(crate) others_percent: f64,
}

impl Measured {
    /// From what was asked and what that took.
    pub(crate) fn of(asked: &Loop, cpu: &Cpu, cores: usize) -> Result<Self> {
        let requests = u32::try_from(asked.latencies.len())?;
        ensure!(requests > 0, "nothing was asked");
        let seconds = asked.took.as_secs_f64();
        let each = |taken: Duration| taken.as_secs_f64() * 1e6 / f64::from(requests);
        let within =
            |share| percentile(&asked.latencies, share).unwrap_or_default().as_secs_f64() * 1e3;
        Ok(Self {
            requests,
            seconds,
            requests_per_second: f64::from(requests) / seconds,
            p50_ms: within(50),
            p95_ms: within(95),
            p99_ms: within(99),
            max_ms: within(100),
            server_cpu_us: each(cpu.server),
            postgres_cpu_us: each(cpu.postgres),
            client_cpu_us: each(cpu.client),
            others_percent: cpu.others().as_secs_f64() * 100.0
                / (seconds * f64::from(u32::try_from(cores)?)),
        })
    }
}

/// The smallest of the sorted values that `share` of a hundred do not exceed.
pub(crate) fn percentile<T: Copy>(sorted: &[T], share: usize) -> Option<T> {
    sorted.get((sorted.len() * share).div_ceil(100).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let hundred: Vec<u32> = (1..=100).collect();
        let check = |values: &[u32], share, expected| {
            assert_eq!(percentile(values, share), expected, "{share} of {values:?}");
        };
        check(&hundred, 50, Some(50));
        check(&hundred, 99, Some(99));
        check(&hundred, 100, Some(100));
        check(&[7], 50, Some(7));
        check(&[1, 2, 3], 50, Some(2));
        check(&[], 50, None);
    }
}
