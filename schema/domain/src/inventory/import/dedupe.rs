//! Deduplication: a run imports each asset and each dependency once. The first row is imported; later rows for the same
//! asset or dependency become errors.
//!
//! Wherever an import looks up many keys, the SQL has one lookup per key (`LATERAL … LIMIT`). With `= ANY` and the
//! statistics of an empty table, Postgres compared every row of the run with every key, which took 65 % of an import's
//! time.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::{RowError, row};
use crate::base::{db::Tx, entity::ImportRunId, error::Result};

/// Keys by which a row is compared with earlier rows of the run.
#[derive(Debug, Default)]
pub(super) struct RowKeys {
    /// Keys of the row's asset or dependency. They are stored, and later rows with one of them are rejected.
    pub(super) names: Vec<String>,
    /// Other keys of the same asset, which only the row that creates the asset stores. They are compared but not
    /// stored.
    pub(super) earlier: Vec<String>,
    /// Column to which the error of a repeated row refers.
    pub(super) column: Option<&'static str>,
}

/// Returns the rows without a key that an earlier row of the run stored, in order. Adds an error to `faults` for each
/// other row. `what` names the asset or dependency in the message.
pub(super) async fn keep_first<T>(
    tx: &Tx,
    run: ImportRunId,
    what: &str,
    rows: Vec<(i32, RowKeys, T)>,
    faults: &mut Vec<RowError>,
) -> Result<Vec<T>> {
    let first = first_rows(tx, run, &rows).await?;
    let mut stored = Vec::with_capacity(rows.len());
    for (number, keys, row) in rows {
        let mut names = keys.names.iter().chain(&keys.earlier);
        match names.find_map(|name| first.get(name).filter(|row| **row != number)) {
            Some(before) => faults.push(row::row_error(
                number,
                keys.column.map(str::to_owned),
                format!("{what} is already in row {before}, and only that row is imported"),
            )),
            None => stored.push(row),
        }
    }
    Ok(stored)
}

/// Stores the keys of these rows. Returns the number of the first row of the run that stored each key.
async fn first_rows<T>(
    tx: &Tx,
    run: ImportRunId,
    rows: &[(i32, RowKeys, T)],
) -> Result<HashMap<String, i32>> {
    let (mut names, mut numbers, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (number, keys, _) in rows {
        names.extend(keys.names.iter().map(String::as_str));
        numbers.extend(keys.names.iter().map(|_| *number));
        all.extend(keys.earlier.iter().map(String::as_str));
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
