//! Lists as SQL: filters and keyset order, assembled from constant fragments, never from a caller's text. No condition
//! names the organization, because row security adds this condition.
//!
//! A list can combine several tables, such as unfinished and ended jobs. Each table is then ordered and limited in its
//! own subquery. Over a plain `UNION ALL`, Postgres would read and sort all rows of the organization. Within a
//! subquery, the condition of row security fixes `org_id`, so an index on `(org_id, id)` yields rows in the order of
//! the id.

use std::collections::HashMap;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::base::{
    db::{FromRow, Param, Tx},
    error::Result,
    page::{Page, PageRequest},
};

/// The order of a list. Rows with equal values are ordered by id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// The column and its SQL type; `None` orders by the id only.
    pub(crate) column: Option<(&'static str, &'static str)>,
    /// The column that holds the id.
    pub(crate) id: &'static str,
    /// True if the largest value comes first.
    pub(crate) descending: bool,
}

/// A table that is listed, alone or together with others.
pub(crate) struct ListedTable<'a> {
    /// Columns to select; all tables of a list must use the same names.
    pub(crate) columns: &'static str,
    /// Name of the table, used in the FROM clause.
    pub(crate) from: &'static str,
    /// A condition for this table, in addition to the conditions of the list; `?` is replaced by the parameter.
    pub(crate) filter: Option<(&'static str, Option<Param<'a>>)>,
}

/// The conditions of a list, joined by AND, and their parameters.
#[derive(Default)]
pub(crate) struct Listing<'a> {
    conditions: Vec<String>,
    params: Vec<Param<'a>>,
}

impl<'a> Listing<'a> {
    /// Adds a condition; `?` is replaced by the parameter.
    pub(crate) fn filter(&mut self, condition: &'static str, param: Param<'a>) {
        let placeholder = self.bind(param);
        self.conditions.push(condition.replace('?', &placeholder));
    }

    /// Adds a condition without a parameter.
    pub(crate) fn with_constant(&mut self, condition: &'static str) {
        self.conditions.push(condition.to_owned());
    }

    /// Adds a condition that no row meets.
    pub(crate) fn match_nothing(&mut self) {
        self.conditions.push("false".to_owned());
    }

    /// Converts conditions on assets into a condition on rows that refer to these assets by `asset_id`.
    pub(crate) fn rows_of_assets(self) -> Self {
        let assets = self.where_clause();
        let condition = format!("asset_id IN (SELECT asset.id FROM asset WHERE {assets})");
        Self { conditions: vec![condition], params: self.params }
    }

    fn bind(&mut self, param: Param<'a>) -> String {
        self.params.push(param);
        format!("${}", self.params.len())
    }

    fn where_clause(&self) -> String {
        if self.conditions.is_empty() { "true".to_owned() } else { self.conditions.join(" AND ") }
    }

    /// Returns the conditions as SQL, and their parameters, for a statement that the caller writes.
    pub(crate) fn into_sql(self) -> (String, Vec<Param<'a>>) {
        (self.where_clause(), self.params)
    }

    /// Returns the number of rows in the table that meet the conditions.
    pub(crate) async fn count(&self, tx: &Tx, from: &'static str) -> Result<i64> {
        let sql = format!("SELECT count(*) AS total FROM {from} WHERE {}", self.where_clause());
        let row: Row = tx.one(&sql, &self.params).await?;
        Ok(row.try_get("total")?)
    }

    /// Returns the total number of rows in these tables that meet the conditions.
    pub(crate) async fn count_tables(
        mut self,
        tx: &Tx,
        tables: Vec<ListedTable<'a>>,
    ) -> Result<i64> {
        let counts: Vec<_> = tables
            .into_iter()
            .map(|table| {
                let where_clause = self.where_clause_of(&table);
                format!("(SELECT count(*) FROM {} WHERE {where_clause})", table.from)
            })
            .collect();
        if counts.is_empty() {
            return Ok(0);
        }
        let sql = format!("SELECT {} AS total", counts.join(" + "));
        let row: Row = tx.one(&sql, &self.params).await?;
        Ok(row.try_get("total")?)
    }

    /// Returns the requested page, read by one statement.
    pub(crate) async fn page<T: FromRow>(
        mut self,
        tx: &Tx,
        select: &'static str,
        order: Order,
        request: &'a PageRequest,
    ) -> Result<Page<T>> {
        let order_and_limit = self.bounds(order, request);
        let sql = format!("{select} WHERE {} {order_and_limit}", self.where_clause());
        Ok(Page::cut(tx.all(&sql, &self.params).await?, request))
    }

    /// As [`Listing::page`], with one page for each owner, in one statement. `owner` is the column that holds the
    /// owner's id.
    pub(crate) async fn page_of_each<T: FromRow>(
        mut self,
        tx: &Tx,
        table: ListedTable<'a>,
        (owner, owners): (&'static str, &'a Vec<Uuid>),
        order: Order,
        request: &'a PageRequest,
    ) -> Result<HashMap<Uuid, Page<T>>> {
        let owners_placeholder = self.bind(owners);
        let order_and_limit = self.bounds(order, request);
        let where_clause = self.where_clause_of(&table);
        let sql = format!(
            "SELECT owner.id AS owner_id, of_owner.* FROM unnest({owners_placeholder}::uuid[]) AS owner (id)
             CROSS JOIN LATERAL (SELECT {} FROM {} WHERE {owner} = owner.id AND {where_clause} {order_and_limit}) AS of_owner",
            table.columns, table.from
        );
        let rows: Vec<Row> = tx.all(&sql, &self.params).await?;
        let mut pages: HashMap<Uuid, Vec<T>> =
            owners.iter().map(|owner| (*owner, Vec::new())).collect();
        for row in rows {
            pages.entry(row.try_get("owner_id")?).or_default().push(T::from_row(&row)?);
        }
        let cut = |(owner, rows)| (owner, Page::cut(rows, request));
        Ok(pages.into_iter().map(cut).collect())
    }

    /// Returns the number of rows of each owner. Owners without rows are missing from the map.
    pub(crate) async fn count_of_each(
        mut self,
        tx: &Tx,
        from: &'static str,
        (owner, owners): (&'static str, &'a Vec<Uuid>),
    ) -> Result<HashMap<Uuid, i64>> {
        let owners = self.bind(owners);
        let sql = format!(
            "SELECT {owner} AS owner_id, count(*) AS total FROM {from}
             WHERE {owner} = ANY ({owners}::uuid[]) AND {} GROUP BY {owner}",
            self.where_clause()
        );
        let rows: Vec<Row> = tx.all(&sql, &self.params).await?;
        rows.iter().map(|row| Ok((row.try_get("owner_id")?, row.try_get("total")?))).collect()
    }

    /// Returns the requested page of several tables, combined into one list.
    pub(crate) async fn page_of_tables<T: FromRow>(
        mut self,
        tx: &Tx,
        tables: Vec<ListedTable<'a>>,
        order: Order,
        request: &'a PageRequest,
    ) -> Result<Page<T>> {
        if tables.is_empty() {
            return Ok(Page::cut(Vec::new(), request));
        }
        let order_and_limit = self.bounds(order, request);
        let parts: Vec<_> = tables
            .into_iter()
            .map(|table| {
                let where_clause = self.where_clause_of(&table);
                format!(
                    "(SELECT {} FROM {} WHERE {where_clause} {order_and_limit})",
                    table.columns, table.from
                )
            })
            .collect();
        let sql = match &parts[..] {
            [one] => one.clone(),
            _ => format!("{} {order_and_limit}", parts.join(" UNION ALL ")),
        };
        Ok(Page::cut(tx.all(&sql, &self.params).await?, request))
    }

    /// Adds the page's bounds to the conditions, and returns the ORDER BY and LIMIT clauses.
    fn bounds(&mut self, order: Order, request: &'a PageRequest) -> String {
        let bounds = [(&request.after, order.descending), (&request.before, !order.descending)];
        for (placeholder, is_below) in bounds {
            let Some(placeholder) = placeholder else { continue };
            let comparison = if is_below { "<" } else { ">" };
            let id = self.bind(&placeholder.id);
            let condition = match order.column {
                None => format!("{} {comparison} {id}", order.id),
                Some((column, cast)) => {
                    let value = self.bind(&placeholder.value);
                    format!("({column}, {}) {comparison} ({value}::text::{cast}, {id})", order.id)
                }
            };
            self.conditions.push(condition);
        }
        let direction = if order.descending == request.backward { "ASC" } else { "DESC" };
        let column =
            order.column.map(|(column, _)| format!("{column} {direction}, ")).unwrap_or_default();
        format!("ORDER BY {column}{} {direction} LIMIT {}", order.id, request.size + 1)
    }

    fn where_clause_of(&mut self, table: &ListedTable<'a>) -> String {
        let table_condition = match table.filter {
            None => return self.where_clause(),
            Some((condition, None)) => condition.to_owned(),
            Some((condition, Some(param))) => condition.replace('?', &self.bind(param)),
        };
        format!("{} AND {table_condition}", self.where_clause())
    }
}
