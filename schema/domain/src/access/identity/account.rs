//! Lookups before the password is verified: the account with an e-mail, and the lockout state.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::{
    access::{
        identity::RequestInfo,
        login::{KNOWN_ADDRESS_LIFETIME, LockoutCounter, Subject},
    },
    base::{
        db::{Auth, FromRow, Tx},
        entity::UserId,
        error::Result,
    },
};

/// Columns of the user's row that sign-in reads.
pub(super) struct Account {
    pub(super) user: UserId,
    pub(super) hash: Option<String>,
    /// Detects a password change during sign-in. A rehash of the same password leaves it unchanged.
    pub(super) password_changed_at: Option<DateTime<Utc>>,
}

impl FromRow for Account {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            user: row.try_get("id")?,
            hash: row.try_get("password_hash")?,
            password_changed_at: row.try_get("password_changed_at")?,
        })
    }
}

impl Account {
    /// Returns the account with the e-mail, or `None`.
    pub(super) async fn find(tx: &Tx<Auth>, email: &str) -> Result<Option<Self>> {
        tx.opt(
            "SELECT id, password_hash, password_changed_at FROM \"user\" WHERE email = $1",
            &[&email],
        )
        .await
    }
}

/// Lockout state of an e-mail at the start of the attempt. An e-mail without an account is locked in the same way.
pub(super) struct Lock {
    /// Subject under which failures are counted: the account, or the account together with a known client address.
    pub(super) subject: Subject,
    pub(super) is_locked: bool,
}

impl Lock {
    /// Returns the lock that applies to an attempt from the caller's address.
    pub(super) async fn find(
        tx: &Tx<Auth>,
        email: &str,
        account: Option<&Account>,
        caller: &RequestInfo,
    ) -> Result<Self> {
        let subject = subject(tx, email, account, caller).await?;
        let counter = LockoutCounter::find(tx, &subject).await?;
        let is_locked = counter.is_some_and(|counter| counter.is_locked(caller.now));
        Ok(Self { subject, is_locked })
    }

    /// Returns the hash to verify the password against, or `None` if the account is locked or has no password. A locked
    /// account rejects even the right password.
    pub(super) fn hash_of<'a>(&self, account: &'a Account) -> Option<&'a str> {
        account.hash.as_deref().filter(|_| !self.is_locked)
    }
}

async fn subject(
    tx: &Tx<Auth>,
    email: &str,
    account: Option<&Account>,
    caller: &RequestInfo,
) -> Result<Subject> {
    let user = account.map(|account| account.user.uuid());
    let known: Row = tx
        .one(
            "SELECT EXISTS (SELECT FROM session WHERE user_id = $1 AND source_ip = $2 AND created_at > $3) AS known",
            &[&user, &caller.address, &(caller.now - KNOWN_ADDRESS_LIFETIME)],
        )
        .await?;
    let known: bool = known.try_get("known")?;
    Ok(Subject::Account { email: email.to_owned(), known: known.then_some(caller.address) })
}
