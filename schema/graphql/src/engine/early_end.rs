//! Answers to documents whose execution was ended early: the answer is too large, or the time is over.

use async_graphql::Response;

use crate::{
    document::key_order::KeyOrder,
    engine::prepare::OperationKind,
    request::{
        answer::{Answer, refused},
        context::TEXT_FILTER_TOO_SLOW,
        error::{Error, ErrorCode},
        pace::{EarlyEnd, MAX_ANSWER, Pace, json_size},
    },
};

/// Returns the response if it is not too large. Rows were counted while they were built; the rest is counted here.
pub(super) fn within_limit(response: Response) -> Result<Response, EarlyEnd> {
    if json_size(&response.data) > MAX_ANSWER { Err(EarlyEnd::TooLarge) } else { Ok(response) }
}

/// Creates the answer to a document whose execution was ended early.
pub(super) fn ended_early(
    reason: EarlyEnd,
    pace: &Pace,
    operation: OperationKind,
    keys: &KeyOrder,
) -> Answer {
    let error = match reason {
        EarlyEnd::TooLarge => {
            let limit = MAX_ANSWER / (1024 * 1024);
            let message = format!(
                "The answer is larger than {limit} MiB: request fewer rows with `first`, or fewer fields."
            );
            if operation == OperationKind::Mutation {
                return committed(&message, pace, keys);
            }
            Error::new(ErrorCode::QueryTooComplex, message)
        }
        EarlyEnd::Deadline => {
            let limit = pace.limit().as_secs();
            if operation == OperationKind::Mutation {
                let message = format!(
                    "The request took longer than {limit} s. Some of its changes may be committed: read them before you send it again."
                );
                let answer = refused(&Error::new(ErrorCode::Timeout, message));
                return Answer { executed: true, ..answer };
            }
            let message =
                format!("The request took longer than {limit} s: request less data at a time.");
            Error::new(ErrorCode::Timeout, message)
        }
        EarlyEnd::TextFilter => Error::new(ErrorCode::Timeout, TEXT_FILTER_TOO_SLOW),
    };
    refused(&error)
}

/// Creates the answer to a mutation whose answer is too large. Root fields run one after the other, so those up to the
/// one that is too large are committed, and those after it have not run.
fn committed(message: &str, pace: &Pace, keys: &KeyOrder) -> Answer {
    let roots: Vec<_> = keys.names().filter(|name| *name != "__typename").collect();
    let last = pace.too_large_in().and_then(|root| roots.iter().position(|name| *name == root));
    let (run, not_run) = roots.split_at(last.map_or(roots.len(), |last| last + 1));
    let rest = match not_run {
        [] => ".".to_owned(),
        not_run => format!("; {} did not run.", listed(not_run)),
    };
    let message =
        format!("{message} The changes of {} are committed, unless they failed{rest}", listed(run));
    let mut answer = refused(&Error::new(ErrorCode::QueryTooComplex, message));
    for error in &mut answer.response.errors {
        error.extensions.get_or_insert_default().set("committed", true);
    }
    Answer { executed: true, ..answer }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
