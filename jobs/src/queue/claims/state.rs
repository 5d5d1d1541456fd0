//! The state of a claim, from the moment it is taken until its end is written. Pure.
//!
//! Being told to stop does not undo what the work has come to: a handler that has ended its job in its own transaction
//! has ended it, whoever told it to stop meanwhile, and nothing more must be written about it.

use std::time::{Duration, Instant};

/// Why a job is to stop before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Another worker has the claim.
    Lost,
    /// The claim could not be renewed, and another worker may have it soon.
    Unrenewed,
    /// Somebody wants the job ended.
    Cancelled,
    /// The process ends.
    Shutdown,
}

/// The time that a handler was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) started_at: Instant,
    pub(crate) timeout: Duration,
}

impl Term {
    fn is_over(self, now: Instant, grace: Duration) -> bool {
        now.saturating_duration_since(self.started_at) > self.timeout + grace
    }
}

/// The progress of a claimed job's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Claimed ahead: no handler has started.
    Waiting,
    /// A handler works on it.
    Running(Term),
    /// The handler ends the job in its own transaction; whether it may is not known yet, or it may not.
    Completing(Term),
    /// The handler has ended the job, once that transaction is committed.
    Finished(Term),
}

impl Work {
    /// The work after an event. A job is started once, only what was started is completed, and what is finished stays so.
    const fn after(self, event: ClaimEvent) -> Self {
        match (self, event) {
            (Self::Waiting, ClaimEvent::Start(term)) => Self::Running(term),
            (Self::Running(term), ClaimEvent::Complete) => Self::Completing(term),
            (Self::Running(term) | Self::Completing(term), ClaimEvent::Finish) => {
                Self::Finished(term)
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

    const fn term(self) -> Option<Term> {
        match self {
            Self::Waiting => None,
            Self::Running(term) | Self::Completing(term) | Self::Finished(term) => Some(term),
        }
    }
}

/// Something that happens to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimEvent {
    /// A handler starts.
    Start(Term),
    /// The handler is about to end the job in its own transaction.
    Complete,
    /// That transaction found the claim still held.
    Finish,
    /// The handler is to stop.
    Stop(Stop),
    /// The handler has returned, or never starts.
    End,
}

/// The state of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimState {
    /// The work goes on.
    Working(Work),
    /// The handler is told to stop, and works until it hears of it.
    Stopping(Work, Stop),
    /// The handler has returned; the statement that says so is missing.
    Ending,
}

impl ClaimState {
    /// The state of a claim that was just taken.
    pub(crate) const NEW: Self = Self::Working(Work::Waiting);

    /// The state after an event. The first reason to stop counts, and nothing comes after the end.
    pub(crate) const fn transition(self, event: ClaimEvent) -> Self {
        match (self, event) {
            (Self::Ending, _) | (_, ClaimEvent::End) => Self::Ending,
            (Self::Working(work), ClaimEvent::Stop(reason)) => Self::Stopping(work, reason),
            (
                Self::Working(work),
                ClaimEvent::Start(_) | ClaimEvent::Complete | ClaimEvent::Finish,
            ) => Self::Working(work.after(event)),
            (
                Self::Stopping(work, reason),
                ClaimEvent::Start(_)
                | ClaimEvent::Complete
                | ClaimEvent::Finish
                | ClaimEvent::Stop(_),
            ) => Self::Stopping(work.after(event), reason),
        }
    }

    /// Whether the handler has ended the job in its own transaction.
    pub(crate) const fn is_finished(self) -> bool {
        match self {
            Self::Working(work) | Self::Stopping(work, _) => matches!(work, Work::Finished(_)),
            Self::Ending => false,
        }
    }

    /// Whether the job's row may be gone because the job is done, not because the claim is lost.
    pub(crate) const fn may_be_done(self) -> bool {
        match self {
            Self::Working(work) | Self::Stopping(work, _) => {
                matches!(work, Work::Completing(_) | Work::Finished(_))
            }
            Self::Ending => true,
        }
    }

    /// Whether the handler still works although its time and this grace are over.
    pub(crate) fn is_overdue(self, now: Instant, grace: Duration) -> bool {
        match self {
            Self::Working(work) | Self::Stopping(work, _) => {
                work.term().is_some_and(|term| term.is_over(now, grace))
            }
            Self::Ending => false,
        }
    }

    /// The reason to stop, if there is one.
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

    fn term() -> Term {
        Term { started_at: Instant::now(), timeout: Duration::from_mins(1) }
    }

    fn check(state: ClaimState, event: ClaimEvent, expected: ClaimState) {
        assert_eq!(state.transition(event), expected, "{state:?} after {event:?}");
    }

    #[test]
    fn the_work_goes_from_waiting_to_finished_and_never_back() {
        let (term, later) = (term(), Term { timeout: Duration::ZERO, ..term() });
        let table = [
            (Waiting, Start(term), Running(term)),
            (Waiting, Complete, Waiting),
            (Waiting, Finish, Waiting),
            // A job is started once.
            (Running(term), Start(later), Running(term)),
            (Running(term), Complete, Completing(term)),
            (Running(term), Finish, Finished(term)),
            (Completing(term), Start(later), Completing(term)),
            // A handler may try again in another transaction.
            (Completing(term), Complete, Completing(term)),
            (Completing(term), Finish, Finished(term)),
            (Finished(term), Start(later), Finished(term)),
            (Finished(term), Complete, Finished(term)),
            (Finished(term), Finish, Finished(term)),
        ];
        for (work, event, expected) in table {
            check(Working(work), event, Working(expected));
            // A handler that is told to stop may come as far before it hears of it.
            for reason in [Lost, Unrenewed, Cancelled, Shutdown] {
                check(Stopping(work, reason), event, Stopping(expected, reason));
            }
        }
    }

    #[test]
    fn the_first_reason_to_stop_counts_wherever_the_work_is() {
        let term = term();
        for work in [Waiting, Running(term), Completing(term), Finished(term)] {
            check(Working(work), Halt(Cancelled), Stopping(work, Cancelled));
            check(Stopping(work, Cancelled), Halt(Lost), Stopping(work, Cancelled));
            check(Stopping(work, Unrenewed), Halt(Shutdown), Stopping(work, Unrenewed));
        }
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let term = term();
        for work in [Waiting, Running(term), Completing(term), Finished(term)] {
            check(Working(work), End, Ending);
            check(Stopping(work, Lost), End, Ending);
        }
        for event in [Start(term), Complete, Finish, Halt(Lost), End] {
            check(Ending, event, Ending);
        }
    }

    #[test]
    fn a_stop_does_not_undo_what_the_work_has_come_to() {
        let check = |work, is_finished: bool, may_be_done: bool| {
            for state in [Working(work), Stopping(work, Shutdown)] {
                assert_eq!(state.is_finished(), is_finished, "{state:?}");
                assert_eq!(state.may_be_done(), may_be_done, "{state:?}");
            }
        };
        let term = term();
        check(Waiting, false, false);
        check(Running(term), false, false);
        check(Completing(term), false, true);
        check(Finished(term), true, true);
        assert!(Ending.may_be_done());
        assert_eq!(Working(Finished(term)).stop(), None);
        assert_eq!(Stopping(Finished(term), Shutdown).stop(), Some(Shutdown));
    }

    #[test]
    fn a_handler_is_overdue_after_its_time_and_the_grace_until_it_returns() {
        let (term, grace) = (term(), Duration::from_secs(10));
        let check = |state: ClaimState, seconds, expected: bool| {
            let now = term.started_at + Duration::from_secs(seconds);
            assert_eq!(state.is_overdue(now, grace), expected, "{state:?} after {seconds} s");
        };
        for work in [Running(term), Completing(term), Finished(term)] {
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
