//! How somebody proves who they are: signing in, refreshing, and what stands behind a bearer.
//!
//! A failed sign-in always costs the same work and says the same words, whether the e-mail is unknown, the password
//! wrong, the user inactive or the account locked. No transaction is open while a password is hashed.
//!
//! Long, because every way to prove it ends in the same viewer, and each refusal must say what the others say.

use std::net::IpAddr;

use async_graphql::SimpleObject;
use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Row;

use crate::{
    access::{
        api_key::{self, ApiKey},
        audit::Entry,
        directive::public,
        login::{Guard, KNOWN_FOR, Subject},
        organization::Organization,
        password::{self, Hasher},
        permission::Permission,
        role::Role,
        session::{EndReason, Refreshed, Session, SessionPolicy},
        token::TokenKeys,
        user::{User, normalise_email},
        viewer::Viewer,
    },
    base::{
        actor::{Actor, Origin},
        db::{Auth, Db, Tx},
        entity::{OrganizationId, UserId},
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

/// Where a request comes from, and when.
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

/// What is known of who wants to sign in.
struct Account {
    user: UserId,
    hash: Option<String>,
    /// Tells whether the password is still the one that was looked at; a rehash leaves it.
    password_changed_at: Option<DateTime<Utc>>,
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

    /// Signs in with e-mail and password.
    ///
    /// # Errors
    /// `BadCredentials` for whatever is wrong with them; `Busy` for an address that failed too often.
    pub async fn login(&self, email: &str, password: &str, caller: &Caller) -> Result<Tokens> {
        let now = caller.now;
        // What is no e-mail is looked up all the same, as one that nobody has.
        let email = normalise_email(email).unwrap_or_default();
        let tx = self.db.auth(caller.origin(Actor::System)).await?;
        let address = Subject::Address(caller.address);
        if let Some(until) = Guard::find(&tx, &address)
            .await?
            .filter(|guard| guard.is_locked(now))
            .and_then(|guard| guard.locked_until)
        {
            tx.commit().await?;
            return Err(Error::Busy { retry_after: (until - now).to_std().unwrap_or_default() });
        }
        let account = find_account(&tx, &email).await?;
        let subject = self.subject(&tx, &email, account.as_ref(), caller).await?;
        let locked = Guard::find(&tx, &subject).await?.is_some_and(|guard| guard.is_locked(now));
        tx.commit().await?;

        let hash = account.as_ref().filter(|_| !locked).and_then(|account| account.hash.as_deref());
        let matches = self.hasher.verify(password, hash).await?;
        let rehashed = match hash {
            Some(hash) if matches && self.hasher.needs_rehash(hash) => {
                Some(self.hasher.hash(password).await?)
            }
            _ => None,
        };

        let actor = account
            .as_ref()
            .filter(|_| matches)
            .map_or(Actor::System, |account| Actor::User(account.user));
        let tx = self.db.auth(caller.origin(actor)).await?;
        let opened = match account.as_ref().filter(|_| matches) {
            Some(account) => self.open(&tx, account, &subject, caller).await?,
            None => None,
        };
        let Some((session, refresh)) = opened else {
            if !locked {
                Guard::fail(&tx, &subject, self.address_block, now).await?;
            }
            Guard::fail(&tx, &address, self.address_block, now).await?;
            if let Some(account) = &account
                && let Some(organization) = Organization::of_user(&tx, account.user).await?.first()
            {
                Entry::happened("auth.login_failed", account.user)
                    .record_in(&tx, organization.id, now)
                    .await?;
            }
            tx.commit().await?;
            return Err(Error::BadCredentials);
        };
        if let Some(hash) = rehashed {
            tx.exec(
                "UPDATE \"user\" SET password_hash = $2 WHERE id = $1",
                &[&session.user, &hash],
            )
            .await?;
        }
        Guard::clear(&tx, &subject).await?;
        Entry::happened("auth.login", session.id).record_in(&tx, session.org, now).await?;
        let tokens = self.tokens(&session, refresh, now)?;
        tx.commit().await?;
        Ok(tokens)
    }

    /// The account's failures, or those from one of its user's own addresses.
    async fn subject(
        &self,
        tx: &Tx<Auth>,
        email: &str,
        account: Option<&Account>,
        caller: &Caller,
    ) -> Result<Subject> {
        let user = account.map(|account| account.user.uuid());
        let known: Row = tx
            .one(
                "SELECT EXISTS (SELECT FROM session WHERE user_id = $1 AND source_ip = $2 AND created_at > $3) AS known",
                &[&user, &caller.address, &(caller.now - KNOWN_FOR)],
            )
            .await?;
        let known: bool = known.try_get("known")?;
        Ok(Subject::Account { email: email.to_owned(), known: known.then_some(caller.address) })
    }

    /// Opens a session in the organization that the user was in last, unless they are active in none, or the password
    /// was changed or the account locked while we hashed.
    async fn open(
        &self,
        tx: &Tx<Auth>,
        account: &Account,
        subject: &Subject,
        caller: &Caller,
    ) -> Result<Option<(Session, String)>> {
        let row: Option<Row> = tx
            .opt(
                "SELECT membership.org_id FROM membership
                 JOIN \"user\" ON \"user\".id = membership.user_id AND \"user\".password_changed_at IS NOT DISTINCT FROM $2
                 LEFT JOIN LATERAL (
                     SELECT max(session.created_at) AS at FROM session
                     WHERE session.user_id = membership.user_id AND session.org_id = membership.org_id
                 ) AS latest ON true
                 WHERE membership.user_id = $1 AND membership.active
                 ORDER BY latest.at DESC NULLS LAST, membership.created_at, membership.org_id LIMIT 1
                 FOR UPDATE OF \"user\"",
                &[&account.user, &account.password_changed_at],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        if Guard::hold(tx, subject).await?.is_some_and(|guard| guard.is_locked(caller.now)) {
            return Ok(None);
        }
        let org: OrganizationId = row.try_get("org_id")?;
        let manages = Role::of_users(tx, org, &[account.user])
            .await?
            .iter()
            .any(|(_, role)| role.permissions.contains(&Permission::UserManage));
        let max = if manages { self.policy.max_per_admin } else { self.policy.max_per_user };
        Session::open(tx, account.user, org, caller.address, max, &self.policy, caller.now)
            .await
            .map(Some)
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

    /// Who stands behind a bearer, as of now: a session's access token or an API key.
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

    /// When an access token ends; an API key is asked each time instead.
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

    /// Changes the viewer's own password and ends their other sessions.
    pub async fn change_password(
        &self,
        viewer: &Viewer,
        current: &str,
        new: &str,
        caller: &Caller,
    ) -> Result<()> {
        let (user, session) = viewer.user().zip(viewer.session).ok_or_else(no_session)?;
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        let row: Row = tx
            .one(
                "SELECT email, name, mfa_enabled, password_hash, password_changed_at FROM \"user\" WHERE id = $1",
                &[&user],
            )
            .await?;
        let account = Account {
            user,
            hash: row.try_get("password_hash")?,
            password_changed_at: row.try_get("password_changed_at")?,
        };
        let subject = self.subject(&tx, row.try_get("email")?, Some(&account), caller).await?;
        let locked =
            Guard::find(&tx, &subject).await?.is_some_and(|guard| guard.is_locked(caller.now));
        let organizations = Organization::of_user(&tx, user).await?;
        tx.commit().await?;

        let (email, name): (&str, &str) = (row.try_get("email")?, row.try_get("name")?);
        let mut context = vec![email, email.split('@').next().unwrap_or_default(), name];
        context.extend(
            organizations
                .iter()
                .flat_map(|organization| [organization.slug.as_str(), organization.name.as_str()]),
        );
        password::check("new", new, &context, row.try_get("mfa_enabled")?)
            .map_err(|fault| Error::Invalid(vec![fault]))?;
        let wrong = || Err(Error::invalid("current", "is not the current password"));
        let stored = account.hash.as_deref().filter(|_| !locked);
        if !self.hasher.verify(current, stored).await? {
            if !locked {
                let tx = self.db.auth(caller.origin(viewer.actor)).await?;
                Guard::fail(&tx, &subject, self.address_block, caller.now).await?;
                tx.commit().await?;
            }
            return wrong();
        }
        let hash = self.hasher.hash(new).await?;
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        let unchanged: Option<Row> = tx
            .opt(
                "SELECT id FROM \"user\" WHERE id = $1 AND password_changed_at IS NOT DISTINCT FROM $2 FOR UPDATE",
                &[&user, &account.password_changed_at],
            )
            .await?;
        if unchanged.is_none() {
            tx.rollback().await?;
            return wrong(); // Any more: it was reset while we hashed.
        }
        User::set_password(&tx, user, &hash, Some(session), caller.now).await?;
        Entry::happened("auth.password_changed", user)
            .record_in(&tx, viewer.org, caller.now)
            .await?;
        tx.commit().await
    }

    /// Checks a password that is set for somebody, and hashes it.
    pub async fn hash_new(&self, path: &str, password: &str, context: &[&str]) -> Result<String> {
        password::check(path, password, context, false)
            .map_err(|fault| Error::Invalid(vec![fault]))?;
        self.hasher.hash(password).await
    }
}

fn no_session() -> Error {
    Error::Forbidden("an API key has no session: sign in as a person".into())
}

async fn find_account(tx: &Tx<Auth>, email: &str) -> Result<Option<Account>> {
    let row: Option<Row> = tx
        .opt(
            "SELECT id, password_hash, password_changed_at FROM \"user\" WHERE email = $1",
            &[&email],
        )
        .await?;
    row.map(|row| {
        Ok(Account {
            user: row.try_get("id")?,
            hash: row.try_get("password_hash")?,
            password_changed_at: row.try_get("password_changed_at")?,
        })
    })
    .transpose()
}
