//! What compliance adds to an asset: its posture, its findings.

use async_graphql::{Context, Object};
use domain::entity::{self, AssetId};

use crate::{
    compliance::{
        finding::{self, Finding},
        posture::{self, Posture},
    },
    inventory::asset::{Asset, Extended},
    request::{error::Result, page::Connection},
};

/// Posture and findings of an asset: fields of [`Asset`].
pub(crate) struct AssetCompliance(AssetId);

impl Extended<entity::Finding> for Asset {
    type Fields = AssetCompliance;

    fn extended(&self) -> AssetCompliance {
        AssetCompliance(self.0.id)
    }
}

#[Object]
impl AssetCompliance {
    /// What every rule says of it now; null where it was never judged, and where it is not in operation. Takes
    /// `COMPLIANCE_READ`.
    async fn posture(&self, ctx: &Context<'_>) -> Result<Option<Posture>> {
        posture::of_asset(ctx, self.0).await
    }

    /// What it breaks now, the worst first. Takes `COMPLIANCE_READ`.
    async fn findings(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
    ) -> Result<Connection<Finding>> {
        finding::of_asset(ctx, self.0, first, after).await
    }
}
