//! Who holds an asset, from its check-out to its check-in.
//!
//! At most one of an asset is open: a partial unique index says so, because of two people who take the same laptop at
//! once only one has it. What was checked in stays as history and is never altered.

use std::collections::HashMap;

use async_graphql::SimpleObject;
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    access::audit::Entry,
    base::{
        actor::Actor,
        db::{FromRow, Tx},
        entity::{AssetId, CustodyId, UserId},
        error::{Error, Result},
        event::Event,
        id::Id,
        listing::{Listing, Order, Side},
        page::{Page, PageRequest, Position},
        text,
    },
};

/// Somebody holding an asset, now or once.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(name = "CustodyRow")]
pub struct Custody {
    /// Its id.
    pub id: CustodyId,
    /// What is held.
    #[graphql(skip)]
    pub asset_id: AssetId,
    /// Who holds it.
    #[graphql(skip)]
    pub holder_id: UserId,
    /// What was said when it was handed out.
    pub notes: Option<String>,
    /// Since when.
    pub checked_out_at: DateTime<Utc>,
    /// Who handed it out.
    #[graphql(skip)]
    pub checked_out_by: Actor,
    /// What was said when it came back.
    pub return_notes: Option<String>,
    /// Until when; null while it is held.
    pub checked_in_at: Option<DateTime<Utc>>,
    /// Who took it back.
    #[graphql(skip)]
    pub checked_in_by: Option<Actor>,
}

impl FromRow for Custody {
    fn from_row(row: &Row) -> Result<Self> {
        let actor = |kind: &str, id: Option<Uuid>, column| {
            Actor::from_columns(kind, id).ok_or(Error::Corrupt { table: "custody", column })
        };
        let (out_kind, out_id) =
            (row.try_get("checked_out_by_kind")?, row.try_get("checked_out_by_id")?);
        let (in_kind, in_id): (Option<&str>, _) =
            (row.try_get("checked_in_by_kind")?, row.try_get("checked_in_by_id")?);
        Ok(Self {
            id: row.try_get("id")?,
            asset_id: row.try_get("asset_id")?,
            holder_id: row.try_get("holder_id")?,
            notes: row.try_get("notes")?,
            checked_out_at: row.try_get("checked_out_at")?,
            checked_out_by: actor(out_kind, out_id, "checked_out_by_kind")?,
            return_notes: row.try_get("return_notes")?,
            checked_in_at: row.try_get("checked_in_at")?,
            checked_in_by: in_kind
                .map(|kind| actor(kind, in_id, "checked_in_by_kind"))
                .transpose()?,
        })
    }
}

const COLUMNS: &str = "id, asset_id, holder_id, notes, checked_out_at, checked_out_by_kind, checked_out_by_id, return_notes,
    checked_in_at, checked_in_by_kind, checked_in_by_id";

impl Custody {
    /// The custody, or `None`.
    pub async fn find(tx: &Tx, id: CustodyId) -> Result<Option<Self>> {
        tx.opt(&format!("SELECT {COLUMNS} FROM custody WHERE id = $1"), &[&id]).await
    }

    /// Those of these assets that are held now.
    pub async fn open_of(tx: &Tx, assets: &[AssetId]) -> Result<Vec<Self>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM custody WHERE asset_id = ANY($1) AND checked_in_at IS NULL"
        );
        tx.all(&sql, &[&assets]).await
    }

    /// A page of each of these assets' custodies, newest first.
    pub async fn of_assets(
        tx: &Tx,
        assets: &[AssetId],
        page: &PageRequest,
    ) -> Result<HashMap<AssetId, Page<Self>>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let custodies = Side { columns: COLUMNS, from: "custody", only: None };
        let newest_first = Order { column: None, id: "id", descending: true };
        let pages = Listing::default()
            .page_of_each(tx, custodies, ("asset_id", &owners), newest_first, page)
            .await?;
        Ok(pages.into_iter().map(|(asset, page)| (Id::from(asset), page)).collect())
    }

    /// How many custodies each of these assets has; those without any are left out.
    pub async fn count_of_assets(tx: &Tx, assets: &[AssetId]) -> Result<HashMap<AssetId, i64>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let counts = Listing::default().count_of_each(tx, "custody", ("asset_id", &owners)).await?;
        Ok(counts.into_iter().map(|(asset, count)| (Id::from(asset), count)).collect())
    }

    /// Its place in the list.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }

    /// Hands an asset to somebody.
    ///
    /// # Errors
    /// `NotFound` for an asset that does not exist, `Conflict` where somebody holds it, saying who and since when, or
    /// where the holder is no member of the organization.
    pub async fn check_out(
        tx: &Tx,
        asset: AssetId,
        holder: UserId,
        notes: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let mut faults = Vec::new();
        let notes = text::check_optional("notes", notes, text::DESCRIPTION, &mut faults);
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        exists(tx, asset).await?;
        let (actor_kind, actor_id) = tx.origin().actor.columns();
        let opened: Option<Self> = tx
            .opt(
                &format!(
                    "INSERT INTO custody (org_id, id, asset_id, holder_id, notes, checked_out_at, checked_out_by_kind,
                                          checked_out_by_id)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                     ON CONFLICT (org_id, asset_id) WHERE checked_in_at IS NULL DO NOTHING
                     RETURNING {COLUMNS}"
                ),
                &[
                    &tx.org(),
                    &CustodyId::new(),
                    &asset,
                    &holder,
                    &notes,
                    &now.trunc_subsecs(6), // As Postgres keeps it.
                    &actor_kind,
                    &actor_id,
                ],
            )
            .await?;
        let Some(opened) = opened else { return Err(held(tx, asset).await?) };
        opened.record(tx, "asset.checked_out", (&json!({}), &opened.while_held()), now).await?;
        Ok(opened)
    }

    /// Takes an asset back from whoever holds it.
    ///
    /// # Errors
    /// `NotFound` for an asset that does not exist, `Conflict` where nobody holds it.
    pub async fn check_in(
        tx: &Tx,
        asset: AssetId,
        notes: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let mut faults = Vec::new();
        let notes = text::check_optional("notes", notes, text::DESCRIPTION, &mut faults);
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let Some(closed) = Self::close(tx, asset, notes, now).await? else {
            exists(tx, asset).await?;
            return Err(Error::Conflict("nobody holds the asset: it is not checked out".into()));
        };
        Ok(closed)
    }

    /// Takes an asset that is about to go from whoever holds it.
    pub(crate) async fn end_of(tx: &Tx, asset: AssetId, now: DateTime<Utc>) -> Result<()> {
        Self::close(tx, asset, None, now).await.map(drop)
    }

    async fn close(
        tx: &Tx,
        asset: AssetId,
        notes: Option<String>,
        now: DateTime<Utc>,
    ) -> Result<Option<Self>> {
        let (actor_kind, actor_id) = tx.origin().actor.columns();
        let closed: Option<Self> = tx
            .opt(
                &format!(
                    "UPDATE custody SET return_notes = $2, checked_in_at = $3, checked_in_by_kind = $4, checked_in_by_id = $5
                     WHERE asset_id = $1 AND checked_in_at IS NULL RETURNING {COLUMNS}"
                ),
                &[&asset, &notes, &now.trunc_subsecs(6), &actor_kind, &actor_id],
            )
            .await?;
        let Some(closed) = closed else { return Ok(None) };
        let returned = match &closed.return_notes {
            Some(notes) => json!({ "returnNotes": notes }),
            None => json!({}),
        };
        closed.record(tx, "asset.checked_in", (&closed.while_held(), &returned), now).await?;
        Ok(Some(closed))
    }

    /// What the audit trail says of it while it is open.
    fn while_held(&self) -> Value {
        match &self.notes {
            Some(notes) => json!({ "holder": self.holder_id, "notes": notes }),
            None => json!({ "holder": self.holder_id }),
        }
    }

    /// Records on the asset what its custody was and is.
    async fn record(
        &self,
        tx: &Tx,
        action: &'static str,
        (before, after): (&Value, &Value),
        now: DateTime<Utc>,
    ) -> Result<()> {
        let of_asset = |custody: &Value| json!({ "custody": custody });
        Entry::changed(action, self.asset_id, of_asset(before), of_asset(after))
            .record(tx, now)
            .await?;
        tx.emit(Event::changed(tx.org(), self.asset_id));
        tx.emit(Event::changed(tx.org(), self.id));
        Ok(())
    }
}

/// Makes sure of the asset, and that it stays until the transaction ends.
async fn exists(tx: &Tx, asset: AssetId) -> Result<()> {
    let found: Option<Row> =
        tx.opt("SELECT id FROM asset WHERE id = $1 FOR KEY SHARE", &[&asset]).await?;
    found.map(drop).ok_or_else(|| Error::not_found("asset", asset))
}

/// Why it cannot be handed out.
async fn held(tx: &Tx, asset: AssetId) -> Result<Error> {
    let holder: Option<Row> = tx
        .opt(
            "SELECT \"user\".name, custody.checked_out_at FROM custody JOIN \"user\" ON \"user\".id = custody.holder_id
             WHERE custody.asset_id = $1 AND custody.checked_in_at IS NULL",
            &[&asset],
        )
        .await?;
    let Some(holder) = holder else {
        return Ok(Error::Conflict("the asset was checked in just now: check it out again".into()));
    };
    let since: DateTime<Utc> = holder.try_get("checked_out_at")?;
    Ok(Error::Conflict(format!(
        "{} has held the asset since {}: check it in first",
        holder.try_get::<_, &str>("name")?,
        since.to_rfc3339_opts(SecondsFormat::Secs, true)
    )))
}
