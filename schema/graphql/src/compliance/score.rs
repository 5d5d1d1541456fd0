//! Scores: root fields, and the GraphQL type of a group of assets. The field `score` of a run is in `compliance/run`.

use async_graphql::{Context, Object};
use domain::{
    access::{directive::requires, permission::Permission::ComplianceRead},
    compliance::score::{self, Dimension, Score},
    inventory::tag::Tag,
};

use crate::{
    access::user::User,
    access::user::UserById,
    inventory::tag::TagById,
    request::{context::ContextExt, error::Result, loader::Load},
};

/// Scores of a group of assets.
pub(crate) struct PostureGroup(score::PostureGroup);

/// Scores of a group of assets. Requires `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl PostureGroup {
    #[graphql(flatten)]
    async fn row(&self) -> &score::PostureGroup {
        &self.0
    }

    /// Owner of the group's assets. Null for the group of assets without an owner, and if the dimension is not `OWNER`.
    async fn owner(&self, ctx: &Context<'_>) -> Result<Option<User>> {
        let Some(owner) = self.0.owner_id else { return Ok(None) };
        Ok(ctx.load::<UserById>(owner).await?.map(User))
    }

    /// Tag that the group's assets share. Null for the group of assets without a tag, and if the dimension is not
    /// `TAG`.
    async fn tag(&self, ctx: &Context<'_>) -> Result<Option<Tag>> {
        let Some(tag) = self.0.tag_id else { return Ok(None) };
        ctx.load::<TagById>(tag).await
    }
}

/// Root fields that read scores.
#[derive(Default)]
pub(crate) struct ScoreQuery;

#[Object]
impl ScoreQuery {
    /// Current score over all assets of the organization; null if no rule is assessed on any asset yet. Requires
    /// `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_score(&self, ctx: &Context<'_>) -> Result<Option<Score>> {
        Ok(Score::now(&*ctx.read().await?, ctx.now()).await?)
    }

    /// Current scores of groups of assets, lowest mean score first; up to 1,000 groups. Requires `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn posture_by(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Property by which assets are grouped.")] dimension: Dimension,
    ) -> Result<Vec<PostureGroup>> {
        let groups = score::PostureGroup::list(&*ctx.read().await?, dimension).await?;
        Ok(groups.into_iter().map(PostureGroup).collect())
    }
}
