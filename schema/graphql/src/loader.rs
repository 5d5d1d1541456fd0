//! Loaders: what a list's rows refer to, in one statement a list. Made anew for each request.

use std::{collections::HashMap, sync::Arc};

use async_graphql::dataloader::Loader;
use domain::{Id, api_key::ApiKey, asset::Asset, role::Role, tag::Tag, user::User};

use crate::{context::Scope, error::Error};

/// Users by id.
pub(crate) struct UserLoader(pub(crate) Arc<Scope>);

impl Loader<Id<User>> for UserLoader {
    type Value = User;
    type Error = Error;

    async fn load(&self, ids: &[Id<User>]) -> Result<HashMap<Id<User>, User>, Error> {
        let users = User::of_ids(&*self.0.read().await?, ids).await?;
        Ok(users.into_iter().map(|user| (user.id, user)).collect())
    }
}

/// The roles of users in the viewer's organization.
pub(crate) struct RolesLoader(pub(crate) Arc<Scope>);

impl Loader<Id<User>> for RolesLoader {
    type Value = Vec<Role>;
    type Error = Error;

    async fn load(&self, ids: &[Id<User>]) -> Result<HashMap<Id<User>, Vec<Role>>, Error> {
        let tx = self.0.read().await?;
        let mut roles: HashMap<_, Vec<Role>> = ids.iter().map(|id| (*id, Vec::new())).collect();
        for (user, role) in Role::of_users(&tx, tx.org(), ids).await? {
            roles.entry(user).or_default().push(role);
        }
        Ok(roles)
    }
}

/// The tags of assets.
pub(crate) struct TagLoader(pub(crate) Arc<Scope>);

impl Loader<Id<Asset>> for TagLoader {
    type Value = Vec<Tag>;
    type Error = Error;

    async fn load(&self, ids: &[Id<Asset>]) -> Result<HashMap<Id<Asset>, Vec<Tag>>, Error> {
        let mut tags: HashMap<Id<Asset>, Vec<Tag>> = HashMap::new();
        for (asset, tag) in Tag::of_assets(&*self.0.read().await?, ids).await? {
            tags.entry(asset).or_default().push(tag);
        }
        Ok(tags)
    }
}

/// API keys by id.
pub(crate) struct ApiKeyLoader(pub(crate) Arc<Scope>);

impl Loader<Id<ApiKey>> for ApiKeyLoader {
    type Value = ApiKey;
    type Error = Error;

    async fn load(&self, ids: &[Id<ApiKey>]) -> Result<HashMap<Id<ApiKey>, ApiKey>, Error> {
        let keys = ApiKey::of_ids(&*self.0.read().await?, ids).await?;
        Ok(keys.into_iter().map(|key| (key.id, key)).collect())
    }
}
