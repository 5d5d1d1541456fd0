//! Job history: the jobs that have ended, in one partition per day. Partitions are created ahead, and dropped after the
//! retention.

use domain::{Result, Tx, base::db::Fleet};

/// Creates the partitions of the coming days, and drops those that are older than `retention_days`.
pub async fn rotate(tx: &Tx<Fleet>, retention_days: u16) -> Result<()> {
    let sql = "SELECT count(*) AS dropped FROM job_history_rotate($1)";
    tx.one::<tokio_postgres::Row>(sql, &[&i32::from(retention_days)]).await.map(drop)
}
