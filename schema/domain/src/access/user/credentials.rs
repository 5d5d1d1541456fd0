//! Credentials of a person: a new password, which unlocks the account and ends its sessions, and the second factor.

use chrono::{DateTime, Utc};
use serde_json::json;
use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        login::Guard,
        organization::Organization,
        session::{EndReason, Session},
        user::User,
    },
    base::{
        db::{Auth, Tx},
        entity::{OrganizationId, SessionId, UserId},
        error::Result,
        stale,
    },
};

impl User {
    /// Stores a new password, unlocks the account, ends its sessions but one.
    pub async fn set_password(
        tx: &Tx<Auth>,
        id: UserId,
        hash: &str,
        keep: Option<SessionId>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let row: Row = tx
            .one(
                "UPDATE \"user\" SET password_hash = $2, password_changed_at = $3 WHERE id = $1 RETURNING email",
                &[&id, &hash, &now],
            )
            .await?;
        Guard::clear_account(tx, id, row.try_get("email")?).await?;
        for session in Session::of_user(tx, id, now).await? {
            if Some(session.id) != keep {
                session.end(tx, EndReason::PasswordChanged, now).await?;
            }
        }
        Ok(())
    }

    /// Sets a password from the command line, for all organizations that the person belongs to.
    pub async fn reset_password(
        tx: &Tx<Auth>,
        id: UserId,
        hash: &str,
        now: DateTime<Utc>,
    ) -> Result<()> {
        Self::set_password(tx, id, hash, None, now).await?;
        for organization in Organization::of_user(tx, id).await? {
            Entry::happened("user.password_reset", id).record_in(tx, organization.id, now).await?;
        }
        Ok(())
    }

    /// Notes whether somebody signs in with a second factor, which rules ask of owners.
    pub async fn note_mfa(
        tx: &Tx<Auth>,
        org: OrganizationId,
        id: UserId,
        enabled: bool,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let changed = tx
            .exec(
                "UPDATE \"user\" SET mfa_enabled = $2 WHERE id = $1 AND mfa_enabled <> $2",
                &[&id, &enabled],
            )
            .await?;
        if changed == 0 {
            return Ok(());
        }
        let sql = "SELECT org_id FROM membership WHERE user_id = $1";
        let memberships: Vec<Row> = tx.all(sql, &[&id]).await?;
        for membership in &memberships {
            stale::mark_owner(tx, membership.try_get("org_id")?, id, "owner.mfa_enabled").await?;
        }
        let (before, after) = (json!({ "mfaEnabled": !enabled }), json!({ "mfaEnabled": enabled }));
        Entry::changed("user.updated", id, before, after).record_in(tx, org, now).await
    }
}
