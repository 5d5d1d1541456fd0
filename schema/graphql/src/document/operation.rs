//! The operation that will be executed, with its variables.
//!
//! Must stay true: `excludes` decides exactly as async-graphql's `remove_skipped_selection`. A selection that is
//! excluded here but executed by async-graphql would bypass all permissions. Two behaviours of async-graphql are
//! therefore repeated here: a condition that is not a boolean counts as false, and the default of a variable has an
//! effect only because [`Operation::new`] writes it into the variables.
//!
//! Large values of variables are never copied; only their size is estimated. A variable may have 256 KiB and be used by
//! every field.

use std::fmt::{self, Write};

use async_graphql::{
    Name, Positioned, Value, Variables,
    parser::types::{
        Directive, ExecutableDocument, Field, FragmentDefinition, OperationDefinition,
        OperationType, Selection, SelectionSet,
    },
};

/// The operation that will be executed. Created by
/// [`ParsedDocument::operation`](crate::document::expansion::ParsedDocument::operation).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation<'a> {
    document: &'a ExecutableDocument,
    definition: &'a Positioned<OperationDefinition>,
    variables: &'a Variables,
    /// True if any variable is so large that `argument_bytes` must count its size.
    has_large_variable: bool,
}

/// Arguments of a field or of a directive.
#[derive(Clone, Copy)]
enum Arguments<'a> {
    Field(&'a Field),
    Directive(&'a Directive),
}

impl<'a> Operation<'a> {
    /// Writes the defaults of absent variables into `variables`, and keeps a reference to the operation and the
    /// variables.
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
        Self::with_defaults(document, operation, variables)
    }

    /// Keeps a reference to the operation and to variables that contain the defaults.
    pub(crate) fn with_defaults(
        document: &'a ExecutableDocument,
        definition: &'a Positioned<OperationDefinition>,
        variables: &'a Variables,
    ) -> Self {
        let has_large_variable = variables.values().any(|value| json_bytes(value) > 64);
        Self { document, definition, variables, has_large_variable }
    }

    /// Returns the operation after it was rewritten, with the same variables.
    pub(crate) fn rewritten(
        self,
        document: &'a ExecutableDocument,
        definition: &'a Positioned<OperationDefinition>,
    ) -> Self {
        Self { document, definition, ..self }
    }

    /// Returns the parsed definition of the operation.
    pub(crate) fn definition(self) -> &'a OperationDefinition {
        &self.definition.node
    }

    /// Returns the variables that the operation runs with, including its defaults.
    pub(crate) fn variables(self) -> &'a Variables {
        self.variables
    }

    /// Returns the kind of operation: query, mutation or subscription.
    pub(crate) fn kind(self) -> OperationType {
        self.definition.node.ty
    }

    /// Returns the selection set of the operation's root type.
    pub(crate) fn selections(self) -> &'a Positioned<SelectionSet> {
        &self.definition.node.selection_set
    }

    /// Returns the fragment with this name, or `None`.
    pub(crate) fn fragment(self, name: &str) -> Option<&'a FragmentDefinition> {
        self.document.fragments.get(name).map(|fragment| &fragment.node)
    }

    /// Returns true if `@skip` or `@include` among these directives excludes the selection from execution.
    pub(crate) fn excludes(self, directives: &[Positioned<Directive>]) -> bool {
        directives.iter().any(|directive| {
            let requested = match directive.node.name.node.as_str() {
                "skip" => false,
                "include" => true,
                _ => return false,
            };
            let Some(condition) = directive.node.get_argument("if") else { return false };
            let condition = condition.node.clone().into_const_with(|name| self.scalar(&name));
            matches!(condition, Ok(Value::Boolean(true))) != requested
        })
    }

    /// Returns the integer passed for this argument; `None` if the argument is absent, null or not a number. A float,
    /// or a number outside the range of `i64`, becomes `i64::MAX` or `i64::MIN` according to its sign.
    pub(crate) fn integer(self, field: &Field, argument: &str) -> Option<i64> {
        match self.argument(field, argument)? {
            Value::Number(number) => number.as_i64().or_else(|| {
                // The number is a float or outside the range of i64. Only the sign matters; the value counts as very
                // large.
                let float = number.as_f64()?;
                Some(if float.is_sign_negative() { i64::MIN } else { i64::MAX })
            }),
            _ => None,
        }
    }

    /// Returns the string passed for this argument; `None` if the argument is absent, repeated or not a string, or if
    /// a variable's string has more than 128 bytes.
    pub(crate) fn text(self, field: &Field, argument: &str) -> Option<String> {
        let given = field.arguments.iter().filter(|(name, _)| name.node == argument).count();
        match self.argument(field, argument)? {
            Value::String(text) if given == 1 => Some(text),
            _ => None,
        }
    }

    /// Returns true if this argument is an object in which the key has a value other than null.
    pub(crate) fn has_key(self, field: &Field, argument: &str, key: &str) -> bool {
        let is_given = |value: Option<&Value>| value.is_some_and(|value| *value != Value::Null);
        let shallow = |name: Name| {
            Ok::<_, ()>(match self.variables.get(&name) {
                Some(Value::Object(entries)) if is_given(entries.get(key)) => {
                    Value::Object([(Name::new(key), Value::Boolean(true))].into_iter().collect())
                }
                None | Some(Value::Null | Value::Object(_)) => Value::Null,
                Some(_) => Value::Boolean(true),
            })
        };
        let value = field.get_argument(argument);
        let value = value.and_then(|value| value.node.clone().into_const_with(shallow).ok());
        matches!(value, Some(Value::Object(entries)) if is_given(entries.get(key)))
    }

    /// Returns the size in bytes of all arguments in the operation and its fragments, which async-graphql copies once
    /// when it validates the document: those of directives and of excluded selections included.
    pub(crate) fn sent_argument_bytes(self) -> u64 {
        if !self.has_large_variable {
            return 0;
        }
        let fragments = self.document.fragments.values();
        let fragments = fragments.map(|fragment| {
            self.arguments_of_directives(&fragment.node.directives)
                + self.arguments_of_set(&fragment.node.selection_set)
        });
        self.arguments_of_directives(&self.definition.node.directives)
            + self.arguments_of_set(self.selections())
            + fragments.sum::<u64>()
    }

    fn arguments_of_set(self, set: &Positioned<SelectionSet>) -> u64 {
        let of_item = |item: &Positioned<Selection>| {
            let (own, below) = match &item.node {
                Selection::Field(field) => {
                    (self.argument_bytes(&field.node), Some(&field.node.selection_set))
                }
                Selection::InlineFragment(inline) => (0, Some(&inline.node.selection_set)),
                Selection::FragmentSpread(_) => (0, None),
            };
            own + self.arguments_of_directives(item.node.directives())
                + below.map_or(0, |set| self.arguments_of_set(set))
        };
        set.node.items.iter().map(of_item).sum()
    }

    fn arguments_of_directives(self, directives: &[Positioned<Directive>]) -> u64 {
        directives
            .iter()
            .map(|directive| self.bytes_of(Arguments::Directive(&directive.node)))
            .sum()
    }

    /// Returns the size in bytes of the field's arguments, which async-graphql copies each time the field runs.
    /// Variables count with the size of their value.
    pub(crate) fn argument_bytes(self, field: &Field) -> u64 {
        self.bytes_of(Arguments::Field(field))
    }

    fn bytes_of(self, arguments: Arguments<'_>) -> u64 {
        let arguments = match arguments {
            Arguments::Field(field) => &field.arguments,
            Arguments::Directive(directive) => &directive.arguments,
        };
        let mut bytes = ByteCounter(0);
        for (_, value) in arguments {
            // Writing to a counter cannot fail.
            let _ = write!(bytes, "{}", value.node);
            if self.has_large_variable {
                let _ = value.node.clone().into_const_with(|name| {
                    bytes.0 += self.variables.get(&name).map_or(0, json_bytes);
                    Ok::<_, ()>(Value::Null)
                });
            }
        }
        bytes.0
    }

    /// Returns the names of the root fields that will run, in document order, including repeated names.
    pub(crate) fn root_fields(self) -> Vec<&'a str> {
        let mut names = Vec::new();
        self.collect_names(self.selections(), &mut names);
        names
    }

    /// Returns true if any root field introspects the schema.
    pub(crate) fn introspects(self) -> bool {
        self.root_fields().iter().any(|name| matches!(*name, "__schema" | "__type"))
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

    /// Returns a variable's scalar value. Lists, objects and strings of more than 128 bytes become null, because no
    /// check needs them.
    fn scalar(self, name: &str) -> Result<Value, ()> {
        Ok(match self.variables.get(name).ok_or(())? {
            Value::String(text) if text.len() > 128 => Value::Null,
            scalar @ (Value::String(_) | Value::Boolean(_) | Value::Number(_)) => scalar.clone(),
            _ => Value::Null,
        })
    }
}

/// Returns the approximate size of a value in bytes, as JSON.
fn json_bytes(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Boolean(_) | Value::Number(_) | Value::Enum(_) => 4,
        Value::String(text) => text.len() as u64 + 2,
        Value::Binary(bytes) => bytes.len() as u64,
        Value::List(values) => values.iter().fold(2, |sum, value| sum + json_bytes(value)),
        Value::Object(entries) => {
            entries.iter().fold(2, |sum, (name, value)| sum + name.len() as u64 + json_bytes(value))
        }
    }
}

struct ByteCounter(u64);

impl Write for ByteCounter {
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
            // An absent variable, null and a value of the wrong type count as false.
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
            // Defaults, and values that override them.
            ("@skip(if: $y)", "{}", false),
            ("@include(if: $y)", "{}", true),
            ("@skip(if: $y)", r#"{"y": false}"#, true),
            ("@skip(if: $y)", r#"{"y": null}"#, true),
            ("@skip(if: $n)", "{}", true),
        ] {
            for template in ["a @D", "...F @D", "... @D{a}", "... on Q @D{a}"] {
                let source = format!(
                    "query($x: Boolean, $y: Boolean = true, $n: Boolean = null){{{} z}} fragment F on Q{{a}}",
                    template.replace("@D", directives)
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
