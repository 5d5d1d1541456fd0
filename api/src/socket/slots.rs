//! Limits the open sockets, streams or transfers of one holder (user or API key) in this process. Each one occupies a
//! slot. A socket or stream of an anonymous caller occupies a slot of its client address, and one of all anonymous
//! callers together.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::StatusCode;

use crate::{
    listener::counted_address,
    request_error::{Code, RequestError},
};

/// Holder of the slots of all anonymous callers. No id of a user, key or address equals it.
const ANONYMOUS: &str = "anonymous";

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

    /// Acquires the two slots of an anonymous caller: one of the client's address (IPv6: of its /64), which has
    /// `per_address`, and one of all anonymous callers, who have `total`.
    pub(crate) fn acquire_anonymous(
        &self,
        address: IpAddr,
        per_address: usize,
        total: usize,
    ) -> Option<Vec<Slot>> {
        let of_address = self.acquire(&counted_address(address).to_string(), per_address)?;
        Some(vec![of_address, self.acquire(ANONYMOUS, total)?])
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

    #[test]
    fn anonymous_callers_share_the_places_of_their_address_and_of_all() {
        let slots = Slots::default();
        let acquire = |address: &str| slots.acquire_anonymous(address.parse().unwrap(), 2, 3);
        let (first, second) = (acquire("2001:db8::1"), acquire("2001:db8::2"));
        assert!(first.is_some() && second.is_some());
        assert!(acquire("2001:db8::3").is_none(), "the address has no place left");
        let third = acquire("192.0.2.1");
        assert!(third.is_some() && acquire("192.0.2.2").is_none(), "nobody has a place left");
        assert!(slots.acquire("usr_1", 1).is_some());
        drop(first);
        assert!(acquire("192.0.2.2").is_some());
        drop((second, third));
        assert!(slots.lock().is_empty());
    }
}
