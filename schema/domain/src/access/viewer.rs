//! Who asks: the actor, the organization it is signed in to, and what it may do there.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    access::{
        api_key::ApiKey,
        permission::{Permission, PermissionSet},
        session::{self},
    },
    base::{
        db::{Origin, Tx},
        entity::{ApiKeyId, OrganizationId, SessionId, UserId},
        error::Result,
        id::Id,
    },
};

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A person.
    User(UserId),
    /// A program.
    ApiKey(ApiKeyId),
    /// SentryOps itself, or its operator on the command line.
    System,
}

impl Actor {
    /// As rows keep it: what it is, and its id.
    pub fn columns(self) -> (&'static str, Option<Uuid>) {
        match self {
            Self::User(id) => ("user", Some(id.uuid())),
            Self::ApiKey(id) => ("api_key", Some(id.uuid())),
            Self::System => ("system", None),
        }
    }

    /// What a row keeps, or `None` if it means nothing to us.
    pub fn from_columns(kind: &str, id: Option<Uuid>) -> Option<Self> {
        match (kind, id) {
            ("user", Some(id)) => Some(Self::User(Id::from(id))),
            ("api_key", Some(id)) => Some(Self::ApiKey(Id::from(id))),
            ("system", None) => Some(Self::System),
            _ => None,
        }
    }
}

/// Somebody signed in. Made anew for each request from the session's or the key's row.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// Who it is.
    pub actor: Actor,
    /// Where it is signed in.
    pub org: OrganizationId,
    /// The session, where a person asks.
    pub session: Option<SessionId>,
    /// The keys of its roles there; none for API keys.
    pub roles: Vec<String>,
    /// What it may do there.
    pub permissions: PermissionSet,
}

impl Viewer {
    /// Whether it has the permission.
    pub const fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(permission)
    }

    /// The user, where a person asks.
    pub const fn user(&self) -> Option<UserId> {
        match self.actor {
            Actor::User(user) => Some(user),
            Actor::ApiKey(_) | Actor::System => None,
        }
    }

    /// The id of the actor as the API shows it: what `node(id:)` takes for "oneself".
    pub fn own_id(&self) -> Option<String> {
        match self.actor {
            Actor::User(user) => Some(user.to_string()),
            Actor::ApiKey(key) => Some(key.to_string()),
            Actor::System => None,
        }
    }

    /// The origin of what it changes.
    pub fn origin(&self, source_ip: std::net::IpAddr, request_id: String) -> Origin {
        Origin { actor: self.actor, source_ip: Some(source_ip), request_id: Some(request_id) }
    }
}

/// Whether an actor may do something in an organization as of `now`, whatever it might when it asked for it: what was
/// ordered earlier is checked by this when it is done. A member needs an active membership and a role that grants it,
/// a key to be usable, its maker an active member, and the permission in its scope; the address it was used from is
/// not asked again. The system may. Takes a transaction of `Db::auth`.
pub async fn may(
    tx: &Tx,
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

async fn of_member(tx: &Tx, org: OrganizationId, user: UserId) -> Result<PermissionSet> {
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
    Ok(session::permissions(&roles, &custom, &granted))
}
