//! A range of asset ids: a part of an organization's assets that is judged in one transaction.

use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    rule::{Facts, Ruleset},
    scope::{AssetScope, ScopeValues},
};
use crate::base::{db::Tx, entity::AssetId, error::Result, id::Id};

/// Assets of one shard.
const SHARD_ASSETS: i64 = 2_000;

/// A range of asset ids: above the first, up to and including the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetRange {
    /// Above this one; absent: from the first.
    pub above: Option<AssetId>,
    /// Up to this one; absent: to the last.
    pub up_to: Option<AssetId>,
}

impl AssetRange {
    /// Ranges of some thousand assets each that cover all that the scope lets through, and those to come. At least one.
    pub(crate) async fn cut(tx: &Tx, scope: Option<&AssetScope>) -> Result<Vec<Self>> {
        let values = ScopeValues::of(scope);
        let (filter, params) = values.in_operation().into_sql();
        let sql = format!(
            "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place, count(*) OVER () AS total
                             FROM asset WHERE {filter}) AS numbered
             WHERE place % {SHARD_ASSETS} = 0 OR place = total ORDER BY id"
        );
        let mut ends: Vec<Row> = tx.all(&sql, &params).await?;
        ends.pop(); // The last range has no end.
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

    /// Ranges that cover everything.
    pub async fn all(tx: &Tx) -> Result<Vec<Self>> {
        Self::cut(tx, None).await
    }

    /// The same with ids where there are none: above all of them, up to one that nothing is above.
    pub(crate) fn bounds(self) -> (Uuid, Uuid) {
        (self.above.map_or(Uuid::nil(), Id::uuid), self.up_to.map_or(Uuid::max(), Id::uuid))
    }
}

/// What is known of the assets in operation in a range, within a scope.
pub(crate) async fn facts_in_range(
    tx: &Tx,
    rules: &Ruleset,
    range: AssetRange,
    scope: Option<&AssetScope>,
) -> Result<Vec<Facts>> {
    let values = ScopeValues::of(scope);
    let (above, up_to) = range.bounds();
    let mut listing = values.in_operation();
    listing.only("asset.id > ?", &above);
    listing.only("asset.id <= ?", &up_to);
    let (filter, params) = listing.into_sql();
    tx.all(&format!("{} WHERE {filter}", rules.select_facts()), &params).await
}
