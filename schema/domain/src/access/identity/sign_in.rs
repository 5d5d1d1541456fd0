//! Sign-in: exchanges an e-mail and password for a session. The steps are: find the account and its lockout state,
//! verify the password, open the session.
//!
//! A failed sign-in always does the same work and returns the same message, whether the e-mail is unknown, the password
//! wrong, the user inactive or the account locked. Only an attempt from a blocked address is rejected before these
//! steps. No transaction is open while a password is hashed.

use std::time::Duration;

use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        identity::{
            Identity, RequestInfo, Tokens,
            account::{Account, Lock},
        },
        login::{LockoutCounter, Subject, network_of},
        organization::Organization,
        permission::Permission,
        role::Role,
        session::Session,
        user::normalise_email,
    },
    base::{
        actor::Actor,
        db::{Auth, Tx},
        entity::{OrganizationId, UserId},
        error::{Error, Result},
    },
};

/// A sign-in whose password has not been verified.
pub struct LoginAttempt {
    account: Option<Account>,
    lock: Lock,
}

impl LoginAttempt {
    /// Returns the key under which the attempt counts for the account: one for each address from which the user has
    /// signed in, and one for all others. A stranger therefore uses up nobody else's attempts.
    pub fn account_key(&self) -> String {
        match &self.lock.subject {
            Subject::Account { email, known: None } => format!("account {email}"),
            Subject::Account { email, known: Some(address) } => {
                format!("account {email} from {}", network_of(*address))
            }
            Subject::Address(address) => format!("address {address}"),
        }
    }
}

impl std::fmt::Debug for LoginAttempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginAttempt").finish_non_exhaustive()
    }
}

/// Proof that the password was right and the account was not locked.
struct Proof<'a> {
    account: &'a Account,
    /// New hash of the password, if the stored hash is cheaper than current settings require.
    rehashed: Option<String>,
}

impl Identity {
    /// Signs in with e-mail and password, and returns the tokens of a new session.
    ///
    /// # Errors
    /// `BadCredentials` for every rejected sign-in, whatever the cause. `Busy` if the client address is blocked after
    /// too many failures, or if too many passwords are being hashed.
    pub async fn login(&self, email: &str, password: &str, caller: &RequestInfo) -> Result<Tokens> {
        let attempt = self.begin_login(email, caller).await?;
        self.finish_login(attempt, password, caller).await
    }

    /// Begins a sign-in: finds the account, and the address from which the attempt counts. The caller can refuse the
    /// attempt before the password is verified.
    ///
    /// # Errors
    /// `Busy` if the client address is blocked after too many failures.
    pub async fn begin_login(&self, email: &str, caller: &RequestInfo) -> Result<LoginAttempt> {
        // A text that is not an e-mail is looked up as the empty e-mail, which no account has, so that it costs the
        // same.
        let email = normalise_email(email).unwrap_or_default();
        let (account, lock) = self.find(&email, caller).await?;
        Ok(LoginAttempt { account, lock })
    }

    /// Verifies the password of an attempt, and returns the tokens of a new session.
    ///
    /// # Errors
    /// See [`Identity::login`].
    pub async fn finish_login(
        &self,
        attempt: LoginAttempt,
        password: &str,
        caller: &RequestInfo,
    ) -> Result<Tokens> {
        let LoginAttempt { account, lock } = attempt;
        let proof = self.verify(account.as_ref(), &lock, password).await?;

        let actor = proof.as_ref().map_or(Actor::System, |proof| Actor::User(proof.account.user));
        let tx = self.db.auth(caller.origin(actor)).await?;
        let tokens = match &proof {
            Some(proof) => self.open(&tx, proof, &lock, caller).await?,
            None => None,
        };
        if tokens.is_none() {
            self.count_failure(&tx, account.as_ref(), &lock, caller).await?;
        }
        // Committed in either case: rolling back would lose the count of the failure.
        tx.commit().await?;
        tokens.ok_or(Error::BadCredentials)
    }

    /// Finds the account with the e-mail, and the lockout state of the e-mail.
    ///
    /// # Errors
    /// `Busy` if the client address is blocked after too many failures.
    async fn find(&self, email: &str, caller: &RequestInfo) -> Result<(Option<Account>, Lock)> {
        let tx = self.db.auth(caller.origin(Actor::System)).await?;
        if let Some(retry_after) = blocked_for(&tx, caller).await? {
            tx.commit().await?;
            return Err(Error::Busy { retry_after });
        }
        let account = Account::find(&tx, email).await?;
        let lock = Lock::find(&tx, email, account.as_ref(), caller).await?;
        tx.commit().await?;
        Ok((account, lock))
    }

    /// Verifies the password. Returns `None` if the password is wrong, there is no account or the account is locked;
    /// the cost is the same in each case.
    async fn verify<'a>(
        &self,
        account: Option<&'a Account>,
        lock: &Lock,
        password: &str,
    ) -> Result<Option<Proof<'a>>> {
        let account_and_hash = account.and_then(|account| Some((account, lock.hash_of(account)?)));
        let matches = self.hasher.verify(password, account_and_hash.map(|(_, hash)| hash)).await?;
        let Some((account, hash)) = account_and_hash.filter(|_| matches) else { return Ok(None) };
        if !self.hasher.needs_rehash(hash) {
            return Ok(Some(Proof { account, rehashed: None }));
        }
        let rehashed = Some(self.hasher.hash(password).await?);
        Ok(Some(Proof { account, rehashed }))
    }

    /// Opens a session in the organization that the user last signed in to. Returns `None` if the user is not an active
    /// member of any organization, or if the password was changed or the account locked while the password was being
    /// verified.
    async fn open(
        &self,
        tx: &Tx<Auth>,
        proof: &Proof<'_>,
        lock: &Lock,
        caller: &RequestInfo,
    ) -> Result<Option<Tokens>> {
        let (user, now) = (proof.account.user, caller.now);
        let Some(org) = latest_organization(tx, proof.account).await? else { return Ok(None) };
        if LockoutCounter::find_for_update(tx, &lock.subject)
            .await?
            .is_some_and(|counter| counter.is_locked(now))
        {
            return Ok(None);
        }
        let max = self.max_sessions(tx, org, user).await?;
        let (session, refresh) =
            Session::open(tx, user, org, caller.address, max, &self.policy, now).await?;
        if let Some(hash) = &proof.rehashed {
            tx.exec("UPDATE \"user\" SET password_hash = $2 WHERE id = $1", &[&user, hash]).await?;
        }
        LockoutCounter::clear(tx, &lock.subject).await?;
        Entry::without_values("auth.login", session.id).record_in(tx, org).await?;
        self.tokens(&session, refresh, now).map(Some)
    }

    /// Returns the user's maximum number of concurrent sessions. Users with `USER_MANAGE` have a separate limit.
    async fn max_sessions(&self, tx: &Tx<Auth>, org: OrganizationId, user: UserId) -> Result<i64> {
        let manages = Role::of_users(tx, org, &[user])
            .await?
            .iter()
            .any(|(_, role)| role.permissions.contains(&Permission::UserManage));
        Ok(if manages { self.policy.max_per_admin } else { self.policy.max_per_user })
    }

    /// Counts a failure for the client address, and for the account unless the account was already locked. If the
    /// account exists, the failure is recorded in the audit trail of each of the user's organizations.
    async fn count_failure(
        &self,
        tx: &Tx<Auth>,
        account: Option<&Account>,
        lock: &Lock,
        caller: &RequestInfo,
    ) -> Result<()> {
        if !lock.is_locked {
            LockoutCounter::fail(tx, &lock.subject, self.address_block, caller.now).await?;
        }
        let address = Subject::Address(caller.address);
        LockoutCounter::fail(tx, &address, self.address_block, caller.now).await?;
        let Some(account) = account else {
            let (address, request_id) = (caller.address, Some(caller.request_id.as_str()));
            self.refusals.count_stranger("auth.login_failed", address, request_id, caller.now);
            return Ok(());
        };
        for organization in Organization::of_user(tx, account.user).await? {
            Entry::without_values("auth.login_failed", account.user)
                .record_in(tx, organization.id)
                .await?;
        }
        Ok(())
    }
}

/// Returns the remaining block time of the client's address, or `None` if the address is not blocked.
async fn blocked_for(tx: &Tx<Auth>, caller: &RequestInfo) -> Result<Option<Duration>> {
    let counter = LockoutCounter::find(tx, &Subject::Address(caller.address)).await?;
    let until = counter
        .filter(|counter| counter.is_locked(caller.now))
        .and_then(|counter| counter.locked_until);
    Ok(until.map(|until| (until - caller.now).to_std().unwrap_or_default()))
}

/// Locks the user's row and returns the organization that the user last signed in to, among those in which the user is
/// an active member. Returns `None` if the user has no active membership, or if the password has changed since it was
/// verified.
async fn latest_organization(tx: &Tx<Auth>, account: &Account) -> Result<Option<OrganizationId>> {
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
    row.map(|row| row.try_get("org_id").map_err(Error::from)).transpose()
}
