//! The test harness: an engine on its own database, and organizations with users who send requests.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32, time::Duration};

use async_graphql::Variables;
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Db, Origin, Viewer,
    access::{
        api_key::{ApiKey, NewApiKey},
        identity::{Identity, RequestInfo},
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
use graphql::{Answer, CheckIntervals, Client, Engine, Services, Settings};
use jobs::{Limiter, Quota, Redis, event::Listener, queue::depth::QueueDepth};
use serde_json::{Value, json};

/// Password of every user.
pub(crate) const PASSWORD: &str = "correct pelican mosaic";
/// `SET` clause that turns a waiting job into a buried (dead-lettered) job.
pub(crate) const SET_BURIED: &str = "state = 'BURIED', attempt = 3, error = 'it broke'";
/// IP address of all requests.
pub(crate) const ADDRESS: &str = "192.0.2.7";

/// Returns the current time; tests that depend on the time pass their own.
#[expect(clippy::disallowed_methods, reason = "tests read the same clock as the engine")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// An engine on its own database.
pub(crate) struct TestApp {
    pub(crate) engine: Engine,
    pub(crate) test: TestDb,
    /// Identity service for the setup of tests; the engine may use a different pool.
    pub(crate) identity: Identity,
    /// Hash of [`PASSWORD`].
    pub(crate) hash: String,
}

/// An organization with one member of each built-in role.
pub(crate) struct Team {
    pub(crate) org: Organization,
    people: BTreeMap<&'static str, Person>,
}

/// A signed-in user with its tokens.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) email: String,
    pub(crate) bearer: String,
    pub(crate) refresh: String,
}

/// The response to a document, and whether it was executed.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) executed: bool,
    pub(crate) json: Value,
    /// JSON text as sent to the client, which shows the order of the keys.
    pub(crate) text: String,
}

/// Creates an identity service on this database, with cheap password hashes.
fn identity(db: Db) -> (Identity, Hasher) {
    identity_with(db, TimeDelta::minutes(30))
}

/// Creates an identity service like [`identity`], with this lifetime of access tokens.
fn identity_with(db: Db, access_lifetime: TimeDelta) -> (Identity, Hasher) {
    let hasher = Hasher::new(Cost { memory_kib: 64, passes: 1, lanes: 1 }, 16).unwrap();
    let policy = SessionPolicy {
        access_lifetime,
        session_lifetime: TimeDelta::days(14),
        idle: None,
        max_per_user: 5,
        max_per_admin: 5,
    };
    let keys = TokenKeys::new([("k1", [7; 32].as_slice())]);
    let identity = Identity::new(db, hasher.clone(), keys, policy, TimeDelta::minutes(15));
    (identity, hasher)
}

/// Builds an engine on this database that receives no hints, so that subscriptions poll.
pub(crate) async fn engine(db: Db, auth_quota: Quota) -> Engine {
    engine_with(db, auth_quota, Listener::disconnected(), CheckIntervals::default()).await
}

/// Builds an engine like [`engine`], with this listener and these intervals.
pub(crate) async fn engine_with(
    db: Db,
    auth_quota: Quota,
    listener: Listener,
    intervals: CheckIntervals,
) -> Engine {
    engine_of(Services { auth_quota, listener, ..services(db).await }, intervals)
}

/// Builds an engine with these services and these intervals.
pub(crate) fn engine_of(services: Services, intervals: CheckIntervals) -> Engine {
    let settings = Settings { introspection: true, intervals, ..Settings::default() };
    Engine::build(services, settings).unwrap()
}

/// Returns services on this database, without hints and with quotas that no test exhausts.
pub(crate) async fn services(db: Db) -> Services {
    let redis = Redis::open(&redis_url()).unwrap();
    redis.ready(Duration::from_secs(10)).await.unwrap();
    Services {
        identity: identity(db.clone()).0,
        db,
        limiter: Limiter::new(redis),
        listener: Listener::disconnected(),
        auth_quota: unlimited_quota(),
        run_quota: Quota::parse("scan", "1000000/second").unwrap(),
        request_quota: unlimited_quota(),
        address_quota: unlimited_quota(),
        queue_depth: QueueDepth::new(NonZeroU32::MAX),
        cursors: CursorKeys::derive([[9; 32].as_slice()]),
    }
}

/// Returns a quota that no test exhausts.
pub(crate) fn unlimited_quota() -> Quota {
    Quota::parse("auth", "1000000/second").unwrap()
}

impl TestApp {
    /// Creates an app with the default pool.
    pub(crate) async fn new() -> Self {
        let test = TestDb::new().await;
        let db = test.db.clone();
        Self::on(test, db, unlimited_quota()).await
    }

    /// Creates an app with this pool and this quota for sign-ins.
    pub(crate) async fn on(test: TestDb, db: Db, quota: Quota) -> Self {
        let (identity, hasher) = identity(test.db.clone());
        let hash = hasher.hash(PASSWORD).await.unwrap();
        Self { engine: engine(db, quota).await, test, identity, hash }
    }

    /// Creates an app with this quota for compliance runs and trials.
    pub(crate) async fn with_run_quota(run_quota: Quota) -> Self {
        let app = Self::new().await;
        let services = services(app.test.db.clone()).await;
        let engine = engine_of(Services { run_quota, ..services }, CheckIntervals::default());
        Self { engine, ..app }
    }

    /// Creates an app whose pool has at most `connections` connections.
    pub(crate) async fn with_connections(connections: usize) -> Self {
        let test = TestDb::new().await;
        let db = Db::new(&test.url, connections, "sentryops-test").unwrap();
        Self::on(test, db, unlimited_quota()).await
    }

    /// Creates an organization with this slug and one member per built-in role, named `<slug> <role>`.
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

    /// Creates a member with these roles and signs the member in; `local` is the local part of the e-mail address.
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

    /// Opens a new session for this user.
    pub(crate) async fn sign_in(&self, id: UserId, email: String) -> Person {
        let tokens = self.identity.login(&email, PASSWORD, &caller()).await.unwrap();
        Person { id, email, bearer: tokens.access_token, refresh: tokens.refresh_token }
    }

    /// Returns an access token that expires after `life`.
    pub(crate) async fn expiring_token(&self, email: &str, life: Duration) -> String {
        let (identity, _) = identity_with(self.test.db.clone(), TimeDelta::from_std(life).unwrap());
        identity.login(email, PASSWORD, &caller()).await.unwrap().access_token
    }

    /// Returns the caller that a bearer token authenticates.
    pub(crate) async fn viewer(&self, bearer: &str) -> Viewer {
        self.identity.authenticate(bearer, ADDRESS.parse().unwrap(), now()).await.unwrap()
    }

    /// Creates an API key of the team's owner with these permissions; returns the key's id and the full key.
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

    /// Executes a document and returns the response.
    pub(crate) async fn ask<'a>(
        &self,
        bearer: impl Into<Option<&'a str>>,
        document: &str,
        variables: Value,
    ) -> Reply {
        ask(&self.engine, bearer.into(), document, variables, client("the-request")).await
    }

    /// Inserts a waiting job of the team, and applies the `SET` clause to the job if the clause is not empty.
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

    /// Runs SQL statements as a superuser, for example to cause a failure.
    pub(crate) async fn execute_sql(&self, sql: &str) {
        self.test.superuser().await.batch_execute(sql).await.unwrap();
    }
}

impl std::ops::Index<&str> for Team {
    type Output = Person;
    fn index(&self, role: &str) -> &Person {
        &self.people[role]
    }
}

pub(crate) fn caller() -> RequestInfo {
    RequestInfo { address: ADDRESS.parse().unwrap(), request_id: "a-sign-in".into(), now: now() }
}

/// Returns a client at [`ADDRESS`] with this request id.
pub(crate) fn client(request_id: &str) -> Client {
    Client { address: ADDRESS.parse::<IpAddr>().unwrap(), request_id: request_id.to_owned() }
}

/// Prepares and executes a document as the HTTP layer does.
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
    /// Returns the data of a response, and panics if it has errors.
    #[track_caller]
    pub(crate) fn data(&self) -> &Value {
        assert!(self.json.get("errors").is_none(), "{:#}", self.json);
        &self.json["data"]
    }

    pub(crate) fn errors(&self) -> &[Value] {
        self.json["errors"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Returns the only error, and panics otherwise.
    #[track_caller]
    pub(crate) fn error(&self) -> &Value {
        let [error] = self.errors() else { panic!("not one error: {:#}", self.json) };
        error
    }

    /// Returns the code of the only error.
    #[track_caller]
    pub(crate) fn code(&self) -> &str {
        self.error()["extensions"]["code"].as_str().unwrap()
    }

    /// Returns the paths in `extensions.fields` of the only error.
    #[track_caller]
    pub(crate) fn faults(&self) -> Vec<&str> {
        let fields = self.error()["extensions"]["fields"].as_array();
        let fields = fields.unwrap_or_else(|| panic!("no fields: {:#}", self.json));
        fields.iter().map(|fault| fault["path"].as_str().unwrap()).collect()
    }
}

/// Variables of a document without variables.
pub(crate) fn nothing() -> Value {
    json!({})
}
