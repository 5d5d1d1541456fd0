//! What a subscription to many rows has sent: a moment from which to look for more, and what to leave out.
//!
//! A row may become visible after a later one, as its transaction took longer: so each look begins a little before the
//! last one, and what was sent since then is not sent again.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// How much later than its time a row may become visible.
const OVERLAP: TimeDelta = TimeDelta::seconds(2);

/// The most rows whose end is waited for.
const ALIVE: usize = 200;

/// Rows by id and time of change.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    since: Option<DateTime<Utc>>,
    sent: HashMap<Uuid, DateTime<Utc>>,
    alive: VecDeque<Uuid>,
}

impl Recent {
    /// After which moment to look, none before the first look; and the latest rows that were sent and go on.
    pub(crate) fn begin(&self) -> (Option<DateTime<Utc>>, Vec<Uuid>) {
        (self.since, self.alive.iter().copied().collect())
    }

    /// Remembers whether a row that is sent goes on.
    pub(crate) fn note(&mut self, id: Uuid, goes_on: bool) {
        self.alive.retain(|known| *known != id);
        if goes_on {
            self.alive.push_back(id);
            if self.alive.len() > ALIVE {
                self.alive.pop_front();
            }
        }
    }

    /// Of the rows that changed, those that have not been sent as they are; `looked_at` is by the clock of their times.
    pub(crate) fn take_new<T>(
        &mut self,
        rows: impl IntoIterator<Item = (DateTime<Utc>, T)>,
        id: impl Fn(&T) -> Uuid,
        looked_at: DateTime<Utc>,
    ) -> Vec<T> {
        let is_new = |(changed_at, row): &(DateTime<Utc>, T)| {
            self.sent.insert(id(row), *changed_at).is_none_or(|before| before < *changed_at)
        };
        let new = rows.into_iter().filter(is_new).map(|(_, row)| row).collect();
        // The first look is where it begins: what happened before has been read otherwise.
        let since = if self.since.is_none() { looked_at } else { looked_at - OVERLAP };
        self.since = self.since.max(Some(since));
        self.sent.retain(|_, changed_at| Some(*changed_at) > self.since);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_sent_once_a_change_and_what_is_old_is_forgotten() {
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let at = |second| start + TimeDelta::seconds(second);
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut recent = Recent::default();
        let mut look = |rows: &[(i64, Uuid)], second| {
            let rows: Vec<_> = rows.iter().map(|(second, id)| (at(*second), *id)).collect();
            (recent.take_new(rows, |id| *id, at(second)), recent.since.unwrap(), recent.sent.len())
        };
        assert_eq!(look(&[], 0), (vec![], at(0), 0));
        assert_eq!(look(&[(1, a)], 1), (vec![a], at(0), 1));
        assert_eq!(look(&[(1, a), (1, b)], 2), (vec![b], at(0), 2), "b became visible later");
        assert_eq!(look(&[(1, b), (3, a)], 3), (vec![a], at(1), 1));
        assert_eq!(look(&[(3, a)], 9), (vec![], at(7), 0));
    }

    #[test]
    fn the_latest_that_go_on_are_remembered() {
        let mut recent = Recent::default();
        for id in 0..300 {
            recent.note(Uuid::from_u128(id), true);
        }
        recent.note(Uuid::from_u128(299), false);
        recent.note(Uuid::from_u128(100), true);
        let (_, alive) = recent.begin();
        assert_eq!((alive.len(), alive[198]), (199, Uuid::from_u128(100)));
        assert_eq!(alive[0], Uuid::from_u128(101));
    }
}
