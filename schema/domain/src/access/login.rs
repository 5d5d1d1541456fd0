//! Lockout after failed sign-ins: accounts are locked, addresses are blocked.
//!
//! Failures are counted in Postgres, so that flushing Redis does not unlock an account. Failures for an e-mail without
//! an account are counted in the same way, so that responses do not reveal which accounts exist.
//!
//! A known address, i.e. one from which the user has signed in during the last 30 days, has a separate counter. An
//! attacker who fails on purpose from another address therefore does not lock the user out of the known addresses.

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

/// Number of failures within the window after which an account is locked.
const ACCOUNT_FAILURES: i32 = 5;
/// Number of consecutive failures, over any period, after which an account is locked until its password is reset.
const ACCOUNT_CONSECUTIVE: i32 = 100;
/// Number of failures within the window after which an address is blocked.
const ADDRESS_FAILURES: i32 = 30;
/// Length of the window in which failures are counted.
const WINDOW: TimeDelta = TimeDelta::minutes(15);
/// Duration of the first lock. Each further lock lasts twice as long as the previous one, up to [`MAX_LOCK`].
const FIRST_LOCK: TimeDelta = TimeDelta::seconds(30);
/// Maximum duration of a lock.
const MAX_LOCK: TimeDelta = TimeDelta::minutes(15);
/// Time for which an address counts as known after a sign-in from it.
pub const KNOWN_ADDRESS_LIFETIME: TimeDelta = TimeDelta::days(30);

/// The account or address for which failures are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An account, with a separate counter for each known address and one counter for all other addresses.
    Account {
        /// The normalised e-mail of the account.
        email: String,
        /// The client address if it is known, i.e. if the user has signed in from there within
        /// [`KNOWN_ADDRESS_LIFETIME`]; else `None`.
        known: Option<IpAddr>,
    },
    /// A client address. Addresses with the same [`network_of`] share a counter.
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
                digest(&format!("{email} {}", network_of(*address)))
            }
            Self::Address(address) => digest(&network_of(*address)),
        }
    }
}

/// Returns the network under which an address is counted: an IPv4 address itself; for IPv6 the /64 network, because
/// providers assign at least a /64 to each customer.
pub fn network_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// Failure counters of one subject, and the end of its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockoutCounter {
    failures: i32,
    consecutive: i32,
    locks: i32,
    window_started_at: DateTime<Utc>,
    /// End of the latest lock; `None` if the subject was not locked since the window started.
    pub locked_until: Option<DateTime<Utc>>,
}

impl FromRow for LockoutCounter {
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

impl LockoutCounter {
    /// Returns the counters of a subject without failures.
    pub const fn new(now: DateTime<Utc>) -> Self {
        Self { failures: 0, consecutive: 0, locks: 0, window_started_at: now, locked_until: None }
    }

    /// Returns true if the subject is locked at `now`.
    pub fn is_locked(&self, now: DateTime<Utc>) -> bool {
        self.locked_until.is_some_and(|until| now < until)
    }

    /// Returns the counters of an account after one more failure.
    #[must_use]
    pub fn after_account_failure(self, now: DateTime<Utc>) -> Self {
        let mut next = self.counted(now);
        if next.consecutive >= ACCOUNT_CONSECUTIVE {
            next.locked_until = Some(DateTime::<Utc>::MAX_UTC.min(now + TimeDelta::days(36_500)));
        } else if next.failures >= ACCOUNT_FAILURES {
            let doublings = u32::try_from(next.locks).unwrap_or(0).min(16);
            next.locked_until = Some(now + (FIRST_LOCK * 2_i32.pow(doublings)).min(MAX_LOCK));
            next.locks += 1;
        }
        next
    }

    /// Returns the counters of an address after one more failure. `block` is the duration of a block.
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

    /// Counts one more failure. Starts a new window if more than [`WINDOW`] has passed since the window started and
    /// since the last lock ended.
    fn counted(self, now: DateTime<Utc>) -> Self {
        let quiet_since = self
            .locked_until
            .map_or(self.window_started_at, |until| until.max(self.window_started_at));
        let consecutive = self.consecutive + 1;
        if quiet_since + WINDOW < now {
            return Self { failures: 1, consecutive, ..Self::new(now) };
        }
        Self { failures: self.failures + 1, consecutive, ..self }
    }

    /// Returns the counters of a subject, or `None` if the subject has no failures.
    pub async fn find(tx: &Tx<Auth>, subject: &Subject) -> Result<Option<Self>> {
        tx.opt(
            "SELECT failures, consecutive, locks, window_started_at, locked_until
             FROM login_guard WHERE scope = $1 AND key = $2",
            &[&subject.scope(), &subject.key()],
        )
        .await
    }

    /// As [`LockoutCounter::find`], and locks the row for the rest of the transaction, so that concurrent failures
    /// wait.
    pub async fn find_for_update(tx: &Tx<Auth>, subject: &Subject) -> Result<Option<Self>> {
        tx.opt(
            "SELECT failures, consecutive, locks, window_started_at, locked_until
             FROM login_guard WHERE scope = $1 AND key = $2 FOR UPDATE",
            &[&subject.scope(), &subject.key()],
        )
        .await
    }

    /// Counts one more failure of the subject and returns the updated counters. `block` is the time for which an
    /// address is blocked.
    pub async fn fail(
        tx: &Tx<Auth>,
        subject: &Subject,
        block: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let (scope, key) = (subject.scope(), subject.key());
        // Inserted or locked in one statement: between two statements, a successful sign-in could delete the row.
        let counter: Self = tx
            .one(
                "INSERT INTO login_guard (scope, key, failures, consecutive, locks, window_started_at, updated_at)
                 VALUES ($1, $2, 0, 0, 0, $3, $3)
                 ON CONFLICT (scope, key) DO UPDATE SET updated_at = EXCLUDED.updated_at
                 RETURNING failures, consecutive, locks, window_started_at, locked_until",
                &[&scope, &key, &now],
            )
            .await?;
        let next = match subject {
            Subject::Account { .. } => counter.after_account_failure(now),
            Subject::Address(_) => counter.after_address_failure(now, block),
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

    /// Deletes a subject's failures after a successful sign-in.
    pub async fn clear(tx: &Tx<Auth>, subject: &Subject) -> Result<()> {
        tx.exec(
            "DELETE FROM login_guard WHERE scope = $1 AND key = $2",
            &[&subject.scope(), &subject.key()],
        )
        .await?;
        Ok(())
    }

    /// Deletes up to `limit` counters without a lock that have not counted since `before`. Returns their number.
    pub async fn delete_quiet(tx: &Tx<Auth>, before: DateTime<Utc>, limit: i64) -> Result<u64> {
        tx.exec(
            "DELETE FROM login_guard WHERE (scope, key) IN (
                 SELECT scope, key FROM login_guard
                 WHERE updated_at < $1 AND (locked_until IS NULL OR locked_until < $1)
                 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            &[&before, &limit],
        )
        .await
    }

    /// Deletes all failure counters of an account, including those of known addresses, after the password was set.
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

    /// Records failures at these seconds. Returns the duration in seconds of the lock that each failure caused, or 0.
    fn locks(failures: &[i64]) -> Vec<i64> {
        let mut counter = LockoutCounter::new(at(failures[0]));
        let seconds = failures.iter().map(|second| {
            let before = counter.locked_until;
            counter = counter.after_account_failure(at(*second));
            if counter.locked_until == before {
                0
            } else {
                (counter.locked_until.unwrap() - at(*second)).num_seconds()
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
        let mut counter = LockoutCounter::new(at(0));
        for second in 0..29 {
            counter = counter.after_address_failure(at(second), TimeDelta::minutes(15));
            assert!(!counter.is_locked(at(second)), "{second}");
        }
        counter = counter.after_address_failure(at(29), TimeDelta::minutes(15));
        assert!(counter.is_locked(at(29 + 899)) && !counter.is_locked(at(29 + 900)));
    }

    #[test]
    fn an_ipv6_neighbourhood_is_one_customer() {
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
    }
}
