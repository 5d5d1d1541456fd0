//! Authorization of deferred work, such as jobs: the actor's permissions are checked when the work runs, not when the
//! work was requested.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::{
    access::{
        api_key::ApiKey,
        permission::{Permission, PermissionSet},
        role,
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
/// expired, must have the permission, and must have a creator who is an active member; the client address is not
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
    let row: Option<Row> = tx
        .opt(
            "SELECT membership.permissions AS granted,
                    ARRAY(SELECT role.key FROM membership_role AS held
                          JOIN role ON role.org_id = held.org_id AND role.id = held.role_id
                          WHERE held.org_id = $1 AND held.user_id = $2 AND role.builtin) AS roles,
                    ARRAY(SELECT unnest(role.permissions) FROM membership_role AS held
                          JOIN role ON role.org_id = held.org_id AND role.id = held.role_id
                          WHERE held.org_id = $1 AND held.user_id = $2 AND NOT role.builtin) AS custom
             FROM membership WHERE org_id = $1 AND user_id = $2 AND active",
            &[&org, &user],
        )
        .await?;
    let Some(row) = row else { return Ok(PermissionSet::EMPTY) };
    let roles: Vec<String> = row.try_get("roles")?;
    let (custom, granted): (Vec<&str>, Vec<&str>) =
        (row.try_get("custom")?, row.try_get("granted")?);
    Ok(role::permissions(&roles, &custom, &granted))
}
