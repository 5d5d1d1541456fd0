//! Account: what is known of who wants to sign in, before their password is looked at; and its lock.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::{
    access::{
        identity::Caller,
        login::{Guard, KNOWN_FOR, Subject},
    },
    base::{
        db::{Auth, FromRow, Tx},
        entity::UserId,
        error::Result,
    },
};

/// A person's account, as far as signing in needs it.
pub(super) struct Account {
    pub(super) user: UserId,
    pub(super) hash: Option<String>,
    /// Tells whether the password is still the one that was looked at; a rehash leaves it.
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
    /// The account of that e-mail, or `None`.
    pub(super) async fn find(tx: &Tx<Auth>, email: &str) -> Result<Option<Self>> {
        tx.opt(
            "SELECT id, password_hash, password_changed_at FROM \"user\" WHERE email = $1",
            &[&email],
        )
        .await
    }
}

/// The lock of an account, as it was when the attempt began. An e-mail that nobody has is locked like any other.
pub(super) struct Lock {
    /// The account's failures, or those from one of its user's own addresses.
    pub(super) subject: Subject,
    pub(super) is_locked: bool,
}

impl Lock {
    /// The lock that an attempt from the caller's address meets.
    pub(super) async fn find(
        tx: &Tx<Auth>,
        email: &str,
        account: Option<&Account>,
        caller: &Caller,
    ) -> Result<Self> {
        let subject = subject(tx, email, account, caller).await?;
        let guard = Guard::find(tx, &subject).await?;
        let is_locked = guard.is_some_and(|guard| guard.is_locked(caller.now));
        Ok(Self { subject, is_locked })
    }

    /// The hash that a password is compared with: none behind a lock, where even the right one is refused.
    pub(super) fn hash_of<'a>(&self, account: &'a Account) -> Option<&'a str> {
        account.hash.as_deref().filter(|_| !self.is_locked)
    }
}

async fn subject(
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
