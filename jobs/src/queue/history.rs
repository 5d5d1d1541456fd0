//! What became of jobs, by the day: partitions are made ahead, and dropped when they are old.

use domain::{Result, Tx, base::db::Fleet};

/// Makes the partitions of the days to come and drops those older than `keep_days`.
pub async fn rotate(tx: &Tx<Fleet>, keep_days: u16) -> Result<()> {
    let sql = "SELECT count(*) AS dropped FROM job_history_rotate($1)";
    tx.one::<tokio_postgres::Row>(sql, &[&i32::from(keep_days)]).await.map(drop)
}
