//! Jobs that have not ended, as the domain asks for them: whether there are any of a kind, and taking back what waits.
//!
//! Every statement by which the domain asks for jobs of a kind stands here, and so does every kind that it asks for: the jobs
//! are pushed under the same constants, so that a kind which is renamed is still found.

use tokio_postgres::Row;

use crate::base::{
    db::{Fleet, Tx},
    entity::OrganizationId,
    error::Result,
};

/// A kind of jobs that the domain asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobKind(&'static str);

impl JobKind {
    /// Jobs that judge a range of a run's assets; their subject is the run.
    pub const RUN_SHARD: Self = Self("scan.shard");
    /// Jobs that judge again what changed.
    pub const REEVALUATE: Self = Self("scan.follow");
    /// Jobs that judge a range of all assets again.
    pub const REFRESH: Self = Self("scan.refresh");

    /// The text that is stored.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Deletes the jobs of this kind that wait or are scheduled; those that run are left alone.
pub async fn cancel_all(tx: &Tx, kind: JobKind) -> Result<()> {
    let sql = "DELETE FROM job WHERE kind = $1 AND state IN ('WAITING', 'SCHEDULED')";
    tx.exec(sql, &[&kind.as_str()]).await.map(drop)
}

/// As [`cancel_all`], but only the jobs about this subject.
pub async fn cancel_of(tx: &Tx, kind: JobKind, subject: &str) -> Result<()> {
    let sql =
        "DELETE FROM job WHERE kind = $1 AND subject = $2 AND state IN ('WAITING', 'SCHEDULED')";
    tx.exec(sql, &[&kind.as_str(), &subject]).await.map(drop)
}

/// Whether a job of this kind waits, is scheduled or runs.
pub async fn is_any(tx: &Tx, kind: JobKind) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM job WHERE kind = $1 AND state IN ('WAITING', 'SCHEDULED', 'RUNNING')) AS any";
    Ok(tx.one::<Row>(sql, &[&kind.as_str()]).await?.try_get("any")?)
}

/// The organizations among these in which no job of this kind waits, is scheduled or runs, and none was buried within the last
/// ten minutes.
pub async fn without_any(
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
