//! A chunk of assets: matched with those that are there, by external id, else by short code; added or changed; each once
//! a run.

use std::collections::{BTreeSet, HashMap};

use async_graphql::MaybeUndefined::{self, Null, Undefined};
use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use super::{
    life::{Begun, Outcome},
    row::{self, AssetRow},
};
use crate::{
    asset::{Change, Draft, FactSource, Known, insert_all, update_all},
    db::Tx,
    error::{Fault, Result},
    id::Id,
    import::RowFault,
    nearest::nearest,
    tag::{self, Tag},
    user::User,
};

/// Members whose e-mail may be suggested for a wrong one.
const SUGGESTED: i64 = 1_000;

/// What a row comes to.
enum Wanted {
    New(Draft),
    Changed(Box<Change>),
    Same(Draft),
}

impl Wanted {
    fn after(&self) -> &Draft {
        match self {
            Self::New(draft) | Self::Same(draft) => draft,
            Self::Changed(change) => &change.after,
        }
    }
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
            Ok(draft) => wanted.push((number, draft)),
            Err(wrong) => faults.extend(wrong.into_iter().map(|one| row::of_column(number, one))),
        }
    }
    let wanted = once(tx, begun, wanted, &mut faults).await?;
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
    tags: &HashMap<String, Id<Tag>>,
    now: DateTime<Utc>,
) -> Result<Wanted, Vec<Fault>> {
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
            faults.push(Fault::new("code", message));
            None
        }
        (Some(place), _) | (None, Some(place)) => Some(&known.drafts[*place]),
        (None, None) => None,
    };
    let facts = Known { source: FactSource::Imported, at: now };
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
    patch: &crate::asset::Patch,
    code: Option<String>,
    facts: Known,
    now: DateTime<Utc>,
    faults: &mut Vec<Fault>,
) -> Option<Draft> {
    if !faults.is_empty() {
        return None;
    }
    if patch.name.is_undefined() {
        faults.push(Fault::new(
            "name",
            "is missing: there is no such asset yet, and a new one needs a name",
        ));
    }
    let Some(asset_type) = patch.asset_type else {
        faults.push(Fault::new(
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
                "SELECT id FROM asset WHERE external_id = ANY($1) UNION SELECT id FROM asset WHERE code = ANY($2)",
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

/// Members by their e-mail.
struct People {
    by_email: HashMap<String, Id<User>>,
    /// Some, where a row names somebody who is none of them.
    others: Vec<String>,
}

impl People {
    async fn of_rows(tx: &Tx, rows: &[AssetRow]) -> Result<Self> {
        let emails: BTreeSet<&str> =
            rows.iter().filter_map(|row| row.owner.value().map(String::as_str)).collect();
        let mut people = Self { by_email: HashMap::new(), others: Vec::new() };
        if emails.is_empty() {
            return Ok(people);
        }
        let sql = "SELECT \"user\".id, \"user\".email FROM \"user\" JOIN membership ON membership.user_id = \"user\".id
             WHERE membership.active";
        let asked: Vec<_> = emails.iter().copied().collect();
        let found: Vec<Row> =
            tx.all(&format!("{sql} AND \"user\".email = ANY($1)"), &[&asked]).await?;
        for row in found {
            people.by_email.insert(row.try_get("email")?, row.try_get("id")?);
        }
        if people.by_email.len() < emails.len() {
            let some: Vec<Row> = tx.all(&format!("{sql} LIMIT $1"), &[&SUGGESTED]).await?;
            people.others =
                some.iter().map(|row| row.try_get("email")).collect::<Result<_, _>>()?;
        }
        Ok(people)
    }

    fn resolve(
        &self,
        email: MaybeUndefined<String>,
        faults: &mut Vec<Fault>,
    ) -> MaybeUndefined<Id<User>> {
        match email {
            Undefined => Undefined,
            Null => Null,
            MaybeUndefined::Value(email) => match self.by_email.get(&email) {
                Some(user) => MaybeUndefined::Value(*user),
                None => {
                    let near = nearest(&email, self.others.iter().map(String::as_str));
                    faults.push(Fault {
                        suggestion: near.map(str::to_owned),
                        ..Fault::new("owner", format!("no member has the e-mail {email:?}"))
                    });
                    Undefined
                }
            },
        }
    }
}

/// The tags that rows name, by their folded names; a dry run makes none and pretends.
async fn tags(
    tx: &Tx,
    rows: &[AssetRow],
    is_dry_run: bool,
    now: DateTime<Utc>,
) -> Result<HashMap<String, Id<Tag>>> {
    let names = rows.iter().filter_map(|row| row.tags.value()).flatten();
    let names: Vec<String> = names.cloned().collect::<BTreeSet<_>>().into_iter().collect();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let known = Tag::of_names(tx, &names, is_dry_run, now).await?;
    let id = |name: &String| known.get(&tag::fold(name)).map_or_else(Id::new, |tag| tag.id);
    Ok(names.iter().map(|name| (tag::fold(name), id(name))).collect())
}

/// Keeps the first row of each asset, in this chunk and in those before.
async fn once(
    tx: &Tx,
    begun: &Begun,
    wanted: Vec<(i32, Wanted)>,
    faults: &mut Vec<RowFault>,
) -> Result<Vec<Wanted>> {
    let key = |wanted: &Wanted| {
        let asset = &wanted.after().asset;
        match &asset.external_id {
            Some(external_id) => Some(("external_id", format!("e:{external_id}"))),
            None if asset.code.is_empty() => None,
            None => Some(("code", format!("c:{}", asset.code))),
        }
    };
    let keyed: Vec<_> = wanted.iter().map(|(number, wanted)| (*number, key(wanted))).collect();
    let keys = keyed.iter().filter_map(|(number, key)| Some((*number, key.as_ref()?.1.as_str())));
    let first = super::first_rows(tx, begun.run.id, keys).await?;
    let mut kept = Vec::with_capacity(wanted.len());
    for ((number, wanted), (_, key)) in wanted.into_iter().zip(keyed) {
        let before = key.as_ref().and_then(|(_, key)| first.get(key)).filter(|row| **row != number);
        match (before, key) {
            (Some(before), Some((column, _))) => faults.push(row::fault(
                number,
                Some(column.to_owned()),
                format!("this asset stands in row {before} already: only that row counts"),
            )),
            _ => kept.push(wanted),
        }
    }
    Ok(kept)
}
