//! The audit trail: each change and its actor, written in the transaction of the change and never altered afterwards.
//!
//! An entry stores the values before and after, and the **key paths** that differ, including paths into JSON and
//! relations. Users filter by these paths. A language model receives only the paths, never the values.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::base::{
    actor::Actor,
    db::{Fleet, FromRow, Kind, Tx, column},
    entity::{AuditEntryId, Entity, OrganizationId},
    error::{Error, Result},
    event::Event,
    id::Id,
    listing::{Listing, Order},
    page::{Page, PageRequest, Position},
};

/// An entry of the audit trail: one recorded change.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// The entry's id. Ids sort in the order of writing.
    pub id: AuditEntryId,
    /// Time at which the change was made.
    pub at: DateTime<Utc>,
    /// The actor who made the change.
    pub actor: Actor,
    /// Action that was recorded, e.g. `asset.updated`.
    pub action: String,
    /// Type of the changed entity, e.g. `asset`.
    pub entity_type: String,
    /// Id of the changed entity.
    pub entity_id: Uuid,
    /// Key paths whose values differ, e.g. `attributes.os_name`.
    pub changed_paths: Vec<String>,
    /// Values before the change; `None` if the entity was created, or if the action changes no values, e.g. a sign-in.
    pub before: Option<Value>,
    /// Values after the change; `None` if the entity was deleted. For an action that changes no values, its details, if it
    /// has any, e.g. the refused field.
    pub after: Option<Value>,
    /// Client address of the request; `None` if no request caused the change.
    pub source_ip: Option<String>,
    /// Id of the request; `None` if no request caused the change.
    pub request_id: Option<String>,
}

impl FromRow for AuditEntry {
    fn from_row(row: &Row) -> Result<Self> {
        let actor_id: Option<Uuid> = row.try_get("actor_id")?;
        let actor = Actor::from_columns(row.try_get("actor_kind")?, actor_id)
            .ok_or(Error::Corrupt { table: "audit_entry", column: "actor_kind" })?;
        Ok(Self {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            actor,
            action: row.try_get("action")?,
            entity_type: row.try_get("entity_type")?,
            entity_id: row.try_get("entity_id")?,
            changed_paths: row.try_get("changed_paths")?,
            before: row.try_get("before")?,
            after: row.try_get("after")?,
            source_ip: row.try_get("source_ip")?,
            request_id: row.try_get("request_id")?,
        })
    }
}

/// Filter of a list of entries. All conditions must hold; `None` matches every entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Type of the changed entity, e.g. `asset`.
    pub entity_type: Option<String>,
    /// Id of the changed entity.
    pub entity_id: Option<Uuid>,
    /// Id of the user or API key that made the change.
    pub actor_id: Option<Uuid>,
    /// Action of the entries, e.g. `asset.updated`.
    pub action: Option<String>,
}

const SELECT: &str = "SELECT id, at, actor_kind, actor_id, action, entity_type, entity_id, changed_paths, before, after,
    host(source_ip) AS source_ip, request_id FROM audit_entry";

impl AuditQuery {
    fn listing(&self) -> Listing<'_> {
        let mut listing = Listing::default();
        let texts = [("entity_type = ?", &self.entity_type), ("action = ?", &self.action)];
        for (condition, text) in texts {
            match text {
                None => {}
                // No stored text contains a NUL, and Postgres rejects it in a parameter.
                Some(text) if text.contains('\0') => listing.match_nothing(),
                Some(text) => listing.filter(condition, text),
            }
        }
        if let Some(entity_id) = &self.entity_id {
            listing.filter("entity_id = ?", entity_id);
        }
        if let Some(actor_id) = &self.actor_id {
            listing.filter("actor_id = ?", actor_id);
        }
        listing
    }
}

impl AuditEntry {
    /// Returns the entry with the id, or `None`.
    pub async fn find(tx: &Tx, id: AuditEntryId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// Returns a page of the organization's entries, newest first.
    pub async fn list(tx: &Tx, query: &AuditQuery, page: &PageRequest) -> Result<Page<Self>> {
        let newest_first = Order { column: None, id: "id", descending: true };
        query.listing().page(tx, SELECT, newest_first, page).await
    }

    /// Returns the number of entries that match the query.
    pub async fn count(tx: &Tx, query: &AuditQuery) -> Result<i64> {
        query.listing().count(tx, "audit_entry").await
    }

    /// Creates the partitions of this month and the next two, drops those whose entries are all older than
    /// `retention_days`, and deletes the refusals of strangers that are older.
    pub async fn rotate(tx: &Tx<Fleet>, retention_days: u16) -> Result<()> {
        let sql = "SELECT count(*) AS dropped FROM audit_rotate($1)";
        tx.one::<Row>(sql, &[&i32::from(retention_days)]).await?;
        let sql = "SELECT audit_delete_strangers($1) AS deleted";
        tx.one::<Row>(sql, &[&i32::from(retention_days)]).await.map(drop)
    }

    /// Returns the entry's position in the list.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }
}

/// A change to record in the audit trail.
#[derive(Debug)]
pub struct Entry {
    action: &'static str,
    entity_type: &'static str,
    entity_id: Uuid,
    before: Option<Value>,
    after: Option<Value>,
    /// False if `after` has details of an action instead of changed values.
    is_change: bool,
    /// Actor of the change; `None` for the actor of the transaction.
    actor: Option<Actor>,
}

impl Entry {
    /// Returns an entry for the creation of an entity with the values `after`.
    pub fn created<T: Entity>(action: &'static str, id: Id<T>, after: &Value) -> Self {
        Self::new(action, id, None, Some(after.clone()))
    }

    /// Returns an entry for the change of an entity's values.
    pub fn changed<T: Entity>(
        action: &'static str,
        id: Id<T>,
        before: Value,
        after: Value,
    ) -> Self {
        Self::new(action, id, Some(before), Some(after))
    }

    /// Returns an entry for the deletion of an entity that had the values `before`.
    pub fn deleted<T: Entity>(action: &'static str, id: Id<T>, before: Value) -> Self {
        Self::new(action, id, Some(before), None)
    }

    /// Returns an entry for an action that changes no values, e.g. a sign-in.
    pub fn without_values<T: Entity>(action: &'static str, id: Id<T>) -> Self {
        Self::new(action, id, None, None)
    }

    /// Returns an entry for an action that changes no values, with details about it.
    pub fn noted<T: Entity>(action: &'static str, id: Id<T>, details: Value) -> Self {
        Self { is_change: false, ..Self::new(action, id, None, Some(details)) }
    }

    fn new<T: Entity>(
        action: &'static str,
        id: Id<T>,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Self {
        Self {
            action,
            entity_type: T::KEY,
            entity_id: id.uuid(),
            before,
            after,
            is_change: true,
            actor: None,
        }
    }

    /// Replaces the transaction's actor, for transactions that identify the user only after they have begun.
    #[must_use]
    pub fn by(self, actor: Actor) -> Self {
        Self { actor: Some(actor), ..self }
    }

    /// Writes the entry to the audit trail of the transaction's organization.
    pub async fn record(self, tx: &Tx) -> Result<()> {
        self.record_in(tx, tx.org()).await
    }

    /// Writes the entry to the audit trail of `org`, for transactions that carry no organization.
    pub async fn record_in<K: Kind>(self, tx: &Tx<K>, org: OrganizationId) -> Result<()> {
        Self::write_all(tx, org, vec![self]).await
    }

    /// Writes any number of entries to the audit trail of the transaction's organization, in one statement.
    pub async fn record_all(tx: &Tx, entries: Vec<Self>) -> Result<()> {
        Self::write_all(tx, tx.org(), entries).await
    }

    /// Writes the entries. Postgres sets their ids and time, so that nobody can write an entry of the past.
    async fn write_all<K: Kind>(tx: &Tx<K>, org: OrganizationId, entries: Vec<Self>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let rows: Vec<&Self> = entries.iter().collect();
        let actors: Vec<_> = entries
            .iter()
            .map(|entry| entry.actor.unwrap_or(tx.origin().actor).columns())
            .collect();
        // Nested arrays must be rectangular in Postgres, so the paths of an entry are joined into one text. No path
        // contains the separator, because `segment` escapes it.
        let paths = |entry: &Self| {
            if !entry.is_change {
                return String::new();
            }
            changed_paths(entry.before.as_ref(), entry.after.as_ref()).join("\u{1f}")
        };
        tx.exec(
            "SELECT audit_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            &[
                &org,
                &tx.origin().source_ip,
                &tx.origin().request_id,
                &actors.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
                &actors.iter().map(|(_, id)| *id).collect::<Vec<_>>(),
                &column(&rows, |entry| entry.action),
                &column(&rows, |entry| entry.entity_type),
                &column(&rows, |entry| entry.entity_id),
                &column(&rows, paths),
                &column(&rows, |entry| &entry.before),
                &column(&rows, |entry| &entry.after),
            ],
        )
        .await?;
        if entries.iter().any(|entry| changes_permissions(entry.action)) {
            tx.emit(Event::permissions_changed(org));
        }
        Ok(())
    }
}

/// Returns true if the action can change the permissions of a user or API key. Such an entry also emits an event, on
/// which every process checks the callers of its open connections again.
fn changes_permissions(action: &str) -> bool {
    let entity = action.split('.').next().unwrap_or_default();
    matches!(entity, "session" | "user" | "member" | "role" | "api_key")
        || matches!(action, "auth.logout" | "auth.refresh_reuse" | "auth.password_changed")
}

/// Returns the key paths at which two values differ, sorted. If one value is missing (a created or deleted entity), all
/// paths of the other value are returned.
pub fn changed_paths(before: Option<&Value>, after: Option<&Value>) -> Vec<String> {
    let mut paths = BTreeSet::new();
    compare(String::new(), before, after, &mut paths);
    paths.into_iter().collect()
}

fn compare(
    path: String,
    before: Option<&Value>,
    after: Option<&Value>,
    paths: &mut BTreeSet<String>,
) {
    if before == after {
        return;
    }
    let (left, right) = (before.and_then(Value::as_object), after.and_then(Value::as_object));
    // An empty object has no keys, so its own path is recorded.
    let keys: BTreeSet<&String> =
        left.into_iter().chain(right).flat_map(serde_json::Map::keys).collect();
    let is_object = |side: Option<&Value>| side.is_none_or(Value::is_object);
    if keys.is_empty() || !is_object(before) || !is_object(after) {
        if !path.is_empty() {
            paths.insert(path);
        }
        return;
    }
    for key in keys {
        let below = if path.is_empty() { segment(key) } else { format!("{path}.{}", segment(key)) };
        compare(
            below,
            left.and_then(|map| map.get(key)),
            right.and_then(|map| map.get(key)),
            paths,
        );
    }
}

/// Returns a key as one segment of a path. A key with characters other than letters, digits, `_` and `-` is quoted and
/// escaped.
fn segment(key: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(plain) { key.to_owned() } else { format!("{key:?}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_reach_into_json() {
        let cases = [
            (json!({"a": 1}), json!({"a": 1}), vec![]),
            (json!({"a": 1, "b": 2}), json!({"a": 1, "b": 3}), vec!["b"]),
            (json!({"at": {"os": "x", "v": 1}}), json!({"at": {"os": "y", "v": 1}}), vec!["at.os"]),
            (json!({"at": {}}), json!({"at": {"os": "y"}}), vec!["at.os"]),
            (json!({"at": {"os": {"n": 1}}}), json!({"at": {}}), vec!["at.os.n"]),
            (json!({"at": 1}), json!({"at": {"os": 1}}), vec!["at"]),
            (json!({"at": {"a.b": 1}}), json!({"at": {"a.b": 2}}), vec!["at.\"a.b\""]),
            (json!({"list": [1, 2]}), json!({"list": [1, 3]}), vec!["list"]),
            (json!({"a": null}), json!({}), vec!["a"]),
        ];
        for (before, after, expected) in cases {
            assert_eq!(changed_paths(Some(&before), Some(&after)), expected, "{before} → {after}");
        }
    }

    #[test]
    fn what_is_created_or_deleted_changed_everywhere() {
        let value = json!({"name": "x", "attributes": {"os": "y"}, "customFields": {}});
        let everywhere = ["attributes.os", "customFields", "name"];
        assert_eq!(changed_paths(None, Some(&value)), everywhere);
        assert_eq!(changed_paths(Some(&value), None), everywhere);
        assert!(changed_paths(None, None).is_empty());
    }
}
