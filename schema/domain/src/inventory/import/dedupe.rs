//! Each asset and each dependency once a run: the first row that is about it counts, and the others are told so.
//!
//! Here and wherever an import looks up many keys, each is looked up by itself (`LATERAL … LIMIT`). With `= ANY` and the
//! statistics of an empty table, Postgres compared every row of the run with every key: 65 % of an import's time.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::{RowError, row};
use crate::base::{db::Tx, entity::ImportRunId, error::Result};

/// What a row is about.
#[derive(Debug, Default)]
pub(super) struct Subject {
    /// Its names, kept for the rows to come.
    pub(super) names: Vec<String>,
    /// Names that it had before: an earlier row may have used them.
    pub(super) others: Vec<String>,
    /// The column to blame.
    pub(super) column: Option<&'static str>,
}

/// The rows whose subject no earlier one of the run was about, in their order.
pub(super) async fn keep_first<T>(
    tx: &Tx,
    run: ImportRunId,
    what: &str,
    rows: Vec<(i32, Subject, T)>,
    faults: &mut Vec<RowError>,
) -> Result<Vec<T>> {
    let first = first_rows(tx, run, &rows).await?;
    let mut kept = Vec::with_capacity(rows.len());
    for (number, subject, row) in rows {
        let mut names = subject.names.iter().chain(&subject.others);
        match names.find_map(|name| first.get(name).filter(|row| **row != number)) {
            Some(before) => faults.push(row::fault(
                number,
                subject.column.map(str::to_owned),
                format!("{what} stands in row {before} already: only that row counts"),
            )),
            None => kept.push(row),
        }
    }
    Ok(kept)
}

/// Which row of the run used each name first.
async fn first_rows<T>(
    tx: &Tx,
    run: ImportRunId,
    rows: &[(i32, Subject, T)],
) -> Result<HashMap<String, i32>> {
    let (mut names, mut numbers, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (number, subject, _) in rows {
        names.extend(subject.names.iter().map(String::as_str));
        numbers.extend(subject.names.iter().map(|_| *number));
        all.extend(subject.others.iter().map(String::as_str));
    }
    tx.exec(
        "INSERT INTO import_key (org_id, run_id, key, \"row\")
         SELECT $1, $2, key, \"row\" FROM UNNEST($3::text[], $4::int[]) WITH ORDINALITY AS given (key, \"row\", place)
         ORDER BY place ON CONFLICT DO NOTHING",
        &[&tx.org(), &run, &names, &numbers],
    )
    .await?;
    all.extend(names);
    let first: Vec<Row> = tx
        .all(
            "SELECT found.* FROM UNNEST($2::text[]) AS given (key)
             CROSS JOIN LATERAL (SELECT key, \"row\" FROM import_key WHERE run_id = $1 AND key = given.key LIMIT 1) AS found",
            &[&run, &all],
        )
        .await?;
    first.iter().map(|row| Ok((row.try_get("key")?, row.try_get("row")?))).collect()
}
