//! Blocks of tokens that a process has taken from Redis in advance, for limits that apply to every request.
//!
//! Chosen: one query to Redis per block instead of one per request, because a query costs more than a small GraphQL
//! request. The tokens of a block have been taken from the bucket in Redis, so all processes together never admit more
//! than the bucket has given; a process that does not use up its block before it expires is stricter by the rest, and
//! one that uses it up late shifts that many requests into a later window. Given up: this sixtieth of precision per
//! process, and the atomic take from several buckets.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Maximum number of keys with a block; beyond it, blocks are dropped, and their tokens are lost.
const BLOCKS_MAX: usize = 100_000;

/// Blocks of one quota, by key.
#[derive(Default)]
pub(super) struct Blocks(Mutex<HashMap<Box<str>, Block>>);

/// Block of one key, with the lock of the request that queries Redis for the next block.
#[derive(Default)]
struct Block {
    state: Option<BlockState>,
    refill: Arc<tokio::sync::Mutex<()>>,
}

/// Answer of Redis to the last query for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockState {
    /// Tokens that are left, and the time at which they expire.
    Tokens(u32, Instant),
    /// Time until which the bucket in Redis has no token.
    EmptyUntil(Instant),
}

impl Blocks {
    /// Takes one token from the block of the key. Returns `None` if only Redis can decide.
    ///
    /// # Errors
    /// Returns the time to wait if the bucket in Redis is known to be empty.
    pub(super) fn take(&self, key: &str, now: Instant) -> Option<Result<(), Duration>> {
        match &mut self.lock().get_mut(key)?.state {
            Some(BlockState::Tokens(left, until)) if *left > 0 && now < *until => {
                *left -= 1;
                Some(Ok(()))
            }
            Some(BlockState::EmptyUntil(until)) if now < *until => Some(Err(*until - now)),
            _ => None,
        }
    }

    /// Returns the lock that a request holds while it queries Redis for the next block of the key.
    pub(super) fn refill(&self, key: &str, now: Instant) -> Arc<tokio::sync::Mutex<()>> {
        let mut blocks = self.lock();
        if let Some(block) = blocks.get(key) {
            return block.refill.clone();
        }
        if blocks.len() >= BLOCKS_MAX {
            blocks.retain(|_, block| block.is_in_use(now));
        }
        if blocks.len() >= BLOCKS_MAX {
            blocks.clear();
        }
        blocks.entry(key.into()).or_default().refill.clone()
    }

    /// Records the answer of Redis to a query for the next block.
    pub(super) fn record(&self, key: &str, state: BlockState) {
        if let Some(block) = self.lock().get_mut(key) {
            block.state = Some(state);
        }
    }

    /// Drops the blocks that are used up or expired.
    pub(super) fn evict(&self, now: Instant) {
        self.lock().retain(|_, block| block.is_in_use(now));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Block>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Block {
    fn is_in_use(&self, now: Instant) -> bool {
        let has_state = match self.state {
            Some(BlockState::Tokens(left, until)) => left > 0 && now < until,
            Some(BlockState::EmptyUntil(until)) => now < until,
            None => false,
        };
        has_state || Arc::strong_count(&self.refill) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_up_and_expires() {
        let (blocks, now) = (Blocks::default(), Instant::now());
        let until = now + Duration::from_mins(1);
        assert_eq!(blocks.take("a", now), None, "no block yet");
        let _refill = blocks.refill("a", now);
        blocks.record("a", BlockState::Tokens(2, until));
        assert_eq!([(); 3].map(|()| blocks.take("a", now)), [Some(Ok(())), Some(Ok(())), None]);
        blocks.record("a", BlockState::Tokens(2, until));
        assert_eq!([blocks.take("a", until), blocks.take("b", now)], [None, None]);
    }

    #[test]
    fn an_empty_bucket_is_not_queried_before_it_has_a_token() {
        let (blocks, now) = (Blocks::default(), Instant::now());
        let _refill = blocks.refill("a", now);
        blocks.record("a", BlockState::EmptyUntil(now + Duration::from_secs(2)));
        let second = Duration::from_secs(1);
        assert_eq!(blocks.take("a", now + second), Some(Err(second)));
        assert_eq!(blocks.take("a", now + 2 * second), None);
    }

    #[test]
    fn a_flood_of_keys_does_not_fill_the_memory() {
        let (blocks, now) = (Blocks::default(), Instant::now());
        let until = now + Duration::from_mins(1);
        for n in 0..BLOCKS_MAX + 10 {
            drop(blocks.refill(&n.to_string(), now));
            blocks.record(&n.to_string(), BlockState::Tokens(1, until));
        }
        assert_eq!(blocks.lock().len(), 10);
        blocks.evict(until);
        assert!(blocks.lock().is_empty());
    }
}
