//! Deletion of an asset together with its posture and its findings.
//!
//! No foreign key ties postures and findings to the asset. The posture lock does this instead: a re-evaluation that
//! read the asset while it was still in operation commits first. The deletion then also removes the rows that the
//! re-evaluation wrote. The posture lock is acquired last, after the locks on the asset's row, its dependencies and its
//! custody (check-out record). A deletion that is rejected therefore blocks no re-evaluation, and no re-evaluation
//! waits for the other locks of a deletion.

use chrono::{DateTime, Utc};

use super::lock::PostureLock;
use crate::{
    base::{db::Tx, entity::AssetId, error::Result},
    inventory::asset::Asset,
};

/// Deletes an asset that is no longer in operation, with its posture and its findings.
///
/// # Errors
/// `NotFound` if the asset does not exist. `Conflict` while the asset is in operation or has too many dependencies.
pub async fn delete_asset(tx: &Tx, id: AssetId, now: DateTime<Utc>) -> Result<()> {
    let deletion = Asset::prepare_deletion(tx, id, now).await?;
    PostureLock::Exclusive.acquire(tx, now).await?;
    tx.exec("DELETE FROM finding WHERE asset_id = $1", &[&id]).await?;
    tx.exec("DELETE FROM posture WHERE asset_id = $1", &[&id]).await?;
    deletion.finish(tx).await
}
