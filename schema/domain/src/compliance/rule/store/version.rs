//! Reads past versions of rules, such as those that produced findings.

use std::collections::HashMap;

use super::{RuleRow, SELECT_ANY};
use crate::{
    base::{db::Tx, entity::RuleVersionId, error::Result},
    compliance::rule::Rule,
};

impl Rule {
    /// Returns rules in these versions, with the current parameters of the organization.
    pub async fn of_versions(
        tx: &Tx,
        versions: &[RuleVersionId],
    ) -> Result<HashMap<RuleVersionId, Self>> {
        let sql = format!("{SELECT_ANY} WHERE rule_version.id = ANY($1)");
        let saved: Vec<RuleRow> = tx.all(&sql, &[&versions]).await?;
        Ok(saved.into_iter().map(|saved| (saved.version, saved.rule)).collect())
    }
}
