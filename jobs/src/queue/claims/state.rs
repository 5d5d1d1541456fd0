//! State machine of a claim, from the claiming statement until the outcome of the job has been written. Pure.
//!
//! A stop signal does not reset the progress of the work. A handler that has completed the job in its own transaction
//! has completed it even if a stop was signalled meanwhile, and no other outcome may be written.

use std::time::{Duration, Instant};

/// Reason to stop a handler before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The claim is lost: its lease expired, and another worker may have claimed the job.
    Lost,
    /// The lease could not be renewed and is about to expire.
    Unrenewed,
    /// Cancellation of the job was requested.
    Cancelled,
    /// The process is shutting down.
    Shutdown,
}

/// Start time and time limit of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeLimit {
    pub(crate) started_at: Instant,
    pub(crate) timeout: Duration,
}

impl TimeLimit {
    fn is_exceeded(self, now: Instant, grace: Duration) -> bool {
        now.saturating_duration_since(self.started_at) > self.timeout + grace
    }
}

/// Progress of the work on a claimed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Claimed; no handler has started.
    Waiting,
    /// A handler is running the job.
    Running(TimeLimit),
    /// The handler is completing the job in its own transaction. The claim may already be lost.
    Completing(TimeLimit),
    /// The handler has completed the job. The completion takes effect when its transaction commits.
    Finished(TimeLimit),
}

impl Work {
    /// Returns the progress after an event. A job is started once, only a started job is completed, and a finished job
    /// stays finished.
    const fn next(self, event: ClaimEvent) -> Self {
        match (self, event) {
            (Self::Waiting, ClaimEvent::Start(time_limit)) => Self::Running(time_limit),
            (Self::Running(time_limit), ClaimEvent::Complete) => Self::Completing(time_limit),
            (Self::Running(time_limit) | Self::Completing(time_limit), ClaimEvent::Finish) => {
                Self::Finished(time_limit)
            }
            (
                Self::Waiting | Self::Running(_) | Self::Completing(_) | Self::Finished(_),
                ClaimEvent::Start(_)
                | ClaimEvent::Complete
                | ClaimEvent::Finish
                | ClaimEvent::Stop(_)
                | ClaimEvent::End,
            ) => self,
        }
    }

    const fn time_limit(self) -> Option<TimeLimit> {
        match self {
            Self::Waiting => None,
            Self::Running(time_limit)
            | Self::Completing(time_limit)
            | Self::Finished(time_limit) => Some(time_limit),
        }
    }
}

/// Event in the life of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimEvent {
    /// A handler starts to run the job.
    Start(TimeLimit),
    /// The handler is about to complete the job in its own transaction.
    Complete,
    /// The handler's transaction has completed the job: the claim was still valid.
    Finish,
    /// The handler is signalled to stop.
    Stop(Stop),
    /// The handler has returned, or will never start.
    End,
}

/// State of a claim: the progress of its work, and whether it must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimState {
    /// The job waits or runs, and no stop was signalled.
    Working(Work),
    /// A stop was signalled. The handler runs until it reacts.
    Stopping(Work, Stop),
    /// The handler has returned. The outcome is still to be written.
    Ending,
}

impl ClaimState {
    /// State of a new claim, before its handler starts.
    pub(crate) const NEW: Self = Self::Working(Work::Waiting);

    /// Returns the state after an event. The first reason to stop counts. No event changes `Ending`.
    pub(crate) const fn transition(self, event: ClaimEvent) -> Self {
        match (self, event) {
            (Self::Ending, _) | (_, ClaimEvent::End) => Self::Ending,
            (Self::Working(work), ClaimEvent::Stop(reason)) => Self::Stopping(work, reason),
            (
                Self::Working(work),
                ClaimEvent::Start(_) | ClaimEvent::Complete | ClaimEvent::Finish,
            ) => Self::Working(work.next(event)),
            (
                Self::Stopping(work, reason),
                ClaimEvent::Start(_)
                | ClaimEvent::Complete
                | ClaimEvent::Finish
                | ClaimEvent::Stop(_),
            ) => Self::Stopping(work.next(event), reason),
        }
    }

    /// Returns true if the handler has completed the job in its own transaction.
    pub(crate) const fn is_finished(self) -> bool {
        match self {
            Self::Working(work) | Self::Stopping(work, _) => matches!(work, Work::Finished(_)),
            Self::Ending => false,
        }
    }

    /// Returns true if a missing row may mean that this claim has completed the job, and not that the claim is lost.
    pub(crate) const fn may_have_completed(self) -> bool {
        match self {
            Self::Working(work) | Self::Stopping(work, _) => {
                matches!(work, Work::Completing(_) | Work::Finished(_))
            }
            Self::Ending => true,
        }
    }

    /// Returns true if the handler is still running although its time limit and this grace period have passed.
    pub(crate) fn is_overdue(self, now: Instant, grace: Duration) -> bool {
        match self {
            Self::Working(work) | Self::Stopping(work, _) => {
                work.time_limit().is_some_and(|time_limit| time_limit.is_exceeded(now, grace))
            }
            Self::Ending => false,
        }
    }

    /// Returns the reason to stop; `None` if no stop was signalled, or the handler has returned.
    pub(crate) const fn stop(self) -> Option<Stop> {
        match self {
            Self::Stopping(_, reason) => Some(reason),
            Self::Working(_) | Self::Ending => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        ClaimEvent::{Complete, End, Finish, Start, Stop as Halt},
        ClaimState::{Ending, Stopping, Working},
        Stop::{Cancelled, Lost, Shutdown, Unrenewed},
        Work::{Completing, Finished, Running, Waiting},
        *,
    };

    fn time_limit() -> TimeLimit {
        TimeLimit { started_at: Instant::now(), timeout: Duration::from_mins(1) }
    }

    fn check(state: ClaimState, event: ClaimEvent, expected: ClaimState) {
        assert_eq!(state.transition(event), expected, "{state:?} after {event:?}");
    }

    #[test]
    fn the_work_goes_from_waiting_to_finished_and_never_back() {
        let (time_limit, later) =
            (time_limit(), TimeLimit { timeout: Duration::ZERO, ..time_limit() });
        let table = [
            (Waiting, Start(time_limit), Running(time_limit)),
            (Waiting, Complete, Waiting),
            (Waiting, Finish, Waiting),
            // A job is started once.
            (Running(time_limit), Start(later), Running(time_limit)),
            (Running(time_limit), Complete, Completing(time_limit)),
            (Running(time_limit), Finish, Finished(time_limit)),
            (Completing(time_limit), Start(later), Completing(time_limit)),
            // A handler may complete the job again in another transaction.
            (Completing(time_limit), Complete, Completing(time_limit)),
            (Completing(time_limit), Finish, Finished(time_limit)),
            (Finished(time_limit), Start(later), Finished(time_limit)),
            (Finished(time_limit), Complete, Finished(time_limit)),
            (Finished(time_limit), Finish, Finished(time_limit)),
        ];
        for (work, event, expected) in table {
            check(Working(work), event, Working(expected));
            // A handler that was signalled to stop may make the same progress before it reacts.
            for reason in [Lost, Unrenewed, Cancelled, Shutdown] {
                check(Stopping(work, reason), event, Stopping(expected, reason));
            }
        }
    }

    #[test]
    fn the_first_reason_to_stop_counts_wherever_the_work_is() {
        let time_limit = time_limit();
        for work in [Waiting, Running(time_limit), Completing(time_limit), Finished(time_limit)] {
            check(Working(work), Halt(Cancelled), Stopping(work, Cancelled));
            check(Stopping(work, Cancelled), Halt(Lost), Stopping(work, Cancelled));
            check(Stopping(work, Unrenewed), Halt(Shutdown), Stopping(work, Unrenewed));
        }
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let time_limit = time_limit();
        for work in [Waiting, Running(time_limit), Completing(time_limit), Finished(time_limit)] {
            check(Working(work), End, Ending);
            check(Stopping(work, Lost), End, Ending);
        }
        for event in [Start(time_limit), Complete, Finish, Halt(Lost), End] {
            check(Ending, event, Ending);
        }
    }

    #[test]
    fn a_stop_does_not_undo_what_the_work_has_come_to() {
        let check = |work, is_finished: bool, may_have_completed: bool| {
            for state in [Working(work), Stopping(work, Shutdown)] {
                assert_eq!(state.is_finished(), is_finished, "{state:?}");
                assert_eq!(state.may_have_completed(), may_have_completed, "{state:?}");
            }
        };
        let time_limit = time_limit();
        check(Waiting, false, false);
        check(Running(time_limit), false, false);
        check(Completing(time_limit), false, true);
        check(Finished(time_limit), true, true);
        assert!(Ending.may_have_completed());
        assert_eq!(Working(Finished(time_limit)).stop(), None);
        assert_eq!(Stopping(Finished(time_limit), Shutdown).stop(), Some(Shutdown));
    }

    #[test]
    fn a_handler_is_overdue_after_its_time_and_the_grace_until_it_returns() {
        let (time_limit, grace) = (time_limit(), Duration::from_secs(10));
        let check = |state: ClaimState, seconds, expected: bool| {
            let now = time_limit.started_at + Duration::from_secs(seconds);
            assert_eq!(state.is_overdue(now, grace), expected, "{state:?} after {seconds} s");
        };
        for work in [Running(time_limit), Completing(time_limit), Finished(time_limit)] {
            for state in [Working(work), Stopping(work, Cancelled)] {
                check(state, 70, false);
                check(state, 71, true);
            }
        }
        check(Working(Waiting), 71, false);
        check(Stopping(Waiting, Shutdown), 71, false);
        check(Ending, 71, false);
    }
}
