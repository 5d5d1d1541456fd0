//! What changed of an asset: its part of the audit trail without the values, for whoever may read assets.
//!
//! Values may hold what only auditors read; that something changed, when and by whom, is what everybody asks first when
//! it breaks.

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
    listing::{Listing, Order, Side},
    page::{Page, PageRequest, Position},
};

/// One recorded change, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The id of its entry in the audit trail.
    pub id: AuditEntryId,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: Actor,
    /// What was done, e.g. `asset.updated`.
    pub action: String,
    /// The key paths whose values differ, e.g. `attributes.os_name`.
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
    /// A page of each of these assets' changes, newest first.
    pub async fn of_assets(
        tx: &Tx,
        assets: &[AssetId],
        page: &PageRequest,
    ) -> Result<HashMap<AssetId, Page<Self>>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let entries = Side {
            columns: "id, at, actor_kind, actor_id, action, changed_paths",
            from: "audit_entry",
            only: None,
        };
        let newest_first = Order { column: None, id: "id", descending: true };
        let of_entity = ("entity_id", &owners);
        let pages = of_kind().page_of_each(tx, entries, of_entity, newest_first, page).await?;
        Ok(pages.into_iter().map(|(asset, page)| (Id::from(asset), page)).collect())
    }

    /// How many changes each of these assets has; those without any are left out.
    pub async fn count_of_assets(tx: &Tx, assets: &[AssetId]) -> Result<HashMap<AssetId, i64>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let counts = of_kind().count_of_each(tx, "audit_entry", ("entity_id", &owners)).await?;
        Ok(counts.into_iter().map(|(asset, count)| (Id::from(asset), count)).collect())
    }

    /// Its place in the list.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }
}

fn of_kind<'a>() -> Listing<'a> {
    let mut entries = Listing::default();
    entries.only("entity_type = ?", &entity::Asset::KEY);
    entries
}
