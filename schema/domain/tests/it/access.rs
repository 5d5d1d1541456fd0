//! Tests of authentication and authorization.

mod api_key;
mod audit;
mod authorize;
mod identity;
mod login;
mod role;
mod session;
mod user;
