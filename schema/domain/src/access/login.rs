//! What failed sign-ins cost: locks by account and blocks by address.
//!
//! Counted in Postgres, so that a flushed Redis unlocks nobody, and for accounts that do not exist just the same, so
//! that the answer tells nothing. An address from which the user has signed in lately is counted apart from all
//! others: a stranger who fails on purpose locks out strangers, not the user.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Row;

use crate::{
    access::token::digest,
    base::{
        db::{Auth, FromRow, Tx},
        entity::UserId,
        error::Result,
    },
};

/// Failures within the window that lock an account for the first time.
const ACCOUNT_FAILURES: i32 = 5;
/// Failures in a row, however slow, that lock it until an administrator resets the password.
const ACCOUNT_CONSECUTIVE: i32 = 100;
/// Failures within the window that block an address.
const ADDRESS_FAILURES: i32 = 30;
/// The window.
const WINDOW: TimeDelta = TimeDelta::minutes(15);
/// The first lock; each further one is twice as long.
const FIRST_LOCK: TimeDelta = TimeDelta::seconds(30);
/// The longest lock.
const LONGEST_LOCK: TimeDelta = TimeDelta::minutes(15);
/// How long an address counts as known after a sign-in from there.
pub const KNOWN_FOR: TimeDelta = TimeDelta::days(30);

/// Whose failures are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An account, by its normalised e-mail; `known` where the address is one of its user's own.
    Account {
        /// The normalised e-mail.
        email: String,
        /// The caller's address, where the user has signed in from it lately.
        known: Option<IpAddr>,
    },
    /// Everybody behind an address.
    Address(IpAddr),
}

impl Subject {
    const fn scope(&self) -> &'static str {
        match self {
            Self::Account { .. } => "account",
            Self::Address(_) => "address",
        }
    }

    fn key(&self) -> Vec<u8> {
        match self {
            Self::Account { email, known: None } => digest(email),
            Self::Account { email, known: Some(address) } => {
                digest(&format!("{email} {}", neighbourhood(*address)))
            }
            Self::Address(address) => digest(&neighbourhood(*address)),
        }
    }
}

/// An address as it is counted: IPv6 by its /64, which is one customer's.
pub fn neighbourhood(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// What is known of a subject's failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    failures: i32,
    consecutive: i32,
    locks: i32,
    window_started_at: DateTime<Utc>,
    /// Until when it is refused.
    pub locked_until: Option<DateTime<Utc>>,
}

impl FromRow for Guard {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            failures: row.try_get("failures")?,
            consecutive: row.try_get("consecutive")?,
            locks: row.try_get("locks")?,
            window_started_at: row.try_get("window_started_at")?,
            locked_until: row.try_get("locked_until")?,
        })
    }
}

impl Guard {
    /// Nothing has failed yet.
    pub const fn new(now: DateTime<Utc>) -> Self {
        Self { failures: 0, consecutive: 0, locks: 0, window_started_at: now, locked_until: None }
    }

    /// Whether it is refused now.
    pub fn is_locked(&self, now: DateTime<Utc>) -> bool {
        self.locked_until.is_some_and(|until| now < until)
    }

    /// The guard of an account after one more failure.
    #[must_use]
    pub fn after_account_failure(self, now: DateTime<Utc>) -> Self {
        let mut next = self.counted(now);
        if next.consecutive >= ACCOUNT_CONSECUTIVE {
            next.locked_until = Some(DateTime::<Utc>::MAX_UTC.min(now + TimeDelta::days(36_500)));
        } else if next.failures >= ACCOUNT_FAILURES {
            let doublings = u32::try_from(next.locks).unwrap_or(0).min(16);
            next.locked_until = Some(now + (FIRST_LOCK * 2_i32.pow(doublings)).min(LONGEST_LOCK));
            next.locks += 1;
        }
        next
    }

    /// The guard of an address after one more failure.
    #[must_use]
    pub fn after_address_failure(self, now: DateTime<Utc>, block: TimeDelta) -> Self {
        let mut next = self.counted(now);
        if next.failures >= ADDRESS_FAILURES {
            next.locked_until = Some(now + block);
            next.failures = 0;
            next.window_started_at = now;
        }
        next
    }

    /// One failure more; the window starts anew once it, and any lock in it, is over.
    fn counted(self, now: DateTime<Utc>) -> Self {
        let calm_since = self
            .locked_until
            .map_or(self.window_started_at, |until| until.max(self.window_started_at));
        let consecutive = self.consecutive + 1;
        if calm_since + WINDOW < now {
            return Self { failures: 1, consecutive, ..Self::new(now) };
        }
        Self { failures: self.failures + 1, consecutive, ..self }
    }

    /// The guard of a subject, if anything ever failed.
    pub async fn find(tx: &Tx<Auth>, subject: &Subject) -> Result<Option<Self>> {
        tx.opt(
            "SELECT failures, consecutive, locks, window_started_at, locked_until
             FROM login_guard WHERE scope = $1 AND key = $2",
            &[&subject.scope(), &subject.key()],
        )
        .await
    }

    /// As [`Guard::find`], locked for the rest of the transaction: what fails meanwhile is waited for.
    pub async fn hold(tx: &Tx<Auth>, subject: &Subject) -> Result<Option<Self>> {
        tx.opt(
            "SELECT failures, consecutive, locks, window_started_at, locked_until
             FROM login_guard WHERE scope = $1 AND key = $2 FOR UPDATE",
            &[&subject.scope(), &subject.key()],
        )
        .await
    }

    /// Counts one more failure.
    pub async fn fail(
        tx: &Tx<Auth>,
        subject: &Subject,
        block: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let (scope, key) = (subject.scope(), subject.key());
        // Made or locked in one statement: between two, a success elsewhere could forget the row.
        let guard: Self = tx
            .one(
                "INSERT INTO login_guard (scope, key, failures, consecutive, locks, window_started_at, updated_at)
                 VALUES ($1, $2, 0, 0, 0, $3, $3)
                 ON CONFLICT (scope, key) DO UPDATE SET updated_at = EXCLUDED.updated_at
                 RETURNING failures, consecutive, locks, window_started_at, locked_until",
                &[&scope, &key, &now],
            )
            .await?;
        let next = match subject {
            Subject::Account { .. } => guard.after_account_failure(now),
            Subject::Address(_) => guard.after_address_failure(now, block),
        };
        tx.exec(
            "UPDATE login_guard SET failures = $3, consecutive = $4, locks = $5, window_started_at = $6,
                                    locked_until = $7, updated_at = $8
             WHERE scope = $1 AND key = $2",
            &[&scope, &key, &next.failures, &next.consecutive, &next.locks, &next.window_started_at, &next.locked_until, &now],
        )
        .await?;
        Ok(next)
    }

    /// Forgets a subject's failures: it signed in.
    pub async fn clear(tx: &Tx<Auth>, subject: &Subject) -> Result<()> {
        tx.exec(
            "DELETE FROM login_guard WHERE scope = $1 AND key = $2",
            &[&subject.scope(), &subject.key()],
        )
        .await?;
        Ok(())
    }

    /// Forgets an account's failures, those at its user's own addresses too: its password was set. Takes a transaction
    /// of `Db::auth`.
    pub async fn clear_account(tx: &Tx<Auth>, user: UserId, email: &str) -> Result<()> {
        let rows: Vec<Row> =
            tx.all("SELECT DISTINCT source_ip FROM session WHERE user_id = $1", &[&user]).await?;
        let known = |row: &Row| Ok(Some(row.try_get("source_ip")?));
        let known: Vec<Option<IpAddr>> = rows.iter().map(known).collect::<Result<_>>()?;
        let subjects = std::iter::once(None)
            .chain(known)
            .map(|known| Subject::Account { email: email.to_owned(), known });
        let keys: Vec<_> = subjects.map(|subject| subject.key()).collect();
        tx.exec("DELETE FROM login_guard WHERE scope = 'account' AND key = ANY($1)", &[&keys])
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    /// Fails at these seconds, and says for how long each failure locked.
    fn locks(failures: &[i64]) -> Vec<i64> {
        let mut guard = Guard::new(at(failures[0]));
        let seconds = failures.iter().map(|second| {
            let before = guard.locked_until;
            guard = guard.after_account_failure(at(*second));
            if guard.locked_until == before {
                0
            } else {
                (guard.locked_until.unwrap() - at(*second)).num_seconds()
            }
        });
        seconds.collect()
    }

    #[test]
    fn the_fifth_failure_locks_and_each_further_one_twice_as_long() {
        assert_eq!(
            locks(&[0, 1, 2, 3, 4, 40, 110, 300, 600, 1200, 2200]),
            [0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900]
        );
    }

    #[test]
    fn slow_failures_do_not_lock() {
        let slow: Vec<i64> = (0..20).map(|failure| failure * 901).collect();
        assert!(locks(&slow).iter().all(|seconds| *seconds == 0));
    }

    #[test]
    fn the_hundredth_failure_in_a_row_locks_for_good() {
        let slow: Vec<i64> = (0..100).map(|failure| failure * 901).collect();
        let locks = locks(&slow);
        assert_eq!(locks[98], 0);
        assert!(locks[99] > TimeDelta::days(3650).num_seconds());
    }

    #[test]
    fn the_thirtieth_failure_blocks_an_address() {
        let mut guard = Guard::new(at(0));
        for second in 0..29 {
            guard = guard.after_address_failure(at(second), TimeDelta::minutes(15));
            assert!(!guard.is_locked(at(second)), "{second}");
        }
        guard = guard.after_address_failure(at(29), TimeDelta::minutes(15));
        assert!(guard.is_locked(at(29 + 899)) && !guard.is_locked(at(29 + 900)));
    }

    #[test]
    fn an_ipv6_neighbourhood_is_one_customer() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
    }
}
