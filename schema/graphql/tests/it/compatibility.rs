//! Tests that cursors of an earlier version still work. A cursor is signed together with the `Debug` text of the list's
//! name, order and filter, so renaming a filter would invalidate it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use domain::{
    access::{
        identity::{Identity, RequestInfo},
        password::{Cost, Hasher},
        session::SessionPolicy,
        token::TokenKeys,
    },
    base::page::CursorKeys,
    testing::{
        TestDb,
        earlier::{self, Cursor},
    },
};
use graphql::{Engine, Services, Settings};
use jobs::{Limiter, Redis, event::Listener, queue::depth::QueueDepth};
use serde_json::{Value, json};

use crate::harness::{ADDRESS, ask, client, now, unlimited_quota};
use domain::testing::redis_url;

/// Returns an engine on the rows of the earlier version, with its key rings, and the owner's bearer token.
async fn restored() -> (TestDb, Engine, String) {
    let test = TestDb::new().await;
    earlier::restore(&test).await;
    let db = test.db.clone();
    let secret = |ring| URL_SAFE_NO_PAD.decode(earlier::only_key(ring).1).unwrap();
    let policy = SessionPolicy {
        access_lifetime: TimeDelta::minutes(30),
        session_lifetime: TimeDelta::days(14),
        idle: None,
        max_per_user: 5,
        max_per_admin: 5,
    };
    let hasher = Hasher::new(Cost { memory_kib: 64, passes: 1, lanes: 1 }, 2).unwrap();
    let jwt = secret(earlier::JWT_KEYS);
    let keys = TokenKeys::new([("before", jwt.as_slice())]);
    let identity = Identity::new(db.clone(), hasher, keys, policy, TimeDelta::minutes(15));
    let caller =
        RequestInfo { address: ADDRESS.parse().unwrap(), request_id: "r".into(), now: now() };
    let tokens = identity.login(earlier::OWNER, earlier::PASSWORD, &caller).await.unwrap();
    let services = Services {
        identity,
        db,
        limiter: Limiter::new(Redis::open(&redis_url()).unwrap()),
        listener: Listener::disconnected(),
        auth_quota: unlimited_quota(),
        run_quota: unlimited_quota(),
        request_quota: unlimited_quota(),
        address_quota: unlimited_quota(),
        queue_depth: QueueDepth::new(std::num::NonZeroU32::MAX),
        cursors: CursorKeys::derive([secret(earlier::ENCRYPTION_KEYS).as_slice()]),
    };
    (test, Engine::build(services, Settings::default()).unwrap(), tokens.access_token)
}

/// Returns the nodes after the cursor, or the text of the response if it has errors.
async fn rest(engine: &Engine, bearer: &str, cursor: &Cursor) -> Result<Value, String> {
    let after = json!({ "after": cursor.cursor });
    let reply = ask(engine, Some(bearer), &cursor.query, after, client("a-page")).await;
    if !reply.errors().is_empty() {
        return Err(reply.text);
    }
    let list = cursor.path.iter().fold(&reply.json["data"], |value, field| &value[field]);
    Ok(list["nodes"].clone())
}

/// Valid until January 2030: then the first flip of the stored forecast is due, and its rows change.
#[tokio::test]
async fn cursors_of_before_continue_every_kind_of_list() {
    let (_test, engine, bearer) = restored().await;
    let cursors = earlier::cursors();
    assert_eq!(cursors.len(), 24);
    let mut broken = Vec::new();
    for cursor in &cursors {
        assert!(!cursor.rest.is_empty(), "{}: nothing follows, so nothing is shown", cursor.name);
        let found = rest(&engine, &bearer, cursor).await;
        if found.as_ref().ok() != Some(&json!(cursor.rest)) {
            broken.push(format!("{}: {found:?} instead of {}", cursor.name, json!(cursor.rest)));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[tokio::test]
async fn a_cursor_of_before_with_another_filter_is_refused() {
    let (_test, engine, bearer) = restored().await;
    let cursors = earlier::cursors();
    let of = |name: &str| cursors.iter().find(|cursor| cursor.name == name).unwrap();
    let (plain, filtered) = (of("assets"), of("assets filtered"));
    let after = json!({ "after": filtered.cursor });
    let reply = ask(&engine, Some(&bearer), &plain.query, after, client("a-page")).await;
    assert_eq!(reply.code(), "VALIDATION");
}
