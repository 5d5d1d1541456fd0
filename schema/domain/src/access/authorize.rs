//! Authorization of deferred work, such as jobs: the actor's permissions are checked when the work runs, not when the
//! work was requested.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::{
    access::{
        api_key::ApiKey,
        permission::{Permission, PermissionSet},
        role::{self, HELD},
    },
    base::{
        actor::Actor,
        db::{Auth, Tx},
        entity::{OrganizationId, UserId},
        error::Result,
    },
};

/// Returns true if the actor has the permission in the organization at `now`. Call this function when deferred work
/// runs, because permissions may have changed since the request.
///
/// A member needs an active membership and a role that grants the permission. An API key must be neither revoked nor
/// expired, and both the key and its creator, an active member, must have the permission; the client address is not
/// checked again. [`Actor::System`] is always allowed.
pub async fn may(
    tx: &Tx<Auth>,
    org: OrganizationId,
    actor: Actor,
    permission: Permission,
    now: DateTime<Utc>,
) -> Result<bool> {
    let permissions = match actor {
        Actor::System => return Ok(true),
        Actor::User(user) => of_member(tx, org, user).await?,
        Actor::ApiKey(key) => ApiKey::permissions(tx, org, key, now).await?,
    };
    Ok(permissions.contains(permission))
}

async fn of_member(tx: &Tx<Auth>, org: OrganizationId, user: UserId) -> Result<PermissionSet> {
    let sql =
        format!("SELECT {HELD} FROM membership WHERE org_id = $1 AND user_id = $2 AND active");
    let row: Option<Row> = tx.opt(&sql, &[&org, &user]).await?;
    row.map_or(Ok(PermissionSet::EMPTY), |row| Ok(role::held(&row)?.1))
}
