//! The viewer of a request: the authenticated actor, their organization, and their permissions there.

use crate::{
    access::permission::{Permission, PermissionSet},
    base::{
        actor::{Actor, Origin},
        entity::{OrganizationId, SessionId, UserId},
    },
};

/// The authenticated caller. Built for every request from the rows of the session or API key.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// The user or API key that makes the request.
    pub actor: Actor,
    /// The organization that the viewer is signed in to.
    pub org: OrganizationId,
    /// The user's session; `None` for an API key.
    pub session: Option<SessionId>,
    /// Keys of the viewer's roles in the organization; empty for an API key.
    pub roles: Vec<String>,
    /// The viewer's permissions in the organization, and fleet permissions.
    pub permissions: PermissionSet,
}

impl Viewer {
    /// Returns true if the viewer has the permission.
    pub const fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(permission)
    }

    /// Returns the user's id, or `None` for an API key.
    pub const fn user(&self) -> Option<UserId> {
        match self.actor {
            Actor::User(user) => Some(user),
            Actor::ApiKey(_) | Actor::System => None,
        }
    }

    /// Returns the actor's id in its public form, e.g. `usr_…`. Compared with the argument of `node(id:)` to detect
    /// that the node is the viewer.
    pub fn own_id(&self) -> Option<String> {
        match self.actor {
            Actor::User(user) => Some(user.to_string()),
            Actor::ApiKey(key) => Some(key.to_string()),
            Actor::System => None,
        }
    }

    /// Returns the origin of the viewer's changes, for the audit trail.
    pub fn origin(&self, source_ip: std::net::IpAddr, request_id: String) -> Origin {
        Origin { actor: self.actor, source_ip: Some(source_ip), request_id: Some(request_id) }
    }
}
