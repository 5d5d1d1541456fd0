//! Who may select what: the whole document is checked before anything of it runs.
//!
//! Every frame where a field stands is checked with the type it stands on, through fragments, as often as it is spread:
//! async-graphql runs each of them separately. Must stay true:
//! - a field takes what it states, and what the object states that it returns;
//! - behind an interface or union the object is known by the type condition only, so there each field takes what the
//!   condition's object states;
//! - `__typename` and introspection take nothing; what the schema does not know is not run, validation refuses it.
//!
//! Whether a row exists or is the caller's is the resolver's matter. A path is listed once a need: what lies below a
//! forbidden path is listed only if it needs something else.

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

/// The most paths that a refusal lists.
pub(crate) const LISTED: usize = 50;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Caller<'a> {
    /// Nobody who proved who they are.
    Anonymous,
    /// Somebody signed in.
    Known {
        /// What they may do.
        permissions: PermissionSet,
        /// The ids under which `node(id:)` finds the caller itself.
        own_ids: &'a [String],
    },
}

/// What a caller lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To sign in.
    Authentication,
    /// This permission.
    Permission(Permission),
}

/// A frame in the document that the caller may not select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forbidden {
    /// The response keys from the root, aliases where they are.
    pub(crate) path: Vec<String>,
    /// Where it stands in the source.
    pub(crate) location: Pos,
    /// What is lacking.
    pub(crate) need: Need,
    /// `Type.field` of the schema.
    pub(crate) field: String,
}

impl SchemaIndex {
    /// All that the operation selects and the caller may not, in the order of the document, at most [`LISTED`].
    pub(crate) fn forbidden(&self, operation: Operation<'_>, caller: Caller<'_>) -> Vec<Forbidden> {
        let mut checker =
            Checker { index: self, operation, caller, path: Vec::new(), forbidden: Vec::new() };
        if let Some(on) = self.root(operation.kind()) {
            let frame =
                Frame { on, is_narrowed: false, is_oneself: false, listed: Lacking::NOTHING };
            checker.set(operation.selections(), frame);
        }
        checker.forbidden
    }
}

/// What a caller lacks of a requirement.
#[derive(Debug, Clone, Copy)]
struct Lacking {
    authentication: bool,
    permissions: PermissionSet,
}

impl Lacking {
    const NOTHING: Self = Self { authentication: false, permissions: PermissionSet::EMPTY };
}

/// Where a selection set stands.
#[derive(Clone, Copy)]
struct Frame {
    /// The type that is selected on.
    on: TypeId,
    /// Whether a type condition led here from an interface or union, so that nobody has asked yet what the type takes.
    is_narrowed: bool,
    /// Whether the object is the caller itself.
    is_oneself: bool,
    /// What has been listed for a path above.
    listed: Lacking,
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
            if self.forbidden.len() >= LISTED {
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
        // `__typename`, `__schema` and `__type` are not among a type's fields.
        let on = self.index.get(frame.on);
        let Some(definition) = on.field(name) else { return };
        let mut own = definition.own;
        if frame.is_oneself && definition.or_oneself {
            own.permissions = PermissionSet::EMPTY;
        }
        let mut required = own.and(self.index.get(definition.returns).requirement);
        if frame.is_narrowed && on.kind == Kind::Object {
            required = required.and(on.requirement);
        }
        if self.is_nobody(definition) {
            return;
        }
        self.path.push(selected.response_key().node.as_str());
        let lacking = self.lacking(required);
        let listed = self.list(field, frame, lacking);
        let below = Frame {
            on: definition.returns,
            is_narrowed: false,
            is_oneself: self.returns_oneself(selected, definition),
            listed,
        };
        self.set(&selected.selection_set, below);
        self.path.pop();
    }

    /// Whether the field is null because nobody is signed in, so that nothing below it runs: asking for `viewer` is how a client
    /// finds out.
    fn is_nobody(&self, definition: &Field) -> bool {
        matches!(self.caller, Caller::Anonymous)
            && definition.policies.contains(&Policy::NullForNobody)
    }

    fn lacking(&self, required: Requirement) -> Lacking {
        match self.caller {
            Caller::Anonymous => Lacking {
                authentication: required.authentication || !required.permissions.is_empty(),
                permissions: PermissionSet::EMPTY,
            },
            Caller::Known { permissions, .. } => Lacking {
                authentication: false,
                permissions: required.permissions.without(permissions),
            },
        }
    }

    /// Lists what no path above has listed, and says what is listed now.
    fn list(&mut self, field: &Positioned<Selected>, frame: Frame, lacking: Lacking) -> Lacking {
        if lacking.authentication && !frame.listed.authentication {
            self.push(field, frame.on, Need::Authentication);
        }
        for permission in lacking.permissions.without(frame.listed.permissions).iter() {
            self.push(field, frame.on, Need::Permission(permission));
        }
        Lacking {
            authentication: lacking.authentication || frame.listed.authentication,
            permissions: lacking.permissions.union(frame.listed.permissions),
        }
    }

    fn push(&mut self, field: &Positioned<Selected>, on: TypeId, need: Need) {
        let name = format!("{}.{}", self.index.get(on).name, field.node.name.node);
        let is_listed = self.forbidden.iter().any(|forbidden| {
            forbidden.need == need && forbidden.field == name && forbidden.path == self.path
        });
        if !is_listed && self.forbidden.len() < LISTED {
            self.forbidden.push(Forbidden {
                path: self.path.iter().map(ToString::to_string).collect(),
                location: field.pos,
                need,
                field: name,
            });
        }
    }

    /// Whether what the field returns is the caller itself, by the document alone.
    fn returns_oneself(&self, selected: &Selected, definition: &Field) -> bool {
        let Caller::Known { own_ids, .. } = self.caller else { return false };
        definition.policies.iter().any(|policy| match policy {
            Policy::Oneself => true,
            Policy::OneselfBy(argument) => {
                self.operation.text(selected, argument).is_some_and(|id| own_ids.contains(&id))
            }
            Policy::StandsAlone
            | Policy::IgnoresBearer
            | Policy::ToleratesBearer
            | Policy::NullForNobody => false,
        })
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
