//! What is to be judged anew, and why: written in the transaction of the change, taken by whoever judges.

use tokio_postgres::Row;

use crate::{
    base::{
        db::{Fleet, Tx},
        entity::OrganizationId,
        error::Result,
    },
    fleet::pending::{self, JobKind},
};

/// The organizations in which something waits and nobody was asked to judge it, or whoever was asked failed ten minutes ago.
pub async fn waiting(tx: &Tx<Fleet>) -> Result<Vec<OrganizationId>> {
    let sql = "SELECT id FROM organization WHERE EXISTS (SELECT FROM posture_due WHERE posture_due.org_id = organization.id)";
    let rows: Vec<Row> = tx.all(sql, &[]).await?;
    let waiting: Vec<_> = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    pending::without_any(tx, JobKind::REEVALUATE, &waiting).await
}

/// Whether everybody is being judged anew, or is to be.
pub(crate) async fn is_refreshing(tx: &Tx) -> Result<bool> {
    if pending::is_any(tx, JobKind::REFRESH).await? {
        return Ok(true);
    }
    let sql = "SELECT EXISTS (SELECT FROM posture_due WHERE asset_id IS NULL AND owner_id IS NULL) AS any";
    Ok(tx.one::<Row>(sql, &[]).await?.try_get("any")?)
}

/// Takes back what asks for judging everybody anew and has not begun: it is asked for again, all of it.
pub async fn cancel_pending_refresh(tx: &Tx) -> Result<()> {
    pending::cancel_all(tx, JobKind::REFRESH).await
}
