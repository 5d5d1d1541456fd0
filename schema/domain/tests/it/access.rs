//! Who somebody is, and what they may do.

mod api_key;
mod audit;
mod authorize;
mod identity;
mod login;
mod role;
mod session;
mod user;
