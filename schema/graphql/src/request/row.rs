//! Rows of lists: each row checks the execution's clock and counts its bytes (see `pace`).

use std::{borrow::Cow, sync::Arc};

use async_graphql::{
    ContextSelectionSet, OutputType, Positioned, ServerResult, Value, parser::types::Field,
    registry::Registry,
};

use crate::request::context::RequestScope;

/// A row of a list. In the schema, the type is that of the row itself.
pub(crate) struct Row<T>(pub(crate) T);

/// Converts values to the rows of a list.
pub(crate) fn rows<T>(values: impl IntoIterator<Item = T>) -> Vec<Row<T>> {
    values.into_iter().map(Row).collect()
}

impl<T: OutputType> OutputType for Row<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn qualified_type_name() -> String {
        T::qualified_type_name()
    }

    fn introspection_type_name(&self) -> Cow<'static, str> {
        self.0.introspection_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        T::create_type_info(registry)
    }

    async fn resolve(
        &self,
        ctx: &ContextSelectionSet<'_>,
        field: &Positioned<Field>,
    ) -> ServerResult<Value> {
        let scope = ctx.data_unchecked::<Arc<RequestScope>>();
        // Boxed, because the future of a row has many kilobytes, and would be moved several times otherwise.
        scope.pace.row(Box::pin(self.0.resolve(ctx, field)), || root_of(ctx)).await
    }
}

/// Returns the response key of the root field above the selection.
fn root_of(ctx: &ContextSelectionSet<'_>) -> String {
    let mut node = ctx.path_node;
    while let Some(parent) = node.and_then(|node| node.parent.copied()) {
        node = Some(parent);
    }
    node.map(|root| root.field_name().to_owned()).unwrap_or_default()
}
