//! A fuzz test of tenant isolation with two organizations: no request reads or changes rows of the other organization.
//!
//! Users of every role and API keys send random requests with ids, cursors and texts of both organizations, over a few
//! database connections. Some requests are dropped at an await point, and some fail in the middle of a transaction.
//!
//! The default is 2,000 requests; set e.g. `FUZZ_REQUESTS=10000 FUZZ_SEED=7` for more requests with another seed. Each
//! organization has a mark. Every text of an organization contains its mark, and every request id begins with the mark
//! of the sender's organization.
//!
//! Long, because the generator and the checker of requests share their state.

use std::{
    collections::{BTreeMap, HashMap},
    future::poll_fn,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use domain::{
    Origin,
    access::permission::Permission,
    compliance::rule::Severity,
    entity::{self, FindingId, UserId},
    testing::compliance::{FindingFixture, RuleContent, RuleFixture, RunFixture, posture},
};
use graphql::Client;
use serde_json::{Value, json};

use crate::{
    harness::{self, PASSWORD, Person, Reply, SET_BURIED, Team, TestApp},
    sdl::{fields, roots, types},
};

mod documents;
mod rows;

use documents::{DOCUMENTS, FLEET_DOCUMENTS};

/// Number of requests that run concurrently.
const CONCURRENCY: usize = 16;
/// Number of database connections that the requests share.
const CONNECTIONS: usize = 4;
/// Mark of each organization, so long that random cursors and secrets do not contain a mark by chance.
const MARKS: [&str; 2] = ["alfa-works", "bravo-works"];

/// A pseudorandom number generator (splitmix64) with the same sequence for the same seed.
#[derive(Clone)]
struct Rng(u64);

impl Rng {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Ids and texts of one organization, from which requests are built. Values in responses are added during the test.
#[derive(Default)]
struct KnownValues {
    by_prefix: BTreeMap<String, Vec<String>>,
    codes: Vec<String>,
    cursors: Vec<String>,
    emails: Vec<String>,
    refreshes: Vec<String>,
}

impl KnownValues {
    fn learn(&mut self, id: &str) {
        let prefix = id.split('_').next().unwrap_or_default().to_owned();
        let known = self.by_prefix.entry(prefix).or_default();
        if !known.iter().any(|value| value == id) {
            known.push(id.to_owned());
            if known.len() > 400 {
                known.remove(0);
            }
        }
    }
}

/// A caller that sends requests, and that is signed in again after it lost access.
struct FuzzCaller {
    org: usize,
    /// User and role; `None` for an API key.
    member: Option<(UserId, &'static str)>,
    bearer: Mutex<String>,
}

/// Counters of one test run.
#[derive(Debug, Default)]
struct Tally {
    sent: AtomicUsize,
    answered: AtomicUsize,
    dropped: AtomicUsize,
    restored: AtomicUsize,
    ids: AtomicUsize,
    codes: Mutex<BTreeMap<String, usize>>,
    /// Number of answers without an error, per document.
    served: Mutex<BTreeMap<(&'static str, &'static str), usize>>,
}

struct Fuzz {
    app: TestApp,
    /// Connection of a database superuser.
    admin: tokio_postgres::Client,
    teams: [Team; 2],
    callers: Vec<FuzzCaller>,
    known: Mutex<[KnownValues; 2]>,
    /// Ids from responses, each with the organization that received it.
    seen_ids: Mutex<HashMap<String, usize>>,
    faults: Mutex<Vec<String>>,
    tally: Tally,
}

impl Fuzz {
    async fn new() -> Self {
        let app = TestApp::with_connections(CONNECTIONS).await;
        let teams = [app.team(MARKS[0]).await, app.team(MARKS[1]).await];
        let mut callers = Vec::new();
        let mut known = [KnownValues::default(), KnownValues::default()];
        for (org, team) in teams.iter().enumerate() {
            let known = &mut known[org];
            known.learn(&team.org.id.to_string());
            for role in ["owner", "admin", "operator", "viewer"] {
                let person = &team[role];
                callers.push(FuzzCaller::member(org, role, person));
                known.learn(&person.id.to_string());
                known.emails.push(person.email.clone());
                known.refreshes.push(person.refresh.clone());
                for local in ["second", "bystander"] {
                    let name = format!("{} {local} {role}", MARKS[org]);
                    let local = format!("{local}-{role}");
                    let person = app.person(&team.org, &local, &name, &[role]).await;
                    known.learn(&person.id.to_string());
                    known.emails.push(person.email.clone());
                    if local.starts_with("second") {
                        callers.push(FuzzCaller::member(org, role, &person));
                    }
                }
            }
            for permissions in [
                &[Permission::AssetRead][..],
                &[
                    Permission::AssetRead,
                    Permission::AssetWrite,
                    Permission::AssetDelete,
                    Permission::AuditRead,
                    Permission::UserRead,
                    Permission::WaiverGrant,
                ],
            ] {
                let name = format!("{} key {}", MARKS[org], permissions.len());
                let (key, secret) = app.api_key(team, &name, permissions).await;
                known.learn(&key.to_string());
                callers.push(FuzzCaller { org, member: None, bearer: Mutex::new(secret) });
            }
        }
        let fuzz = Self {
            admin: app.test.superuser().await,
            app,
            teams,
            callers,
            known: Mutex::new(known),
            seen_ids: Mutex::default(),
            faults: Mutex::default(),
            tally: Tally::default(),
        };
        // The audit trail records the deletion of rows in these tables only as a change of the asset, so a trigger
        // stores the deleted ids.
        let remember = "CREATE TABLE gone (org_id uuid, id uuid);
            CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
            BEGIN INSERT INTO public.gone VALUES (OLD.org_id, OLD.id); RETURN NULL; END $$;
            CREATE TRIGGER remember AFTER DELETE ON dependency FOR EACH ROW EXECUTE FUNCTION remember();
            CREATE TRIGGER remember AFTER DELETE ON finding FOR EACH ROW EXECUTE FUNCTION remember();
            CREATE TRIGGER remember AFTER DELETE ON custody FOR EACH ROW EXECUTE FUNCTION remember();";
        fuzz.admin.batch_execute(remember).await.unwrap();
        fuzz.seed().await;
        fuzz
    }

    /// Creates thirty assets and twelve jobs per organization, and learns the ids of their first pages.
    async fn seed(&self) {
        for (org, team) in self.teams.iter().enumerate() {
            let owner = team["owner"].bearer.as_str();
            let create = "mutation($name: String!, $user: ID!) { createAsset(input: { name: $name, type: HOST, owner: $user }) { id code } }";
            for number in 0..30 {
                let name = format!("{} host {number}", MARKS[org]);
                let role = ["owner", "admin", "operator", "viewer"][number % 4];
                let reply = self
                    .app
                    .ask(owner, create, json!({ "name": name, "user": team[role].id }))
                    .await;
                let asset = &reply.data()["createAsset"];
                let mut known = self.known.lock().unwrap();
                known[org].learn(asset["id"].as_str().unwrap());
                known[org].codes.push(asset["code"].as_str().unwrap().to_owned());
            }
            for number in 0..12 {
                let state = ["", "watched = true", SET_BURIED][number % 3];
                let mark = format!("subject = '{0} thing {number}', kind = '{0}'", MARKS[org]);
                let set = if state.is_empty() { mark } else { format!("{mark}, {state}") };
                let job = self.app.job(team, &set).await;
                self.known.lock().unwrap()[org].learn(&job.to_string());
            }
            self.seed_compliance(org, team).await;
            let list = "{
                roles { id } viewer { sessions { id } } auditEntries(first: 20) { nodes { id } edges { cursor } }
                assets(first: 9, orderBy: { field: NAME }) { edges { cursor } } users(first: 5) { edges { cursor } }
            }";
            let reply = self.app.ask(owner, list, json!({})).await;
            self.learn(org, reply.data());
        }
    }

    /// Inserts a rule that some assets violate, and runs with the findings.
    async fn seed_compliance(&self, org: usize, team: &Team) {
        let now = harness::now();
        let tx = self.app.test.write(team.org.id, Origin::system()).await.unwrap();
        let text = RuleContent { condition: "has(owner.id)", evidence: &[], controls: &[] };
        let key = format!("{}-rule", MARKS[org]);
        let rules = [RuleFixture::insert(&tx, &key, 0, Severity::High, text, now).await.unwrap()];
        let assets = self.known.lock().unwrap()[org].by_prefix["ast"][..12].to_vec();
        let mut learned = vec![rules[0].id.to_string()];
        for asset in assets {
            let (asset, soon) = (asset.parse().unwrap(), now + TimeDelta::hours(1));
            posture(&tx, asset, &rules, "F", &[(0, soon, 'P')], now).await.unwrap();
            let finding = FindingFixture::open(now).insert(&tx, asset, &rules[0]).await.unwrap();
            learned.push(FindingId::from(finding).to_string());
        }
        for minute in 0..8 {
            let ended = now - TimeDelta::minutes(8 - minute);
            let tallies = vec![[1, 1, 0, 0, 0]];
            let run = RunFixture { tallies, ..RunFixture::succeeded(ended, ended) };
            learned.push(run.insert(&tx, &rules).await.unwrap().to_string());
        }
        tx.commit().await.unwrap();
        let mut known = self.known.lock().unwrap();
        for id in &learned {
            known[org].learn(id);
        }
    }

    /// Checks the ids in a response to an organization, and learns its ids and cursors.
    fn learn(&self, org: usize, value: &Value) {
        match value {
            Value::String(text) if entity::split(text).is_some() => {
                self.tally.ids.fetch_add(1, Ordering::Relaxed);
                let before = self.seen_ids.lock().unwrap().insert(text.clone(), org);
                if before.is_some_and(|before| before != org) {
                    self.fault(format!("{text} was shown to both"));
                }
                self.known.lock().unwrap()[org].learn(text);
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn(org, item)),
            Value::Object(object) => {
                for (key, value) in object {
                    if let (true, Some(cursor)) =
                        (key.to_lowercase().ends_with("cursor"), value.as_str())
                    {
                        let cursors = &mut self.known.lock().unwrap()[org].cursors;
                        if cursors.len() < 400 {
                            cursors.push(cursor.to_owned());
                        }
                    }
                    self.learn(org, value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn fault(&self, fault: String) {
        self.faults.lock().unwrap().push(fault);
    }

    /// Sends a random document as a random caller.
    async fn request(&self, mut rng: Rng, number: usize, only: Option<usize>) {
        let callers: Vec<_> =
            self.callers.iter().filter(|caller| only.is_none_or(|org| caller.org == org)).collect();
        let mut caller = *rng.pick(&callers);
        if !caller.is_admin() && rng.chance(50) {
            caller = *rng.pick(&callers);
        }
        let document = *rng.pick(DOCUMENTS);
        self.send(rng, number, caller, document).await;
    }

    /// Repeats each document that always returned an error until it succeeds once. A document that never succeeds tests
    /// nothing.
    async fn cover_documents(&self, seed: u64) {
        let owners: Vec<_> = self
            .callers
            .iter()
            .filter(|caller| caller.member.is_some_and(|(_, role)| role == "owner"))
            .collect();
        for (number, document) in DOCUMENTS.iter().enumerate() {
            for attempt in 0..300 {
                if FLEET_DOCUMENTS.contains(&document.1)
                    || self.tally.served.lock().unwrap().contains_key(document)
                {
                    break;
                }
                let number = 1_000_000 + number * 1_000 + attempt;
                let mut rng = Rng(seed ^ number as u64);
                let owner = *rng.pick(&owners);
                self.restore(owner).await;
                // The response makes the caller's own ids the most recently learned ids.
                self.send(rng.clone(), number, owner, DOCUMENTS[0]).await;
                self.send(rng, number, owner, *document).await;
            }
        }
        self.settle().await;
    }

    /// Sends one request, drops it early with some probability, and checks the answer.
    async fn send(
        &self,
        mut rng: Rng,
        number: usize,
        caller: &FuzzCaller,
        (root, text): (&'static str, &'static str),
    ) {
        let modest = !caller.is_admin() && rng.chance(80);
        let (document, variables) = self.document(&mut rng, caller.org, text, modest);
        let address = IpAddr::V4(Ipv4Addr::new(
            10,
            u8::try_from(rng.below(256)).unwrap(),
            u8::try_from(rng.below(256)).unwrap(),
            1,
        ));
        let client = Client { address, request_id: format!("{}-{number}", MARKS[caller.org]) };
        let bearer = caller.bearer.lock().unwrap().clone();
        self.tally.sent.fetch_add(1, Ordering::Relaxed);
        let response =
            harness::ask(&self.app.engine, Some(&bearer), &document, variables.clone(), client);
        let reply = if rng.chance(20) {
            poll_and_drop(response, rng.below(25)).await
        } else {
            let answer = tokio::time::timeout(Duration::from_secs(30), response).await;
            Some(answer.unwrap_or_else(|_| panic!("no answer within 30 s: {document} {variables}")))
        };
        let Some(reply) = reply else {
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.tally.answered.fetch_add(1, Ordering::Relaxed);
        self.check(caller.org, &reply, &document, &variables);
        if reply.errors().is_empty() {
            *self.tally.served.lock().unwrap().entry((root, text)).or_default() += 1;
        }
        if reply.errors().iter().any(|error| error["extensions"]["code"] == "UNAUTHENTICATED")
            && root != "login"
            && root != "refreshSession"
        {
            self.restore(caller).await;
        }
    }

    fn check(&self, org: usize, reply: &Reply, document: &str, variables: &Value) {
        let context = || format!("{document}\n{variables}\n{}", reply.json);
        let mut answer = reply.json.clone();
        // Secrets are random, so a mark in a secret has no meaning.
        if let Some(secret) = answer.pointer_mut("/data/createApiKey/secret") {
            *secret = Value::Null;
        }
        if answer.to_string().to_lowercase().contains(MARKS[1 - org]) {
            self.fault(format!(
                "the other organization's mark is in an answer to {}:\n{}",
                MARKS[org],
                context()
            ));
        }
        self.learn(org, &answer["data"]);
        for error in reply.errors() {
            let code = error["extensions"]["code"].as_str().unwrap_or("NONE");
            *self.tally.codes.lock().unwrap().entry(code.to_owned()).or_default() += 1;
            let printed = error.to_string().to_lowercase();
            let leaks =
                ["panick", "postgres", "src/", "at line"].iter().any(|word| printed.contains(word));
            // `DEPENDENCY_UNAVAILABLE` is allowed: the request waited too long for a connection, or was the victim of a
            // deadlock.
            if leaks
                || matches!(
                    code,
                    "NONE" | "INTERNAL" | "TIMEOUT" | "RATE_LIMITED" | "QUERY_TOO_COMPLEX"
                )
            {
                self.fault(format!("an unexpected answer:\n{}", context()));
            }
        }
    }

    /// Restores a caller that was signed out, deactivated or demoted during the test.
    async fn restore(&self, caller: &FuzzCaller) {
        self.tally.restored.fetch_add(1, Ordering::Relaxed);
        let org = self.teams[caller.org].org.id.uuid();
        let Some((user, role)) = caller.member else {
            let revive = format!("UPDATE api_key SET revoked_at = NULL WHERE org_id = '{org}'");
            self.admin.batch_execute(&revive).await.unwrap();
            return;
        };
        let uuid = user.uuid();
        // Each statement runs in its own transaction and skips locked rows, so that no deadlock with requests is
        // possible.
        for sql in [
            "DELETE FROM login_guard WHERE ctid IN (SELECT ctid FROM login_guard FOR UPDATE SKIP LOCKED)".to_owned(),
            format!("UPDATE \"user\" SET password_hash = '{}' WHERE id = '{uuid}'", self.app.hash),
            format!("UPDATE membership SET active = true WHERE org_id = '{org}' AND user_id = '{uuid}'"),
            format!(
                "INSERT INTO membership_role (org_id, user_id, role_id)
                 SELECT '{org}', '{uuid}', id FROM role WHERE org_id = '{org}' AND key = '{role}' ON CONFLICT DO NOTHING"
            ),
        ] {
            self.admin.batch_execute(&sql).await.unwrap();
        }
        let email =
            self.rows(&format!("SELECT email FROM \"user\" WHERE id = '{uuid}'")).await.remove(0);
        let from = domain::access::identity::RequestInfo {
            address: "10.0.0.1".parse().unwrap(),
            request_id: format!("{}-heal", MARKS[caller.org]),
            now: harness::now(),
        };
        // If another request has locked the account again meanwhile, the next failed request restores the caller.
        if let Ok(tokens) = self.app.identity.login(&email, PASSWORD, &from).await {
            *caller.bearer.lock().unwrap() = tokens.access_token;
            let refreshes = &mut self.known.lock().unwrap()[caller.org].refreshes;
            refreshes.push(tokens.refresh_token);
        }
    }

    /// Sends this number of requests, from all callers or from the callers of one organization.
    async fn run(self: &Arc<Self>, seed: u64, requests: usize, only: Option<usize>) {
        let next = Arc::new(AtomicUsize::new(0));
        let workers = (0..CONCURRENCY).map(|_| {
            let (fuzz, next) = (Arc::clone(self), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return;
                    }
                    let rng = Rng(seed ^ (number as u64).wrapping_mul(0xd134_2543_de82_ef95));
                    fuzz.request(rng, number, only).await;
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
        self.settle().await;
    }

    /// Waits until the transactions of dropped requests have ended and all connections are idle.
    async fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let row = self
                .admin
                .query_one(
                    "SELECT count(*) FILTER (WHERE state <> 'idle') AS busy, count(*) AS all FROM pg_stat_activity
                     WHERE datname = current_database() AND usename = 'sentryops_test'",
                    &[],
                )
                .await
                .unwrap();
            let (busy, all): (i64, i64) = (row.get("busy"), row.get("all"));
            if busy == 0 && all <= i64::try_from(CONNECTIONS).unwrap() + 8 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{busy} of {all} connections are still in a transaction"
            );
            tokio::task::yield_now().await;
        }
    }
}

impl FuzzCaller {
    fn is_admin(&self) -> bool {
        self.member.is_some_and(|(_, role)| matches!(role, "owner" | "admin"))
    }

    fn member(org: usize, role: &'static str, person: &Person) -> Self {
        let member = Some((person.id, role));
        Self { org, member, bearer: Mutex::new(person.bearer.clone()) }
    }
}

/// Polls a future this number of times, then drops it, as the HTTP layer does when the client disconnects.
async fn poll_and_drop<T>(future: impl Future<Output = T>, mut polls: usize) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if polls == 0 => Poll::Ready(None),
        Poll::Pending => {
            polls -= 1;
            Poll::Pending
        }
    })
    .await
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the figures of a run are its result")]
async fn nothing_of_another_organization_is_seen_or_changed() {
    let fuzz = Arc::new(Fuzz::new().await);
    let (seed, requests) =
        (number("FUZZ_SEED", 1), usize::try_from(number("FUZZ_REQUESTS", 2_000)).unwrap());
    let started = Instant::now();
    for sender in [0, 1] {
        let before = fuzz.digest(1 - sender).await;
        fuzz.run(seed + sender as u64, requests / 4, Some(sender)).await;
        let after = fuzz.digest(1 - sender).await;
        assert_eq!(before, after, "{} changed rows of {}", MARKS[sender], MARKS[1 - sender]);
    }
    fuzz.run(seed + 2, requests - requests / 4 * 2, None).await;
    fuzz.cover_documents(seed + 3).await;
    fuzz.check_rows().await;
    fuzz.check_seen_ids().await;
    let deadlocks = fuzz
        .rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        .await;
    let faults = fuzz.faults.lock().unwrap();
    let (tally, took) = (&fuzz.tally, started.elapsed());
    eprintln!("{tally:#?} in {took:?}, {} faults, {deadlocks:?} deadlocks", faults.len());
    let served = tally.served.lock().unwrap();
    let unserved: Vec<_> = DOCUMENTS
        .iter()
        .filter(|document| !served.contains_key(document) && !FLEET_DOCUMENTS.contains(&document.1))
        .filter(|(root, _)| !root.ends_with("Invitation")) // Random requests hardly meet an open invitation.
        .collect();
    assert!(unserved.is_empty(), "never answered without an error: {unserved:#?}");
    assert!(
        faults.is_empty(),
        "{} faults, among them:\n{}",
        faults.len(),
        faults.iter().take(5).cloned().collect::<Vec<_>>().join("\n\n")
    );
}

#[test]
fn requests_at_random_know_every_root_field() {
    let known: Vec<_> = DOCUMENTS.iter().map(|(root, _)| (*root).to_owned()).collect();
    for root in ["Query", "Mutation"].into_iter().flat_map(roots) {
        assert!(known.contains(&root), "{root} is in no document of tests/it/tenancy.rs: add one");
    }
}

/// Checks that every argument of type `ID` gets random ids of both organizations.
#[test]
fn requests_at_random_fill_every_argument_that_is_an_id() {
    for definition in types(&graphql::sdl()) {
        if !matches!(definition.name.node.as_str(), "Query" | "Mutation") {
            continue;
        }
        for field in fields(&definition) {
            let name = field.node.name.node.as_str();
            for argument in &field.node.arguments {
                if argument.node.ty.node.to_string().trim_end_matches('!') != "ID" {
                    continue;
                }
                let filled = format!("{name}({}: $", argument.node.name.node);
                assert!(
                    DOCUMENTS.iter().any(|(_, text)| text.contains(&filled)),
                    "{name}({}) is filled by no document of tests/it/tenancy.rs",
                    argument.node.name.node
                );
            }
        }
    }
}
