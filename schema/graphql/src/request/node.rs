//! Rows that `node(id)` finds. A noun says here how one of its rows is found; `engine` has the list of them.

use async_graphql::{Context, ID};
use domain::{Id, access::permission::Permission, base::entity::Entity};
use uuid::Uuid;

use crate::request::{context::ContextExt, error::Result};

/// A view with an id, which `node` finds it by.
pub(crate) trait Identified: Sized {
    /// The entity whose prefix the ids carry.
    type Entity: Entity;

    /// The permission without which there is no such row; none where [`Identified::find`] itself says whose rows it shows.
    const REQUIRES: Option<Permission>;

    /// The row's id.
    fn row_id(&self) -> Id<Self::Entity>;

    /// The row, if there is one that the caller may read.
    async fn find(ctx: &Context<'_>, id: Id<Self::Entity>) -> Result<Option<Self>>;

    /// The row's id, as every `Node` answers it.
    async fn node_id(&self, _ctx: &Context<'_>) -> Result<ID> {
        Ok(ID(self.row_id().to_string()))
    }
}

/// The row of an id that carries the view's prefix; none where the caller lacks the permission.
pub(crate) async fn find<V: Identified>(ctx: &Context<'_>, uuid: Uuid) -> Result<Option<V>> {
    let viewer = ctx.viewer()?;
    if V::REQUIRES.is_some_and(|permission| !viewer.may(permission)) {
        return Ok(None);
    }
    V::find(ctx, Id::from(uuid)).await
}
