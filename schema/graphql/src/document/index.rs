//! The schema as checks need it, read once from its own SDL: what a field returns, how many, and who may select it.
//!
//! The SDL is the single statement of permissions: clients read it, the server obeys it. A type or root field without
//! a statement, or with one that contradicts itself, keeps the server from starting.
//! A connection or edge takes its node's statement. A field of an interface takes its own; without one it takes those of
//! every implementer (an interface must not be a way around them), except `id`, for which being signed in is enough.

use std::{collections::HashMap, fmt};

use async_graphql::parser::types::OperationType;
use domain::access::permission::PermissionSet;

use crate::document::policy::{FieldPolicy, Policy};
use reader::Reader;

mod reader;

/// A type's place in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TypeId(usize);

/// What a caller must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Requirement {
    /// Being signed in.
    pub(crate) authentication: bool,
    /// These permissions, which imply being signed in.
    pub(crate) permissions: PermissionSet,
}

impl Requirement {
    /// Both: statements add up.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            authentication: self.authentication || other.authentication,
            permissions: self.permissions.union(other.permissions),
        }
    }
}

/// What kind of type; scalars, enums and input_types are all leaves here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Has fields and a statement.
    Object,
    /// Has fields; which object is behind it is known at execution only.
    Interface,
    /// Has no fields of its own.
    Union,
    /// Has nothing to select.
    Leaf,
}

/// What a connection gives without `first`.
pub(crate) const PAGE: i64 = 50;

/// How deep a walk is that says nothing of it: the deepest.
const WALK: i64 = 10;

/// A field of an object or interface.
#[derive(Debug)]
pub(crate) struct Field {
    /// The named type behind lists and `!`.
    pub(crate) returns: TypeId,
    /// Whether it is a list of that.
    pub(crate) is_list: bool,
    /// The rows that it gives when neither `first` nor `last` is, if it has one of these arguments.
    pub(crate) page: Option<i64>,
    /// How deep it walks along dependencies without `depth`, if it has that argument.
    pub(crate) walk: Option<i64>,
    /// What the field itself takes.
    pub(crate) own: Requirement,
    /// Whether what it takes is waived where the object is the caller itself.
    pub(crate) or_oneself: bool,
    /// What is declared of it beside the SDL.
    pub(crate) policies: &'static [Policy],
    has_statement: bool,
}

/// A type.
#[derive(Debug)]
pub(crate) struct Type {
    /// Its name.
    pub(crate) name: Box<str>,
    /// What it is.
    pub(crate) kind: Kind,
    /// What every field of it takes, except `__typename`. Nothing for interfaces and unions.
    pub(crate) requirement: Requirement,
    /// Whether it is a Relay connection: its lists are counted by the `first` of the field that returned it.
    pub(crate) is_connection: bool,
    has_statement: bool,
    interfaces: Vec<Box<str>>,
    fields: HashMap<Box<str>, Field>,
}

impl Type {
    /// The field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }
}

/// A type or field that does not state who may select it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MissingPolicy {
    /// `Type` or `Type.field`.
    pub(crate) name: String,
    /// What is wrong.
    pub(crate) reason: &'static str,
}

impl fmt::Display for MissingPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// The schema as checks need it.
#[derive(Debug)]
pub(crate) struct SchemaIndex {
    types: Vec<Type>,
    by_name: HashMap<Box<str>, TypeId>,
    query: Option<TypeId>,
    mutation: Option<TypeId>,
    subscription: Option<TypeId>,
    /// The root fields that stand alone, in the order in which they were declared.
    pub(crate) alone: Vec<&'static str>,
}

impl SchemaIndex {
    /// Reads the schema's SDL, and what is declared of single fields beside it.
    ///
    /// # Errors
    /// All types and fields whose statement is missing, unreadable or contradictory, by name; and those that have a policy and
    /// are not there.
    pub(crate) fn read(sdl: &str, policies: &[&[FieldPolicy]]) -> Result<Self, Vec<MissingPolicy>> {
        let mut reader = Reader::default();
        reader.definitions(sdl);
        for policy in policies.iter().copied().flatten() {
            reader.policy(policy);
        }
        let mut index = reader.index();
        reader.unstated.extend(index.unstated());
        if !reader.unstated.is_empty() {
            reader.unstated.sort();
            reader.unstated.dedup();
            return Err(reader.unstated);
        }
        index.inherit();
        Ok(index)
    }

    /// The root type of such operations, if there is one.
    pub(crate) fn root(&self, operation: OperationType) -> Option<TypeId> {
        match operation {
            OperationType::Query => self.query,
            OperationType::Mutation => self.mutation,
            OperationType::Subscription => self.subscription,
        }
    }

    /// The type.
    pub(crate) fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0]
    }

    /// The type of what is selected under a type condition. An object stays that object under a condition on one of its
    /// interfaces, because its own fields are what runs there. `None` if there is no such type.
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

    fn unstated(&self) -> Vec<MissingPolicy> {
        let mut unstated = Vec::new();
        for (index, kind) in self.types.iter().enumerate() {
            let is_root = self.roots().any(|root| root.0 == index);
            let needs_none = is_root || &*kind.name == "PageInfo" || self.node_of(index).is_some();
            if kind.kind == Kind::Object && !kind.has_statement && !needs_none {
                let reason = "has no @requiresPermission, @authenticated or @public";
                unstated.push(MissingPolicy { name: kind.name.to_string(), reason });
            }
            for (field, definition) in &kind.fields {
                if is_root && !definition.has_statement {
                    let name = format!("{}.{field}", kind.name);
                    let reason = "is a root field without a statement of its own";
                    unstated.push(MissingPolicy { name, reason });
                }
            }
        }
        unstated
    }

    /// The nodes' type of a connection or edge. Names alone do not make one: a `DatabaseConnection` that is no page of
    /// something states for itself.
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

    /// What is derived from other types: the statements of connections and edges, and of interfaces' fields.
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
        interface.fields.iter().filter(|(_, field)| !field.has_statement).map(|(name, _)| {
            let implementers = self.types.iter().filter(|implementer| {
                implementer.kind == Kind::Object && implementer.interfaces.contains(&interface.name)
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
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
