//! The order of the keys in a response: the order of the document, as the specification requires.
//!
//! async-graphql 7.2.1 orders keys by the time at which their resolvers finished. A stable order is easier to read, and
//! tests compare responses as text.

use async_graphql::{
    Name, Positioned, Value,
    indexmap::{IndexMap, map::Entry},
    parser::types::{Selection, SelectionSet},
};

use crate::document::operation::Operation;

/// Order of the keys of one object in a response, and of the objects below it.
#[derive(Debug, Default)]
pub(crate) struct KeyOrder {
    keys: IndexMap<Name, KeyOrder>,
    /// Name of the field that the key selects.
    field: Option<Name>,
    /// True if the document selects a key of this object or of one below it several times.
    repeats: bool,
}

impl KeyOrder {
    /// Returns the keys of the whole response.
    pub(crate) fn of(operation: Operation<'_>) -> Self {
        let mut keys = Self::default();
        keys.collect(operation, operation.selections());
        keys
    }

    /// Returns the response keys of the root fields, in document order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(Name::as_str)
    }

    /// Returns the name of the root field with this response key.
    pub(crate) fn field(&self, key: &str) -> Option<&str> {
        self.keys.get(key)?.field.as_deref()
    }

    /// Returns true if the document selects any response key of one object several times.
    pub(crate) fn has_repeated_keys(&self) -> bool {
        self.repeats
    }

    fn collect(&mut self, operation: Operation<'_>, set: &Positioned<SelectionSet>) {
        for item in &set.node.items {
            if operation.excludes(item.node.directives()) {
                continue;
            }
            match &item.node {
                Selection::Field(field) => {
                    let key = field.node.response_key().node.clone();
                    let entry = self.keys.entry(key);
                    self.repeats |= matches!(entry, Entry::Occupied(_));
                    let below = entry.or_default();
                    below.field.get_or_insert_with(|| field.node.name.node.clone());
                    below.collect(operation, &field.node.selection_set);
                    self.repeats |= below.repeats;
                }
                Selection::InlineFragment(inline) => {
                    self.collect(operation, &inline.node.selection_set);
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = operation.fragment(&spread.node.fragment_name.node) {
                        self.collect(operation, &fragment.selection_set);
                    }
                }
            }
        }
    }

    /// Sorts the keys of a value and of all values below it into document order.
    pub(crate) fn sort(&self, value: &mut Value) {
        match value {
            Value::Object(object) => {
                let index = |key: &Name| self.keys.get_index_of(key).unwrap_or(usize::MAX);
                if !object.keys().is_sorted_by_key(index) {
                    object.sort_by(|left, _, right, _| index(left).cmp(&index(right)));
                }
                for (key, value) in object {
                    // A key without selected subfields is a leaf; a JSON value must stay unchanged.
                    if let Some(below) = self.keys.get(key).filter(|below| !below.keys.is_empty()) {
                        below.sort(value);
                    }
                }
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.sort(item)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{Variables, parser::parse_query, value};

    use super::*;
    use crate::document::expansion::ParsedDocument;

    fn arranged(query: &str, mut response: Value) -> String {
        let Ok(document) = ParsedDocument::of(parse_query(query).unwrap()) else {
            panic!("refused")
        };
        let mut variables = Variables::default();
        let Ok(operation) = document.operation(None, &mut variables) else { panic!("refused") };
        KeyOrder::of(operation).sort(&mut response);
        serde_json::to_string(&response).unwrap()
    }

    #[test]
    fn keys_stand_as_in_the_document() {
        let query = "{ b { y: id ...on T { x } } ...F c } fragment F on Q { a b { z } }";
        let response =
            value!({ "a": 1, "c": 2, "b": [{ "z": 1, "x": 2, "y": { "n": 1, "m": 2 } }] });
        assert_eq!(
            arranged(query, response),
            r#"{"b":[{"y":{"n":1,"m":2},"x":2,"z":1}],"a":1,"c":2}"#
        );
    }

    #[test]
    fn what_is_excluded_has_no_place() {
        let query = "{ a @skip(if: true) b a }";
        assert_eq!(arranged(query, value!({ "a": 1, "b": 2 })), r#"{"b":2,"a":1}"#);
    }
}
