//! Postures are re-evaluated between compliance runs, by worker processes.

use async_graphql::MaybeUndefined::Value as Given;
use chrono::TimeDelta;
use domain::{
    Origin,
    base::run_state::RunState,
    compliance::rule::Rule,
    entity::AssetId,
    inventory::asset::{Asset, UpdateAssetInput},
};
use serde_json::json;

use super::run::{host, many_assets, start, until};
use crate::harness::{OPEN_JOBS, TestFleet, at, eventually};

async fn verdict_code(fleet: &TestFleet, asset: AssetId, key: &str) -> Option<String> {
    let sql = "SELECT substr(verdicts, slot + 1, 1) AS code FROM posture JOIN rule USING (org_id)
               WHERE asset_id = $1 AND key = $2";
    let row = fleet.db.superuser().await.query_opt(sql, &[&asset, &key]).await.unwrap();
    row.map(|row| row.get("code"))
}

#[tokio::test]
async fn what_changes_is_judged_without_a_run() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let db = jobs::compliance::posture::with_reevaluation(fleet.db.db.clone());
    let tx = db.write(fleet.org, Origin::system()).await.unwrap();
    let unknown = host("web".to_owned(), json!({}));
    let asset = Asset::create(&tx, &unknown, at()).await.unwrap();
    tx.commit().await.unwrap();
    eventually(async || {
        verdict_code(&fleet, asset.id, "disk-encryption").await.as_deref() == Some("N")
    })
    .await;
    let tx = db.write(fleet.org, Origin::system()).await.unwrap();
    let attributes = Given(json!({"disk_encrypted": true}));
    let known = UpdateAssetInput { attributes, ..Default::default() };
    Asset::update(&tx, asset.id, &known, at()).await.unwrap();
    tx.commit().await.unwrap();
    eventually(async || {
        verdict_code(&fleet, asset.id, "disk-encryption").await.as_deref() == Some("P")
    })
    .await;
    assert_eq!(fleet.count("SELECT id FROM posture_due").await, 0);
}

#[tokio::test]
async fn what_is_not_committed_is_not_followed() {
    let fleet = TestFleet::new().await;
    let db = jobs::compliance::posture::with_reevaluation(fleet.db.db.clone());
    let tx = db.write(fleet.org, Origin::system()).await.unwrap();
    Asset::create(&tx, &host("web".to_owned(), json!({})), at()).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(fleet.count(OPEN_JOBS).await, 0);
}

#[tokio::test]
async fn however_much_changes_one_job_follows_it() {
    let fleet = TestFleet::new().await;
    let db = jobs::compliance::posture::with_reevaluation(fleet.db.db.clone());
    for number in 0..3 {
        let tx = db.write(fleet.org, Origin::system()).await.unwrap();
        Asset::create(&tx, &host(format!("host {number}"), json!({})), at()).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(fleet.count(OPEN_JOBS).await, 1);
}

#[tokio::test]
async fn a_verdict_turns_at_its_time_without_a_run() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let db = jobs::compliance::posture::with_reevaluation(fleet.db.db.clone());
    let tx = db.write(fleet.org, Origin::system()).await.unwrap();
    let soon =
        json!({"tls_cert_expires_at": at() + TimeDelta::days(30) + TimeDelta::milliseconds(1)});
    let asset = Asset::create(&tx, &host("web".to_owned(), soon), at()).await.unwrap();
    tx.commit().await.unwrap();
    eventually(async || {
        verdict_code(&fleet, asset.id, "tls-cert-expiry").await.as_deref() == Some("P")
    })
    .await;
    eventually(async || fleet.count("SELECT id FROM job WHERE kind = 'scan.turn'").await == 1)
        .await;
    // Jobs wait by Postgres' clock, which the test cannot advance.
    fleet.advance_clock(TimeDelta::seconds(1));
    fleet
        .run_sql("UPDATE job SET run_at = now(), state = 'WAITING' WHERE kind = 'scan.turn'")
        .await;
    eventually(async || {
        verdict_code(&fleet, asset.id, "tls-cert-expiry").await.as_deref() == Some("F")
    })
    .await;
}

#[tokio::test]
async fn rules_that_change_are_followed_by_all_assets() {
    let fleet = TestFleet::new().await;
    many_assets(&fleet, 4_500).await;
    fleet.start();
    let started = start(&fleet, None).await;
    until(&fleet, started.id, RunState::Succeeded).await;
    let db = jobs::compliance::posture::with_reevaluation(fleet.db.db.clone());
    let tx = db.write(fleet.org, Origin::system()).await.unwrap();
    Rule::set_params(&tx, "has-owner", None, Some(false), at()).await.unwrap();
    tx.commit().await.unwrap();
    eventually(async || {
        fleet.count("SELECT id FROM finding WHERE state = 'OUT_OF_SCOPE'").await == 4_500
    })
    .await;
}
