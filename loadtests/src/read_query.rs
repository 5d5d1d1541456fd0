//! Queries that the scenario `read` sends, and the check of their responses.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::seed;

/// Page size that the queries request.
const ROWS: usize = 20;

/// A GraphQL query that is sent repeatedly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadQuery {
    /// Name of the query in the JSON report.
    pub(crate) key: &'static str,
    /// Title of the query in the printed report.
    pub(crate) title: &'static str,
    /// Text of the query.
    pub(crate) query: &'static str,
    /// True if the request carries the bearer token.
    pub(crate) is_signed_in: bool,
}

/// Key of the query that has targets.
pub(crate) const LIST: &str = "list";

/// All queries, in ascending order of cost.
pub(crate) const READ_QUERIES: [ReadQuery; 6] = [
    ReadQuery {
        key: "trivial",
        title: "{ __typename } without a bearer",
        query: "{ __typename }",
        is_signed_in: false,
    },
    ReadQuery {
        key: "bearer",
        title: "{ __typename } with a bearer",
        query: "{ __typename }",
        is_signed_in: true,
    },
    ReadQuery {
        key: "viewer",
        title: "{ viewer { organization { name } } }",
        query: "{ viewer { organization { name } } }",
        is_signed_in: true,
    },
    ReadQuery {
        key: LIST,
        title: "20 assets, each with its owner",
        query: "{ assets(first: 20) { nodes { id code name type lifecycleState environment owner { id name } } } }",
        is_signed_in: true,
    },
    ReadQuery {
        key: "list-total",
        title: "20 assets, each with its owner, and totalCount",
        query: "{ assets(first: 20) { totalCount nodes { id code name type lifecycleState environment owner { id name } } } }",
        is_signed_in: true,
    },
    ReadQuery {
        key: "list-text",
        title: "20 assets, each with its owner, filtered by a text in name or code (20 of 1,000 match)",
        query: "{ assets(first: 20, filter: { text: \"edge\" }) { nodes { id code name type lifecycleState environment owner { id name } } } }",
        is_signed_in: true,
    },
];

impl ReadQuery {
    /// Checks that the `data` of a response is complete.
    ///
    /// # Errors
    /// Fails with the data if a row or a value is missing.
    pub(crate) fn check(&self, data: &Value) -> Result<()> {
        let Some(page) = data.get("assets") else {
            let expected = match data.get("viewer") {
                Some(_) => json!({ "viewer": { "organization": { "name": seed::ORGANIZATION } } }),
                None => json!({ "__typename": "Query" }),
            };
            ensure!(*data == expected, "{}: unexpected response data: {data}", self.key);
            return Ok(());
        };
        let nodes = page["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_whole = |node: &&Value| {
            node["owner"]["name"].is_string()
                && node["code"].is_string()
                && node["type"].is_string()
        };
        let whole = nodes.iter().filter(is_whole).count();
        ensure!(
            whole == ROWS,
            "{}: found {whole} complete rows, expected {ROWS}: {data}",
            self.key
        );
        if let Some(total) = page.get("totalCount") {
            ensure!(
                *total == json!(seed::ASSETS),
                "{}: the response has a wrong totalCount: {total}",
                self.key
            );
        }
        Ok(())
    }
}

/// Removes all ids from a response, for comparison: sentryops returns typed ids, such as `ast_…`, and a peer does not.
pub(crate) fn without_ids(mut answer: Value) -> Value {
    match &mut answer {
        Value::Object(fields) => {
            fields.remove("id");
            for value in fields.values_mut() {
                *value = without_ids(value.take());
            }
        }
        Value::Array(values) => {
            for value in values {
                *value = without_ids(value.take());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_less_is_refused() {
        let list = READ_QUERIES[3];
        let node = json!({ "code": "A", "type": "HOST", "owner": { "name": "O" } });
        assert!(list.check(&json!({ "assets": { "nodes": vec![node.clone(); 20] } })).is_ok());
        assert!(list.check(&json!({ "assets": { "nodes": vec![node.clone(); 19] } })).is_err());
        let mut ownerless = vec![node; 20];
        ownerless[7]["owner"] = Value::Null;
        assert!(list.check(&json!({ "assets": { "nodes": ownerless } })).is_err());
        assert!(READ_QUERIES[0].check(&json!({ "__typename": "Query" })).is_ok());
        assert!(READ_QUERIES[2].check(&json!({ "viewer": null })).is_err());
    }

    #[test]
    fn ids_are_left_out_at_all_depths() {
        let answer = json!({ "nodes": [{ "id": 1, "owner": { "id": 2, "name": "O" } }] });
        assert_eq!(without_ids(answer), json!({ "nodes": [{ "owner": { "name": "O" } }] }));
    }
}
