//! Scores by owner, tag, type and environment: who or what drags the score down.

use async_graphql::{Enum, SimpleObject};
use tokio_postgres::Row;

use super::posture_sums;
use crate::{
    base::{
        db::{FromRow, Tx},
        entity::{TagId, UserId},
        error::Result,
    },
    compliance::posture::Sums,
};

/// What postures are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum)]
#[graphql(name = "PostureDimension")]
pub enum Dimension {
    /// Who answers for the asset.
    Owner,
    /// What the asset is tagged with; one of several tags counts in each of their groups.
    Tag,
    /// What kind of thing the asset is.
    Type,
    /// What the asset is used for.
    Environment,
}

/// What the postures of some assets add up to.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "PostureGroupRow")]
pub struct PostureGroup {
    /// What they have in common: a name, or a value such as `PROD`; `(none)` where they have no owner, or no tag.
    pub label: String,
    /// Who answers for all of them.
    #[graphql(skip)]
    pub owner_id: Option<UserId>,
    /// What all of them are tagged with.
    #[graphql(skip)]
    pub tag_id: Option<TagId>,
    /// How many assets.
    pub assets: i64,
    /// Mean of their scores, 0 to 100; null where none has one.
    pub score: Option<f64>,
    /// The weight of what holds in that of what was judged, over all of them, 0 to 100; null where nothing was judged.
    pub weighted: Option<f64>,
    /// The weight of what was judged in that of all that applies, 0 to 1.
    pub coverage: f64,
    /// How many rules are broken, counted by asset, without what a waiver allows.
    pub failing: i64,
}

impl FromRow for PostureGroup {
    fn from_row(row: &Row) -> Result<Self> {
        let sums = Sums::from_row(row)?;
        let label: Option<String> = row.try_get("label")?;
        Ok(Self {
            label: label.unwrap_or_else(|| "(none)".to_owned()),
            owner_id: row.try_get("owner_id")?,
            tag_id: row.try_get("tag_id")?,
            assets: sums.assets,
            score: sums.mean(),
            weighted: sums.weighted(),
            coverage: sums.coverage(),
            failing: row.try_get("failing")?,
        })
    }
}

/// The sums of each group, then the words for it: names are looked up once a group.
macro_rules! grouped {
    ($key:literal, $join:literal, $named:literal) => {
        concat!(
            "WITH grouped AS (SELECT ", $key, " AS key, ", posture_sums!(), ",
                 coalesce(sum(length(verdicts) - length(replace(verdicts, 'F', ''))), 0)::bigint AS failing
                 FROM posture JOIN asset ON asset.id = posture.asset_id ", $join, " GROUP BY 1)
             SELECT grouped.*, ", $named, "
             ORDER BY score_sum::float8 / nullif(scored, 0) NULLS LAST, label NULLS LAST LIMIT 1000"
        )
    };
}

impl Dimension {
    const fn sql(self) -> &'static str {
        match self {
            Self::Owner => grouped!(
                "asset.owner_id",
                "",
                "\"user\".name AS label, key AS owner_id, NULL::uuid AS tag_id
                 FROM grouped LEFT JOIN \"user\" ON \"user\".id = key"
            ),
            Self::Tag => grouped!(
                "asset_tag.tag_id",
                "LEFT JOIN asset_tag ON asset_tag.asset_id = asset.id",
                "tag.name AS label, NULL::uuid AS owner_id, key AS tag_id FROM grouped LEFT JOIN tag ON tag.id = key"
            ),
            Self::Type => grouped!(
                "asset.type",
                "",
                "key AS label, NULL::uuid AS owner_id, NULL::uuid AS tag_id FROM grouped"
            ),
            Self::Environment => grouped!(
                "asset.environment",
                "",
                "key AS label, NULL::uuid AS owner_id, NULL::uuid AS tag_id FROM grouped"
            ),
        }
    }
}

impl PostureGroup {
    /// The organization's postures now by that dimension, the worst score first; a thousand groups at most.
    pub async fn list(tx: &Tx, dimension: Dimension) -> Result<Vec<Self>> {
        tx.all(dimension.sql(), &[]).await
    }
}
