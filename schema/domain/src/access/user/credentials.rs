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

/// The person or organization that sets a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetBy {
    /// The account's owner, in this session.
    Owner(SessionId),
    /// An organization, or the installation's operator.
    Organization,
}

impl User {
    /// Stores a new password hash, unlocks the account, and ends the account's sessions except that of the owner who
    /// sets it.
    pub(crate) async fn set_password(
        tx: &Tx<Auth>,
        id: UserId,
        hash: &str,
        set_by: SetBy,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let current_session = match set_by {
            SetBy::Owner(session) => Some(session),
            SetBy::Organization => None,
        };
        let row: Row = tx
            .one(
                "UPDATE \"user\" SET password_hash = $2, password_changed_at = $3, password_own = $4
                 WHERE id = $1 RETURNING email",
                &[&id, &hash, &now, &current_session.is_some()],
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

    /// Changes a user's e-mail from the command line. Each organization in which the user is active gets an audit entry.
    ///
    /// # Errors
    /// `Conflict` if the new e-mail has an account.
    pub async fn set_email(tx: &Tx<Auth>, id: UserId, email: &str) -> Result<()> {
        let sql = "SELECT email FROM \"user\" WHERE id = $1 FOR UPDATE";
        let row: Row = tx.one(sql, &[&id]).await?;
        let before: String = row.try_get("email")?;
        tx.exec("UPDATE \"user\" SET email = $2 WHERE id = $1", &[&id, &email]).await?;
        for organization in Organization::of_user(tx, id).await? {
            let (before, after) = (json!({ "email": before }), json!({ "email": email }));
            Entry::changed("user.updated", id, before, after)
                .record_in(tx, organization.id)
                .await?;
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
        Self::set_password(tx, id, hash, SetBy::Organization, now).await?;
        for organization in Organization::of_user(tx, id).await? {
            Entry::without_values("user.password_reset", id).record_in(tx, organization.id).await?;
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
        Entry::changed("user.updated", id, before, after).record_in(tx, org).await
    }
}
