//! Closed-loop load: each connection sends the next request as soon as it has its response, until the time is up.

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
    question::ReadQuery,
    usage::Cpu,
};

/// Additional time for responses after the end of the loop.
const GRACE: Duration = Duration::from_mins(1);

/// A request as bytes, with the only correct response body.
#[derive(Clone)]
pub(crate) struct PreparedRequest {
    address: SocketAddr,
    request: Arc<[u8]>,
    expected: Arc<[u8]>,
}

impl PreparedRequest {
    /// Sends the request once, and takes the response as the expected one if it is complete. Also returns the
    /// response's `data`, for comparison with other servers.
    pub(crate) async fn prepare(
        address: SocketAddr,
        token: &str,
        question: &ReadQuery,
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

    /// Opens `at_once` connections for this request.
    pub(crate) async fn connect(&self, at_once: usize) -> Result<LoadGenerator<'_>> {
        let mut connections = Vec::with_capacity(at_once);
        for _ in 0..at_once {
            connections.push(Connection::open(self.address).await?);
        }
        Ok(LoadGenerator { ask: self, connections })
    }
}

/// Connections that send the same request in parallel.
pub(crate) struct LoadGenerator<'a> {
    ask: &'a PreparedRequest,
    connections: Vec<Connection>,
}

/// Latencies and total time of a closed loop.
pub(crate) struct Loop {
    latencies: Vec<Duration>,
    took: Duration,
}

impl LoadGenerator<'_> {
    /// Sends requests on all connections for the given duration.
    ///
    /// # Errors
    /// Fails at the first response that has a status other than 200 or an unexpected body.
    pub(crate) async fn run_for(&mut self, duration: Duration) -> Result<Loop> {
        let began = Instant::now();
        let end = began + duration;
        let mut tasks = JoinSet::new();
        for connection in self.connections.drain(..) {
            tasks.spawn(run_until(end, connection, self.ask.clone()));
        }
        let mut latencies = Vec::new();
        while let Some(task) = tokio::time::timeout(duration + GRACE, tasks.join_next())
            .await
            .context("a response did not arrive in time")?
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

async fn run_until(
    end: Instant,
    mut connection: Connection,
    ask: PreparedRequest,
) -> Result<(Connection, Vec<Duration>)> {
    let mut latencies = Vec::new();
    let mut began = Instant::now();
    while began < end {
        let answer = connection.ask(&ask.request).await?;
        ensure!(
            answer.status == 200 && *answer.body == *ask.expected,
            "an unexpected response with status {}: {}",
            answer.status,
            String::from_utf8_lossy(answer.body)
        );
        let now = Instant::now();
        latencies.push(now - began);
        began = now;
    }
    Ok((connection, latencies))
}

/// Measurements of one closed loop. CPU times are in microseconds per request; that of Postgres covers all its
/// processes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LoadFigures {
    /// Number of responses, all of them correct.
    pub(crate) requests: u32,
    /// Seconds from the first request to the last response.
    pub(crate) seconds: f64,
    /// Throughput in responses per second.
    pub(crate) requests_per_second: f64,
    /// Median of the latency, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 95th percentile of the latency, in milliseconds.
    pub(crate) p95_ms: f64,
    /// 99th percentile of the latency, in milliseconds.
    pub(crate) p99_ms: f64,
    /// Maximum of the latency, in milliseconds.
    pub(crate) max_ms: f64,
    /// CPU time of the server, in microseconds per request.
    pub(crate) server_cpu_us: f64,
    /// CPU time of Postgres, in microseconds per request.
    pub(crate) postgres_cpu_us: f64,
    /// CPU time of this client, in microseconds per request.
    pub(crate) client_cpu_us: f64,
    /// Share of the machine's CPU time that other processes used, in percent.
    pub(crate) others_percent: f64,
}

impl LoadFigures {
    /// Computes the measurements from a loop and the CPU time used meanwhile.
    ///
    /// # Errors
    /// Fails if there was no response.
    pub(crate) fn of(asked: &Loop, cpu: &Cpu, cores: usize) -> Result<Self> {
        let requests = u32::try_from(asked.latencies.len())?;
        ensure!(requests > 0, "the closed loop completed no request");
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

/// Returns the `share`th percentile (nearest rank) of values in ascending order; `None` if there are none or `share` is
/// 0.
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
