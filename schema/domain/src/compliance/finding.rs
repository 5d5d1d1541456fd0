//! A finding: a rule that an asset breaks, from when it was seen until it ended. (`finding/query`: which are asked for;
//! `finding/transition`: what became of them in one look.)
//!
//! Broken again, it is a new finding. So whether an asset broke a rule at any time follows from these rows alone, and runs
//! write none where nothing changed: when a live one was last seen is told by the runs, not by its row.

use std::collections::HashMap;

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;

use crate::{
    base::{
        db::{FromRow, Tx},
        entity::{self, AssetId, Entity, FindingId, RuleId, RuleVersionId, WaiverId},
        error::{Error, Result},
        id::Id,
        listing::{Listing, Order, Side},
        page::{Page, PageRequest, Position},
        text::text_enum,
    },
    compliance::rule::Severity,
};

mod query;
pub(crate) mod transition;

use query::FilterValues;
pub use query::FindingFilter;

text_enum! {
    /// Where a finding is in its life.
    FindingState in "finding"."state" {
        /// The rule is broken.
        Open = "OPEN",
        /// The rule is broken, and a waiver allows that.
        Waived = "WAIVED",
        /// The rule holds again.
        Fixed = "FIXED",
        /// It is not judged any more: the asset is not in operation, the rule not about it, or a fact that decides not known.
        OutOfScope = "OUT_OF_SCOPE",
    }
}

impl FindingState {
    /// Whether the rule is still broken.
    pub const fn is_live(self) -> bool {
        match self {
            Self::Open | Self::Waived => true,
            Self::Fixed | Self::OutOfScope => false,
        }
    }
}

/// A rule that an asset breaks, or broke.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "FindingRow")]
pub struct Finding {
    /// Its id.
    pub id: FindingId,
    /// The asset.
    #[graphql(skip)]
    pub asset_id: AssetId,
    /// The rule.
    #[graphql(skip)]
    pub rule_id: RuleId,
    /// The rule's version that looked last.
    #[graphql(skip)]
    pub version_id: RuleVersionId,
    /// How bad it is, by that version.
    pub severity: Severity,
    /// Where it is in its life.
    pub state: FindingState,
    /// What was seen, by name, beside what it should have been: when it opened, or when what the rule reads or
    /// says last changed.
    pub evidence: Value,
    /// What allows it.
    #[graphql(skip)]
    pub waiver_id: Option<WaiverId>,
    /// How often the asset had broken the rule before.
    pub reopened: i32,
    /// Since when the rule is broken.
    pub opened_at: DateTime<Utc>,
    /// When it was last seen: by a change of the asset, or by a run of all assets.
    pub last_seen_at: DateTime<Utc>,
    /// When it was fixed or went out of scope; null while the rule is broken.
    pub ended_at: Option<DateTime<Utc>>,
}

impl FromRow for Finding {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            asset_id: row.try_get("asset_id")?,
            rule_id: row.try_get("rule_id")?,
            version_id: row.try_get("version_id")?,
            severity: Severity::from_column(row.try_get("severity")?)?,
            state: FindingState::from_column(row.try_get("state")?)?,
            evidence: row.try_get("evidence")?,
            waiver_id: row.try_get("waiver_id")?,
            reopened: row.try_get("reopened")?,
            opened_at: row.try_get("opened_at")?,
            last_seen_at: row.try_get("last_seen_at")?,
            ended_at: row.try_get("ended_at")?,
        })
    }
}

/// Runs come in the order of their ids, so the newest is found by the key.
macro_rules! columns {
    () => {
        "id, asset_id, rule_id, version_id, severity, weight, state, evidence, waiver_id, reopened, opened_at, ended_at,
         coalesce(ended_at, GREATEST(changed_at, (SELECT started_at FROM compliance_run
             WHERE state = 'SUCCEEDED' AND scope IS NULL ORDER BY id DESC LIMIT 1))) AS last_seen_at"
    };
}
pub(crate) const COLUMNS: &str = columns!();
pub(crate) const SELECT: &str = concat!("SELECT ", columns!(), " FROM finding");

/// The worst first, of equal ones the newest.
pub(crate) const WORST_FIRST: Order =
    Order { column: Some(("weight", "smallint")), id: "id", descending: true };

/// The newest first, whatever becomes of it.
pub(crate) const NEWEST_FIRST: Order = Order { column: None, id: "id", descending: true };

impl Finding {
    /// The finding, or `None`.
    pub async fn find(tx: &Tx, id: FindingId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// The finding.
    pub async fn get(tx: &Tx, id: FindingId) -> Result<Self> {
        Self::find(tx, id).await?.ok_or_else(|| Error::not_found(entity::Finding::NAME, id))
    }

    /// A page of those that the filter lets through: the worst first, of equal ones the newest.
    pub async fn list(tx: &Tx, filter: &FindingFilter, page: &PageRequest) -> Result<Page<Self>> {
        let values = FilterValues::of(filter);
        values.listing().page(tx, SELECT, WORST_FIRST, page).await
    }

    /// How many the filter lets through.
    pub async fn count(tx: &Tx, filter: &FindingFilter) -> Result<i64> {
        FilterValues::of(filter).listing().count(tx, "finding").await
    }

    /// A page of what each of these assets breaks now, the worst first.
    pub async fn of_assets(
        tx: &Tx,
        assets: &[AssetId],
        page: &PageRequest,
    ) -> Result<HashMap<AssetId, Page<Self>>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let live =
            Side { columns: COLUMNS, from: "finding", only: Some(("ended_at IS NULL", None)) };
        let pages = Listing::default()
            .page_of_each(tx, live, ("asset_id", &owners), WORST_FIRST, page)
            .await?;
        Ok(pages.into_iter().map(|(asset, page)| (Id::from(asset), page)).collect())
    }

    /// How many rules each of these assets breaks now; those that break none are left out.
    pub async fn count_of_assets(tx: &Tx, assets: &[AssetId]) -> Result<HashMap<AssetId, i64>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let live = FindingFilter::default();
        let live = FilterValues::of(&live);
        let counts = live.listing().count_of_each(tx, "finding", ("asset_id", &owners)).await?;
        Ok(counts.into_iter().map(|(asset, count)| (Id::from(asset), count)).collect())
    }

    /// When it was fixed, if it was.
    pub const fn fixed_at(&self) -> Option<DateTime<Utc>> {
        match self.state {
            FindingState::Fixed => self.ended_at,
            FindingState::Open | FindingState::Waived | FindingState::OutOfScope => None,
        }
    }

    /// Its place in the list.
    pub fn position(&self) -> Position {
        Position { value: self.severity.weight().to_string(), id: self.id.uuid() }
    }
}

impl<'a> Listing<'a> {
    /// Only what was broken at this time.
    pub(crate) fn broken_at(&mut self, at: &'a DateTime<Utc>) {
        self.only("opened_at <= ? AND (ended_at IS NULL OR ended_at > ?)", at);
    }
}
