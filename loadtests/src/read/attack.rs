//! Attack by one viewer: the most expensive documents that the server accepts, each alone. Then the most expensive and
//! the slowest are sent many times at once, while another organization's requests and sign-ins are timed.
//!
//! API and worker are separate processes, so the memory is that of the API. The rates of the server are raised, so only
//! its places, weights and deadlines protect it. The scenario fails if a document costs more than a CPU-second, if the
//! other organization's p99 is above 500 ms, or if the API's memory is above 500 MB.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::documents::{AttackDocument, DOCUMENTS, Subjects};
use crate::{
    client::{self, Connection},
    deployment::{Deployment, Tenant},
    inventory::{Inventory, Shape},
    load::percentile,
    measurement::{Measurement, Report, number},
    options::Options,
    random,
    report::{Table, progress},
    scan, seed,
    upload::{self, Kind},
    usage::{self, Observation},
};

/// Connections of the attacker at the same time.
const ATTACKERS: usize = 32;
/// Number of runs of each document; the most expensive one counts.
const RUNS: usize = 3;
/// Number of assets with large custom fields.
const LARGE_ASSETS: usize = 100;
/// Number of large assets that each of them needs.
const LARGE_TARGETS: usize = 20;
/// Maximum CPU time of one document.
const MAX_CPU: Duration = Duration::from_secs(1);
/// Maximum latency (p99) of another organization's requests.
const MAX_P99: Duration = Duration::from_millis(500);
/// Maximum memory of the API.
const MAX_MEMORY_KIB: u32 = 500_000;
const OTHERS: &str = "{ assets(first: 1) { nodes { id } } }";
const CREATE_USER: &str = "mutation($input: CreateUserInput!) { createUser(input: $input) { id } }";
const CREATE_ASSET: &str =
    "mutation($input: CreateAssetInput!) { createAsset(input: $input) { id } }";

/// Cost of one document, as a row of the report.
#[derive(Debug, Serialize)]
struct DocumentCost {
    name: &'static str,
    /// Repetitions of the selection that the server accepted.
    times: usize,
    cpu_ms: f64,
    ms: f64,
    bytes: usize,
    /// Code of the first error; empty if there was none.
    code: String,
    #[serde(skip)]
    request: Vec<u8>,
}

/// Outcome of one request.
struct Sent {
    took: Duration,
    cpu: Duration,
    bytes: usize,
    code: String,
    /// First bytes of the response.
    answer: String,
}

/// Organization under attack, with the viewer who attacks.
struct Attacker {
    token: String,
    subjects: Subjects,
}

pub(super) async fn run(options: &Options) -> Result<()> {
    let circumstances = options.circumstances()?;
    let assets = options.either(20_000, 5_000);
    let duration = Duration::from_secs(options.either(30, 8));
    let seed = random::seed(None)?;
    let deployment = Deployment::open(&options.binary, &["import", "scan", "upkeep"]).await?;
    progress(&format!("read: attack: importing {assets} assets"));
    let attacker = prepare(&deployment, assets, seed).await?;
    let other = deployment.tenant("other").await?;
    let mut connection = Connection::open(deployment.api.address).await?;
    for number in 0..20 {
        let input = json!({ "input": { "name": format!("host-{number}"), "type": "HOST" } });
        connection.graphql(Some(&other.token), CREATE_ASSET, input).await?;
    }
    // Sign-ins end the oldest sessions of a person, so another person signs in than the one whose requests are timed.
    let person = Person::create(&deployment, &other, "person").await?;
    deployment.stores.vacuum().await?;

    let mut costs = Vec::new();
    for document in DOCUMENTS {
        progress(&format!("read: attack: {}", document.name));
        costs.push(cost(&deployment, &attacker, document).await?);
    }
    costs.sort_by(|a, b| b.cpu_ms.total_cmp(&a.cpu_ms));
    let alone = documents(&costs)?;
    let slowest = costs.iter().max_by(|a, b| a.ms.total_cmp(&b.ms)).unwrap_or(&costs[0]);
    let mut measurements = vec![alone];
    for (part, document) in [("most expensive at once", &costs[0]), ("slowest at once", slowest)] {
        progress(&format!("read: attack: {part}"));
        let bystander = (&other, &person);
        measurements.push(storm(&deployment, part, document, bystander, duration, assets).await?);
    }
    deployment.close().await?;
    let setting = "attack by one viewer, durable stores".to_owned();
    Report { scenario: "read", setting, circumstances, seed, measurements }
        .publish(options.json.as_deref())
}

/// Creates the organization: an inventory with its dependencies and findings, assets with large custom fields, and a
/// viewer.
async fn prepare(deployment: &Deployment, assets: usize, seed: u64) -> Result<Attacker> {
    let tenant = deployment.tenant("attacked").await?;
    let at: DateTime<Utc> = std::time::SystemTime::now().into();
    let inventory = Inventory { shape: Shape::Tiers, assets, seed, at };
    let files = inventory.write(deployment.folder.path())?;
    upload::import(deployment, &tenant, Kind::Assets, &files.assets).await?;
    upload::import(deployment, &tenant, Kind::Dependencies, &files.dependencies).await?;
    let mut connection = Connection::open(deployment.api.address).await?;
    for number in 0..LARGE_ASSETS {
        let fields = (0..16).map(|field| (format!("field-{field}"), json!("x".repeat(1000))));
        let fields: serde_json::Map<_, _> = fields.collect();
        let (name, id) = (format!("large-{number}"), large(number));
        let input =
            json!({ "name": name, "type": "HOST", "externalId": id, "customFields": fields });
        connection.graphql(Some(&tenant.token), CREATE_ASSET, json!({ "input": input })).await?;
    }
    let edges = deployment.folder.path().join("large.csv");
    std::fs::write(&edges, large_dependencies())?;
    upload::import(deployment, &tenant, Kind::Dependencies, &edges).await?;
    scan::complete_run(deployment, &tenant).await?;
    let find =
        "query($text: String!) { assets(first: 1, filter: { text: $text }) { nodes { id } } }";
    let core = inventory.core_switches().first().map(|number| inventory.name(*number));
    let text = json!({ "text": core.context("the inventory has no core switch")? });
    let found = connection.graphql(Some(&tenant.token), find, text).await?;
    let asset = found["assets"]["nodes"][0]["id"].as_str().context("no core switch was found")?;
    let viewer = Person::create(deployment, &tenant, "viewer").await?;
    let token = seed::token(deployment.api.address, &viewer.email, &viewer.password).await?;
    let until = (at + TimeDelta::days(4 * 365)).to_rfc3339_opts(SecondsFormat::Secs, true);
    Ok(Attacker { token, subjects: Subjects { asset: asset.to_owned(), until } })
}

/// A viewer of an organization.
struct Person {
    email: String,
    password: String,
}

impl Person {
    async fn create(deployment: &Deployment, tenant: &Tenant, name: &str) -> Result<Self> {
        let (email, password) =
            (format!("{name}@{}.example", tenant.slug), seed::random_password()?);
        let input =
            json!({ "name": name, "email": email, "password": password, "roles": ["viewer"] });
        let mut connection = Connection::open(deployment.api.address).await?;
        connection.graphql(Some(&tenant.token), CREATE_USER, json!({ "input": input })).await?;
        Ok(Self { email, password })
    }
}

fn large(number: usize) -> String {
    format!("large:{number}")
}

/// Returns a file in which each large asset needs [`LARGE_TARGETS`] others, so that answers repeat their fields.
fn large_dependencies() -> String {
    let mut file = "source_external_id,target_external_id,kind,criticality\n".to_owned();
    for source in 0..LARGE_ASSETS {
        for step in 1..=LARGE_TARGETS {
            let target = large((source + step) % LARGE_ASSETS);
            // Writing to a String cannot fail.
            let _ = writeln!(file, "{},{target},network,high", large(source));
        }
    }
    file
}

/// Finds the largest number of repetitions that the server accepts, and measures that document. The CPU time of a
/// refused document counts too.
async fn cost(
    deployment: &Deployment,
    attacker: &Attacker,
    document: &AttackDocument,
) -> Result<DocumentCost> {
    let (address, pid) = (deployment.api.address, deployment.api.pid());
    let mut connection = Connection::open(address).await?;
    let mut highest_refusal = Duration::ZERO;
    for times in (1..=document.most).rev() {
        let text = document.text(times, &attacker.subjects);
        let request = client::request(address, Some(&attacker.token), &text, &Value::Null);
        let first = send(&mut connection, pid, &request).await?;
        let is_wrong = ["VALIDATION", "FORBIDDEN", "UNAUTHENTICATED"].contains(&&*first.code);
        ensure!(!is_wrong, "{}: the server answered {}", document.name, first.answer);
        if first.code == "QUERY_TOO_COMPLEX" && times > 1 {
            highest_refusal = highest_refusal.max(first.cpu);
            continue;
        }
        let (mut cpu, mut last) = (first.cpu.max(highest_refusal), first);
        for _ in 1..RUNS {
            last = send(&mut connection, pid, &request).await?;
            cpu = cpu.max(last.cpu);
        }
        return Ok(DocumentCost {
            name: document.name,
            times,
            cpu_ms: cpu.as_secs_f64() * 1e3,
            ms: last.took.as_secs_f64() * 1e3,
            bytes: last.bytes,
            code: last.code,
            request,
        });
    }
    unreachable!("a document with one selection is measured whatever its answer")
}

async fn send(connection: &mut Connection, pid: u32, request: &[u8]) -> Result<Sent> {
    let (began, before) = (Instant::now(), usage::of_process(pid)?);
    let response = connection.send(request).await?;
    let took = began.elapsed();
    let cpu = usage::of_process(pid)?.saturating_sub(before);
    let body = response.body;
    let answer = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
    Ok(Sent { took, cpu, bytes: body.len(), code: code(body), answer })
}

/// Returns the code of the first error in a response; empty if it has none.
fn code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    // The errors follow the data, which may contain anything.
    let errors = text.rsplit_once("\"errors\":[").map(|(_, errors)| errors);
    let code = errors.and_then(|errors| errors.split_once("\"code\":\"")?.1.split_once('"'));
    code.map_or_else(String::new, |(code, _)| code.to_owned())
}

fn documents(costs: &[DocumentCost]) -> Result<Measurement> {
    let mut measurement = Measurement::new(
        "documents alone",
        format!(
            "Each document repeats a selection as often as the server accepts; {RUNS} runs each, the most expensive counts. CPU is that of the API process, all threads."
        ),
    );
    let mut table = Table::new(&["document", "times", "CPU ms", "ms", "bytes", "error"]);
    for cost in costs {
        table.row([
            cost.name.to_owned(),
            cost.times.to_string(),
            format!("{:.0}", cost.cpu_ms),
            format!("{:.0}", cost.ms),
            cost.bytes.to_string(),
            cost.code.clone(),
        ]);
    }
    measurement.rows(table, &costs)?;
    let too_dear = costs.iter().filter(|cost| cost.cpu_ms > MAX_CPU.as_secs_f64() * 1e3).count();
    measurement.check("documents above one CPU-second", i64::try_from(too_dear)?, 0);
    Ok(measurement)
}

/// Sends the document on many connections, and times the requests and sign-ins of the other organization, first without
/// and then with this load.
async fn storm(
    deployment: &Deployment,
    part: &'static str,
    worst: &DocumentCost,
    other: (&Tenant, &Person),
    duration: Duration,
    assets: usize,
) -> Result<Measurement> {
    let (address, pid) = (deployment.api.address, deployment.api.pid());
    let mut measurement = Measurement::new(
        part,
        format!(
            "{ATTACKERS} connections of one viewer send `{}` × {} for {} s; two organizations, {assets} assets. The client is one thread of this machine.",
            worst.name,
            worst.times,
            duration.as_secs()
        ),
    );
    let quiet = bystanders(deployment, other, duration / 4).await?;
    measurement.latencies("request without the attack", quiet.requests, None);
    measurement.latencies("sign-in without the attack", quiet.sign_ins, None);

    let mut api = Observation::begin(pid)?;
    let client = usage::of_process(std::process::id())?;
    let end = Instant::now() + duration;
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        let request = worst.request.clone();
        attackers.spawn(async move {
            let (mut connection, mut answered, mut refused) =
                (Connection::open(address).await?, 0, 0);
            while Instant::now() < end {
                let response = connection.send(&request).await?;
                match &*code(response.body) {
                    "RATE_LIMITED" => refused += 1,
                    _ => answered += 1,
                }
            }
            anyhow::Ok((answered, refused))
        });
    }
    let loaded = bystanders(deployment, other, duration).await?;
    api.sample()?;
    let (mut answered, mut refused) = (0, 0);
    while let Some(attacker) = attackers.join_next().await {
        let (more_answered, more_refused) = attacker??;
        (answered, refused) = (answered + more_answered, refused + more_refused);
    }
    let used = api.usage()?;
    let client = usage::of_process(std::process::id())?.saturating_sub(client);
    let mut sorted = loaded.requests.clone();
    sorted.sort_unstable();
    let request_p99 = percentile(&sorted, 99).unwrap_or(Duration::MAX);
    measurement.latencies("request", loaded.requests, Some((99, "≤ 500")));
    measurement.latencies("sign-in", loaded.sign_ins, None);
    measurement.figure("attacker's requests answered", number(answered), "");
    measurement.figure("attacker's requests refused", number(refused), "");
    measurement.figure("CPU of the API", used.cpu.as_secs_f64(), "s");
    measurement.figure("CPU of the client", client.as_secs_f64(), "s");
    let memory = f64::from(used.memory.rss_kib) / 1000.0;
    measurement.figure_with_target("peak memory of the API", memory, "MB", "≤ 500");
    for (code, count) in &loaded.errors {
        measurement.figure(format!("other organization's answers {code}"), number(*count), "");
    }
    let failed = loaded.errors.values().sum();
    measurement.check("failed requests of the other organization", failed, 0);
    measurement.check("p99 of a request above 500 ms", i64::from(request_p99 > MAX_P99), 0);
    measurement.check("memory above 500 MB", i64::from(used.memory.rss_kib > MAX_MEMORY_KIB), 0);
    Ok(measurement)
}

/// Latencies of an organization that does not attack.
struct Bystanders {
    requests: Vec<Duration>,
    sign_ins: Vec<Duration>,
    /// Number of responses with each error code.
    errors: BTreeMap<String, i64>,
}

async fn bystanders(
    deployment: &Deployment,
    (other, person): (&Tenant, &Person),
    duration: Duration,
) -> Result<Bystanders> {
    let address = deployment.api.address;
    let sign_in = json!({ "email": person.email, "password": person.password });
    let requests = client::request(address, Some(&other.token), OTHERS, &Value::Null);
    let sign_ins = client::request(address, None, seed::LOGIN, &sign_in);
    let end = Instant::now() + duration;
    let (requests, sign_ins) =
        tokio::join!(timed(address, requests, end), timed(address, sign_ins, end));
    let ((requests, mut codes), (sign_ins, sign_in_codes)) = (requests?, sign_ins?);
    codes.extend(sign_in_codes);
    let mut errors = BTreeMap::new();
    for code in codes {
        *errors.entry(code).or_default() += 1;
    }
    Ok(Bystanders { requests, sign_ins, errors })
}

/// Sends a request in a closed loop until `end`. Returns the latencies, and the code of each error.
async fn timed(
    address: std::net::SocketAddr,
    request: Vec<u8>,
    end: Instant,
) -> Result<(Vec<Duration>, Vec<String>)> {
    let mut connection = Connection::open(address).await?;
    let (mut took, mut codes) = (Vec::new(), Vec::new());
    while Instant::now() < end {
        let began = Instant::now();
        let response = connection.send(&request).await?;
        took.push(began.elapsed());
        codes.extend(Some(code(response.body)).filter(|code| !code.is_empty()));
    }
    Ok((took, codes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_of_an_error_is_one() {
        let error = br#"{"errors":[{"message":"m","extensions":{"code":"TIMEOUT"}}]}"#;
        assert_eq!(code(error), "TIMEOUT");
        assert_eq!(code(br#"{"data":{"a":{"code":"HST-1"}}}"#), "");
        let partial = br#"{"data":{"code":"A"},"errors":[{"extensions":{"code":"NOT_FOUND"}}]}"#;
        assert_eq!(code(partial), "NOT_FOUND");
    }
}
