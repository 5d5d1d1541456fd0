//! Who did something: a person, a program, or SentryOps itself.

use async_graphql::{Context, SimpleObject, Union};
use domain::access::directive::authenticated;

use crate::{
    access::api_key::ApiKeyById,
    access::user::UserById,
    access::{api_key::ApiKey, user::User},
    request::{error::Result, loader::Load},
};

/// Who did something.
#[derive(Union)]
pub(crate) enum Actor {
    /// A person.
    User(User),
    /// A program.
    ApiKey(ApiKey),
    /// SentryOps itself, or its operator on the command line.
    System(System),
}

/// SentryOps itself, or its operator on the command line.
#[derive(SimpleObject)]
#[graphql(directive = authenticated::apply())]
pub(crate) struct System {
    /// What to call it.
    name: &'static str,
}

/// The actor of a row, or `None` where it is no longer known.
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
