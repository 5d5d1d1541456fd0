//! Scores: the queries, and the view of a group. (The field of a run is in `compliance`.)

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

/// What the postures of some assets add up to.
pub(crate) struct PostureGroup(score::PostureGroup);

/// What the postures of some assets add up to. Takes `COMPLIANCE_READ`.
#[Object(directive = requires::apply(ComplianceRead))]
impl PostureGroup {
    #[graphql(flatten)]
    async fn row(&self) -> &score::PostureGroup {
        &self.0
    }

    /// Who answers for all of them; null where nobody does, and where they are grouped otherwise.
    async fn owner(&self, ctx: &Context<'_>) -> Result<Option<User>> {
        let Some(owner) = self.0.owner_id else { return Ok(None) };
        Ok(ctx.load::<UserById>(owner).await?.map(User))
    }

    /// What all of them are tagged with; null where they have no tag, and where they are grouped otherwise.
    async fn tag(&self, ctx: &Context<'_>) -> Result<Option<Tag>> {
        let Some(tag) = self.0.tag_id else { return Ok(None) };
        ctx.load::<TagById>(tag).await
    }
}

/// Queries on scores.
#[derive(Default)]
pub(crate) struct ScoreQuery;

#[Object]
impl ScoreQuery {
    /// How much of what was judged holds now; null where nothing is judged yet. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn compliance_score(&self, ctx: &Context<'_>) -> Result<Option<Score>> {
        Ok(Score::now(&*ctx.read().await?, ctx.now()).await?)
    }

    /// The scores now by what assets have in common, the worst first; up to 1000 groups. Takes `COMPLIANCE_READ`.
    #[graphql(directive = requires::apply(ComplianceRead))]
    async fn posture_by(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What they have in common.")] dimension: Dimension,
    ) -> Result<Vec<PostureGroup>> {
        let groups = score::PostureGroup::list(&*ctx.read().await?, dimension).await?;
        Ok(groups.into_iter().map(PostureGroup).collect())
    }
}
