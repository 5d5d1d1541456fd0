//! What is to be judged anew, and why: written in the transaction of the change, taken by whoever judges.

use tokio_postgres::Row;

use crate::base::{
    db::{Fleet, Tx},
    entity::OrganizationId,
    error::Result,
};

/// The organizations in which something waits and no job of this kind does, or was just buried.
pub async fn waiting(tx: &Tx<Fleet>, kind: &str) -> Result<Vec<OrganizationId>> {
    let rows: Vec<Row> = tx
        .all(
            "SELECT id FROM organization WHERE EXISTS (SELECT FROM posture_due WHERE posture_due.org_id = organization.id)
               AND NOT EXISTS (SELECT FROM job WHERE job.org_id = organization.id AND job.kind = $1
                                 AND (job.state <> 'BURIED' OR job.changed_at > now() - interval '10 minutes'))",
            &[&kind],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// The kind of the jobs that judge everybody anew.
pub const REFRESH: &str = "scan.refresh";

/// Whether everybody is being judged anew, or is to be.
pub(crate) async fn is_refreshing(tx: &Tx) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM job WHERE kind = $1 AND state IN ('WAITING', 'SCHEDULED', 'RUNNING'))
                   OR EXISTS (SELECT FROM posture_due WHERE asset_id IS NULL AND owner_id IS NULL) AS any";
    Ok(tx.one::<Row>(sql, &[&REFRESH]).await?.try_get("any")?)
}

/// Takes back what asks for judging everybody anew and has not begun: it is asked for again, all of it.
pub async fn take_back_refresh(tx: &Tx) -> Result<()> {
    tx.exec("DELETE FROM job WHERE kind = $1 AND state IN ('WAITING', 'SCHEDULED')", &[&REFRESH])
        .await?;
    Ok(())
}
