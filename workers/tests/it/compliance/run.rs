//! Compliance runs, run by worker processes.

use domain::{
    Actor, Id,
    base::run_state::RunState,
    compliance::{
        rule::Rule,
        run::{Run, RunTrigger},
    },
    entity::RunId,
    inventory::asset::{Asset, AssetType, CreateAssetInput, Environment, LifecycleState},
};
use jobs::compliance::run::push_shards;
use serde_json::{Value, json};

use crate::harness::{OPEN_JOBS, TestFleet, at, eventually};

pub(super) fn host(name: String, attributes: Value) -> CreateAssetInput {
    CreateAssetInput {
        name,
        asset_type: AssetType::Host,
        environment: Some(Environment::Prod),
        lifecycle_state: Some(LifecycleState::Active),
        external_id: None,
        location: None,
        description: None,
        owner: None,
        tags: None,
        attributes: Some(attributes),
        custom_fields: None,
    }
}

pub(super) async fn start(fleet: &TestFleet, key: Option<&str>) -> Run {
    let tx = fleet.write().await;
    let started = Run::start(&tx, RunTrigger::Manual, None, key, at()).await.unwrap();
    let run = push_shards(&tx, started).await.unwrap();
    tx.commit().await.unwrap();
    run
}

async fn cancel(fleet: &TestFleet, id: RunId) {
    let tx = fleet.write().await;
    Run::cancel(&tx, id, at()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn run(fleet: &TestFleet, id: RunId) -> Run {
    let tx = fleet.db.read(fleet.org).await.unwrap();
    let run = Run::get(&tx, id).await.unwrap();
    tx.commit().await.unwrap();
    run
}

pub(super) async fn until(fleet: &TestFleet, id: RunId, wanted: RunState) -> Run {
    eventually(async || run(fleet, id).await.state == wanted).await;
    run(fleet, id).await
}

/// Inserts assets like those of an import: a third encrypted, a third not, a third unknown, and all without an owner.
pub(super) async fn many_assets(fleet: &TestFleet, count: usize) {
    let org = fleet.org.uuid();
    fleet
        .run_sql(&format!(
            "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, attributes, created_at, updated_at)
             SELECT '{org}', gen_random_uuid(), 'HST-' || n, 'host ' || n, 'HOST', 'ACTIVE', 'PROD',
                    CASE n % 3 WHEN 0 THEN '{{\"disk_encrypted\": true}}' WHEN 1 THEN '{{\"disk_encrypted\": false}}' ELSE '{{}}' END::jsonb,
                    now(), now()
             FROM generate_series(1, {count}) AS n"
        ))
        .await;
}

#[tokio::test]
async fn a_run_judges_what_is_in_operation() {
    let fleet = TestFleet::new().await;
    let tx = fleet.write().await;
    let facts = [json!({"disk_encrypted": true}), json!({"disk_encrypted": false}), json!({})];
    for (number, attributes) in facts.into_iter().enumerate() {
        Asset::create(&tx, &host(format!("host {number}"), attributes), at()).await.unwrap();
    }
    let old = host("old".to_owned(), json!({}));
    let retired = CreateAssetInput { lifecycle_state: Some(LifecycleState::Retired), ..old };
    Asset::create(&tx, &retired, at()).await.unwrap();
    tx.commit().await.unwrap();
    fleet.start();
    let started = start(&fleet, None).await;
    assert_eq!((started.state, started.shards), (RunState::Queued, 1));
    let run = until(&fleet, started.id, RunState::Succeeded).await;
    // The assets have no owner, so the facts about owners are missing. Of the other fourteen facts, two assets have one
    // each.
    assert_eq!((run.assets, run.passed, run.failed, run.not_assessed), (3, 1, 4, 43));
    assert_eq!(run.finished_at, Some(at()));
    assert_eq!(fleet.audited("compliance_run.finished").await, 1);
}

#[tokio::test]
async fn a_killed_worker_changes_nothing_about_the_result() {
    let fleet = TestFleet::new().await;
    many_assets(&fleet, 30_000).await;
    fleet.start();
    let started = start(&fleet, None).await;
    assert_eq!(started.shards, 15);
    fleet.start();
    eventually(async || run(&fleet, started.id).await.shards_done > 0).await;
    fleet.kill_first();
    let run = until(&fleet, started.id, RunState::Succeeded).await;
    assert_eq!((run.assets, run.shards_done), (30_000, 15));
    assert_eq!((run.passed, run.failed, run.not_assessed), (10_000, 40_000, 430_000));
    assert_eq!(run.opened, 40_000);
    assert_eq!(fleet.count("SELECT id FROM finding WHERE state = 'OPEN'").await, 40_000);
    assert_eq!(fleet.count("SELECT asset_id FROM posture").await, 30_000);
    assert_eq!(fleet.audited("compliance_run.finished").await, 1);
}

#[tokio::test]
async fn the_same_key_starts_nothing_twice() {
    let fleet = TestFleet::new().await;
    let first = start(&fleet, Some("today")).await;
    cancel(&fleet, first.id).await;
    let again = start(&fleet, Some("today")).await;
    let other = start(&fleet, Some("tomorrow")).await;
    assert_eq!(first.id, again.id);
    assert_ne!(first.id, other.id);
    // The jobs of the cancelled run were deleted.
    assert_eq!(fleet.count("SELECT id FROM job WHERE kind = 'scan.shard'").await, 1);
}

#[tokio::test]
async fn nobody_uses_up_the_key_of_somebody_else() {
    let fleet = TestFleet::new().await;
    let first = start(&fleet, Some("today")).await;
    cancel(&fleet, first.id).await;
    let tx = fleet.write_as(Actor::User(Id::new())).await;
    let started = Run::start(&tx, RunTrigger::Manual, None, Some("today"), at()).await.unwrap();
    let other = push_shards(&tx, started).await.unwrap();
    Run::cancel(&tx, other.id, at()).await.unwrap();
    let started = Run::start(&tx, RunTrigger::Schedule, None, Some("today"), at()).await.unwrap();
    let scheduled = push_shards(&tx, started).await.unwrap();
    tx.commit().await.unwrap();
    assert_ne!(first.id, other.id);
    assert_ne!(other.id, scheduled.id);
}

#[tokio::test]
async fn a_cancelled_run_is_not_judged_any_more() {
    let fleet = TestFleet::new().await;
    let started = start(&fleet, None).await;
    cancel(&fleet, started.id).await;
    let tx = fleet.write().await;
    let again = Run::cancel(&tx, started.id, at()).await.unwrap_err();
    assert_eq!(again.to_string(), "the run has ended already: it is CANCELLED");
    drop(tx);
    fleet.start();
    eventually(async || fleet.count(OPEN_JOBS).await == 0).await;
    let run = run(&fleet, started.id).await;
    assert_eq!((run.state, run.shards_done), (RunState::Cancelled, 0));
}

#[tokio::test]
async fn a_run_of_which_a_shard_is_buried_has_failed() {
    let fleet = TestFleet::new().await;
    let started = start(&fleet, None).await;
    fleet.run_sql("UPDATE job SET payload = jsonb_set(payload, '{range}', '7')").await;
    fleet.start();
    let run = until(&fleet, started.id, RunState::Failed).await;
    let error = run.error.unwrap();
    assert!(error.starts_with("a shard was buried: the payload of scan.shard"), "{error}");
}

#[tokio::test]
async fn a_run_begins_anew_when_rules_change_before_it_ends() {
    let fleet = TestFleet::new().await;
    many_assets(&fleet, 4_500).await;
    let started = start(&fleet, None).await;
    let tx = fleet.write().await;
    Rule::set_params(&tx, "has-owner", None, Some(false), at()).await.unwrap();
    tx.commit().await.unwrap();
    fleet.start();
    let ended = until(&fleet, started.id, RunState::Succeeded).await;
    assert_eq!((ended.round, ended.shards_done, ended.assets), (2, 3, 4_500));
    assert_eq!(fleet.count("SELECT id FROM finding WHERE ended_at IS NULL").await, 1_500);
}
