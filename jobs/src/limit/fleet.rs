//! How many processes share a limit, and whether Redis is back: one heartbeat answers both.
//!
//! Every limiter writes a mark of its own into one sorted set, scored by Redis' clock, and counts
//! the marks of the last 15 s. The largest of the last three counts is what we go by: after Redis
//! lost its data the first to come would else believe to be alone and grant everything. The first
//! three beats follow each other at once, so that processes started together soon know it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fred::types::scripts::Script;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::shared::{PATIENCE, Shared};

const KEY: &str = "sentryops:limit:fleet";
const TICK: Duration = Duration::from_secs(1);
/// Ticks from one heartbeat to the next while all is well.
const TICKS_PER_BEAT: u32 = 5;

// Marks from the future were made before Redis' clock was set back; the living renew theirs.
const BEAT: &str = "
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - 15000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now_ms + 1, '+inf')
redis.call('ZADD', KEYS[1], now_ms, ARGV[1])
redis.call('PEXPIRE', KEYS[1], 15000)
return redis.call('ZCARD', KEYS[1])";

/// Beats until the limiter is dropped.
pub(super) async fn beat(shared: Arc<Shared>) {
    let script = Script::from_lua(BEAT);
    let boot_id = Uuid::now_v7().to_string();
    let mut counts = [NonZeroU32::MIN; 3];
    let mut beats_to_hurry = counts.len();
    let mut rest_ticks = 0;
    // Without this the first beat would come before the connection and count as a failure. If Redis
    // is down, the beats below find out.
    let _ = shared.redis.ready(TICK).await;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        shared.tidy(Instant::now());
        if rest_ticks > 0 && !shared.breaker.is_open() {
            rest_ticks -= 1;
            continue;
        }
        let (keys, args) = (vec![KEY.to_owned()], vec![boot_id.as_str().into()]);
        match shared.redis.run::<u32>(&script, keys, args, PATIENCE).await {
            Ok(count) => {
                counts.rotate_right(1);
                counts[0] = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
                let fleet = counts.into_iter().max().unwrap_or(NonZeroU32::MIN);
                shared.fleet.store(fleet.get(), Ordering::Relaxed);
                shared.answered();
                beats_to_hurry = beats_to_hurry.saturating_sub(1);
                rest_ticks = if beats_to_hurry > 0 { 0 } else { TICKS_PER_BEAT - 1 };
            }
            Err(error) => {
                shared.failed(&error);
                rest_ticks = 0;
            }
        }
    }
}
