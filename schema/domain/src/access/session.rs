//! A session: one sign-in, read on every request, so that what ends it refuses the next one.
//!
//! Its refresh tokens form one family. Each works once; using one again means that somebody copied it, and ends the
//! session for thief and owner alike. The session's life is absolute: refreshing does not lengthen it.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        role,
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

/// How long sessions and tokens live, and how many one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionPolicy {
    /// An access token's life.
    pub access_life: TimeDelta,
    /// A session's life, and so its refresh tokens'.
    pub session_life: TimeDelta,
    /// How long a session may rest unused; `None` is for ever.
    pub idle: Option<TimeDelta>,
    /// Sessions at once for a user.
    pub max_per_user: i64,
    /// Sessions at once for who may manage users.
    pub max_per_admin: i64,
}

/// One sign-in of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Where it is signed in.
    pub org: OrganizationId,
    /// Whose it is.
    pub user: UserId,
    /// The address it was opened from.
    pub source_ip: String,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    pub last_seen_at: DateTime<Utc>,
    /// When it ends at the latest.
    pub expires_at: DateTime<Utc>,
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
        })
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Its user signed out.
    Logout,
    /// Its user, or who manages users, ended it.
    Revoked,
    /// One of its refresh tokens was used twice.
    RefreshReuse,
    /// Its user changed the password elsewhere, or it was reset.
    PasswordChanged,
    /// Its user was deactivated in the organization.
    Deactivated,
    /// A newer sign-in took its place.
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
    session.created_at, session.last_seen_at, session.expires_at";

/// What came of presenting a refresh token.
#[derive(Debug)]
pub enum Refreshed {
    /// The session goes on with this next refresh token.
    Renewed(Session, String),
    /// The token was used before: the session has been ended, and that must be committed.
    Reused,
    /// No such token, or its session is over.
    Refused,
}

impl Session {
    /// Opens one, ending the oldest where there would be too many.
    pub async fn open(
        tx: &Tx<Auth>,
        user: UserId,
        org: OrganizationId,
        source_ip: IpAddr,
        max: i64,
        policy: &SessionPolicy,
        now: DateTime<Utc>,
    ) -> Result<(Self, String)> {
        // One sign-in of a user at a time: two at once would each leave the other uncounted.
        let _: Row = tx.one("SELECT id FROM \"user\" WHERE id = $1 FOR UPDATE", &[&user]).await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM session WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2
             ORDER BY created_at DESC, id DESC OFFSET $3"
        );
        let surplus: Vec<Self> = tx.all(&sql, &[&user, &now, &(max - 1).max(0)]).await?;
        for session in surplus {
            session.end(tx, EndReason::TooMany, now).await?;
        }
        let session = Self {
            id: Id::new(),
            org,
            user,
            source_ip: source_ip.to_string(),
            created_at: now,
            last_seen_at: now,
            expires_at: now + policy.session_life,
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

    /// Trades a refresh token for the next one. Commit the transaction whatever comes out.
    pub async fn refresh(
        tx: &Tx<Auth>,
        token: &str,
        policy: &SessionPolicy,
        now: DateTime<Utc>,
    ) -> Result<Refreshed> {
        let hash = digest(token);
        // The session first, then its tokens, as everybody who locks both: else two would wait for each other.
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
        // One conditional statement decides: of fifty who present the same token, one is let through.
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
        Entry::happened("auth.refreshed", session.id)
            .by(Actor::User(session.user))
            .record_in(tx, session.org, now)
            .await?;
        Ok(Refreshed::Renewed(session, next))
    }

    fn is_idle(&self, policy: &SessionPolicy, now: DateTime<Utc>) -> bool {
        policy.idle.is_some_and(|idle| self.last_seen_at + idle < now)
    }

    /// Who an access token's session is, as of now; the session's, the membership's and the roles' rows in one
    /// statement.
    ///
    /// # Errors
    /// `BadToken` where the session is over, idle for too long, of another organization now, or its user inactive.
    pub async fn viewer(
        tx: &Tx<Auth>,
        claims: &Claims,
        policy: &SessionPolicy,
        now: DateTime<Utc>,
    ) -> Result<Viewer> {
        const OVER: Error = Error::BadToken("the session has ended: sign in again");
        let row: Option<Row> = tx
            .opt(
                "SELECT session.last_seen_at, membership.permissions AS granted,
                        ARRAY(SELECT role.key FROM membership_role AS held
                              JOIN role ON role.org_id = held.org_id AND role.id = held.role_id
                              WHERE held.org_id = session.org_id AND held.user_id = session.user_id
                              ORDER BY role.builtin DESC, role.id) AS roles,
                        ARRAY(SELECT unnest(role.permissions) FROM membership_role AS held
                              JOIN role ON role.org_id = held.org_id AND role.id = held.role_id
                              WHERE held.org_id = session.org_id AND held.user_id = session.user_id
                                AND NOT role.builtin) AS custom
                 FROM session
                 JOIN membership ON membership.org_id = session.org_id AND membership.user_id = session.user_id
                 WHERE session.id = $1 AND session.org_id = $2 AND session.user_id = $3
                   AND session.ended_at IS NULL AND session.expires_at > $4 AND membership.active",
                &[&claims.sid, &claims.org, &claims.sub, &now],
            )
            .await?;
        let row = row.ok_or(OVER)?;
        let last_seen_at: DateTime<Utc> = row.try_get("last_seen_at")?;
        if policy.idle.is_some_and(|idle| last_seen_at + idle < now) {
            return Err(OVER);
        }
        if last_seen_at + TimeDelta::minutes(1) < now {
            // The user before the session, as a sign-in that ends this one locks them.
            tx.exec("UPDATE \"user\" SET last_seen_at = $2 WHERE id = $1", &[&claims.sub, &now])
                .await?;
            tx.exec("UPDATE session SET last_seen_at = $2 WHERE id = $1", &[&claims.sid, &now])
                .await?;
        }
        let roles: Vec<String> = row.try_get("roles")?;
        let custom: Vec<&str> = row.try_get("custom")?;
        let granted: Vec<&str> = row.try_get("granted")?;
        Ok(Viewer {
            actor: Actor::User(claims.sub),
            org: claims.org,
            session: Some(claims.sid),
            permissions: role::permissions(&roles, &custom, &granted),
            roles,
        })
    }

    /// Points it at another organization of its user, so that tokens for the former one are refused.
    pub async fn switch(
        &self,
        tx: &Tx<Auth>,
        org: OrganizationId,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let changed = tx
            .exec(
                "UPDATE session SET org_id = $2 WHERE id = $1 AND ended_at IS NULL AND EXISTS
                     (SELECT FROM membership WHERE org_id = $2 AND user_id = session.user_id AND active)",
                &[&self.id, &org],
            )
            .await?;
        if changed == 0 {
            return Err(Error::not_found("organization", org));
        }
        Entry::happened("session.organization_switched", self.id).record_in(tx, org, now).await?;
        Ok(Self { org, ..self.clone() })
    }

    /// The next refresh token of a session that goes on, in place of all before.
    pub async fn reissue(&self, tx: &Tx<Auth>, now: DateTime<Utc>) -> Result<String> {
        tx.exec(
            "UPDATE refresh_token SET used_at = $2 WHERE session_id = $1 AND used_at IS NULL",
            &[&self.id, &now],
        )
        .await?;
        self.issue_refresh(tx, None, now).await
    }

    /// The claims of an access token for it.
    pub(crate) fn claims(&self, now: DateTime<Utc>, expires_at: DateTime<Utc>) -> Claims {
        Claims::new(self.user, self.id, self.org, now, expires_at)
    }

    /// The live sessions of a user, newest first.
    pub async fn of_user(tx: &Tx<Auth>, user: UserId, now: DateTime<Utc>) -> Result<Vec<Self>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM session WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2
             ORDER BY created_at DESC, id"
        );
        tx.all(&sql, &[&user, &now]).await
    }

    /// A live session, or `None`.
    pub async fn find(tx: &Tx<Auth>, id: SessionId, now: DateTime<Utc>) -> Result<Option<Self>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM session WHERE id = $1 AND ended_at IS NULL AND expires_at > $2 FOR UPDATE"
        );
        tx.opt(&sql, &[&id, &now]).await
    }

    /// Ends it, and says why in the audit trail.
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
            Entry::changed(reason.action(), self.id, before, after)
                .record_in(tx, self.org, now)
                .await?;
        }
        Ok(())
    }
}
