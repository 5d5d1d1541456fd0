//! New passwords: changed by the user, who must enter the current password, or set for another user.
//!
//! A wrong current password counts as a failed sign-in. Otherwise a stolen session could be used to guess the password.
//! No transaction is open while a password is hashed.

use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        identity::{
            Identity, RequestInfo,
            account::{Account, Lock},
            no_session,
        },
        login::LockoutCounter,
        organization::Organization,
        password,
        user::{User, credentials::SetBy},
        viewer::Viewer,
    },
    base::{
        db::{Auth, FromRow, Tx},
        entity::UserId,
        error::{Error, Result},
    },
};

/// A user who proves their own password, with the names that a new password must not be based on.
pub(super) struct Person {
    pub(super) account: Account,
    /// True if the user chose the password; false if an organization or the installation's operator set it.
    pub(super) has_own_password: bool,
    email: String,
    name: String,
    has_mfa: bool,
    organizations: Vec<Organization>,
}

impl Person {
    /// Checks that a new password is strong enough. The user's name and e-mail and the names of their organizations are
    /// easy to guess, so passwords based on them are rejected.
    pub(super) fn check(&self, path: &str, new: &str) -> Result<()> {
        let local = self.email.split('@').next().unwrap_or_default();
        let names = self
            .organizations
            .iter()
            .flat_map(|organization| [organization.slug.as_str(), organization.name.as_str()]);
        let context: Vec<&str> =
            [&self.email, local, &self.name].into_iter().chain(names).collect();
        password::check(path, new, &context, self.has_mfa)
            .map_err(|fault| Error::Invalid(vec![fault]))
    }
}

impl Identity {
    /// Changes the viewer's own password and ends their other sessions.
    ///
    /// # Errors
    /// `Forbidden` for an API key, `Invalid` if the current password is wrong or the new one is too weak.
    pub async fn change_password(
        &self,
        viewer: &Viewer,
        current: &str,
        new: &str,
        caller: &RequestInfo,
    ) -> Result<()> {
        let (user, session) = viewer.user().zip(viewer.session).ok_or_else(no_session)?;
        let (person, lock) = self.find_person(viewer, user, caller).await?;
        person.check("new", new)?;
        if password::is_same(new, current) {
            return Err(Error::invalid("new", "is the current password"));
        }
        if !self.hasher.verify(current, lock.hash_of(&person.account)).await? {
            self.count_wrong_password(viewer, &person, &lock, caller).await?;
            return Err(wrong());
        }
        let hash = self.hasher.hash(new).await?;
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        if !is_unchanged(&tx, &person.account).await? {
            tx.rollback().await?;
            return Err(wrong()); // The password was reset meanwhile: `current` is outdated.
        }
        User::set_password(&tx, user, &hash, SetBy::Owner(session), caller.now).await?;
        Entry::without_values("auth.password_changed", user).record_in(&tx, viewer.org).await?;
        tx.commit().await
    }

    /// Returns the viewer's account and organizations, and the lockout state of the account.
    pub(super) async fn find_person(
        &self,
        viewer: &Viewer,
        user: UserId,
        caller: &RequestInfo,
    ) -> Result<(Person, Lock)> {
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        let row: Row = tx
            .one(
                "SELECT id, email, name, mfa_enabled, password_hash, password_changed_at, password_own
                 FROM \"user\" WHERE id = $1",
                &[&user],
            )
            .await?;
        let (account, email) = (Account::from_row(&row)?, row.try_get("email")?);
        let lock = Lock::find(&tx, email, Some(&account), caller).await?;
        let organizations = Organization::of_user(&tx, user).await?;
        tx.commit().await?;
        let (name, has_mfa) = (row.try_get("name")?, row.try_get("mfa_enabled")?);
        let has_own_password = row.try_get("password_own")?;
        let email = email.to_owned();
        Ok((Person { account, has_own_password, email, name, has_mfa, organizations }, lock))
    }

    /// Counts a wrong current password as a failed sign-in to the account, unless the account was already locked, and
    /// records it in each of the person's organizations.
    pub(super) async fn count_wrong_password(
        &self,
        viewer: &Viewer,
        person: &Person,
        lock: &Lock,
        caller: &RequestInfo,
    ) -> Result<()> {
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        if !lock.is_locked {
            LockoutCounter::fail(&tx, &lock.subject, self.address_block, caller.now).await?;
        }
        for organization in &person.organizations {
            Entry::without_values("auth.password_refused", person.account.user)
                .record_in(&tx, organization.id)
                .await?;
        }
        tx.commit().await
    }

    /// Checks and hashes a password that is set for another user. `path` is the input path of errors; `context` lists
    /// words that are easy to guess.
    pub async fn hash_new(&self, path: &str, password: &str, context: &[&str]) -> Result<String> {
        password::check(path, password, context, false)
            .map_err(|fault| Error::Invalid(vec![fault]))?;
        self.hasher.hash(password).await
    }
}

fn wrong() -> Error {
    Error::invalid("current", "is not the current password")
}

/// Returns true if the password has not changed since it was verified. Locks the user's row.
pub(super) async fn is_unchanged(tx: &Tx<Auth>, account: &Account) -> Result<bool> {
    let row: Option<Row> = tx
        .opt(
            "SELECT id FROM \"user\" WHERE id = $1 AND password_changed_at IS NOT DISTINCT FROM $2 FOR UPDATE",
            &[&account.user, &account.password_changed_at],
        )
        .await?;
    Ok(row.is_some())
}
