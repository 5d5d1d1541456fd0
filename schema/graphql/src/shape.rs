//! The schema as checks need it, read once from its own SDL: what a field returns, how many, and who may select it.
//!
//! The SDL is the single statement of permissions: clients read it, the server obeys it. A type or root field without
//! a statement, or with one that contradicts itself, keeps the server from starting.
//! A connection or edge takes its node's statement. A field of an interface takes its own; without one it takes those of
//! every implementer (an interface must not be a way around them), except `id`, for which being signed in is enough.

use std::{collections::HashMap, fmt};

use async_graphql::{
    Positioned, Value,
    parser::{
        parse_schema,
        types::{
            BaseType, ConstDirective, FieldDefinition, InputValueDefinition, OperationType,
            Type as Reference, TypeKind, TypeSystemDefinition,
        },
    },
};
use domain::permission::{Permission, PermissionSet};

/// A type's place in the shape.
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

/// What kind of type; scalars, enums and inputs are all leaves here.
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

/// A field of an object or interface.
#[derive(Debug)]
pub(crate) struct Field {
    /// The named type behind lists and `!`.
    pub(crate) returns: TypeId,
    /// Whether it is a list of that.
    pub(crate) is_list: bool,
    /// The rows that it gives when neither `first` nor `last` is, if it has one of these arguments.
    pub(crate) page: Option<i64>,
    /// What the field itself takes.
    pub(crate) own: Requirement,
    /// Whether what it takes is waived where the object is the caller itself.
    pub(crate) or_oneself: bool,
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
pub(crate) struct Unstated {
    /// `Type` or `Type.field`.
    pub(crate) name: String,
    /// What is wrong.
    pub(crate) reason: &'static str,
}

impl fmt::Display for Unstated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// The schema as checks need it.
#[derive(Debug)]
pub(crate) struct Shape {
    types: Vec<Type>,
    by_name: HashMap<Box<str>, TypeId>,
    query: Option<TypeId>,
    mutation: Option<TypeId>,
    subscription: Option<TypeId>,
}

impl Shape {
    /// Reads the schema's SDL.
    ///
    /// # Errors
    /// All types and fields whose statement is missing, unreadable or contradictory, by name.
    pub(crate) fn read(sdl: &str) -> Result<Self, Vec<Unstated>> {
        let mut reader = Reader::default();
        reader.definitions(sdl);
        let mut shape = reader.shape();
        reader.unstated.extend(shape.unstated());
        if !reader.unstated.is_empty() {
            reader.unstated.sort();
            reader.unstated.dedup();
            return Err(reader.unstated);
        }
        shape.inherit();
        Ok(shape)
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

    /// Whether this is the type of that name.
    pub(crate) fn is(&self, id: TypeId, name: &str) -> bool {
        &*self.get(id).name == name
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

    fn unstated(&self) -> Vec<Unstated> {
        let mut unstated = Vec::new();
        for (index, kind) in self.types.iter().enumerate() {
            let is_root = self.roots().any(|root| root.0 == index);
            let needs_none = is_root || &*kind.name == "PageInfo" || self.node_of(index).is_some();
            if kind.kind == Kind::Object && !kind.has_statement && !needs_none {
                let reason = "has no @requiresPermission, @authenticated or @public";
                unstated.push(Unstated { name: kind.name.to_string(), reason });
            }
            for (field, definition) in &kind.fields {
                if is_root && !definition.has_statement {
                    let name = format!("{}.{field}", kind.name);
                    let reason = "is a root field without a statement of its own";
                    unstated.push(Unstated { name, reason });
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

#[derive(Debug, Default)]
struct Statement {
    requirement: Requirement,
    is_stated: bool,
    or_oneself: bool,
}

/// The SDL on its way to a shape.
#[derive(Default)]
struct Reader {
    types: Vec<Type>,
    by_name: HashMap<Box<str>, TypeId>,
    roots: [Option<String>; 3],
    unstated: Vec<Unstated>,
}

impl Reader {
    fn definitions(&mut self, sdl: &str) {
        let Ok(document) = parse_schema(sdl) else {
            self.unstated("schema", "cannot be read");
            return;
        };
        for definition in &document.definitions {
            match definition {
                TypeSystemDefinition::Schema(schema) => {
                    let name = |root: &Option<Positioned<async_graphql::Name>>| {
                        root.as_ref().map(|name| name.node.to_string())
                    };
                    let schema = &schema.node;
                    self.roots =
                        [name(&schema.query), name(&schema.mutation), name(&schema.subscription)];
                }
                TypeSystemDefinition::Type(definition) => {
                    let definition = &definition.node;
                    let (kind, fields, interfaces) = match &definition.kind {
                        TypeKind::Object(object) => {
                            (Kind::Object, object.fields.as_slice(), object.implements.as_slice())
                        }
                        TypeKind::Interface(interface) => (
                            Kind::Interface,
                            interface.fields.as_slice(),
                            interface.implements.as_slice(),
                        ),
                        TypeKind::Union(_) => (Kind::Union, [].as_slice(), [].as_slice()),
                        TypeKind::Scalar | TypeKind::Enum(_) | TypeKind::InputObject(_) => {
                            (Kind::Leaf, [].as_slice(), [].as_slice())
                        }
                    };
                    let name = definition.name.node.as_str();
                    let statement = if kind == Kind::Leaf {
                        Statement::default()
                    } else {
                        self.statement(name, &definition.directives)
                    };
                    if matches!(kind, Kind::Interface | Kind::Union) && statement.is_stated {
                        self.unstated(name, "is no object: state it on its objects or fields");
                    }
                    if statement.or_oneself {
                        self.unstated(name, "@orOneself stands on fields");
                    }
                    let id = self.type_id(name);
                    let fields: Vec<_> =
                        fields.iter().map(|field| self.field(name, &field.node)).collect();
                    let entry = &mut self.types[id.0];
                    entry.kind = kind;
                    entry.requirement = entry.requirement.and(statement.requirement);
                    entry.has_statement |= statement.is_stated;
                    entry
                        .interfaces
                        .extend(interfaces.iter().map(|name| name.node.as_str().into()));
                    entry.fields.extend(fields);
                }
                TypeSystemDefinition::Directive(_) => {}
            }
        }
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
        let (returns, is_list) = self.named(&definition.ty.node);
        let field = Field {
            returns,
            is_list,
            page,
            own: statement.requirement,
            or_oneself: statement.or_oneself,
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
        self.unstated.push(Unstated { name: name.to_owned(), reason });
    }

    fn shape(&mut self) -> Shape {
        let [query, mutation, subscription] = std::mem::take(&mut self.roots)
            .map(|name| name.and_then(|name| self.by_name.get(name.as_str()).copied()));
        if query.is_none() {
            self.unstated("schema", "has no query type");
        }
        let (types, by_name) = (std::mem::take(&mut self.types), std::mem::take(&mut self.by_name));
        Shape { types, by_name, query, mutation, subscription }
    }
}

fn default_of(argument: &InputValueDefinition) -> Option<i64> {
    match argument.default_value.as_ref().map(|default| &default.node) {
        Some(Value::Number(number)) => number.as_i64(),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What the tests of this and of the other checks run on.
    pub(crate) const SDL: &str = r"
        interface Node { id: ID! }
        interface Named { name: String! }
        interface Stated { name: String! @authenticated }
        union Actor = User | ApiKey | System
        type User implements Node & Named & Stated @authenticated {
            id: ID! name: String!
            email: String! @requiresPermission(permission: USER_READ) @orOneself
            roles: [Role!]! @requiresPermission(permission: USER_READ) @orOneself
            manager: User
            lastKey: ApiKey @orOneself @requiresPermission(permission: USER_READ)
        }
        type ApiKey implements Node & Named @requiresPermission(permission: API_KEY_MANAGE) { id: ID! name: String! owner: User }
        type System @authenticated { version: String! }
        type Role @authenticated { key: String! holders: [User!]! @requiresPermission(permission: ROLE_MANAGE) }
        type Asset implements Node & Named @requiresPermission(permission: ASSET_READ) {
            id: ID! name: String! owner: User tags: [Tag!]! codes: [String!]!
            findings(first: Int, after: String): FindingConnection!
            dependsOn(depth: Int = 1, first: Int = 100): [Asset!]!
            history(last: Int = 20): [Finding!]!
            secret: Secret
        }
        type Tag @requiresPermission(permission: ASSET_READ) { name: String! assets: [Asset!]! }
        type Finding implements Node @requiresPermission(permission: COMPLIANCE_READ) { id: ID! asset: Asset! actor: Actor }
        type Secret @requiresPermission(permission: SECRET_MANAGE) { name: String! }
        type AssetConnection { edges: [AssetEdge!]! nodes: [Asset!]! pageInfo: PageInfo! totalCount: Int! }
        type AssetEdge { node: Asset! cursor: String! }
        type FindingConnection { edges: [FindingEdge!]! pageInfo: PageInfo! }
        type FindingEdge { node: Finding! cursor: String! }
        type ActorConnection { nodes: [Actor!]! pageInfo: PageInfo! }
        type PageInfo { hasNextPage: Boolean! }
        type Viewer @public { actor: Actor organization: Organization @authenticated }
        type Organization @authenticated { name: String! }
        type Tokens @public { accessToken: String! }
        type Health @public { up: Boolean! asset: Asset }
        scalar JSON
        enum Color { RED }
        input Filter { a: Int }
        directive @requiresPermission(permission: Permission!) on FIELD_DEFINITION | OBJECT
        type Query {
            viewer: Viewer @public
            health: Health! @public
            ping(color: Color, filter: Filter): JSON @public
            node(id: ID!): Node @authenticated
            asset(id: ID): Asset @requiresPermission(permission: ASSET_READ)
            assets(first: Int, after: String, last: Int): AssetConnection! @requiresPermission(permission: ASSET_READ)
            actors(first: Int = 20): ActorConnection! @authenticated
            users: [User!]! @requiresPermission(permission: USER_READ)
            named: Named @authenticated
            stated: Stated @authenticated
            secrets: [Secret!]! @requiresPermission(permission: SECRET_MANAGE)
        }
        type Mutation {
            login(email: String): Tokens! @public
            refreshSession: Tokens! @public
            logout: Boolean! @public
            changePassword: Boolean! @authenticated
            switchOrganization: Tokens! @authenticated
            createAsset: Asset! @requiresPermission(permission: ASSET_WRITE)
            saveSecret: Secret! @requiresPermission(permission: SECRET_MANAGE)
        }
        type Subscription { findings: Finding! @requiresPermission(permission: COMPLIANCE_READ) }
        schema { query: Query mutation: Mutation subscription: Subscription }
    ";

    pub(crate) fn shape() -> Shape {
        Shape::read(SDL).unwrap()
    }

    fn on(types: &str) -> String {
        format!("{types} type Query {{ a: Int @public }} schema {{ query: Query }}")
    }

    #[track_caller]
    fn faults(sdl: &str, expected: &[&str]) {
        let faults = Shape::read(sdl)
            .map(drop)
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>());
        match (faults, expected) {
            (Ok(()), []) => {}
            (Ok(()), expected) => panic!("reads, but should say {expected:?}"),
            (Err(faults), expected) => {
                assert_eq!(faults.len(), expected.len(), "{faults:#?}");
                for (fault, expected) in faults.iter().zip(expected) {
                    assert!(fault.starts_with(expected), "{fault}");
                }
            }
        }
    }

    #[test]
    fn what_states_nothing_keeps_the_server_from_starting() {
        faults(&on(""), &[]);
        faults(&on("type A { a: Int }"), &["A: has no"]);
        faults(&on("type A { a: Int @public }"), &["A: has no"]);
        faults(&on("type A @deprecated { a: Int }"), &["A: has no"]);
        faults(&on("type A @public { a: Int }"), &[]);
        faults(
            &on("interface A { a: Int } union B = A scalar C enum D { E } input F { g: Int }"),
            &[],
        );
        faults(
            "type Query @public { a: Int b: Int @public } type M { c: Int } type S { d: Int }
             schema { query: Query mutation: M subscription: S }",
            &["M.c: is a root field", "Query.a: is a root field", "S.d: is a root field"],
        );
        faults("type Query @public { a: Int @public }", &["schema: has no query type"]);
        faults("typo", &["schema: cannot be read", "schema: has no query type"]);
    }

    #[test]
    fn statements_that_cannot_be_meant_keep_the_server_from_starting() {
        for (statement, expected) in [
            ("@requiresPermission(permission: ASSET_RAED)", "A.a: requires a permission that"),
            ("@requiresPermission(permission: 1)", "A.a: requires a permission that"),
            ("@requiresPermission(needs: ASSET_READ)", "A.a: requires a permission that"),
            ("@requiresPermission", "A.a: requires a permission that"),
            ("@public @authenticated", "A.a: is @public and is not"),
            ("@public @requiresPermission(permission: ASSET_READ)", "A.a: is @public and is not"),
            ("@authenticated @orOneself", "A.a: @orOneself stands beside"),
        ] {
            faults(&on(&format!("type A @public {{ a: Int {statement} }}")), &[expected]);
        }
        faults(&on("interface A @public { a: Int }"), &["A: is no object"]);
        let oneself = "type A @requiresPermission(permission: ASSET_READ) @orOneself { a: Int }";
        faults(&on(oneself), &["A: @orOneself stands on fields"]);
    }

    #[test]
    fn only_real_connections_and_edges_take_their_node_s_statement() {
        faults(&on("type DatabaseConnection { url: String }"), &["DatabaseConnection: has no"]);
        faults(&on("type NetworkEdge { node: String }"), &["NetworkEdge: has no"]);
        let shape = shape();
        for (name, permission) in [
            ("AssetConnection", Permission::AssetRead),
            ("AssetEdge", Permission::AssetRead),
            ("FindingConnection", Permission::ComplianceRead),
        ] {
            let id = shape.by_name[name];
            assert_eq!(shape.get(id).requirement.permissions, PermissionSet::of(&[permission]));
        }
        assert_eq!(shape.get(shape.by_name["ActorConnection"]).requirement, Requirement::default());
    }

    #[test]
    fn a_field_of_an_interface_takes_what_its_implementers_take() {
        let shape = shape();
        let own = |interface: &str, field: &str| {
            shape.get(shape.by_name[interface]).field(field).unwrap().own
        };
        let signed_in = Requirement { authentication: true, permissions: PermissionSet::EMPTY };
        assert_eq!(own("Node", "id"), signed_in);
        let all = PermissionSet::of(&[Permission::ApiKeyManage, Permission::AssetRead]);
        assert_eq!(own("Named", "name").permissions, all);
        assert_eq!(own("Stated", "name").permissions, PermissionSet::EMPTY);
        assert!(own("Stated", "name").authentication);
        let sdl = on(
            "interface Node { id: ID } type A implements Node @public { id: ID @requiresPermission(permission: AUDIT_READ) }",
        );
        let shape = Shape::read(&sdl).unwrap();
        let id = shape.get(shape.by_name["Node"]).field("id").unwrap();
        assert_eq!(id.own.permissions, PermissionSet::of(&[Permission::AuditRead]));
    }

    #[test]
    fn pages_are_read_from_the_arguments_defaults() {
        let shape = shape();
        let page = |kind: &str, field: &str| {
            let field = shape.get(shape.by_name[kind]).field(field).unwrap();
            (field.is_list, field.page)
        };
        assert_eq!(page("Query", "assets"), (false, Some(PAGE)));
        assert_eq!(page("Query", "actors"), (false, Some(20)));
        assert_eq!(page("Asset", "dependsOn"), (true, Some(100)));
        assert_eq!(page("Asset", "history"), (true, Some(20)));
        assert_eq!(page("Asset", "tags"), (true, None));
    }
}
