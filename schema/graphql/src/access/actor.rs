//! Actors of changes: users, API keys, and SentryOps itself.

use async_graphql::{Context, SimpleObject, Union};
use domain::access::directive::authenticated;

use crate::{
    access::api_key::ApiKeyById,
    access::user::UserById,
    access::{api_key::ApiKey, user::User},
    request::{error::Result, loader::Load},
};

/// The actor of a change: a user, an API key, or the system.
#[derive(Union)]
pub(crate) enum Actor {
    /// A user of the organization.
    User(User),
    /// An API key of a program.
    ApiKey(ApiKey),
    /// SentryOps itself, or its operator on the command line.
    System(System),
}

/// The actor for actions that no user or API key requested: work that SentryOps starts, e.g. the re-evaluation of
/// assets or an update of builtin rules, and commands of the operator on the command line.
#[derive(SimpleObject)]
#[graphql(directive = authenticated::apply())]
pub(crate) struct System {
    /// Display name, always `SentryOps`.
    name: &'static str,
}

/// Returns the actor of a row, or `None` if the user or API key no longer exists.
pub(crate) async fn actor(ctx: &Context<'_>, actor: domain::Actor) -> Result<Option<Actor>> {
    Ok(match actor {
        domain::Actor::User(id) => {
            ctx.load::<UserById>(id).await?.map(|user| Actor::User(User(user)))
        }
        domain::Actor::ApiKey(id) => {
            ctx.load::<ApiKeyById>(id).await?.map(|key| Actor::ApiKey(ApiKey(key)))
        }
        domain::Actor::System => Some(Actor::System(System { name: "SentryOps" })),
    })
}
