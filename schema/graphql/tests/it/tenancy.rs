//! Two organizations, and requests at random: of every role and of API keys, with ids, cursors and texts of either, some
//! dropped at an await, some failing in mid-transaction, on few connections. Nothing foreign is seen, nothing changed.
//!
//! 2,000 requests in the suite; `FUZZ_REQUESTS=10000 FUZZ_SEED=7` for more and others. Everything that belongs to an
//! organization carries its mark, and every request id begins with the organization that asks.
//!
//! Long: one generator, one checker, and what they share.

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
    testing::compliance::{FindingFixture, RuleFixture, RuleText, RunFixture, posture},
};
use graphql::Client;
use serde_json::{Value, json};

use crate::{
    harness::{self, BURIED, PASSWORD, Person, Reply, Team, TestApp},
    sdl::{fields, roots, types},
};

mod documents;
mod rows;

use documents::{DOCUMENTS, OF_THE_FLEET};

/// Requests at once.
const AT_ONCE: usize = 16;
/// Connections that they share.
const CONNECTIONS: usize = 4;
/// Whose mark is whose.
const MARKS: [&str; 2] = ["alfa", "bravo"];

/// Numbers that look random and are the same each time (splitmix64).
#[derive(Clone)]
struct Rng(u64);

impl Rng {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.roll(100) < percent
    }
}

/// Ids and texts of one organization that requests are made of; what a response shows is added.
#[derive(Default)]
struct Known {
    by_prefix: BTreeMap<String, Vec<String>>,
    codes: Vec<String>,
    cursors: Vec<String>,
    emails: Vec<String>,
    refreshes: Vec<String>,
}

impl Known {
    fn learn(&mut self, id: &str) {
        let prefix = id.split('_').next().unwrap_or_default().to_owned();
        let known = self.by_prefix.entry(prefix).or_default();
        if !known.iter().any(|one| one == id) {
            known.push(id.to_owned());
            if known.len() > 400 {
                known.remove(0);
            }
        }
    }
}

/// Somebody who asks, and who comes back when they are shut out.
struct Asker {
    org: usize,
    /// A user with this role, or a key.
    member: Option<(UserId, &'static str)>,
    bearer: Mutex<String>,
}

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    asked: AtomicUsize,
    answered: AtomicUsize,
    dropped: AtomicUsize,
    healed: AtomicUsize,
    ids: AtomicUsize,
    codes: Mutex<BTreeMap<String, usize>>,
    /// How often each document was answered without an error.
    served: Mutex<BTreeMap<(&'static str, &'static str), usize>>,
}

struct Fuzz {
    app: TestApp,
    /// A superuser.
    admin: tokio_postgres::Client,
    teams: [Team; 2],
    askers: Vec<Asker>,
    known: Mutex<[Known; 2]>,
    /// Every id that a response showed to an organization.
    shown: Mutex<HashMap<String, usize>>,
    faults: Mutex<Vec<String>>,
    tally: Tally,
}

impl Fuzz {
    async fn new() -> Self {
        let app = TestApp::narrow(CONNECTIONS).await;
        let teams = [app.team(MARKS[0]).await, app.team(MARKS[1]).await];
        let mut askers = Vec::new();
        let mut known = [Known::default(), Known::default()];
        for (org, team) in teams.iter().enumerate() {
            let known = &mut known[org];
            known.learn(&team.org.id.to_string());
            for role in ["owner", "admin", "operator", "viewer"] {
                let person = &team[role];
                askers.push(Asker::member(org, role, person));
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
                        askers.push(Asker::member(org, role, &person));
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
                    Permission::ApiKeyManage,
                ],
            ] {
                let name = format!("{} key {}", MARKS[org], permissions.len());
                let (key, secret) = app.api_key(team, &name, permissions).await;
                known.learn(&key.to_string());
                askers.push(Asker { org, member: None, bearer: Mutex::new(secret) });
            }
        }
        let fuzz = Self {
            admin: app.test.superuser().await,
            app,
            teams,
            askers,
            known: Mutex::new(known),
            shown: Mutex::default(),
            faults: Mutex::default(),
            tally: Tally::default(),
        };
        // What is deleted was theirs, and is recorded under its asset only.
        let remember = "CREATE TABLE gone (org_id uuid, id uuid);
            CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
            BEGIN INSERT INTO public.gone VALUES (OLD.org_id, OLD.id); RETURN NULL; END $$;
            CREATE TRIGGER remember AFTER DELETE ON dependency FOR EACH ROW EXECUTE FUNCTION remember();
            CREATE TRIGGER remember AFTER DELETE ON finding FOR EACH ROW EXECUTE FUNCTION remember();
            CREATE TRIGGER remember AFTER DELETE ON custody FOR EACH ROW EXECUTE FUNCTION remember();";
        fuzz.admin.batch_execute(remember).await.unwrap();
        fuzz.furnish().await;
        fuzz
    }

    /// Thirty assets, twelve jobs, and what their first pages show.
    async fn furnish(&self) {
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
                let state = ["", "watched = true", BURIED][number % 3];
                let mark = format!("subject = '{0} thing {number}', kind = '{0}'", MARKS[org]);
                let set = if state.is_empty() { mark } else { format!("{mark}, {state}") };
                let job = self.app.job(team, &set).await;
                self.known.lock().unwrap()[org].learn(&job.to_string());
            }
            self.judge(org, team).await;
            let list = "{
                roles { id } viewer { sessions { id } } auditEntries(first: 20) { nodes { id } edges { cursor } }
                assets(first: 9, orderBy: { field: NAME }) { edges { cursor } } users(first: 5) { edges { cursor } }
            }";
            let reply = self.app.ask(owner, list, json!({})).await;
            self.hear(org, reply.data());
        }
    }

    /// A rule that some assets break, and runs that saw it.
    async fn judge(&self, org: usize, team: &Team) {
        let now = harness::now();
        let tx = self.app.test.write(team.org.id, Origin::system()).await.unwrap();
        let text = RuleText { condition: "has(owner.id)", evidence: &[], controls: &[] };
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

    /// Checks what an organization was shown, and learns its ids and cursors.
    fn hear(&self, org: usize, value: &Value) {
        match value {
            Value::String(text) if entity::split(text).is_some() => {
                self.tally.ids.fetch_add(1, Ordering::Relaxed);
                let before = self.shown.lock().unwrap().insert(text.clone(), org);
                if before.is_some_and(|before| before != org) {
                    self.fault(format!("{text} was shown to both"));
                }
                self.known.lock().unwrap()[org].learn(text);
            }
            Value::Array(items) => items.iter().for_each(|item| self.hear(org, item)),
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
                    self.hear(org, value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn fault(&self, fault: String) {
        self.faults.lock().unwrap().push(fault);
    }

    /// One request of anybody for anything.
    async fn request(&self, mut rng: Rng, number: usize, only: Option<usize>) {
        let askers: Vec<_> =
            self.askers.iter().filter(|asker| only.is_none_or(|org| asker.org == org)).collect();
        let mut asker = *rng.pick(&askers);
        if !asker.is_strong() && rng.chance(50) {
            asker = *rng.pick(&askers);
        }
        let document = *rng.pick(DOCUMENTS);
        self.put(rng, number, asker, document).await;
    }

    /// Asks what luck left unanswered until it was answered once: a document that can never be served tests nothing.
    async fn insist(&self, seed: u64) {
        let owners: Vec<_> = self
            .askers
            .iter()
            .filter(|asker| asker.member.is_some_and(|(_, role)| role == "owner"))
            .collect();
        for (number, document) in DOCUMENTS.iter().enumerate() {
            for attempt in 0..300 {
                if OF_THE_FLEET.contains(&document.1)
                    || self.tally.served.lock().unwrap().contains_key(document)
                {
                    break;
                }
                let number = 1_000_000 + number * 1_000 + attempt;
                let mut rng = Rng(seed ^ number as u64);
                let owner = *rng.pick(&owners);
                self.heal(owner).await;
                // So that what is known last is this asker's own.
                self.put(rng.clone(), number, owner, DOCUMENTS[0]).await;
                self.put(rng, number, owner, *document).await;
            }
        }
        self.settle().await;
    }

    /// One request: asked, perhaps dropped, checked.
    async fn put(
        &self,
        mut rng: Rng,
        number: usize,
        asker: &Asker,
        (root, text): (&'static str, &'static str),
    ) {
        let modest = !asker.is_strong() && rng.chance(80);
        let (document, variables) = self.document(&mut rng, asker.org, text, modest);
        let address = IpAddr::V4(Ipv4Addr::new(
            10,
            u8::try_from(rng.roll(256)).unwrap(),
            u8::try_from(rng.roll(256)).unwrap(),
            1,
        ));
        let client = Client { address, request_id: format!("{}-{number}", MARKS[asker.org]) };
        let bearer = asker.bearer.lock().unwrap().clone();
        self.tally.asked.fetch_add(1, Ordering::Relaxed);
        let coming =
            harness::ask(&self.app.engine, Some(&bearer), &document, variables.clone(), client);
        let reply = if rng.chance(20) {
            abandoned(coming, rng.roll(25)).await
        } else {
            let answer = tokio::time::timeout(Duration::from_secs(30), coming).await;
            Some(answer.unwrap_or_else(|_| panic!("no answer within 30 s: {document} {variables}")))
        };
        let Some(reply) = reply else {
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.tally.answered.fetch_add(1, Ordering::Relaxed);
        self.check(asker.org, &reply, &document, &variables);
        if reply.errors().is_empty() {
            *self.tally.served.lock().unwrap().entry((root, text)).or_default() += 1;
        }
        if reply.errors().iter().any(|error| error["extensions"]["code"] == "UNAUTHENTICATED")
            && root != "login"
            && root != "refreshSession"
        {
            self.heal(asker).await;
        }
    }

    fn check(&self, org: usize, reply: &Reply, document: &str, variables: &Value) {
        let context = || format!("{document}\n{variables}\n{}", reply.json);
        let mut answer = reply.json.clone();
        // Secrets are random letters: a mark in them means nothing.
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
        self.hear(org, &answer["data"]);
        for error in reply.errors() {
            let code = error["extensions"]["code"].as_str().unwrap_or("NONE");
            *self.tally.codes.lock().unwrap().entry(code.to_owned()).or_default() += 1;
            let said = error.to_string().to_lowercase();
            let leaks =
                ["panick", "postgres", "src/", "at line"].iter().any(|word| said.contains(word));
            // `DEPENDENCY_UNAVAILABLE`: it waited too long for one of the few connections, or lost a deadlock.
            if leaks
                || matches!(
                    code,
                    "NONE" | "INTERNAL" | "TIMEOUT" | "RATE_LIMITED" | "QUERY_TOO_COMPLEX"
                )
            {
                self.fault(format!("an answer that should not be:\n{}", context()));
            }
        }
    }

    /// Somebody who was signed out, deactivated or demoted along the way comes back as they were.
    async fn heal(&self, asker: &Asker) {
        self.tally.healed.fetch_add(1, Ordering::Relaxed);
        let org = self.teams[asker.org].org.id.uuid();
        let Some((user, role)) = asker.member else {
            let revive = format!("UPDATE api_key SET revoked_at = NULL WHERE org_id = '{org}'");
            self.admin.batch_execute(&revive).await.unwrap();
            return;
        };
        let uuid = user.uuid();
        // Each by itself, and past what is locked: a request must not wait for two of them.
        for sql in [
            "DELETE FROM login_guard WHERE ctid IN (SELECT ctid FROM login_guard FOR UPDATE SKIP LOCKED)".to_owned(),
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
        let caller = domain::access::identity::Caller {
            address: "10.0.0.1".parse().unwrap(),
            request_id: format!("{}-heal", MARKS[asker.org]),
            now: harness::now(),
        };
        // Another request may have locked the account again meanwhile: then the next one heals.
        if let Ok(tokens) = self.app.identity.login(&email, PASSWORD, &caller).await {
            *asker.bearer.lock().unwrap() = tokens.access_token;
            let refreshes = &mut self.known.lock().unwrap()[asker.org].refreshes;
            refreshes.push(tokens.refresh_token);
        }
    }

    /// So many requests, of everybody or of one organization only.
    async fn run(self: &Arc<Self>, seed: u64, requests: usize, only: Option<usize>) {
        let next = Arc::new(AtomicUsize::new(0));
        let workers = (0..AT_ONCE).map(|_| {
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

    /// Waits until what dropped requests left behind is gone: no connection is in a transaction.
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

impl Asker {
    fn is_strong(&self) -> bool {
        self.member.is_some_and(|(_, role)| matches!(role, "owner" | "admin"))
    }

    fn member(org: usize, role: &'static str, person: &Person) -> Self {
        let member = Some((person.id, role));
        Self { org, member, bearer: Mutex::new(person.bearer.clone()) }
    }
}

/// Polls so many times, then drops it, as the edge does when the client hangs up.
async fn abandoned<T>(future: impl Future<Output = T>, mut polls: usize) -> Option<T> {
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
    for asking in [0, 1] {
        let before = fuzz.digest(1 - asking).await;
        fuzz.run(seed + asking as u64, requests / 4, Some(asking)).await;
        let after = fuzz.digest(1 - asking).await;
        assert_eq!(before, after, "{} changed rows of {}", MARKS[asking], MARKS[1 - asking]);
    }
    fuzz.run(seed + 2, requests - requests / 4 * 2, None).await;
    fuzz.insist(seed + 3).await;
    fuzz.check_rows().await;
    fuzz.check_shown().await;
    let deadlocks = fuzz
        .rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        .await;
    let faults = fuzz.faults.lock().unwrap();
    let (tally, took) = (&fuzz.tally, started.elapsed());
    eprintln!("{tally:#?} in {took:?}, {} faults, {deadlocks:?} deadlocks", faults.len());
    let served = tally.served.lock().unwrap();
    let unserved: Vec<_> = DOCUMENTS
        .iter()
        .filter(|document| !served.contains_key(document) && !OF_THE_FLEET.contains(&document.1))
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

/// An id that goes in must be drawn from both organizations.
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
