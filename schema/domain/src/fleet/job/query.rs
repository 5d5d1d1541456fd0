//! Which jobs are asked for: of the live ones, of the ended ones, or of both.

use async_graphql::InputObject;
use serde::Serialize;

use super::{ENDED, JobState, LIVE, Queue};
use crate::base::listing::{Listing, Order, Side};

/// Which jobs are meant; what is given must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, InputObject, Serialize)]
pub struct JobFilter {
    /// In one of these queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Vec<Queue>>,
    /// In one of these states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Vec<JobState>>,
    /// Of this kind, e.g. `scan.shard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// About this, as an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// Ids are made in the order of time.
pub(super) const ORDER: Order = Order { column: None, id: "id", descending: true };

/// A filter's values in the form that a statement binds.
pub(super) struct FilterValues<'a> {
    queues: Option<Vec<&'static str>>,
    /// Those of its states that live jobs are in, and those that ended ones are in.
    states: Option<[Vec<&'static str>; 2]>,
    kind: Option<&'a String>,
    subject: Option<&'a String>,
}

impl JobState {
    /// Whether nothing becomes of it any more.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Waiting | Self::Scheduled | Self::Running | Self::Buried => false,
            Self::Succeeded | Self::Cancelled | Self::Discarded => true,
        }
    }
}

impl<'a> FilterValues<'a> {
    pub(super) fn of(filter: &'a JobFilter) -> Self {
        Self {
            queues: filter.queue.as_ref().map(|all| all.iter().map(|one| one.as_str()).collect()),
            states: filter.state.as_ref().map(|all| {
                [false, true].map(|ended| {
                    let of_side = all.iter().filter(|state| state.has_ended() == ended);
                    of_side.map(|state| state.as_str()).collect()
                })
            }),
            kind: filter.kind.as_ref(),
            subject: filter.subject.as_ref(),
        }
    }

    /// What holds on both sides.
    pub(super) fn listing(&self) -> Listing<'_> {
        let mut listing = Listing::default();
        if let Some(queues) = &self.queues {
            listing.only("queue = ANY(?)", queues);
        }
        for (condition, text) in [("kind = ?", self.kind), ("subject = ?", self.subject)] {
            match text {
                None => {}
                // Postgres has no such text, and refuses it as a parameter.
                Some(text) if text.contains('\0') => listing.none(),
                Some(text) => listing.only(condition, text),
            }
        }
        listing
    }

    /// Where to look: a side that has none of the states is left out.
    pub(super) fn sides(&self) -> Vec<Side<'_>> {
        let live = Side { columns: LIVE, from: "job", only: None };
        let ended = Side { columns: ENDED, from: "job_history", only: None };
        let Some([live_states, ended_states]) = &self.states else { return vec![live, ended] };
        let live = match live_states[..] {
            [] => None,
            // A constant: only then Postgres knows that the index of the state's own has all of them.
            ["BURIED"] => Some(Side { only: Some(("state = 'BURIED'", None)), ..live }),
            ["RUNNING"] => Some(Side { only: Some(("state = 'RUNNING'", None)), ..live }),
            _ => Some(Side { only: Some(("state = ANY(?)", Some(live_states))), ..live }),
        };
        let ended = (!ended_states.is_empty())
            .then_some(Side { only: Some(("outcome = ANY(?)", Some(ended_states))), ..ended });
        live.into_iter().chain(ended).collect()
    }
}
