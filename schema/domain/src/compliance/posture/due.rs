//! What is to be judged anew, and why: written in the transaction of the change, taken by whoever judges.

use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    base::{
        db::Tx,
        entity::{AssetId, OrganizationId, UserId},
        error::Result,
    },
    fleet::pending::{self, Kind},
};

/// Whose posture a change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// One asset's.
    Asset(AssetId),
    /// That of all assets of an owner.
    Owner(UserId),
    /// Everybody's.
    All,
}

/// Notes that these are to be judged anew. `reads` names what changed as rules name it (`attr.disk_encrypted`,
/// `asset.environment`, `owner.mfa_enabled`), or a rule whose waiver did (`rule.disk-encryption`); `None`: anything, as it is of
/// everybody, who are judged by all rules.
pub async fn note(tx: &Tx, changes: &[(Whose, Option<Vec<String>>)]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = changes.iter().map(|_| Uuid::now_v7()).collect();
    let assets: Vec<Option<AssetId>> = changes
        .iter()
        .map(|(whose, _)| match whose {
            Whose::Asset(asset) => Some(*asset),
            Whose::Owner(_) | Whose::All => None,
        })
        .collect();
    let owners: Vec<Option<UserId>> = changes
        .iter()
        .map(|(whose, _)| match whose {
            Whose::Owner(owner) => Some(*owner),
            Whose::Asset(_) | Whose::All => None,
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
    tx.follow();
    Ok(())
}

/// As [`note`], of all assets of an owner, from a transaction over people. A worker looks for such every few seconds.
pub(crate) async fn note_owner(
    tx: &Tx,
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

/// The organizations in which something waits and nobody was asked to judge it, or whoever was asked failed ten minutes ago: in
/// a transaction of `Db::fleet`.
pub async fn waiting(tx: &Tx) -> Result<Vec<OrganizationId>> {
    let sql = "SELECT id FROM organization WHERE EXISTS (SELECT FROM posture_due WHERE posture_due.org_id = organization.id)";
    let rows: Vec<Row> = tx.all(sql, &[]).await?;
    let waiting: Vec<_> = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    pending::without_any(tx, Kind::REEVALUATE, &waiting).await
}

/// Whether everybody is being judged anew, or is to be.
pub(crate) async fn is_refreshing(tx: &Tx) -> Result<bool> {
    if pending::is_any(tx, Kind::REFRESH).await? {
        return Ok(true);
    }
    let sql = "SELECT EXISTS (SELECT FROM posture_due WHERE asset_id IS NULL AND owner_id IS NULL) AS any";
    Ok(tx.one::<Row>(sql, &[]).await?.try_get("any")?)
}

/// Takes back what asks for judging everybody anew and has not begun: it is asked for again, all of it.
pub async fn take_back_refresh(tx: &Tx) -> Result<()> {
    pending::cancel_all(tx, Kind::REFRESH).await
}
