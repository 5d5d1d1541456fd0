//! A range of asset ids. One transaction evaluates the assets of one range.

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    rule::{Facts, Ruleset},
    scope::{AssetScope, ScopeValues},
};
use crate::base::{db::Tx, entity::AssetId, error::Result, id::Id};

/// A range of asset ids, from `above` (exclusive) to `up_to` (inclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetRange {
    /// Exclusive lower bound; `None` for a range that begins with the first asset.
    pub above: Option<AssetId>,
    /// Inclusive upper bound; `None` for a range without an end.
    pub up_to: Option<AssetId>,
}

impl AssetRange {
    /// Cuts the assets in scope into ranges: of 2,000 assets, or fewer if the rules cost much. Returns at least one
    /// range. The ranges leave no gap, so assets that are created later fall into one of them.
    pub(crate) async fn cut(
        tx: &Tx,
        scope: Option<&AssetScope>,
        rules: &Ruleset,
    ) -> Result<Vec<Self>> {
        let size = rules.batch_size();
        let values = ScopeValues::of(scope);
        let (filter, params) = values.in_operation().into_sql();
        let sql = format!(
            "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place, count(*) OVER () AS total
                             FROM asset WHERE {filter}) AS numbered
             WHERE place % {size} = 0 OR place = total ORDER BY id"
        );
        let mut ends: Vec<Row> = tx.all(&sql, &params).await?;
        ends.pop(); // The last range has no upper bound, so it includes new assets.
        let mut ranges = Vec::with_capacity(ends.len() + 1);
        let mut above = None;
        for end in &ends {
            let up_to = Some(end.try_get("id")?);
            ranges.push(Self { above, up_to });
            above = up_to;
        }
        ranges.push(Self { above, up_to: None });
        Ok(ranges)
    }

    /// Returns ranges that together cover all assets, including assets that are created later.
    pub async fn all(tx: &Tx) -> Result<Vec<Self>> {
        Self::cut(tx, None, &Ruleset::load(tx).await?).await
    }

    /// Returns both bounds. A missing bound becomes the smallest or the largest possible id.
    pub(crate) fn bounds(self) -> (Uuid, Uuid) {
        (self.above.map_or(Uuid::nil(), Id::uuid), self.up_to.map_or(Uuid::max(), Id::uuid))
    }
}

/// Reads the facts of the assets that are in operation, in the range and in the scope.
pub(crate) async fn facts_in_range(
    tx: &Tx,
    rules: &Ruleset,
    range: AssetRange,
    scope: Option<&AssetScope>,
) -> Result<Vec<Facts>> {
    let values = ScopeValues::of(scope);
    let (above, up_to) = range.bounds();
    let mut listing = values.in_operation();
    listing.filter("asset.id > ?", &above);
    listing.filter("asset.id <= ?", &up_to);
    let (filter, params) = listing.into_sql();
    tx.all(&format!("{} WHERE {filter}", rules.select_facts()), &params).await
}
