//! From the SDL to a index: types by name, fields, and what each states.
//!
//! Must stay true: a statement that cannot be understood is a fault, never no statement.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned, Value,
    parser::{
        parse_schema,
        types::{
            BaseType, ConstDirective, FieldDefinition, InputValueDefinition, SchemaDefinition,
            Type as Reference, TypeDefinition, TypeKind, TypeSystemDefinition,
        },
    },
};
use domain::access::permission::{Permission, PermissionSet};

use super::{Field, Kind, MissingPolicy, PAGE, Requirement, SchemaIndex, Type, TypeId, WALK};
use crate::document::policy::{FieldPolicy, Policy};

#[derive(Debug, Default)]
struct Statement {
    requirement: Requirement,
    is_stated: bool,
    or_oneself: bool,
}

/// The SDL on its way to a index.
#[derive(Default)]
pub(super) struct Reader {
    types: Vec<Type>,
    by_name: HashMap<Box<str>, TypeId>,
    roots: [Option<String>; 3],
    alone: Vec<&'static str>,
    pub(super) unstated: Vec<MissingPolicy>,
}

impl Reader {
    pub(super) fn definitions(&mut self, sdl: &str) {
        let Ok(document) = parse_schema(sdl) else {
            self.unstated("schema", "cannot be read");
            return;
        };
        for definition in &document.definitions {
            match definition {
                TypeSystemDefinition::Schema(schema) => self.schema(&schema.node),
                TypeSystemDefinition::Type(definition) => self.definition(&definition.node),
                TypeSystemDefinition::Directive(_) => {}
            }
        }
    }

    /// Gives a field what is declared of it.
    pub(super) fn policy(&mut self, policy: &FieldPolicy) {
        let on = self.by_name.get(policy.on).map(|id| &mut self.types[id.0]);
        let Some(field) = on.and_then(|on| on.fields.get_mut(policy.field)) else {
            let name = format!("{}.{}", policy.on, policy.field);
            return self.unstated(&name, "has a policy and is not in the schema");
        };
        if !field.policies.is_empty() {
            let name = format!("{}.{}", policy.on, policy.field);
            return self.unstated(&name, "has two lists of policies");
        }
        field.policies = policy.policies;
        if policy.policies.contains(&Policy::StandsAlone) {
            self.alone.push(policy.field);
        }
    }

    fn schema(&mut self, schema: &SchemaDefinition) {
        let name =
            |root: &Option<Positioned<Name>>| root.as_ref().map(|name| name.node.to_string());
        self.roots = [name(&schema.query), name(&schema.mutation), name(&schema.subscription)];
    }

    fn definition(&mut self, definition: &TypeDefinition) {
        let (kind, fields, interfaces): (_, &[_], &[_]) = match &definition.kind {
            TypeKind::Object(object) => (Kind::Object, &object.fields, &object.implements),
            TypeKind::Interface(interface) => {
                (Kind::Interface, &interface.fields, &interface.implements)
            }
            TypeKind::Union(_) => (Kind::Union, &[], &[]),
            TypeKind::Scalar | TypeKind::Enum(_) | TypeKind::InputObject(_) => {
                (Kind::Leaf, &[], &[])
            }
        };
        let name = definition.name.node.as_str();
        let statement = self.statement(name, &definition.directives);
        if kind != Kind::Object && statement.is_stated {
            self.unstated(name, "is no object: state it on its objects or fields");
        }
        if statement.or_oneself {
            self.unstated(name, "@orOneself stands on fields");
        }
        let id = self.type_id(name);
        let fields: Vec<_> = fields.iter().map(|field| self.field(name, &field.node)).collect();
        let entry = &mut self.types[id.0];
        entry.kind = kind;
        entry.requirement = entry.requirement.and(statement.requirement);
        entry.has_statement |= statement.is_stated;
        entry.interfaces.extend(interfaces.iter().map(|name| name.node.as_str().into()));
        entry.fields.extend(fields);
    }

    fn field(&mut self, type_name: &str, definition: &FieldDefinition) -> (Box<str>, Field) {
        let name = definition.name.node.as_str();
        let statement = self.statement(&format!("{type_name}.{name}"), &definition.directives);
        let mut paging = definition
            .arguments
            .iter()
            .map(|argument| &argument.node)
            .filter(|argument| matches!(argument.name.node.as_str(), "first" | "last"));
        let page = paging.clone().next().map(|_| paging.find_map(default_of).unwrap_or(PAGE));
        let depth = definition.arguments.iter().find(|one| one.node.name.node == "depth");
        let walk = depth.map(|depth| default_of(&depth.node).unwrap_or(WALK));
        let (returns, is_list) = self.named(&definition.ty.node);
        let field = Field {
            returns,
            is_list,
            page,
            own: statement.requirement,
            walk,
            or_oneself: statement.or_oneself,
            policies: &[],
            has_statement: statement.is_stated,
        };
        (name.into(), field)
    }

    fn statement(&mut self, name: &str, directives: &[Positioned<ConstDirective>]) -> Statement {
        let mut statement = Statement::default();
        let mut is_public = false;
        for directive in directives {
            let directive = &directive.node;
            match directive.name.node.as_str() {
                "public" => is_public = true,
                "authenticated" => statement.requirement.authentication = true,
                "orOneself" => statement.or_oneself = true,
                "requiresPermission" => {
                    let permission =
                        match directive.get_argument("permission").map(|value| &value.node) {
                            Some(Value::Enum(permission)) => Permission::parse(permission),
                            Some(Value::String(permission)) => Permission::parse(permission),
                            _ => None,
                        };
                    let Some(permission) = permission else {
                        self.unstated(name, "requires a permission that does not exist");
                        continue;
                    };
                    statement.requirement.authentication = true;
                    let permissions = &mut statement.requirement.permissions;
                    *permissions = permissions.union(PermissionSet::of(&[permission]));
                }
                _ => {}
            }
        }
        if is_public && statement.requirement.authentication {
            self.unstated(name, "is @public and is not");
        }
        if statement.or_oneself && statement.requirement.permissions.is_empty() {
            self.unstated(name, "@orOneself stands beside @requiresPermission");
        }
        statement.is_stated = is_public || statement.requirement.authentication;
        statement
    }

    fn named(&mut self, reference: &Reference) -> (TypeId, bool) {
        match &reference.base {
            BaseType::Named(name) => (self.type_id(name), false),
            BaseType::List(inner) => (self.named(inner).0, true),
        }
    }

    /// Its place, which it gets when it is first named: a type that is named and never defined is a built-in scalar.
    fn type_id(&mut self, name: &str) -> TypeId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = TypeId(self.types.len());
        self.types.push(Type {
            name: name.into(),
            kind: Kind::Leaf,
            requirement: Requirement::default(),
            is_connection: false,
            has_statement: false,
            interfaces: Vec::new(),
            fields: HashMap::new(),
        });
        self.by_name.insert(name.into(), id);
        id
    }

    fn unstated(&mut self, name: &str, reason: &'static str) {
        self.unstated.push(MissingPolicy { name: name.to_owned(), reason });
    }

    pub(super) fn index(&mut self) -> SchemaIndex {
        let [query, mutation, subscription] = std::mem::take(&mut self.roots)
            .map(|name| name.and_then(|name| self.by_name.get(name.as_str()).copied()));
        if query.is_none() {
            self.unstated("schema", "has no query type");
        }
        let (types, by_name) = (std::mem::take(&mut self.types), std::mem::take(&mut self.by_name));
        let alone = std::mem::take(&mut self.alone);
        SchemaIndex { types, by_name, query, mutation, subscription, alone }
    }
}

fn default_of(argument: &InputValueDefinition) -> Option<i64> {
    match argument.default_value.as_ref().map(|default| &default.node) {
        Some(Value::Number(number)) => number.as_i64(),
        _ => None,
    }
}
