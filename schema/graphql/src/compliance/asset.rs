//! Fields that compliance adds to an asset: its posture and its findings.

use async_graphql::{Context, Object};
use domain::entity::{self, AssetId};

use crate::{
    compliance::{
        finding::{self, Finding},
        posture::{self, Posture},
    },
    inventory::asset::{AddedFields, Asset},
    request::{error::Result, page::Connection},
};

/// Posture and findings of an asset, as fields of [`Asset`].
pub(crate) struct AssetCompliance(AssetId);

impl AddedFields<entity::Finding> for Asset {
    type Fields = AssetCompliance;

    fn added_fields(&self) -> AssetCompliance {
        AssetCompliance(self.0.id)
    }
}

#[Object]
impl AssetCompliance {
    /// The current verdicts and the score of the asset; null if the asset was never evaluated or is not in operation.
    /// Requires `COMPLIANCE_READ`.
    async fn posture(&self, ctx: &Context<'_>) -> Result<Option<Posture>> {
        posture::of_asset(ctx, self.0).await
    }

    /// Live findings of the asset (`OPEN` or `WAIVED`), highest severity first. Requires `COMPLIANCE_READ`.
    async fn findings(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
    ) -> Result<Connection<Finding>> {
        finding::of_asset(ctx, self.0, first, after).await
    }
}
