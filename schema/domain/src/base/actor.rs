//! The actor of a change, and the origin of the request that caused it.

use std::net::IpAddr;

use uuid::Uuid;

use crate::base::{
    entity::{ApiKeyId, UserId},
    id::Id,
};

/// The user, program or system that performs an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A person who is signed in.
    User(UserId),
    /// A program, identified by its API key.
    ApiKey(ApiKeyId),
    /// SentryOps itself, e.g. for the re-evaluation of assets, or the operator on the command line.
    System,
}

impl Actor {
    /// Returns the two columns in which rows store an actor: the kind, and the id, which is `None` for the system.
    pub fn columns(self) -> (&'static str, Option<Uuid>) {
        match self {
            Self::User(id) => ("user", Some(id.uuid())),
            Self::ApiKey(id) => ("api_key", Some(id.uuid())),
            Self::System => ("system", None),
        }
    }

    /// Parses the two columns. Returns `None` for an unknown combination, e.g. one that a newer version wrote.
    pub fn from_columns(kind: &str, id: Option<Uuid>) -> Option<Self> {
        match (kind, id) {
            ("user", Some(id)) => Some(Self::User(Id::from(id))),
            ("api_key", Some(id)) => Some(Self::ApiKey(Id::from(id))),
            ("system", None) => Some(Self::System),
            _ => None,
        }
    }
}

/// Origin of a transaction: its actor and request. The audit trail stores it with each change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The actor who caused the transaction.
    pub actor: Actor,
    /// Client address of the request; `None` if no request caused the transaction.
    pub source_ip: Option<IpAddr>,
    /// Id of the request; `None` if no request caused the transaction.
    pub request_id: Option<String>,
}

impl Origin {
    /// Returns the origin of work that no request causes: migrations, the command line, and jobs that no user or API
    /// key requested.
    pub const fn system() -> Self {
        Self { actor: Actor::System, source_ip: None, request_id: None }
    }
}
