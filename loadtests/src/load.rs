//! Closed-loop load: each connection sends its next request when it has received the response to the previous one,
//! until the duration has elapsed.

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
    read_query::ReadQuery,
    usage::Cpu,
};

/// Additional time for responses after the end of the loop.
const GRACE: Duration = Duration::from_mins(1);

/// A request as bytes, with the body that every response must have.
#[derive(Clone)]
pub(crate) struct PreparedRequest {
    address: SocketAddr,
    request: Arc<[u8]>,
    expected: Arc<[u8]>,
}

impl PreparedRequest {
    /// Prepares the request of a query: sends the request once, checks that the response is complete, and expects the
    /// same body from all later responses. Also returns the `data` of the response, for comparison with other servers.
    pub(crate) async fn prepare(
        address: SocketAddr,
        token: &str,
        question: &ReadQuery,
    ) -> Result<(Self, Value)> {
        let token = question.is_signed_in.then_some(token);
        let request = client::request(address, token, question.query, &Value::Null);
        let mut connection = Connection::open(address).await?;
        let response = connection.send(&request).await?;
        let data = client::data(&response)?;
        question.check(&data)?;
        let prepared = Self { address, request: request.into(), expected: response.body.into() };
        Ok((prepared, data))
    }

    /// Opens `at_once` connections for this request.
    pub(crate) async fn connect(&self, at_once: usize) -> Result<LoadGenerator<'_>> {
        let mut connections = Vec::with_capacity(at_once);
        for _ in 0..at_once {
            connections.push(Connection::open(self.address).await?);
        }
        Ok(LoadGenerator { prepared: self, connections })
    }
}

/// Connections that send the same request in parallel.
pub(crate) struct LoadGenerator<'a> {
    prepared: &'a PreparedRequest,
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
    /// Fails if a response has a status other than 200 or an unexpected body, or does not arrive within a minute after
    /// the duration.
    pub(crate) async fn run_for(&mut self, duration: Duration) -> Result<Loop> {
        let began = Instant::now();
        let end = began + duration;
        let mut tasks = JoinSet::new();
        for connection in self.connections.drain(..) {
            tasks.spawn(run_until(end, connection, self.prepared.clone()));
        }
        let mut latencies = Vec::new();
        while let Some(task) = tokio::time::timeout(duration + GRACE, tasks.join_next())
            .await
            .context("a response did not arrive in time")?
        {
            let (connection, task_latencies) = task??;
            self.connections.push(connection);
            latencies.extend(task_latencies);
        }
        let took = began.elapsed();
        latencies.sort_unstable();
        Ok(Loop { latencies, took })
    }
}

async fn run_until(
    end: Instant,
    mut connection: Connection,
    prepared: PreparedRequest,
) -> Result<(Connection, Vec<Duration>)> {
    let mut latencies = Vec::new();
    let mut began = Instant::now();
    while began < end {
        let response = connection.send(&prepared.request).await?;
        ensure!(
            response.status == 200 && *response.body == *prepared.expected,
            "an unexpected response with status {}: {}",
            response.status,
            String::from_utf8_lossy(response.body)
        );
        let now = Instant::now();
        latencies.push(now - began);
        began = now;
    }
    Ok((connection, latencies))
}

/// Measurements of one closed loop. The CPU time of Postgres is that of all its processes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LoadFigures {
    /// Number of responses, all of them correct.
    pub(crate) requests: u32,
    /// Seconds from the first request to the last response.
    pub(crate) seconds: f64,
    /// Throughput in responses per second.
    pub(crate) requests_per_second: f64,
    /// Median latency, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 95th percentile of the latencies, in milliseconds.
    pub(crate) p95_ms: f64,
    /// 99th percentile of the latencies, in milliseconds.
    pub(crate) p99_ms: f64,
    /// Maximum latency, in milliseconds.
    pub(crate) max_ms: f64,
    /// CPU time of the server, in microseconds per request.
    pub(crate) server_cpu_us: f64,
    /// CPU time of Postgres, in microseconds per request.
    pub(crate) postgres_cpu_us: f64,
    /// CPU time of this client, in microseconds per request.
    pub(crate) client_cpu_us: f64,
    /// Percentage of the machine's CPU time that other processes used, 0 to 100.
    pub(crate) others_percent: f64,
}

impl LoadFigures {
    /// Computes the measurements of a loop, from its latencies and the CPU times used during the loop.
    ///
    /// # Errors
    /// Fails if the loop received no response.
    pub(crate) fn of(measured_loop: &Loop, cpu: &Cpu, cores: usize) -> Result<Self> {
        let requests = u32::try_from(measured_loop.latencies.len())?;
        ensure!(requests > 0, "the closed loop completed no request");
        let seconds = measured_loop.took.as_secs_f64();
        let each = |taken: Duration| taken.as_secs_f64() * 1e6 / f64::from(requests);
        let within = |share| {
            percentile(&measured_loop.latencies, share).unwrap_or_default().as_secs_f64() * 1e3
        };
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

/// Returns a percentile (by nearest rank) of values in ascending order. `share` is the percentage, 1 to 100. `None` if
/// there are no values, or `share` is 0.
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
