//! How many sockets, or streams, one user or API key has open in this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::StatusCode;

use crate::refusal::{Code, Refusal};

/// The counters; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<HashMap<String, usize>>>);

impl Places {
    /// A place among at most `most`, or `None` where all are taken.
    pub(crate) fn enter(&self, holder: &str, most: usize) -> Option<Place> {
        let mut counts = self.lock();
        let count = counts.entry(holder.to_owned()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), holder: holder.to_owned() })
    }

    /// A place for a file on its way in or out.
    ///
    /// # Errors
    /// 429 where the holder has `most` under way.
    pub(crate) fn transfer(&self, holder: &str, most: usize) -> Result<Place, Refusal> {
        self.enter(holder, most).ok_or_else(|| {
            Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::RateLimited,
                format!("You have {most} uploads and exports under way: let one end first."),
            )
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // Plain counters: a panic elsewhere cannot leave them half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    holder: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
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
        let places = Places::default();
        let first = places.enter("a", 1);
        assert!(first.is_some() && places.enter("a", 1).is_none());
        assert!(places.enter("b", 1).is_some());
        drop(first);
        assert!(places.enter("a", 1).is_some());
        assert!(places.lock().is_empty());
    }
}
