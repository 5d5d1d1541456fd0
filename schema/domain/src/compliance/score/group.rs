//! Scores by owner, tag, type and environment: they show which groups of assets lower the score.

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

/// Dimension by which postures are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Enum)]
#[graphql(name = "PostureDimension")]
pub enum Dimension {
    /// The owner of the asset.
    Owner,
    /// Tags of the asset. An asset with several tags counts in several groups.
    Tag,
    /// The type of the asset.
    Type,
    /// The environment of the asset.
    Environment,
}

/// Scores and coverage of a group of assets.
#[derive(Debug, Clone, PartialEq, SimpleObject)]
#[graphql(name = "PostureGroupRow")]
pub struct PostureGroup {
    /// Name of the owner or tag, or the type or environment, such as `PROD`. `(none)` for assets without an owner or
    /// tag.
    pub label: String,
    /// The owner of the group's assets; `None` for the group without an owner, and for other dimensions.
    #[graphql(skip)]
    pub owner_id: Option<UserId>,
    /// The tag that the group's assets share; `None` for the group without a tag, and for other dimensions.
    #[graphql(skip)]
    pub tag_id: Option<TagId>,
    /// Number of assets in the group.
    pub assets: i64,
    /// Mean of the assets' scores, a percentage, 0 to 100: every asset counts the same. Null if no asset has a score.
    pub score: Option<f64>,
    /// Percentage, 0 to 100, over the group: weight of the passed rules out of the weight of the passed and failed
    /// rules. Waived failures do not count. Null if no rule passed or failed.
    pub weighted: Option<f64>,
    /// Fraction, 0 to 1, over the group: weight of the assessed rules (passed, failed or waived) out of the weight of
    /// all rules that apply.
    pub coverage: f64,
    /// Number of failures without a waiver. Each pair of rule and asset counts once.
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

/// Returns a statement that first sums each group and then joins the label, so that each label is looked up once per
/// group.
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
                "member.name AS label, key AS owner_id, NULL::uuid AS tag_id
                 FROM grouped LEFT JOIN member ON member.id = key"
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
    /// Returns the scores of the organization's assets grouped by this dimension, lowest mean score first; at most
    /// 1,000 groups.
    pub async fn list(tx: &Tx, dimension: Dimension) -> Result<Vec<Self>> {
        tx.all(dimension.sql(), &[]).await
    }
}
