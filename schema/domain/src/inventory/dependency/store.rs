//! Inserts and updates of dependencies, with audit entries. The number of SQL statements does not depend on the number
//! of dependencies.

use super::{Criticality, Dependency};
use crate::{
    access::audit::Entry,
    base::{db::Tx, error::Result},
};

/// Inserts dependencies, with audit entries of their sources.
///
/// # Errors
/// `Conflict` if a dependency between the same source and target exists already.
pub(crate) async fn insert_all(tx: &Tx, added: &[Dependency]) -> Result<()> {
    if added.is_empty() {
        return Ok(());
    }
    tx.exec(
        "INSERT INTO dependency (org_id, id, source_id, target_id, kind, criticality, created_at)
         SELECT $1, * FROM UNNEST($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[])",
        &[
            &tx.org(),
            &added.iter().map(|dependency| dependency.id).collect::<Vec<_>>(),
            &added.iter().map(|dependency| dependency.source_id).collect::<Vec<_>>(),
            &added.iter().map(|dependency| dependency.target_id).collect::<Vec<_>>(),
            &added.iter().map(|dependency| &dependency.kind).collect::<Vec<_>>(),
            &criticalities(added.iter()),
            &added.iter().map(|dependency| dependency.created_at).collect::<Vec<_>>(),
        ],
    )
    .await?;
    let entries = added.iter().map(|dependency| {
        let (without, with) = dependency.snapshots();
        Entry::changed("asset.dependency_added", dependency.source_id, without, with)
    });
    Entry::record_all(tx, entries.collect()).await
}

/// Updates the kind and criticality of dependencies, with audit entries of their sources. Each pair contains the
/// dependency before and after the change.
pub(crate) async fn update_all(tx: &Tx, changed: &[(Dependency, Dependency)]) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let after = || changed.iter().map(|(_, after)| after);
    tx.exec(
        "UPDATE dependency SET kind = new.kind, criticality = new.criticality
         FROM UNNEST($1::uuid[], $2::text[], $3::text[]) AS new (id, kind, criticality) WHERE dependency.id = new.id",
        &[
            &after().map(|dependency| dependency.id).collect::<Vec<_>>(),
            &after().map(|dependency| &dependency.kind).collect::<Vec<_>>(),
            &criticalities(after()),
        ],
    )
    .await?;
    let entries = changed.iter().map(|(before, after)| {
        let (was, is) = (before.snapshots().1, after.snapshots().1);
        Entry::changed("asset.dependency_changed", after.source_id, was, is)
    });
    Entry::record_all(tx, entries.collect()).await
}

fn criticalities<'a>(
    dependencies: impl Iterator<Item = &'a Dependency>,
) -> Vec<Option<&'static str>> {
    dependencies.map(|dependency| dependency.criticality.map(Criticality::as_str)).collect()
}
