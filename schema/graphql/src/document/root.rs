//! The root of an operation: what may stand there.

use async_graphql::parser::types::{OperationType, Selection};

use crate::document::{operation::Chosen, rejection::Refusal};

/// Refuses what async-graphql would run otherwise than the specification says: a subscription is one field, and it must
/// be there. A fragment at the root would find nothing and stay silent, so it is refused, too.
pub(crate) fn check_root(chosen: Chosen<'_>) -> Result<(), Refusal> {
    if chosen.kind() != OperationType::Subscription {
        return Ok(());
    }
    let selections = chosen.selections();
    match selections.node.items.as_slice() {
        [item] if !chosen.excludes(item.node.directives()) => match &item.node {
            Selection::Field(field) if !field.node.name.node.starts_with("__") => Ok(()),
            Selection::Field(_) => Err(Refusal::invalid(
                selections.pos,
                "a subscription watches a field of the schema",
            )),
            Selection::FragmentSpread(_) | Selection::InlineFragment(_) => Err(Refusal::invalid(
                selections.pos,
                "a subscription names its field itself: use fragments below it",
            )),
        },
        _ => Err(Refusal::invalid(selections.pos, "a subscription selects exactly one field")),
    }
}
