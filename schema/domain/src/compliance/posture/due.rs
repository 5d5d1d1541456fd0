//! Changes that wait for re-evaluation: the table `posture_due`. Each row is inserted in the transaction of the change,
//! and deleted in the transaction that re-evaluates the assets. The row of a change of all assets is deleted in the
//! transaction that pushes the refresh jobs.

use tokio_postgres::Row;

use crate::{
    base::{
        db::{Fleet, Tx},
        entity::OrganizationId,
        error::Result,
    },
    fleet::pending::{self, JobKind},
};

/// Returns the organizations that have waiting changes, but no re-evaluation job that is waiting, scheduled or running.
/// A job that was buried (dead-lettered) within the last ten minutes counts as well, so that it is not pushed again
/// immediately.
pub async fn waiting(tx: &Tx<Fleet>) -> Result<Vec<OrganizationId>> {
    let sql = "SELECT id FROM organization WHERE EXISTS (SELECT FROM posture_due WHERE posture_due.org_id = organization.id)";
    let rows: Vec<Row> = tx.all(sql, &[]).await?;
    let waiting: Vec<_> = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    pending::organizations_without(tx, JobKind::REEVALUATE, &waiting).await
}

/// Returns true while a refresh (the re-evaluation of all assets) is requested, or while a refresh job is waiting,
/// scheduled or running.
pub(crate) async fn is_refreshing(tx: &Tx) -> Result<bool> {
    if pending::exists(tx, JobKind::REFRESH).await? {
        return Ok(true);
    }
    let sql = "SELECT EXISTS (SELECT FROM posture_due WHERE asset_id IS NULL AND owner_id IS NULL) AS any";
    Ok(tx.one::<Row>(sql, &[]).await?.try_get("any")?)
}

/// Deletes the refresh jobs that have not started. The caller must push jobs for a complete refresh afterwards.
pub async fn cancel_pending_refresh(tx: &Tx) -> Result<()> {
    pending::cancel_all(tx, JobKind::REFRESH).await
}
