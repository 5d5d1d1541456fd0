//! Imports a chunk of assets. A row matches the existing asset with the row's external id or, if there is none, with
//! the row's short code. The matching asset is updated; if none matches, an asset is inserted. A run imports each asset
//! once.

use std::collections::{BTreeSet, HashMap};

use async_graphql::MaybeUndefined::{self, Null, Undefined};
use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::{
    dedupe::{RowKeys, keep_first},
    row::{self, AssetRow},
    state::{ClaimedChunk, Outcome},
};
use crate::{
    base::{
        db::Tx,
        entity::{TagId, UserId},
        error::{FieldError, Result},
        id::Id,
    },
    inventory::{
        asset::{Asset, Change, Draft, FactSource, Provenance, insert_all, update_all},
        owners::Owners,
        tag::{self, Tag},
    },
};

/// Effect of a row of assets on the inventory.
enum RowEffect {
    New(Draft),
    Changed(Box<Change>),
    Same(Draft),
}

impl RowEffect {
    /// Returns the keys for deduplication: of the asset, and of the identifiers that the row gives to the asset.
    fn keys(&self) -> RowKeys {
        let external_id = |asset: &Asset| asset.external_id.as_ref().map(|id| format!("e:{id}"));
        let id = |asset: &Asset| format!("a:{}", asset.id);
        let (names, earlier) = match self {
            // Without a code, a code is generated later, which no other row can have.
            Self::New(Draft { asset, .. }) => {
                let code = (!asset.code.is_empty()).then(|| format!("c:{}", asset.code));
                (code.into_iter().chain(external_id(asset)).collect::<Vec<_>>(), Vec::new())
            }
            Self::Same(Draft { asset, .. }) => (vec![id(asset)], earlier_keys(asset)),
            Self::Changed(change) => {
                let (before, after) = (&change.before.asset, &change.after.asset);
                let mut names = vec![id(after)];
                if before.external_id != after.external_id {
                    names.extend(external_id(after));
                }
                (names, earlier_keys(before))
            }
        };
        let asset = match self {
            Self::New(draft) | Self::Same(draft) => &draft.asset,
            Self::Changed(change) => &change.after.asset,
        };
        let column = if asset.external_id.is_some() { "external_id" } else { "code" };
        RowKeys { names, earlier, column: Some(column) }
    }
}

/// Returns the keys that an earlier row of the run has stored if that row created the asset.
fn earlier_keys(asset: &Asset) -> Vec<String> {
    let external_id = asset.external_id.as_ref().map(|id| format!("e:{id}"));
    external_id.into_iter().chain([format!("c:{}", asset.code)]).collect()
}

/// Imports the rows of the chunk. The outcome contains an error for each row that cannot be imported.
pub(super) async fn apply(
    tx: &Tx,
    claimed: &ClaimedChunk,
    owners: Owners,
    now: DateTime<Utc>,
) -> Result<Outcome> {
    let run = &claimed.run;
    let mut faults = Vec::new();
    let mut rows = Vec::with_capacity(claimed.chunk.numbers.len());
    for read in row::read(&claimed.table, run.format, run.empty_cells, &claimed.chunk)? {
        match read.and_then(AssetRow::of) {
            Ok(row) => rows.push(row),
            Err(errors) => faults.extend(errors),
        }
    }
    let existing = Existing::of_rows(tx, &rows).await?;
    let members = Members::of_rows(tx, &rows, owners).await?;
    let tags = tags(tx, &rows, run.dry_run, now).await?;
    let mut effects = Vec::with_capacity(rows.len());
    for row in rows {
        let number = row.number;
        match row_effect(row, &existing, &members, &tags, now) {
            Ok(effect) => effects.push((number, effect.keys(), effect)),
            Err(errors) => {
                faults.extend(errors.into_iter().map(|error| row::to_row_error(number, error)));
            }
        }
    }
    let effects = keep_first(tx, run.id, "this asset", effects, &mut faults).await?;
    let (mut added, mut changed, mut unchanged) = (Vec::new(), Vec::new(), 0);
    for effect in effects {
        match effect {
            RowEffect::New(draft) => added.push(draft),
            RowEffect::Changed(change) => changed.push(*change),
            RowEffect::Same(_) => unchanged += 1,
        }
    }
    let outcome = Outcome {
        created: super::count(&added),
        updated: super::count(&changed),
        unchanged,
        faults,
    };
    if !run.dry_run {
        let drafts = changed.iter().flat_map(|change| [&change.before, &change.after]);
        let names = Draft::tag_names(tx, added.iter().chain(drafts)).await?;
        insert_all(tx, &mut added, &names).await?;
        update_all(tx, &mut changed, &names, now).await?;
    }
    Ok(outcome)
}

/// Returns the effect of a row.
///
/// # Errors
/// All errors because of which the row cannot be imported.
fn row_effect(
    row: AssetRow,
    existing: &Existing,
    members: &Members,
    tags: &HashMap<String, TagId>,
    now: DateTime<Utc>,
) -> Result<RowEffect, Vec<FieldError>> {
    let mut faults = Vec::new();
    let mut patch = row.patch;
    patch.owner = members.resolve(row.owner, &mut faults);
    patch.tags = row.tags.map_value(|names| {
        names.iter().filter_map(|name| tags.get(&tag::fold(name)).copied()).collect()
    });
    if let Some(external_id) = &row.external_id {
        patch.external_id = MaybeUndefined::Value(external_id.clone());
    }
    let by_external_id = row.external_id.as_ref().and_then(|id| existing.by_external_id.get(id));
    let by_code = row.code.as_ref().and_then(|code| existing.by_code.get(code));
    let before = match (by_external_id, by_code) {
        (Some(one), Some(other)) if one != other => {
            let code = row.code.as_deref().unwrap_or_default();
            let message = format!(
                "{code} is the code of another asset than the one with this external id: correct the code or the external id"
            );
            faults.push(FieldError::new("code", message));
            None
        }
        (Some(index), _) | (None, Some(index)) => Some(&existing.drafts[*index]),
        (None, None) => None,
    };
    if let (Some(before), Some(code)) = (before, &row.code)
        && before.asset.code != *code
    {
        let message = format!(
            "is not the code of this asset, which is {}: a code cannot change",
            before.asset.code
        );
        faults.push(FieldError::new("code", message));
    }
    let facts = Provenance { source: FactSource::Imported, at: now };
    let Some(before) = before else {
        let draft = new_draft(&patch, row.code, facts, now, &mut faults);
        return match draft {
            Some(draft) if faults.is_empty() => Ok(RowEffect::New(draft)),
            _ => Err(faults),
        };
    };
    let after = patch.apply(before, facts, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(if after == *before {
        RowEffect::Same(after)
    } else {
        let before = before.clone();
        RowEffect::Changed(Box::new(Change { action: "asset.updated", before, after }))
    })
}

/// Returns the draft of a new asset; `None` if there are errors. Unlike the API, a file can set the short code of a new
/// asset, so that the code matches a printed label.
fn new_draft(
    patch: &crate::inventory::asset::Patch,
    code: Option<String>,
    facts: Provenance,
    now: DateTime<Utc>,
    faults: &mut Vec<FieldError>,
) -> Option<Draft> {
    if !faults.is_empty() {
        return None;
    }
    if patch.name.is_undefined() {
        faults.push(FieldError::new(
            "name",
            "is missing: no asset matches this row, and a new asset needs a name",
        ));
    }
    let Some(asset_type) = patch.asset_type else {
        faults.push(FieldError::new(
            "type",
            "is missing: no asset matches this row, and a new asset needs a type",
        ));
        return None;
    };
    let mut blank = Draft::new(asset_type, now);
    blank.asset.code = code.unwrap_or_default();
    // Set before the patch is applied, because a new asset can begin in any state.
    if let Some(state) = patch.lifecycle_state {
        blank.asset.lifecycle_state = state;
    }
    Some(patch.apply(&blank, facts, faults))
}

/// The existing assets that rows match, with their indexes in `drafts` by identifier.
#[derive(Default)]
struct Existing {
    drafts: Vec<Draft>,
    by_external_id: HashMap<String, usize>,
    by_code: HashMap<String, usize>,
}

impl Existing {
    async fn of_rows(tx: &Tx, rows: &[AssetRow]) -> Result<Self> {
        let external_ids: Vec<_> =
            rows.iter().filter_map(|row| row.external_id.as_deref()).collect();
        let codes: Vec<_> = rows.iter().filter_map(|row| row.code.as_deref()).collect();
        let found: Vec<Row> = tx
            .all(
                "SELECT found.id FROM UNNEST($1::text[]) AS given (name)
                 CROSS JOIN LATERAL (SELECT id FROM asset WHERE external_id = given.name LIMIT 1) AS found
                 UNION SELECT found.id FROM UNNEST($2::text[]) AS given (name)
                 CROSS JOIN LATERAL (SELECT id FROM asset WHERE code = given.name LIMIT 1) AS found",
                &[&external_ids, &codes],
            )
            .await?;
        let ids = found.iter().map(|row| row.try_get("id")).collect::<Result<Vec<_>, _>>()?;
        if ids.is_empty() {
            return Ok(Self::default());
        }
        let drafts = Draft::lock_all(tx, &ids).await?;
        let mut by_external_id = HashMap::with_capacity(drafts.len());
        let mut by_code = HashMap::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            if let Some(external_id) = &draft.asset.external_id {
                by_external_id.insert(external_id.clone(), index);
            }
            by_code.insert(draft.asset.code.clone(), index);
        }
        Ok(Self { drafts, by_external_id, by_code })
    }
}

/// Members of the organization by e-mail address. There are no suggestions for an unknown address, because they would
/// disclose the addresses of members.
enum Members {
    Known(HashMap<String, UserId>),
    /// The importer may not see members, so no address is looked up.
    Hidden,
}

impl Members {
    async fn of_rows(tx: &Tx, rows: &[AssetRow], owners: Owners) -> Result<Self> {
        if owners == Owners::Omitted {
            return Ok(Self::Hidden);
        }
        let emails: BTreeSet<&str> =
            rows.iter().filter_map(|row| row.owner.value().map(String::as_str)).collect();
        if emails.is_empty() {
            return Ok(Self::Known(HashMap::new()));
        }
        let emails: Vec<_> = emails.into_iter().collect();
        // Includes deactivated members, because they stay the owners of their assets.
        let found: Vec<Row> = tx
            .all(
                "SELECT \"user\".id, \"user\".email FROM \"user\" JOIN membership ON membership.user_id = \"user\".id
                 WHERE \"user\".email = ANY($1)",
                &[&emails],
            )
            .await?;
        let members = found.iter().map(|row| Ok((row.try_get("email")?, row.try_get("id")?)));
        members.collect::<Result<_>>().map(Self::Known)
    }

    fn resolve(
        &self,
        email: MaybeUndefined<String>,
        faults: &mut Vec<FieldError>,
    ) -> MaybeUndefined<UserId> {
        match email {
            Undefined => Undefined,
            Null => Null,
            MaybeUndefined::Value(email) => {
                let Self::Known(members) = self else {
                    faults.push(FieldError::new("owner", Owners::REFUSED));
                    return Undefined;
                };
                if let Some(user) = members.get(&email) {
                    return MaybeUndefined::Value(*user);
                }
                let beginning: String = email.chars().take(60).collect();
                faults.push(FieldError::new(
                    "owner",
                    format!("no member has the e-mail address {beginning:?}"),
                ));
                Undefined
            }
        }
    }
}

/// Returns the ids of the tags in the rows, by folded name. Inserts missing tags; a dry run only generates an id for
/// each.
async fn tags(
    tx: &Tx,
    rows: &[AssetRow],
    is_dry_run: bool,
    now: DateTime<Utc>,
) -> Result<HashMap<String, TagId>> {
    let names = rows.iter().filter_map(|row| row.tags.value()).flatten();
    let names: Vec<String> = names.cloned().collect::<BTreeSet<_>>().into_iter().collect();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let existing = Tag::of_names(tx, &names, is_dry_run, now).await?;
    let id = |name: &String| existing.get(&tag::fold(name)).map_or_else(Id::new, |tag| tag.id);
    Ok(names.iter().map(|name| (tag::fold(name), id(name))).collect())
}
