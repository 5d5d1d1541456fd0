//! Sessions, one per sign-in. Every request reads its session's row, so a session that has ended is rejected on the
//! next request.
//!
//! Each refresh token of a session works once. A second use means that the token was copied, and ends the session for
//! both the user and the thief. The session's lifetime is fixed at sign-in: refreshing does not extend it.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        organization::Organization,
        role::{self, HELD},
        token::{Claims, digest, opaque},
        viewer::Viewer,
    },
    base::{
        actor::Actor,
        db::{Auth, FromRow, Tx},
        entity::{OrganizationId, SessionId, UserId},
        error::{Error, Result},
        id::Id,
    },
};

/// Lifetimes of sessions and tokens, and the maximum number of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionPolicy {
    /// Lifetime of an access token.
    pub access_lifetime: TimeDelta,
    /// Lifetime of a session and of its refresh tokens.
    pub session_lifetime: TimeDelta,
    /// Time without a request after which a session ends; `None` disables this limit.
    pub idle: Option<TimeDelta>,
    /// Maximum number of concurrent sessions of a user.
    pub max_per_user: i64,
    /// Maximum number of concurrent sessions of a user with `USER_MANAGE`.
    pub max_per_admin: i64,
}

/// A session: one sign-in of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session's id, beginning `ses_`.
    pub id: SessionId,
    /// The organization that the session is signed in to.
    pub org: OrganizationId,
    /// The user who signed in.
    pub user: UserId,
    /// Client address of the sign-in.
    pub source_ip: String,
    /// Time at which the user signed in.
    pub created_at: DateTime<Utc>,
    /// Time of the last use, to the minute.
    pub last_seen_at: DateTime<Utc>,
    /// Time at which the session expires, however often it is used.
    pub expires_at: DateTime<Utc>,
    /// Number of times that the session has switched its organization.
    pub(crate) generation: i32,
}

impl FromRow for Session {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            org: row.try_get("org_id")?,
            user: row.try_get("user_id")?,
            source_ip: row.try_get("source_ip")?,
            created_at: row.try_get("created_at")?,
            last_seen_at: row.try_get("last_seen_at")?,
            expires_at: row.try_get("expires_at")?,
            generation: row.try_get("generation")?,
        })
    }
}

/// Reason why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The user signed out of the session.
    Logout,
    /// The session was revoked by its user, or by a user with `USER_MANAGE`.
    Revoked,
    /// A refresh token of the session was used twice.
    RefreshReuse,
    /// The user changed the password in another session, or the password was reset.
    PasswordChanged,
    /// The user was deactivated in the organization.
    Deactivated,
    /// A newer sign-in exceeded the maximum number of sessions.
    TooMany,
}

impl EndReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Revoked => "revoked",
            Self::RefreshReuse => "refresh_reuse",
            Self::PasswordChanged => "password_changed",
            Self::Deactivated => "deactivated",
            Self::TooMany => "too_many",
        }
    }

    const fn action(self) -> &'static str {
        match self {
            Self::Logout => "auth.logout",
            Self::RefreshReuse => "auth.refresh_reuse",
            Self::Revoked | Self::PasswordChanged | Self::Deactivated | Self::TooMany => {
                "session.revoked"
            }
        }
    }
}

const COLUMNS: &str =
    "session.id, session.org_id, session.user_id, host(session.source_ip) AS source_ip,
    session.created_at, session.last_seen_at, session.expires_at, session.generation";

/// Result of exchanging a refresh token.
#[derive(Debug)]
pub enum Refreshed {
    /// The session continues; the text is its next refresh token.
    Renewed(Session, String),
    /// The token was used before. The session was ended in this transaction, which the caller must commit.
    Reused,
    /// The token is unknown, its session has ended, has expired or was idle for too long, or the user is no longer an
    /// active member.
    Refused,
}

impl Session {
    /// Opens a session and returns it with its first refresh token. Ends the user's oldest sessions, so that at most
    /// `max` remain open.
    pub async fn open(
        tx: &Tx<Auth>,
        user: UserId,
        org: OrganizationId,
        source_ip: IpAddr,
        max: i64,
        policy: &SessionPolicy,
        now: DateTime<Utc>,
    ) -> Result<(Self, String)> {
        // Locks the user's row, so that sign-ins of one user run one at a time. Two concurrent sign-ins would not count
        // each other's sessions.
        let _: Row = tx.one("SELECT id FROM \"user\" WHERE id = $1 FOR UPDATE", &[&user]).await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM session WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2
             ORDER BY created_at DESC, id DESC OFFSET $3"
        );
        let oldest: Vec<Self> = tx.all(&sql, &[&user, &now, &(max - 1).max(0)]).await?;
        for session in oldest {
            session.end(tx, EndReason::TooMany, now).await?;
        }
        let session = Self {
            id: Id::new(),
            org,
            user,
            source_ip: source_ip.to_string(),
            created_at: now,
            last_seen_at: now,
            expires_at: now + policy.session_lifetime,
            generation: 0,
        };
        tx.exec(
            "INSERT INTO session (id, org_id, user_id, source_ip, created_at, last_seen_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $5, $6)",
            &[&session.id, &org, &user, &source_ip, &now, &session.expires_at],
        )
        .await?;
        let refresh = session.issue_refresh(tx, None, now).await?;
        Ok((session, refresh))
    }

    async fn issue_refresh(
        &self,
        tx: &Tx<Auth>,
        parent: Option<&[u8]>,
        now: DateTime<Utc>,
    ) -> Result<String> {
        let token = opaque()?;
        tx.exec(
            "INSERT INTO refresh_token (token_hash, session_id, parent, issued_at) VALUES ($1, $2, $3, $4)",
            &[&digest(&token), &self.id, &parent, &now],
        )
        .await?;
        Ok(token)
    }

    /// Exchanges a refresh token for the next one. The caller must commit the transaction whatever the result.
    pub async fn refresh(
        tx: &Tx<Auth>,
        token: &str,
        policy: &SessionPolicy,
        now: DateTime<Utc>,
    ) -> Result<Refreshed> {
        let hash = digest(token);
        // Lock order: session before refresh tokens, as in every transaction that locks both. Another order could
        // deadlock.
        let sql = format!(
            "SELECT {COLUMNS} FROM refresh_token
             JOIN session ON session.id = refresh_token.session_id
             JOIN membership ON membership.org_id = session.org_id AND membership.user_id = session.user_id
             WHERE token_hash = $1 AND session.ended_at IS NULL AND session.expires_at > $2 AND membership.active
             FOR UPDATE OF session"
        );
        let Some(session) = tx.opt::<Self>(&sql, &[&hash, &now]).await? else {
            return Ok(Refreshed::Refused);
        };
        // A single conditional statement decides, so only one of several concurrent uses of a token succeeds.
        let used = tx
            .exec(
                "UPDATE refresh_token SET used_at = $2 WHERE token_hash = $1 AND used_at IS NULL",
                &[&hash, &now],
            )
            .await?;
        if used == 0 {
            session.end(tx, EndReason::RefreshReuse, now).await?;
            return Ok(Refreshed::Reused);
        }
        if session.is_idle(policy, now) {
            return Ok(Refreshed::Refused);
        }
        let next = session.issue_refresh(tx, Some(&hash), now).await?;
        tx.exec("UPDATE session SET last_seen_at = $2 WHERE id = $1", &[&session.id, &now]).await?;
        Entry::without_values("auth.refreshed", session.id)
            .by(Actor::User(session.user))
            .record_in(tx, session.org)
            .await?;
        Ok(Refreshed::Renewed(session, next))
    }

    /// Records a refused refresh in each organization of the session's user. Returns false if nobody was ever given the
    /// token.
    pub async fn record_refused_refresh(tx: &Tx<Auth>, token: &str) -> Result<bool> {
        let sql = "SELECT session.id, session.user_id FROM refresh_token JOIN session ON session.id = session_id
                   WHERE token_hash = $1";
        let row: Option<Row> = tx.opt(sql, &[&digest(token)]).await?;
        let Some(row) = row else { return Ok(false) };
        let (session, user): (SessionId, UserId) = (row.try_get("id")?, row.try_get("user_id")?);
        for organization in Organization::of_user(tx, user).await? {
            Entry::without_values("auth.refresh_refused", session)
                .by(Actor::User(user))
                .record_in(tx, organization.id)
                .await?;
        }
        Ok(true)
    }

    fn is_idle(&self, policy: &SessionPolicy, now: DateTime<Utc>) -> bool {
        policy.idle.is_some_and(|idle| self.last_seen_at + idle < now)
    }

    /// Returns the viewer of an access token. One statement reads the session, the membership and the roles.
    ///
    /// # Errors
    /// `BadToken` if the session has ended, was idle for too long or has switched to another organization, or if the
    /// user is no longer an active member.
    pub async fn viewer(
        tx: &Tx<Auth>,
        claims: &Claims,
        policy: &SessionPolicy,
        now: DateTime<Utc>,
    ) -> Result<Viewer> {
        const ENDED: Error = Error::BadToken("the session has ended: sign in again");
        let sql = format!(
            "SELECT session.last_seen_at, {HELD} FROM session
             JOIN membership ON membership.org_id = session.org_id AND membership.user_id = session.user_id
             WHERE session.id = $1 AND session.org_id = $2 AND session.user_id = $3
               AND session.ended_at IS NULL AND session.expires_at > $4 AND membership.active
               AND session.generation = $5"
        );
        let row: Option<Row> = tx
            .opt(&sql, &[&claims.sid, &claims.org, &claims.sub, &now, &claims.generation])
            .await?;
        let row = row.ok_or(ENDED)?;
        let last_seen_at: DateTime<Utc> = row.try_get("last_seen_at")?;
        if policy.idle.is_some_and(|idle| last_seen_at + idle < now) {
            return Err(ENDED);
        }
        if last_seen_at + TimeDelta::minutes(1) < now {
            // Lock order: user before session, as in a sign-in that ends this session.
            tx.exec("UPDATE \"user\" SET last_seen_at = $2 WHERE id = $1", &[&claims.sub, &now])
                .await?;
            tx.exec("UPDATE session SET last_seen_at = $2 WHERE id = $1", &[&claims.sid, &now])
                .await?;
        }
        let (roles, permissions) = role::held(&row)?;
        Ok(Viewer {
            actor: Actor::User(claims.sub),
            org: claims.org,
            session: Some(claims.sid),
            permissions,
            roles,
        })
    }

    /// Switches the session to an organization of its user, perhaps the same one. All access tokens that were issued
    /// before are rejected afterwards.
    ///
    /// # Errors
    /// `NotFound` if the user is not an active member of the organization.
    pub async fn switch(&self, tx: &Tx<Auth>, org: OrganizationId) -> Result<Self> {
        let changed = tx
            .exec(
                "UPDATE session SET org_id = $2, generation = generation + 1 WHERE id = $1 AND ended_at IS NULL AND EXISTS
                     (SELECT FROM membership WHERE org_id = $2 AND user_id = session.user_id AND active)",
                &[&self.id, &org],
            )
            .await?;
        if changed == 0 {
            return Err(Error::not_found("organization", org));
        }
        Entry::without_values("session.organization_switched", self.id).record_in(tx, org).await?;
        Ok(Self { org, generation: self.generation + 1, ..self.clone() })
    }

    /// Issues a new refresh token for the session. All earlier refresh tokens stop working.
    pub async fn reissue_refresh(&self, tx: &Tx<Auth>, now: DateTime<Utc>) -> Result<String> {
        tx.exec(
            "UPDATE refresh_token SET used_at = $2 WHERE session_id = $1 AND used_at IS NULL",
            &[&self.id, &now],
        )
        .await?;
        self.issue_refresh(tx, None, now).await
    }

    /// Returns the claims of an access token for the session.
    pub(crate) fn claims(&self, now: DateTime<Utc>, expires_at: DateTime<Utc>) -> Claims {
        Claims::new(self.user, self.id, (self.org, self.generation), now, expires_at)
    }

    /// Returns the sessions of a user that have neither ended nor expired, newest first.
    pub async fn of_user(tx: &Tx<Auth>, user: UserId, now: DateTime<Utc>) -> Result<Vec<Self>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM session WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2
             ORDER BY created_at DESC, id"
        );
        tx.all(&sql, &[&user, &now]).await
    }

    /// Returns the session and locks its row, or `None` if the session does not exist, has ended or has expired.
    pub async fn find(tx: &Tx<Auth>, id: SessionId, now: DateTime<Utc>) -> Result<Option<Self>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM session WHERE id = $1 AND ended_at IS NULL AND expires_at > $2 FOR UPDATE"
        );
        tx.opt(&sql, &[&id, &now]).await
    }

    /// Deletes up to `limit` sessions that ended or expired before `before`, with their refresh tokens. Returns their
    /// number.
    pub async fn delete_ended(tx: &Tx<Auth>, before: DateTime<Utc>, limit: i64) -> Result<u64> {
        tx.exec(
            "DELETE FROM session WHERE id IN (
                 SELECT id FROM session WHERE least(ended_at, expires_at) < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            &[&before, &limit],
        )
        .await
    }

    /// Ends the session and records the reason in the audit trail. Does nothing if the session has already ended.
    pub async fn end(&self, tx: &Tx<Auth>, reason: EndReason, now: DateTime<Utc>) -> Result<()> {
        let ended = tx
            .exec(
                "UPDATE session SET ended_at = $2, end_reason = $3 WHERE id = $1 AND ended_at IS NULL",
                &[&self.id, &now, &reason.as_str()],
            )
            .await?;
        if ended == 1 {
            let before = serde_json::json!({ "endReason": null });
            let after = serde_json::json!({ "endReason": reason.as_str() });
            Entry::changed(reason.action(), self.id, before, after).record_in(tx, self.org).await?;
        }
        Ok(())
    }
}
