//! Tags: names by which people group assets.
//!
//! A tag's name is stored in the spelling of its creation. Names are unique regardless of case: "Prod" and "prod" are
//! the same tag. A name cannot contain commas or semicolons, because these separate the tags in a cell of a file.

use std::{collections::HashMap, slice};

use async_graphql::SimpleObject;
use chrono::{DateTime, SubsecRound, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_postgres::Row;

use crate::{
    access::{audit::Entry, directive::requires, permission::Permission},
    base::{
        db::{FromRow, Tx},
        entity::{AssetId, TagId},
        error::{Error, FieldError, Result},
        event::Event,
        id::Id,
        stale::{self, Subject},
        text,
    },
};

/// Rule for a tag's name: one line, up to 64 characters.
const NAME: text::TextLimits = text::TextLimits { max: 64, multiline: false };
/// Default colour of a tag.
const DEFAULT_COLOR: &str = "#64748b";
/// Maximum number of tags per organization.
const MAX_TAGS: i64 = 10_000;
/// Maximum number of assets from which the deletion of a tag removes the tag. Each removal writes an audit entry.
const MAX_TAGGED: i64 = 10_000;

/// A tag: a name by which people group assets. Requires `ASSET_READ`.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject, Serialize)]
#[graphql(directive = requires::apply(Permission::AssetRead))]
pub struct Tag {
    /// The tag's id, beginning `tag_`.
    #[serde(skip)]
    pub id: TagId,
    /// The tag's name; unique in the organization regardless of case.
    pub name: String,
    /// Display colour of the tag, e.g. `#64748b`.
    pub color: String,
    /// Time at which the tag was created.
    #[serde(skip)]
    pub created_at: DateTime<Utc>,
}

impl FromRow for Tag {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            color: row.try_get("color")?,
            created_at: row.try_get("created_at")?,
        })
    }
}

struct Tagged(AssetId, Tag);

impl FromRow for Tagged {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self(row.try_get("asset_id")?, Tag::from_row(row)?))
    }
}

/// Returns a tag's name in the form in which it is stored. Adds one error to `faults` for each rule that the name
/// breaks.
pub(crate) fn check_name(path: &str, name: &str, faults: &mut Vec<FieldError>) -> String {
    let name = text::check(path, name, NAME, faults);
    if name.contains([',', ';']) {
        faults.push(FieldError::new(
            path,
            "contains a comma or semicolon, which separate tags in files",
        ));
    }
    name
}

/// Returns the folded name, in lower case. Names with the same folded name are the same tag.
pub(crate) fn fold(name: &str) -> String {
    name.to_lowercase()
}

impl Tag {
    /// Returns the organization's tags, ordered by name.
    pub async fn list(tx: &Tx) -> Result<Vec<Self>> {
        tx.all("SELECT id, name, color, created_at FROM tag ORDER BY folded", &[]).await
    }

    /// Returns the tag with this id, or `None`.
    pub async fn find(tx: &Tx, id: TagId) -> Result<Option<Self>> {
        tx.opt("SELECT id, name, color, created_at FROM tag WHERE id = $1", &[&id]).await
    }

    /// Returns the tags with these ids; unknown ids are skipped.
    pub async fn of_ids(tx: &Tx, ids: &[TagId]) -> Result<Vec<Self>> {
        tx.all("SELECT id, name, color, created_at FROM tag WHERE id = ANY($1)", &[&ids]).await
    }

    /// Returns the tags of these assets, each with the asset's id, ordered by name.
    pub async fn of_assets(tx: &Tx, assets: &[AssetId]) -> Result<Vec<(AssetId, Self)>> {
        let tagged = tx
            .all(
                "SELECT asset_tag.asset_id, tag.id, tag.name, tag.color, tag.created_at
                 FROM asset_tag JOIN tag ON tag.org_id = asset_tag.org_id AND tag.id = asset_tag.tag_id
                 WHERE asset_tag.asset_id = ANY($1) ORDER BY tag.folded",
                &[&assets],
            )
            .await?;
        Ok(tagged.into_iter().map(|Tagged(asset, tag)| (asset, tag)).collect())
    }

    /// Inserts a tag. The default of `color` is the grey `#64748b`.
    ///
    /// # Errors
    /// `Invalid` for an invalid name or colour. `Conflict` if a tag with this name exists already, or if the
    /// organization has 10,000 tags.
    pub async fn create(
        tx: &Tx,
        name: &str,
        color: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let mut faults = Vec::new();
        let name = check_name("name", name, &mut faults);
        let color = color.unwrap_or(DEFAULT_COLOR).trim().to_lowercase();
        let is_color = color.strip_prefix('#').is_some_and(|digits| {
            digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        if !is_color {
            faults.push(FieldError {
                suggestion: Some(DEFAULT_COLOR.to_owned()),
                ..FieldError::new("color", "must be # and six hexadecimal digits")
            });
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        Self::check_limit(tx, 1).await?;
        let tag = Self { id: Id::new(), name, color, created_at: now.trunc_subsecs(6) };
        tx.exec(
            "INSERT INTO tag (org_id, id, name, folded, color, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            &[&tx.org(), &tag.id, &tag.name, &fold(&tag.name), &tag.color, &tag.created_at],
        )
        .await
        .map_err(|error| error.on_constraint("tag_name_key", "a tag with this name exists already"))?;
        Entry::created("tag.created", tag.id, &tag.snapshot()).record(tx).await?;
        tx.emit(Event::changed(tx.org(), tag.id));
        Ok(tag)
    }

    /// Inserts tags with these names and returns them. Skips a name that another transaction has inserted meanwhile.
    async fn insert_all(tx: &Tx, names: &[&String], now: DateTime<Utc>) -> Result<Vec<Self>> {
        let inserted: Vec<Self> = tx
            .all(
                "INSERT INTO tag (org_id, id, name, folded, color, created_at)
                 SELECT $1, id, name, folded, $2, $3
                 FROM UNNEST($4::uuid[], $5::text[], $6::text[]) AS new (id, name, folded)
                 ON CONFLICT (org_id, folded) DO NOTHING RETURNING id, name, color, created_at",
                &[
                    &tx.org(),
                    &DEFAULT_COLOR,
                    &now.trunc_subsecs(6), // The precision of Postgres.
                    &names.iter().map(|_| TagId::new()).collect::<Vec<_>>(),
                    &names,
                    &names.iter().map(|name| fold(name)).collect::<Vec<_>>(),
                ],
            )
            .await?;
        let entries =
            inserted.iter().map(|tag| Entry::created("tag.created", tag.id, &tag.snapshot()));
        Entry::record_all(tx, entries.collect()).await?;
        for tag in &inserted {
            tx.emit(Event::changed(tx.org(), tag.id));
        }
        Ok(inserted)
    }

    /// Returns the tags with these names, by folded name. Inserts missing tags; in a dry run, missing tags are not
    /// returned.
    pub(crate) async fn of_names(
        tx: &Tx,
        names: &[String],
        is_dry_run: bool,
        now: DateTime<Utc>,
    ) -> Result<HashMap<String, Self>> {
        let mut found = Self::find_by_names(tx, names).await?;
        let mut missing: Vec<&String> =
            names.iter().filter(|name| !found.contains_key(&fold(name))).collect();
        missing.sort_by_key(|name| fold(name));
        missing.dedup_by_key(|name| fold(name));
        if is_dry_run || missing.is_empty() {
            return Ok(found);
        }
        Self::check_limit(tx, missing.len()).await?;
        let inserted = Self::insert_all(tx, &missing, now).await?;
        if inserted.len() < missing.len() {
            return Self::find_by_names(tx, names).await;
        }
        found.extend(inserted.into_iter().map(|tag| (fold(&tag.name), tag)));
        Ok(found)
    }

    async fn find_by_names(tx: &Tx, names: &[String]) -> Result<HashMap<String, Self>> {
        let folded: Vec<String> = names.iter().map(|name| fold(name)).collect();
        let known: Vec<Self> = tx
            .all("SELECT id, name, color, created_at FROM tag WHERE folded = ANY($1)", &[&folded])
            .await?;
        Ok(known.into_iter().map(|tag| (fold(&tag.name), tag)).collect())
    }

    /// Deletes a tag and removes the tag from all assets. Records an audit entry with the tag's name for each asset.
    ///
    /// # Errors
    /// `NotFound` if the tag does not exist. `Conflict` if more than 10,000 assets have the tag.
    pub async fn delete(tx: &Tx, id: TagId, now: DateTime<Utc>) -> Result<()> {
        let tagged: Vec<Row> = tx
            .all(
                "SELECT asset_id FROM asset_tag WHERE tag_id = $1 LIMIT $2",
                &[&id, &(MAX_TAGGED + 1)],
            )
            .await?;
        if i64::try_from(tagged.len()).is_ok_and(|count| count > MAX_TAGGED) {
            return Err(Error::Conflict(format!(
                "more than {MAX_TAGGED} assets have the tag, too many to change in one transaction: remove the tag from some assets \
                 first, e.g. by an import of their tags"
            )));
        }
        // Lock order: assets before tags, and assets in the order of their ids.
        let lock = "SELECT id FROM asset WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
        tx.exec(lock, &[&asset_ids(&tagged)?]).await?;
        let tag: Option<Self> = tx
            .opt("SELECT id, name, color, created_at FROM tag WHERE id = $1 FOR UPDATE", &[&id])
            .await?;
        let tag = tag.ok_or_else(|| Error::not_found("tag", id))?;
        // The lock on the tag's row prevents that the tag is added to more assets meanwhile.
        tag.remove_from_all(tx, now).await?;
        tx.exec("DELETE FROM tag WHERE id = $1", &[&id]).await?;
        Entry::deleted("tag.deleted", id, tag.snapshot()).record(tx).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(())
    }

    async fn remove_from_all(&self, tx: &Tx, now: DateTime<Utc>) -> Result<()> {
        // Separate statements: Postgres would join the deleted rows, for which it has no statistics, in a nested loop.
        let untagged: Vec<Row> = tx
            .all("DELETE FROM asset_tag WHERE tag_id = $1 RETURNING asset_id", &[&self.id])
            .await?;
        let untagged = asset_ids(&untagged)?;
        let mut remaining: HashMap<AssetId, Vec<String>> = HashMap::new();
        for (asset, tag) in Self::of_assets(tx, &untagged).await? {
            remaining.entry(asset).or_default().push(tag.name);
        }
        tx.exec(
            "UPDATE asset SET updated_at = $2 WHERE id = ANY($1)",
            &[&untagged, &now.trunc_subsecs(6)],
        )
        .await?;
        let changed_keys = || Some(vec!["asset.tags".to_owned()]);
        let changed: Vec<_> =
            untagged.iter().map(|asset| (Subject::Asset(*asset), changed_keys())).collect();
        stale::mark(tx, &changed).await?;
        let mut entries = Vec::with_capacity(untagged.len());
        for asset in untagged {
            let mut after = remaining.remove(&asset).unwrap_or_default();
            after.sort_unstable();
            let mut before = [&after[..], slice::from_ref(&self.name)].concat();
            before.sort_unstable();
            let (before, after) = (json!({ "tags": before }), json!({ "tags": after }));
            entries.push(Entry::changed("asset.updated", asset, before, after));
            tx.emit(Event::changed(tx.org(), asset));
        }
        Entry::record_all(tx, entries).await
    }

    async fn check_limit(tx: &Tx, additional: usize) -> Result<()> {
        let row: Row = tx.one("SELECT count(*) AS tags FROM tag", &[]).await?;
        let additional = i64::try_from(additional).unwrap_or(i64::MAX);
        if row.try_get::<_, i64>("tags")?.saturating_add(additional) > MAX_TAGS {
            return Err(Error::Conflict(format!(
                "an organization can have at most {MAX_TAGS} tags: delete some tags first"
            )));
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        json!(self)
    }
}

fn asset_ids(rows: &[Row]) -> Result<Vec<AssetId>> {
    rows.iter().map(|row| Ok(row.try_get("asset_id")?)).collect()
}
