//! Heartbeat of a limiter. It counts the processes that share the limits, and detects when Redis is available again.
//!
//! Every limiter writes its own entry into one sorted set, scored by Redis' clock, and counts the entries of the last
//! 15 s. The limiter uses the largest of the last three counts. With only the last count, the first process to write
//! after Redis lost its data would count only itself and admit the whole quota. The first three heartbeats are sent on
//! consecutive ticks, so that processes that start together soon count each other.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fred::types::scripts::Script;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::shared::{REDIS_TIMEOUT, Shared};

const KEY: &str = "sentryops:limit:fleet";
/// Interval between two ticks; while Redis is unavailable, every tick sends a heartbeat.
const TICK: Duration = Duration::from_secs(1);
/// Number of ticks between two heartbeats while Redis answers.
const TICKS_PER_HEARTBEAT: u32 = 5;

// Entries with a later time were written before Redis' clock was set back. Running processes write their entries again.
const HEARTBEAT_SCRIPT: &str = "
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - 15000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now_ms + 1, '+inf')
redis.call('ZADD', KEYS[1], now_ms, ARGV[1])
redis.call('PEXPIRE', KEYS[1], 15000)
return redis.call('ZCARD', KEYS[1])";

/// Sends heartbeats until the limiter is dropped.
pub(super) async fn send_heartbeats(shared: Arc<Shared>) {
    let script = Script::from_lua(HEARTBEAT_SCRIPT);
    let boot_id = Uuid::now_v7().to_string();
    let mut counts = [NonZeroU32::MIN; 3];
    let mut quick_heartbeats_left = counts.len();
    let mut ticks_to_skip = 0;
    // Wait for the connection. Otherwise the first heartbeat would fail and count as a failure of Redis. If Redis is
    // down, the heartbeats below detect it.
    let _ = shared.redis.ready(TICK).await;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.evict_full(Instant::now());
        if ticks_to_skip > 0 && !shared.breaker.is_open() {
            ticks_to_skip -= 1;
            continue;
        }
        let (keys, args) = (vec![KEY.to_owned()], vec![boot_id.as_str().into()]);
        match shared.redis.run::<u32>(&script, keys, args, REDIS_TIMEOUT).await {
            Ok(count) => {
                counts.rotate_right(1);
                counts[0] = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
                let process_count = counts.into_iter().max().unwrap_or(NonZeroU32::MIN);
                shared.process_count.store(process_count.get(), Ordering::Relaxed);
                shared.record_success();
                quick_heartbeats_left = quick_heartbeats_left.saturating_sub(1);
                ticks_to_skip = if quick_heartbeats_left > 0 { 0 } else { TICKS_PER_HEARTBEAT - 1 };
            }
            Err(error) => {
                shared.record_failure(&error);
                ticks_to_skip = 0;
            }
        }
    }
}
