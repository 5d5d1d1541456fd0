//! Who asks: the actor, the organization it is signed in to, and what it may do there.

use crate::{
    access::permission::{Permission, PermissionSet},
    base::{
        actor::{Actor, Origin},
        entity::{OrganizationId, SessionId, UserId},
    },
};

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
