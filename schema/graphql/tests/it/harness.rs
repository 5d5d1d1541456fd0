//! The engine on a database of its own, and teams to ask it questions.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use async_graphql::Variables;
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Db, Origin, Viewer,
    access::{
        api_key::{ApiKey, NewApiKey},
        identity::{Caller, Identity},
        organization::Organization,
        password::{Cost, Hasher},
        permission::Permission,
        session::SessionPolicy,
        token::TokenKeys,
        user::{CreateUserInput, User},
    },
    base::page::CursorKeys,
    entity::{ApiKeyId, JobId, UserId},
    testing::{TestDb, redis_url},
};
use graphql::{Answer, Client, Engine, Services, Settings, Watching};
use jobs::{Limiter, Quota, Redis, event::Listener};
use serde_json::{Value, json};

/// Everybody's password.
pub(crate) const PASSWORD: &str = "correct pelican mosaic";
/// What makes a waiting job a buried one.
pub(crate) const BURIED: &str = "state = 'BURIED', attempt = 3, error = 'it broke'";
/// Where requests come from.
pub(crate) const ADDRESS: &str = "192.0.2.7";

/// The time: tests that depend on it pass their own.
#[expect(clippy::disallowed_methods, reason = "here is the edge: the engine reads the same clock")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The engine on a database of its own.
pub(crate) struct TestApp {
    pub(crate) engine: Engine,
    pub(crate) test: TestDb,
    /// For what a test prepares; the engine may have a pool of its own.
    pub(crate) identity: Identity,
    hash: String,
}

/// An organization with one member of each built-in role.
pub(crate) struct Team {
    pub(crate) org: Organization,
    people: BTreeMap<&'static str, Person>,
}

/// Somebody signed in.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) email: String,
    pub(crate) bearer: String,
    pub(crate) refresh: String,
}

/// What came of a document.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) executed: bool,
    pub(crate) json: Value,
    /// As it is sent, keys in their order.
    pub(crate) text: String,
}

/// Signs people in on this database, with cheap hashes.
fn identity(db: Db) -> (Identity, Hasher) {
    identity_with(db, TimeDelta::minutes(30))
}

/// The same, with access tokens of that life.
fn identity_with(db: Db, access_life: TimeDelta) -> (Identity, Hasher) {
    let hasher = Hasher::new(Cost { memory_kib: 64, passes: 1, lanes: 1 }, 16).unwrap();
    let policy = SessionPolicy {
        access_life,
        session_life: TimeDelta::days(14),
        idle: None,
        max_per_user: 5,
        max_per_admin: 5,
    };
    let keys = TokenKeys::new([("k1", [7; 32].as_slice())]);
    let identity = Identity::new(db, hasher.clone(), keys, policy, TimeDelta::minutes(15));
    (identity, hasher)
}

/// The engine on that database.
pub(crate) async fn engine(db: Db, auth_quota: Quota) -> Engine {
    engine_with(db, auth_quota, Listener::deaf(), Watching::default()).await
}

/// The same, with ears, and keeping up with the rows as a test needs it.
pub(crate) async fn engine_with(
    db: Db,
    auth_quota: Quota,
    listener: Listener,
    watching: Watching,
) -> Engine {
    let redis = Redis::open(&redis_url()).unwrap();
    redis.ready(Duration::from_secs(10)).await.unwrap();
    let services = Services {
        identity: identity(db.clone()).0,
        db,
        limiter: Limiter::new(redis),
        listener,
        auth_quota,
        scan_quota: Quota::parse("scan", "1000000/second").unwrap(),
        cursors: CursorKeys::derive([[9; 32].as_slice()]),
    };
    let settings = Settings { introspection: true, watching, ..Settings::default() };
    Engine::build(services, settings).unwrap()
}

/// A quota that no test reaches.
pub(crate) fn ample() -> Quota {
    Quota::parse("auth", "1000000/second").unwrap()
}

impl TestApp {
    /// With the pool that the application has.
    pub(crate) async fn new() -> Self {
        let test = TestDb::new().await;
        let db = test.db.clone();
        Self::on(test, db, ample()).await
    }

    /// With a pool and a quota of one's own.
    pub(crate) async fn on(test: TestDb, db: Db, quota: Quota) -> Self {
        let (identity, hasher) = identity(test.db.clone());
        let hash = hasher.hash(PASSWORD).await.unwrap();
        Self { engine: engine(db, quota).await, test, identity, hash }
    }

    /// With at most `connections` at once.
    pub(crate) async fn narrow(connections: usize) -> Self {
        let test = TestDb::new().await;
        let db = Db::new(&test.url, connections, "sentryops-test").unwrap();
        Self::on(test, db, ample()).await
    }

    /// An organization of that slug; its people are called `<slug> <role>`.
    pub(crate) async fn team(&self, slug: &str) -> Team {
        let tx = self.test.auth(Origin::system()).await.unwrap();
        let org =
            Organization::create(&tx, slug, &format!("{slug} team"), false, now()).await.unwrap();
        tx.commit().await.unwrap();
        let mut people = BTreeMap::new();
        for role in ["owner", "admin", "operator", "viewer"] {
            let name = format!("{slug} {role}");
            people.insert(role, self.person(&org, role, &name, &[role]).await);
        }
        Team { org, people }
    }

    /// A member with these roles, signed in; `local` is the e-mail's part before the @.
    pub(crate) async fn person(
        &self,
        org: &Organization,
        local: &str,
        name: &str,
        roles: &[&str],
    ) -> Person {
        let email = format!("{local}@{}.example", org.slug);
        let input = CreateUserInput {
            email: email.clone(),
            name: name.to_owned(),
            password: PASSWORD.to_owned(),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
        };
        let tx = self.test.auth(Origin::system()).await.unwrap();
        let user = User::create(&tx, org.id, None, &input, &self.hash, now()).await.unwrap();
        tx.commit().await.unwrap();
        self.sign_in(user.id, email).await
    }

    /// A new session of that user.
    pub(crate) async fn sign_in(&self, id: UserId, email: String) -> Person {
        let tokens = self.identity.login(&email, PASSWORD, &caller()).await.unwrap();
        Person { id, email, bearer: tokens.access_token, refresh: tokens.refresh_token }
    }

    /// A bearer that ends soon.
    pub(crate) async fn short_lived(&self, email: &str, life: Duration) -> String {
        let (identity, _) = identity_with(self.test.db.clone(), TimeDelta::from_std(life).unwrap());
        identity.login(email, PASSWORD, &caller()).await.unwrap().access_token
    }

    /// Who stands behind a bearer.
    pub(crate) async fn viewer(&self, bearer: &str) -> Viewer {
        self.identity.authenticate(bearer, ADDRESS.parse().unwrap(), now()).await.unwrap()
    }

    /// A key of the team's owner with these permissions, and its secret.
    pub(crate) async fn api_key(
        &self,
        team: &Team,
        name: &str,
        permissions: &[Permission],
    ) -> (ApiKeyId, String) {
        let new = NewApiKey {
            name: name.to_owned(),
            permissions: permissions.to_vec(),
            expires_at: now() + TimeDelta::days(7),
            allowed_cidrs: Vec::new(),
        };
        let viewer = self.viewer(&team["owner"].bearer).await;
        let tx = self.test.auth(Origin::system()).await.unwrap();
        let (key, secret) = ApiKey::create(&tx, &viewer, new, now()).await.unwrap();
        tx.commit().await.unwrap();
        (key.id, secret)
    }

    /// What comes of the document.
    pub(crate) async fn ask<'a>(
        &self,
        bearer: impl Into<Option<&'a str>>,
        document: &str,
        variables: Value,
    ) -> Reply {
        ask(&self.engine, bearer.into(), document, variables, client("the-request")).await
    }

    /// A waiting job of the team, with these columns set otherwise.
    pub(crate) async fn job(&self, team: &Team, set: &str) -> JobId {
        let id = JobId::new();
        let client = self.test.superuser().await;
        let sql = "INSERT INTO job (id, org_id, queue, kind, version, payload, subject, state, priority, run_at,
                                    max_attempts, actor_kind, queued_at, changed_at)
            VALUES ($1, $2, 'SCAN', 'scan.shard', 1, '{}', 'run_1', 'WAITING', 0, now(), 3, 'system', now(), now())";
        client.execute(sql, &[&id.uuid(), &team.org.id.uuid()]).await.unwrap();
        if !set.is_empty() {
            let sql = format!("UPDATE job SET {set} WHERE id = $1");
            client.execute(&sql, &[&id.uuid()]).await.unwrap();
        }
        id
    }

    /// Statements of a superuser, e.g. to break something.
    pub(crate) async fn break_with(&self, sql: &str) {
        self.test.superuser().await.batch_execute(sql).await.unwrap();
    }
}

impl std::ops::Index<&str> for Team {
    type Output = Person;
    fn index(&self, role: &str) -> &Person {
        &self.people[role]
    }
}

fn caller() -> Caller {
    Caller { address: ADDRESS.parse().unwrap(), request_id: "a-sign-in".into(), now: now() }
}

/// A client at [`ADDRESS`].
pub(crate) fn client(request_id: &str) -> Client {
    Client { address: ADDRESS.parse::<IpAddr>().unwrap(), request_id: request_id.to_owned() }
}

/// As the HTTP edge asks.
pub(crate) async fn ask(
    engine: &Engine,
    bearer: Option<&str>,
    document: &str,
    variables: Value,
    client: Client,
) -> Reply {
    let answer = match engine.prepare(document, None, Variables::from_json(variables)) {
        Ok(prepared) => engine.execute(prepared, bearer, client).await,
        Err(refused) => refused,
    };
    answer.into()
}

impl From<Answer> for Reply {
    fn from(Answer { response, executed }: Answer) -> Self {
        let text = serde_json::to_string(&response).unwrap();
        Self { executed, json: serde_json::from_str(&text).unwrap(), text }
    }
}

impl Reply {
    /// The data of a document that went well.
    #[track_caller]
    pub(crate) fn data(&self) -> &Value {
        assert!(self.json.get("errors").is_none(), "{:#}", self.json);
        &self.json["data"]
    }

    pub(crate) fn errors(&self) -> &[Value] {
        self.json["errors"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The only error.
    #[track_caller]
    pub(crate) fn error(&self) -> &Value {
        let [error] = self.errors() else { panic!("not one error: {:#}", self.json) };
        error
    }

    /// The code of the only error.
    #[track_caller]
    pub(crate) fn code(&self) -> &str {
        self.error()["extensions"]["code"].as_str().unwrap()
    }

    /// The paths of the faults of the only error.
    #[track_caller]
    pub(crate) fn faults(&self) -> Vec<&str> {
        let fields = self.error()["extensions"]["fields"].as_array();
        let fields = fields.unwrap_or_else(|| panic!("no fields: {:#}", self.json));
        fields.iter().map(|fault| fault["path"].as_str().unwrap()).collect()
    }
}

/// A document without variables.
pub(crate) fn nothing() -> Value {
    json!({})
}
