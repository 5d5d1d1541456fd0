//! A chunk of assets: matched with those that are there, by external id, else by short code; added or changed; each once
//! a run.

use std::collections::{BTreeSet, HashMap};

use async_graphql::MaybeUndefined::{self, Null, Undefined};
use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::{
    dedupe::{Subject, keep_first},
    row::{self, AssetRow},
    state::{Begun, Outcome},
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
        tag::{self, Tag},
    },
};

/// What a row comes to.
enum Wanted {
    New(Draft),
    Changed(Box<Change>),
    Same(Draft),
}

impl Wanted {
    /// What no other row of the run may be about: the asset, and the names that it gets here.
    fn subject(&self) -> Subject {
        let external_id = |asset: &Asset| asset.external_id.as_ref().map(|id| format!("e:{id}"));
        let id = |asset: &Asset| format!("a:{}", asset.id);
        let (names, others) = match self {
            // A code that it will be given is nobody's yet.
            Self::New(Draft { asset, .. }) => {
                let code = (!asset.code.is_empty()).then(|| format!("c:{}", asset.code));
                (code.into_iter().chain(external_id(asset)).collect::<Vec<_>>(), Vec::new())
            }
            Self::Same(Draft { asset, .. }) => (vec![id(asset)], earlier(asset)),
            Self::Changed(change) => {
                let (before, after) = (&change.before.asset, &change.after.asset);
                let mut names = vec![id(after)];
                if before.external_id != after.external_id {
                    names.extend(external_id(after));
                }
                (names, earlier(before))
            }
        };
        let asset = match self {
            Self::New(draft) | Self::Same(draft) => &draft.asset,
            Self::Changed(change) => &change.after.asset,
        };
        let column = if asset.external_id.is_some() { "external_id" } else { "code" };
        Subject { names, others, column: Some(column) }
    }
}

/// The names by which an earlier row of the run may have made it.
fn earlier(asset: &Asset) -> Vec<String> {
    let external_id = asset.external_id.as_ref().map(|id| format!("e:{id}"));
    external_id.into_iter().chain([format!("c:{}", asset.code)]).collect()
}

/// Imports the chunk's rows; those that cannot be are told.
pub(super) async fn apply(tx: &Tx, begun: &Begun, now: DateTime<Utc>) -> Result<Outcome> {
    let run = &begun.run;
    let mut faults = Vec::new();
    let mut rows = Vec::with_capacity(begun.chunk.numbers.len());
    for read in row::read(&begun.table, run.format, run.empty_cells, &begun.chunk)? {
        match read.and_then(AssetRow::of) {
            Ok(row) => rows.push(row),
            Err(wrong) => faults.extend(wrong),
        }
    }
    let known = Existing::of_rows(tx, &rows).await?;
    let people = People::of_rows(tx, &rows).await?;
    let tags = tags(tx, &rows, run.dry_run, now).await?;
    let mut wanted = Vec::with_capacity(rows.len());
    for row in rows {
        let number = row.number;
        match want(row, &known, &people, &tags, now) {
            Ok(draft) => wanted.push((number, draft.subject(), draft)),
            Err(wrong) => faults.extend(wrong.into_iter().map(|one| row::of_column(number, one))),
        }
    }
    let wanted = keep_first(tx, run.id, "this asset", wanted, &mut faults).await?;
    let (mut added, mut changed, mut unchanged) = (Vec::new(), Vec::new(), 0);
    for wanted in wanted {
        match wanted {
            Wanted::New(draft) => added.push(draft),
            Wanted::Changed(change) => changed.push(*change),
            Wanted::Same(_) => unchanged += 1,
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
        insert_all(tx, &mut added, &names, now).await?;
        update_all(tx, &mut changed, &names, now).await?;
    }
    Ok(outcome)
}

/// What is to become of a row's asset, or what forbids it.
fn want(
    row: AssetRow,
    known: &Existing,
    people: &People,
    tags: &HashMap<String, TagId>,
    now: DateTime<Utc>,
) -> Result<Wanted, Vec<FieldError>> {
    let mut faults = Vec::new();
    let mut patch = row.patch;
    patch.owner = people.resolve(row.owner, &mut faults);
    patch.tags = row.tags.map_value(|names| {
        names.iter().filter_map(|name| tags.get(&tag::fold(name)).copied()).collect()
    });
    if let Some(external_id) = &row.external_id {
        patch.external_id = MaybeUndefined::Value(external_id.clone());
    }
    let by_external_id = row.external_id.as_ref().and_then(|id| known.by_external_id.get(id));
    let by_code = row.code.as_ref().and_then(|code| known.by_code.get(code));
    let before = match (by_external_id, by_code) {
        (Some(one), Some(other)) if one != other => {
            let code = row.code.as_deref().unwrap_or_default();
            let message = format!("{code} is another asset than the one of this external id");
            faults.push(FieldError::new("code", message));
            None
        }
        (Some(place), _) | (None, Some(place)) => Some(&known.drafts[*place]),
        (None, None) => None,
    };
    if let (Some(before), Some(code)) = (before, &row.code)
        && before.asset.code != *code
    {
        let message = format!(
            "is not this asset's code, which is {}: codes do not change",
            before.asset.code
        );
        faults.push(FieldError::new("code", message));
    }
    let facts = Provenance { source: FactSource::Imported, at: now };
    let Some(before) = before else {
        let draft = new(&patch, row.code, facts, now, &mut faults);
        return match draft {
            Some(draft) if faults.is_empty() => Ok(Wanted::New(draft)),
            _ => Err(faults),
        };
    };
    let after = patch.apply(before, facts, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(if after == *before {
        Wanted::Same(after)
    } else {
        let before = before.clone();
        Wanted::Changed(Box::new(Change { action: "asset.updated", before, after }))
    })
}

/// An asset that is not there yet; a file may bring its short code with it, as it stands on its label.
fn new(
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
            "is missing: there is no such asset yet, and a new one needs a name",
        ));
    }
    let Some(asset_type) = patch.asset_type else {
        faults.push(FieldError::new(
            "type",
            "is missing: there is no such asset yet, and a new one needs a type",
        ));
        return None;
    };
    let mut blank = Draft::new(asset_type, now);
    blank.asset.code = code.unwrap_or_default();
    // A new one may begin anywhere in its life.
    if let Some(state) = patch.lifecycle_state {
        blank.asset.lifecycle_state = state;
    }
    Some(patch.apply(&blank, facts, faults))
}

/// The assets that rows are about.
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
        for (place, draft) in drafts.iter().enumerate() {
            if let Some(external_id) = &draft.asset.external_id {
                by_external_id.insert(external_id.clone(), place);
            }
            by_code.insert(draft.asset.code.clone(), place);
        }
        Ok(Self { drafts, by_external_id, by_code })
    }
}

/// Members by their e-mail. Who may import need not see other members' e-mails, so none is suggested for a wrong one.
struct People(HashMap<String, UserId>);

impl People {
    async fn of_rows(tx: &Tx, rows: &[AssetRow]) -> Result<Self> {
        let emails: BTreeSet<&str> =
            rows.iter().filter_map(|row| row.owner.value().map(String::as_str)).collect();
        if emails.is_empty() {
            return Ok(Self(HashMap::new()));
        }
        let emails: Vec<_> = emails.into_iter().collect();
        // Also those who are deactivated: they may own what they owned.
        let found: Vec<Row> = tx
            .all(
                "SELECT \"user\".id, \"user\".email FROM \"user\" JOIN membership ON membership.user_id = \"user\".id
                 WHERE \"user\".email = ANY($1)",
                &[&emails],
            )
            .await?;
        let people = found.iter().map(|row| Ok((row.try_get("email")?, row.try_get("id")?)));
        people.collect::<Result<_>>().map(Self)
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
                if let Some(user) = self.0.get(&email) {
                    return MaybeUndefined::Value(*user);
                }
                let shown: String = email.chars().take(60).collect();
                faults
                    .push(FieldError::new("owner", format!("no member has the e-mail {shown:?}")));
                Undefined
            }
        }
    }
}

/// The tags that rows name, by their folded names; a dry run makes none and pretends.
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
    let known = Tag::of_names(tx, &names, is_dry_run, now).await?;
    let id = |name: &String| known.get(&tag::fold(name)).map_or_else(Id::new, |tag| tag.id);
    Ok(names.iter().map(|name| (tag::fold(name), id(name))).collect())
}
