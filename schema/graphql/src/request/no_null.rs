//! Filters of mutations: null is refused there. In a filter of a query it means that nothing is filtered; in a mutation
//! a variable without a value would then change everything. async-graphql does not tell an absent variable from null.

use async_graphql::{Context, Value};

use crate::request::error::Result;

/// Checks that the argument, an object, has no null.
///
/// # Errors
/// `VALIDATION` with the path of each null.
pub(crate) fn check_no_null(ctx: &Context<'_>, argument: &str) -> Result<()> {
    let arguments = ctx.field().arguments().unwrap_or_default();
    let given = arguments.into_iter().find(|(name, _)| name == argument);
    let Some((_, Value::Object(fields))) = given else { return Ok(()) };
    let nulls = fields.iter().filter(|(_, value)| matches!(value, Value::Null));
    let faults: Vec<_> = nulls
        .map(|(name, _)| {
            let message = "must not be null: leave it out to match everything";
            domain::FieldError::new(format!("{argument}.{name}"), message)
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(domain::Error::Invalid(faults).into()) }
}
