//! Who somebody is, and what they may do: people and programs, organizations, sign-in, the audit trail.
//!
//! | file | what lives there |
//! |---|---|
//! | `organization`, `user`, `role` | organizations, their members, and the roles that members hold |
//! | `permission`, `directive`, `viewer` | single rights, their statements in the SDL, and who asks with which of them |
//! | `identity`, `login`, `password` | sign-in, its lockout, and the hashes it checks |
//! | `session`, `token`, `api_key` | what a signed-in person or program presents |
//! | `audit` | who changed what |

pub mod api_key;
pub mod audit;
pub mod authorize;
pub mod directive;
pub mod identity;
pub mod login;
pub mod organization;
pub mod password;
pub mod permission;
pub mod role;
pub mod session;
pub mod token;
pub mod user;
pub mod viewer;
