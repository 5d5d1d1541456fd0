//! Queries under load against sentryops and, with `--peers`, in the same run against mercurius with JIT. All servers
//! execute the same queries on the same rows of the same Postgres. For each query and number of connections, the
//! servers are measured one directly after the other, so that the machine's condition is the same for all.
//!
//! The scenario runs under `sentryops services` (see `stores`). Throughput has little meaning here, because client,
//! server and Postgres share the cores. The CPU time per request does not depend on the sharing, so the target is a CPU
//! time.

use std::{collections::HashMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::{
    client::Connection,
    folder::Folder,
    load::{LoadFigures, PreparedRequest},
    options::Options,
    peer::{self, Mode, Peer},
    read_query::{LIST, READ_QUERIES, ReadQuery, without_ids},
    report::{self, Circumstances, Table, progress, whole},
    seed,
    server::Server,
    statements::{Count, CountingProxy},
    stores::{self, Stores},
    usage::{Cpu, Memory},
};

mod attack;
mod documents;

/// Numbers of concurrent connections to measure.
const CONNECTION_COUNTS: [usize; 3] = [1, 8, 64];
/// Number of connections at which the summary compares the servers: enough to keep a server busy, without excessive
/// queueing.
const COMPARED_CONNECTIONS: usize = 8;
/// Name of sentryops in tables.
const SENTRYOPS: &str = "sentryops";
/// Number of warm-up requests before statements are counted, so that statements are already prepared.
const WARM_UP_REQUESTS: u32 = 30;
/// Number of requests over which statements are counted.
const COUNTED_REQUESTS: u32 = 10;
/// Percentage of the machine's CPU time above which other processes make a measurement unreliable.
const NOISE_PERCENT: f64 = 10.0;

/// Arguments of the `read` scenario.
#[derive(Args)]
#[command(mut_arg("quick", |quick| quick.help("Smoke test: measures each row for 0.5 s instead of 3 s")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Also measures mercurius. Requires Node 20 or newer and, for the first run, access to the npm registry.
    #[arg(long)]
    peers: bool,
    /// Measures an attack by one viewer instead: the most expensive documents that the server accepts, alone and all at
    /// once, while another organization works.
    #[arg(long, conflicts_with = "peers")]
    attack: bool,
    /// Set by the program itself when it runs under `sentryops services`.
    #[arg(long, hide = true)]
    inside: bool,
}

/// Durations of the warm-up and of the measurement.
#[derive(Debug, Clone, Copy)]
struct Durations {
    /// Warm-up of each query on each server before the first measurement, long enough for a JIT compiler.
    first_warm_up: Duration,
    /// Warm-up before each measurement.
    warm_up: Duration,
    /// Duration of each measurement.
    duration: Duration,
}

impl Durations {
    const FULL: Self = Self {
        first_warm_up: Duration::from_secs(3),
        warm_up: Duration::from_millis(500),
        duration: Duration::from_secs(3),
    };
    const QUICK: Self = Self {
        first_warm_up: Duration::from_millis(300),
        warm_up: Duration::from_millis(100),
        duration: Duration::from_millis(500),
    };
}

/// A server that is compared: sentryops or a peer.
struct ComparedServer {
    name: &'static str,
    address: SocketAddr,
    token: String,
    pid: u32,
    counts: HashMap<&'static str, Count>,
}

/// Row of the report: the measurement of a query on a server with a number of connections.
#[derive(Serialize)]
struct Row {
    question: &'static str,
    side: &'static str,
    at_once: usize,
    #[serde(flatten)]
    per_request: Count,
    #[serde(flatten)]
    measured: LoadFigures,
}

#[derive(Serialize)]
struct Report {
    scenario: &'static str,
    circumstances: Circumstances,
    seconds_a_row: f64,
    warm_up_seconds: f64,
    assets: usize,
    owners: usize,
    rows: Vec<Row>,
    /// Memory of each server, by name, after all measurements.
    memory: Vec<(&'static str, Memory)>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    if !arguments.inside {
        options.circumstances()?; // Fails early if the binary is missing.
        if arguments.peers {
            peer::install()?;
        }
        return stores::exec_under_services(&options.binary);
    }
    if arguments.attack {
        return attack::run(options).await;
    }
    let circumstances = options.circumstances()?;
    let durations = options.either(Durations::FULL, Durations::QUICK);
    let folder = Folder::new()?;
    let stores = Stores::from_environment()?;
    let server = Server::up(&options.binary, folder.path(), Some(&stores)).await?;
    progress(&format!("read: creating {} assets over the API", seed::ASSETS));
    let token = seed::seed_organization(&server).await?;
    stores.vacuum().await?;

    let modes: &[Mode] = if arguments.peers { &[Mode::Roles, Mode::Plain] } else { &[] };
    let mut peers = Vec::new();
    for mode in modes {
        let database = mode.database(&stores);
        peers.push((*mode, Peer::start(mode.name(), *mode, folder.path(), database).await?));
    }
    progress("read: counting statements");
    let counts = count_sentryops(&options.binary, folder.path(), &stores, &token).await?;
    let mut sides = vec![ComparedServer {
        name: SENTRYOPS,
        address: server.address,
        token,
        pid: server.pid(),
        counts,
    }];
    for (mode, peer) in &peers {
        let (address, token, pid) = (peer.address, peer.token.clone(), peer.pid());
        let counts = count_peer(*mode, &stores).await?;
        sides.push(ComparedServer { name: mode.name(), address, token, pid, counts });
    }

    let mut rows = Vec::new();
    for question in &READ_QUERIES {
        progress(&format!("read: {}", question.title));
        let measured =
            measure(question, &sides, durations, stores.postgres, circumstances.cores).await;
        rows.extend(measured.with_context(|| server.log_tail())?);
    }
    let memory = sides.iter().map(|side| Ok((side.name, Memory::of(side.pid)?)));
    let memory = memory.collect::<Result<_>>()?;
    for (_, peer) in peers {
        peer.stop().await?;
    }
    server.stop().await?;
    let report = Report {
        scenario: "read",
        circumstances,
        seconds_a_row: durations.duration.as_secs_f64(),
        warm_up_seconds: durations.warm_up.as_secs_f64(),
        assets: seed::ASSETS,
        owners: seed::OWNERS,
        rows,
        memory,
    };
    report::print(&report.render())?;
    report::save(options.json.as_deref(), &report)
}

async fn count_sentryops(
    binary: &Path,
    folder: &Path,
    stores: &Stores,
    token: &str,
) -> Result<HashMap<&'static str, Count>> {
    let socket = Folder::new()?;
    let counter = CountingProxy::open(&stores.database, socket.path())?;
    let server = Server::api(binary, folder, stores, &counter.database).await?;
    let counts = count(&counter, server.address, token).await?;
    server.stop().await?;
    Ok(counts)
}

async fn count_peer(mode: Mode, stores: &Stores) -> Result<HashMap<&'static str, Count>> {
    let socket = Folder::new()?;
    let counter = CountingProxy::open(mode.database(stores), socket.path())?;
    let peer = Peer::start("counted", mode, socket.path(), &counter.database).await?;
    let counts = count(&counter, peer.address, &peer.token).await?;
    peer.stop().await?;
    Ok(counts)
}

async fn count(
    counter: &CountingProxy,
    address: SocketAddr,
    token: &str,
) -> Result<HashMap<&'static str, Count>> {
    let mut connection = Connection::open(address).await?;
    let mut counts = HashMap::new();
    for question in &READ_QUERIES {
        let token = question.is_signed_in.then_some(token);
        for sent in 0..WARM_UP_REQUESTS + COUNTED_REQUESTS {
            if sent == WARM_UP_REQUESTS {
                counter.take(1);
            }
            connection.graphql(token, question.query, serde_json::Value::Null).await?;
        }
        counts.insert(question.key, counter.take(COUNTED_REQUESTS));
    }
    Ok(counts)
}

async fn measure(
    question: &ReadQuery,
    sides: &[ComparedServer],
    durations: Durations,
    postgres: u32,
    cores: usize,
) -> Result<Vec<Row>> {
    let mut requests = Vec::new();
    let mut answers = Vec::new();
    for side in sides {
        let prepared = PreparedRequest::prepare(side.address, &side.token, question).await;
        let (request, answer) =
            prepared.with_context(|| format!("send a request to {}", side.name))?;
        request.connect(COMPARED_CONNECTIONS).await?.run_for(durations.first_warm_up).await?;
        requests.push((side, request));
        answers.push(without_ids(answer));
    }
    ensure!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "the servers returned different responses: {answers:?}"
    );
    let mut rows = Vec::new();
    for at_once in CONNECTION_COUNTS {
        for (side, request) in &requests {
            let mut generator = request.connect(at_once).await?;
            generator.run_for(durations.warm_up).await?;
            let before = Cpu::read(side.pid, postgres)?;
            let measured_loop = generator.run_for(durations.duration).await;
            let measured_loop =
                measured_loop.with_context(|| format!("{} of {}", question.key, side.name))?;
            let cpu = Cpu::read(side.pid, postgres)? - before;
            rows.push(Row {
                question: question.key,
                side: side.name,
                at_once,
                per_request: side.counts[question.key],
                measured: LoadFigures::of(&measured_loop, &cpu, cores)?,
            });
        }
    }
    Ok(rows)
}

impl Report {
    fn render(&self) -> String {
        let mut text = format!(
            "read: {} assets of {} owners, {} s per row after {} s of warm-up\n{}\
             Client: a minimal HTTP client in a closed loop on one thread of this machine, with keep-alive. Every response had status 200 and the expected body.\n\
             CPU is user and system time in µs per request, of all threads and, for Postgres, of all its processes.\n\
             `others` is the percentage of the machine's CPU time that other processes used; above {NOISE_PERCENT} % (!) the row is unreliable.\n",
            whole(f64::from(u32::try_from(self.assets).unwrap_or(u32::MAX))),
            self.owners,
            self.seconds_a_row,
            self.warm_up_seconds,
            self.circumstances.render(),
        );
        if self.has_peers() {
            text.push_str(
                "mercurius has JIT and a loader, verifies the bearer, reads the session, and sends the same statements as sentryops;\n\
                 mercurius-plain reads as a superuser without transactions, roles and row security. Each peer has one thread; sentryops has one per core.\n",
            );
        }
        for question in &READ_QUERIES {
            text.push_str(&self.render_question(question));
        }
        text.push_str(&self.render_summary());
        text
    }

    fn has_peers(&self) -> bool {
        self.memory.len() > 1
    }

    fn render_question(&self, question: &ReadQuery) -> String {
        let mut table = Table::new(&[
            "",
            "connections",
            "req/s",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "server µs",
            "postgres µs",
            "client µs",
            "others",
            "statements",
            "round trips",
        ]);
        for row in self.rows.iter().filter(|row| row.question == question.key) {
            let LoadFigures { requests_per_second, p50_ms, p95_ms, p99_ms, .. } = row.measured;
            let LoadFigures {
                server_cpu_us, postgres_cpu_us, client_cpu_us, others_percent, ..
            } = row.measured;
            let mark = if others_percent > NOISE_PERCENT { "!" } else { "" };
            table.row([
                row.side.to_owned(),
                row.at_once.to_string(),
                whole(requests_per_second),
                format!("{p50_ms:.2}"),
                format!("{p95_ms:.2}"),
                format!("{p99_ms:.2}"),
                format!("{server_cpu_us:.1}"),
                format!("{postgres_cpu_us:.1}"),
                format!("{client_cpu_us:.1}"),
                format!("{mark}{others_percent:.0} %"),
                format!("{:.1}", row.per_request.statements),
                format!("{:.1}", row.per_request.round_trips),
            ]);
        }
        format!("\n{}\n{}", question.title, table.render())
    }

    fn compared(&self, question: &str, side: &str) -> Option<&Row> {
        self.rows.iter().find(|row| {
            row.question == question && row.side == side && row.at_once == COMPARED_CONNECTIONS
        })
    }

    fn render_summary(&self) -> String {
        let names: Vec<_> = self.memory.iter().map(|(name, _)| *name).collect();
        let ratios: Vec<_> = names[1..].iter().map(|name| format!("÷ {name}")).collect();
        let heading = [""].into_iter().chain(names.iter().copied());
        let heading: Vec<_> = heading.chain(ratios.iter().map(String::as_str)).collect();
        let mut table = Table::new(&heading);
        for question in &READ_QUERIES {
            let cpu: Vec<_> = names
                .iter()
                .filter_map(|name| Some(self.compared(question.key, name)?.measured.server_cpu_us))
                .collect();
            let costs = cpu.iter().map(|cost| format!("{cost:.1}"));
            let ratios = cpu.iter().skip(1).map(|peer| format!("{:.2}", cpu[0] / peer));
            table.row([question.title.to_owned()].into_iter().chain(costs).chain(ratios));
        }
        let mebibytes = |kib: u32| format!("{:.1} MiB", f64::from(kib) / 1024.0);
        let memory = self.memory.iter().map(|(name, memory)| {
            format!("{name} {} (PSS {})", mebibytes(memory.rss_kib), mebibytes(memory.pss_kib))
        });
        let memory = memory.collect::<Vec<_>>().join(", ");
        format!(
            "\nServer CPU in µs per request, {COMPARED_CONNECTIONS} connections\n{}\nMemory after the load: {memory}\n{}",
            table.render(),
            self.render_targets(),
        )
    }

    fn render_targets(&self) -> String {
        let verdict = |is_met| if is_met { "met" } else { "MISSED" };
        let Some(ours) = self.compared(LIST, SENTRYOPS) else { return String::new() };
        let statements = ours.per_request.statements;
        let statements_verdict = verdict(statements <= 12.0);
        let statements_target = format!(
            "Target for `list`: at most 12 statements per request; measured {statements:.1}: {statements_verdict}\n"
        );
        let Some(peer) = self.compared(LIST, Mode::Roles.name()) else { return statements_target };
        let (ours, peer) = (ours.measured.server_cpu_us, peer.measured.server_cpu_us);
        let cpu_verdict = verdict(ours <= peer);
        format!(
            "{statements_target}Target for `list`: server CPU time at or below that of mercurius with JIT; measured {ours:.0} µs against {peer:.0} µs: {cpu_verdict}\n"
        )
    }
}
