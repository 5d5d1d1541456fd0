//! Marks of stale postures. A posture consists of all verdicts and the score of one asset. A transaction that changes
//! an asset marks the posture, and the compliance module evaluates it again later. Code that changes an asset therefore
//! does not depend on the rules.

use uuid::Uuid;

use crate::base::{
    db::{Auth, Tx},
    entity::{AssetId, OrganizationId, UserId},
    error::Result,
};

/// The assets that a change affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A single asset, by its id.
    Asset(AssetId),
    /// The assets of one owner.
    Owner(UserId),
    /// Every asset of the organization.
    All,
}

/// Marks the postures of assets as stale, so that they are evaluated again. Each subject has a list of the changed
/// facts as rules name them (`attr.disk_encrypted`, `asset.environment`, `owner.mfa_enabled`), or of the rule that has
/// a changed waiver (`rule.disk-encryption`). `None` means that any fact may have changed, as with a new asset. For
/// [`Subject::All`], all rules are evaluated whatever the list.
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
    // Arrays of arrays must be rectangular in Postgres, so each list is passed as one text.
    let reads: Vec<Option<String>> =
        changes.iter().map(|(_, reads)| reads.as_ref().map(|reads| reads.join(" "))).collect();
    tx.exec(
        "INSERT INTO posture_due (org_id, id, asset_id, owner_id, reads)
         SELECT $1, id, asset_id, owner_id, string_to_array(reads, ' ')
         FROM UNNEST($2::uuid[], $3::uuid[], $4::uuid[], $5::text[]) AS due (id, asset_id, owner_id, reads)",
        &[&tx.org(), &ids, &assets, &owners, &reads],
    )
    .await?;
    tx.request_hook();
    Ok(())
}

/// As [`mark`], for all assets of an owner, in an `Auth` transaction. Such a transaction runs no `before_commit` hook;
/// a worker polls for these marks every few seconds.
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
