//! Authorization by the permission directives of the schema: the whole document is checked before any field runs.
//!
//! Every occurrence of a field is checked against its parent type. A fragment is checked once per spread, because
//! async-graphql executes each spread separately. Must stay true:
//! - a field requires the permissions in its own directives and in the directives of its return type;
//! - below an interface or union, the object type is known only from the type condition, so each field in the condition
//!   also requires the permissions in the directives of this object type;
//! - `__typename` and introspection require no permission; a field that is not in the schema never runs, because
//!   validation rejects the document.
//!
//! This check concerns types and fields only; resolvers decide whether a row exists and belongs to the caller. Each
//! missing permission is listed once per path: a field below a forbidden field is listed only if it requires another
//! permission that the caller lacks.

use async_graphql::{
    Pos, Positioned,
    parser::types::{Field as Selected, Selection, SelectionSet},
};
use domain::access::permission::{Permission, PermissionSet};

use crate::document::{
    index::{Field, Kind, Requirement, SchemaIndex, TypeId},
    operation::Operation,
    policy::Policy,
};

/// Maximum number of forbidden paths in one response.
pub(crate) const MAX_FORBIDDEN_PATHS: usize = 50;

/// The caller whose permissions are checked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Caller<'a> {
    /// A caller that is not signed in.
    Anonymous,
    /// A signed-in user or API key.
    Authenticated {
        /// Permissions in the organization that the caller is signed in to.
        permissions: PermissionSet,
        /// Ids with which `node(id:)` returns the caller.
        own_ids: &'a [String],
    },
}

/// A requirement that the caller does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The caller must sign in.
    Authentication,
    /// The caller must have this permission.
    Permission(Permission),
}

/// A selected field that the caller lacks the permission for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forbidden {
    /// Response keys (aliases or names) from the root to the field.
    pub(crate) path: Vec<String>,
    /// Position of the field in the source.
    pub(crate) location: Pos,
    /// The requirement that the caller does not meet.
    pub(crate) need: Need,
    /// Name of the field in the schema, as `Type.field`.
    pub(crate) field: String,
}

impl SchemaIndex {
    /// Returns the selected fields that the caller lacks a permission for, in document order, at most
    /// [`MAX_FORBIDDEN_PATHS`].
    pub(crate) fn forbidden(&self, operation: Operation<'_>, caller: Caller<'_>) -> Vec<Forbidden> {
        let mut checker =
            Checker { index: self, operation, caller, path: Vec::new(), forbidden: Vec::new() };
        if let Some(on) = self.root(operation.kind()) {
            let frame =
                Frame { on, is_narrowed: false, is_caller: false, listed: Missing::NOTHING };
            checker.set(operation.selections(), frame);
        }
        checker.forbidden
    }
}

/// The part of a requirement that the caller does not meet.
#[derive(Debug, Clone, Copy)]
struct Missing {
    authentication: bool,
    permissions: PermissionSet,
}

impl Missing {
    const NOTHING: Self = Self { authentication: false, permissions: PermissionSet::EMPTY };
}

/// Context of the selection set that is being checked.
#[derive(Clone, Copy)]
struct Frame {
    /// Parent type of the selected fields.
    on: TypeId,
    /// True if a type condition narrowed an interface or union to this type, so that the type's own requirement has
    /// not been checked yet.
    is_narrowed: bool,
    /// True if the object is the caller itself.
    is_caller: bool,
    /// Requirements that are already listed for a field above this selection set.
    listed: Missing,
}

struct Checker<'a> {
    index: &'a SchemaIndex,
    operation: Operation<'a>,
    caller: Caller<'a>,
    path: Vec<&'a str>,
    forbidden: Vec<Forbidden>,
}

impl<'a> Checker<'a> {
    fn set(&mut self, set: &'a Positioned<SelectionSet>, frame: Frame) {
        for item in &set.node.items {
            if self.forbidden.len() >= MAX_FORBIDDEN_PATHS {
                return;
            }
            if self.operation.excludes(item.node.directives()) {
                continue;
            }
            match &item.node {
                Selection::Field(field) => self.field(field, frame),
                Selection::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref();
                    let condition = condition.map(|condition| condition.node.on.node.as_str());
                    self.fragment(&inline.node.selection_set, condition, frame);
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = self.operation.fragment(name) {
                        let condition = fragment.type_condition.node.on.node.as_str();
                        self.fragment(&fragment.selection_set, Some(condition), frame);
                    }
                }
            }
        }
    }

    fn fragment(
        &mut self,
        set: &'a Positioned<SelectionSet>,
        condition: Option<&str>,
        frame: Frame,
    ) {
        let Some(condition) = condition else { return self.set(set, frame) };
        let Some(on) = self.index.narrowed(Some(frame.on), condition) else { return };
        let is_narrowed = frame.is_narrowed || on != frame.on;
        self.set(set, Frame { on, is_narrowed, ..frame });
    }

    fn field(&mut self, field: &'a Positioned<Selected>, frame: Frame) {
        let selected = &field.node;
        let name = selected.name.node.as_str();
        // The index does not contain `__typename`, `__schema` and `__type`; they require nothing.
        let on = self.index.get(frame.on);
        let Some(definition) = on.field(name) else { return };
        let mut own = definition.own;
        if frame.is_caller && definition.or_oneself {
            own.permissions = PermissionSet::EMPTY;
        }
        let mut required = own.and(self.index.get(definition.returns).requirement);
        if frame.is_narrowed && on.kind == Kind::Object {
            required = required.and(on.requirement);
        }
        if self.is_null_for_anonymous(definition) {
            return;
        }
        self.path.push(selected.response_key().node.as_str());
        let missing = self.missing(required);
        let listed = self.list(field, frame, missing);
        let below = Frame {
            on: definition.returns,
            is_narrowed: false,
            is_caller: self.returns_caller(selected, definition),
            listed,
        };
        self.set(&selected.selection_set, below);
        self.path.pop();
    }

    /// Returns true if the caller is anonymous and the field is then null, so that no field below it runs. Clients
    /// select `viewer` to find out whether they are signed in.
    fn is_null_for_anonymous(&self, definition: &Field) -> bool {
        matches!(self.caller, Caller::Anonymous)
            && definition.policies.contains(&Policy::NullIfAnonymous)
    }

    fn missing(&self, required: Requirement) -> Missing {
        match self.caller {
            Caller::Anonymous => Missing {
                authentication: required.authentication || !required.permissions.is_empty(),
                permissions: PermissionSet::EMPTY,
            },
            Caller::Authenticated { permissions, .. } => Missing {
                authentication: false,
                permissions: required.permissions.without(permissions),
            },
        }
    }

    /// Lists the missing requirements that no field above has listed, and returns all requirements listed on this path.
    fn list(&mut self, field: &Positioned<Selected>, frame: Frame, missing: Missing) -> Missing {
        if missing.authentication && !frame.listed.authentication {
            self.push(field, frame.on, Need::Authentication);
        }
        for permission in missing.permissions.without(frame.listed.permissions).iter() {
            self.push(field, frame.on, Need::Permission(permission));
        }
        Missing {
            authentication: missing.authentication || frame.listed.authentication,
            permissions: missing.permissions.union(frame.listed.permissions),
        }
    }

    fn push(&mut self, field: &Positioned<Selected>, on: TypeId, need: Need) {
        let name = format!("{}.{}", self.index.get(on).name, field.node.name.node);
        let is_listed = self.forbidden.iter().any(|forbidden| {
            forbidden.need == need && forbidden.field == name && forbidden.path == self.path
        });
        if !is_listed && self.forbidden.len() < MAX_FORBIDDEN_PATHS {
            self.forbidden.push(Forbidden {
                path: self.path.iter().map(ToString::to_string).collect(),
                location: field.pos,
                need,
                field: name,
            });
        }
    }

    /// Returns true if it is known before execution that the field returns the caller itself.
    fn returns_caller(&self, selected: &Selected, definition: &Field) -> bool {
        let Caller::Authenticated { own_ids, .. } = self.caller else { return false };
        definition.policies.iter().any(|policy| match policy {
            Policy::ReturnsCaller => true,
            Policy::ReturnsCallerIf(argument) => {
                self.operation.text(selected, argument).is_some_and(|id| own_ids.contains(&id))
            }
            Policy::MustBeAlone
            | Policy::IgnoresBearer
            | Policy::ToleratesBearer
            | Policy::StartsJobs
            | Policy::NullIfAnonymous
            | Policy::Weight(_)
            | Policy::TextFilter => false,
        })
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
