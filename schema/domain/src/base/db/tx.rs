//! Transactions, and the statements that run in them.

use std::{any::Any, sync::Mutex};

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
use crate::base::{actor::Origin, entity::OrganizationId, error::Result, event::Event};

/// A parameter of a statement.
pub type Param<'a> = &'a (dyn ToSql + Sync);

/// Returns the values of one column for all rows, for a statement that reads the columns with `UNNEST`.
pub(crate) fn column<'a, T, C>(rows: &[&'a T], value: impl Fn(&'a T) -> C) -> Vec<C> {
    rows.iter().map(|row| value(row)).collect()
}

/// A type that is built from a row.
pub trait FromRow: Sized {
    /// Reads the columns by name.
    fn from_row(row: &Row) -> Result<Self>;
}

impl FromRow for Row {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(row.clone())
    }
}

/// A transaction of one [`Kind`]. The transaction collects events, which are sent after the commit. `Tx` without a
/// parameter is a transaction of one organization.
pub struct Tx<K: Kind = Org> {
    /// `None` only after the transaction has ended.
    pub(super) connection: Option<Object>,
    pub(super) db: Db,
    pub(super) kind: K,
    pub(super) origin: Origin,
    pub(super) writes: bool,
    pub(super) events: Mutex<Vec<Event>>,
}

impl Tx<Org> {
    /// Returns the organization whose rows this transaction reads and writes.
    pub const fn org(&self) -> OrganizationId {
        self.kind.id()
    }

    /// Requests a run of the hook set by [`Db::before_commit`](super::Db::before_commit) when this transaction commits.
    pub(crate) fn request_hook(&self) {
        self.kind.request_hook();
    }
}

impl<K: Kind> Tx<K> {
    pub(super) fn client(&self) -> &Object {
        self.connection
            .as_ref()
            .expect("a transaction keeps its connection until it ends, and ending consumes it")
    }

    /// Returns the actor and request that caused the transaction.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the transaction's start time by the clock of Postgres, which all processes share.
    pub async fn now(&self) -> Result<DateTime<Utc>> {
        Ok(self.one::<Row>("SELECT now() AS now", &[]).await?.try_get("now")?)
    }

    /// Queues an event, which is sent after the commit.
    pub fn emit(&self, event: Event) {
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event);
    }

    /// Runs a query and returns its only row.
    ///
    /// # Errors
    /// `Postgres` if the query returns no row or several.
    pub async fn one<T: FromRow>(&self, sql: &str, params: &[Param<'_>]) -> Result<T> {
        let statement = self.client().prepare_cached(sql).await?;
        T::from_row(&self.client().query_one(&statement, params).await?)
    }

    /// Runs a query and returns its row, or `None` if there is none.
    ///
    /// # Errors
    /// `Postgres` if the query returns several rows.
    pub async fn opt<T: FromRow>(&self, sql: &str, params: &[Param<'_>]) -> Result<Option<T>> {
        let statement = self.client().prepare_cached(sql).await?;
        self.client().query_opt(&statement, params).await?.as_ref().map(T::from_row).transpose()
    }

    /// Runs a query and returns all of its rows.
    pub async fn all<T: FromRow>(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<T>> {
        let statement = self.client().prepare_cached(sql).await?;
        self.client().query(&statement, params).await?.iter().map(T::from_row).collect()
    }

    /// Runs a statement and returns the number of rows affected.
    pub async fn exec(&self, sql: &str, params: &[Param<'_>]) -> Result<u64> {
        let statement = self.client().prepare_cached(sql).await?;
        Ok(self.client().execute(&statement, params).await?)
    }

    /// As [`Tx::all`], with explicit parameter types, for statements that are assembled from fragments.
    pub async fn all_typed<T: FromRow>(
        &self,
        sql: &str,
        types: &[Type],
        params: &[Param<'_>],
    ) -> Result<Vec<T>> {
        let statement = self.client().prepare_typed_cached(sql, types).await?;
        self.client().query(&statement, params).await?.iter().map(T::from_row).collect()
    }

    /// Runs the `before_commit` hook if requested, commits the transaction, and then sends its events.
    ///
    /// # Errors
    /// Fails if any earlier statement of the transaction failed, even if the caller ignored that error. The transaction
    /// is then rolled back.
    pub async fn commit(mut self) -> Result<()> {
        // Only a transaction of an organization has a hook.
        if let Some(tx) = (&self as &dyn Any).downcast_ref::<Tx>()
            && tx.kind.is_hook_requested()
            && let Some(hook) = &tx.db.before_commit
        {
            hook(tx).await?;
        }
        // After a failed statement, COMMIT would roll back and still report success. The preceding SELECT fails
        // instead.
        let end = if self.writes { "SELECT; COMMIT" } else { "COMMIT" };
        self.client().batch_execute(end).await?;
        self.connection = None; // Returns the connection to the pool, after a clean end.
        let events = std::mem::take(
            &mut *self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        if !events.is_empty() {
            (self.db.publish)(events);
        }
        Ok(())
    }

    /// Rolls the transaction back. Its events are not sent.
    pub async fn rollback(mut self) -> Result<()> {
        self.client().batch_execute("ROLLBACK").await?;
        self.connection = None;
        Ok(())
    }
}

impl<K: Kind> Drop for Tx<K> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // The transaction is still open, so the connection must not return to the pool: its next user would inherit the
        // transaction and the organization.
        let cancel = connection.cancel_token();
        drop(Object::take(connection));
        let tls = self.db.tls.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // An error is ignored: if the statement has already ended, nothing is left to cancel.
                let _ = tokio::time::timeout(POOL_WAIT, cancel.cancel_query(tls)).await;
            });
        }
    }
}
