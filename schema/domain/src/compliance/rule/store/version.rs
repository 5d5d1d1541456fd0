//! Rules as they were: in the versions that findings were found by.

use std::collections::HashMap;

use super::{SELECT_ANY, Saved};
use crate::{
    base::{db::Tx, entity::RuleVersionId, error::Result},
    compliance::rule::Rule,
};

impl Rule {
    /// Rules in these versions, with what the organization sets now.
    pub async fn of_versions(
        tx: &Tx,
        versions: &[RuleVersionId],
    ) -> Result<HashMap<RuleVersionId, Self>> {
        let sql = format!("{SELECT_ANY} WHERE rule_version.id = ANY($1)");
        let saved: Vec<Saved> = tx.all(&sql, &[&versions]).await?;
        Ok(saved.into_iter().map(|saved| (saved.version, saved.rule)).collect())
    }
}
