//! Record of the rows that a subscription has sent, so that a change is sent once, and of the time from which to read
//! further changes.
//!
//! A row can become visible after another row with a later timestamp, because its transaction took longer. Each read
//! therefore overlaps the previous read by [`OVERLAP`], and rows that were sent within the overlap are not sent again.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// Maximum time between the timestamp of a row and the commit that makes the row visible.
const OVERLAP: TimeDelta = TimeDelta::seconds(2);

/// Maximum number of unfinished rows that are tracked.
const MAX_UNFINISHED: usize = 200;

/// Rows that were sent recently, by id and time of change.
#[derive(Debug, Default)]
pub(crate) struct SentRows {
    since: Option<DateTime<Utc>>,
    sent: HashMap<Uuid, DateTime<Utc>>,
    unfinished: VecDeque<Uuid>,
}

impl SentRows {
    /// Returns the time after which to read changes (`None` before the first read), and the ids of the rows that were
    /// unfinished when they were last sent.
    pub(crate) fn read_position(&self) -> (Option<DateTime<Utc>>, Vec<Uuid>) {
        (self.since, self.unfinished.iter().copied().collect())
    }

    /// Records whether a row is unfinished when it is sent. At most [`MAX_UNFINISHED`] rows are tracked; the oldest are
    /// dropped.
    pub(crate) fn record(&mut self, id: Uuid, is_unfinished: bool) {
        self.unfinished.retain(|known| *known != id);
        if is_unfinished {
            self.unfinished.push_back(id);
            if self.unfinished.len() > MAX_UNFINISHED {
                self.unfinished.pop_front();
            }
        }
    }

    /// Returns the rows that have not been sent with this time of change, and records them as sent. `read_at` must come
    /// from the same clock as the rows' timestamps.
    pub(crate) fn take_new<T>(
        &mut self,
        rows: impl IntoIterator<Item = (DateTime<Utc>, T)>,
        id: impl Fn(&T) -> Uuid,
        read_at: DateTime<Utc>,
    ) -> Vec<T> {
        let is_new = |(changed_at, row): &(DateTime<Utc>, T)| {
            self.sent.insert(id(row), *changed_at).is_none_or(|before| before < *changed_at)
        };
        let new = rows.into_iter().filter(is_new).map(|(_, row)| row).collect();
        // The first read has no overlap, because changes before the start of the subscription are not sent.
        let since = if self.since.is_none() { read_at } else { read_at - OVERLAP };
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
        let mut sent = SentRows::default();
        let mut read = |rows: &[(i64, Uuid)], second| {
            let rows: Vec<_> = rows.iter().map(|(second, id)| (at(*second), *id)).collect();
            (sent.take_new(rows, |id| *id, at(second)), sent.since.unwrap(), sent.sent.len())
        };
        assert_eq!(read(&[], 0), (vec![], at(0), 0));
        assert_eq!(read(&[(1, a)], 1), (vec![a], at(0), 1));
        assert_eq!(read(&[(1, a), (1, b)], 2), (vec![b], at(0), 2), "b became visible later");
        assert_eq!(read(&[(1, b), (3, a)], 3), (vec![a], at(1), 1));
        assert_eq!(read(&[(3, a)], 9), (vec![], at(7), 0));
    }

    #[test]
    fn the_latest_that_go_on_are_remembered() {
        let mut sent = SentRows::default();
        for id in 0..300 {
            sent.record(Uuid::from_u128(id), true);
        }
        sent.record(Uuid::from_u128(299), false);
        sent.record(Uuid::from_u128(100), true);
        let (_, unfinished) = sent.read_position();
        assert_eq!((unfinished.len(), unfinished[198]), (199, Uuid::from_u128(100)));
        assert_eq!(unfinished[0], Uuid::from_u128(101));
    }
}
