//! Identity: a person proves who they are, and what stands behind a bearer.
//!
//! | file | what lives there |
//! |---|---|
//! | `sign_in` | e-mail and password, traded for a session |
//! | `new_password` | one's own password changed, somebody else's hashed |
//! | `account` | what is known of a person before their password is looked at |
//!
//! Every way to prove it ends in the same viewer, and each refusal says what the others say.

mod account;
mod new_password;
mod sign_in;

use std::net::IpAddr;

use async_graphql::SimpleObject;
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    access::{
        api_key::{self, ApiKey},
        directive::public,
        password::Hasher,
        session::{EndReason, Refreshed, Session, SessionPolicy},
        token::TokenKeys,
        viewer::Viewer,
    },
    base::{
        actor::{Actor, Origin},
        db::Db,
        entity::OrganizationId,
        error::{Error, Result},
    },
};

/// What a client holds after signing in.
#[derive(Debug, Clone, SimpleObject)]
#[graphql(directive = public::apply())]
pub struct Tokens {
    /// Goes into `Authorization: Bearer …`.
    pub access_token: String,
    /// When the access token ends.
    pub access_expires_at: DateTime<Utc>,
    /// Trades once for the next pair, with `refreshSession`.
    pub refresh_token: String,
    /// When the session ends; refreshing does not lengthen it.
    pub refresh_expires_at: DateTime<Utc>,
}

/// The origin of a request, and its time.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The client's address.
    pub address: IpAddr,
    /// The request's id.
    pub request_id: String,
    /// The time at which the request is judged.
    pub now: DateTime<Utc>,
}

impl Caller {
    fn origin(&self, actor: Actor) -> Origin {
        Origin { actor, source_ip: Some(self.address), request_id: Some(self.request_id.clone()) }
    }
}

/// Signs people in and recognises them.
#[derive(Debug, Clone)]
pub struct Identity {
    db: Db,
    hasher: Hasher,
    keys: TokenKeys,
    policy: SessionPolicy,
    address_block: TimeDelta,
}

impl Identity {
    /// With this database, hashing, keys and lifetimes; `address_block` is how long an address is refused after too
    /// many failures.
    pub const fn new(
        db: Db,
        hasher: Hasher,
        keys: TokenKeys,
        policy: SessionPolicy,
        address_block: TimeDelta,
    ) -> Self {
        Self { db, hasher, keys, policy, address_block }
    }

    fn tokens(
        &self,
        session: &Session,
        refresh_token: String,
        now: DateTime<Utc>,
    ) -> Result<Tokens> {
        let access_expires_at = (now + self.policy.access_life).min(session.expires_at);
        Ok(Tokens {
            access_token: self.keys.mint(&session.claims(now, access_expires_at))?,
            access_expires_at,
            refresh_token,
            refresh_expires_at: session.expires_at,
        })
    }

    /// Trades a refresh token for the next pair.
    ///
    /// # Errors
    /// `BadToken`; where the token had been used before, its whole session has ended.
    pub async fn refresh(&self, token: &str, caller: &Caller) -> Result<Tokens> {
        const REFUSED: Error =
            Error::BadToken("the refresh token is unknown, used or expired: sign in again");
        let tx = self.db.auth(caller.origin(Actor::System)).await?;
        let refreshed = Session::refresh(&tx, token, &self.policy, caller.now).await?;
        tx.commit().await?;
        match refreshed {
            Refreshed::Renewed(session, refresh) => self.tokens(&session, refresh, caller.now),
            Refreshed::Reused | Refreshed::Refused => Err(REFUSED),
        }
    }

    /// The viewer behind a bearer, as of now: a session's access token or an API key.
    ///
    /// # Errors
    /// `BadToken` with a sentence that says what to do.
    pub async fn authenticate(
        &self,
        bearer: &str,
        address: IpAddr,
        now: DateTime<Utc>,
    ) -> Result<Viewer> {
        let claims = if bearer.starts_with(api_key::SCHEME) {
            None
        } else {
            Some(self.keys.verify(bearer, now)?)
        };
        let tx = self.db.auth(Origin::system()).await?;
        let viewer = match &claims {
            Some(claims) => Session::viewer(&tx, claims, &self.policy, now).await,
            None => ApiKey::viewer(&tx, bearer, address, now).await,
        };
        // Ended either way: to be refused must not cost a connection.
        match viewer {
            Ok(viewer) => tx.commit().await.map(|()| viewer),
            Err(refusal) => tx.rollback().await.and(Err(refusal)),
        }
    }

    /// The end of an access token; an API key is asked each time instead.
    pub fn expires_at(&self, bearer: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let claims = self.keys.verify(bearer, now).ok()?;
        DateTime::from_timestamp(claims.exp, 0)
    }

    /// Ends the viewer's session; again, or without one, changes nothing.
    pub async fn logout(&self, viewer: &Viewer, caller: &Caller) -> Result<()> {
        let Some(id) = viewer.session else { return Ok(()) };
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        if let Some(session) = Session::find(&tx, id, caller.now).await? {
            session.end(&tx, EndReason::Logout, caller.now).await?;
        }
        tx.commit().await
    }

    /// Signs the viewer's session in to another of its user's organizations.
    pub async fn switch(
        &self,
        viewer: &Viewer,
        org: OrganizationId,
        caller: &Caller,
    ) -> Result<Tokens> {
        let id = viewer.session.ok_or_else(no_session)?;
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        let session = Session::find(&tx, id, caller.now)
            .await?
            .ok_or_else(|| Error::not_found("session", id))?;
        let session = session.switch(&tx, org, caller.now).await?;
        let refresh = session.reissue(&tx, caller.now).await?;
        let tokens = self.tokens(&session, refresh, caller.now)?;
        tx.commit().await?;
        Ok(tokens)
    }
}

fn no_session() -> Error {
    Error::Forbidden("an API key has no session: sign in as a person".into())
}
