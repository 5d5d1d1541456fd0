//! Tests of the schema's SDL: it is committed, fully described, and states its permissions.

use async_graphql::parser::{
    parse_schema,
    types::{
        ConstDirective, FieldDefinition, InputValueDefinition, TypeDefinition, TypeKind,
        TypeSystemDefinition,
    },
};
use async_graphql::{Positioned, Value};

/// Path of the committed schema, which people read and clients rely on.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql");

/// Returns the type definitions of an SDL.
pub(crate) fn types(sdl: &str) -> Vec<TypeDefinition> {
    let document = parse_schema(sdl).unwrap();
    let types = document.definitions.into_iter().filter_map(|definition| match definition {
        TypeSystemDefinition::Type(definition) => Some(definition.node),
        TypeSystemDefinition::Schema(_) | TypeSystemDefinition::Directive(_) => None,
    });
    types.collect()
}

/// Returns the fields of an object or interface; empty for other kinds.
pub(crate) fn fields(definition: &TypeDefinition) -> &[Positioned<FieldDefinition>] {
    match &definition.kind {
        TypeKind::Object(object) => &object.fields,
        TypeKind::Interface(interface) => &interface.fields,
        TypeKind::Scalar | TypeKind::Union(_) | TypeKind::Enum(_) | TypeKind::InputObject(_) => &[],
    }
}

/// Returns the field names of a root type.
pub(crate) fn roots(root: &str) -> Vec<String> {
    let types = types(&graphql::sdl());
    let root = types.iter().find(|definition| definition.name.node == root).unwrap();
    fields(root).iter().map(|field| field.node.name.node.to_string()).collect()
}

fn text(description: Option<&Positioned<String>>) -> &str {
    description.map_or("", |text| text.node.as_str())
}

/// Returns the permissions that the directives require.
pub(crate) fn permissions(directives: &[Positioned<ConstDirective>]) -> Vec<String> {
    let requires = directives.iter().filter(|one| one.node.name.node == "requiresPermission");
    let permission = requires.map(|one| match &one.node.get_argument("permission").unwrap().node {
        Value::Enum(permission) => permission.to_string(),
        other => panic!("{other} is no permission"),
    });
    permission.collect()
}

#[test]
fn the_schema_is_the_committed_one() {
    let current = format!("{}\n", graphql::sdl().trim_end());
    if std::env::var_os("UPDATE_SDL").is_some() {
        std::fs::write(FILE, &current).unwrap();
    }
    let committed = std::fs::read_to_string(FILE).unwrap_or_default();
    let differing = committed.lines().zip(current.lines()).position(|(old, new)| old != new);
    let line = differing.unwrap_or_else(|| committed.lines().count().min(current.lines().count()));
    assert!(
        committed == current,
        "schema/graphql/schema.graphql is not the schema any more, from line {} on:\n  committed: {}\n  current:   {}\n\
         If the change is meant: run this test with UPDATE_SDL=1, read the diff as a client would, and commit it.",
        line + 1,
        committed.lines().nth(line).unwrap_or("(ends)"),
        current.lines().nth(line).unwrap_or("(ends)"),
    );
}

/// Calls `check` with the name and the description of each type, field, argument, input field and enum value.
fn for_each_description(sdl: &str, mut check: impl FnMut(String, &str)) {
    for definition in types(sdl) {
        let name = &definition.name.node;
        check(name.to_string(), text(definition.description.as_ref()));
        let mut inputs = |owner: &str, inputs: &[Positioned<InputValueDefinition>]| {
            for input in inputs {
                let name = format!("{owner}.{}", input.node.name.node);
                check(name, text(input.node.description.as_ref()));
            }
        };
        if let TypeKind::InputObject(object) = &definition.kind {
            inputs(name, &object.fields);
        }
        for field in fields(&definition) {
            inputs(&format!("{name}.{}", field.node.name.node), &field.node.arguments);
        }
        for field in fields(&definition) {
            let name = format!("{name}.{}", field.node.name.node);
            check(name, text(field.node.description.as_ref()));
        }
        if let TypeKind::Enum(all) = &definition.kind {
            for value in &all.values {
                let name = format!("{name}.{}", value.node.value.node);
                check(name, text(value.node.description.as_ref()));
            }
        }
    }
}

#[test]
fn everything_in_the_schema_is_described() {
    let mut silent = Vec::new();
    for_each_description(&graphql::sdl(), |name, description| {
        if description.trim().is_empty() {
            silent.push(name);
        }
    });
    assert!(silent.is_empty(), "without a description: {silent:#?}");
}

/// Introspection does not return directives, so clients read the required permission in the description.
#[test]
fn descriptions_name_the_permission_that_is_required() {
    let mut silent = Vec::new();
    for definition in types(&graphql::sdl()) {
        let name = &definition.name.node;
        let of_type = text(definition.description.as_ref());
        for permission in permissions(&definition.directives) {
            if !of_type.contains(&permission) {
                silent.push(format!("{name}: {permission}"));
            }
        }
        let is_root = matches!(name.as_str(), "Query" | "Mutation" | "Subscription");
        for field in fields(&definition) {
            let of_field = text(field.node.description.as_ref());
            for permission in permissions(&field.node.directives) {
                if !of_field.contains(&permission) && (is_root || !of_type.contains(&permission)) {
                    silent.push(format!("{name}.{}: {permission}", field.node.name.node));
                }
            }
        }
    }
    assert!(silent.is_empty(), "do not name what they require: {silent:#?}");
}

#[test]
fn every_root_field_states_who_may() {
    let statements = ["public", "authenticated", "requiresPermission"];
    for definition in types(&graphql::sdl()) {
        if !matches!(definition.name.node.as_str(), "Query" | "Mutation" | "Subscription") {
            continue;
        }
        for field in fields(&definition) {
            let stated = field
                .node
                .directives
                .iter()
                .filter(|directive| statements.contains(&directive.node.name.node.as_str()));
            assert_eq!(stated.count(), 1, "{}.{}", definition.name.node, field.node.name.node);
        }
    }
}

/// Returns the descriptions that begin with a pronoun or a question word, or have fewer than four words.
fn unclear(sdl: &str) -> Vec<String> {
    let openers = ["its", "what", "who", "where", "how", "whose", "which", "whether"];
    let mut found = Vec::new();
    for_each_description(sdl, |name, description| {
        let first = description.split_whitespace().next().unwrap_or_default().to_lowercase();
        let is_short = description.split_whitespace().count() < 4;
        if is_short || openers.contains(&first.trim_matches(|c: char| !c.is_alphanumeric())) {
            found.push(format!("{name}: {description}"));
        }
    });
    found
}

#[test]
fn descriptions_name_the_noun_first() {
    assert_eq!(unclear(&graphql::sdl()), Vec::<String>::new());
}

#[test]
fn an_unclear_description_is_found() {
    let sdl = r#"
        "The root of queries." type Query {
            "Its id." id: ID!
            "Whether the rule is enabled." enabled(
                "Where the list begins." after: String
            ): Boolean!
            "The asset's id, beginning `ast_`." asset: ID!
        }
        "Who did it." enum Actor { "A user." USER }
    "#;
    let names: Vec<_> =
        unclear(sdl).iter().filter_map(|line| line.split(':').next().map(str::to_owned)).collect();
    assert_eq!(names, ["Query.enabled.after", "Query.id", "Query.enabled", "Actor", "Actor.USER"]);
}

#[test]
fn rust_does_not_show_in_descriptions() {
    let sdl = graphql::sdl();
    let words = ["Option<", "Vec<", "<Utc>", "::", "domain", "Row"];
    // The description of async-graphql's own scalar cannot be changed.
    let lines = sdl.lines().filter(|line| *line != "Implement the DateTime<Utc> scalar");
    let shown: Vec<_> = lines.filter(|line| words.iter().any(|word| line.contains(word))).collect();
    assert!(shown.is_empty(), "{shown:#?}");
}
