//! The change history of an asset: its audit entries without the values.
//!
//! The values may contain data that requires `AUDIT_READ`. A caller with `ASSET_READ` sees only which values changed,
//! when, and by whom: this is the first question after an outage.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::base::{
    actor::Actor,
    db::{FromRow, Tx},
    entity::{self, AssetId, AuditEntryId, Entity},
    error::{Error, Result},
    id::Id,
    listing::{ListedTable, Listing, Order},
    page::{Page, PageRequest, Position},
};

/// A recorded change of an asset, without the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The id of the change's entry in the audit trail.
    pub id: AuditEntryId,
    /// Time at which the change was made.
    pub at: DateTime<Utc>,
    /// The user or API key that made the change, or SentryOps itself.
    pub actor: Actor,
    /// The audit action, e.g. `asset.updated`.
    pub action: String,
    /// Key paths of the changed values, e.g. `attributes.os_name`.
    pub paths: Vec<String>,
}

impl FromRow for Change {
    fn from_row(row: &Row) -> Result<Self> {
        let actor_id: Option<Uuid> = row.try_get("actor_id")?;
        let actor = Actor::from_columns(row.try_get("actor_kind")?, actor_id)
            .ok_or(Error::Corrupt { table: "audit_entry", column: "actor_kind" })?;
        Ok(Self {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            actor,
            action: row.try_get("action")?,
            paths: row.try_get("changed_paths")?,
        })
    }
}

impl Change {
    /// Returns a page of changes for each of these assets, newest first.
    pub async fn of_assets(
        tx: &Tx,
        assets: &[AssetId],
        page: &PageRequest,
    ) -> Result<HashMap<AssetId, Page<Self>>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let entries = ListedTable {
            columns: "id, at, actor_kind, actor_id, action, changed_paths",
            from: "audit_entry",
            filter: None,
        };
        let newest_first = Order { column: None, id: "id", descending: true };
        let of_entity = ("entity_id", &owners);
        let pages =
            asset_entries().page_of_each(tx, entries, of_entity, newest_first, page).await?;
        Ok(pages.into_iter().map(|(asset, page)| (Id::from(asset), page)).collect())
    }

    /// Returns the number of changes per asset. Assets without changes are left out.
    pub async fn count_of_assets(tx: &Tx, assets: &[AssetId]) -> Result<HashMap<AssetId, i64>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let counts =
            asset_entries().count_of_each(tx, "audit_entry", ("entity_id", &owners)).await?;
        Ok(counts.into_iter().map(|(asset, count)| (Id::from(asset), count)).collect())
    }

    /// Returns the change's position in the asset's change history.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }
}

fn asset_entries<'a>() -> Listing<'a> {
    let mut entries = Listing::default();
    entries.filter("entity_type = ?", &entity::Asset::KEY);
    entries
}
