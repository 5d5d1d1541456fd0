//! The reader of the SDL: types by name, their fields, and the permission directives of types and fields.
//!
//! Must stay true: an invalid permission directive is an error and is never ignored.

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

use super::{
    DEFAULT_PAGE_SIZE, Field, JSON_WEIGHT, Kind, MAX_WALK_DEPTH, Requirement, SchemaFault,
    SchemaIndex, Type, TypeId,
};
use crate::document::policy::{FieldPolicy, Policy};

#[derive(Debug, Default)]
struct Directives {
    requirement: Requirement,
    is_declared: bool,
    or_oneself: bool,
}

/// The index while it is being built from the SDL.
#[derive(Default)]
pub(super) struct Reader {
    types: Vec<Type>,
    by_name: HashMap<Box<str>, TypeId>,
    roots: [Option<String>; 3],
    alone: Vec<&'static str>,
    pub(super) faults: Vec<SchemaFault>,
}

impl Reader {
    pub(super) fn definitions(&mut self, sdl: &str) {
        let Ok(document) = parse_schema(sdl) else {
            self.fault("schema", "is not valid SDL");
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

    /// Attaches the declared policies to the field, and records an error if the field does not exist.
    pub(super) fn policy(&mut self, policy: &FieldPolicy) {
        let on = self.by_name.get(policy.on).map(|id| &mut self.types[id.0]);
        let Some(field) = on.and_then(|on| on.fields.get_mut(policy.field)) else {
            let name = format!("{}.{}", policy.on, policy.field);
            return self.fault(&name, "has a policy but is not in the schema");
        };
        if !field.policies.is_empty() {
            let name = format!("{}.{}", policy.on, policy.field);
            return self.fault(&name, "has two lists of policies");
        }
        field.policies = policy.policies;
        for policy in policy.policies {
            if let Policy::Weight(weight) = policy {
                field.weight = *weight;
            }
        }
        if policy.policies.contains(&Policy::MustBeAlone) {
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
        let permission_directives = self.permission_directives(name, &definition.directives);
        if kind != Kind::Object && permission_directives.is_declared {
            self.fault(name, "is not an object: put the directive on its objects or fields");
        }
        if permission_directives.or_oneself {
            self.fault(name, "@orOneself is allowed on fields only");
        }
        let id = self.type_id(name);
        let fields: Vec<_> = fields.iter().map(|field| self.field(name, &field.node)).collect();
        let entry = &mut self.types[id.0];
        entry.kind = kind;
        entry.requirement = entry.requirement.and(permission_directives.requirement);
        entry.has_permission_directive |= permission_directives.is_declared;
        entry.interfaces.extend(interfaces.iter().map(|name| name.node.as_str().into()));
        entry.fields.extend(fields);
        if let TypeKind::Union(union) = &definition.kind {
            for member in &union.members {
                let id = self.type_id(&member.node);
                self.types[id.0].unions.push(name.into());
            }
        }
    }

    fn field(&mut self, type_name: &str, definition: &FieldDefinition) -> (Box<str>, Field) {
        let name = definition.name.node.as_str();
        let permission_directives =
            self.permission_directives(&format!("{type_name}.{name}"), &definition.directives);
        let mut paging = definition
            .arguments
            .iter()
            .map(|argument| &argument.node)
            .filter(|argument| matches!(argument.name.node.as_str(), "first" | "last"));
        let page =
            paging.clone().next().map(|_| paging.find_map(default_of).unwrap_or(DEFAULT_PAGE_SIZE));
        let depth = definition.arguments.iter().find(|argument| argument.node.name.node == "depth");
        let walk = depth.map(|depth| default_of(&depth.node).unwrap_or(MAX_WALK_DEPTH));
        let (returns, is_list) = self.named(&definition.ty.node);
        let field = Field {
            returns,
            is_list,
            page,
            own: permission_directives.requirement,
            walk,
            or_oneself: permission_directives.or_oneself,
            policies: &[],
            weight: if &*self.types[returns.0].name == "JSON" { JSON_WEIGHT } else { 1 },
            has_permission_directive: permission_directives.is_declared,
        };
        (name.into(), field)
    }

    fn permission_directives(
        &mut self,
        name: &str,
        directives: &[Positioned<ConstDirective>],
    ) -> Directives {
        let mut permission_directives = Directives::default();
        let mut is_public = false;
        for directive in directives {
            let directive = &directive.node;
            match directive.name.node.as_str() {
                "public" => is_public = true,
                "authenticated" => permission_directives.requirement.authentication = true,
                "orOneself" => permission_directives.or_oneself = true,
                "requiresPermission" => {
                    let permission =
                        match directive.get_argument("permission").map(|value| &value.node) {
                            Some(Value::Enum(permission)) => Permission::parse(permission),
                            Some(Value::String(permission)) => Permission::parse(permission),
                            _ => None,
                        };
                    let Some(permission) = permission else {
                        self.fault(name, "requires a permission that does not exist");
                        continue;
                    };
                    permission_directives.requirement.authentication = true;
                    let permissions = &mut permission_directives.requirement.permissions;
                    *permissions = permissions.union(PermissionSet::of(&[permission]));
                }
                _ => {}
            }
        }
        if is_public && permission_directives.requirement.authentication {
            self.fault(name, "is @public but also requires authentication");
        }
        if permission_directives.or_oneself
            && permission_directives.requirement.permissions.is_empty()
        {
            self.fault(name, "@orOneself needs @requiresPermission on the same field");
        }
        permission_directives.is_declared =
            is_public || permission_directives.requirement.authentication;
        permission_directives
    }

    fn named(&mut self, reference: &Reference) -> (TypeId, bool) {
        match &reference.base {
            BaseType::Named(name) => (self.type_id(name), false),
            BaseType::List(inner) => (self.named(inner).0, true),
        }
    }

    /// Returns the id of a type, and adds the type at its first mention. A type that is never defined is a built-in
    /// scalar.
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
            has_permission_directive: false,
            interfaces: Vec::new(),
            unions: Vec::new(),
            fields: HashMap::new(),
        });
        self.by_name.insert(name.into(), id);
        id
    }

    fn fault(&mut self, name: &str, reason: &'static str) {
        self.faults.push(SchemaFault { name: name.to_owned(), reason });
    }

    pub(super) fn index(&mut self) -> SchemaIndex {
        let [query, mutation, subscription] = std::mem::take(&mut self.roots)
            .map(|name| name.and_then(|name| self.by_name.get(name.as_str()).copied()));
        if query.is_none() {
            self.fault("schema", "has no query type");
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
