//! Directives of the SDL that declare the access to a type or field. The directives have no effect of their own:
//! `graphql::document::authorize` reads them from the schema and enforces them before execution.
#![expect(missing_docs, reason = "the derive generates items that cannot have doc comments")]

use async_graphql::TypeDirective;

use crate::access::permission::Permission;

/// Requires this permission in the organization that the caller is signed in to.
#[TypeDirective(name = "requiresPermission", location = "FieldDefinition", location = "Object")]
pub fn requires(permission: Permission) {}

/// Requires a signed-in caller, but no permission.
#[TypeDirective(location = "FieldDefinition", location = "Object")]
pub fn authenticated() {}

/// Allowed for every caller, signed in or anonymous.
#[TypeDirective(location = "FieldDefinition", location = "Object")]
pub fn public() {}

/// Lifts the `@requiresPermission` of the same field if the object is the caller: below `viewer { actor }`, or below
/// `node(id:)` with the caller's own id.
#[TypeDirective(name = "orOneself", location = "FieldDefinition")]
pub fn or_oneself() {}
