//! GraphQL types, queries and mutations for users, sessions, API keys and the audit trail.

pub(crate) mod actor;
pub(crate) mod api_key;
pub(crate) mod audit;
pub(crate) mod invitation;
pub(crate) mod session;
pub(crate) mod user;
