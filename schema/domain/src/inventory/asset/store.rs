//! Inserts and updates of assets, with their tags and audit entries. The number of SQL statements does not depend on
//! the number of assets.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{Asset, AssetType, Environment, LifecycleState, Sources};
use crate::{
    access::audit::Entry,
    base::{
        db::{Tx, column},
        entity::{self, AssetId, Entity, TagId},
        error::{Error, Result},
        id::Id,
        stale::{self, Subject},
    },
};

/// Number of attempts to generate a free short code: seven with 5 random characters (33 million codes), the last with
/// 10 (10^15 codes).
const MAX_ATTEMPTS: usize = 8;

/// An asset with its tags, as it is before or will be after a change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    pub(crate) asset: Asset,
    pub(crate) tags: BTreeSet<TagId>,
}

/// Names of tags by id, for audit entries.
pub(crate) type TagNames = HashMap<TagId, String>;

/// A change to one asset, with its audit action.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) action: &'static str,
    pub(crate) before: Draft,
    pub(crate) after: Draft,
}

impl Change {
    /// Returns the changed fact keys, in the spelling of rules, e.g. `asset.name` or `attr.os_name`.
    fn changed_keys(&self) -> Vec<String> {
        let (before, after) = (&self.before.asset, &self.after.asset);
        let fields = [
            ("asset.name", before.name != after.name),
            ("asset.external_id", before.external_id != after.external_id),
            ("asset.lifecycle_state", before.lifecycle_state != after.lifecycle_state),
            ("asset.environment", before.environment != after.environment),
            ("asset.location", before.location != after.location),
            ("asset.description", before.description != after.description),
            ("owner.id", before.owner_id != after.owner_id),
            // With a new owner, every fact about the owner may change.
            ("owner.mfa_enabled", before.owner_id != after.owner_id),
            ("owner.active", before.owner_id != after.owner_id),
            ("asset.tags", self.before.tags != self.after.tags),
        ];
        let of = |asset: &Asset| asset.attributes.as_object().cloned().unwrap_or_default();
        let (before, after) = (of(before), of(after));
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let attributes = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
        let fields = fields.into_iter().filter(|(_, differs)| *differs);
        fields
            .map(|(field, _)| field.to_owned())
            .chain(attributes.map(|key| format!("attr.{key}")))
            .collect()
    }
}

impl Draft {
    /// Returns a new asset with an id, its type and default values: active, in production, without a name and a code.
    pub(crate) fn new(asset_type: AssetType, now: DateTime<Utc>) -> Self {
        let now = now.trunc_subsecs(6); // The precision of Postgres.
        let asset = Asset {
            id: Id::new(),
            code: String::new(),
            external_id: None,
            name: String::new(),
            asset_type,
            lifecycle_state: LifecycleState::Active,
            environment: Environment::Prod,
            location: None,
            description: None,
            owner_id: None,
            attributes: json!({}),
            sources: Sources::default(),
            custom_fields: json!({}),
            created_at: now,
            updated_at: now,
        };
        Self { asset, tags: BTreeSet::new() }
    }

    pub(super) fn snapshot(&self, names: &TagNames) -> Value {
        let mut snapshot = serde_json::to_value(&self.asset).expect("an asset is plain data");
        let mut tags: Vec<&str> =
            self.tags.iter().filter_map(|tag| names.get(tag)).map(String::as_str).collect();
        tags.sort_unstable();
        snapshot["tags"] = json!(tags);
        snapshot
    }

    /// Locks and returns those of the assets that exist, with their tags. Locks rows in the order of ids, so that two
    /// callers do not deadlock.
    pub(crate) async fn lock_all(tx: &Tx, ids: &[AssetId]) -> Result<Vec<Self>> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        // `NO KEY` lets other transactions insert references to the assets meanwhile. Each row has its own lookup: see
        // `import/dedupe`.
        let sql = format!(
            "SELECT found.* FROM UNNEST($1::uuid[]) AS given (id)
             CROSS JOIN LATERAL ({} WHERE asset.id = given.id LIMIT 1 FOR NO KEY UPDATE) AS found",
            super::SELECT
        );
        let assets: Vec<Asset> = tx.all(&sql, &[&ids]).await?;
        // A separate statement, because a statement that waits for locks sees the tags as they were before the wait.
        let sql = "SELECT found.* FROM UNNEST($1::uuid[]) AS given (id)
             CROSS JOIN LATERAL (SELECT asset_id, tag_id FROM asset_tag WHERE asset_id = given.id OFFSET 0) AS found";
        let mut tags: HashMap<AssetId, BTreeSet<TagId>> = HashMap::new();
        for row in tx.all::<Row>(sql, &[&ids]).await? {
            tags.entry(row.try_get("asset_id")?).or_default().insert(row.try_get("tag_id")?);
        }
        let draft = |asset: Asset| {
            let tags = tags.remove(&asset.id).unwrap_or_default();
            Self { asset, tags }
        };
        Ok(assets.into_iter().map(draft).collect())
    }

    /// Returns the names of all tags of the drafts.
    ///
    /// # Errors
    /// `NotFound` if a tag does not exist.
    pub(crate) async fn tag_names<'a>(
        tx: &Tx,
        drafts: impl Iterator<Item = &'a Self>,
    ) -> Result<TagNames> {
        let ids: BTreeSet<TagId> = drafts.flat_map(|draft| &draft.tags).copied().collect();
        if ids.is_empty() {
            return Ok(TagNames::new());
        }
        let ids: Vec<_> = ids.into_iter().collect();
        let rows: Vec<Row> = tx.all("SELECT id, name FROM tag WHERE id = ANY($1)", &[&ids]).await?;
        let mut names = TagNames::with_capacity(rows.len());
        for row in rows {
            names.insert(row.try_get("id")?, row.try_get("name")?);
        }
        match ids.iter().find(|id| !names.contains_key(id)) {
            Some(unknown) => Err(Error::not_found(entity::Tag::NAME, *unknown)),
            None => Ok(names),
        }
    }
}

/// Inserts assets, with their tags and audit entries, and marks the assets as stale. Generates a short code for each
/// asset that has none.
///
/// # Errors
/// `Conflict` if another asset has the short code or the external id, or if no free short code was found.
pub(crate) async fn insert_all(tx: &Tx, drafts: &mut [Draft], names: &TagNames) -> Result<()> {
    if drafts.is_empty() {
        return Ok(());
    }
    let mut pending: Vec<usize> = (0..drafts.len()).collect();
    let has_code: Vec<bool> = drafts.iter().map(|draft| !draft.asset.code.is_empty()).collect();
    for attempt in 0..MAX_ATTEMPTS {
        for &index in pending.iter().filter(|index| !has_code[**index]) {
            let asset = &mut drafts[index].asset;
            asset.code =
                random_code(asset.asset_type, if attempt + 1 < MAX_ATTEMPTS { 5 } else { 10 })?;
        }
        let assets: Vec<&Asset> = pending.iter().map(|index| &drafts[*index].asset).collect();
        let added: BTreeSet<AssetId> = insert(tx, &assets).await?;
        pending.retain(|index| !added.contains(&drafts[*index].asset.id));
        if pending.iter().any(|index| has_code[*index]) {
            return Err(Error::Conflict("another asset has this code".into()));
        }
        if pending.is_empty() {
            break;
        }
    }
    if !pending.is_empty() {
        return Err(Error::Conflict("no free short code was found: try again".into()));
    }
    let tags: Vec<_> = drafts
        .iter()
        .flat_map(|draft| draft.tags.iter().map(|tag| (draft.asset.id, *tag)))
        .collect();
    add_tags(tx, &tags).await?;
    let entries = drafts
        .iter()
        .map(|draft| Entry::created("asset.created", draft.asset.id, &draft.snapshot(names)));
    Entry::record_all(tx, entries.collect()).await?;
    let new: Vec<_> = drafts.iter().map(|draft| (Subject::Asset(draft.asset.id), None)).collect();
    stale::mark(tx, &new).await
}

async fn insert(tx: &Tx, assets: &[&Asset]) -> Result<BTreeSet<AssetId>> {
    let added: Vec<Row> = tx
        .all(
            "INSERT INTO asset (org_id, id, code, external_id, name, type, lifecycle_state, environment, location,
                                description, owner_id, attributes, sources, custom_fields, created_at, updated_at)
             SELECT $1, * FROM UNNEST($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                                      $9::text[], $10::text[], $11::uuid[], $12::jsonb[], $13::jsonb[], $14::jsonb[],
                                      $15::timestamptz[], $16::timestamptz[])
             ON CONFLICT ON CONSTRAINT asset_code_key DO NOTHING RETURNING id",
            &[
                &tx.org(),
                &column(assets, |asset| asset.id),
                &column(assets, |asset| &asset.code),
                &column(assets, |asset| &asset.external_id),
                &column(assets, |asset| &asset.name),
                &column(assets, |asset| asset.asset_type.as_str()),
                &column(assets, |asset| asset.lifecycle_state.as_str()),
                &column(assets, |asset| asset.environment.as_str()),
                &column(assets, |asset| &asset.location),
                &column(assets, |asset| &asset.description),
                &column(assets, |asset| asset.owner_id),
                &column(assets, |asset| &asset.attributes),
                &column(assets, |asset| &asset.sources),
                &column(assets, |asset| &asset.custom_fields),
                &column(assets, |asset| asset.created_at),
                &column(assets, |asset| asset.updated_at),
            ],
        )
        .await?;
    added.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// Writes the changed values and tags, with audit entries, and marks the assets as stale.
pub(crate) async fn update_all(
    tx: &Tx,
    changes: &mut [Change],
    names: &TagNames,
    now: DateTime<Utc>,
) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    for change in &mut *changes {
        change.after.asset.updated_at = now.trunc_subsecs(6);
    }
    let assets: Vec<&Asset> = changes.iter().map(|change| &change.after.asset).collect();
    tx.exec(
        "UPDATE asset SET external_id = new.external_id, name = new.name, lifecycle_state = new.lifecycle_state,
                          environment = new.environment, location = new.location, description = new.description,
                          owner_id = new.owner_id, attributes = new.attributes, sources = new.sources,
                          custom_fields = new.custom_fields, updated_at = $12
         FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[],
                     $9::jsonb[], $10::jsonb[], $11::jsonb[])
              AS new (id, external_id, name, lifecycle_state, environment, location, description, owner_id, attributes,
                      sources, custom_fields)
         WHERE asset.id = new.id",
        &[
            &column(&assets, |asset| asset.id),
            &column(&assets, |asset| &asset.external_id),
            &column(&assets, |asset| &asset.name),
            &column(&assets, |asset| asset.lifecycle_state.as_str()),
            &column(&assets, |asset| asset.environment.as_str()),
            &column(&assets, |asset| &asset.location),
            &column(&assets, |asset| &asset.description),
            &column(&assets, |asset| asset.owner_id),
            &column(&assets, |asset| &asset.attributes),
            &column(&assets, |asset| &asset.sources),
            &column(&assets, |asset| &asset.custom_fields),
            &now.trunc_subsecs(6),
        ],
    )
    .await?;
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for Change { before, after, .. } in &*changes {
        added.extend(after.tags.difference(&before.tags).map(|tag| (after.asset.id, *tag)));
        removed.extend(before.tags.difference(&after.tags).map(|tag| (after.asset.id, *tag)));
    }
    remove_tags(tx, &removed).await?;
    add_tags(tx, &added).await?;
    let entries = changes.iter().map(|Change { action, before, after }| {
        Entry::changed(action, after.asset.id, before.snapshot(names), after.snapshot(names))
    });
    Entry::record_all(tx, entries.collect()).await?;
    let marks: Vec<_> = changes
        .iter()
        .map(|change| (Subject::Asset(change.after.asset.id), change.changed_keys()))
        .filter(|(_, changed_keys)| !changed_keys.is_empty())
        .map(|(subject, changed_keys)| (subject, Some(changed_keys)))
        .collect();
    stale::mark(tx, &marks).await
}

async fn add_tags(tx: &Tx, tags: &[(AssetId, TagId)]) -> Result<()> {
    if tags.is_empty() {
        return Ok(());
    }
    let (assets, tags): (Vec<_>, Vec<_>) = tags.iter().copied().unzip();
    tx.exec(
        "INSERT INTO asset_tag (org_id, asset_id, tag_id) SELECT $1, * FROM UNNEST($2::uuid[], $3::uuid[])
         ON CONFLICT DO NOTHING",
        &[&tx.org(), &assets, &tags],
    )
    .await?;
    Ok(())
}

async fn remove_tags(tx: &Tx, tags: &[(AssetId, TagId)]) -> Result<()> {
    if tags.is_empty() {
        return Ok(());
    }
    let (assets, tags): (Vec<_>, Vec<_>) = tags.iter().copied().unzip();
    tx.exec(
        "DELETE FROM asset_tag USING UNNEST($1::uuid[], $2::uuid[]) AS removed (asset_id, tag_id)
         WHERE asset_tag.asset_id = removed.asset_id AND asset_tag.tag_id = removed.tag_id",
        &[&assets, &tags],
    )
    .await?;
    Ok(())
}

/// Returns a random short code: the type's prefix, a dash, and `length` characters that are hard to confuse. I, L, O
/// and U are not used.
fn random_code(asset_type: AssetType, length: usize) -> Result<String> {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let prefix = match asset_type {
        AssetType::Host => "HST",
        AssetType::NetworkDevice => "NET",
        AssetType::Service => "SVC",
        AssetType::SoftwareLicense => "LIC",
        AssetType::CloudResource => "CLD",
    };
    let random = crate::access::token::random()?;
    let body: String =
        random.iter().take(length).map(|byte| ALPHABET[usize::from(byte % 32)] as char).collect();
    Ok(format!("{prefix}-{body}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_avoid_letters_that_look_alike() {
        let code = random_code(AssetType::Host, 10).unwrap();
        assert!(code.starts_with("HST-") && code.len() == 14);
        assert!(!code[4..].contains(['I', 'L', 'O', 'U']));
    }
}
