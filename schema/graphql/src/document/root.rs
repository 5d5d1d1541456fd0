//! The root of an operation: what may stand there, and what its fields declare of the whole.

use async_graphql::parser::types::{OperationType, Selection};

use crate::document::{
    error::DocumentError, index::SchemaIndex, operation::Operation, policy::Policy,
};

/// Refuses what async-graphql would run otherwise than the specification says: a subscription is one field, and it must
/// be there. A fragment at the root would find nothing and stay silent, so it is refused, too.
pub(crate) fn check_root(operation: Operation<'_>) -> Result<(), DocumentError> {
    if operation.kind() != OperationType::Subscription {
        return Ok(());
    }
    let selections = operation.selections();
    match selections.node.items.as_slice() {
        [item] if !operation.excludes(item.node.directives()) => match &item.node {
            Selection::Field(field) if !field.node.name.node.starts_with("__") => Ok(()),
            Selection::Field(_) => Err(DocumentError::invalid(
                selections.pos,
                "a subscription watches a field of the schema",
            )),
            Selection::FragmentSpread(_) | Selection::InlineFragment(_) => {
                Err(DocumentError::invalid(
                    selections.pos,
                    "a subscription names its field itself: use fragments below it",
                ))
            }
        },
        _ => {
            Err(DocumentError::invalid(selections.pos, "a subscription selects exactly one field"))
        }
    }
}

impl SchemaIndex {
    /// Whether any root field is declared so.
    pub(crate) fn any_root(&self, operation: Operation<'_>, policy: Policy) -> bool {
        operation.root_fields().iter().any(|name| self.root_has(operation, name, policy))
    }

    /// Whether there are root fields, and all are declared so.
    pub(crate) fn all_roots(&self, operation: Operation<'_>, policy: Policy) -> bool {
        let roots = operation.root_fields();
        !roots.is_empty() && roots.iter().all(|name| self.root_has(operation, name, policy))
    }

    /// Refuses what stands beside a root field that stands alone.
    pub(crate) fn one_authentication(&self, operation: Operation<'_>) -> Result<(), DocumentError> {
        let roots = operation.root_fields();
        let alone = roots.iter().filter(|name| self.root_has(operation, name, Policy::StandsAlone));
        let count = alone.count();
        let beside = roots.iter().filter(|name| **name != "__typename").count() - count;
        if count > 1 || (count == 1 && beside > 0) {
            let message = format!(
                "this mutation selects one of {} beside {} other fields, the limit is 0: send it alone",
                self.alone.join(", "),
                count + beside - 1
            );
            return Err(DocumentError::invalid(operation.selections().pos, message));
        }
        Ok(())
    }

    fn root_has(&self, operation: Operation<'_>, name: &str, policy: Policy) -> bool {
        let root = self.root(operation.kind()).map(|root| self.get(root));
        let field = root.and_then(|root| root.field(name));
        field.is_some_and(|field| field.policies.contains(&policy))
    }
}
