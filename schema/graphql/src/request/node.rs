//! Lookup of objects for `node(id)`. Each object type with an id implements [`Identified`]; the list of these types is
//! in `engine::schema`.

use async_graphql::{Context, ID};
use domain::{Id, access::permission::Permission, base::entity::Entity};
use uuid::Uuid;

use crate::request::{context::ContextExt, error::Result};

/// An object type with an id that `node` can look up.
pub(crate) trait Identified: Sized {
    /// Entity that defines the prefix of the ids.
    type Entity: Entity;

    /// Permission without which `node` returns null; `None` if [`Identified::find`] checks the access.
    const REQUIRES: Option<Permission>;

    /// Returns the id of the row.
    fn row_id(&self) -> Id<Self::Entity>;

    /// Returns the row; `None` if it does not exist or the caller is not allowed to read it.
    async fn find(ctx: &Context<'_>, id: Id<Self::Entity>) -> Result<Option<Self>>;

    /// Resolves the field `id` of the interface `Node`.
    async fn node_id(&self, _ctx: &Context<'_>) -> Result<ID> {
        Ok(ID(self.row_id().to_string()))
    }
}

/// Returns the row of type `V` with this UUID; `None` if it does not exist or the caller is not allowed to read it.
pub(crate) async fn find<V: Identified>(ctx: &Context<'_>, uuid: Uuid) -> Result<Option<V>> {
    let viewer = ctx.viewer()?;
    if V::REQUIRES.is_some_and(|permission| !viewer.may(permission)) {
        return Ok(None);
    }
    V::find(ctx, Id::from(uuid)).await
}
