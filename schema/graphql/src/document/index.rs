//! An index of the schema for the checks, read once from the SDL: the return type, default page size and required
//! permissions of each field.
//!
//! The SDL is the single source of permissions: clients read the permission directives, and the server enforces them.
//! The server does not start if an object type or root field has no permission directive, or contradictory ones.
//!
//! A connection or edge has the same requirement as its node. A field of an interface requires the permissions in its
//! own directives. A field of an interface without directives requires the permissions of all implementing types,
//! because an interface must not bypass them. The exception is `id`, which requires only authentication.

use std::{collections::HashMap, fmt};

use async_graphql::parser::types::OperationType;
use domain::access::permission::PermissionSet;

use crate::document::policy::{FieldPolicy, Policy};
use reader::Reader;

mod reader;

/// Position of a type in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TypeId(usize);

/// Conditions that a caller must meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Requirement {
    /// True if the caller must be signed in.
    pub(crate) authentication: bool,
    /// Permissions that the caller must have; any of them implies authentication.
    pub(crate) permissions: PermissionSet,
}

impl Requirement {
    /// Returns the union of both requirements.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            authentication: self.authentication || other.authentication,
            permissions: self.permissions.union(other.permissions),
        }
    }
}

/// Kind of a type. Scalars, enums and input types count as leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A type with fields and permission directives.
    Object,
    /// A type with fields whose object type is known only during execution.
    Interface,
    /// A type without fields of its own.
    Union,
    /// A type without a selection set.
    Leaf,
}

/// Default page size of a connection without a default for `first`.
pub(crate) const DEFAULT_PAGE_SIZE: i64 = 50;

/// Depth counted for a dependency walk if the argument `depth` has no default: the maximum depth.
const MAX_WALK_DEPTH: i64 = 10;

/// Weight of a scalar of the type `JSON`, which holds up to 20 kB.
const JSON_WEIGHT: u64 = 20;

/// A field of an object or interface.
#[derive(Debug)]
pub(crate) struct Field {
    /// Named return type, without list and non-null wrappers.
    pub(crate) returns: TypeId,
    /// True if the field returns a list of the named type.
    pub(crate) is_list: bool,
    /// Number of rows without `first` and `last`; `None` if the field has neither argument.
    pub(crate) page: Option<i64>,
    /// Default of the argument `depth` of a dependency walk; `None` if the field has no such argument.
    pub(crate) walk: Option<i64>,
    /// Requirement of the field itself, without that of its return type.
    pub(crate) own: Requirement,
    /// True if the field's permissions are not required on an object that is the caller itself.
    pub(crate) or_oneself: bool,
    /// Policies of the field, declared in Rust beside its resolver.
    pub(crate) policies: &'static [Policy],
    /// Weight of the scalar, compared with that of a short stored one.
    pub(crate) weight: u64,
    has_permission_directive: bool,
}

/// A type of the schema with its fields.
#[derive(Debug)]
pub(crate) struct Type {
    /// Name of the type in the schema.
    pub(crate) name: Box<str>,
    /// Kind of the type: object, interface, union or leaf.
    pub(crate) kind: Kind,
    /// Requirement of the type: every field that returns the type requires it as well; empty for interfaces and unions.
    pub(crate) requirement: Requirement,
    /// True for a Relay connection. Its `edges` and `nodes` have as many rows as the field that returned it requested.
    pub(crate) is_connection: bool,
    has_permission_directive: bool,
    interfaces: Vec<Box<str>>,
    unions: Vec<Box<str>>,
    fields: HashMap<Box<str>, Field>,
}

impl Type {
    /// Returns the field with this name, or `None`.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }

    /// Returns true if objects of this type meet a type condition with this name.
    pub(crate) fn is_a(&self, condition: &str) -> bool {
        let mut names = self.interfaces.iter().chain(&self.unions);
        *self.name == *condition || names.any(|name| **name == *condition)
    }
}

/// An error in the schema: missing or invalid permission directives or policies of a type or field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SchemaFault {
    /// Name in the schema, `Type` or `Type.field`.
    pub(crate) name: String,
    /// Description of the error, which completes a sentence that begins with the name.
    pub(crate) reason: &'static str,
}

impl fmt::Display for SchemaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// An index of the schema's types, fields and requirements.
#[derive(Debug)]
pub(crate) struct SchemaIndex {
    types: Vec<Type>,
    by_name: HashMap<Box<str>, TypeId>,
    query: Option<TypeId>,
    mutation: Option<TypeId>,
    subscription: Option<TypeId>,
    /// Names of the root fields with the policy `MustBeAlone`, in the order of declaration.
    pub(crate) alone: Vec<&'static str>,
}

impl SchemaIndex {
    /// Builds the index from the schema's SDL and the policies of single fields.
    ///
    /// # Errors
    /// Returns all types and fields whose permission directives are missing, unreadable or contradictory, sorted by
    /// name, and all policies that refer to fields that do not exist.
    pub(crate) fn read(sdl: &str, policies: &[&[FieldPolicy]]) -> Result<Self, Vec<SchemaFault>> {
        let mut reader = Reader::default();
        reader.definitions(sdl);
        for policy in policies.iter().copied().flatten() {
            reader.policy(policy);
        }
        let mut index = reader.index();
        reader.faults.extend(index.faults());
        if !reader.faults.is_empty() {
            reader.faults.sort();
            reader.faults.dedup();
            return Err(reader.faults);
        }
        index.inherit();
        Ok(index)
    }

    /// Returns the root type for this kind of operation; `None` if the schema has none.
    pub(crate) fn root(&self, operation: OperationType) -> Option<TypeId> {
        match operation {
            OperationType::Query => self.query,
            OperationType::Mutation => self.mutation,
            OperationType::Subscription => self.subscription,
        }
    }

    /// Returns the type with this id.
    pub(crate) fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0]
    }

    /// Returns the parent type of selections under a type condition; `None` if the type is not in the schema. An object
    /// type is kept under a condition on one of its interfaces or unions, because the object's own fields run there.
    pub(crate) fn narrowed(&self, current: Option<TypeId>, condition: &str) -> Option<TypeId> {
        let narrowed = self.by_name.get(condition).copied()?;
        match (current, self.get(narrowed).kind) {
            (Some(object), Kind::Interface | Kind::Union)
                if self.get(object).kind == Kind::Object =>
            {
                Some(object)
            }
            _ => Some(narrowed),
        }
    }

    fn roots(&self) -> impl Iterator<Item = TypeId> {
        [self.query, self.mutation, self.subscription].into_iter().flatten()
    }

    fn faults(&self) -> Vec<SchemaFault> {
        let mut faults = Vec::new();
        for (index, kind) in self.types.iter().enumerate() {
            let is_root = self.roots().any(|root| root.0 == index);
            let is_exempt = is_root || &*kind.name == "PageInfo" || self.node_of(index).is_some();
            if kind.kind == Kind::Object && !kind.has_permission_directive && !is_exempt {
                let reason = "has no @requiresPermission, @authenticated or @public";
                faults.push(SchemaFault { name: kind.name.to_string(), reason });
            }
            for (field, definition) in &kind.fields {
                if is_root && !definition.has_permission_directive {
                    let name = format!("{}.{field}", kind.name);
                    let reason = "is a root field without a permission directive of its own";
                    faults.push(SchemaFault { name, reason });
                }
            }
        }
        faults
    }

    /// Returns the node type of a connection or edge. The fields are checked as well as the name, because a type such
    /// as `DatabaseConnection` that is no page of a list needs its own directives.
    fn node_of(&self, index: usize) -> Option<TypeId> {
        let kind = &self.types[index];
        let node_of_edge = |edge: &Type| {
            let is_edge = edge.name.ends_with("Edge") && edge.field("cursor").is_some();
            edge.field("node").filter(|node| is_edge && !node.is_list).map(|node| node.returns)
        };
        if kind.name.ends_with("Connection") && kind.field("pageInfo").is_some() {
            let list = |name| kind.field(name).filter(|field| field.is_list);
            let by_edges = list("edges").and_then(|edges| node_of_edge(self.get(edges.returns)));
            return by_edges.or_else(|| list("nodes").map(|nodes| nodes.returns));
        }
        node_of_edge(kind)
    }

    /// Derives the requirements of connections, edges and fields of interfaces from other types.
    fn inherit(&mut self) {
        for index in 0..self.types.len() {
            if let Some(node) = self.node_of(index).map(|node| self.get(node).requirement) {
                let nodes = self.types[index].field("nodes").map(|nodes| nodes.returns);
                let nodes = nodes.map_or(node, |nodes| self.get(nodes).requirement);
                let kind = &mut self.types[index];
                kind.requirement = kind.requirement.and(node).and(nodes);
                kind.is_connection = kind.name.ends_with("Connection");
            }
        }
        for index in 0..self.types.len() {
            if self.types[index].kind == Kind::Interface {
                let inherited: Vec<_> = self.inherited(&self.types[index]).collect();
                for (name, requirement) in inherited {
                    if let Some(field) = self.types[index].fields.get_mut(&name) {
                        field.own = requirement;
                    }
                }
            }
        }
    }

    fn inherited(&self, interface: &Type) -> impl Iterator<Item = (Box<str>, Requirement)> {
        interface.fields.iter().filter(|(_, field)| !field.has_permission_directive).map(
            |(name, _)| {
                let implementers = self.types.iter().filter(|implementer| {
                    implementer.kind == Kind::Object
                        && implementer.interfaces.contains(&interface.name)
                });
                let requirement = implementers.fold(Requirement::default(), |all, implementer| {
                    let mut of_type = implementer.requirement;
                    if &**name == "id" {
                        of_type.permissions = PermissionSet::EMPTY;
                    }
                    let of_field = implementer.field(name).map(|field| field.own);
                    all.and(of_type).and(of_field.unwrap_or_default())
                });
                (name.clone(), requirement)
            },
        )
    }
}

#[cfg(test)]
pub(crate) mod tests;
