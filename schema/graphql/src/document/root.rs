//! Rules for the root fields of an operation, and policies of root fields that affect the whole document.

use async_graphql::parser::types::{OperationType, Selection};

use crate::document::{
    error::DocumentError, index::SchemaIndex, operation::Operation, policy::Policy,
};

/// Rejects subscriptions that async-graphql does not run as the specification requires. A subscription must select
/// exactly one field, and `@skip` or `@include` must not exclude it. A fragment at the root is rejected as well,
/// because async-graphql would send no response.
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
                "a subscription must select a field of the schema, not an introspection field",
            )),
            Selection::FragmentSpread(_) | Selection::InlineFragment(_) => {
                Err(DocumentError::invalid(
                    selections.pos,
                    "a subscription must select its root field directly: use fragments below it",
                ))
            }
        },
        _ => Err(DocumentError::invalid(
            selections.pos,
            "a subscription must select exactly one field",
        )),
    }
}

impl SchemaIndex {
    /// Returns true if any root field of the operation has the policy.
    pub(crate) fn any_root(&self, operation: Operation<'_>, policy: Policy) -> bool {
        operation.root_fields().iter().any(|name| self.root_has(operation, name, policy))
    }

    /// Returns true if the operation has root fields and all of them have the policy.
    pub(crate) fn all_roots(&self, operation: Operation<'_>, policy: Policy) -> bool {
        let roots = operation.root_fields();
        !roots.is_empty() && roots.iter().all(|name| self.root_has(operation, name, policy))
    }

    /// Rejects an operation that selects a root field with the policy `MustBeAlone` together with other root fields.
    pub(crate) fn check_alone(&self, operation: Operation<'_>) -> Result<(), DocumentError> {
        let roots = operation.root_fields();
        let alone = roots.iter().filter(|name| self.root_has(operation, name, Policy::MustBeAlone));
        let count = alone.count();
        let beside = roots.iter().filter(|name| **name != "__typename").count() - count;
        if count > 1 || (count == 1 && beside > 0) {
            let message = format!(
                "this mutation selects one of {} together with {} other root fields: send it as the only root field of a document",
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
