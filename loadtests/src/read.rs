//! Queries under load, ours and, with `--peers`, mercurius with JIT in the same run: the same documents, on the same rows of
//! the same Postgres, one server after the other for each row of the table, so that both meet the same machine.
//!
//! Everything runs under `sentryops services` (see `stores`). Requests per second say little here, because client, server
//! and Postgres share the cores; what a request costs in CPU does not depend on that, and is what the target is about.

use std::{collections::HashMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::{
    client::Connection,
    folder::Folder,
    load::{Ask, Measured},
    options::Options,
    peer::{self, Mode, Peer},
    question::{LIST, QUESTIONS, Question, without_ids},
    report::{self, Circumstances, Table, progress, whole},
    seed,
    server::Server,
    statements::{Count, Counter},
    stores::{self, Stores},
    usage::{Cpu, Memory},
};

/// Connections that ask at once.
const AT_ONCE: [usize; 3] = [1, 8, 64];
/// The row that the summary compares: busy, but not for its own sake.
const COMPARED: usize = 8;
/// Our own name in tables.
const OURS: &str = "sentryops";
/// Requests before statements are counted: they prepare what is prepared once.
const UNCOUNTED: u32 = 30;
/// Requests whose statements are counted.
const COUNTED: u32 = 10;
/// Above this share of the machine, a row's times are others' doing.
const NOISE_PERCENT: f64 = 10.0;

/// What `read` is told.
#[derive(Args)]
#[command(mut_arg("quick", |quick| quick.help("Half a second instead of three for each row: to see that it works")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Measures mercurius beside us; takes Node 20 or newer and, the first time, the npm registry.
    #[arg(long)]
    peers: bool,
    /// We run under `sentryops services` already.
    #[arg(long, hide = true)]
    inside: bool,
}

/// How long to ask.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Each question to each server, before anything is measured: a JIT takes a while.
    first_warm_up: Duration,
    /// Before each row.
    warm_up: Duration,
    /// Each row.
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

/// Who is asked.
struct Side {
    name: &'static str,
    address: SocketAddr,
    token: String,
    pid: u32,
    counts: HashMap<&'static str, Count>,
}

/// One row of the report.
#[derive(Serialize)]
struct Row {
    question: &'static str,
    side: &'static str,
    at_once: usize,
    #[serde(flatten)]
    per_request: Count,
    #[serde(flatten)]
    measured: Measured,
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
    /// Of each server, after all the load.
    memory: Vec<(&'static str, Memory)>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    if !arguments.inside {
        options.circumstances()?; // A binary that is missing is better said here.
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
    progress(&format!("read: {} assets over the API", seed::ASSETS));
    let token = seed::sow(&server).await?;
    stores.vacuum().await?;

    let modes: &[Mode] = if arguments.peers { &[Mode::Roles, Mode::Plain] } else { &[] };
    let mut peers = Vec::new();
    for mode in modes {
        let database = mode.database(&stores);
        peers.push((*mode, Peer::start(mode.name(), *mode, folder.path(), database).await?));
    }
    progress("read: statements");
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
        rows.extend(measured.with_context(|| server.last_words())?);
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
    let counter = Counter::open(&stores.database, socket.path())?;
    let server = Server::api(binary, folder, stores, &counter.database).await?;
    let counts = count(&counter, server.address, token).await?;
    server.stop().await?;
    Ok(counts)
}

async fn count_peer(mode: Mode, stores: &Stores) -> Result<HashMap<&'static str, Count>> {
    let socket = Folder::new()?;
    let counter = Counter::open(mode.database(stores), socket.path())?;
    let peer = Peer::start("counted", mode, socket.path(), &counter.database).await?;
    let counts = count(&counter, peer.address, &peer.token).await?;
    peer.stop().await?;
    Ok(counts)
}

async fn count(
    counter: &Counter,
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
    question: &Question,
    sides: &[Side],
    pace: Pace,
    postgres: u32,
    cores: usize,
) -> Result<Vec<Row>> {
    let mut asks = Vec::new();
    let mut answers = Vec::new();
    for side in sides {
        let prepared = Ask::prepare(side.address, &side.token, question).await;
        let (ask, answer) = prepared.with_context(|| format!("ask {}", side.name))?;
        ask.connect(COMPARED).await?.ask_for(pace.first_warm_up).await?;
        asks.push((side, ask));
        answers.push(without_ids(answer));
    }
    ensure!(answers.windows(2).all(|pair| pair[0] == pair[1]), "answers differ: {answers:?}");
    let mut rows = Vec::new();
    for at_once in AT_ONCE {
        for (side, ask) in &asks {
            let mut crowd = ask.connect(at_once).await?;
            crowd.ask_for(pace.warm_up).await?;
            let before = Cpu::read(side.pid, postgres)?;
            let asked = crowd.ask_for(pace.duration).await;
            let asked = asked.with_context(|| format!("{} of {}", question.key, side.name))?;
            let cpu = Cpu::read(side.pid, postgres)? - before;
            rows.push(Row {
                question: question.key,
                side: side.name,
                at_once,
                per_request: side.counts[question.key],
                measured: Measured::of(&asked, &cpu, cores)?,
            });
        }
    }
    Ok(rows)
}

impl Report {
    fn render(&self) -> String {
        let mut text = format!(
            "read: {} assets of {} owners, {} s a row after {} s of warm-up\n{}\
             Client: by hand over TCP, keep-alive, closed loop, one thread of this machine. Every answer was 200 and right.\n\
             CPU is user and system time in µs a request, of all threads and, for Postgres, of all its processes.\n\
             `others` is the share of the machine that neither of the three took; over {NOISE_PERCENT} % (!) distrust the row.\n",
            whole(f64::from(u32::try_from(self.assets).unwrap_or(u32::MAX))),
            self.owners,
            self.seconds_a_row,
            self.warm_up_seconds,
            self.circumstances.render(),
        );
        if self.has_peers() {
            text.push_str(
                "mercurius has JIT and a loader, checks the bearer and reads the session as we do, and sends our statements;\n\
                 mercurius-plain reads as superuser without transactions, roles and row security. One thread each, ours has a thread a core.\n",
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

    fn render_question(&self, question: &Question) -> String {
        let mut table = Table::new(&[
            "",
            "at once",
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
            let Measured { requests_per_second, p50_ms, p95_ms, p99_ms, .. } = row.measured;
            let Measured { server_cpu_us, postgres_cpu_us, client_cpu_us, others_percent, .. } =
                row.measured;
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
            "\nServer CPU in µs a request, {COMPARED} at once\n{}\nMemory after the load: {memory}\n{}",
            table.render(),
            self.render_targets(),
        )
    }

    fn render_targets(&self) -> String {
        let verdict = |is_met| if is_met { "met" } else { "MISSED" };
        let Some(ours) = self.compared(LIST, OURS) else { return String::new() };
        let statements = ours.per_request.statements;
        let within = verdict(statements <= 12.0);
        let few = format!("Target, list: at most 12 statements: {statements:.1}, {within}\n");
        let Some(peer) = self.compared(LIST, Mode::Roles.name()) else { return few };
        let (ours, peer) = (ours.measured.server_cpu_us, peer.measured.server_cpu_us);
        let below = verdict(ours <= peer);
        format!(
            "{few}Target, list: server CPU at or below mercurius with JIT: {ours:.0} to {peer:.0} µs, {below}\n"
        )
    }
}
