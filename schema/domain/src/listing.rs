//! A list as SQL: filters and keyset order put together from fragments that stand in our code, never from a caller's
//! text. The organization is not among the conditions: row security adds it.

use crate::{
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

    /// No row at all.
    pub(crate) fn none(&mut self) {
        self.conditions.push("false".to_owned());
    }

    fn bind(&mut self, param: Param<'a>) -> String {
        self.params.push(param);
        format!("${}", self.params.len())
    }

    fn filter(&self) -> String {
        if self.conditions.is_empty() { "true".to_owned() } else { self.conditions.join(" AND ") }
    }

    /// How many rows there are.
    pub(crate) async fn count(&self, tx: &Tx, from: &'static str) -> Result<i64> {
        let sql = format!("SELECT count(*) AS total FROM {from} WHERE {}", self.filter());
        let row: tokio_postgres::Row = tx.one(&sql, &self.params).await?;
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
        let sql = format!(
            "{select} WHERE {} ORDER BY {column}{} {direction} LIMIT {}",
            self.filter(),
            order.id,
            request.size + 1,
        );
        Ok(Page::cut(tx.all(&sql, &self.params).await?, request))
    }
}
