//! Who asks: the actor, the organization it is signed in to, and what it may do there.

use uuid::Uuid;

use crate::{
    api_key::ApiKey,
    db::Origin,
    id::Id,
    organization::Organization,
    permission::{Permission, PermissionSet},
    session::Session,
    user::User,
};

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A person.
    User(Id<User>),
    /// A program.
    ApiKey(Id<ApiKey>),
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
    pub org: Id<Organization>,
    /// The session, where a person asks.
    pub session: Option<Id<Session>>,
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
    pub const fn user(&self) -> Option<Id<User>> {
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
