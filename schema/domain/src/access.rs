//! Authentication and authorization: users and API keys, organizations, sign-in, the audit trail.
//!
//! | file | contents |
//! |---|---|
//! | `organization`, `user`, `role` | organizations, their members, and the roles that members hold |
//! | `permission`, `directive`, `viewer` | permissions, their directives in the SDL, and the authenticated caller |
//! | `authorize` | the permission check of work that runs later than it was requested |
//! | `identity`, `login`, `password` | sign-in, lockout after failed sign-ins, and password hashing |
//! | `session`, `token`, `api_key` | sessions, access tokens and API keys |
//! | `audit` | the record of every change and its actor |
//! | `refusal` | counts of what was refused, for the audit trail |

pub mod api_key;
pub mod audit;
pub mod authorize;
pub mod directive;
pub mod identity;
pub mod login;
pub mod organization;
pub mod password;
pub mod permission;
pub mod refusal;
pub mod role;
pub mod session;
pub mod token;
pub mod user;
pub mod viewer;
