//! Filters of lists of jobs, and the tables that they select: `job` with live jobs, `job_history` with ended jobs, or
//! both. A job is live if it is not in a final state. A buried (dead-lettered) job is live, because it can still be
//! retried.

use async_graphql::InputObject;
use serde::Serialize;

use super::{ENDED_COLUMNS, JobState, LIVE_COLUMNS, Queue};
use crate::base::listing::{ListedTable, Listing, Order};

/// Filter of a list of jobs. A job must match every given field.
#[derive(Debug, Clone, Default, PartialEq, Eq, InputObject, Serialize)]
pub struct JobFilter {
    /// Queues of the jobs; a job matches if it is in any of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Vec<Queue>>,
    /// States of the jobs; a job matches if it is in any of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Vec<JobState>>,
    /// Kind of the jobs, e.g. `scan.shard`: the evaluation of one shard, i.e. one part, of a compliance run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Id of the object that the jobs are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// Order of the list, newest first: ids are time-ordered (UUIDv7).
pub(super) const ORDER: Order = Order { column: None, id: "id", descending: true };

/// Values of a filter, as bind parameters of a statement.
pub(super) struct FilterValues<'a> {
    queues: Option<Vec<&'static str>>,
    states: Option<StateNames>,
    kind: Option<&'a String>,
    subject: Option<&'a String>,
}

/// Names of the states in a filter, by the table whose jobs can have them.
struct StateNames {
    /// States of live jobs, in the table `job`.
    live: Vec<&'static str>,
    /// Final states, in the table `job_history`.
    ended: Vec<&'static str>,
}

impl JobState {
    /// Returns true if the state is final, i.e. the job is in the history. A buried job has not ended.
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
                let names = |ended: bool| -> Vec<&'static str> {
                    let matching = all.iter().filter(|state| state.has_ended() == ended);
                    matching.map(|state| state.as_str()).collect()
                };
                StateNames { live: names(false), ended: names(true) }
            }),
            kind: filter.kind.as_ref(),
            subject: filter.subject.as_ref(),
        }
    }

    /// Returns the conditions that both tables have in common.
    pub(super) fn common_conditions(&self) -> Listing<'_> {
        let mut listing = Listing::default();
        if let Some(queues) = &self.queues {
            listing.filter("queue = ANY(?)", queues);
        }
        for (condition, text) in [("kind = ?", self.kind), ("subject = ?", self.subject)] {
            match text {
                None => {}
                // No stored text contains a NUL, and Postgres rejects it in a parameter.
                Some(text) if text.contains('\0') => listing.match_nothing(),
                Some(text) => listing.filter(condition, text),
            }
        }
        listing
    }

    /// Returns the tables to read, each with its condition on the state. A table is left out if it contains none of the
    /// requested states.
    pub(super) fn tables(&self) -> Vec<ListedTable<'_>> {
        let live = ListedTable { columns: LIVE_COLUMNS, from: "job", filter: None };
        let ended = ListedTable { columns: ENDED_COLUMNS, from: "job_history", filter: None };
        let Some(StateNames { live: live_states, ended: ended_states }) = &self.states else {
            return vec![live, ended];
        };
        let live = match live_states[..] {
            [] => None,
            // A SQL literal instead of a bind parameter. Postgres uses the partial index on a state only if the
            // condition provably implies the predicate of the index.
            ["BURIED"] => Some(ListedTable { filter: Some(("state = 'BURIED'", None)), ..live }),
            ["RUNNING"] => Some(ListedTable { filter: Some(("state = 'RUNNING'", None)), ..live }),
            _ => Some(ListedTable { filter: Some(("state = ANY(?)", Some(live_states))), ..live }),
        };
        let ended = (!ended_states.is_empty()).then_some(ListedTable {
            filter: Some(("outcome = ANY(?)", Some(ended_states))),
            ..ended
        });
        live.into_iter().chain(ended).collect()
    }
}
