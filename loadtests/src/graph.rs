//! The scenario `graph`: queries for blast radii and for pages of assets over HTTP. A tiered and a random inventory are
//! each imported over the API into an organization of its own.
//!
//! The dependencies of a generated inventory are known, so every returned count is compared with an independent graph
//! traversal. Requests are sent one at a time over one connection: the latency is that of a single user.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::{Value, json};

use crate::{
    client::Connection,
    deployment::{Deployment, Tenant},
    inventory::{Graph, Inventory, Shape, Tier},
    load::percentile,
    measurement::{Measurement, Report, number},
    options::{DataOptions, Options},
    random::Random,
    report::{self, progress},
    stores,
    upload::{self, Kind},
};

/// Depth of the queried blast radii.
const DEPTH: usize = 10;
/// Maximum number of nodes that a blast radius lists.
const NODES: usize = 100;
const PAGE: usize = 50;
const FIND: &str =
    "query($name: String!) { assets(first: 2, filter: { text: $name }) { nodes { id name } } }";
const BLAST: &str = "query($id: ID!) {
    asset(id: $id) { blastRadius(depth: 10) { assets services truncated nodes { depth asset { name } } } } }";
const LIST: &str = "query($after: String) {
    assets(first: 50, after: $after) { nodes { id code name type lifecycleState environment } pageInfo { hasNextPage endCursor } } }";
const SEARCH: &str = "query($text: String!) {
    assets(first: 50, filter: { text: $text }) { nodes { id code name type lifecycleState environment } } }";

/// Arguments of the `graph` scenario.
#[derive(Args)]
#[command(mut_arg("quick", |quick| quick.help("Smoke test: fewer assets and fewer queries")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Assets in each inventory, with about three dependencies each; default 100,000, or 5,000 with `--quick`.
    #[arg(long)]
    rows: Option<usize>,
    /// Runs only these inventory shapes; default all.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SHAPE,…")]
    only: Vec<Shape>,
    #[command(flatten)]
    data: DataOptions,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let circumstances = options.circumstances()?;
    if !arguments.data.inside {
        return stores::exec_under_services(&options.binary);
    }
    let assets = arguments.rows.unwrap_or(options.either(100_000, 5_000));
    let questions = options.either(200, 20);
    let seed = crate::random::seed(arguments.data.seed)?;
    let at: DateTime<Utc> = std::time::SystemTime::now().into();
    let deployment = Deployment::open(&options.binary, &["import"]).await?;
    let mut measurements = Vec::new();
    for shape in [Shape::Tiers, Shape::Random] {
        if arguments.only.is_empty() || arguments.only.contains(&shape) {
            let inventory = Inventory { shape, assets, seed, at };
            measurements.push(measure(&deployment, &inventory, questions).await?);
        }
    }
    deployment.close().await?;
    let setting = "durable stores".to_owned();
    let report = Report { scenario: "graph", setting, circumstances, seed, measurements };
    report.publish(options.json.as_deref())
}

async fn measure(
    deployment: &Deployment,
    inventory: &Inventory,
    questions: usize,
) -> Result<Measurement> {
    let shape = inventory.shape;
    progress(&format!("graph: {shape:?}: importing"));
    let tenant = deployment.tenant(shape.name()).await?;
    let files = inventory.write(deployment.folder.path())?;
    upload::import(deployment, &tenant, Kind::Assets, &files.assets).await?;
    upload::import(deployment, &tenant, Kind::Dependencies, &files.dependencies).await?;
    deployment.stores.vacuum().await?;
    let mut measurement = Measurement::new(
        shape.name(),
        format!(
            "{} assets, {} dependencies; {questions} queries of each kind, one at a time; seed {}.",
            report::whole(number(inventory.assets)),
            report::whole(number(files.edges)),
            inventory.seed
        ),
    );
    let mut client = QueryClient {
        connection: Connection::open(deployment.api.address).await?,
        tenant: &tenant,
    };
    let graph = inventory.graph();
    let mut random = Random::new(inventory.seed);
    progress(&format!("graph: {shape:?}: blast radii"));
    match shape {
        Shape::Tiers => {
            let switches = roots(inventory, &mut random, questions, |tier| tier == Tier::Switch);
            client
                .measure_blast_radii(
                    &mut measurement,
                    &graph,
                    inventory,
                    "of a switch",
                    "≤ 50",
                    &switches,
                )
                .await?;
            let core: Vec<_> =
                inventory.core_switches().into_iter().cycle().take(questions).collect();
            client
                .measure_blast_radii(
                    &mut measurement,
                    &graph,
                    inventory,
                    "of a core switch",
                    "≤ 50",
                    &core,
                )
                .await?;
            let any = roots(inventory, &mut random, questions, |_| true);
            client
                .measure_blast_radii(
                    &mut measurement,
                    &graph,
                    inventory,
                    "of any asset",
                    "≤ 50",
                    &any,
                )
                .await?;
        }
        Shape::Random => {
            let any = roots(inventory, &mut random, questions, |_| true);
            client
                .measure_blast_radii(
                    &mut measurement,
                    &graph,
                    inventory,
                    "of any asset",
                    "≤ 500",
                    &any,
                )
                .await?;
        }
    }
    progress(&format!("graph: {shape:?}: pages"));
    client.pages(&mut measurement, questions).await?;
    client.searches(&mut measurement, inventory, &mut random, questions).await?;
    Ok(measurement)
}

/// Returns `count` random assets of the selected tiers, possibly with duplicates.
fn roots(
    inventory: &Inventory,
    random: &mut Random,
    count: usize,
    is_selected: impl Fn(Tier) -> bool,
) -> Vec<usize> {
    let mut roots = Vec::new();
    while roots.len() < count {
        let number = random.below(inventory.assets);
        if is_selected(inventory.tier(number)) {
            roots.push(number);
        }
    }
    roots
}

/// A connection and the organization that it queries.
struct QueryClient<'a> {
    connection: Connection,
    tenant: &'a Tenant,
}

impl QueryClient<'_> {
    async fn query(&mut self, query: &str, variables: Value) -> Result<(Value, Duration)> {
        let began = Instant::now();
        let data = self.connection.graphql(Some(&self.tenant.token), query, variables).await?;
        Ok((data, began.elapsed()))
    }

    async fn measure_blast_radii(
        &mut self,
        measurement: &mut Measurement,
        graph: &Graph,
        inventory: &Inventory,
        subject: &str,
        target: &'static str,
        roots: &[usize],
    ) -> Result<()> {
        let (mut took, mut reaches, mut wrong) = (Vec::new(), Vec::new(), 0);
        for root in roots {
            let name = inventory.name(*root);
            let found = self.query(FIND, json!({ "name": name })).await?.0;
            let nodes =
                found["assets"]["nodes"].as_array().context("the response has no asset nodes")?;
            ensure!(nodes.len() == 1, "found {} assets named {name}, expected 1", nodes.len());
            let (response, elapsed) = self.query(BLAST, json!({ "id": nodes[0]["id"] })).await?;
            took.push(elapsed);
            let radius = graph.reach(*root, DEPTH);
            let services =
                radius.iter().filter(|at| inventory.tier(**at) == Tier::Application).count();
            let blast = &response["asset"]["blastRadius"];
            let nodes = blast["nodes"].as_array().map_or(0, Vec::len);
            let is_passed = blast["assets"] == json!(radius.len())
                && blast["services"] == json!(services)
                && blast["truncated"] == json!(radius.len() > NODES)
                && nodes == radius.len().min(NODES);
            wrong += i64::from(!is_passed);
            reaches.push(radius.len());
        }
        reaches.sort_unstable();
        for (name, share) in [("median", 50), ("maximum", 100)] {
            let reach = percentile(&reaches, share).unwrap_or_default();
            measurement.figure(format!("blast radius {subject}: {name}"), number(reach), "assets");
        }
        measurement.latencies(&format!("blast radius {subject}"), took, Some((95, target)));
        measurement.check(
            format!("blast radius {subject}: results that differ from the reference traversal"),
            wrong,
            0,
        );
        Ok(())
    }

    async fn pages(&mut self, measurement: &mut Measurement, count: usize) -> Result<()> {
        let (mut took, mut after, mut short) = (Vec::new(), Value::Null, 0);
        for _ in 0..count {
            let (response, elapsed) = self.query(LIST, json!({ "after": after })).await?;
            took.push(elapsed);
            let page = &response["assets"];
            let is_last = page["pageInfo"]["hasNextPage"] != json!(true);
            let nodes = page["nodes"].as_array().map_or(0, Vec::len);
            short += i64::from(nodes != PAGE && !is_last);
            after = if is_last { Value::Null } else { page["pageInfo"]["endCursor"].clone() };
        }
        measurement.latencies("page of 50, in sequence", took, None);
        measurement.check("pages with fewer rows than expected", short, 0);
        Ok(())
    }

    async fn searches(
        &mut self,
        measurement: &mut Measurement,
        inventory: &Inventory,
        random: &mut Random,
        count: usize,
    ) -> Result<()> {
        for (what, omitted) in [("a full name", 0), ("a partial name", 2)] {
            let (mut took, mut empty) = (Vec::new(), 0);
            for _ in 0..count {
                let name = inventory.name(random.below(inventory.assets));
                let text = &name[..name.len() - omitted];
                let (response, elapsed) = self.query(SEARCH, json!({ "text": text })).await?;
                took.push(elapsed);
                let nodes = response["assets"]["nodes"].as_array().map_or(0, Vec::len);
                empty += i64::from(nodes == 0);
            }
            measurement.latencies(&format!("page of 50 filtered by {what}"), took, None);
            measurement.check(format!("filtered by {what}: searches without a result"), empty, 0);
        }
        Ok(())
    }
}
