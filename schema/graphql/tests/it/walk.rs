//! A walk over every leaf field of the schema: how often its resolver is called, and what its values weigh. Counts do
//! not depend on the machine, as times would.

use std::collections::{BTreeMap, VecDeque};

use async_graphql::parser::types::{BaseType, Type, TypeDefinition, TypeKind};
use chrono::TimeDelta;
use domain::{
    Origin,
    compliance::rule::Severity,
    testing::compliance::{FindingFixture, RuleContent, RuleFixture, RunFixture, posture},
};
use graphql::{CheckIntervals, Engine, ResolverCalls, Settings};
use serde_json::json;

use crate::{
    harness::{self, PASSWORD, Reply, SET_BURIED, Team, TestApp, client, nothing},
    sdl::{fields, types},
};

/// Number of times that a document repeats a field under one key.
const REPEATED: usize = 250;
/// Number of aliases in a document: as many as are allowed.
const ALIASES: usize = 30;
/// Maximum number of fields and type conditions on the way to a type.
const MAX_PATH: usize = 7;
/// Maximum number of ways to a type that are tried until one of them leads to a row.
const MAX_PATHS: usize = 60;

/// Types that no member of an organization may read.
const UNREADABLE: &[&str] = &["Worker"];

/// Fields and type conditions from the root to a type.
type Path = Vec<String>;

/// Object types, interfaces and unions by name, and the arguments of the fields that require some.
struct Walk {
    types: BTreeMap<String, TypeDefinition>,
    arguments: BTreeMap<&'static str, String>,
}

/// Returns the name of the type without its list and null markers.
fn base(of: &Type) -> &str {
    match &of.base {
        BaseType::Named(name) => name,
        BaseType::List(item) => base(item),
    }
}

fn document(path: &Path, selection: &str) -> String {
    format!("{} {{ {selection} {}", path.join(" { "), "}".repeat(path.len()))
}

impl Walk {
    fn new(arguments: BTreeMap<&'static str, String>) -> Self {
        let types = types(&graphql::sdl());
        let types = types.into_iter().map(|one| (one.name.node.to_string(), one)).collect();
        Self { types, arguments }
    }

    /// Returns the names of the object types that are no roots.
    fn objects(&self) -> impl Iterator<Item = &str> {
        let objects = self.types.iter().filter(|(_, one)| matches!(one.kind, TypeKind::Object(_)));
        let names = objects.map(|(name, _)| name.as_str());
        names.filter(|name| !matches!(*name, "Query" | "Mutation" | "Subscription"))
    }

    fn is_leaf(&self, of: &Type) -> bool {
        let found = self.types.get(base(of));
        found.is_none_or(|one| matches!(one.kind, TypeKind::Enum(_) | TypeKind::Scalar))
    }

    /// Returns the leaf fields of an object type.
    fn leaves(&self, name: &str) -> Vec<String> {
        let fields = fields(&self.types[name]).iter().map(|field| &field.node);
        let leaves = fields.filter(|field| self.is_leaf(&field.ty.node));
        leaves.map(|field| field.name.node.to_string()).collect()
    }

    /// Returns the types that an object of this type can have.
    fn possible<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        match &self.types[name].kind {
            TypeKind::Union(union) => union.members.iter().map(|one| one.node.as_str()).collect(),
            TypeKind::Interface(_) => {
                let implements = |one: &TypeDefinition| match &one.kind {
                    TypeKind::Object(object) => object.implements.iter().any(|of| of.node == *name),
                    _ => false,
                };
                let found = self.types.iter().filter(|(_, one)| implements(one));
                found.map(|(name, _)| name.as_str()).collect()
            }
            _ => vec![name],
        }
    }

    /// Returns the field with its arguments, if a selection of it is complete with them.
    fn selected(
        &self,
        on: &str,
        field: &async_graphql::parser::types::FieldDefinition,
    ) -> Option<String> {
        let name = field.name.node.as_str();
        if let Some(arguments) = self.arguments.get(format!("{on}.{name}").as_str()) {
            return Some(format!("{name}({arguments})"));
        }
        let mut arguments = field.arguments.iter().map(|argument| &argument.node);
        if arguments.clone().any(|one| !one.ty.node.nullable && one.default_value.is_none()) {
            assert_eq!(on, "Mutation", "the walk has no arguments for {on}.{name}");
            return None;
        }
        let is_paged = arguments.any(|one| one.name.node == "first");
        Some(if is_paged { format!("{name}(first: 2)") } else { name.to_owned() })
    }

    /// Returns the shortest ways to each type, queries before mutations.
    fn paths(&self) -> BTreeMap<&str, Vec<Path>> {
        let mut paths: BTreeMap<&str, Vec<Path>> = BTreeMap::new();
        for (root, keyword) in [("Query", "query"), ("Mutation", "mutation")] {
            let mut next = VecDeque::from([(root, vec![keyword.to_owned()])]);
            while let Some((on, path)) = next.pop_front() {
                for field in fields(&self.types[on]).iter().map(|field| &field.node) {
                    let Some(selected) =
                        self.selected(on, field).filter(|_| !self.is_leaf(&field.ty.node))
                    else {
                        continue;
                    };
                    let returned = base(&field.ty.node);
                    for possible in self.possible(returned) {
                        let mut path = [path.as_slice(), std::slice::from_ref(&selected)].concat();
                        if possible != returned {
                            path.push(format!("... on {possible}"));
                        }
                        let found = paths.entry(possible).or_default();
                        if path.len() <= MAX_PATH && found.len() < MAX_PATHS {
                            found.push(path.clone());
                            next.push_back((possible, path));
                        }
                    }
                }
            }
        }
        paths
    }
}

/// An engine that counts, and a caller.
struct Counted {
    engine: Engine,
    calls: ResolverCalls,
    bearer: String,
}

impl Counted {
    /// Executes the document, and returns its answer and the number of calls of the resolver.
    async fn ask(&self, document: &str, resolver: &str) -> (Reply, usize) {
        self.calls.take();
        let bearer = Some(self.bearer.as_str());
        let reply = harness::ask(&self.engine, bearer, document, nothing(), client("walk")).await;
        assert!(reply.errors().is_empty(), "{document}\n{:#}", reply.json);
        (reply, self.calls.take().get(resolver).copied().unwrap_or_default())
    }

    /// Returns the first way that leads to a row, and the number of its rows.
    async fn path_with_rows<'a>(
        &self,
        paths: &'a [Path],
        resolver: &str,
        leaf: &str,
    ) -> Option<(&'a Path, usize)> {
        for path in paths {
            let rows = self.ask(&document(path, leaf), resolver).await.1;
            if rows > 0 {
                return Some((path, rows));
            }
        }
        None
    }
}

/// Creates rows of every type, and returns the arguments of the fields that require some.
async fn fixture(app: &TestApp, team: &Team) -> BTreeMap<&'static str, String> {
    let owner = team["owner"].bearer.as_str();
    let soon = (harness::now() + TimeDelta::days(30)).to_rfc3339();
    let first = "mutation($user: ID!, $soon: DateTime!) {
        tag: createTag(name: \"walk\") { id }
        a: createAsset(input: { name: \"one\", type: HOST, owner: $user, attributes: { os_name: \"Debian\" } }) { id }
        b: createAsset(input: { name: \"two\", type: SERVICE, customFields: { rack: 7 } }) { id }
        key: createApiKey(input: { name: \"walk\", permissions: [ASSET_READ], expiresAt: $soon }) { secret }
        schedule: saveSchedule(input: { name: \"walk\", cron: \"0 2 * * *\", action: COMPLIANCE_RUN }) { id }
        import: importAssets(input: { format: CSV, content: \"name,type\\nthree,host\\n\" }) { id }
    }";
    let reply = app.ask(owner, first, json!({ "user": team["viewer"].id, "soon": soon })).await;
    let made = reply.data();
    let id = |key: &str| made[key]["id"].as_str().unwrap().to_owned();
    let (one, two) = (id("a"), id("b"));
    let second = "mutation($a: ID!, $b: ID!, $tag: ID!, $user: ID!) {
        updateAsset(id: $a, input: { tags: [$tag], location: \"cellar\" }) { id }
        addDependency(source: $a, target: $b) { id }
        checkOutAsset(id: $a, holder: $user, notes: \"for the walk\") { id }
    }";
    let variables = json!({ "a": one, "b": two, "tag": id("tag"), "user": team["viewer"].id });
    app.ask(owner, second, variables).await.data();
    app.execute_sql(
        "INSERT INTO import_error (org_id, id, run_id, kind, \"row\", message)
        SELECT org_id, gen_random_uuid(), id, kind, 2, 'a message' FROM import_run;
        -- So that the number of seconds has as many digits during the whole test.
        UPDATE job SET run_at = now() - interval '5 minutes';",
    )
    .await;
    invite(app, &team["owner"].email).await;
    let job = app.job(team, SET_BURIED).await;
    let (rule, runs, finding) = compliance(app, team, [&one, &two]).await;
    let waive = "mutation($rule: ID!, $asset: ID!, $soon: DateTime!) {
        grantWaiver(input: { rule: $rule, asset: $asset, reason: \"for the walk\", expiresAt: $soon }) { id }
    }";
    app.ask(owner, waive, json!({ "rule": rule.id, "asset": one, "soon": soon })).await.data();
    BTreeMap::from([
        ("Query.node", format!("id: \"{two}\"")),
        ("Query.asset", format!("id: \"{one}\"")),
        ("Query.importRun", format!("id: \"{}\"", id("import"))),
        ("Query.rule", format!("key: \"{}\"", rule.key)),
        ("Query.complianceRun", format!("id: \"{}\"", runs[0])),
        ("Query.finding", format!("id: \"{finding}\"")),
        ("Query.postureBy", "dimension: OWNER".to_owned()),
        ("Query.complianceDrift", format!("from: \"{}\", to: \"{}\"", runs[0], runs[1])),
        ("Query.complianceForecast", format!("until: \"{soon}\", first: 2")),
        ("Query.job", format!("id: \"{job}\"")),
        ("Mutation.login", format!("email: \"{}\", password: \"{PASSWORD}\"", team["viewer"].email)),
        ("Mutation.createApiKey", format!("input: {{ name: \"again\", permissions: [ASSET_READ], expiresAt: \"{soon}\" }}")),
        (
            "Mutation.tryRule",
            "input: { key: \"walk\", title: \"Walk\", severity: LOW, condition: \"has(owner.id)\", evidence: { name: \"asset.name\" }, remediation: \"none\" }".to_owned(),
        ),
    ])
}

/// Invites the person to another organization.
async fn invite(app: &TestApp, email: &str) {
    let other = app.team("bravo").await;
    let document = "mutation($email: String!, $password: String!) {
        createUser(input: { email: $email, name: \"Invited\", password: $password, roles: [\"viewer\"] }) { id } }";
    let variables = json!({ "email": email, "password": "seventeen violet herons" });
    app.ask(other["admin"].bearer.as_str(), document, variables).await.data();
}

/// Creates a rule that both assets violate, two runs and a finding.
async fn compliance(
    app: &TestApp,
    team: &Team,
    [asset, other]: [&str; 2],
) -> (RuleFixture, [String; 2], String) {
    let (now, asset, other) = (harness::now(), asset.parse().unwrap(), other.parse().unwrap());
    let tx = app.test.write(team.org.id, Origin::system()).await.unwrap();
    let controls = &[("CIS", "1.1")];
    let text = RuleContent { condition: "has(owner.id)", evidence: &[], controls };
    let rules =
        [RuleFixture::insert(&tx, "walk-rule", 0, Severity::High, text, now).await.unwrap()];
    posture(&tx, asset, &rules, "F", &[(0, now + TimeDelta::hours(1), 'P')], now).await.unwrap();
    let opened = FindingFixture::open(now - TimeDelta::hours(1));
    let finding = opened.clone().insert(&tx, asset, &rules[0]).await.unwrap();
    opened.insert(&tx, other, &rules[0]).await.unwrap();
    let mut runs = Vec::new();
    for minute in [2, 1] {
        let at = now - TimeDelta::minutes(minute);
        let tallies = vec![[1, 1, 0, 0, 0]];
        let run = RunFixture { tallies, assets: 2, ..RunFixture::succeeded(at, at) };
        runs.push(run.insert(&tx, &rules).await.unwrap().to_string());
    }
    tx.commit().await.unwrap();
    let [rule] = rules;
    let finding = domain::entity::FindingId::from(finding).to_string();
    (rule, runs.try_into().unwrap(), finding)
}

#[tokio::test]
async fn every_leaf_field_is_resolved_once_per_key_and_weighs_what_it_costs() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let walk = Walk::new(fixture(&app, &team).await);
    let calls = ResolverCalls::default();
    let services = harness::services(app.test.db.clone()).await;
    let settings = Settings {
        introspection: true,
        intervals: CheckIntervals::default(),
        ..Settings::default()
    };
    let engine = Engine::build_counted(services, settings, &calls).unwrap();
    let counted = Counted { engine, calls, bearer: team["owner"].bearer.clone() };
    let (mut faults, mut walked) = (Vec::new(), 0);
    let paths = walk.paths();
    for on in walk.objects().filter(|on| !UNREADABLE.contains(on)) {
        let leaves = walk.leaves(on);
        let Some(first) = leaves.first() else { continue };
        let paths = paths.get(on).map_or(&[][..], Vec::as_slice);
        let found = counted.path_with_rows(paths, &format!("{on}.{first}"), first).await;
        let Some((path, rows)) = found else {
            faults.push(format!("no way to a row of {on}, of {} tried", paths.len()));
            continue;
        };
        for leaf in &leaves {
            let resolver = format!("{on}.{leaf}");
            let once = document(path, leaf);
            let repeated = document(path, &format!("{leaf} ").repeat(REPEATED));
            let aliases: Vec<_> = (0..ALIASES).map(|n| format!("a{n}: {leaf}")).collect();
            let under_aliases = document(path, &aliases.join(" "));
            let (_, calls) = counted.ask(&under_aliases, &resolver).await;
            if calls != rows * ALIASES {
                faults.push(format!(
                    "{resolver} is called {calls} times with {ALIASES} aliases, {rows} rows"
                ));
            }
            {
                let (answer, _) = counted.ask(&once, &resolver).await;
                let (again, calls) = counted.ask(&repeated, &resolver).await;
                if (calls, again.text.len()) != (rows, answer.text.len()) {
                    faults.push(format!(
                        "{resolver} is called {calls} times with one key, {rows} rows"
                    ));
                }
            }
            let weights =
                [&once, &repeated, &under_aliases].map(|text| counted.engine.weight(text).unwrap());
            if weights[0] == 0 || weights != [weights[0], weights[0], weights[0] * ALIASES as u64] {
                faults.push(format!("{resolver} weighs {weights:?}"));
            }
            walked += 1;
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(walked > 250, "{walked} fields");
}
