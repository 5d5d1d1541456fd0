//! The operation that will run, with the values it will run with.
//!
//! Must stay true: `excludes` says exactly what async-graphql's `remove_skipped_selection` does. What is excluded here
//! and executed there would be a way around every permission. Two of its habits are therefore ours: a condition that
//! is no boolean counts as false, and defaults of variables count only because [`Operation::new`] writes them into the
//! variables. Values are weighed and looked at, never copied whole: a variable may be 256 KiB and be named by every field.

use std::fmt::{self, Write};

use async_graphql::{
    Positioned, Value, Variables,
    parser::types::{
        Directive, ExecutableDocument, Field, FragmentDefinition, OperationDefinition,
        OperationType, Selection, SelectionSet,
    },
};

/// The operation that will run; made by [`ParsedDocument::operation`](crate::document::expansion::ParsedDocument::operation).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation<'a> {
    document: &'a ExecutableDocument,
    operation: &'a Positioned<OperationDefinition>,
    variables: &'a Variables,
    /// Whether any variable is large enough to be weighed.
    has_heavy_variable: bool,
}

impl<'a> Operation<'a> {
    /// Fills the operation's defaults into the variables and keeps both.
    pub(crate) fn new(
        document: &'a ExecutableDocument,
        operation: &'a Positioned<OperationDefinition>,
        variables: &'a mut Variables,
    ) -> Self {
        for definition in &operation.node.variable_definitions {
            if let Some(default) = &definition.node.default_value {
                let name = definition.node.name.node.clone();
                variables.entry(name).or_insert_with(|| default.node.clone());
            }
        }
        let has_heavy_variable = variables.values().any(|value| weight(value) > 64);
        Self { document, operation, variables, has_heavy_variable }
    }

    /// The operation itself.
    pub(crate) fn definition(self) -> &'a OperationDefinition {
        &self.operation.node
    }

    /// The values that it runs with, its defaults among them.
    pub(crate) fn variables(self) -> &'a Variables {
        self.variables
    }

    /// Query, mutation or subscription.
    pub(crate) fn kind(self) -> OperationType {
        self.operation.node.ty
    }

    /// What is selected at the root.
    pub(crate) fn selections(self) -> &'a Positioned<SelectionSet> {
        &self.operation.node.selection_set
    }

    /// The fragment of that name.
    pub(crate) fn fragment(self, name: &str) -> Option<&'a FragmentDefinition> {
        self.document.fragments.get(name).map(|fragment| &fragment.node)
    }

    /// Whether `@skip` or `@include` keep from running what carries these directives.
    pub(crate) fn excludes(self, directives: &[Positioned<Directive>]) -> bool {
        directives.iter().any(|directive| {
            let wanted = match directive.node.name.node.as_str() {
                "skip" => false,
                "include" => true,
                _ => return false,
            };
            let Some(condition) = directive.node.get_argument("if") else { return false };
            let condition = condition.node.clone().into_const_with(|name| self.scalar(&name));
            matches!(condition, Ok(Value::Boolean(true))) != wanted
        })
    }

    /// The whole number that the field gets for this argument: `None` if absent, null or something else.
    pub(crate) fn integer(self, field: &Field, argument: &str) -> Option<i64> {
        match self.argument(field, argument)? {
            Value::Number(number) => number.as_i64().or_else(|| {
                // Beyond i64, or written as a float: only whether it is large matters.
                let float = number.as_f64()?;
                Some(if float.is_sign_negative() { i64::MIN } else { i64::MAX })
            }),
            _ => None,
        }
    }

    /// The text that the field gets for this argument, if it is given once and is one of at most 128 bytes.
    pub(crate) fn text(self, field: &Field, argument: &str) -> Option<String> {
        let given = field.arguments.iter().filter(|(name, _)| name.node == argument).count();
        match self.argument(field, argument)? {
            Value::String(text) if given == 1 => Some(text),
            _ => None,
        }
    }

    /// The bytes of the field's arguments, which are copied each time that it runs. Variables count in full.
    pub(crate) fn argument_bytes(self, field: &Field) -> u64 {
        let mut bytes = Counter(0);
        for (_, value) in &field.arguments {
            // A counter takes whatever is written.
            let _ = write!(bytes, "{}", value.node);
            if self.has_heavy_variable {
                let _ = value.node.clone().into_const_with(|name| {
                    bytes.0 += self.variables.get(&name).map_or(0, weight);
                    Ok::<_, ()>(Value::Null)
                });
            }
        }
        bytes.0
    }

    /// The names of the fields that run at the root, in document order, as often as they run.
    pub(crate) fn root_fields(self) -> Vec<&'a str> {
        let mut names = Vec::new();
        self.collect_names(self.selections(), &mut names);
        names
    }

    fn collect_names(self, set: &'a Positioned<SelectionSet>, names: &mut Vec<&'a str>) {
        for item in &set.node.items {
            if self.excludes(item.node.directives()) {
                continue;
            }
            match &item.node {
                Selection::Field(field) => names.push(field.node.name.node.as_str()),
                Selection::InlineFragment(inline) => {
                    self.collect_names(&inline.node.selection_set, names);
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.fragment(&spread.node.fragment_name.node) {
                        self.collect_names(&fragment.selection_set, names);
                    }
                }
            }
        }
    }

    fn argument(self, field: &Field, argument: &str) -> Option<Value> {
        let value = field.get_argument(argument)?;
        value.node.clone().into_const_with(|name| self.scalar(&name)).ok()
    }

    /// A variable's value; lists, objects and long texts are of no interest here and read as null.
    fn scalar(self, name: &str) -> Result<Value, ()> {
        Ok(match self.variables.get(name).ok_or(())? {
            Value::String(text) if text.len() > 128 => Value::Null,
            scalar @ (Value::String(_) | Value::Boolean(_) | Value::Number(_)) => scalar.clone(),
            _ => Value::Null,
        })
    }
}

/// About the bytes of a value as JSON.
fn weight(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Boolean(_) | Value::Number(_) | Value::Enum(_) => 4,
        Value::String(text) => text.len() as u64 + 2,
        Value::Binary(bytes) => bytes.len() as u64,
        Value::List(values) => values.iter().fold(2, |sum, value| sum + weight(value)),
        Value::Object(entries) => {
            entries.iter().fold(2, |sum, (name, value)| sum + name.len() as u64 + weight(value))
        }
    }
}

struct Counter(u64);

impl Write for Counter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;
    use crate::document::expansion::ParsedDocument;

    #[track_caller]
    fn roots(source: &str, json: &str, expected: &str) {
        let document = ParsedDocument::of(parse_query(source).unwrap()).unwrap();
        let mut variables: Variables = serde_json::from_str(json).unwrap();
        let operation = document.operation(None, &mut variables).unwrap();
        assert_eq!(operation.root_fields().join(" "), expected, "{source} {json}");
    }

    #[test]
    fn root_fields_are_found_through_fragments_and_aliases() {
        roots(
            "mutation{a: login ...F ... on M{... {logout}}} fragment F on M{b: refreshSession}",
            "{}",
            "login refreshSession logout",
        );
        roots("{...F ...F x} fragment F on Q{a a}", "{}", "a a a a x");
        roots("{...Nowhere a{b}}", "{}", "a");
    }

    #[test]
    fn conditions_exclude_what_async_graphql_excludes() {
        for (directives, json, runs) in [
            ("@skip(if: true)", "{}", false),
            ("@skip(if: false)", "{}", true),
            ("@include(if: true)", "{}", true),
            ("@include(if: false)", "{}", false),
            ("@include(if: true) @skip(if: true)", "{}", false),
            ("@skip(if: true, if: false)", "{}", false),
            ("@skip(if: false, if: true)", "{}", true),
            ("@skip", "{}", true),
            ("@include(unless: false)", "{}", true),
            ("@other(if: true)", "{}", true),
            ("@skip(if: $x)", r#"{"x": true}"#, false),
            ("@skip(if: $x)", r#"{"x": false}"#, true),
            ("@include(if: $x)", r#"{"x": false}"#, false),
            // Absent, null and of a wrong type count as false.
            ("@skip(if: $x)", "{}", true),
            ("@include(if: $x)", "{}", false),
            ("@skip(if: $x)", r#"{"x": null}"#, true),
            ("@skip(if: $x)", r#"{"x": "true"}"#, true),
            ("@include(if: $x)", r#"{"x": "true"}"#, false),
            ("@skip(if: $x)", r#"{"x": 1}"#, true),
            ("@skip(if: $x)", r#"{"x": [true]}"#, true),
            ("@skip(if: [true])", "{}", true),
            ("@skip(if: \"true\")", "{}", true),
            ("@include(if: 1)", "{}", false),
            // Defaults, and what overrides them.
            ("@skip(if: $y)", "{}", false),
            ("@include(if: $y)", "{}", true),
            ("@skip(if: $y)", r#"{"y": false}"#, true),
            ("@skip(if: $y)", r#"{"y": null}"#, true),
            ("@skip(if: $n)", "{}", true),
        ] {
            for place in ["a @D", "...F @D", "... @D{a}", "... on Q @D{a}"] {
                let source = format!(
                    "query($x: Boolean, $y: Boolean = true, $n: Boolean = null){{{} z}} fragment F on Q{{a}}",
                    place.replace("@D", directives)
                );
                roots(&source, json, if runs { "a z" } else { "z" });
            }
        }
        roots("query @skip(if: true){a}", "{}", "a");
        roots("{...F} fragment F on Q @skip(if: true){a}", "{}", "a");
    }

    #[test]
    fn arguments_are_read_from_literals_and_variables() {
        let read = |argument: &str, json: &str| {
            let source = format!("query($n: Int, $d: Int = 7, $t: ID){{a({argument})}}");
            let document = ParsedDocument::of(parse_query(source).unwrap()).unwrap();
            let mut variables: Variables = serde_json::from_str(json).unwrap();
            let operation = document.operation(None, &mut variables).unwrap();
            let Selection::Field(field) = &operation.selections().node.items[0].node else {
                panic!()
            };
            (operation.integer(&field.node, "first"), operation.text(&field.node, "id"))
        };
        for (argument, json, integer) in [
            ("first: 5", "{}", Some(5)),
            ("first: -5", "{}", Some(-5)),
            ("first: null", "{}", None),
            ("first: \"5\"", "{}", None),
            ("first: [5]", "{}", None),
            ("first: $n", "{}", None),
            ("first: $n", r#"{"n": 6}"#, Some(6)),
            ("first: $n", r#"{"n": null}"#, None),
            ("first: $n", r#"{"n": {"a": 1}}"#, None),
            ("first: $d", "{}", Some(7)),
            ("first: $d", r#"{"d": null}"#, None),
            ("first: 99999999999999999999", "{}", Some(i64::MAX)),
            ("first: 1e300", "{}", Some(i64::MAX)),
            ("first: -1e300", "{}", Some(i64::MIN)),
            ("last: 5", "{}", None),
        ] {
            assert_eq!(read(argument, json).0, integer, "{argument} {json}");
        }
        let long = format!("id: \"{}\"", "x".repeat(129));
        for (argument, json, text) in [
            ("id: \"u1\"", "{}", Some("u1")),
            ("id: $t", r#"{"t": "u1"}"#, Some("u1")),
            ("id: $t", "{}", None),
            ("id: [\"u1\"]", "{}", None),
            ("id: \"u1\", id: \"u2\"", "{}", None),
            ("id: u1", "{}", None),
        ] {
            assert_eq!(read(argument, json).1.as_deref(), text, "{argument} {json}");
        }
        assert!(read(&long, "{}").1.is_some(), "a literal is within the source");
        let variable = format!(r#"{{"t": "{}"}}"#, "x".repeat(129));
        assert_eq!(read("id: $t", &variable).1, None);
    }
}
