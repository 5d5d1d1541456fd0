//! Authentication: signing in, and resolving a bearer token to its viewer.
//!
//! | file | contents |
//! |---|---|
//! | `sign_in` | e-mail and password, exchanged for a session |
//! | `new_password` | change of the viewer's own password; check and hash of a password set for another user |
//! | `join` | acceptance of an invitation to a further organization |
//! | `account` | lookup of an account by e-mail, and its lockout state |
//!
//! Every authentication method returns the same type, [`Viewer`]. All rejected sign-ins get the same message, whatever
//! the cause.

mod account;
mod join;
mod new_password;
mod sign_in;

pub use join::Acceptance;
pub use sign_in::LoginAttempt;

use std::net::IpAddr;

use async_graphql::SimpleObject;
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    access::{
        api_key::{self, ApiKey},
        directive::public,
        password::Hasher,
        refusal::Refusals,
        session::{EndReason, Refreshed, Session, SessionPolicy},
        token::TokenKeys,
        viewer::Viewer,
    },
    base::{
        actor::{Actor, Origin},
        db::{Auth, Db, Tx},
        entity::OrganizationId,
        error::{Error, Result},
    },
};

/// Tokens that a client receives when it signs in.
#[derive(Debug, Clone, SimpleObject)]
#[graphql(directive = public::apply())]
pub struct Tokens {
    /// Access token, sent as `Authorization: Bearer …`.
    pub access_token: String,
    /// Time at which the access token expires.
    pub access_expires_at: DateTime<Utc>,
    /// Refresh token. `refreshSession` accepts the token once and returns the next access and refresh token.
    pub refresh_token: String,
    /// Time at which the session ends; refreshing does not extend it.
    pub refresh_expires_at: DateTime<Utc>,
}

/// Client address, id and time of a request, before authentication.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// Network address of the client.
    pub address: IpAddr,
    /// Id of the request, stored in the audit trail.
    pub request_id: String,
    /// Time of the request, used for every check of expiry.
    pub now: DateTime<Utc>,
}

impl RequestInfo {
    fn origin(&self, actor: Actor) -> Origin {
        Origin { actor, source_ip: Some(self.address), request_id: Some(self.request_id.clone()) }
    }
}

/// The authentication service: signs users in and resolves bearer tokens to viewers.
#[derive(Debug, Clone)]
pub struct Identity {
    db: Db,
    hasher: Hasher,
    keys: TokenKeys,
    policy: SessionPolicy,
    address_block: TimeDelta,
    refusals: Refusals,
}

impl Identity {
    /// Creates the service. `address_block` is the time for which a client address cannot sign in after too many failed
    /// attempts.
    pub fn new(
        db: Db,
        hasher: Hasher,
        keys: TokenKeys,
        policy: SessionPolicy,
        address_block: TimeDelta,
    ) -> Self {
        Self { db, hasher, keys, policy, address_block, refusals: Refusals::default() }
    }

    /// Returns the refusals that are not written to the audit trail yet. `Refusals::run` must write them.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    fn tokens(
        &self,
        session: &Session,
        refresh_token: String,
        now: DateTime<Utc>,
    ) -> Result<Tokens> {
        let access_expires_at = (now + self.policy.access_lifetime).min(session.expires_at);
        Ok(Tokens {
            access_token: self.keys.mint(&session.claims(now, access_expires_at))?,
            access_expires_at,
            refresh_token,
            refresh_expires_at: session.expires_at,
        })
    }

    /// Exchanges a refresh token for the next pair of tokens.
    ///
    /// # Errors
    /// `BadToken` if the token is unknown or was used before, if its session has ended, has expired or was idle for too
    /// long, or if the user is no longer an active member. The second use of a token also ends its session.
    pub async fn refresh(&self, token: &str, caller: &RequestInfo) -> Result<Tokens> {
        const REFUSED: Error =
            Error::BadToken("the refresh token is unknown, used or expired: sign in again");
        let tx = self.db.auth(caller.origin(Actor::System)).await?;
        let refreshed = Session::refresh(&tx, token, &self.policy, caller.now).await?;
        if matches!(refreshed, Refreshed::Refused)
            && !Session::record_refused_refresh(&tx, token).await?
        {
            let (address, request_id) = (caller.address, Some(caller.request_id.as_str()));
            self.refusals.count_stranger("auth.refresh_refused", address, request_id, caller.now);
        }
        tx.commit().await?;
        match refreshed {
            Refreshed::Renewed(session, refresh) => self.tokens(&session, refresh, caller.now),
            Refreshed::Reused | Refreshed::Refused => Err(REFUSED),
        }
    }

    /// Returns the viewer that a bearer token authenticates. The token is a session's access token or an API key.
    ///
    /// # Errors
    /// `BadToken`, with a message that says what to do.
    pub async fn authenticate(
        &self,
        bearer: &str,
        address: IpAddr,
        now: DateTime<Utc>,
    ) -> Result<Viewer> {
        // A token that nobody issued is rejected before a connection is taken.
        let claims = if bearer.starts_with(api_key::SCHEME) {
            ApiKey::check_form(bearer)?;
            None
        } else {
            Some(self.keys.verify(bearer, now)?)
        };
        let tx = self.db.auth(Origin::system()).await?;
        let viewer = match &claims {
            Some(claims) => Session::viewer(&tx, claims, &self.policy, now).await,
            None => ApiKey::viewer(&tx, bearer, address, now).await,
        };
        // The transaction is ended in both cases. Dropping an open transaction closes its connection, so every rejected
        // token would cost a new connection.
        match viewer {
            Ok(viewer) => tx.commit().await.map(|()| viewer),
            Err(refusal) => {
                if claims.is_none() {
                    self.count_refused_key(&tx, bearer, address, now).await?;
                }
                tx.rollback().await.and(Err(refusal))
            }
        }
    }

    /// Counts an API key that authenticates nobody: in its organization if it exists, else as that of a stranger.
    async fn count_refused_key(
        &self,
        tx: &Tx<Auth>,
        bearer: &str,
        address: IpAddr,
        now: DateTime<Utc>,
    ) -> Result<()> {
        match ApiKey::refused(tx, bearer, address, now).await? {
            Some((owner, reason)) => self.refusals.count_key(owner, reason, address, now),
            None => self.refusals.count_stranger("api_key.refused", address, None, now),
        }
        Ok(())
    }

    /// Returns the expiry of an access token, or `None` for an API key or an invalid token. An API key's expiry is
    /// checked on every use.
    pub fn expires_at(&self, bearer: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let claims = self.keys.verify(bearer, now).ok()?;
        DateTime::from_timestamp(claims.exp, 0)
    }

    /// Ends the viewer's session. Does nothing if the session has already ended, or for an API key.
    pub async fn logout(&self, viewer: &Viewer, caller: &RequestInfo) -> Result<()> {
        let Some(id) = viewer.session else { return Ok(()) };
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        if let Some(session) = Session::find(&tx, id, caller.now).await? {
            session.end(&tx, EndReason::Logout, caller.now).await?;
        }
        tx.commit().await
    }

    /// Switches the viewer's session to another organization of the user, and returns new tokens.
    ///
    /// # Errors
    /// `Forbidden` for an API key, `NotFound` if the user is not an active member of the organization.
    pub async fn switch(
        &self,
        viewer: &Viewer,
        org: OrganizationId,
        caller: &RequestInfo,
    ) -> Result<Tokens> {
        let id = viewer.session.ok_or_else(no_session)?;
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        let session = Session::find(&tx, id, caller.now)
            .await?
            .ok_or_else(|| Error::not_found("session", id))?;
        let session = session.switch(&tx, org).await?;
        let refresh = session.reissue_refresh(&tx, caller.now).await?;
        let tokens = self.tokens(&session, refresh, caller.now)?;
        tx.commit().await?;
        Ok(tokens)
    }
}

fn no_session() -> Error {
    Error::Forbidden("an API key has no session: sign in as a user".into())
}
