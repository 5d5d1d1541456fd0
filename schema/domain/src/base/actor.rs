//! Who did something, and from where it was asked for.

use std::net::IpAddr;

use uuid::Uuid;

use crate::base::{
    entity::{ApiKeyId, UserId},
    id::Id,
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

/// Who caused a transaction, from where: what the audit trail keeps beside each change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who did it.
    pub actor: Actor,
    /// The address the request came from.
    pub source_ip: Option<IpAddr>,
    /// The request it belongs to.
    pub request_id: Option<String>,
}

impl Origin {
    /// The machine itself: migrations, the command line, jobs without a person behind them.
    pub const fn system() -> Self {
        Self { actor: Actor::System, source_ip: None, request_id: None }
    }
}
