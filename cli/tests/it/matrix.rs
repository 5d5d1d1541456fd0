//! Permissions: every statement of the contract, tried by every kind of caller, as HTTP requests.
//!
//! A refusal has the expected code, every forbidden path and no `data`, and changes no row. All other requests must
//! pass, unless a resolver rejects API keys. A stranger, the owner of another organization, reads and changes nothing
//! here.
//!
//! Long, because callers, fixtures and the loop over the table belong together.

mod sdl;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use domain::{
    Id, Origin,
    compliance::{
        rule::Severity,
        waiver::{Waiver, WaiverInput},
    },
    entity::{FindingId, ImportRunId, JobId, OrganizationId, RunId},
    testing::compliance::{FindingFixture, RuleContent, RuleFixture, RunFixture, posture},
};
use reqwest::header::HeaderMap;
use serde_json::json;
use table::{KEY_FIELDS, ROLES, Requires, Row, USER_FIELDS, needs_no_statement, rows};
use tokio_postgres::Client as Postgres;
use uuid::Uuid;

use crate::{
    client::{Answer, Client},
    server::{TestDeployment, command, run, text},
    team::{PASSWORD, Person, Team, chrono_now, sign_in, unique, word},
};

/// Mutations that fail for every caller, because their session, organization, invitation or password does not exist.
const ALWAYS_FAILING: [&str; 5] = [
    "Mutation.switchOrganization",
    "Mutation.changePassword",
    "Mutation.acceptInvitation",
    "Mutation.declineInvitation",
    "Mutation.revokeSession",
];

/// Text in the names of all objects that a stranger must never see.
const CANARY: &str = "canary-7b1f";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Anonymous,
    Viewer,
    Operator,
    Admin,
    Owner,
    /// API key with exactly the permissions that the row and its result require.
    KeyWith,
    /// API key with all other permissions.
    KeyWithout,
    /// Owner of another organization, without membership here.
    Stranger,
}

const CALLERS: [Caller; 8] = [
    Caller::Anonymous,
    Caller::Viewer,
    Caller::Operator,
    Caller::Admin,
    Caller::Owner,
    Caller::KeyWith,
    Caller::KeyWithout,
    Caller::Stranger,
];

impl Caller {
    fn is_key(self) -> bool {
        matches!(self, Self::KeyWith | Self::KeyWithout)
    }

    /// Returns the code of the expected refusal; `None` if the request must pass.
    fn refusal(self, needs: Requires) -> Option<&'static str> {
        let rank = match self {
            Self::Anonymous => return (needs != Requires::Anonymous).then_some("UNAUTHENTICATED"),
            Self::Viewer => 0,
            Self::Operator => 1,
            Self::Admin => 2,
            Self::Owner | Self::Stranger => 3,
            Self::KeyWith => return needs.is_for_no_key().then_some("FORBIDDEN"),
            Self::KeyWithout => {
                return matches!(needs, Requires::Take(_)).then_some("FORBIDDEN");
            }
        };
        let Requires::Take(permission) = needs else { return None };
        let has = ROLES[..=rank].iter().any(|(_, permissions)| permissions.contains(&permission));
        (!has).then_some("FORBIDDEN")
    }
}

#[test]
fn every_statement_of_the_schema_has_its_row() {
    let stated = sdl::read(&text(&run(command(&["schema"]), "").stdout));
    let table: BTreeMap<_, _> =
        rows().into_iter().map(|row| (row.of, (row.states, row.own))).collect();
    assert_eq!(table, stated.statements);
    let known: BTreeSet<_> = stated
        .types
        .iter()
        .filter(|name| !needs_no_statement(name) && !table.contains_key(*name))
        .collect();
    assert_eq!(known, BTreeSet::new(), "types without a statement");
}

const RUN: &str =
    "INSERT INTO compliance_run (org_id, id, state, trigger, actor_kind, shards, started_at)
    VALUES ($1, $2, 'QUEUED', 'MANUAL', 'system', 1, now())";

const IMPORT: &str = "INSERT INTO import_run (org_id, id, kind, format, state, dry_run, empty_cells, actor_kind, started_at, advanced_at)
    VALUES ($1, $2, 'ASSETS', 'CSV', 'QUEUED', false, 'KEEP', 'system', now(), now())";

const JOB: &str = "INSERT INTO job (org_id, id, queue, kind, version, payload, subject, state, priority, run_at, max_attempts,
                     actor_kind, queued_at, changed_at)
    VALUES ($1, $2, 'SCAN', 'scan.shard', 1, '{}', $4, $3, 0, now(), 3, 'system', now(), now())";

fn org(team: &Team) -> Uuid {
    domain::entity::split(&team.id).unwrap().1
}

/// Objects that two runs created for an asset that fails a rule.
struct ComplianceFixture {
    rule: String,
    finding: String,
    waiver: String,
    runs: [String; 2],
}

impl ComplianceFixture {
    async fn insert(deployment: &TestDeployment, team: &Team, asset: &str) -> Self {
        let (now, asset) = (chrono_now(), asset.parse().unwrap());
        let tx = deployment.db.write(Id::from(org(team)), Origin::system()).await.unwrap();
        let text = RuleContent {
            condition: "has(owner.id)",
            evidence: &[],
            controls: &[("NIST", "CM-8")],
        };
        let rules = [RuleFixture::insert(&tx, "owned", 0, Severity::Low, text, now).await.unwrap()];
        posture(&tx, asset, &rules, "F", &[], now).await.unwrap();
        let finding = FindingFixture::open(now).insert(&tx, asset, &rules[0]).await.unwrap();
        let mut runs = Vec::new();
        for minutes in [2, 1] {
            let at = now - chrono::TimeDelta::minutes(minutes);
            let run =
                RunFixture { tallies: vec![[0, 1, 0, 0, 0]], ..RunFixture::succeeded(at, at) };
            runs.push(run.insert(&tx, &rules).await.unwrap().to_string());
        }
        let input = WaiverInput {
            rule: rules[0].id,
            asset: None,
            reason: format!("Waiver {CANARY}"),
            expires_at: now + chrono::TimeDelta::days(30),
        };
        let waiver = Waiver::grant(&tx, &input, now).await.unwrap();
        tx.commit().await.unwrap();
        Self {
            rule: rules[0].id.to_string(),
            finding: FindingId::from(finding).to_string(),
            waiver: waiver.id.to_string(),
            runs: runs.try_into().unwrap(),
        }
    }
}

/// Organization with one object of each kind, all callers, and a superuser connection that detects changes.
struct PermissionFixture {
    team: Team,
    people: [Person; 4],
    stranger: Person,
    keys: BTreeMap<&'static str, [String; 2]>,
    ids: Vec<(&'static str, String)>,
    postgres: Postgres,
}

/// Creates two API keys per permission in the table: one with it, and one with all others.
async fn keys_of(team: &Team) -> BTreeMap<&'static str, [String; 2]> {
    let mut keys = BTreeMap::new();
    let all = ROLES.iter().flat_map(|(_, names)| names.iter().copied());
    let all: Vec<_> = all.filter(|name| !Requires::Take(name).is_for_no_key()).collect();
    let taken = rows().into_iter().filter_map(|row| match row.takes {
        Requires::Take(permission) => Some(permission),
        Requires::Anonymous | Requires::SignedIn => None,
    });
    for permission in taken.collect::<BTreeSet<_>>() {
        let others: Vec<_> = all.iter().copied().filter(|name| *name != permission).collect();
        let (_, without) = team.api_key("Without", &others).await;
        let with = if Requires::Take(permission).is_for_no_key() {
            without.clone()
        } else {
            team.api_key("With", &Row::permissions(permission)).await.1
        };
        keys.insert(permission, [with, without]);
    }
    keys
}

impl PermissionFixture {
    async fn set(deployment: &TestDeployment, team: Team, other: Team) -> Self {
        let owner = team.owner.client.clone();
        let role = "mutation { saveRole(key: \"manager\", name: \"Manager\", permissions: [USER_MANAGE]) { id } }";
        let role = word(&owner.get_data(role, json!({})).await["saveRole"]["id"]);
        let mut people = Vec::new();
        for (role, _) in &ROLES[..3] {
            people.push(team.member(role).await);
        }
        people.push(team.owner.clone());
        let user = team.invite("viewer", &format!("User {CANARY}")).await;
        let victim = team.invite("manager", "Victim").await;
        let leaver = team.invite("manager", "Leaver").await;
        let key = team.api_key(&format!("Key {CANARY}"), &["ASSET_READ"]).await.0;
        let old_key = team.api_key("Old key", &["ASSET_READ"]).await.0;
        let asset = team.asset(&format!("Asset {CANARY}"), "ACTIVE").await;
        let retired = team.asset("Retired", "RETIRED").await;
        let [needed, lent] =
            [team.asset("Needed", "ACTIVE").await, team.asset("Lent", "ACTIVE").await];
        let add = "mutation($id: ID!, $needed: ID!) { addDependency(source: $id, target: $needed) { id } }";
        let dependency = owner.get_data(add, json!({ "id": lent, "needed": needed })).await;
        let hand_out =
            "mutation($id: ID!, $to: ID!) { checkOutAsset(id: $id, holder: $to) { id } }";
        let custody = owner.get_data(hand_out, json!({ "id": lent, "to": user.0 })).await;
        let tag = format!("mutation {{ createTag(name: \"Tag {CANARY}\") {{ id }} }}");
        let tag = owner.get_data(&tag, json!({})).await;
        let entries = "{ auditEntries(first: 1) { nodes { id } } }";
        let entries = owner.get_data(entries, json!({})).await;
        let session = "{ viewer { sessions { id current } } }";
        let bystander = other.member("viewer").await;
        let session = bystander.client.get_data(session, json!({})).await;
        let keys = keys_of(&team).await;
        let run = RunId::new();
        let import = ImportRunId::new();
        let jobs = [JobId::new(), Id::new(), Id::new()];
        let save = format!(
            "mutation {{ saveSchedule(input: {{ name: \"Schedule {CANARY}\", cron: \"0 2 * * *\", action: COMPLIANCE_RUN }}) {{ id }} }}"
        );
        let schedule = owner.get_data(&save, json!({})).await;
        let in_a_month = (chrono_now() + chrono::TimeDelta::days(30)).to_rfc3339();
        let fixture = ComplianceFixture::insert(deployment, &team, &lent).await;
        let new_key =
            format!("{{ name: \"New\", permissions: [ASSET_READ], expiresAt: \"{in_a_month}\" }}");
        let ids = vec![
            ("%organization", team.id.clone()),
            ("%other", other.id.clone()),
            // A switch that succeeds would end the caller's token.
            ("%nowhere", OrganizationId::new().to_string()),
            ("%retired", retired),
            ("%needed", needed),
            ("%lent", lent),
            ("%dependency", word(&dependency["addDependency"]["id"])),
            ("%custody", word(&custody["checkOutAsset"]["id"])),
            ("%role", role),
            ("%user", user.0),
            ("%victim", victim.0),
            ("%leaver", leaver.0),
            ("%key", key),
            ("%old_key", old_key),
            ("%asset", asset),
            ("%run", run.to_string()),
            ("%rule", fixture.rule),
            ("%finding", fixture.finding),
            ("%waiver", fixture.waiver),
            ("%earlier", fixture.runs[0].clone()),
            ("%later", fixture.runs[1].clone()),
            ("%in_a_month", in_a_month.clone()),
            ("%import", import.to_string()),
            ("%tag", word(&tag["createTag"]["id"])),
            ("%waiting", jobs[0].to_string()),
            ("%buried", jobs[1].to_string()),
            ("%given_up", jobs[2].to_string()),
            ("%schedule", word(&schedule["saveSchedule"]["id"])),
            ("%entry", word(&entries["auditEntries"]["nodes"][0]["id"])),
            // Session of another user, for every caller: no caller may end it.
            ("%session", word(&session["viewer"]["sessions"][0]["id"])),
            ("%new_key", new_key),
            ("%new_password", "eleven-Loud-herons-62-fen".into()),
            ("%password", PASSWORD.into()),
            ("%email", user.1),
        ];
        let postgres = deployment.db.superuser().await;
        postgres.execute(RUN, &[&org(&team), &run.uuid()]).await.unwrap();
        postgres.execute(IMPORT, &[&org(&team), &import.uuid()]).await.unwrap();
        for (id, state) in jobs.iter().zip(["WAITING", "BURIED", "BURIED"]) {
            let about = format!("Job {CANARY}");
            postgres.execute(JOB, &[&org(&team), &id.uuid(), &state, &about]).await.unwrap();
        }
        let people = people.try_into().ok().unwrap();
        Self { team, people, stranger: other.owner, keys, ids, postgres }
    }

    fn client(&self, caller: Caller, needs: Requires) -> Client {
        let keys = match needs {
            Requires::Take(permission) => &self.keys[permission],
            Requires::Anonymous | Requires::SignedIn => &self.keys["ASSET_READ"],
        };
        match caller {
            Caller::Anonymous => self.team.nobody.clone(),
            Caller::Viewer => self.people[0].client.clone(),
            Caller::Operator => self.people[1].client.clone(),
            Caller::Admin => self.people[2].client.clone(),
            Caller::Owner => self.people[3].client.clone(),
            Caller::KeyWith => self.team.nobody.with(&keys[0]),
            Caller::KeyWithout => self.team.nobody.with(&keys[1]),
            Caller::Stranger => self.stranger.client.clone(),
        }
    }

    async fn execute(&self, caller: Caller, row: &Row) -> Answer {
        let mut document = row.document.clone();
        if document.contains("%new_user") {
            let email = format!("new-{}@matrix.test", unique());
            let input = format!(
                "{{ email: \"{email}\", name: \"New\", password: \"{PASSWORD}\", roles: [\"manager\"] }}"
            );
            document = document.replace("%new_user", &input);
        }
        if document.contains("%refresh") {
            let email = &self.ids.iter().find(|(name, _)| *name == "%email").unwrap().1;
            let refresh = sign_in(&self.team.nobody, "", email).await.refresh;
            document = document.replace("%refresh", &refresh);
        }
        // Longest names first, because `%user` may be a prefix of another name.
        let mut ids: Vec<_> = self.ids.iter().collect();
        ids.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, id) in ids {
            document = document.replace(name, id);
        }
        let client = self.client(caller, row.takes);
        if row.is_subscription() {
            watch(&client, &document).await
        } else {
            client.execute(&document).await
        }
    }

    /// Returns a hash per table of the organization's rows, without the columns of last use.
    async fn fingerprint(&self) -> Vec<String> {
        let org = org(&self.team);
        let mine = "org_id = $1";
        let tables = [
            ("asset", mine),
            ("dependency", mine),
            ("custody", mine),
            ("role", mine),
            ("membership", mine),
            ("membership_role", mine),
            ("api_key", mine),
            ("session", mine),
            ("job", mine),
            ("job_history", mine),
            ("schedule", mine),
            ("compliance_run", mine),
            ("rule", mine),
            ("waiver", mine),
            ("finding", mine),
            ("posture", mine),
            ("posture_due", mine),
            // Refusals are written later, and are no change.
            ("audit_entry", "org_id = $1 AND action NOT IN ('access.refused', 'api_key.refused')"),
            ("\"user\"", "id IN (SELECT user_id FROM membership WHERE org_id = $1)"),
            ("refresh_token", "session_id IN (SELECT id FROM session WHERE org_id = $1)"),
        ];
        let prints = tables.map(|(table, condition)| {
            format!(
                "SELECT '{table} ' || count(*) || ' ' || coalesce(md5(string_agg(line, ',' ORDER BY line)), '') AS print
                 FROM (SELECT (to_jsonb(t) - 'last_seen_at' - 'last_used_at')::text AS line FROM {table} t WHERE {condition}) l"
            )
        });
        let rows = self.postgres.query(&prints.join(" UNION ALL "), &[&org]).await.unwrap();
        rows.iter().map(|row| row.get("print")).collect()
    }
}

/// Returns the first message of a subscription. An accepted subscription may have none yet, which counts as empty data.
async fn watch(client: &Client, document: &str) -> Answer {
    let mut socket = client.socket().await;
    socket.subscribe("1", document, json!({})).await;
    let message = match socket.next_within(Duration::from_millis(500)).await {
        None => json!({ "type": "next", "payload": { "data": {} } }),
        Some(message) => message.unwrap(),
    };
    socket.leave().await;
    let payload = message["payload"].clone();
    let body = if message["type"] == "error" { json!({ "errors": payload }) } else { payload };
    let mut headers = HeaderMap::new();
    let id = body["errors"][0]["extensions"]["requestId"].as_str().unwrap_or("none");
    headers.insert("x-request-id", id.parse().unwrap());
    Answer { status: 101, headers, text: body.to_string(), body }
}

async fn scene() -> (PermissionFixture, TestDeployment, crate::server::Api) {
    let deployment = TestDeployment::new().await;
    let api = deployment.api_with(&[
        ("SESSION_MAX_PER_USER", "1000"),
        ("SESSION_MAX_PER_ADMIN", "1000"),
        ("SCAN_LIMIT", "1000/minute"),
    ]);
    let api = api.await;
    let team = Team::new(&deployment, &api).await;
    let other = Team::new(&deployment, &api).await;
    let scene = PermissionFixture::set(&deployment, team, other).await;
    (scene, deployment, api)
}

#[tokio::test]
async fn everybody_may_do_what_the_table_says_and_nothing_else() {
    let (scene, _site, _api) = scene().await;
    let mut asked = 0;
    for row in rows() {
        let (refused, allowed): (Vec<_>, Vec<_>) =
            CALLERS.into_iter().partition(|caller| caller.refusal(row.takes).is_some());
        // Requests of the stranger may change the stranger's own organization, so they run apart.
        let (strangers, allowed): (Vec<_>, Vec<_>) =
            allowed.into_iter().partition(|caller| *caller == Caller::Stranger);
        let before = scene.fingerprint().await;
        for caller in refused {
            let answer = scene.execute(caller, &row).await;
            let code = caller.refusal(row.takes).unwrap();
            answer.assert_well_formed();
            let seen = format!("{} by {caller:?}: {}", row.of, answer.text);
            assert!(answer.codes().iter().all(|found| *found == code), "{seen}");
            assert!(answer.is_not_executed(), "{seen}");
            if caller == Caller::Anonymous {
                assert!(row.path.starts_with(&answer.paths()[0]), "{seen}");
            } else {
                assert_eq!(answer.paths(), [row.path.as_str()], "{seen}");
            }
            asked += 1;
        }
        for caller in strangers {
            let answer = scene.execute(caller, &row).await;
            let seen = format!("{} by {caller:?}: {}", row.of, answer.text);
            assert!(!answer.codes().contains(&"FORBIDDEN"), "{seen}");
            assert!(!answer.codes().contains(&"UNAUTHENTICATED"), "{seen}");
            assert!(!answer.text.contains(CANARY), "{seen}");
            asked += 1;
        }
        if row.takes != Requires::Anonymous {
            assert_eq!(scene.fingerprint().await, before, "{} changed something", row.of);
        }
        for (index, caller) in allowed.into_iter().enumerate() {
            let answer = scene.execute(caller, &row).await;
            answer.assert_well_formed();
            let seen = format!("{} by {caller:?}: {}", row.of, answer.text);
            // Only the first caller must succeed: later ones may find the change already made.
            let in_vain = ALWAYS_FAILING.contains(&row.of.as_str());
            assert!(index > 0 || in_vain || answer.errors().is_empty(), "{seen}");
            if row.people_only && caller.is_key() {
                assert_eq!(answer.codes(), ["FORBIDDEN"], "{seen}");
                assert!(!answer.is_not_executed(), "{seen}");
            } else {
                assert!(!answer.codes().contains(&"FORBIDDEN"), "{seen}");
                assert!(!answer.codes().contains(&"UNAUTHENTICATED"), "{seen}");
                assert!(row.is_mutation() || !answer.body["data"].is_null(), "{seen}");
            }
            asked += 1;
        }
    }
    assert_eq!(asked, rows().len() * CALLERS.len());
}

#[tokio::test]
async fn everybody_sees_all_of_oneself_and_little_of_others() {
    let (team, _world) = Team::on_shared_server().await;
    let viewer = team.member("viewer").await;
    let (own, secret) = team.api_key("Own", &["ASSET_READ"]).await;
    let (other, _) = team.api_key("Other", &["ASSET_READ"]).await;
    let key = team.nobody.with(secret);
    let check = async |client: &Client, of: &str, own: &str, other: &str, fields: &[&str]| {
        let fields = fields.join(" ");
        let by_actor = format!("{{ viewer {{ actor {{ ... on {of} {{ id name {fields} }} }} }} }}");
        let seen = client.get_data(&by_actor, json!({})).await;
        assert_eq!(seen["viewer"]["actor"]["id"], own);
        let by_id =
            format!("query($id: ID!) {{ node(id: $id) {{ ... on {of} {{ id name {fields} }} }} }}");
        let seen = client.get_data(&by_id, json!({ "id": own })).await;
        assert_eq!(seen["node"]["id"], own);
        let refused = client.execute_with(&by_id, json!({ "id": other })).await;
        assert!(refused.codes().iter().all(|code| *code == "FORBIDDEN"), "{}", refused.text);
        let paths: Vec<_> = fields
            .split(' ')
            .filter(|word| !["{", "}", "key", "id"].contains(word))
            .map(|field| format!("node.{field}"))
            .collect();
        assert_eq!(refused.paths(), paths);
        let two = format!(
            "{{ own: node(id: \"{own}\") {{ ...F }} other: node(id: \"{other}\") {{ ...F }} }} fragment F on {of} {{ {fields} }}"
        );
        let refused = client.execute(&two).await;
        assert!(refused.paths().iter().all(|path| path.starts_with("other.")), "{}", refused.text);
        assert!(refused.is_not_executed());
    };
    check(&viewer.client, "User", &viewer.id, &team.owner.id, &USER_FIELDS).await;
    check(&key, "ApiKey", &own, &other, &KEY_FIELDS).await;
}

#[tokio::test]
async fn a_refusal_lists_every_path_and_skips_what_does_not_run() {
    let (team, _world) = Team::on_shared_server().await;
    let viewer = team.member("viewer").await.client;
    let document = "query($no: Boolean!) {
        mine: assets { nodes { owner { name mail: email } } }
        ...Rest
        keys: apiKeys @include(if: $no) { name }
        audit: auditEntries @skip(if: $no) { nodes { action } }
    }
    fragment Rest on Query { people: users { nodes { id } } }";
    let answer = viewer.execute_with(document, json!({ "no": false })).await;
    assert_eq!(answer.paths(), ["mine.nodes.owner.mail", "people", "audit"], "{}", answer.text);
    assert_eq!(answer.codes(), ["FORBIDDEN"; 3]);
    assert!(answer.is_not_executed());
    let answer = viewer.execute_with(document, json!({ "no": true })).await;
    assert_eq!(answer.paths(), ["mine.nodes.owner.mail", "people", "keys"], "{}", answer.text);
}

#[tokio::test]
async fn a_mutation_takes_what_it_states_and_what_it_returns() {
    let (team, _world) = Team::on_shared_server().await;
    let (_, secret) = team.api_key("Writes", &["ASSET_WRITE"]).await;
    let document = "mutation { createAsset(input: { name: \"Unseen\", type: HOST }) { id } }";
    let answer = team.nobody.with(secret).execute(document).await;
    assert_eq!(answer.codes(), ["FORBIDDEN"]);
    assert!(answer.message().contains("ASSET_READ"), "{}", answer.text);
    let assets = team.owner.client.get_data("{ assets { totalCount } }", json!({})).await;
    assert_eq!(assets["assets"]["totalCount"], 0);
}
