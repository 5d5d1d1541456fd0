//! What an asset needs: the *source* needs the *target*. (`dependency/reach`: what is reached along them;
//! `dependency/store`: how any number of them are written.)
//!
//! Cycles are allowed, because operations has them; an asset that needs itself, or the same one twice, is not. A
//! dependency is part of its source: the audit trail keeps it there, so that an asset's history says when it began to
//! need what.

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
        text::{self, Rule, text_enum},
    },
};

mod reach;
mod store;

pub use reach::{BlastRadius, Bounds, Direction, Reached, blast_radius, reach};
pub(crate) use store::{insert_all, update_all};

/// Dependencies that go with an asset at most: each is an audit entry and two hints.
const MOST_REMOVED: i64 = 10_000;

/// A kind: one line, up to 50 characters.
pub(crate) const KIND: Rule = Rule { max: 50, multiline: false };

text_enum! {
    /// How much an asset needs another.
    Criticality in "dependency"."criticality" {
        /// It hardly notices.
        Low = "LOW",
        /// Something of it does not work.
        Medium = "MEDIUM",
        /// Much of it does not work.
        High = "HIGH",
        /// It does not work.
        Critical = "CRITICAL",
    }
}

/// What an asset needs: the source needs the target.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(name = "DependencyRow")]
pub struct Dependency {
    /// Its id.
    pub id: DependencyId,
    /// Which asset needs the other.
    #[graphql(skip)]
    pub source_id: AssetId,
    /// Which asset is needed.
    #[graphql(skip)]
    pub target_id: AssetId,
    /// What for, e.g. `database`.
    pub kind: Option<String>,
    /// How much.
    pub criticality: Option<Criticality>,
    /// When it was added here.
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
    /// The dependency, or `None`.
    pub async fn find(tx: &Tx, id: DependencyId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// The organization's dependencies, oldest first.
    pub async fn list(tx: &Tx, page: &PageRequest) -> Result<Page<Self>> {
        let oldest_first = Order { column: None, id: "id", descending: false };
        Listing::default().page(tx, SELECT, oldest_first, page).await
    }

    /// Its place in the list.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }

    /// RuleText that `source` needs `target`.
    ///
    /// # Errors
    /// `Invalid` for an asset that would need itself and for a kind that is too long, `NotFound` for an asset that does
    /// not exist, `Conflict` where the source needs the target already.
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
            let message = "is the source itself: an asset cannot need itself";
            faults.push(FieldError::new("target", message));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        // In the order of their ids: of two that are added at once, the other way round, neither waits for the other.
        let held: Vec<Row> = tx
            .all(
                "SELECT id FROM asset WHERE id IN ($1, $2) ORDER BY id FOR KEY SHARE",
                &[&source, &target],
            )
            .await?;
        let held: Vec<AssetId> =
            held.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
        if let Some(missing) = [source, target].into_iter().find(|id| !held.contains(id)) {
            return Err(Error::not_found("asset", missing));
        }
        let dependency = Self {
            id: Id::new(),
            source_id: source,
            target_id: target,
            kind,
            criticality,
            created_at: now.trunc_subsecs(6), // As Postgres keeps it.
        };
        insert_all(tx, slice::from_ref(&dependency), now).await?;
        dependency.tell(tx);
        Ok(dependency)
    }

    /// RuleText that its source no longer needs its target; returns what it was.
    pub async fn remove(tx: &Tx, id: DependencyId, now: DateTime<Utc>) -> Result<Self> {
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
        entry.record(tx, now).await?;
        removed.tell(tx);
        Ok(removed)
    }

    /// Takes away all of an asset that is about to go, and says so to those who needed it. The asset is locked: none is
    /// added meanwhile.
    ///
    /// # Errors
    /// `Conflict` where these are too many for one transaction.
    pub(crate) async fn remove_all_of(tx: &Tx, asset: AssetId, now: DateTime<Utc>) -> Result<()> {
        let removed: Vec<Self> = tx
            .all(
                &format!(
                    "{SELECT} WHERE source_id = $1 OR target_id = $1 ORDER BY id LIMIT $2 FOR UPDATE"
                ),
                &[&asset, &(MOST_REMOVED + 1)],
            )
            .await?;
        if i64::try_from(removed.len()).is_ok_and(|count| count > MOST_REMOVED) {
            return Err(Error::Conflict(format!(
                "the asset has more than {MOST_REMOVED} dependencies, which are not taken away at once: call removeDependency \
                 for some first"
            )));
        }
        let ids: Vec<_> = removed.iter().map(|one| one.id).collect();
        tx.exec("DELETE FROM dependency WHERE id = ANY($1)", &[&ids]).await?;
        let entries = removed.iter().filter(|one| one.source_id != asset).map(|one| {
            let (without, with) = one.snapshots();
            Entry::changed("asset.dependency_removed", one.source_id, with, without)
        });
        Entry::record_all(tx, entries.collect(), now).await?;
        for one in &removed {
            one.tell(tx);
        }
        Ok(())
    }

    /// Those between these sources and targets, pair by pair, locked in this order.
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

    fn tell(&self, tx: &Tx) {
        tx.emit(Event::changed(tx.org(), self.source_id));
        tx.emit(Event::changed(tx.org(), self.id));
    }

    /// What its source needs without it, and with it. Null, not absent: its path is then the target, whatever it says.
    fn snapshots(&self) -> (Value, Value) {
        let of_source =
            |values: Value| json!({ "dependsOn": { self.target_id.to_string(): values } });
        let values = json!({ "id": self.id, "kind": self.kind, "criticality": self.criticality });
        (of_source(Value::Null), of_source(values))
    }
}
