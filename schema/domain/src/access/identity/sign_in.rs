//! Sign-in: e-mail and password, traded for a session.
//!
//! A failed sign-in always costs the same work and says the same words, whether the e-mail is unknown, the password
//! wrong, the user inactive or the account locked. No transaction is open while a password is hashed.

use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        identity::{
            Caller, Identity, Tokens,
            account::{Account, find_account},
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
        entity::OrganizationId,
        error::{Error, Result},
    },
};

impl Identity {
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
}
