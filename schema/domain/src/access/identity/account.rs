//! Account: what is known of who wants to sign in, before their password is looked at.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::{
    access::{
        identity::{Caller, Identity},
        login::{KNOWN_FOR, Subject},
    },
    base::{
        db::{Auth, Tx},
        entity::UserId,
        error::Result,
    },
};

/// What is known of who wants to sign in.
pub(super) struct Account {
    pub(super) user: UserId,
    pub(super) hash: Option<String>,
    /// Tells whether the password is still the one that was looked at; a rehash leaves it.
    pub(super) password_changed_at: Option<DateTime<Utc>>,
}

impl Identity {
    /// The account's failures, or those from one of its user's own addresses.
    pub(super) async fn subject(
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
}

pub(super) async fn find_account(tx: &Tx<Auth>, email: &str) -> Result<Option<Account>> {
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
