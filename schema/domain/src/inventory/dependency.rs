//! Dependencies: the *source* asset depends on the *target* asset.
//!
//! - `dependency/reach`: assets reached along dependencies.
//! - `dependency/store`: inserts and updates of many dependencies in one statement.
//!
//! Cycles are allowed, because real systems have them. An asset cannot depend on itself, and at most one dependency
//! connects a source with a target. The audit trail records the changes of a dependency as changes of its source asset:
//! the history of an asset shows when the asset began to depend on another.

use std::slice;

use async_graphql::SimpleObject;
use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Value, json};
use tokio_postgres::Row;

use crate::{
    access::audit::Entry,
    base::{
        db::{FromRow, Tx},
        entity::{AssetId, DependencyId},
        error::{Error, FieldError, Result},
        event::Event,
        id::Id,
        listing::{Listing, Order},
        page::{Page, PageRequest, Position},
        text::{self, TextLimits, text_enum},
    },
};

mod reach;
mod store;

pub use reach::{BlastRadius, Bounds, Direction, Reached, blast_radius, reach};
pub(crate) use store::{insert_all, update_all};

/// Maximum number of dependencies that are deleted with an asset. Each deletion writes up to one audit entry and two
/// events.
const MAX_REMOVED: i64 = 10_000;

/// Rule for a kind: one line, up to 50 characters.
pub(crate) const KIND: TextLimits = TextLimits { max: 50, multiline: false };

text_enum! {
    /// Criticality of a dependency: the effect on the source (the dependent asset) if the target (the asset it depends
    /// on) fails.
    Criticality in "dependency"."criticality" {
        /// If the target fails, the source is hardly affected.
        Low = "LOW",
        /// If the target fails, some functions of the source are affected.
        Medium = "MEDIUM",
        /// If the target fails, most functions of the source are affected.
        High = "HIGH",
        /// If the target fails, the source does not work.
        Critical = "CRITICAL",
    }
}

/// A dependency: one asset, the source, depends on another asset, the target.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(name = "DependencyRow")]
pub struct Dependency {
    /// The dependency's id, beginning `dep_`.
    pub id: DependencyId,
    /// The dependent asset: it depends on the target.
    #[graphql(skip)]
    pub source_id: AssetId,
    /// The asset on which the source depends.
    #[graphql(skip)]
    pub target_id: AssetId,
    /// Purpose of the dependency as free text, e.g. `database`; null if not given.
    pub kind: Option<String>,
    /// Effect on the source if the target fails; null if not given.
    pub criticality: Option<Criticality>,
    /// Time at which the dependency was added to the inventory.
    pub created_at: DateTime<Utc>,
}

impl FromRow for Dependency {
    fn from_row(row: &Row) -> Result<Self> {
        let criticality: Option<&str> = row.try_get("criticality")?;
        Ok(Self {
            id: row.try_get("id")?,
            source_id: row.try_get("source_id")?,
            target_id: row.try_get("target_id")?,
            kind: row.try_get("kind")?,
            criticality: criticality.map(Criticality::from_column).transpose()?,
            created_at: row.try_get("created_at")?,
        })
    }
}

const SELECT: &str =
    "SELECT id, source_id, target_id, kind, criticality, created_at FROM dependency";

impl Dependency {
    /// Returns the dependency with this id, or `None`.
    pub async fn find(tx: &Tx, id: DependencyId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// Returns a page of the organization's dependencies, oldest first.
    pub async fn list(tx: &Tx, page: &PageRequest) -> Result<Page<Self>> {
        let oldest_first = Order { column: None, id: "id", descending: false };
        Listing::default().page(tx, SELECT, oldest_first, page).await
    }

    /// Returns the dependency's position in the organization's list.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }

    /// Adds a dependency of `source` on `target`.
    ///
    /// # Errors
    /// `Invalid` if source and target are the same asset, or if the kind is too long. `NotFound` if an asset does not
    /// exist. `Conflict` if the source depends on the target already.
    pub async fn add(
        tx: &Tx,
        source: AssetId,
        target: AssetId,
        kind: Option<&str>,
        criticality: Option<Criticality>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let mut faults = Vec::new();
        let kind = text::check_optional("kind", kind, KIND, &mut faults);
        if source == target {
            let message = "is the source itself: an asset cannot depend on itself";
            faults.push(FieldError::new("target", message));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        // Locks the assets in the order of ids: two transactions that add opposite dependencies at the same time would
        // deadlock otherwise.
        let locked: Vec<Row> = tx
            .all(
                "SELECT id FROM asset WHERE id IN ($1, $2) ORDER BY id FOR KEY SHARE",
                &[&source, &target],
            )
            .await?;
        let locked: Vec<AssetId> =
            locked.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
        if let Some(missing) = [source, target].into_iter().find(|id| !locked.contains(id)) {
            return Err(Error::not_found("asset", missing));
        }
        let dependency = Self {
            id: Id::new(),
            source_id: source,
            target_id: target,
            kind,
            criticality,
            created_at: now.trunc_subsecs(6), // The precision of Postgres.
        };
        insert_all(tx, slice::from_ref(&dependency)).await?;
        dependency.publish(tx);
        Ok(dependency)
    }

    /// Deletes the dependency and returns it.
    ///
    /// # Errors
    /// `NotFound` if the dependency does not exist.
    pub async fn remove(tx: &Tx, id: DependencyId) -> Result<Self> {
        let removed: Self = tx
            .opt(
                "DELETE FROM dependency WHERE id = $1
                 RETURNING id, source_id, target_id, kind, criticality, created_at",
                &[&id],
            )
            .await?
            .ok_or_else(|| Error::not_found("dependency", id))?;
        let (without, with) = removed.snapshots();
        let entry = Entry::changed("asset.dependency_removed", removed.source_id, with, without);
        entry.record(tx).await?;
        removed.publish(tx);
        Ok(removed)
    }

    /// Deletes all dependencies of and on an asset that is about to be deleted. Records audit entries of the assets
    /// that depended on this asset. The caller must have locked the asset's row, so that no dependency is added
    /// meanwhile.
    ///
    /// # Errors
    /// `Conflict` if the asset has too many dependencies for one transaction.
    pub(crate) async fn remove_all_of_asset(tx: &Tx, asset: AssetId) -> Result<()> {
        let removed: Vec<Self> = tx
            .all(
                &format!(
                    "{SELECT} WHERE source_id = $1 OR target_id = $1 ORDER BY id LIMIT $2 FOR UPDATE"
                ),
                &[&asset, &(MAX_REMOVED + 1)],
            )
            .await?;
        if i64::try_from(removed.len()).is_ok_and(|count| count > MAX_REMOVED) {
            return Err(Error::Conflict(format!(
                "the asset has more than {MAX_REMOVED} dependencies, too many to delete in one transaction: delete some with \
                 removeDependency first"
            )));
        }
        let ids: Vec<_> = removed.iter().map(|dependency| dependency.id).collect();
        tx.exec("DELETE FROM dependency WHERE id = ANY($1)", &[&ids]).await?;
        let entries =
            removed.iter().filter(|dependency| dependency.source_id != asset).map(|dependency| {
                let (without, with) = dependency.snapshots();
                Entry::changed("asset.dependency_removed", dependency.source_id, with, without)
            });
        Entry::record_all(tx, entries.collect()).await?;
        for dependency in &removed {
            dependency.publish(tx);
        }
        Ok(())
    }

    /// Locks and returns those dependencies that exist between the pairs of source and target at the same index. Locks
    /// the rows in the order of the pairs.
    pub(crate) async fn lock_all(
        tx: &Tx,
        sources: &[AssetId],
        targets: &[AssetId],
    ) -> Result<Vec<Self>> {
        tx.all(
            &format!(
                "SELECT found.* FROM UNNEST($1::uuid[], $2::uuid[]) AS given (source_id, target_id)
                 CROSS JOIN LATERAL ({SELECT} WHERE dependency.source_id = given.source_id
                                     AND dependency.target_id = given.target_id LIMIT 1 FOR NO KEY UPDATE) AS found"
            ),
            &[&sources, &targets],
        )
        .await
    }

    fn publish(&self, tx: &Tx) {
        tx.emit(Event::changed(tx.org(), self.source_id));
        tx.emit(Event::changed(tx.org(), self.id));
    }

    /// Returns the JSON values that an audit entry of the source contains without and with this dependency. Without it,
    /// the target's key has the value null. The changed path is therefore always that key, and does not depend on the
    /// dependency's fields.
    fn snapshots(&self) -> (Value, Value) {
        let of_source =
            |values: Value| json!({ "dependsOn": { self.target_id.to_string(): values } });
        let values = json!({ "id": self.id, "kind": self.kind, "criticality": self.criticality });
        (of_source(Value::Null), of_source(values))
    }
}
