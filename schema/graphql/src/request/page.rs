//! Connections in Relay's form, for any node: `edges`, `nodes`, `pageInfo`, and `totalCount` where it is asked for.
//!
//! Ours instead of async-graphql's, because a total must be counted only when the document selects it.

use std::borrow::Cow;

use async_graphql::{Context, Object, OutputType, SimpleObject, TypeName};
use domain::base::page::{CursorKeys, CursorScope, Page, Position};

/// A page of a list.
pub(crate) struct Connection<T> {
    edges: Vec<Edge<T>>,
    has_next: bool,
    has_previous: bool,
    total: Option<i64>,
}

/// A row of a page and its position in the list.
pub(crate) struct Edge<T> {
    cursor: String,
    node: T,
}

/// Where a page stands in its list.
#[derive(SimpleObject)]
pub(crate) struct PageInfo {
    /// Whether rows follow this page.
    has_next_page: bool,
    /// Whether rows precede this page.
    has_previous_page: bool,
    /// The position of the first row; pass it as `before` to page backwards.
    start_cursor: Option<String>,
    /// The position of the last row; pass it as `after` to page forwards.
    end_cursor: Option<String>,
}

impl<T> Connection<T> {
    /// A page of nodes, each with its cursor.
    pub(crate) fn new<Row>(
        page: Page<Row>,
        keys: &CursorKeys,
        scope: &CursorScope,
        total: Option<i64>,
        position: impl Fn(&Row) -> Position,
        view: impl Fn(Row) -> T,
    ) -> Self {
        let (has_next, has_previous) = (page.has_next, page.has_previous);
        let edge = |row: Row| Edge { cursor: position(&row).cursor(keys, scope), node: view(row) };
        Self { edges: page.rows.into_iter().map(edge).collect(), has_next, has_previous, total }
    }
}

/// Whether the current field, a connection, is asked for its total.
pub(crate) fn wants_total(ctx: &Context<'_>) -> bool {
    ctx.look_ahead().field("totalCount").exists()
}

impl<T: OutputType> TypeName for Connection<T> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Connection", T::type_name()).into()
    }
}

impl<T: OutputType> TypeName for Edge<T> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Edge", T::type_name()).into()
    }
}

/// A page of a list.
#[Object(name_type)]
impl<T: OutputType> Connection<T> {
    /// The page's rows with their places.
    async fn edges(&self) -> &[Edge<T>] {
        &self.edges
    }

    /// The page's rows.
    async fn nodes(&self) -> Vec<&T> {
        self.edges.iter().map(|edge| &edge.node).collect()
    }

    /// Where the page stands.
    async fn page_info(&self) -> PageInfo {
        PageInfo {
            has_next_page: self.has_next,
            has_previous_page: self.has_previous,
            start_cursor: self.edges.first().map(|edge| edge.cursor.clone()),
            end_cursor: self.edges.last().map(|edge| edge.cursor.clone()),
        }
    }

    /// How many rows the whole list has; counted only when selected.
    async fn total_count(&self) -> Option<i64> {
        self.total
    }
}

/// A row of a page and its position in the list.
#[Object(name_type)]
impl<T: OutputType> Edge<T> {
    /// The row's position; pass it as `after` or `before`.
    async fn cursor(&self) -> &str {
        &self.cursor
    }

    /// The row.
    async fn node(&self) -> &T {
        &self.node
    }
}
