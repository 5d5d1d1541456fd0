//! Credentials of a user: the password and the second factor. A new password unlocks the account and ends its sessions.

use chrono::{DateTime, Utc};
use serde_json::json;
use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        login::LockoutCounter,
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
    /// Stores a new password hash, unlocks the account, and ends the account's sessions except `current_session`.
    pub async fn set_password(
        tx: &Tx<Auth>,
        id: UserId,
        hash: &str,
        current_session: Option<SessionId>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let row: Row = tx
            .one(
                "UPDATE \"user\" SET password_hash = $2, password_changed_at = $3 WHERE id = $1 RETURNING email",
                &[&id, &hash, &now],
            )
            .await?;
        LockoutCounter::clear_account(tx, id, row.try_get("email")?).await?;
        for session in Session::of_user(tx, id, now).await? {
            if Some(session.id) != current_session {
                session.end(tx, EndReason::PasswordChanged, now).await?;
            }
        }
        Ok(())
    }

    /// Resets a password from the command line. Each organization in which the user is active gets an audit entry.
    pub async fn reset_password(
        tx: &Tx<Auth>,
        id: UserId,
        hash: &str,
        now: DateTime<Utc>,
    ) -> Result<()> {
        Self::set_password(tx, id, hash, None, now).await?;
        for organization in Organization::of_user(tx, id).await? {
            Entry::without_values("user.password_reset", id)
                .record_in(tx, organization.id, now)
                .await?;
        }
        Ok(())
    }

    /// Stores whether a user has enrolled a second factor. Compliance rules can require a second factor of asset
    /// owners, so the assets that the user owns are marked for re-evaluation.
    pub async fn set_mfa_enabled(
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
