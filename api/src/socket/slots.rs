//! Limits the open sockets, streams or transfers of one holder (user or API key) in this process. Each one occupies a
//! slot.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::StatusCode;

use crate::request_error::{Code, RequestError};

/// Number of occupied slots per holder (user or API key). Clones share the counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots(Arc<Mutex<HashMap<String, usize>>>);

impl Slots {
    /// Acquires a slot. Returns `None` if the holder already occupies `limit` slots.
    pub(crate) fn acquire(&self, holder: &str, limit: usize) -> Option<Slot> {
        let mut counts = self.lock();
        let count = counts.entry(holder.to_owned()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Slot { slots: self.clone(), holder: holder.to_owned() })
    }

    /// Acquires a slot for an upload or export.
    ///
    /// # Errors
    /// 429 if the holder already has `limit` transfers in progress.
    pub(crate) fn acquire_transfer(
        &self,
        holder: &str,
        limit: usize,
    ) -> Result<Slot, RequestError> {
        self.acquire(holder, limit).ok_or_else(|| {
            RequestError::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::RateLimited,
                format!("You have {limit} uploads and exports in progress, which is the limit: wait until one ends."),
            )
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // A poisoned lock is safe to use, because a panic cannot leave plain counters half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slot that a holder occupies; released when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    holder: String,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.slots.lock();
        if let Some(count) = counts.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let slots = Slots::default();
        let first = slots.acquire("a", 1);
        assert!(first.is_some() && slots.acquire("a", 1).is_none());
        assert!(slots.acquire("b", 1).is_some());
        drop(first);
        assert!(slots.acquire("a", 1).is_some());
        assert!(slots.lock().is_empty());
    }
}
