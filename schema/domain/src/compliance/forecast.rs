//! The forecast: flips up to a given time. A flip is an expected change of a verdict although no fact changes, e.g.
//! because a certificate expires.
//!
//! Each posture stores its flips, so the forecast is as current as the postures and needs no nightly run. A flip that
//! is due stays listed until its asset has been re-evaluated.

use chrono::{DateTime, Months, Utc};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    base::{
        db::{FromRow, Param, Tx},
        entity::{AssetId, RuleId},
        error::{Error, Result},
        page::{Page, PageRequest, Position},
    },
    compliance::{posture::VerdictCode, rule::Verdict},
};

/// Maximum time from now to the end of a forecast: five years.
const MAX_HORIZON: Months = Months::new(60);

/// An expected change of a verdict without a change of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// The asset on which the verdict changes.
    pub asset: AssetId,
    /// The rule whose verdict changes.
    pub rule: RuleId,
    /// The rule's slot: the index of its verdict in the posture.
    pub slot: i32,
    /// The verdict before the change.
    pub from: Verdict,
    /// The verdict after the change.
    pub to: Verdict,
    /// Time of the change, with microsecond precision.
    pub at: DateTime<Utc>,
}

impl FromRow for Flip {
    fn from_row(row: &Row) -> Result<Self> {
        let corrupt = || Error::Corrupt { table: "posture", column: "flips" };
        let verdict = |code: &str| {
            let [code] = code.as_bytes() else { return Err(corrupt()) };
            VerdictCode::from_byte(*code)?.verdict().ok_or_else(corrupt)
        };
        Ok(Self {
            asset: row.try_get("asset_id")?,
            rule: row.try_get("rule_id")?,
            slot: row.try_get("slot")?,
            from: verdict(row.try_get("was")?)?,
            to: verdict(row.try_get("becomes")?)?,
            at: DateTime::from_timestamp_micros(row.try_get("micros")?).ok_or_else(corrupt)?,
        })
    }
}

/// Selects the flips of enabled rules from the postures. The column `flips_at` holds only the earliest flip of an
/// asset, so each flip is also filtered by its own time. The expiry of a waiver is left out, because the verdict stays
/// `FAIL`.
const FLIPS: &str = "FROM (SELECT posture.asset_id, rule.id AS rule_id, (flip->>0)::int AS slot, (flip->>1)::bigint AS micros,
            substr(posture.verdicts, (flip->>0)::int + 1, 1) AS was, flip->>2 AS becomes
        FROM posture CROSS JOIN LATERAL jsonb_array_elements(posture.flips) AS flip
        JOIN rule ON rule.slot = (flip->>0)::int AND rule.enabled
        WHERE posture.flips_at <= $1 AND (flip->>1)::bigint <= $2) AS flips
    WHERE translate(was, 'W', 'F') <> translate(becomes, 'W', 'F') AND was <> '-' AND becomes <> '-'";

/// The validated end of a forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    until: DateTime<Utc>,
}

impl Horizon {
    /// Returns the horizon that ends at `until`.
    ///
    /// # Errors
    /// `Invalid` if `until` is not in the future or is more than five years ahead.
    pub fn check(until: DateTime<Utc>, now: DateTime<Utc>) -> Result<Self> {
        if until <= now {
            return Err(Error::invalid("until", "is not in the future; give a later time"));
        }
        if now.checked_add_months(MAX_HORIZON).is_some_and(|farthest| until > farthest) {
            return Err(Error::invalid(
                "until",
                "is more than five years ahead; give an earlier time",
            ));
        }
        Ok(Self { until })
    }

    /// Returns a page of the flips up to the horizon, ordered by time, asset and slot. Supports forward paging only.
    pub async fn list(&self, tx: &Tx, page: &PageRequest) -> Result<Page<Flip>> {
        let micros = self.until.timestamp_micros();
        let after = page.after.as_ref().map(PageStart::of).transpose()?;
        let mut params: Vec<Param<'_>> = vec![&self.until, &micros];
        let mut after_clause = "";
        if let Some(start) = &after {
            after_clause = " AND (micros, asset_id, slot) > ($3, $4, $5)";
            params.extend([&start.micros as Param<'_>, &start.asset, &start.slot]);
        }
        let sql = format!(
            "SELECT asset_id, rule_id, slot, micros, was, becomes {FLIPS}{after_clause}
             ORDER BY micros, asset_id, slot LIMIT {}",
            page.size + 1
        );
        Ok(Page::cut(tx.all(&sql, &params).await?, page))
    }

    /// Counts the flips up to the horizon.
    pub async fn count(&self, tx: &Tx) -> Result<i64> {
        let sql = format!("SELECT count(*) AS total {FLIPS}");
        let row: Row = tx.one(&sql, &[&self.until, &self.until.timestamp_micros()]).await?;
        Ok(row.try_get("total")?)
    }
}

impl Flip {
    /// Returns the flip's position in the list.
    pub fn position(&self) -> Position {
        let value = format!("{} {}", self.at.timestamp_micros(), self.slot);
        Position { value, id: self.asset.uuid() }
    }
}

/// The position after which a page starts, as SQL parameters.
struct PageStart {
    micros: i64,
    asset: Uuid,
    slot: i32,
}

impl PageStart {
    fn of(position: &Position) -> Result<Self> {
        let parts = position.value.split_once(' ');
        let parsed =
            parts.and_then(|(micros, slot)| Some((micros.parse().ok()?, slot.parse().ok()?)));
        // The cursor's signature is valid for this list, but another server version may have written the value in
        // another format.
        let (micros, slot) = parsed.ok_or_else(|| {
            Error::invalid(
                "after",
                "is a cursor of another server version; start again from the first page",
            )
        })?;
        Ok(Self { micros, asset: position.id, slot })
    }
}
