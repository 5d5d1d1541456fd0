//! Imports a chunk of dependencies. The source and the target of a row are found by external id or, if the row has
//! none, by short code. The dependency between the two is then inserted or updated.

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
    dedupe::{RowKeys, keep_first},
    row::{self, Cells, EnumValue},
    state::{ClaimedChunk, Outcome},
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

impl EnumValue for Criticality {
    fn name(&self) -> &'static str {
        self.as_str()
    }
}

/// Identifiers of the source or target of a row.
#[derive(Debug, Default)]
struct AssetRef {
    external_id: Option<String>,
    code: Option<String>,
}

/// Parsed values of a row of dependencies.
#[derive(Debug)]
struct DependencyRow {
    number: i32,
    source: AssetRef,
    target: AssetRef,
    kind: MaybeUndefined<String>,
    criticality: MaybeUndefined<Criticality>,
}

impl DependencyRow {
    fn of(Cells { number, cells }: Cells) -> Result<Self, Vec<RowError>> {
        let mut row = Self {
            number,
            source: AssetRef::default(),
            target: AssetRef::default(),
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
        if faults.is_empty() { Ok(row) } else { Err(row::to_row_errors(number, faults)) }
    }

    fn set(&mut self, field: DependencyField, value: Value, faults: &mut Vec<FieldError>) {
        let name = field.name();
        let optional = |value, rule, faults: &mut Vec<FieldError>| {
            let text = row::text_value(name, value, faults).take();
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
                self.kind = match row::text_value(name, value, faults) {
                    MaybeUndefined::Value(kind) => check_optional(name, Some(&kind), KIND, faults)
                        .map_or(Null, MaybeUndefined::Value),
                    other => other,
                };
            }
            DependencyField::Criticality => {
                self.criticality = row::enum_value(name, value, Criticality::ALL, faults);
            }
        }
    }
}

/// The source or target of a row.
#[derive(Debug, Clone)]
enum Found {
    Asset(AssetId),
    /// In a dry run, an asset that an earlier row would create; the number is that of the row.
    Planned(i32),
}

impl Found {
    fn key(&self) -> String {
        match self {
            Self::Asset(id) => id.to_string(),
            Self::Planned(row) => format!("row {row}"),
        }
    }
}

/// Effect of a row of dependencies on the inventory.
enum RowEffect {
    New(Dependency),
    Changed(Dependency, Dependency),
    Same,
    /// In a dry run, a new dependency of or on an asset that an earlier row would create.
    Planned,
}

/// Imports the rows of the chunk. The outcome contains an error for each row that cannot be imported.
pub(super) async fn apply(tx: &Tx, claimed: &ClaimedChunk, now: DateTime<Utc>) -> Result<Outcome> {
    let run = &claimed.run;
    let mut outcome = Outcome::default();
    let mut rows = Vec::with_capacity(claimed.chunk.numbers.len());
    for read in row::read(&claimed.table, run.format, run.empty_cells, &claimed.chunk)? {
        match read.and_then(DependencyRow::of) {
            Ok(row) => rows.push(row),
            Err(errors) => outcome.faults.extend(errors),
        }
    }
    let assets = Assets::of_rows(tx, claimed, &rows).await?;
    let mut resolved = Vec::with_capacity(rows.len());
    for row in rows {
        match assets.of_row(&row) {
            Ok((source, target)) => {
                let names = vec![format!("d:{} {}", source.key(), target.key())];
                let keys = RowKeys { names, ..RowKeys::default() };
                resolved.push((row.number, keys, (row, source, target)));
            }
            Err(errors) => {
                let errors = errors.into_iter().map(|fault| row::to_row_error(row.number, fault));
                outcome.faults.extend(errors);
            }
        }
    }
    let resolved = keep_first(tx, run.id, "this dependency", resolved, &mut outcome.faults).await?;
    let existing = existing(tx, &resolved).await?;
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for (row, source, target) in resolved {
        match row_effect(row, &source, &target, &existing, now) {
            RowEffect::New(dependency) => added.push(dependency),
            RowEffect::Changed(before, after) => changed.push((before, after)),
            RowEffect::Same => outcome.unchanged += 1,
            RowEffect::Planned => outcome.created += 1,
        }
    }
    outcome.created += super::count(&added);
    outcome.updated = super::count(&changed);
    if !run.dry_run {
        insert_all(tx, &added).await?;
        update_all(tx, &changed).await?;
    }
    Ok(outcome)
}

fn row_effect(
    row: DependencyRow,
    source: &Found,
    target: &Found,
    existing: &HashMap<(AssetId, AssetId), Dependency>,
    now: DateTime<Utc>,
) -> RowEffect {
    let (Found::Asset(source_id), Found::Asset(target_id)) = (source, target) else {
        return RowEffect::Planned;
    };
    let Some(before) = existing.get(&(*source_id, *target_id)) else {
        return RowEffect::New(Dependency {
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
    if after == *before { RowEffect::Same } else { RowEffect::Changed(before.clone(), after) }
}

/// The sources and targets of the rows, by identifier.
struct Assets {
    by_external_id: HashMap<String, AssetId>,
    by_code: HashMap<String, AssetId>,
    /// In a dry run, the assets to which earlier rows would give an identifier, by the key of that identifier.
    planned: HashMap<String, Found>,
}

impl Assets {
    /// Finds and locks the assets, so that none is deleted meanwhile. Locks the rows in the order of ids, like all
    /// transactions that lock several assets.
    async fn of_rows(tx: &Tx, claimed: &ClaimedChunk, rows: &[DependencyRow]) -> Result<Self> {
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
            planned: HashMap::new(),
        };
        for row in found {
            let id = row.try_get("id")?;
            if let Some(external_id) = row.try_get("external_id")? {
                assets.by_external_id.insert(external_id, id);
            }
            assets.by_code.insert(row.try_get("code")?, id);
        }
        if claimed.run.dry_run {
            assets.find_planned(tx, claimed, &external_ids, &codes).await?;
        }
        Ok(assets)
    }

    /// In a dry run, finds the identifiers that earlier rows would give to assets. A row can give an external id and a
    /// code to a new asset, or a new external id to an existing asset.
    async fn find_planned(
        &mut self,
        tx: &Tx,
        claimed: &ClaimedChunk,
        external_ids: &[&str],
        codes: &[&str],
    ) -> Result<()> {
        let existing_keys: HashMap<String, AssetId> =
            self.by_code.values().map(|id| (format!("a:{id}"), *id)).collect();
        let names = external_ids.iter().map(|id| format!("e:{id}"));
        let names = names.chain(codes.iter().map(|code| format!("c:{code}")));
        let keys: Vec<String> = names.chain(existing_keys.keys().cloned()).collect();
        let rows: Vec<Row> = tx
            .all(
                "SELECT found.* FROM UNNEST($2::text[]) AS given (key)
                 CROSS JOIN LATERAL (SELECT key, \"row\" FROM import_key WHERE run_id = $1 AND key = given.key LIMIT 1) AS found",
                &[&claimed.run.id, &keys],
            )
            .await?;
        let mut changed_assets: HashMap<i32, AssetId> = HashMap::new();
        let mut named_rows = Vec::with_capacity(rows.len());
        for row in &rows {
            let (key, number): (String, i32) = (row.try_get("key")?, row.try_get("row")?);
            match existing_keys.get(&key) {
                Some(id) => drop(changed_assets.insert(number, *id)),
                None => named_rows.push((key, number)),
            }
        }
        let found =
            |row: i32| changed_assets.get(&row).map_or(Found::Planned(row), |id| Found::Asset(*id));
        self.planned = named_rows.into_iter().map(|(key, row)| (key, found(row))).collect();
        Ok(())
    }

    fn of_row(&self, row: &DependencyRow) -> Result<(Found, Found), Vec<FieldError>> {
        let mut faults = Vec::new();
        let source = self.resolve(&row.source, "source", &mut faults);
        let target = self.resolve(&row.target, "target", &mut faults);
        let (Some(source), Some(target)) = (source, target) else { return Err(faults) };
        if source.key() == target.key() {
            let message = "is the source itself: an asset cannot depend on itself";
            return Err(vec![FieldError::new(row.target.column("target"), message)]);
        }
        Ok((source, target))
    }

    fn resolve(&self, name: &AssetRef, side: &str, faults: &mut Vec<FieldError>) -> Option<Found> {
        let AssetRef { external_id, code } = name;
        let column = name.column(side);
        let by_external_id =
            external_id.as_ref().map(|id| self.find(&self.by_external_id, "e", id));
        let by_code = code.as_ref().map(|code| self.find(&self.by_code, "c", code));
        let message = match (by_external_id, by_code) {
            (None, None) => format!("is missing: fill in {side}_external_id or {side}_code"),
            (Some(Some(one)), Some(Some(other))) if one.key() != other.key() => {
                format!(
                    "is the external id of another asset than the one with {side}_code: correct one of the two"
                )
            }
            (Some(Some(found)), _) | (None, Some(Some(found))) => return Some(found),
            // The code is ignored if the external id is unknown: the code may come from another system, and be equal to
            // that of another asset by chance.
            (Some(None), _) => {
                format!(
                    "there is no asset with the external id {:?}",
                    quoted(external_id.as_deref())
                )
            }
            (None, Some(None)) => {
                format!("there is no asset with the code {:?}", quoted(code.as_deref()))
            }
        };
        faults.push(FieldError::new(column, message));
        None
    }

    fn find(&self, known: &HashMap<String, AssetId>, kind: &str, name: &str) -> Option<Found> {
        let planned = || self.planned.get(&format!("{kind}:{name}")).cloned();
        known.get(name).map(|id| Found::Asset(*id)).or_else(planned)
    }
}

fn quoted(name: Option<&str>) -> Cow<'_, str> {
    beginning(name.unwrap_or_default())
}

impl AssetRef {
    /// Returns the column to which an error about this source or target refers.
    fn column(&self, side: &str) -> String {
        let is_by_code = self.external_id.is_none() && self.code.is_some();
        format!("{side}_{}", if is_by_code { "code" } else { "external_id" })
    }
}

/// Locks and returns the existing dependencies between the rows' assets.
async fn existing(
    tx: &Tx,
    rows: &[(DependencyRow, Found, Found)],
) -> Result<HashMap<(AssetId, AssetId), Dependency>> {
    let pairs = rows.iter().filter_map(|(_, source, target)| match (source, target) {
        (Found::Asset(source), Found::Asset(target)) => Some((*source, *target)),
        (Found::Planned(_), _) | (_, Found::Planned(_)) => None,
    });
    let (sources, targets): (Vec<AssetId>, Vec<AssetId>) = pairs.unzip();
    let found = Dependency::lock_all(tx, &sources, &targets).await?;
    Ok(found.into_iter().map(|one| ((one.source_id, one.target_id), one)).collect())
}
