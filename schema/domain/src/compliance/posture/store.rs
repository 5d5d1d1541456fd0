//! SQL for postures. Each function reads or writes any number of postures in one statement.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Posture, VerdictCode};
use crate::{
    base::{
        db::{Tx, column},
        entity::AssetId,
        error::Result,
    },
    compliance::{finding::transition::InsertMode, range::AssetRange},
};

/// Selects postures; append a `WHERE` clause.
pub(crate) const SELECT: &str =
    "SELECT asset_id, verdicts, passed_weight, failed_weight, waived_weight, whole_weight, score,
    facts_hash, flips, errors, evaluated_at FROM posture";

/// Returns the stored postures of the assets in a range, by asset.
pub(crate) async fn in_range(tx: &Tx, range: AssetRange) -> Result<HashMap<AssetId, Posture>> {
    let (above, up_to) = range.bounds();
    let sql = format!("{SELECT} WHERE asset_id > $1 AND asset_id <= $2");
    Ok(by_asset(tx.all(&sql, &[&above, &up_to]).await?))
}

/// Returns the stored postures of these assets, by asset.
pub(super) async fn of_assets(tx: &Tx, assets: &[AssetId]) -> Result<HashMap<AssetId, Posture>> {
    // One index lookup per asset. With a join, a plan that was cached while the table was small would scan the whole
    // table.
    let sql = format!(
        "SELECT found.* FROM UNNEST($1::uuid[]) AS given (id)
         CROSS JOIN LATERAL ({SELECT} WHERE posture.asset_id = given.id LIMIT 1) AS found"
    );
    Ok(by_asset(tx.all(&sql, &[&assets]).await?))
}

fn by_asset(postures: Vec<Posture>) -> HashMap<AssetId, Posture> {
    postures.into_iter().map(|posture| (posture.asset, posture)).collect()
}

/// Writes postures: with a plain `INSERT`, which is cheaper, if none of them is stored yet, otherwise with an upsert.
pub(super) async fn write(tx: &Tx, postures: &[Posture], insert_mode: InsertMode) -> Result<()> {
    if postures.is_empty() {
        return Ok(());
    }
    let conflict = match insert_mode {
        InsertMode::Plain => "",
        InsertMode::Upsert => "ON CONFLICT (org_id, asset_id) DO UPDATE SET
             verdicts = EXCLUDED.verdicts, passed_weight = EXCLUDED.passed_weight, failed_weight = EXCLUDED.failed_weight,
             waived_weight = EXCLUDED.waived_weight, whole_weight = EXCLUDED.whole_weight, score = EXCLUDED.score,
             facts_hash = EXCLUDED.facts_hash, flips = EXCLUDED.flips, flips_at = EXCLUDED.flips_at,
             errors = EXCLUDED.errors, evaluated_at = EXCLUDED.evaluated_at",
    };
    let rows: Vec<&Posture> = postures.iter().collect();
    let sql = format!(
        "INSERT INTO posture (org_id, asset_id, verdicts, passed_weight, failed_weight, waived_weight, whole_weight, score,
                              facts_hash, flips, flips_at, errors, evaluated_at)
         SELECT $1, * FROM UNNEST($2::uuid[], $3::text[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[],
                                  $9::bigint[], $10::jsonb[], $11::timestamptz[], $12::jsonb[], $13::timestamptz[])
         {conflict}"
    );
    tx.exec(
        &sql,
        &[
            &tx.org(),
            &column(&rows, |posture| posture.asset),
            &column(&rows, |posture| text(&posture.codes)),
            &column(&rows, |posture| posture.passed_weight),
            &column(&rows, |posture| posture.failed_weight),
            &column(&rows, |posture| posture.waived_weight),
            &column(&rows, |posture| posture.whole_weight),
            &column(&rows, |posture| posture.score),
            &column(&rows, |posture| posture.inputs_hash),
            &column(&rows, flips),
            &column(&rows, |posture| posture.flips.iter().map(|flip| flip.at).min()),
            &column(&rows, |posture| &posture.errors),
            &column(&rows, |posture| posture.evaluated_at),
        ],
    )
    .await?;
    Ok(())
}

/// Deletes the postures of assets that are no longer evaluated.
pub(super) async fn delete(tx: &Tx, assets: &[AssetId]) -> Result<()> {
    if !assets.is_empty() {
        tx.exec("DELETE FROM posture WHERE asset_id = ANY($1)", &[&assets]).await?;
    }
    Ok(())
}

fn text(codes: &[VerdictCode]) -> String {
    codes.iter().map(|code| char::from(code.as_byte())).collect()
}

fn flips(posture: &Posture) -> Option<Value> {
    let flip = |flip: &super::Flip| {
        json!([flip.slot, flip.at.timestamp_micros(), char::from(flip.to.as_byte())])
    };
    (!posture.flips.is_empty()).then(|| posture.flips.iter().map(flip).collect())
}
