//! Tests of `limit.lua` without the limiter. The tests pass in the clock.

use std::collections::HashMap;

use fred::prelude::{Client, ClientLike, Config, KeysInterface, LuaInterface};
use fred::types::config::ServerConfig;

use crate::server::Server;

const SECOND: u64 = 1_000_000;
const BEGIN: u64 = 1_800_000_000 * SECOND + 999_999;

/// Reference model of the script, in whole numbers.
#[derive(Default)]
struct Model(HashMap<&'static str, u64>);

impl Model {
    fn take(&mut self, quota: (u64, u64), keys: &[&'static str], now: u64) -> Vec<u64> {
        let (interval, count) = quota;
        let horizon = now + interval * count;
        let full_at = |key| self.0.get(key).copied().unwrap_or(0).clamp(now, horizon) + interval;
        let full_at: Vec<u64> = keys.iter().map(full_at).collect();
        let waits: Vec<u64> = full_at.iter().map(|at| at.saturating_sub(horizon)).collect();
        if waits.iter().all(|wait| *wait == 0) {
            self.0.extend(keys.iter().copied().zip(full_at));
        }
        waits
    }
}

struct ClockedScript {
    client: Client,
    text: String,
    _server: Server,
}

impl ClockedScript {
    async fn new() -> Self {
        let server = Server::start();
        let config = ServerConfig::Unix { path: server.socket().into() };
        let client = Client::new(
            Config { server: config, fail_fast: false, ..Config::default() },
            None,
            None,
            Some(fred::types::config::ReconnectPolicy::new_constant(0, 10)),
        );
        client.init().await.unwrap();
        let text = include_str!("../../src/limit.lua");
        let clocked = text.replace("redis.call('TIME')", "{ARGV[3], ARGV[4]}");
        assert_ne!(clocked, text, "the script no longer reads Redis' clock");
        Self { client, text: clocked, _server: server }
    }

    async fn take(&self, quota: (u64, u64), keys: &[&'static str], now: u64) -> Vec<u64> {
        let (interval, count) = quota;
        let args = [interval, count, now / SECOND, now % SECOND].map(|number| number.to_string());
        self.client.eval(self.text.as_str(), keys.to_vec(), args.to_vec()).await.unwrap()
    }
}

#[tokio::test]
async fn a_bucket_refills_by_one_each_interval() {
    let clocked = ClockedScript::new().await;
    let quota = (6 * SECOND, 10);
    for _ in 0..10 {
        assert_eq!(clocked.take(quota, &["a"], BEGIN).await, [0]);
    }
    for (now, expected) in [
        (BEGIN, 6 * SECOND),
        (BEGIN + 1, 6 * SECOND - 1),
        (BEGIN + 6 * SECOND - 1, 1),
        (BEGIN + 6 * SECOND, 0),
        (BEGIN + 6 * SECOND, 6 * SECOND),
        (BEGIN + 18 * SECOND, 0),
        (BEGIN + 18 * SECOND, 0),
        (BEGIN + 18 * SECOND, 6 * SECOND),
    ] {
        assert_eq!(clocked.take(quota, &["a"], now).await, [expected], "{}", now - BEGIN);
    }
}

#[tokio::test]
async fn a_clock_set_back_costs_one_interval_at_most() {
    let clocked = ClockedScript::new().await;
    let quota = (6 * SECOND, 10);
    assert_eq!(clocked.take(quota, &["a"], BEGIN).await, [0]);
    let earlier = BEGIN - 3_600 * SECOND;
    assert_eq!(clocked.take(quota, &["a"], earlier).await, [6 * SECOND]);
    assert_eq!(clocked.take(quota, &["a"], BEGIN).await, [0], "the refusal stored nothing");
}

#[tokio::test]
async fn a_bucket_expires_when_it_is_full_again() {
    let clocked = ClockedScript::new().await;
    for (taken, at_most_ms) in [(1, 360_000), (2, 720_000), (3, 1_080_000)] {
        assert_eq!(clocked.take((360 * SECOND, 10), &["a"], BEGIN).await, [0]);
        let ttl_ms: i64 = clocked.client.pttl("a").await.unwrap();
        assert!((at_most_ms - 30_000..=at_most_ms).contains(&ttl_ms), "{taken} taken: {ttl_ms} ms");
    }
}

/// The steps are hours apart, so expiry by the real clock has no effect.
#[tokio::test]
async fn any_sequence_is_decided_as_the_model_does() {
    let clocked = ClockedScript::new().await;
    let mut model = Model::default();
    let mut random = 0x5eed_u64;
    let mut next = |below: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (mut now, mut granted, mut refused) = (BEGIN, 0, 0);
    for step in 0..2_000 {
        let quota = [(3_600 * SECOND, 5), (12_345_678_901, 7), (7_200 * SECOND + 1, 2)][step / 700];
        let keys: &[&str] = [&["a"][..], &["b"], &["a", "b"], &["b", "c"], &["c", "a", "b"]]
            [usize::try_from(next(5)).unwrap()];
        now = match next(40) {
            0 => now - 5_000 * SECOND,
            1 => now + 20_000 * SECOND,
            _ => now + next(2_500 * SECOND),
        };
        let expected = model.take(quota, keys, now);
        assert_eq!(clocked.take(quota, keys, now).await, expected, "step {step}");
        if expected.iter().all(|wait| *wait == 0) { granted += 1 } else { refused += 1 }
    }
    assert!(
        granted > 200 && refused > 200,
        "{granted} granted, {refused} refused: the sequence must contain more of both"
    );
}
