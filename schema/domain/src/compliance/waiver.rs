//! A waiver: a dated permission to leave a rule broken, on one asset or on all of them.
//!
//! It always ends: whoever accepts a risk for longer says so again. It never changes either, only ends early, so what was
//! allowed at a time can be told for ever. Equal ones that hold at once are refused: revoking one would change nothing.
//! While it holds, what fails is waived; the posture follows its beginning and its end.

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

/// How long one lasts at most.
const MAX_DURATION: TimeDelta = TimeDelta::days(366);

/// Where a waiver is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum WaiverState {
    /// It holds.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody ended it.
    Revoked,
}

impl WaiverState {
    /// The text in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Expired => "EXPIRED",
            Self::Revoked => "REVOKED",
        }
    }
}

/// A dated permission to leave a rule broken.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(name = "WaiverRow")]
pub struct Waiver {
    /// Its id.
    pub id: WaiverId,
    /// The rule that may be broken.
    #[graphql(skip)]
    pub rule_id: RuleId,
    /// By which asset; `None`: by all.
    #[graphql(skip)]
    pub asset_id: Option<AssetId>,
    /// Why.
    pub reason: String,
    /// Who allowed it.
    #[graphql(skip)]
    pub granted_by: Actor,
    /// Since when.
    pub granted_at: DateTime<Utc>,
    /// Until when, unless it is revoked.
    pub expires_at: DateTime<Utc>,
    /// Who ended it.
    #[graphql(skip)]
    pub revoked_by: Option<Actor>,
    /// When it was ended; null where it was not.
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

/// What to allow, and until when.
#[derive(Debug, Clone, InputObject)]
pub struct WaiverInput {
    /// The rule that may be broken.
    pub rule: RuleId,
    /// By which asset; by all of them without it.
    pub asset: Option<AssetId>,
    /// Why, up to 4096 characters.
    pub reason: String,
    /// Until when: a time to come, at most 366 days ahead.
    pub expires_at: DateTime<Utc>,
}

impl WaiverInput {
    /// The reason as it is kept.
    fn check(&self, now: DateTime<Utc>) -> Result<String> {
        let mut faults = Vec::new();
        let reason = text::check("reason", &self.reason, text::DESCRIPTION, &mut faults);
        let mut refuse = |message: String, latest: Option<DateTime<Utc>>| {
            let suggestion = latest.map(shown);
            faults.push(FieldError { suggestion, ..FieldError::new("expiresAt", message) });
        };
        if self.expires_at.trunc_subsecs(6) <= now.trunc_subsecs(6) {
            let message = "is not in the future: a waiver ends at a time to come".to_owned();
            refuse(message, None);
        } else if self.expires_at > now + MAX_DURATION {
            let days = MAX_DURATION.num_days();
            let message = format!(
                "is more than {days} days ahead: a waiver lasts at most so long, and can be granted again"
            );
            refuse(message, Some(now + MAX_DURATION));
        }
        if faults.is_empty() { Ok(reason) } else { Err(Error::Invalid(faults).within("input")) }
    }
}

const SELECT: &str = "SELECT id, rule_id, asset_id, reason, granted_kind, granted_by, granted_at, expires_at, revoked_kind,
    revoked_by, revoked_at FROM waiver";

impl Waiver {
    /// Where it is in its life.
    pub fn state(&self, now: DateTime<Utc>) -> WaiverState {
        match self.revoked_at {
            Some(_) => WaiverState::Revoked,
            None if self.expires_at <= now => WaiverState::Expired,
            None => WaiverState::Active,
        }
    }

    /// All that hold, for whoever judges.
    pub async fn active(tx: &Tx, now: DateTime<Utc>) -> Result<Vec<Self>> {
        let sql =
            format!("{SELECT} WHERE revoked_at IS NULL AND expires_at > $1 ORDER BY expires_at");
        tx.all(&sql, &[&now]).await
    }

    /// The waiver, or `None`.
    pub async fn find(tx: &Tx, id: WaiverId) -> Result<Option<Self>> {
        tx.opt(&format!("{SELECT} WHERE id = $1"), &[&id]).await
    }

    /// The waiver.
    pub async fn get(tx: &Tx, id: WaiverId) -> Result<Self> {
        Self::find(tx, id).await?.ok_or_else(|| Error::not_found(entity::Waiver::NAME, id))
    }

    /// Those that there are of these.
    pub async fn of_ids(tx: &Tx, ids: &[WaiverId]) -> Result<Vec<Self>> {
        tx.all(&format!("{SELECT} WHERE id = ANY($1)"), &[&ids]).await
    }

    /// The organization's waivers, newest first.
    pub async fn list(tx: &Tx, page: &PageRequest) -> Result<Page<Self>> {
        let newest_first = Order { column: None, id: "id", descending: true };
        Listing::default().page(tx, SELECT, newest_first, page).await
    }

    /// How many waivers there are.
    pub async fn count(tx: &Tx) -> Result<i64> {
        Listing::default().count(tx, "waiver").await
    }

    /// Its place in the list.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }

    /// Allows it, in the name of the transaction's actor.
    ///
    /// # Errors
    /// `NotFound` for a rule or an asset that does not exist, `Conflict` where an equal one holds.
    pub async fn grant(tx: &Tx, input: &WaiverInput, now: DateTime<Utc>) -> Result<Self> {
        let reason = input.check(now)?;
        if let Some(asset) = input.asset {
            let found: Option<Row> =
                tx.opt("SELECT id FROM asset WHERE id = $1 FOR KEY SHARE", &[&asset]).await?;
            found.ok_or_else(|| Error::not_found(entity::Asset::NAME, asset))?;
        }
        let key = saved(tx, input.rule, now).await?;
        if let Some(equal) = Self::active_like(tx, input, now).await? {
            return Err(Error::Conflict(format!(
                "the waiver {} allows the same until {}: revoke it first",
                equal.id,
                shown(equal.expires_at)
            )));
        }
        let waiver = Self {
            id: Id::new(),
            rule_id: input.rule,
            asset_id: input.asset,
            reason,
            granted_by: tx.origin().actor,
            granted_at: now.trunc_subsecs(6), // As Postgres keeps it.
            expires_at: input.expires_at.trunc_subsecs(6),
            revoked_by: None,
            revoked_at: None,
        };
        waiver.insert(tx).await?;
        Entry::created("waiver.granted", waiver.id, &waiver.snapshot(&key)).record(tx, now).await?;
        waiver.follow(tx, key).await?;
        Ok(waiver)
    }

    /// Ends it before its time.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` where it has ended already.
    pub async fn revoke(tx: &Tx, id: WaiverId, now: DateTime<Utc>) -> Result<Self> {
        let key = lock(tx, Self::get(tx, id).await?.rule_id).await?;
        let (kind, by) = tx.origin().actor.columns();
        let revoked = tx
            .exec(
                "UPDATE waiver SET revoked_kind = $2, revoked_by = $3, revoked_at = $4
                 WHERE id = $1 AND revoked_at IS NULL AND expires_at > $4",
                &[&id, &kind, &by, &now.trunc_subsecs(6)],
            )
            .await?;
        let waiver = Self::get(tx, id).await?;
        if revoked == 0 {
            let state = waiver.state(now).as_str();
            return Err(Error::Conflict(format!("the waiver has ended already: it is {state}")));
        }
        let before = Self { revoked_by: None, revoked_at: None, ..waiver.clone() };
        Entry::changed("waiver.revoked", id, before.snapshot(&key), waiver.snapshot(&key))
            .record(tx, now)
            .await?;
        waiver.follow(tx, key).await?;
        Ok(waiver)
    }

    async fn active_like(tx: &Tx, input: &WaiverInput, now: DateTime<Utc>) -> Result<Option<Self>> {
        let sql = format!(
            "{SELECT} WHERE rule_id = $1 AND asset_id IS NOT DISTINCT FROM $2 AND revoked_at IS NULL AND expires_at > $3
             ORDER BY id LIMIT 1"
        );
        tx.opt(&sql, &[&input.rule, &input.asset, &now]).await
    }

    async fn insert(&self, tx: &Tx) -> Result<()> {
        let (kind, by) = self.granted_by.columns();
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
                &by,
                &self.granted_at,
                &self.expires_at,
            ],
        )
        .await?;
        Ok(())
    }

    /// Has those judged anew whom it concerns.
    async fn follow(&self, tx: &Tx, key: String) -> Result<()> {
        let due = self.asset_id.map_or((Subject::All, None), |asset| {
            (Subject::Asset(asset), Some(vec![format!("rule.{key}")]))
        });
        stale::mark(tx, &[due]).await?;
        tx.emit(Event::changed(tx.org(), self.id));
        Ok(())
    }

    fn snapshot(&self, rule: &str) -> Value {
        json!({
            "rule": rule, "asset": self.asset_id, "reason": self.reason, "expiresAt": shown(self.expires_at),
            "revokedAt": self.revoked_at.map(shown),
        })
    }
}

/// As [`lock`], after what ships has been saved if it is not yet.
async fn saved(tx: &Tx, rule: RuleId, now: DateTime<Utc>) -> Result<String> {
    match lock(tx, rule).await {
        Err(Error::NotFound { .. }) => {
            Ruleset::ensure(tx, now).await?;
            lock(tx, rule).await
        }
        locked => locked,
    }
}

/// The rule's key; nobody grants or revokes a waiver of it until the transaction ends.
async fn lock(tx: &Tx, rule: RuleId) -> Result<String> {
    let row: Option<Row> =
        tx.opt("SELECT key FROM rule WHERE id = $1 FOR NO KEY UPDATE", &[&rule]).await?;
    let row = row.ok_or_else(|| Error::not_found(entity::Rule::NAME, rule))?;
    Ok(row.try_get("key")?)
}

fn shown(at: DateTime<Utc>) -> String {
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
