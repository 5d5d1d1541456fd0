//! Sign-in: e-mail and password, traded for a session. Find the account and its lock, verify, open.
//!
//! A failed sign-in always costs the same work and says the same words, whether the e-mail is unknown, the password
//! wrong, the user inactive or the account locked: no step ends it early but the block of an address. No transaction
//! is open while a password is hashed.

use std::time::Duration;

use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        identity::{
            Caller, Identity, Tokens,
            account::{Account, Lock},
        },
        login::{Guard, Subject},
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

/// Proof that the right password was given for an account that was not locked.
struct Proof<'a> {
    account: &'a Account,
    /// The password's next hash, where the stored one is cheaper than today's.
    rehashed: Option<String>,
}

impl Identity {
    /// Signs in with e-mail and password.
    ///
    /// # Errors
    /// `BadCredentials` for whatever is wrong with them; `Busy` for an address that failed too often.
    pub async fn login(&self, email: &str, password: &str, caller: &Caller) -> Result<Tokens> {
        // What is no e-mail is looked up all the same, as one that nobody has.
        let email = normalise_email(email).unwrap_or_default();
        let (account, lock) = self.find(&email, caller).await?;
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
        // Committed either way: a failure that is rolled back was never counted.
        tx.commit().await?;
        tokens.ok_or(Error::BadCredentials)
    }

    /// Finds the account of the e-mail, and its lock.
    ///
    /// # Errors
    /// `Busy` for an address that failed too often.
    async fn find(&self, email: &str, caller: &Caller) -> Result<(Option<Account>, Lock)> {
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

    /// Verifies the password, at the same cost where there is no account or a lock.
    async fn verify<'a>(
        &self,
        account: Option<&'a Account>,
        lock: &Lock,
        password: &str,
    ) -> Result<Option<Proof<'a>>> {
        let held = account.and_then(|account| Some((account, lock.hash_of(account)?)));
        let matches = self.hasher.verify(password, held.map(|(_, hash)| hash)).await?;
        let Some((account, hash)) = held.filter(|_| matches) else { return Ok(None) };
        if !self.hasher.needs_rehash(hash) {
            return Ok(Some(Proof { account, rehashed: None }));
        }
        let rehashed = Some(self.hasher.hash(password).await?);
        Ok(Some(Proof { account, rehashed }))
    }

    /// Opens a session in the organization that the user was in last, unless they are active in none, or the password
    /// was changed or the account locked while we hashed.
    async fn open(
        &self,
        tx: &Tx<Auth>,
        proof: &Proof<'_>,
        lock: &Lock,
        caller: &Caller,
    ) -> Result<Option<Tokens>> {
        let (user, now) = (proof.account.user, caller.now);
        let Some(org) = latest_organization(tx, proof.account).await? else { return Ok(None) };
        if Guard::hold(tx, &lock.subject).await?.is_some_and(|guard| guard.is_locked(now)) {
            return Ok(None);
        }
        let max = self.max_sessions(tx, org, user).await?;
        let (session, refresh) =
            Session::open(tx, user, org, caller.address, max, &self.policy, now).await?;
        if let Some(hash) = &proof.rehashed {
            tx.exec("UPDATE \"user\" SET password_hash = $2 WHERE id = $1", &[&user, hash]).await?;
        }
        Guard::clear(tx, &lock.subject).await?;
        Entry::happened("auth.login", session.id).record_in(tx, org, now).await?;
        self.tokens(&session, refresh, now).map(Some)
    }

    /// The number of sessions that the user may have at once: fewer for one who manages users.
    async fn max_sessions(&self, tx: &Tx<Auth>, org: OrganizationId, user: UserId) -> Result<i64> {
        let manages = Role::of_users(tx, org, &[user])
            .await?
            .iter()
            .any(|(_, role)| role.permissions.contains(&Permission::UserManage));
        Ok(if manages { self.policy.max_per_admin } else { self.policy.max_per_user })
    }

    /// Counts a failure against the account, unless it was locked before, and against the address; an account that
    /// exists has it in its audit trail.
    async fn count_failure(
        &self,
        tx: &Tx<Auth>,
        account: Option<&Account>,
        lock: &Lock,
        caller: &Caller,
    ) -> Result<()> {
        if !lock.is_locked {
            Guard::fail(tx, &lock.subject, self.address_block, caller.now).await?;
        }
        let address = Subject::Address(caller.address);
        Guard::fail(tx, &address, self.address_block, caller.now).await?;
        let Some(account) = account else { return Ok(()) };
        let organizations = Organization::of_user(tx, account.user).await?;
        let Some(organization) = organizations.first() else { return Ok(()) };
        Entry::happened("auth.login_failed", account.user)
            .record_in(tx, organization.id, caller.now)
            .await
    }
}

/// The time for which the caller's address is still refused, or `None`.
async fn blocked_for(tx: &Tx<Auth>, caller: &Caller) -> Result<Option<Duration>> {
    let guard = Guard::find(tx, &Subject::Address(caller.address)).await?;
    let until =
        guard.filter(|guard| guard.is_locked(caller.now)).and_then(|guard| guard.locked_until);
    Ok(until.map(|until| (until - caller.now).to_std().unwrap_or_default()))
}

/// The organization that the user was in last and is active in, with the user locked; or `None`, also where the
/// password is no longer the one that was looked at.
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
