//! A list as SQL: filters and keyset order put together from fragments that stand in our code, never from a caller's
//! text. The organization is not among the conditions: row security adds it.
//!
//! What is live in one table and ended in another is listed as one. Each side is then ordered and cut by itself, because
//! over a `UNION ALL` Postgres would read and sort all rows of the organization: row security's condition, which makes
//! an index on `(org_id, id)` one on the id, counts only within a side.

use std::collections::HashMap;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::base::{
    db::{FromRow, Param, Tx},
    error::Result,
    page::{Page, PageRequest},
};

/// What a list is ordered by; the id breaks ties.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// The column and its SQL type; `None` orders by the id alone.
    pub(crate) column: Option<(&'static str, &'static str)>,
    /// The column of the id.
    pub(crate) id: &'static str,
    /// Largest first.
    pub(crate) descending: bool,
}

/// One of the tables that are listed as one.
pub(crate) struct Side<'a> {
    /// Its columns, named as on every side.
    pub(crate) columns: &'static str,
    /// Its name.
    pub(crate) from: &'static str,
    /// What must hold for its rows beside the conditions of the list; `?` stands for the parameter.
    pub(crate) only: Option<(&'static str, Option<Param<'a>>)>,
}

/// Conditions and their parameters.
#[derive(Default)]
pub(crate) struct Listing<'a> {
    conditions: Vec<String>,
    params: Vec<Param<'a>>,
}

impl<'a> Listing<'a> {
    /// Only rows for which this holds; `?` stands for the parameter.
    pub(crate) fn only(&mut self, condition: &'static str, param: Param<'a>) {
        let place = self.bind(param);
        self.conditions.push(condition.replace('?', &place));
    }

    /// Only rows for which this holds, without a parameter.
    pub(crate) fn holds(&mut self, condition: &'static str) {
        self.conditions.push(condition.to_owned());
    }

    /// No row at all.
    pub(crate) fn none(&mut self) {
        self.conditions.push("false".to_owned());
    }

    /// Of a list of assets, one of what is about them.
    pub(crate) fn about(self) -> Self {
        let assets = self.filter();
        let about = format!("asset_id IN (SELECT asset.id FROM asset WHERE {assets})");
        Self { conditions: vec![about], params: self.params }
    }

    fn bind(&mut self, param: Param<'a>) -> String {
        self.params.push(param);
        format!("${}", self.params.len())
    }

    fn filter(&self) -> String {
        if self.conditions.is_empty() { "true".to_owned() } else { self.conditions.join(" AND ") }
    }

    /// The conditions and their parameters, for a statement of one's own.
    pub(crate) fn into_sql(self) -> (String, Vec<Param<'a>>) {
        (self.filter(), self.params)
    }

    /// How many rows there are.
    pub(crate) async fn count(&self, tx: &Tx, from: &'static str) -> Result<i64> {
        let sql = format!("SELECT count(*) AS total FROM {from} WHERE {}", self.filter());
        let row: Row = tx.one(&sql, &self.params).await?;
        Ok(row.try_get("total")?)
    }

    /// How many rows there are on all sides.
    pub(crate) async fn count_of(mut self, tx: &Tx, sides: Vec<Side<'a>>) -> Result<i64> {
        let counts: Vec<_> = sides
            .into_iter()
            .map(|side| {
                let filter = self.filter_of(&side);
                format!("(SELECT count(*) FROM {} WHERE {filter})", side.from)
            })
            .collect();
        if counts.is_empty() {
            return Ok(0);
        }
        let sql = format!("SELECT {} AS total", counts.join(" + "));
        let row: Row = tx.one(&sql, &self.params).await?;
        Ok(row.try_get("total")?)
    }

    /// The page that was asked for.
    pub(crate) async fn page<T: FromRow>(
        mut self,
        tx: &Tx,
        select: &'static str,
        order: Order,
        request: &'a PageRequest,
    ) -> Result<Page<T>> {
        let tail = self.bounds(order, request);
        let sql = format!("{select} WHERE {} {tail}", self.filter());
        Ok(Page::cut(tx.all(&sql, &self.params).await?, request))
    }

    /// As [`Listing::page`], of each of these owners by itself, in one statement. `owner` is the column that names it.
    pub(crate) async fn page_of_each<T: FromRow>(
        mut self,
        tx: &Tx,
        side: Side<'a>,
        (owner, owners): (&'static str, &'a Vec<Uuid>),
        order: Order,
        request: &'a PageRequest,
    ) -> Result<HashMap<Uuid, Page<T>>> {
        let owners_place = self.bind(owners);
        let tail = self.bounds(order, request);
        let filter = self.filter_of(&side);
        let sql = format!(
            "SELECT owner.id AS owner_id, of_owner.* FROM unnest({owners_place}::uuid[]) AS owner (id)
             CROSS JOIN LATERAL (SELECT {} FROM {} WHERE {owner} = owner.id AND {filter} {tail}) AS of_owner",
            side.columns, side.from
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

    /// How many rows each of these owners has; those without any are left out.
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
            self.filter()
        );
        let rows: Vec<Row> = tx.all(&sql, &self.params).await?;
        rows.iter().map(|row| Ok((row.try_get("owner_id")?, row.try_get("total")?))).collect()
    }

    /// The page that was asked for, of several tables as if they were one.
    pub(crate) async fn page_of<T: FromRow>(
        mut self,
        tx: &Tx,
        sides: Vec<Side<'a>>,
        order: Order,
        request: &'a PageRequest,
    ) -> Result<Page<T>> {
        if sides.is_empty() {
            return Ok(Page::cut(Vec::new(), request));
        }
        let tail = self.bounds(order, request);
        let parts: Vec<_> = sides
            .into_iter()
            .map(|side| {
                let filter = self.filter_of(&side);
                format!("(SELECT {} FROM {} WHERE {filter} {tail})", side.columns, side.from)
            })
            .collect();
        let sql = match &parts[..] {
            [one] => one.clone(),
            _ => format!("{} {tail}", parts.join(" UNION ALL ")),
        };
        Ok(Page::cut(tx.all(&sql, &self.params).await?, request))
    }

    /// Keeps to the page's bounds; returns how to order and cut what they let through.
    fn bounds(&mut self, order: Order, request: &'a PageRequest) -> String {
        let bounds = [(&request.after, order.descending), (&request.before, !order.descending)];
        for (place, below) in bounds {
            let Some(place) = place else { continue };
            let comparison = if below { "<" } else { ">" };
            let id = self.bind(&place.id);
            let condition = match order.column {
                None => format!("{} {comparison} {id}", order.id),
                Some((column, cast)) => {
                    let value = self.bind(&place.value);
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

    fn filter_of(&mut self, side: &Side<'a>) -> String {
        let own = match side.only {
            None => return self.filter(),
            Some((condition, None)) => condition.to_owned(),
            Some((condition, Some(param))) => condition.replace('?', &self.bind(param)),
        };
        format!("{} AND {own}", self.filter())
    }
}
