//! The directives that state in the SDL who may see a type or a field. They declare; `graphql::document::authorize` reads them
//! back from the schema and enforces them before execution.
#![expect(missing_docs, reason = "the derive makes items that cannot carry any")]

use async_graphql::TypeDirective;

use crate::access::permission::Permission;

/// The caller needs this permission in the organization it is signed in to.
#[TypeDirective(name = "requiresPermission", location = "FieldDefinition", location = "Object")]
pub fn requires(permission: Permission) {}

/// The caller needs to be signed in; no permission beyond that.
#[TypeDirective(location = "FieldDefinition", location = "Object")]
pub fn authenticated() {}

/// Anybody may, signed in or not.
#[TypeDirective(location = "FieldDefinition", location = "Object")]
pub fn public() {}

/// The caller may without the stated permission where the object is itself: below `viewer { actor }`, or below
/// `node(id:)` with its own id.
#[TypeDirective(name = "orOneself", location = "FieldDefinition")]
pub fn or_oneself() {}
