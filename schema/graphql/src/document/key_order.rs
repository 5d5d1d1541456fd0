//! The order of an answer's keys: that of the document, as the specification asks.
//!
//! async-graphql 7.2.1 puts a key where its resolver finished. Clients do not mind, but people who read answers, and
//! tests that compare them, do.

use async_graphql::{
    Name, Positioned, Value,
    indexmap::IndexMap,
    parser::types::{Selection, SelectionSet},
};

use crate::document::operation::Operation;

/// The keys below one place of an answer, in order.
#[derive(Debug, Default)]
pub(crate) struct Keys(IndexMap<Name, Keys>);

impl Keys {
    /// Those of the whole answer.
    pub(crate) fn of(operation: Operation<'_>) -> Self {
        let mut keys = Self::default();
        keys.collect(operation, operation.selections());
        keys
    }

    fn collect(&mut self, operation: Operation<'_>, set: &Positioned<SelectionSet>) {
        for item in &set.node.items {
            if operation.excludes(item.node.directives()) {
                continue;
            }
            match &item.node {
                Selection::Field(field) => {
                    let below = self.0.entry(field.node.response_key().node.clone()).or_default();
                    below.collect(operation, &field.node.selection_set);
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

    /// Puts the keys of a value in order, all the way down.
    pub(crate) fn arrange(&self, value: &mut Value) {
        match value {
            Value::Object(object) => {
                let place = |key: &Name| self.0.get_index_of(key).unwrap_or(usize::MAX);
                if !object.keys().is_sorted_by_key(place) {
                    object.sort_by(|one, _, other, _| place(one).cmp(&place(other)));
                }
                for (key, value) in object {
                    // What has nothing below it is a leaf, or JSON that is none of our business.
                    if let Some(keys) = self.0.get(key).filter(|keys| !keys.0.is_empty()) {
                        keys.arrange(value);
                    }
                }
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.arrange(item)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{Variables, parser::parse_query, value};

    use super::*;
    use crate::document::expansion::ParsedDocument;

    fn arranged(query: &str, mut answer: Value) -> String {
        let Ok(document) = ParsedDocument::of(parse_query(query).unwrap()) else {
            panic!("refused")
        };
        let mut variables = Variables::default();
        let Ok(operation) = document.operation(None, &mut variables) else { panic!("refused") };
        Keys::of(operation).arrange(&mut answer);
        serde_json::to_string(&answer).unwrap()
    }

    #[test]
    fn keys_stand_as_in_the_document() {
        let query = "{ b { y: id ...on T { x } } ...F c } fragment F on Q { a b { z } }";
        let answer = value!({ "a": 1, "c": 2, "b": [{ "z": 1, "x": 2, "y": { "n": 1, "m": 2 } }] });
        assert_eq!(
            arranged(query, answer),
            r#"{"b":[{"y":{"n":1,"m":2},"x":2,"z":1}],"a":1,"c":2}"#
        );
    }

    #[test]
    fn what_is_excluded_has_no_place() {
        let query = "{ a @skip(if: true) b a }";
        assert_eq!(arranged(query, value!({ "a": 1, "b": 2 })), r#"{"b":2,"a":1}"#);
    }
}
