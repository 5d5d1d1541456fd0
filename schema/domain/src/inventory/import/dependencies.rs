//! A chunk of dependencies: both assets found, by external id, else by short code; added, or said anew.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
};

use async_graphql::MaybeUndefined::{self, Null, Undefined};
use chrono::{DateTime, SubsecRound, Utc};
use serde_json::Value;
use tokio_postgres::Row;

use super::{
    RowError,
    column::{Column, DependencyField},
    dedupe::{Subject, keep_first},
    row::{self, Cells, Named},
    state::{Begun, Outcome},
};
use crate::{
    base::{
        db::Tx,
        entity::AssetId,
        error::{FieldError, Result},
        id::Id,
        text::{NAME, beginning, check_optional},
    },
    inventory::dependency::{Criticality, Dependency, KIND, insert_all, update_all},
};

impl Named for Criticality {
    fn name(&self) -> &'static str {
        self.as_str()
    }
}

/// How a file names an asset.
#[derive(Debug, Default)]
struct Name {
    external_id: Option<String>,
    code: Option<String>,
}

/// What a row says.
#[derive(Debug)]
struct DependencyRow {
    number: i32,
    source: Name,
    target: Name,
    kind: MaybeUndefined<String>,
    criticality: MaybeUndefined<Criticality>,
}

impl DependencyRow {
    fn of(Cells { number, cells }: Cells) -> Result<Self, Vec<RowError>> {
        let mut row = Self {
            number,
            source: Name::default(),
            target: Name::default(),
            kind: Undefined,
            criticality: Undefined,
        };
        let mut faults = Vec::new();
        for (column, value) in cells {
            match column {
                Column::Dependency(field) => row.set(field, value, &mut faults),
                Column::Asset(_)
                | Column::Attribute(..)
                | Column::Custom(_)
                | Column::CustomJson(_) => {
                    unreachable!("a column of dependencies is read as one of their fields")
                }
            }
        }
        if faults.is_empty() { Ok(row) } else { Err(row::of_columns(number, faults)) }
    }

    fn set(&mut self, field: DependencyField, value: Value, faults: &mut Vec<FieldError>) {
        let name = field.name();
        let optional = |value, rule, faults: &mut Vec<FieldError>| {
            let text = row::texts(name, value, faults).take();
            check_optional(name, text.as_deref(), rule, faults)
        };
        match field {
            DependencyField::SourceExternalId => {
                self.source.external_id = optional(value, NAME, faults);
            }
            DependencyField::SourceCode => {
                self.source.code = optional(value, NAME, faults).map(|code| code.to_uppercase());
            }
            DependencyField::TargetExternalId => {
                self.target.external_id = optional(value, NAME, faults);
            }
            DependencyField::TargetCode => {
                self.target.code = optional(value, NAME, faults).map(|code| code.to_uppercase());
            }
            DependencyField::Kind => {
                self.kind = match row::texts(name, value, faults) {
                    MaybeUndefined::Value(kind) => check_optional(name, Some(&kind), KIND, faults)
                        .map_or(Null, MaybeUndefined::Value),
                    other => other,
                };
            }
            DependencyField::Criticality => {
                self.criticality = row::choice(name, value, Criticality::ALL, faults);
            }
        }
    }
}

/// An asset that a row names.
#[derive(Debug, Clone)]
enum Found {
    Asset(AssetId),
    /// In a dry run: one that an earlier row would have added, by that row.
    Coming(i32),
}

impl Found {
    fn key(&self) -> String {
        match self {
            Self::Asset(id) => id.to_string(),
            Self::Coming(row) => format!("row {row}"),
        }
    }
}

/// What a row comes to.
enum Wanted {
    New(Dependency),
    Changed(Dependency, Dependency),
    Same,
    /// In a dry run, of assets that are not there yet.
    Coming,
}

/// Imports the chunk's rows; those that cannot be are told.
pub(super) async fn apply(tx: &Tx, begun: &Begun, now: DateTime<Utc>) -> Result<Outcome> {
    let run = &begun.run;
    let mut outcome = Outcome::default();
    let mut rows = Vec::with_capacity(begun.chunk.numbers.len());
    for read in row::read(&begun.table, run.format, run.empty_cells, &begun.chunk)? {
        match read.and_then(DependencyRow::of) {
            Ok(row) => rows.push(row),
            Err(wrong) => outcome.faults.extend(wrong),
        }
    }
    let assets = Assets::of_rows(tx, begun, &rows).await?;
    let mut resolved = Vec::with_capacity(rows.len());
    for row in rows {
        match assets.of_row(&row) {
            Ok((source, target)) => {
                let names = vec![format!("d:{} {}", source.key(), target.key())];
                let subject = Subject { names, ..Subject::default() };
                resolved.push((row.number, subject, (row, source, target)));
            }
            Err(wrong) => {
                let wrong = wrong.into_iter().map(|fault| row::of_column(row.number, fault));
                outcome.faults.extend(wrong);
            }
        }
    }
    let resolved = keep_first(tx, run.id, "this dependency", resolved, &mut outcome.faults).await?;
    let known = known(tx, &resolved).await?;
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for (row, source, target) in resolved {
        match want(row, &source, &target, &known, now) {
            Wanted::New(dependency) => added.push(dependency),
            Wanted::Changed(before, after) => changed.push((before, after)),
            Wanted::Same => outcome.unchanged += 1,
            Wanted::Coming => outcome.created += 1,
        }
    }
    outcome.created += super::count(&added);
    outcome.updated = super::count(&changed);
    if !run.dry_run {
        insert_all(tx, &added, now).await?;
        update_all(tx, &changed, now).await?;
    }
    Ok(outcome)
}

fn want(
    row: DependencyRow,
    source: &Found,
    target: &Found,
    known: &HashMap<(AssetId, AssetId), Dependency>,
    now: DateTime<Utc>,
) -> Wanted {
    let (Found::Asset(source_id), Found::Asset(target_id)) = (source, target) else {
        return Wanted::Coming;
    };
    let Some(before) = known.get(&(*source_id, *target_id)) else {
        return Wanted::New(Dependency {
            id: Id::new(),
            source_id: *source_id,
            target_id: *target_id,
            kind: row.kind.take(),
            criticality: row.criticality.take(),
            created_at: now.trunc_subsecs(6),
        });
    };
    let mut after = before.clone();
    row.kind.update_to(&mut after.kind);
    row.criticality.update_to(&mut after.criticality);
    if after == *before { Wanted::Same } else { Wanted::Changed(before.clone(), after) }
}

/// The assets that rows name.
struct Assets {
    by_external_id: HashMap<String, AssetId>,
    by_code: HashMap<String, AssetId>,
    /// In a dry run, what the names that earlier rows would have given would stand for.
    coming: HashMap<String, Found>,
}

impl Assets {
    /// Holds them in the order of their ids, as everybody does who locks several, so that none is deleted meanwhile.
    async fn of_rows(tx: &Tx, begun: &Begun, rows: &[DependencyRow]) -> Result<Self> {
        let names = || rows.iter().flat_map(|row| [&row.source, &row.target]);
        let external_ids: BTreeSet<&str> =
            names().filter_map(|name| name.external_id.as_deref()).collect();
        let codes: BTreeSet<&str> = names().filter_map(|name| name.code.as_deref()).collect();
        let (external_ids, codes): (Vec<_>, Vec<_>) =
            (external_ids.into_iter().collect(), codes.into_iter().collect());
        let found: Vec<Row> = tx
            .all(
                "WITH named AS (
                     SELECT found.id FROM UNNEST($1::text[]) AS given (name)
                     CROSS JOIN LATERAL (SELECT id FROM asset WHERE external_id = given.name LIMIT 1) AS found
                     UNION SELECT found.id FROM UNNEST($2::text[]) AS given (name)
                     CROSS JOIN LATERAL (SELECT id FROM asset WHERE code = given.name LIMIT 1) AS found)
                 SELECT held.* FROM (SELECT id FROM named ORDER BY id) AS named
                 CROSS JOIN LATERAL (SELECT id, external_id, code FROM asset
                                     WHERE asset.id = named.id LIMIT 1 FOR KEY SHARE) AS held",
                &[&external_ids, &codes],
            )
            .await?;
        let mut assets = Self {
            by_external_id: HashMap::with_capacity(found.len()),
            by_code: HashMap::with_capacity(found.len()),
            coming: HashMap::new(),
        };
        for row in found {
            let id = row.try_get("id")?;
            if let Some(external_id) = row.try_get("external_id")? {
                assets.by_external_id.insert(external_id, id);
            }
            assets.by_code.insert(row.try_get("code")?, id);
        }
        if begun.run.dry_run {
            assets.find_coming(tx, begun, &external_ids, &codes).await?;
        }
        Ok(assets)
    }

    /// One row may give an asset both of its names, or a new name to one that is there.
    async fn find_coming(
        &mut self,
        tx: &Tx,
        begun: &Begun,
        external_ids: &[&str],
        codes: &[&str],
    ) -> Result<()> {
        let there: HashMap<String, AssetId> =
            self.by_code.values().map(|id| (format!("a:{id}"), *id)).collect();
        let names = external_ids.iter().map(|id| format!("e:{id}"));
        let names = names.chain(codes.iter().map(|code| format!("c:{code}")));
        let keys: Vec<String> = names.chain(there.keys().cloned()).collect();
        let rows: Vec<Row> = tx
            .all(
                "SELECT found.* FROM UNNEST($2::text[]) AS given (key)
                 CROSS JOIN LATERAL (SELECT key, \"row\" FROM import_key WHERE run_id = $1 AND key = given.key LIMIT 1) AS found",
                &[&begun.run.id, &keys],
            )
            .await?;
        let mut changing: HashMap<i32, AssetId> = HashMap::new();
        let mut rows_of = Vec::with_capacity(rows.len());
        for row in &rows {
            let (key, number): (String, i32) = (row.try_get("key")?, row.try_get("row")?);
            match there.get(&key) {
                Some(id) => drop(changing.insert(number, *id)),
                None => rows_of.push((key, number)),
            }
        }
        let found =
            |row: i32| changing.get(&row).map_or(Found::Coming(row), |id| Found::Asset(*id));
        self.coming = rows_of.into_iter().map(|(key, row)| (key, found(row))).collect();
        Ok(())
    }

    fn of_row(&self, row: &DependencyRow) -> Result<(Found, Found), Vec<FieldError>> {
        let mut faults = Vec::new();
        let source = self.resolve(&row.source, "source", &mut faults);
        let target = self.resolve(&row.target, "target", &mut faults);
        let (Some(source), Some(target)) = (source, target) else { return Err(faults) };
        if source.key() == target.key() {
            let message = "is the source itself: an asset cannot need itself";
            return Err(vec![FieldError::new(row.target.column("target"), message)]);
        }
        Ok((source, target))
    }

    fn resolve(&self, name: &Name, side: &str, faults: &mut Vec<FieldError>) -> Option<Found> {
        let Name { external_id, code } = name;
        let column = name.column(side);
        let by_external_id =
            external_id.as_ref().map(|id| self.find(&self.by_external_id, "e", id));
        let by_code = code.as_ref().map(|code| self.find(&self.by_code, "c", code));
        let message = match (by_external_id, by_code) {
            (None, None) => format!("is missing: give {side}_external_id or {side}_code"),
            (Some(Some(one)), Some(Some(other))) if one.key() != other.key() => {
                format!("is another asset than that of {side}_code")
            }
            (Some(Some(found)), _) | (None, Some(Some(found))) => return Some(found),
            // An external id counts first; the code of another system may be the same by chance.
            (Some(None), _) => {
                format!("there is no asset with the external id {:?}", text(external_id.as_deref()))
            }
            (None, Some(None)) => {
                format!("there is no asset with the code {:?}", text(code.as_deref()))
            }
        };
        faults.push(FieldError::new(column, message));
        None
    }

    fn find(&self, known: &HashMap<String, AssetId>, kind: &str, name: &str) -> Option<Found> {
        let coming = || self.coming.get(&format!("{kind}:{name}")).cloned();
        known.get(name).map(|id| Found::Asset(*id)).or_else(coming)
    }
}

fn text(name: Option<&str>) -> Cow<'_, str> {
    beginning(name.unwrap_or_default())
}

impl Name {
    /// The column to blame.
    fn column(&self, side: &str) -> String {
        let is_by_code = self.external_id.is_none() && self.code.is_some();
        format!("{side}_{}", if is_by_code { "code" } else { "external_id" })
    }
}

/// The dependencies that are there already, locked.
async fn known(
    tx: &Tx,
    rows: &[(DependencyRow, Found, Found)],
) -> Result<HashMap<(AssetId, AssetId), Dependency>> {
    let pairs = rows.iter().filter_map(|(_, source, target)| match (source, target) {
        (Found::Asset(source), Found::Asset(target)) => Some((*source, *target)),
        (Found::Coming(_), _) | (_, Found::Coming(_)) => None,
    });
    let (sources, targets): (Vec<AssetId>, Vec<AssetId>) = pairs.unzip();
    let found = Dependency::lock_all(tx, &sources, &targets).await?;
    Ok(found.into_iter().map(|one| ((one.source_id, one.target_id), one)).collect())
}
