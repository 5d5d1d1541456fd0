//! Custodies: check-out records of assets. A custody records that one person, the holder, has one asset, from check-out
//! to check-in.
//!
//! A custody is open until check-in. A partial unique index allows at most one open custody per asset, so if two people
//! check out the same laptop at the same time, only one of the two check-outs succeeds. A closed custody never changes,
//! and is kept as history until the asset is deleted.

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
        listing::{ListedTable, Listing, Order},
        page::{Page, PageRequest, Position},
        text,
    },
};

/// A custody: the check-out record of one asset and its holder, from check-out to check-in.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(name = "CustodyRow")]
pub struct Custody {
    /// The custody's id, beginning `cus_`.
    pub id: CustodyId,
    /// The asset that was checked out.
    #[graphql(skip)]
    pub asset_id: AssetId,
    /// The member to whom the asset was checked out.
    #[graphql(skip)]
    pub holder_id: UserId,
    /// Notes on the check-out; null if none were given.
    pub notes: Option<String>,
    /// Time at which the asset was checked out.
    pub checked_out_at: DateTime<Utc>,
    /// The actor who checked the asset out.
    #[graphql(skip)]
    pub checked_out_by: Actor,
    /// Notes on the check-in; null while the asset is checked out, and if none were given.
    pub return_notes: Option<String>,
    /// Time at which the asset was checked in; null while the asset is checked out.
    pub checked_in_at: Option<DateTime<Utc>>,
    /// The actor who checked the asset in; `None` while the asset is checked out.
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
    /// Returns the custody with this id, or `None`.
    pub async fn find(tx: &Tx, id: CustodyId) -> Result<Option<Self>> {
        tx.opt(&format!("SELECT {COLUMNS} FROM custody WHERE id = $1"), &[&id]).await
    }

    /// Returns the open custodies of these assets, at most one per asset.
    pub async fn open_of(tx: &Tx, assets: &[AssetId]) -> Result<Vec<Self>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM custody WHERE asset_id = ANY($1) AND checked_in_at IS NULL"
        );
        tx.all(&sql, &[&assets]).await
    }

    /// Returns a page of custodies for each of these assets, newest first.
    pub async fn of_assets(
        tx: &Tx,
        assets: &[AssetId],
        page: &PageRequest,
    ) -> Result<HashMap<AssetId, Page<Self>>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let custodies = ListedTable { columns: COLUMNS, from: "custody", filter: None };
        let newest_first = Order { column: None, id: "id", descending: true };
        let pages = Listing::default()
            .page_of_each(tx, custodies, ("asset_id", &owners), newest_first, page)
            .await?;
        Ok(pages.into_iter().map(|(asset, page)| (Id::from(asset), page)).collect())
    }

    /// Returns the number of custodies per asset. Assets without custodies are left out.
    pub async fn count_of_assets(tx: &Tx, assets: &[AssetId]) -> Result<HashMap<AssetId, i64>> {
        let owners = assets.iter().map(|id| id.uuid()).collect();
        let counts = Listing::default().count_of_each(tx, "custody", ("asset_id", &owners)).await?;
        Ok(counts.into_iter().map(|(asset, count)| (Id::from(asset), count)).collect())
    }

    /// Returns the custody's position in the asset's custody history.
    pub fn position(&self) -> Position {
        Position { value: String::new(), id: self.id.uuid() }
    }

    /// Checks an asset out to a member of the organization.
    ///
    /// # Errors
    /// `Invalid` if the notes are too long. `NotFound` if the asset does not exist. `Conflict` if the asset is checked
    /// out already; the message names the holder and the time of the check-out. `Conflict` if the new holder is not a
    /// member of the organization.
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
        lock_asset(tx, asset).await?;
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
                    &now.trunc_subsecs(6), // The precision of Postgres.
                    &actor_kind,
                    &actor_id,
                ],
            )
            .await?;
        let Some(opened) = opened else { return Err(checked_out_conflict(tx, asset).await?) };
        opened.record(tx, "asset.checked_out", (&json!({}), &opened.audit_value())).await?;
        Ok(opened)
    }

    /// Checks an asset in: closes its open custody.
    ///
    /// # Errors
    /// `Invalid` if the notes are too long. `NotFound` if the asset does not exist. `Conflict` if the asset is not
    /// checked out.
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
            lock_asset(tx, asset).await?;
            return Err(Error::Conflict("the asset is not checked out".into()));
        };
        Ok(closed)
    }

    /// Closes the open custody of an asset that is about to be deleted. Does nothing if the asset is not checked out.
    pub(crate) async fn close_for_deletion(
        tx: &Tx,
        asset: AssetId,
        now: DateTime<Utc>,
    ) -> Result<()> {
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
        let after = match &closed.return_notes {
            Some(notes) => json!({ "returnNotes": notes }),
            None => json!({}),
        };
        closed.record(tx, "asset.checked_in", (&closed.audit_value(), &after)).await?;
        Ok(Some(closed))
    }

    /// Returns the JSON value that an audit entry contains for this custody while it is open.
    fn audit_value(&self) -> Value {
        match &self.notes {
            Some(notes) => json!({ "holder": self.holder_id, "notes": notes }),
            None => json!({ "holder": self.holder_id }),
        }
    }

    /// Records an audit entry of the asset with the custody before and after the change, and publishes the change
    /// events of the asset and of the custody.
    async fn record(
        &self,
        tx: &Tx,
        action: &'static str,
        (before, after): (&Value, &Value),
    ) -> Result<()> {
        let of_asset = |custody: &Value| json!({ "custody": custody });
        Entry::changed(action, self.asset_id, of_asset(before), of_asset(after)).record(tx).await?;
        tx.emit(Event::changed(tx.org(), self.asset_id));
        tx.emit(Event::changed(tx.org(), self.id));
        Ok(())
    }
}

/// Checks that the asset exists, and locks its row, so that the asset is not deleted before the transaction ends.
///
/// # Errors
/// `NotFound` if the asset does not exist.
async fn lock_asset(tx: &Tx, asset: AssetId) -> Result<()> {
    let found: Option<Row> =
        tx.opt("SELECT id FROM asset WHERE id = $1 FOR KEY SHARE", &[&asset]).await?;
    found.map(drop).ok_or_else(|| Error::not_found("asset", asset))
}

/// Returns the conflict of a check-out that found the asset checked out already.
async fn checked_out_conflict(tx: &Tx, asset: AssetId) -> Result<Error> {
    let holder: Option<Row> = tx
        .opt(
            "SELECT member.name, custody.checked_out_at FROM custody JOIN member ON member.id = custody.holder_id
             WHERE custody.asset_id = $1 AND custody.checked_in_at IS NULL",
            &[&asset],
        )
        .await?;
    let Some(holder) = holder else {
        return Ok(Error::Conflict(
            "the asset was checked out, but has been checked in meanwhile: try the check-out again"
                .into(),
        ));
    };
    let since: DateTime<Utc> = holder.try_get("checked_out_at")?;
    Ok(Error::Conflict(format!(
        "the asset has been checked out to {} since {}: check the asset in first",
        holder.try_get::<_, &str>("name")?,
        since.to_rfc3339_opts(SecondsFormat::Secs, true)
    )))
}
