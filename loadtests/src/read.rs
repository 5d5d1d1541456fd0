//! Queries under load against sentryops and, with `--peers`, against mercurius with JIT in the same run. All servers
//! execute the same documents on the same rows of the same Postgres. They are measured one after the other for each row
//! of the table, so that the machine's condition is the same for all.
//!
//! Everything runs under `sentryops services` (see `stores`). Throughput has little meaning here, because client,
//! server and Postgres share the cores. The CPU time per request does not depend on that; the target is therefore set
//! on CPU time.

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
    question::{LIST, QUESTIONS, ReadQuery, without_ids},
    report::{self, Circumstances, Table, progress, whole},
    seed,
    server::Server,
    statements::{Count, CountingProxy},
    stores::{self, Stores},
    usage::{Cpu, Memory},
};

/// Numbers of concurrent connections to measure.
const AT_ONCE: [usize; 3] = [1, 8, 64];
/// Number of connections of the rows compared in the summary: a busy server without excessive queueing.
const COMPARED: usize = 8;
/// Name of sentryops in tables.
const OURS: &str = "sentryops";
/// Warm-up requests before statements are counted, so that prepared statements exist already.
const UNCOUNTED: u32 = 30;
/// Number of requests over which statements are counted.
const COUNTED: u32 = 10;
/// Share of the machine, in percent, above which other processes distort a row.
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
    /// Set when the scenario already runs under `sentryops services`.
    #[arg(long, hide = true)]
    inside: bool,
}

/// Durations of the warm-up and of the measurement.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Warm-up of each question on each server before the first measurement, long enough for a JIT.
    first_warm_up: Duration,
    /// Warm-up before each measured row.
    warm_up: Duration,
    /// Measured duration of each row.
    duration: Duration,
}

impl Pace {
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

/// A server under comparison: sentryops or a peer.
struct Side {
    name: &'static str,
    address: SocketAddr,
    token: String,
    pid: u32,
    counts: HashMap<&'static str, Count>,
}

/// Row of the report: a question, a server and a number of connections.
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
    /// Memory of each server after the whole load.
    memory: Vec<(&'static str, Memory)>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    if !arguments.inside {
        options.circumstances()?; // Reports a missing binary before the scenario starts its services.
        if arguments.peers {
            peer::install()?;
        }
        return stores::enter(&options.binary);
    }
    let circumstances = options.circumstances()?;
    let pace = options.either(Pace::FULL, Pace::QUICK);
    let folder = Folder::new()?;
    let stores = Stores::inside()?;
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
    let counts = count_ours(&options.binary, folder.path(), &stores, &token).await?;
    let mut sides =
        vec![Side { name: OURS, address: server.address, token, pid: server.pid(), counts }];
    for (mode, peer) in &peers {
        let (address, token, pid) = (peer.address, peer.token.clone(), peer.pid());
        let counts = count_peer(*mode, &stores).await?;
        sides.push(Side { name: mode.name(), address, token, pid, counts });
    }

    let mut rows = Vec::new();
    for question in &QUESTIONS {
        progress(&format!("read: {}", question.title));
        let measured = measure(question, &sides, pace, stores.postgres, circumstances.cores).await;
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
        seconds_a_row: pace.duration.as_secs_f64(),
        warm_up_seconds: pace.warm_up.as_secs_f64(),
        assets: seed::ASSETS,
        owners: seed::OWNERS,
        rows,
        memory,
    };
    report::print(&report.render())?;
    report::save(options.json.as_deref(), &report)
}

async fn count_ours(
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
    for question in &QUESTIONS {
        let token = question.is_signed_in.then_some(token);
        for asked in 0..UNCOUNTED + COUNTED {
            if asked == UNCOUNTED {
                counter.take(1);
            }
            connection.graphql(token, question.query, serde_json::Value::Null).await?;
        }
        counts.insert(question.key, counter.take(COUNTED));
    }
    Ok(counts)
}

async fn measure(
    question: &ReadQuery,
    sides: &[Side],
    pace: Pace,
    postgres: u32,
    cores: usize,
) -> Result<Vec<Row>> {
    let mut asks = Vec::new();
    let mut answers = Vec::new();
    for side in sides {
        let prepared = PreparedRequest::prepare(side.address, &side.token, question).await;
        let (ask, answer) = prepared.with_context(|| format!("send a request to {}", side.name))?;
        ask.connect(COMPARED).await?.run_for(pace.first_warm_up).await?;
        asks.push((side, ask));
        answers.push(without_ids(answer));
    }
    ensure!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "the servers returned different responses: {answers:?}"
    );
    let mut rows = Vec::new();
    for at_once in AT_ONCE {
        for (side, ask) in &asks {
            let mut crowd = ask.connect(at_once).await?;
            crowd.run_for(pace.warm_up).await?;
            let before = Cpu::read(side.pid, postgres)?;
            let asked = crowd.run_for(pace.duration).await;
            let asked = asked.with_context(|| format!("{} of {}", question.key, side.name))?;
            let cpu = Cpu::read(side.pid, postgres)? - before;
            rows.push(Row {
                question: question.key,
                side: side.name,
                at_once,
                per_request: side.counts[question.key],
                measured: LoadFigures::of(&asked, &cpu, cores)?,
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
             `others` is the share of the machine used by none of the three; above {NOISE_PERCENT} % (!) the row is unreliable.\n",
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
        for question in &QUESTIONS {
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
        self.rows
            .iter()
            .find(|row| row.question == question && row.side == side && row.at_once == COMPARED)
    }

    fn render_summary(&self) -> String {
        let names: Vec<_> = self.memory.iter().map(|(name, _)| *name).collect();
        let ratios: Vec<_> = names[1..].iter().map(|name| format!("÷ {name}")).collect();
        let heading = [""].into_iter().chain(names.iter().copied());
        let heading: Vec<_> = heading.chain(ratios.iter().map(String::as_str)).collect();
        let mut table = Table::new(&heading);
        for question in &QUESTIONS {
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
            "\nServer CPU in µs per request, {COMPARED} connections\n{}\nMemory after the load: {memory}\n{}",
            table.render(),
            self.render_targets(),
        )
    }

    fn render_targets(&self) -> String {
        let verdict = |is_met| if is_met { "met" } else { "MISSED" };
        let Some(ours) = self.compared(LIST, OURS) else { return String::new() };
        let statements = ours.per_request.statements;
        let within = verdict(statements <= 12.0);
        let few = format!(
            "Target for `list`: at most 12 statements per request; measured {statements:.1}: {within}\n"
        );
        let Some(peer) = self.compared(LIST, Mode::Roles.name()) else { return few };
        let (ours, peer) = (ours.measured.server_cpu_us, peer.measured.server_cpu_us);
        let below = verdict(ours <= peer);
        format!(
            "{few}Target for `list`: server CPU time at or below that of mercurius with JIT; measured {ours:.0} µs against {peer:.0} µs: {below}\n"
        )
    }
}
