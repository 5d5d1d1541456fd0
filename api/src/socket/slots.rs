//! Limits the open sockets, streams or transfers of one user or API key in this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::StatusCode;

use crate::request_error::{Code, RequestError};

/// Counters of used slots per holder (user or API key); cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots(Arc<Mutex<HashMap<String, usize>>>);

impl Slots {
    /// Takes a slot, or returns `None` if the holder already has `most`.
    pub(crate) fn enter(&self, holder: &str, most: usize) -> Option<Slot> {
        let mut counts = self.lock();
        let count = counts.entry(holder.to_owned()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Slot { slots: self.clone(), holder: holder.to_owned() })
    }

    /// Takes a slot for an upload or export.
    ///
    /// # Errors
    /// 429 if the holder already has `most` in progress.
    pub(crate) fn transfer(&self, holder: &str, most: usize) -> Result<Slot, RequestError> {
        self.enter(holder, most).ok_or_else(|| {
            RequestError::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::RateLimited,
                format!("You have {most} uploads and exports in progress, which is the limit: wait until one ends."),
            )
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // A poisoned lock is safe to use: a panic cannot leave plain counters half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Taken slot of a holder; released when dropped.
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
        let first = slots.enter("a", 1);
        assert!(first.is_some() && slots.enter("a", 1).is_none());
        assert!(slots.enter("b", 1).is_some());
        drop(first);
        assert!(slots.enter("a", 1).is_some());
        assert!(slots.lock().is_empty());
    }
}
