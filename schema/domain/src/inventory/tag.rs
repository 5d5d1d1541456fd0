//! A word that people group assets by.
//!
//! Names are kept as they were first written and told apart whatever their case: "Prod" and "prod" are one tag. Commas
//! and semicolons are not in them, because a file's cell separates tags by these.

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

/// A name: one line, up to 64 characters.
const NAME: text::Rule = text::Rule { max: 64, multiline: false };
/// What nobody chose.
const COLOR: &str = "#64748b";
/// Tags of one organization: more are no grouping.
const MOST: i64 = 10_000;
/// Assets from which a tag is taken with its deletion at most: each gets an audit entry.
const MOST_TAGGED: i64 = 10_000;

/// A word that people group assets by. Takes `ASSET_READ`.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject, Serialize)]
#[graphql(directive = requires::apply(Permission::AssetRead))]
pub struct Tag {
    /// Its id.
    #[serde(skip)]
    pub id: TagId,
    /// Its name; whatever its case, the organization has no other of it.
    pub name: String,
    /// What it is shown in, e.g. `#64748b`.
    pub color: String,
    /// When it was made.
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

/// The name of a tag as it is kept.
pub(crate) fn check_name(path: &str, name: &str, faults: &mut Vec<FieldError>) -> String {
    let name = text::check(path, name, NAME, faults);
    if name.contains([',', ';']) {
        faults.push(FieldError::new(
            path,
            "holds a comma or a semicolon, which separate tags in files",
        ));
    }
    name
}

/// By which two names are one.
pub(crate) fn fold(name: &str) -> String {
    name.to_lowercase()
}

impl Tag {
    /// The organization's tags, by name.
    pub async fn list(tx: &Tx) -> Result<Vec<Self>> {
        tx.all("SELECT id, name, color, created_at FROM tag ORDER BY folded", &[]).await
    }

    /// The tag, or `None`.
    pub async fn find(tx: &Tx, id: TagId) -> Result<Option<Self>> {
        tx.opt("SELECT id, name, color, created_at FROM tag WHERE id = $1", &[&id]).await
    }

    /// Those that there are of these.
    pub async fn of_ids(tx: &Tx, ids: &[TagId]) -> Result<Vec<Self>> {
        tx.all("SELECT id, name, color, created_at FROM tag WHERE id = ANY($1)", &[&ids]).await
    }

    /// The tags of these assets, by name.
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

    /// Adds one.
    ///
    /// # Errors
    /// `Conflict` where there is one of that name already.
    pub async fn create(
        tx: &Tx,
        name: &str,
        color: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let mut faults = Vec::new();
        let name = check_name("name", name, &mut faults);
        let color = color.unwrap_or(COLOR).trim().to_lowercase();
        let is_color = color.strip_prefix('#').is_some_and(|digits| {
            digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        if !is_color {
            faults.push(FieldError {
                suggestion: Some(COLOR.to_owned()),
                ..FieldError::new("color", "must be # and six hexadecimal digits")
            });
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        Self::check_room(tx, 1).await?;
        let tag = Self { id: Id::new(), name, color, created_at: now.trunc_subsecs(6) };
        tx.exec(
            "INSERT INTO tag (org_id, id, name, folded, color, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            &[&tx.org(), &tag.id, &tag.name, &fold(&tag.name), &tag.color, &tag.created_at],
        )
        .await
        .map_err(|error| error.on_constraint("tag_name_key", "there is a tag of this name already"))?;
        Entry::created("tag.created", tag.id, &tag.snapshot()).record(tx, now).await?;
        tx.emit(Event::changed(tx.org(), tag.id));
        Ok(tag)
    }

    /// Those of these names that somebody else made just now are left out.
    async fn insert_all(tx: &Tx, names: &[&String], now: DateTime<Utc>) -> Result<Vec<Self>> {
        let made: Vec<Self> = tx
            .all(
                "INSERT INTO tag (org_id, id, name, folded, color, created_at)
                 SELECT $1, id, name, folded, $2, $3
                 FROM UNNEST($4::uuid[], $5::text[], $6::text[]) AS new (id, name, folded)
                 ON CONFLICT (org_id, folded) DO NOTHING RETURNING id, name, color, created_at",
                &[
                    &tx.org(),
                    &COLOR,
                    &now.trunc_subsecs(6), // As Postgres keeps it.
                    &names.iter().map(|_| TagId::new()).collect::<Vec<_>>(),
                    &names,
                    &names.iter().map(|name| fold(name)).collect::<Vec<_>>(),
                ],
            )
            .await?;
        let entries = made.iter().map(|tag| Entry::created("tag.created", tag.id, &tag.snapshot()));
        Entry::record_all(tx, entries.collect(), now).await?;
        for tag in &made {
            tx.emit(Event::changed(tx.org(), tag.id));
        }
        Ok(made)
    }

    /// The tags of these names by their folded names, made where there are none; in a dry run those are missing.
    pub(crate) async fn of_names(
        tx: &Tx,
        names: &[String],
        is_dry_run: bool,
        now: DateTime<Utc>,
    ) -> Result<HashMap<String, Self>> {
        let mut found = Self::known(tx, names).await?;
        let mut missing: Vec<&String> =
            names.iter().filter(|name| !found.contains_key(&fold(name))).collect();
        missing.sort_by_key(|name| fold(name));
        missing.dedup_by_key(|name| fold(name));
        if is_dry_run || missing.is_empty() {
            return Ok(found);
        }
        Self::check_room(tx, missing.len()).await?;
        let made = Self::insert_all(tx, &missing, now).await?;
        if made.len() < missing.len() {
            return Self::known(tx, names).await;
        }
        found.extend(made.into_iter().map(|tag| (fold(&tag.name), tag)));
        Ok(found)
    }

    async fn known(tx: &Tx, names: &[String]) -> Result<HashMap<String, Self>> {
        let folded: Vec<String> = names.iter().map(|name| fold(name)).collect();
        let known: Vec<Self> = tx
            .all("SELECT id, name, color, created_at FROM tag WHERE folded = ANY($1)", &[&folded])
            .await?;
        Ok(known.into_iter().map(|tag| (fold(&tag.name), tag)).collect())
    }

    /// Takes a tag from all assets, and away. The assets' histories say so, and keep its name.
    ///
    /// # Errors
    /// `NotFound` where there is no such tag, `Conflict` where more assets have it than are changed at once.
    pub async fn delete(tx: &Tx, id: TagId, now: DateTime<Utc>) -> Result<()> {
        let tagged: Vec<Row> = tx
            .all(
                "SELECT asset_id FROM asset_tag WHERE tag_id = $1 LIMIT $2",
                &[&id, &(MOST_TAGGED + 1)],
            )
            .await?;
        if i64::try_from(tagged.len()).is_ok_and(|count| count > MOST_TAGGED) {
            return Err(Error::Conflict(format!(
                "more than {MOST_TAGGED} assets have the tag, and no more are changed at once: take it from some first, e.g. \
                 by an import of their tags"
            )));
        }
        // Assets before tags, and in the order of their ids, as everybody locks them.
        let lock = "SELECT id FROM asset WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
        tx.exec(lock, &[&asset_ids(&tagged)?]).await?;
        let tag: Option<Self> = tx
            .opt("SELECT id, name, color, created_at FROM tag WHERE id = $1 FOR UPDATE", &[&id])
            .await?;
        let tag = tag.ok_or_else(|| Error::not_found("tag", id))?;
        // Nobody is given it any more: this is all of them.
        tag.take_from_all(tx, now).await?;
        tx.exec("DELETE FROM tag WHERE id = $1", &[&id]).await?;
        Entry::deleted("tag.deleted", id, tag.snapshot()).record(tx, now).await?;
        tx.emit(Event::changed(tx.org(), id));
        Ok(())
    }

    async fn take_from_all(&self, tx: &Tx, now: DateTime<Utc>) -> Result<()> {
        // One by one: a join of rows without statistics would be a nested loop.
        let taken: Vec<Row> = tx
            .all("DELETE FROM asset_tag WHERE tag_id = $1 RETURNING asset_id", &[&self.id])
            .await?;
        let taken = asset_ids(&taken)?;
        let mut left: HashMap<AssetId, Vec<String>> = HashMap::new();
        for (asset, tag) in Self::of_assets(tx, &taken).await? {
            left.entry(asset).or_default().push(tag.name);
        }
        tx.exec(
            "UPDATE asset SET updated_at = $2 WHERE id = ANY($1)",
            &[&taken, &now.trunc_subsecs(6)],
        )
        .await?;
        let read = || Some(vec!["asset.tags".to_owned()]);
        let changed: Vec<_> = taken.iter().map(|asset| (Subject::Asset(*asset), read())).collect();
        stale::mark(tx, &changed).await?;
        let mut entries = Vec::with_capacity(taken.len());
        for asset in taken {
            let mut after = left.remove(&asset).unwrap_or_default();
            after.sort_unstable();
            let mut before = [&after[..], slice::from_ref(&self.name)].concat();
            before.sort_unstable();
            let (before, after) = (json!({ "tags": before }), json!({ "tags": after }));
            entries.push(Entry::changed("asset.updated", asset, before, after));
            tx.emit(Event::changed(tx.org(), asset));
        }
        Entry::record_all(tx, entries, now).await
    }

    async fn check_room(tx: &Tx, more: usize) -> Result<()> {
        let row: Row = tx.one("SELECT count(*) AS tags FROM tag", &[]).await?;
        let more = i64::try_from(more).unwrap_or(i64::MAX);
        if row.try_get::<_, i64>("tags")?.saturating_add(more) > MOST {
            return Err(Error::Conflict(format!(
                "an organization has at most {MOST} tags: delete some first"
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
