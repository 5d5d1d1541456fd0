//! A waiver: a time-limited exception to a rule, for one asset or for all assets. While a waiver is active, failures
//! of the rule count as waived.
//!
//! Every waiver expires. To accept a risk for longer, a new waiver must be granted. A waiver cannot be edited, only
//! revoked before it expires. The rows therefore show which waivers were active at any past time. A second active
//! waiver for the same rule and asset is rejected, because revoking one of the two would have no effect. Postures are
//! re-evaluated when a waiver is granted, when it is revoked and when it expires.

use async_graphql::{Enum, InputObject, SimpleObject};
use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    access::audit::Entry,
    base::{
        actor::Actor,
        db::{FromRow, Tx},
        entity::{self, AssetId, Entity, RuleId, WaiverId},
        error::{Error, FieldError, Result},
        event::Event,
        id::Id,
        listing::{Listing, Order},
        page::{Page, PageRequest, Position},
        stale::{self, Subject},
        text,
    },
    compliance::rule::Ruleset,
};

/// Maximum lifetime of a waiver.
const MAX_DURATION: TimeDelta = TimeDelta::days(366);

/// State of a waiver in its life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum WaiverState {
    /// The waiver is in force: failures that it covers count as waived.
    Active,
    /// The expiry time of the waiver has passed.
    Expired,
    /// The waiver was revoked before it expired.
    Revoked,
}

impl WaiverState {
    /// Returns the state's name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Expired => "EXPIRED",
            Self::Revoked => "REVOKED",
        }
    }
}

/// A time-limited exception to a rule.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(name = "WaiverRow")]
pub struct Waiver {
    /// The waiver's id, beginning `wvr_`.
    pub id: WaiverId,
    /// Id of the waived rule, beginning `rul_`.
    #[graphql(skip)]
    pub rule_id: RuleId,
    /// The asset for which the rule is waived; `None` for all assets.
    #[graphql(skip)]
    pub asset_id: Option<AssetId>,
    /// Reason for the waiver, as given when it was granted.
    pub reason: String,
    /// The actor who granted the waiver.
    #[graphql(skip)]
    pub granted_by: Actor,
    /// Time at which the waiver was granted and became active.
    pub granted_at: DateTime<Utc>,
    /// Time at which the waiver expires, unless it is revoked earlier.
    pub expires_at: DateTime<Utc>,
    /// The actor who revoked the waiver; `None` if it was not revoked.
    #[graphql(skip)]
    pub revoked_by: Option<Actor>,
    /// Time at which the waiver was revoked; null if it was not.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl FromRow for Waiver {
    fn from_row(row: &Row) -> Result<Self> {
        let actor = |kind: &str, id: Option<Uuid>, column| {
            Actor::from_columns(kind, id).ok_or(Error::Corrupt { table: "waiver", column })
        };
        let (granted_kind, granted_by) = (row.try_get("granted_kind")?, row.try_get("granted_by")?);
        let (revoked_kind, revoked_by): (Option<&str>, _) =
            (row.try_get("revoked_kind")?, row.try_get("revoked_by")?);
        Ok(Self {
            id: row.try_get("id")?,
            rule_id: row.try_get("rule_id")?,
            asset_id: row.try_get("asset_id")?,
            reason: row.try_get("reason")?,
            granted_by: actor(granted_kind, granted_by, "granted_kind")?,
            granted_at: row.try_get("granted_at")?,
            expires_at: row.try_get("expires_at")?,
            revoked_by: revoked_kind
                .map(|kind| actor(kind, revoked_by, "revoked_kind"))
                .transpose()?,
            revoked_at: row.try_get("revoked_at")?,
        })
    }
}

/// A new waiver: accepts that a rule fails, on one asset or on all, until a given time.
#[derive(Debug, Clone, InputObject)]
pub struct WaiverInput {
    /// Id of the waived rule, beginning `rul_`.
    pub rule: RuleId,
    /// Asset for which the rule is waived; without it the rule is waived for all assets.
    pub asset: Option<AssetId>,
    /// Reason for the waiver, 1 to 4,096 characters.
    pub reason: String,
    /// Expiry time of the waiver: in the future, and at most 366 days ahead.
    pub expires_at: DateTime<Utc>,
}

impl WaiverInput {
    /// Validates the input and returns the reason as it is stored.
    fn check(&self, now: DateTime<Utc>) -> Result<String> {
        let mut faults = Vec::new();
        let reason = text::check("reason", &self.reason, text::DESCRIPTION, &mut faults);
        let mut add_error = |message: String, latest: Option<DateTime<Utc>>| {
            let suggestion = latest.map(rfc3339);
            faults.push(FieldError { suggestion, ..FieldError::new("expiresAt", message) });
        };
        if self.expires_at.trunc_subsecs(6) <= now.trunc_subsecs(6) {
            let message = "is not in the future; a waiver must expire at a later time".to_owned();
            add_error(message, None);
        } else if self.expires_at > now + MAX_DURATION {
            let days = MAX_DURATION.num_days();
            let message = format!(
                "is more than {days} days ahead; give an earlier time and grant the waiver again when it expires"
            );
            add_error(message, Some(now + MAX_DURATION));
        }
        if faults.is_empty() { Ok(reason) } else { Err(Error::Invalid(faults).within("input")) }
    }
}

const SELECT: &str = "SELECT id, rule_id, asset_id, reason, granted_kind, granted_by, granted_at, expires_at, revoked_kind,
    revoked_by, revoked_at FROM waiver";

impl Waiver {
    /// Returns the waiver's state at this time.
    pub fn state(&self, now: DateTime<Utc>) -> WaiverState {
        match self.revoked_at {
            Some(_) => WaiverState::Revoked,
            None if self.expires_at <= now => WaiverState::Expired,
            None => WaiverState::Active,
        }
    }

    /// Returns all active waivers, ordered by expiry.
    pub async fn active(tx: &Tx, now: DateTime<Utc>) -> Result<Vec<Self>> {
        let sql =
            format!("{SELECT} WHERE revoked_at IS NULL AND expires_at > $1 ORDER BY expires_at");
        tx.all(&sql, &[&now]).await
    }

    /// Returns the waiver, or `None` if it does not exist.
    pub async fn find(tx: &Tx, id: WaiverId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// Returns the waiver; `NotFound` if it does not exist.
    pub async fn get(tx: &Tx, id: WaiverId) -> Result<Self> {
        Self::find(tx, id).await?.ok_or_else(|| Error::not_found(entity::Waiver::NAME, id))
    }

    /// Returns the waivers with these ids, in no particular order. Unknown ids are ignored.
    pub async fn of_ids(tx: &Tx, ids: &[WaiverId]) -> Result<Vec<Self>> {
        tx.all(&format!("{SELECT} WHERE id = ANY($1)"), &[&ids]).await
    }

    /// Returns a page of the organization's waivers, newest first.
    pub async fn list(tx: &Tx, page: &PageRequest) -> Result<Page<Self>> {
        let newest_first = Order { column: None, id: "id", descending: true };
        Listing::default().page(tx, SELECT, newest_first, page).await
    }

    /// Counts all waivers of the organization, active or not.
    pub async fn count(tx: &Tx) -> Result<i64> {
        Listing::default().count(tx, "waiver").await
    }

    /// Returns the waiver's position in the list.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }

    /// Grants a waiver in the name of the transaction's actor.
    ///
    /// # Errors
    /// `NotFound` for a rule or an asset that does not exist, `Conflict` while another waiver of the same rule and
    /// asset is active.
    pub async fn grant(tx: &Tx, input: &WaiverInput, now: DateTime<Utc>) -> Result<Self> {
        let reason = input.check(now)?;
        if let Some(asset) = input.asset {
            let found: Option<Row> =
                tx.opt("SELECT id FROM asset WHERE id = $1 FOR KEY SHARE", &[&asset]).await?;
            found.ok_or_else(|| Error::not_found(entity::Asset::NAME, asset))?;
        }
        let key = lock_or_save(tx, input.rule, now).await?;
        if let Some(equal) = Self::find_equal(tx, input, now).await? {
            return Err(Error::Conflict(format!(
                "the waiver {} already covers this rule and scope until {}; revoke it before granting another",
                equal.id,
                rfc3339(equal.expires_at)
            )));
        }
        let waiver = Self {
            id: Id::new(),
            rule_id: input.rule,
            asset_id: input.asset,
            reason,
            granted_by: tx.origin().actor,
            granted_at: now.trunc_subsecs(6), // Postgres stores microseconds.
            expires_at: input.expires_at.trunc_subsecs(6),
            revoked_by: None,
            revoked_at: None,
        };
        waiver.insert(tx).await?;
        Entry::created("waiver.granted", waiver.id, &waiver.snapshot(&key)).record(tx).await?;
        waiver.mark_stale(tx, key).await?;
        Ok(waiver)
    }

    /// Revokes the waiver before it expires.
    ///
    /// # Errors
    /// `NotFound` if the waiver does not exist, `Conflict` if it has expired or was already revoked.
    pub async fn revoke(tx: &Tx, id: WaiverId, now: DateTime<Utc>) -> Result<Self> {
        let key = lock(tx, Self::get(tx, id).await?.rule_id).await?;
        let (kind, actor_id) = tx.origin().actor.columns();
        let revoked = tx
            .exec(
                "UPDATE waiver SET revoked_kind = $2, revoked_by = $3, revoked_at = $4
                 WHERE id = $1 AND revoked_at IS NULL AND expires_at > $4",
                &[&id, &kind, &actor_id, &now.trunc_subsecs(6)],
            )
            .await?;
        let waiver = Self::get(tx, id).await?;
        if revoked == 0 {
            let state = waiver.state(now).as_str();
            return Err(Error::Conflict(format!("the waiver has ended already: it is {state}")));
        }
        let before = Self { revoked_by: None, revoked_at: None, ..waiver.clone() };
        Entry::changed("waiver.revoked", id, before.snapshot(&key), waiver.snapshot(&key))
            .record(tx)
            .await?;
        waiver.mark_stale(tx, key).await?;
        Ok(waiver)
    }

    async fn find_equal(tx: &Tx, input: &WaiverInput, now: DateTime<Utc>) -> Result<Option<Self>> {
        let sql = format!(
            "{SELECT} WHERE rule_id = $1 AND asset_id IS NOT DISTINCT FROM $2 AND revoked_at IS NULL AND expires_at > $3
             ORDER BY id LIMIT 1"
        );
        tx.opt(&sql, &[&input.rule, &input.asset, &now]).await
    }

    async fn insert(&self, tx: &Tx) -> Result<()> {
        let (kind, actor_id) = self.granted_by.columns();
        tx.exec(
            "INSERT INTO waiver (org_id, id, rule_id, asset_id, reason, granted_kind, granted_by, granted_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            &[
                &tx.org(),
                &self.id,
                &self.rule_id,
                &self.asset_id,
                &self.reason,
                &kind,
                &actor_id,
                &self.granted_at,
                &self.expires_at,
            ],
        )
        .await?;
        Ok(())
    }

    /// Marks the assets that the waiver covers for re-evaluation.
    async fn mark_stale(&self, tx: &Tx, key: String) -> Result<()> {
        let change = self.asset_id.map_or((Subject::All, None), |asset| {
            (Subject::Asset(asset), Some(vec![format!("rule.{key}")]))
        });
        stale::mark(tx, &[change]).await?;
        tx.emit(Event::changed(tx.org(), self.id));
        Ok(())
    }

    fn snapshot(&self, rule: &str) -> Value {
        json!({
            "rule": rule, "asset": self.asset_id, "reason": self.reason, "expiresAt": rfc3339(self.expires_at),
            "revokedAt": self.revoked_at.map(rfc3339),
        })
    }
}

/// Locks the rule like [`lock`]. If the rule is not stored yet, inserts the builtin rules first.
async fn lock_or_save(tx: &Tx, rule: RuleId, now: DateTime<Utc>) -> Result<String> {
    match lock(tx, rule).await {
        Err(Error::NotFound { .. }) => {
            Ruleset::ensure(tx, now).await?;
            lock(tx, rule).await
        }
        locked => locked,
    }
}

/// Locks the rule and returns its key. No other transaction can grant or revoke a waiver of the rule until this one
/// ends.
async fn lock(tx: &Tx, rule: RuleId) -> Result<String> {
    let row: Option<Row> =
        tx.opt("SELECT key FROM rule WHERE id = $1 FOR NO KEY UPDATE", &[&rule]).await?;
    let row = row.ok_or_else(|| Error::not_found(entity::Rule::NAME, rule))?;
    Ok(row.try_get("key")?)
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(reason: &str, expires_in: TimeDelta) -> Vec<String> {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let expires_at = now + expires_in;
        let input = WaiverInput { rule: Id::new(), asset: None, reason: reason.into(), expires_at };
        match input.check(now) {
            Ok(_) => Vec::new(),
            Err(Error::Invalid(faults)) => faults.into_iter().map(|fault| fault.path).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_waiver_ends_in_the_future_and_within_a_year() {
        for (expires_in, expected) in [
            (TimeDelta::microseconds(1), &[][..]),
            (TimeDelta::days(366), &[]),
            (TimeDelta::zero(), &["input.expiresAt"]),
            (TimeDelta::nanoseconds(1), &["input.expiresAt"]),
            (TimeDelta::days(-1), &["input.expiresAt"]),
            (TimeDelta::days(366) + TimeDelta::microseconds(1), &["input.expiresAt"]),
        ] {
            assert_eq!(faults("accepted until the new disks come", expires_in), expected);
        }
    }

    #[test]
    fn a_waiver_says_why() {
        let month = TimeDelta::days(30);
        assert_eq!(faults(" ", month), ["input.reason"]);
        assert_eq!(
            faults(&"x".repeat(4097), TimeDelta::zero()),
            ["input.reason", "input.expiresAt"]
        );
        assert!(faults(&"x".repeat(4096), month).is_empty());
    }
}
