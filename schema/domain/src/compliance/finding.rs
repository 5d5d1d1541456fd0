//! A finding: the record of an asset that fails a rule, from the first failing evaluation until the failure ends.
//! `finding/query` filters findings; `finding/transition` writes the findings that an evaluation opened, changed or
//! ended.
//!
//! A later failure of the same rule opens a new finding. The findings therefore show whether an asset failed a rule at
//! any past time, and a run writes no row for an unchanged failure. The time at which a live finding was last seen
//! comes from the runs, not from the finding's row.

use std::collections::HashMap;

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::{
    base::{
        db::{FromRow, Tx},
        entity::{self, AssetId, Entity, FindingId, RuleId, RuleVersionId, WaiverId},
        error::{Error, Result},
        id::Id,
        listing::{ListedTable, Listing, Order},
        page::{Page, PageRequest, Position},
        text::text_enum,
    },
    compliance::{evidence::Evidence, rule::Severity},
};

mod query;
pub(crate) mod transition;

use query::FilterValues;
pub use query::FindingFilter;

text_enum! {
    /// State of a finding in its life cycle.
    FindingState in "finding"."state" {
        /// The asset fails the rule, and no waiver covers the failure.
        Open = "OPEN",
        /// The asset fails the rule, and an active waiver covers the failure.
        Waived = "WAIVED",
        /// The asset passes the rule again.
        Fixed = "FIXED",
        /// The failure can no longer be assessed: the asset left operation, the rule no longer applies or was disabled,
        /// or a fact that the rule needs is missing.
        OutOfScope = "OUT_OF_SCOPE",
    }
}

impl FindingState {
    /// Returns true while the asset still fails the rule.
    pub const fn is_live(self) -> bool {
        match self {
            Self::Open | Self::Waived => true,
            Self::Fixed | Self::OutOfScope => false,
        }
    }
}

/// A finding: the record of an asset that fails or failed a rule.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "FindingRow")]
pub struct Finding {
    /// The finding's id, beginning `fnd_`.
    pub id: FindingId,
    /// The asset that fails or failed the rule.
    #[graphql(skip)]
    pub asset_id: AssetId,
    /// The rule that the asset fails or failed.
    #[graphql(skip)]
    pub rule_id: RuleId,
    /// The rule version with which the asset was last evaluated.
    #[graphql(skip)]
    pub version_id: RuleVersionId,
    /// Severity of the rule in the version with which the asset was last evaluated.
    pub severity: Severity,
    /// Current state of the finding.
    pub state: FindingState,
    /// Values of the rule's evidence expressions. Captured when the finding opened, or when the rule's inputs or result
    /// last changed.
    #[graphql(skip)]
    pub evidence: Evidence,
    /// The waiver that covers the failure; `None` if no waiver covers it.
    #[graphql(skip)]
    pub waiver_id: Option<WaiverId>,
    /// Number of earlier findings of the same rule on the same asset.
    pub reopened: i32,
    /// Time of the first failing evaluation.
    pub opened_at: DateTime<Utc>,
    /// Time at which the failure was last confirmed, by a run of all assets or by the last change of the finding. For
    /// an ended finding, the time at which it ended.
    pub last_seen_at: DateTime<Utc>,
    /// Time at which the finding was fixed or went out of scope; null while the finding is live.
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
            evidence: Evidence::new(row.try_get("evidence")?),
            waiver_id: row.try_get("waiver_id")?,
            reopened: row.try_get("reopened")?,
            opened_at: row.try_get("opened_at")?,
            last_seen_at: row.try_get("last_seen_at")?,
            ended_at: row.try_get("ended_at")?,
        })
    }
}

/// The columns of a [`Finding`]. Run ids ascend with time, so the primary key yields the newest run.
macro_rules! columns {
    () => {
        "id, asset_id, rule_id, version_id, severity, weight, state, evidence, waiver_id, reopened, opened_at, ended_at,
         coalesce(ended_at, GREATEST(changed_at, (SELECT started_at FROM compliance_run
             WHERE state = 'SUCCEEDED' AND scope IS NULL ORDER BY id DESC LIMIT 1))) AS last_seen_at"
    };
}
pub(crate) const COLUMNS: &str = columns!();
pub(crate) const SELECT: &str = concat!("SELECT ", columns!(), " FROM finding");

/// Order: highest severity first, then newest first.
pub(crate) const WORST_FIRST: Order =
    Order { column: Some(("weight", "smallint")), id: "id", descending: true };

/// Order: newest first, which no later change of a finding affects.
pub(crate) const NEWEST_FIRST: Order = Order { column: None, id: "id", descending: true };

impl Finding {
    /// Returns the finding, or `None` if it does not exist.
    pub async fn find(tx: &Tx, id: FindingId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// Returns the finding; `NotFound` if it does not exist.
    pub async fn get(tx: &Tx, id: FindingId) -> Result<Self> {
        Self::find(tx, id).await?.ok_or_else(|| Error::not_found(entity::Finding::NAME, id))
    }

    /// Returns a page of the findings that match the filter: highest severity first, then newest first.
    pub async fn list(tx: &Tx, filter: &FindingFilter, page: &PageRequest) -> Result<Page<Self>> {
        let values = FilterValues::of(filter);
        values.listing().page(tx, SELECT, WORST_FIRST, page).await
    }

    /// Counts the findings that match the filter.
    pub async fn count(tx: &Tx, filter: &FindingFilter) -> Result<i64> {
        FilterValues::of(filter).listing().count(tx, "finding").await
    }

    /// Returns a page of live findings for each of these assets, highest severity first.
    pub async fn of_assets(
        tx: &Tx,
        assets: &[AssetId],
        page: &PageRequest,
    ) -> Result<HashMap<AssetId, Page<Self>>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let live = ListedTable {
            columns: COLUMNS,
            from: "finding",
            filter: Some(("ended_at IS NULL", None)),
        };
        let pages = Listing::default()
            .page_of_each(tx, live, ("asset_id", &owners), WORST_FIRST, page)
            .await?;
        Ok(pages.into_iter().map(|(asset, page)| (Id::from(asset), page)).collect())
    }

    /// Counts the live findings of each of these assets. Assets without live findings are left out.
    pub async fn count_of_assets(tx: &Tx, assets: &[AssetId]) -> Result<HashMap<AssetId, i64>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let live = FindingFilter::default();
        let live = FilterValues::of(&live);
        let counts = live.listing().count_of_each(tx, "finding", ("asset_id", &owners)).await?;
        Ok(counts.into_iter().map(|(asset, count)| (Id::from(asset), count)).collect())
    }

    /// Returns the time of the fix; `None` unless the state is `Fixed`.
    pub const fn fixed_at(&self) -> Option<DateTime<Utc>> {
        match self.state {
            FindingState::Fixed => self.ended_at,
            FindingState::Open | FindingState::Waived | FindingState::OutOfScope => None,
        }
    }

    /// Returns the finding's position in a list that is ordered by severity.
    pub fn position(&self) -> Position {
        Position { value: self.severity.weight().to_string(), id: self.id.uuid() }
    }
}

impl<'a> Listing<'a> {
    /// Adds a condition: the finding was live at this time.
    pub(crate) fn live_at(&mut self, at: &'a DateTime<Utc>) {
        self.filter("opened_at <= ? AND (ended_at IS NULL OR ended_at > ?)", at);
    }
}
