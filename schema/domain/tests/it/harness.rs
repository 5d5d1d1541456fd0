//! Fixtures shared by the tests: an organization, its users, and a clock that the test sets.

use std::{fmt::Debug, net::IpAddr, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Actor, Db, Error, Origin, Result, Viewer,
    access::{
        identity::{Identity, RequestInfo, Tokens},
        organization::Organization,
        password::{Cost, Hasher},
        permission::{BuiltinRole, PermissionSet},
        session::SessionPolicy,
        token::TokenKeys,
        user::{CreateUserInput, User},
    },
    entity::{OrganizationId, UserId},
    inventory::asset::{Asset, AssetType, CreateAssetInput, Environment, LifecycleState},
    testing::TestDb,
};
use serde_json::Value;
use tokio_postgres::Client;

/// The lowest cost that Argon2 accepts, for fast tests.
pub(crate) const COST: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
pub(crate) const PASSWORD: &str = "correct pelican mosaic";
pub(crate) const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
pub(crate) const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

/// Returns the time that lies `seconds` after the start of the day on which all tests run.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

pub(crate) const POLICY: SessionPolicy = SessionPolicy {
    access_lifetime: TimeDelta::minutes(30),
    session_lifetime: TimeDelta::days(14),
    idle: None,
    max_per_user: 10,
    max_per_admin: 3,
};

pub(crate) fn identity(db: &Db, cost: Cost, policy: SessionPolicy) -> Identity {
    let keys = TokenKeys::new([("k1", &b"0123456789abcdef0123456789ABCDEF"[..])]);
    Identity::new(db.clone(), Hasher::new(cost, 2).unwrap(), keys, policy, TimeDelta::minutes(15))
}

pub(crate) fn caller(address: IpAddr, now: DateTime<Utc>) -> RequestInfo {
    RequestInfo { address, request_id: "req-1".into(), now }
}

/// An organization in a database of its own, with the service that signs its users in.
pub(crate) struct TestOrg {
    pub(crate) db: TestDb,
    pub(crate) identity: Identity,
    pub(crate) org: OrganizationId,
}

impl TestOrg {
    pub(crate) async fn new() -> Self {
        let db = TestDb::new().await;
        let org = organization(&db, "acme").await;
        Self { identity: identity(&db, COST, POLICY), db, org }
    }

    /// Creates a member of the organization, whose password is `PASSWORD`.
    pub(crate) async fn person(&self, email: &str, roles: &[&str]) -> UserId {
        person(&self.db, self.org, email, roles).await
    }

    pub(crate) async fn login(&self, email: &str, from: IpAddr, now: i64) -> Result<Tokens> {
        self.identity.login(email, PASSWORD, &caller(from, at(now))).await
    }

    /// Signs in from `HOME` and returns the tokens.
    pub(crate) async fn tokens(&self, email: &str, now: i64) -> Tokens {
        self.login(email, HOME, now).await.unwrap()
    }

    pub(crate) async fn refresh(&self, token: &str, now: i64) -> Result<Tokens> {
        self.identity.refresh(token, &caller(HOME, at(now))).await
    }

    /// Changes the viewer's password, from `HOME`.
    pub(crate) async fn change(
        &self,
        viewer: &Viewer,
        current: &str,
        new: &str,
        now: i64,
    ) -> Result<()> {
        self.identity.change_password(viewer, current, new, &caller(HOME, at(now))).await
    }

    pub(crate) async fn viewer(&self, bearer: &str, now: i64) -> Result<Viewer> {
        self.identity.authenticate(bearer, HOME, at(now)).await
    }

    pub(crate) async fn asset(&self, input: CreateAssetInput) -> Asset {
        let tx = self.db.write(self.org, Origin::system()).await.unwrap();
        let asset = Asset::create(&tx, &input, at(0)).await.unwrap();
        tx.commit().await.unwrap();
        asset
    }

    /// Returns the audit trail, oldest first, as `action by kind-of-actor`.
    pub(crate) async fn audit(&self) -> Vec<String> {
        let sql = "SELECT action || ' by ' || actor_kind AS entry FROM audit_entry ORDER BY id";
        let rows = self.db.superuser().await.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get("entry")).collect()
    }

    /// Returns the number of entries of the audit trail whose action begins with `action`.
    pub(crate) async fn audited(&self, action: &str) -> usize {
        self.audit().await.iter().filter(|entry| entry.starts_with(action)).count()
    }
}

pub(crate) async fn organization(db: &Db, slug: &str) -> OrganizationId {
    let tx = db.auth(Origin::system()).await.unwrap();
    let organization = Organization::create(&tx, slug, slug, false, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    organization.id
}

pub(crate) async fn person(db: &Db, org: OrganizationId, email: &str, roles: &[&str]) -> UserId {
    let hash = Hasher::new(COST, 1).unwrap().hash(PASSWORD).await.unwrap();
    let tx = db.auth(Origin::system()).await.unwrap();
    let user = User::create(&tx, org, None, &newcomer(email, roles), &hash, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    user.id
}

/// Adds a user to another organization.
pub(crate) async fn join(db: &Db, org: OrganizationId, user: UserId, roles: &[&str]) {
    let roles: Vec<_> = roles.iter().map(ToString::to_string).collect();
    let tx = db.auth(Origin::system()).await.unwrap();
    User::join(&tx, org, None, user, &roles, at(0)).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) fn newcomer(email: &str, roles: &[&str]) -> CreateUserInput {
    CreateUserInput {
        email: email.into(),
        name: email.split('@').next().unwrap().into(),
        password: PASSWORD.into(),
        roles: roles.iter().map(ToString::to_string).collect(),
    }
}

/// Returns a viewer with a built-in role, as for a request.
pub(crate) fn viewer(org: OrganizationId, user: UserId, role: BuiltinRole) -> Viewer {
    Viewer {
        actor: Actor::User(user),
        org,
        session: None,
        roles: vec![role.key().into()],
        permissions: role.permissions(),
    }
}

/// As [`viewer`], but with exactly these permissions.
pub(crate) fn viewer_with(org: OrganizationId, user: UserId, permissions: PermissionSet) -> Viewer {
    Viewer { permissions, roles: Vec::new(), ..viewer(org, user, BuiltinRole::Viewer) }
}

pub(crate) fn host(name: &str) -> CreateAssetInput {
    CreateAssetInput {
        name: name.into(),
        asset_type: AssetType::Host,
        environment: Some(Environment::Prod),
        lifecycle_state: Some(LifecycleState::Active),
        external_id: None,
        location: None,
        description: None,
        owner: None,
        tags: None,
        attributes: None,
        custom_fields: None,
    }
}

pub(crate) fn host_with(name: &str, custom_fields: Value) -> CreateAssetInput {
    CreateAssetInput { custom_fields: Some(custom_fields), ..host(name) }
}

/// Runs all futures concurrently, and returns their results in order.
pub(crate) async fn at_once<T: Send + 'static>(
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = work.into_iter().map(tokio::spawn).collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}

pub(crate) const A_LOCK_IS_AWAITED: &str = "EXISTS (SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock')";

/// Polls until the condition holds in the database; panics after ten seconds.
pub(crate) async fn until(client: &Client, condition: &str) {
    let sql = format!("SELECT {condition} AS holds");
    let waiting = async {
        while !client.query_one(&sql, &[]).await.unwrap().get::<_, bool>("holds") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect(condition);
}

pub(crate) fn conflict<T: Debug>(result: Result<T>) -> String {
    match result {
        Err(Error::Conflict(sentence)) => sentence,
        other => panic!("no conflict: {other:?}"),
    }
}

pub(crate) fn forbidden<T: Debug>(result: Result<T>) -> String {
    match result {
        Err(Error::Forbidden(sentence)) => sentence,
        other => panic!("not forbidden: {other:?}"),
    }
}

/// Returns the field errors as `path message`.
pub(crate) fn faults<T: Debug>(result: Result<T>) -> Vec<String> {
    match result {
        Err(Error::Invalid(faults)) => {
            faults.iter().map(|fault| format!("{} {}", fault.path, fault.message)).collect()
        }
        other => panic!("not invalid: {other:?}"),
    }
}

pub(crate) fn assert_not_found<T: Debug>(result: Result<T>) {
    match result {
        Err(Error::NotFound { .. }) => {}
        other => panic!("found: {other:?}"),
    }
}

pub(crate) fn assert_bad_token<T: Debug>(result: Result<T>) {
    match result {
        Err(Error::BadToken(_)) => {}
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn assert_bad_credentials<T: Debug>(result: Result<T>) {
    match result {
        Err(Error::BadCredentials) => {}
        other => panic!("not refused: {other:?}"),
    }
}
