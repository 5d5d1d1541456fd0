//! The forecast: which verdicts time alone will change, and when.
//!
//! It follows from the rules and stands in the postures, so it is as fresh as they are and needs no nightly run. A time
//! that has come stays listed until whoever follows it has been there.

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

/// How far it looks at most, in months.
const MAX_HORIZON: Months = Months::new(60);

/// A verdict that time alone will change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// Whose verdict.
    pub asset: AssetId,
    /// Which rule's.
    pub rule: RuleId,
    /// The rule's slot.
    pub slot: i32,
    /// What it is.
    pub from: Verdict,
    /// What it becomes.
    pub to: Verdict,
    /// When, to the microsecond.
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

/// Flips of postures by rules that are switched on. `flips_at` is the first of an asset's: later ones are left out by their own
/// time. Of one verdict into itself (a waiver that ends) there is nothing to tell.
const FLIPS: &str = "FROM (SELECT posture.asset_id, rule.id AS rule_id, (flip->>0)::int AS slot, (flip->>1)::bigint AS micros,
            substr(posture.verdicts, (flip->>0)::int + 1, 1) AS was, flip->>2 AS becomes
        FROM posture CROSS JOIN LATERAL jsonb_array_elements(posture.flips) AS flip
        JOIN rule ON rule.slot = (flip->>0)::int AND rule.enabled
        WHERE posture.flips_at <= $1 AND (flip->>1)::bigint <= $2) AS flips
    WHERE translate(was, 'W', 'F') <> translate(becomes, 'W', 'F') AND was <> '-' AND becomes <> '-'";

/// Until when to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    until: DateTime<Utc>,
}

impl Horizon {
    /// Until this time.
    ///
    /// # Errors
    /// `Invalid` for a time that is not to come, or more than five years ahead.
    pub fn check(until: DateTime<Utc>, now: DateTime<Utc>) -> Result<Self> {
        if until <= now {
            return Err(Error::invalid(
                "until",
                "is not in the future: a forecast is of what is to come",
            ));
        }
        if now.checked_add_months(MAX_HORIZON).is_some_and(|farthest| until > farthest) {
            return Err(Error::invalid("until", "is more than five years ahead"));
        }
        Ok(Self { until })
    }

    /// A page of the verdicts that will change until then: the first to come first, then by asset and
    /// slot. Forwards only.
    pub async fn list(&self, tx: &Tx, page: &PageRequest) -> Result<Page<Flip>> {
        let micros = self.until.timestamp_micros();
        let after = page.after.as_ref().map(Bound::of).transpose()?;
        let mut params: Vec<Param<'_>> = vec![&self.until, &micros];
        let mut only = "";
        if let Some(bound) = &after {
            only = " AND (micros, asset_id, slot) > ($3, $4, $5)";
            params.extend([&bound.micros as Param<'_>, &bound.asset, &bound.slot]);
        }
        let sql = format!(
            "SELECT asset_id, rule_id, slot, micros, was, becomes {FLIPS}{only}
             ORDER BY micros, asset_id, slot LIMIT {}",
            page.size + 1
        );
        Ok(Page::cut(tx.all(&sql, &params).await?, page))
    }

    /// How many verdicts will change until then.
    pub async fn count(&self, tx: &Tx) -> Result<i64> {
        let sql = format!("SELECT count(*) AS total {FLIPS}");
        let row: Row = tx.one(&sql, &[&self.until, &self.until.timestamp_micros()]).await?;
        Ok(row.try_get("total")?)
    }
}

impl Flip {
    /// Its position in the list.
    pub fn position(&self) -> Position {
        let value = format!("{} {}", self.at.timestamp_micros(), self.slot);
        Position { value, id: self.asset.uuid() }
    }
}

/// A position as a statement binds it.
struct Bound {
    micros: i64,
    asset: Uuid,
    slot: i32,
}

impl Bound {
    fn of(position: &Position) -> Result<Self> {
        let parts = position.value.split_once(' ');
        let parsed =
            parts.and_then(|(micros, slot)| Some((micros.parse().ok()?, slot.parse().ok()?)));
        // Signed by us, for this list: an older version may have written it otherwise.
        let (micros, slot) = parsed
            .ok_or_else(|| Error::invalid("after", "is a cursor of another version: begin anew"))?;
        Ok(Self { micros, asset: position.id, slot })
    }
}
