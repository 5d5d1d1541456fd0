use domain::access::permission::Permission;

use super::*;

/// Schema for the tests of all document checks.
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
        blastRadius(depth: Int = 10, first: Int = 100): BlastRadius!
        secret: Secret
    }
    type BlastRadius @requiresPermission(permission: ASSET_READ) { assets: Int! nodes: [Asset!]! }
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
    input Filter { a: Int text: String }
    directive @requiresPermission(permission: Permission!) on FIELD_DEFINITION | OBJECT
    type Query {
        viewer: Viewer @public
        health: Health! @public
        ping(color: Color, filter: Filter): JSON @public
        node(id: ID!): Node @authenticated
        asset(id: ID): Asset @requiresPermission(permission: ASSET_READ)
        assets(first: Int, after: String, last: Int): AssetConnection! @requiresPermission(permission: ASSET_READ)
        actors(first: Int = 20, filter: Filter): ActorConnection! @authenticated
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

/// Policies of the fields of [`SDL`].
pub(crate) const POLICIES: &[&[FieldPolicy]] = &[&[
    FieldPolicy { on: "Mutation", field: "login", policies: &[Policy::MustBeAlone] },
    FieldPolicy { on: "Mutation", field: "refreshSession", policies: &[Policy::MustBeAlone] },
    FieldPolicy { on: "Mutation", field: "changePassword", policies: &[Policy::MustBeAlone] },
    FieldPolicy { on: "Mutation", field: "switchOrganization", policies: &[Policy::MustBeAlone] },
    FieldPolicy { on: "Query", field: "viewer", policies: &[Policy::NullIfAnonymous] },
    FieldPolicy { on: "Query", field: "node", policies: &[Policy::ReturnsCallerIf("id")] },
    FieldPolicy { on: "Viewer", field: "actor", policies: &[Policy::ReturnsCaller] },
    FieldPolicy { on: "Tag", field: "name", policies: &[Policy::Weight(100)] },
    FieldPolicy { on: "Query", field: "actors", policies: &[Policy::TextFilter] },
]];

pub(crate) fn index() -> SchemaIndex {
    SchemaIndex::read(SDL, POLICIES).unwrap()
}

fn on(types: &str) -> String {
    format!("{types} type Query {{ a: Int @public }} schema {{ query: Query }}")
}

#[track_caller]
fn faults(sdl: &str, expected: &[&str]) {
    let faults = SchemaIndex::read(sdl, &[])
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
    faults(&on("interface A { a: Int } union B = A scalar C enum D { E } input F { g: Int }"), &[]);
    faults(
        "type Query @public { a: Int b: Int @public } type M { c: Int } type S { d: Int }
         schema { query: Query mutation: M subscription: S }",
        &["M.c: is a root field", "Query.a: is a root field", "S.d: is a root field"],
    );
    faults("type Query @public { a: Int @public }", &["schema: has no query type"]);
    faults("typo", &["schema: has no query type", "schema: is not valid SDL"]);
}

#[test]
fn statements_that_cannot_be_meant_keep_the_server_from_starting() {
    for (statement, expected) in [
        ("@requiresPermission(permission: ASSET_RAED)", "A.a: requires a permission that"),
        ("@requiresPermission(permission: 1)", "A.a: requires a permission that"),
        ("@requiresPermission(needs: ASSET_READ)", "A.a: requires a permission that"),
        ("@requiresPermission", "A.a: requires a permission that"),
        ("@public @authenticated", "A.a: is @public but also requires"),
        (
            "@public @requiresPermission(permission: ASSET_READ)",
            "A.a: is @public but also requires",
        ),
        ("@authenticated @orOneself", "A.a: @orOneself needs @requiresPermission"),
    ] {
        faults(&on(&format!("type A @public {{ a: Int {statement} }}")), &[expected]);
    }
    faults(&on("interface A @public { a: Int }"), &["A: is not an object"]);
    let oneself = "type A @requiresPermission(permission: ASSET_READ) @orOneself { a: Int }";
    faults(&on(oneself), &["A: @orOneself is allowed on fields only"]);
}

#[test]
fn a_policy_of_a_field_that_is_not_there_keeps_the_server_from_starting() {
    let policy = |on, field| FieldPolicy { on, field, policies: &[Policy::MustBeAlone] };
    let faults =
        SchemaIndex::read(SDL, &[&[policy("Mutation", "logon"), policy("Nothing", "login")]]);
    let faults: Vec<_> = faults.unwrap_err().iter().map(ToString::to_string).collect();
    let reason = "has a policy but is not in the schema";
    assert_eq!(faults, [format!("Mutation.logon: {reason}"), format!("Nothing.login: {reason}")]);
}

#[test]
fn only_real_connections_and_edges_take_their_node_s_statement() {
    faults(&on("type DatabaseConnection { url: String }"), &["DatabaseConnection: has no"]);
    faults(&on("type NetworkEdge { node: String }"), &["NetworkEdge: has no"]);
    let index = index();
    for (name, permission) in [
        ("AssetConnection", Permission::AssetRead),
        ("AssetEdge", Permission::AssetRead),
        ("FindingConnection", Permission::ComplianceRead),
    ] {
        let id = index.by_name[name];
        assert_eq!(index.get(id).requirement.permissions, PermissionSet::of(&[permission]));
    }
    assert_eq!(index.get(index.by_name["ActorConnection"]).requirement, Requirement::default());
}

#[test]
fn a_field_of_an_interface_takes_what_its_implementers_take() {
    let index = index();
    let own = |interface: &str, field: &str| {
        index.get(index.by_name[interface]).field(field).unwrap().own
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
    let index = SchemaIndex::read(&sdl, &[]).unwrap();
    let id = index.get(index.by_name["Node"]).field("id").unwrap();
    assert_eq!(id.own.permissions, PermissionSet::of(&[Permission::AuditRead]));
}

#[test]
fn pages_are_read_from_the_arguments_defaults() {
    let index = index();
    let page = |kind: &str, field: &str| {
        let field = index.get(index.by_name[kind]).field(field).unwrap();
        (field.is_list, field.page)
    };
    assert_eq!(page("Query", "assets"), (false, Some(DEFAULT_PAGE_SIZE)));
    assert_eq!(page("Query", "actors"), (false, Some(20)));
    assert_eq!(page("Asset", "dependsOn"), (true, Some(100)));
    assert_eq!(page("Asset", "history"), (true, Some(20)));
    assert_eq!(page("Asset", "tags"), (true, None));
}
