//! Tests of users, keys and memberships through the API.

mod api_key;
mod invitation;
mod refusal;
