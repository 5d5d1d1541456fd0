//! People, programs and their rights: users, sessions, API keys, the audit trail.

pub(crate) mod actor;
pub(crate) mod api_key;
pub(crate) mod audit;
pub(crate) mod session;
pub(crate) mod user;
