//! Whether somebody may do something now, whatever they might when they asked for it.

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

/// Whether an actor may do something in an organization as of `now`, whatever it might when it asked for it: what was
/// ordered earlier is checked by this when it is done. A member needs an active membership and a role that grants it,
/// a key to be usable, its maker an active member, and the permission in its scope; the address it was used from is
/// not asked again. The system may.
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
