//! API keys: GraphQL type, query and mutations.

use std::collections::HashMap;

use async_graphql::{Context, InputObject, Object, SimpleObject};
use chrono::{DateTime, Utc};
use domain::{
    Id,
    access::{
        api_key::{self, NewApiKey},
        directive::{authenticated, or_oneself, requires},
        permission::Permission::{self, ApiKeyManage},
    },
    entity::{self, ApiKeyId},
};

use crate::{
    access::user::User,
    access::user::UserById,
    request::{
        context::{ContextExt, RequestScope},
        error::Result,
        loader::{Batch, Load},
        node::Identified,
        row::{Row, rows},
    },
};

/// An API key of a program.
pub(crate) struct ApiKey(pub(crate) api_key::ApiKey);

/// An API key of a program. Every signed-in caller can read `id` and `name`, because a key can be the actor of a
/// change. The other fields require `API_KEY_MANAGE`, unless the caller is the key itself.
#[Object(directive = authenticated::apply())]
impl ApiKey {
    /// The key's id, beginning `key_`.
    async fn id(&self) -> ApiKeyId {
        self.0.id
    }

    /// Display name, e.g. the program that uses the key.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// Public part of the full key, which begins `sok_<prefix>_`.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// Permissions that the key was given. The key can use only those that its creator still has when the key is used.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn permissions(&self) -> &[Permission] {
        &self.0.permissions
    }

    /// Networks that the key may be used from, as CIDR; empty allows any address.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn allowed_cidrs(&self) -> &[String] {
        &self.0.allowed_cidrs
    }

    /// The user who created the key.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn created_by(&self, ctx: &Context<'_>) -> Result<Option<User>> {
        Ok(ctx.load::<UserById>(self.0.created_by).await?.map(User))
    }

    /// Time at which the key was created.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// Time at which the key expires.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn expires_at(&self) -> DateTime<Utc> {
        self.0.expires_at
    }

    /// Time of the last use, to the minute; null if the key was never used.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn last_used_at(&self) -> Option<DateTime<Utc>> {
        self.0.last_used_at
    }

    /// Time at which the key was revoked; null if it is not revoked.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn revoked_at(&self) -> Option<DateTime<Utc>> {
        self.0.revoked_at
    }
}

/// Settings of a new API key.
#[derive(InputObject)]
pub(crate) struct CreateApiKeyInput {
    /// Display name, e.g. the program that uses the key.
    name: String,
    /// Permissions that the key is given. The caller must have all of them, and the key loses those that the caller
    /// loses later. No key can have `USER_MANAGE`, `ROLE_MANAGE`, `API_KEY_MANAGE`, `ORGANIZATION_MANAGE`, `FLEET_READ`
    /// or `FLEET_MANAGE`.
    permissions: Vec<Permission>,
    /// Time at which the key expires, at most 366 days from now.
    expires_at: DateTime<Utc>,
    /// Networks that the key may be used from, such as 10.0.0.0/8; default any address.
    #[graphql(default)]
    allowed_cidrs: Vec<String>,
}

/// A new API key, with the full key that the client sends to authenticate. Requires `API_KEY_MANAGE`.
#[derive(SimpleObject)]
#[graphql(directive = requires::apply(ApiKeyManage))]
pub(crate) struct CreatedApiKey {
    /// The API key's metadata; the secret is not included.
    api_key: ApiKey,
    /// The full key (`sok_<prefix>_…`), to be sent as `Authorization: Bearer <full key>`. Returned only once, in this
    /// response.
    secret: String,
}

/// Query fields for API keys.
#[derive(Default)]
pub(crate) struct ApiKeyQuery;

#[Object]
impl ApiKeyQuery {
    /// The organization's API keys, newest first, including revoked ones. Requires `API_KEY_MANAGE`.
    #[graphql(directive = requires::apply(ApiKeyManage))]
    async fn api_keys(&self, ctx: &Context<'_>) -> Result<Vec<Row<ApiKey>>> {
        let keys = api_key::ApiKey::list(&*ctx.read().await?).await?;
        Ok(rows(keys.into_iter().map(ApiKey)))
    }
}

/// Mutation fields for API keys.
#[derive(Default)]
pub(crate) struct ApiKeyMutation;

#[Object]
impl ApiKeyMutation {
    /// Creates an API key for a program. The full key is returned only once, in this response. Requires
    /// `API_KEY_MANAGE`.
    #[graphql(directive = requires::apply(ApiKeyManage))]
    async fn create_api_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Settings of the new key.")] input: CreateApiKeyInput,
    ) -> Result<CreatedApiKey> {
        let CreateApiKeyInput { name, permissions, expires_at, allowed_cidrs } = input;
        let new = NewApiKey { name, permissions, expires_at, allowed_cidrs };
        let tx = ctx.write_users().await?;
        let (key, secret) = api_key::ApiKey::create(&tx, ctx.viewer()?, new, ctx.now()).await?;
        tx.commit().await?;
        Ok(CreatedApiKey { api_key: ApiKey(key), secret })
    }

    /// Revokes an API key. The next request with this key is rejected. Requires `API_KEY_MANAGE`.
    #[graphql(directive = requires::apply(ApiKeyManage))]
    async fn revoke_api_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The key's id, beginning `key_`.")] id: ApiKeyId,
    ) -> Result<ApiKeyId> {
        let tx = ctx.write_users().await?;
        api_key::ApiKey::revoke(&tx, ctx.viewer()?, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(id)
    }
}

/// Batch loader of API keys by id.
pub(crate) struct ApiKeyById;

impl Batch for ApiKeyById {
    type Key = ApiKeyId;
    type Row = api_key::ApiKey;

    async fn load(
        scope: &RequestScope,
        ids: &[ApiKeyId],
    ) -> Result<HashMap<ApiKeyId, api_key::ApiKey>> {
        let keys = api_key::ApiKey::of_ids(&*scope.read().await?, ids).await?;
        Ok(keys.into_iter().map(|key| (key.id, key)).collect())
    }
}

impl Identified for ApiKey {
    type Entity = entity::ApiKey;

    const REQUIRES: Option<Permission> = None;

    fn row_id(&self) -> Id<entity::ApiKey> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::ApiKey>) -> Result<Option<Self>> {
        let viewer = ctx.viewer()?;
        let is_oneself = viewer.own_id().is_some_and(|own| own == id.to_string());
        if !is_oneself && !viewer.may(ApiKeyManage) {
            return Ok(None);
        }
        Ok(ctx.load::<ApiKeyById>(id).await?.map(Self))
    }
}
