//! Deleting an asset together with its posture and its findings.
//!
//! No foreign key ties those to the asset, so the posture lock does: a re-evaluation that read the asset while it was still
//! in operation ends first, and what it wrote is forgotten with the rest. The lock comes last, after the asset's row, its
//! dependencies and its custody: an asset that may not be deleted holds up nobody, and no re-evaluation waits for what else the
//! deletion waits for.

use chrono::{DateTime, Utc};

use super::lock::Lock;
use crate::{
    base::{db::Tx, entity::AssetId, error::Result},
    inventory::asset::Asset,
};

/// Deletes an asset whose life is over, with its posture and its findings.
///
/// # Errors
/// `NotFound`, and `Conflict` while the asset is in operation or has too many dependencies.
pub async fn delete_asset(tx: &Tx, id: AssetId, now: DateTime<Utc>) -> Result<()> {
    let deletion = Asset::prepare_deletion(tx, id, now).await?;
    Lock::Exclusive.take(tx, now).await?;
    tx.exec("DELETE FROM finding WHERE asset_id = $1", &[&id]).await?;
    tx.exec("DELETE FROM posture WHERE asset_id = $1", &[&id]).await?;
    deletion.finish(tx, now).await
}
