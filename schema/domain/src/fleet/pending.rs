//! Statements of other modules of this crate on the jobs of a kind: do any wait or run, and cancel those that wait.
//!
//! Every such statement and every such kind is defined here. Jobs are pushed under the same constants, so a renamed
//! kind is still found.

use tokio_postgres::Row;

use crate::base::{
    db::{Fleet, Tx},
    entity::OrganizationId,
    error::Result,
};

/// Job kind that other modules of this crate query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobKind(&'static str);

impl JobKind {
    /// Jobs that evaluate a shard (a range of the assets) of a compliance run. Their subject is the run.
    pub const RUN_SHARD: Self = Self("scan.shard");
    /// Jobs that re-evaluate assets after changes.
    pub const REEVALUATE: Self = Self("scan.follow");
    /// Jobs that re-evaluate a range of all assets.
    pub const REFRESH: Self = Self("scan.refresh");

    /// Returns the kind as stored in the database.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Deletes the waiting and scheduled jobs of the kind. Running jobs continue.
pub async fn cancel_all(tx: &Tx, kind: JobKind) -> Result<()> {
    let sql = "DELETE FROM job WHERE kind = $1 AND state IN ('WAITING', 'SCHEDULED')";
    tx.exec(sql, &[&kind.as_str()]).await.map(drop)
}

/// Deletes the waiting and scheduled jobs of the kind that are about the subject. Running jobs continue.
pub async fn cancel_of_subject(tx: &Tx, kind: JobKind, subject: &str) -> Result<()> {
    let sql =
        "DELETE FROM job WHERE kind = $1 AND subject = $2 AND state IN ('WAITING', 'SCHEDULED')";
    tx.exec(sql, &[&kind.as_str(), &subject]).await.map(drop)
}

/// Returns true if a job of the kind is waiting, scheduled or running.
pub async fn exists(tx: &Tx, kind: JobKind) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM job WHERE kind = $1 AND state IN ('WAITING', 'SCHEDULED', 'RUNNING')) AS any";
    Ok(tx.one::<Row>(sql, &[&kind.as_str()]).await?.try_get("any")?)
}

/// Returns the organizations among `organizations` in which no job of the kind is waiting, scheduled or running, and
/// none was buried (dead-lettered) within the last ten minutes.
pub async fn organizations_without(
    tx: &Tx<Fleet>,
    kind: JobKind,
    organizations: &[OrganizationId],
) -> Result<Vec<OrganizationId>> {
    if organizations.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = tx
        .all(
            "SELECT id FROM UNNEST($2::uuid[]) AS asked (id)
             WHERE NOT EXISTS (SELECT FROM job WHERE job.org_id = asked.id AND job.kind = $1
                                 AND (job.state <> 'BURIED' OR job.changed_at > now() - interval '10 minutes'))",
            &[&kind.as_str(), &organizations],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}
