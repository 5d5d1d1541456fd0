//! What is out of date because something changed: marked in the transaction of the change, by whoever changes something, and taken
//! by the wing that judges. So nobody who changes an asset has to know who depends on it.

use uuid::Uuid;

use crate::base::{
    db::{Auth, Tx},
    entity::{AssetId, OrganizationId, UserId},
    error::Result,
};

/// The assets that a change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// One asset's.
    Asset(AssetId),
    /// That of all assets of an owner.
    Owner(UserId),
    /// Everybody's.
    All,
}

/// Marks these as to be judged anew. `reads` names what changed as rules name it (`attr.disk_encrypted`,
/// `asset.environment`, `owner.mfa_enabled`), or a rule whose waiver did (`rule.disk-encryption`); `None`: anything, as it is of
/// everybody, who are judged by all rules.
pub async fn mark(tx: &Tx, changes: &[(Subject, Option<Vec<String>>)]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = changes.iter().map(|_| Uuid::now_v7()).collect();
    let assets: Vec<Option<AssetId>> = changes
        .iter()
        .map(|(subject, _)| match subject {
            Subject::Asset(asset) => Some(*asset),
            Subject::Owner(_) | Subject::All => None,
        })
        .collect();
    let owners: Vec<Option<UserId>> = changes
        .iter()
        .map(|(subject, _)| match subject {
            Subject::Owner(owner) => Some(*owner),
            Subject::Asset(_) | Subject::All => None,
        })
        .collect();
    // Arrays of arrays are rectangular in Postgres, so each list comes as one text.
    let reads: Vec<Option<String>> =
        changes.iter().map(|(_, reads)| reads.as_ref().map(|reads| reads.join(" "))).collect();
    tx.exec(
        "INSERT INTO posture_due (org_id, id, asset_id, owner_id, reads)
         SELECT $1, id, asset_id, owner_id, string_to_array(reads, ' ')
         FROM UNNEST($2::uuid[], $3::uuid[], $4::uuid[], $5::text[]) AS due (id, asset_id, owner_id, reads)",
        &[&tx.org(), &ids, &assets, &owners, &reads],
    )
    .await?;
    tx.hook();
    Ok(())
}

/// As [`mark`], of all assets of an owner, from a transaction over people. A worker looks for such every few seconds.
pub(crate) async fn mark_owner(
    tx: &Tx<Auth>,
    org: OrganizationId,
    owner: UserId,
    read: &str,
) -> Result<()> {
    tx.exec(
        "INSERT INTO posture_due (org_id, id, owner_id, reads) VALUES ($1, $2, $3, ARRAY[$4])",
        &[&org, &Uuid::now_v7(), &owner, &read],
    )
    .await?;
    Ok(())
}
