//! Writing dependencies with their audit entries: any number of them in the same few statements.

use chrono::{DateTime, Utc};

use super::{Criticality, Dependency};
use crate::{
    access::audit::Entry,
    base::{db::Tx, error::Result},
};

/// Adds them.
///
/// # Errors
/// `Conflict` where a source needs the target already.
pub(crate) async fn insert_all(tx: &Tx, added: &[Dependency], now: DateTime<Utc>) -> Result<()> {
    if added.is_empty() {
        return Ok(());
    }
    tx.exec(
        "INSERT INTO dependency (org_id, id, source_id, target_id, kind, criticality, created_at)
         SELECT $1, * FROM UNNEST($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[])",
        &[
            &tx.org(),
            &added.iter().map(|one| one.id).collect::<Vec<_>>(),
            &added.iter().map(|one| one.source_id).collect::<Vec<_>>(),
            &added.iter().map(|one| one.target_id).collect::<Vec<_>>(),
            &added.iter().map(|one| &one.kind).collect::<Vec<_>>(),
            &criticalities(added.iter()),
            &added.iter().map(|one| one.created_at).collect::<Vec<_>>(),
        ],
    )
    .await?;
    let entries = added.iter().map(|one| {
        let (without, with) = one.snapshots();
        Entry::changed("asset.dependency_added", one.source_id, without, with)
    });
    Entry::record_all(tx, entries.collect(), now).await
}

/// Changes what they are for and how much: each as it was, and as it is to be.
pub(crate) async fn update_all(
    tx: &Tx,
    changed: &[(Dependency, Dependency)],
    now: DateTime<Utc>,
) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    let after = || changed.iter().map(|(_, after)| after);
    tx.exec(
        "UPDATE dependency SET kind = new.kind, criticality = new.criticality
         FROM UNNEST($1::uuid[], $2::text[], $3::text[]) AS new (id, kind, criticality) WHERE dependency.id = new.id",
        &[
            &after().map(|one| one.id).collect::<Vec<_>>(),
            &after().map(|one| &one.kind).collect::<Vec<_>>(),
            &criticalities(after()),
        ],
    )
    .await?;
    let entries = changed.iter().map(|(before, after)| {
        let (was, is) = (before.snapshots().1, after.snapshots().1);
        Entry::changed("asset.dependency_changed", after.source_id, was, is)
    });
    Entry::record_all(tx, entries.collect(), now).await
}

fn criticalities<'a>(all: impl Iterator<Item = &'a Dependency>) -> Vec<Option<&'static str>> {
    all.map(|one| one.criticality.map(Criticality::as_str)).collect()
}
