//! Relay connections for any node type: `edges`, `nodes`, `pageInfo`, and `totalCount` if selected.
//!
//! Chosen: our own types instead of async-graphql's, because the total must be counted only if the document selects
//! `totalCount`.

use std::borrow::Cow;

use async_graphql::{Context, Object, OutputType, SimpleObject, TypeName};
use domain::base::page::{CursorKeys, CursorScope, Page, Position};

use crate::request::row::Row;

/// A page of a list, as a Relay connection.
pub(crate) struct Connection<T> {
    edges: Vec<Edge<T>>,
    has_next: bool,
    has_previous: bool,
    total: Option<i64>,
}

/// A row of a page, with its cursor.
pub(crate) struct Edge<T> {
    cursor: String,
    node: T,
}

/// Position of a page in its list.
#[derive(SimpleObject)]
pub(crate) struct PageInfo {
    /// True if rows follow this page.
    has_next_page: bool,
    /// True if rows precede this page.
    has_previous_page: bool,
    /// Cursor of the first row; pass it as `before` to page backwards. Null if the page is empty.
    start_cursor: Option<String>,
    /// Cursor of the last row; pass it as `after` to page forwards. Null if the page is empty.
    end_cursor: Option<String>,
}

impl<T> Connection<T> {
    /// Creates a page of nodes, each with its cursor.
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

/// Returns true if the document selects `totalCount` below the current field.
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

/// A page of a list, as a Relay connection.
#[Object(name_type)]
impl<T: OutputType> Connection<T> {
    /// The page's rows, each with its cursor.
    async fn edges(&self) -> Vec<Row<&Edge<T>>> {
        self.edges.iter().map(Row).collect()
    }

    /// The page's rows, without cursors.
    async fn nodes(&self) -> Vec<Row<&T>> {
        self.edges.iter().map(|edge| Row(&edge.node)).collect()
    }

    /// Position of the page in its list.
    async fn page_info(&self) -> PageInfo {
        PageInfo {
            has_next_page: self.has_next,
            has_previous_page: self.has_previous,
            start_cursor: self.edges.first().map(|edge| edge.cursor.clone()),
            end_cursor: self.edges.last().map(|edge| edge.cursor.clone()),
        }
    }

    /// Number of rows in the whole list, over all pages; counted only if this field is selected.
    async fn total_count(&self) -> Option<i64> {
        self.total
    }
}

/// A row of a page, with its cursor.
#[Object(name_type)]
impl<T: OutputType> Edge<T> {
    /// Cursor of the row; pass it as `after` or `before`.
    async fn cursor(&self) -> &str {
        &self.cursor
    }

    /// The row that the cursor points to.
    async fn node(&self) -> &T {
        &self.node
    }
}
