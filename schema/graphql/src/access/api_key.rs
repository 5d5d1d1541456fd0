//! API keys: the view, the query, the mutations.

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
    },
};

/// A program's key.
pub(crate) struct ApiKey(pub(crate) api_key::ApiKey);

/// A program's key. Everybody signed in sees id and name, as the actor of a change; the rest takes `API_KEY_MANAGE`,
/// or being it oneself.
#[Object(directive = authenticated::apply())]
impl ApiKey {
    /// Its id.
    async fn id(&self) -> ApiKeyId {
        self.0.id
    }

    /// What it is for.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// The part of it that may be shown: it begins `sok_<prefix>_`.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// What it may do.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn permissions(&self) -> &[Permission] {
        &self.0.permissions
    }

    /// The networks it may be used from; none means anywhere.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn allowed_cidrs(&self) -> &[String] {
        &self.0.allowed_cidrs
    }

    /// Who made it.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn created_by(&self, ctx: &Context<'_>) -> Result<Option<User>> {
        Ok(ctx.load::<UserById>(self.0.created_by).await?.map(User))
    }

    /// When it was made.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When it ends by itself.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn expires_at(&self) -> DateTime<Utc> {
        self.0.expires_at
    }

    /// When it was last used, to the minute.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn last_used_at(&self) -> Option<DateTime<Utc>> {
        self.0.last_used_at
    }

    /// When it was revoked.
    #[graphql(directive = requires::apply(ApiKeyManage), directive = or_oneself::apply())]
    async fn revoked_at(&self) -> Option<DateTime<Utc>> {
        self.0.revoked_at
    }
}

/// A new key.
#[derive(InputObject)]
pub(crate) struct CreateApiKeyInput {
    /// What it is for.
    name: String,
    /// What it may do; at most what you may.
    permissions: Vec<Permission>,
    /// When it ends; at most a year from now.
    expires_at: DateTime<Utc>,
    /// The networks it may be used from, such as 10.0.0.0/8; none means anywhere.
    #[graphql(default)]
    allowed_cidrs: Vec<String>,
}

/// A key just made. Takes `API_KEY_MANAGE`.
#[derive(SimpleObject)]
#[graphql(directive = requires::apply(ApiKeyManage))]
pub(crate) struct CreatedApiKey {
    /// The key.
    api_key: ApiKey,
    /// What to send as `Authorization: Bearer …`. Shown this once.
    secret: String,
}

/// Queries on API keys.
#[derive(Default)]
pub(crate) struct ApiKeyQuery;

#[Object]
impl ApiKeyQuery {
    /// The organization's keys, newest first, revoked ones too. Takes `API_KEY_MANAGE`.
    #[graphql(directive = requires::apply(ApiKeyManage))]
    async fn api_keys(&self, ctx: &Context<'_>) -> Result<Vec<ApiKey>> {
        let keys = api_key::ApiKey::list(&*ctx.read().await?).await?;
        Ok(keys.into_iter().map(ApiKey).collect())
    }
}

/// Mutations of API keys.
#[derive(Default)]
pub(crate) struct ApiKeyMutation;

#[Object]
impl ApiKeyMutation {
    /// Makes a key for a program; its secret is shown this once. Takes `API_KEY_MANAGE`.
    #[graphql(directive = requires::apply(ApiKeyManage))]
    async fn create_api_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The key.")] input: CreateApiKeyInput,
    ) -> Result<CreatedApiKey> {
        let CreateApiKeyInput { name, permissions, expires_at, allowed_cidrs } = input;
        let new = NewApiKey { name, permissions, expires_at, allowed_cidrs };
        let tx = ctx.write_people().await?;
        let (key, secret) = api_key::ApiKey::create(&tx, ctx.viewer()?, new, ctx.now()).await?;
        tx.commit().await?;
        Ok(CreatedApiKey { api_key: ApiKey(key), secret })
    }

    /// Revokes a key; the next request with it is refused. Takes `API_KEY_MANAGE`.
    #[graphql(directive = requires::apply(ApiKeyManage))]
    async fn revoke_api_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: ApiKeyId,
    ) -> Result<ApiKeyId> {
        let tx = ctx.write_people().await?;
        api_key::ApiKey::revoke(&tx, ctx.viewer()?, id, ctx.now()).await?;
        tx.commit().await?;
        Ok(id)
    }
}

/// An API key by id.
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
