//! A transaction, and the statements that run in it.

use std::sync::Mutex;

use chrono::{DateTime, Utc};
use deadpool_postgres::Object;
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{
    Db, POOL_WAIT,
    kind::{Kind, Org},
};
use crate::base::{actor::Origin, error::Result, event::Event};

/// A parameter of a statement.
pub type Param<'a> = &'a (dyn ToSql + Sync);

/// One column of rows that are written together.
pub(crate) fn column<'a, T, C>(rows: &[&'a T], value: impl Fn(&'a T) -> C) -> Vec<C> {
    rows.iter().map(|row| value(row)).collect()
}

/// What a row becomes.
pub trait FromRow: Sized {
    /// Reads the columns by their names.
    fn from_row(row: &Row) -> Result<Self>;
}

impl FromRow for Row {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(row.clone())
    }
}

/// A transaction of one [`Kind`]: it collects the events to send once it is committed. `Tx` alone is one of an organization,
/// and proves which.
pub struct Tx<K: Kind = Org> {
    /// `None` only while it is being ended.
    pub(super) connection: Option<Object>,
    pub(super) db: Db,
    pub(super) kind: K,
    pub(super) origin: Origin,
    pub(super) writes: bool,
    pub(super) events: Mutex<Vec<Event>>,
}

impl<K: Kind> Tx<K> {
    pub(super) fn client(&self) -> &Object {
        self.connection
            .as_ref()
            .expect("a transaction keeps its connection until it ends, and ending consumes it")
    }

    /// Who caused it.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// When it began, by Postgres' clock: the one that all processes share, whatever their own show.
    pub async fn now(&self) -> Result<DateTime<Utc>> {
        Ok(self.one::<Row>("SELECT now() AS now", &[]).await?.try_get("now")?)
    }

    /// Remembers a hint to send after the commit.
    pub fn emit(&self, event: Event) {
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
    }

    /// Exactly one row.
    pub async fn one<T: FromRow>(&self, sql: &str, params: &[Param<'_>]) -> Result<T> {
        let statement = self.client().prepare_cached(sql).await?;
        T::from_row(&self.client().query_one(&statement, params).await?)
    }

    /// One row or none.
    pub async fn opt<T: FromRow>(&self, sql: &str, params: &[Param<'_>]) -> Result<Option<T>> {
        let statement = self.client().prepare_cached(sql).await?;
        self.client().query_opt(&statement, params).await?.as_ref().map(T::from_row).transpose()
    }

    /// All rows.
    pub async fn all<T: FromRow>(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<T>> {
        let statement = self.client().prepare_cached(sql).await?;
        self.client().query(&statement, params).await?.iter().map(T::from_row).collect()
    }

    /// How many rows a statement changed.
    pub async fn exec(&self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        let statement = self.client().prepare_cached(sql).await?;
        Ok(self.client().execute(&statement, params).await?)
    }

    /// As [`Tx::all`], with the parameters' types given: for statements that are put together.
    pub async fn all_typed<T: FromRow>(
        &self,
        sql: &str,
        types: &[Type],
        params: &[Param<'_>],
    ) -> Result<Vec<T>> {
        let statement = self.client().prepare_typed_cached(sql, types).await?;
        self.client().query(&statement, params).await?.iter().map(T::from_row).collect()
    }

    /// Ends it; what it changed is durable, and its events are sent.
    ///
    /// # Errors
    /// Also where a statement of it failed before, whatever became of that error: nothing of it is durable then.
    pub async fn commit(mut self) -> Result<()> {
        if let Some(hooked) = K::before_commit(&self) {
            hooked.await?;
        }
        // After a failed statement COMMIT rolls back and reports success; the SELECT does not.
        let end = if self.writes { "SELECT; COMMIT" } else { "COMMIT" };
        self.client().batch_execute(end).await?;
        self.connection = None; // Ended cleanly: back to the pool.
        let events = std::mem::take(
            &mut *self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        if !events.is_empty() {
            (self.db.publish)(events);
        }
        Ok(())
    }

    /// Ends it without a trace.
    pub async fn rollback(mut self) -> Result<()> {
        self.client().batch_execute("ROLLBACK").await?;
        self.connection = None;
        Ok(())
    }
}

impl<K: Kind> Drop for Tx<K> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // Not ended: whoever borrowed it next would inherit the transaction and its organization.
        let cancel = connection.cancel_token();
        drop(Object::take(connection));
        let tls = self.db.tls.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // The statement may have ended by itself; then there is nothing to cancel and nothing to do about it.
                let _ = tokio::time::timeout(POOL_WAIT, cancel.cancel_query(tls)).await;
            });
        }
    }
}
