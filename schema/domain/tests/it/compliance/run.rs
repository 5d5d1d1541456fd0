//! Runs: one open run per scope, assets outside the scope, and restarts.

use domain::{
    base::run_state::RunState,
    compliance::{
        range::AssetRange,
        rule::Rule,
        run::{Run, RunTrigger, Started},
        scope::ScanScope,
    },
    inventory::asset::{Asset, AssetType, CreateAssetInput, LifecycleState},
};
use serde_json::json;

use crate::{
    compliance::posture::{findings, reevaluate_all, run, stored, with, write},
    harness::{TestOrg, at, faults, host},
};

#[tokio::test]
async fn an_unchanged_run_writes_nothing() {
    let test = TestOrg::new().await;
    for number in 0..5 {
        test.asset(with(&format!("host {number}"), json!({"disk_encrypted": number == 0}))).await;
    }
    let first = run(&test, None, at(1)).await;
    assert_eq!((first.state, first.assets), (RunState::Succeeded, 5));
    assert_eq!((first.opened, first.fixed), (9, 0), "four disks, five without an owner");
    let written = |sql: &'static str| {
        let test = &test;
        async move {
            let row = test.db.superuser().await.query_one(sql, &[]).await.unwrap();
            row.get::<_, Vec<String>>("all")
        }
    };
    let rows = "SELECT coalesce(array_agg(x ORDER BY x), '{}') AS all FROM (
        SELECT 'p ' || xmin || ctid FROM posture UNION ALL SELECT 'f ' || xmin || ctid FROM finding) AS rows (x)";
    let before = written(rows).await;
    let second = run(&test, None, at(2)).await;
    assert_eq!((second.opened, second.fixed), (0, 0));
    assert_eq!((second.passed, second.failed), (first.passed, first.failed));
    assert_eq!(before, written(rows).await);
}

#[tokio::test]
async fn a_run_of_a_scope_leaves_the_others_alone() {
    let test = TestOrg::new().await;
    test.asset(host("web")).await;
    let switch = CreateAssetInput { asset_type: AssetType::NetworkDevice, ..host("switch") };
    test.asset(switch).await;
    let scope =
        ScanScope { asset_type: Some(vec![AssetType::NetworkDevice]), ..Default::default() };
    let first = run(&test, Some(&scope), at(1)).await;
    assert_eq!(first.assets, 1);
    assert_eq!(run(&test, None, at(2)).await.assets, 2);
    let before = stored(&test).await;
    run(&test, Some(&scope), at(3)).await;
    assert_eq!(stored(&test).await, before);
}

#[tokio::test]
async fn a_scope_that_lets_nothing_through_starts_nothing() {
    let test = TestOrg::new().await;
    test.asset(host("web")).await;
    let tx = write(&test).await;
    let scope = ScanScope { asset_type: Some(vec![AssetType::Service]), ..Default::default() };
    let refused = Run::start(&tx, RunTrigger::Manual, Some(&scope), None, at(1)).await;
    assert_eq!(
        faults(refused),
        ["scope matches no asset in operation; retired and disposed assets are not evaluated"]
    );
    assert_eq!(Run::count(&tx).await.unwrap(), 0);
}

#[tokio::test]
async fn a_second_run_of_a_scope_is_the_first() {
    let test = TestOrg::new().await;
    test.asset(host("web")).await;
    let hosts = ScanScope { asset_type: Some(vec![AssetType::Host]), ..Default::default() };
    let twice = ScanScope {
        asset_type: Some(vec![AssetType::Host, AssetType::Host]),
        ..Default::default()
    };
    let mut ids = Vec::new();
    for scope in [None, Some(&hosts), Some(&ScanScope::default()), Some(&twice)] {
        let tx = write(&test).await;
        let started = Run::start(&tx, RunTrigger::Manual, scope, None, at(1)).await.unwrap();
        tx.commit().await.unwrap();
        ids.push(match started {
            Started::New(run, _) => run.id,
            Started::Existing(run) => run.id,
        });
    }
    assert_eq!((ids[0], ids[1]), (ids[2], ids[3]));
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_run_whose_rules_change_meanwhile_begins_anew() {
    let test = TestOrg::new().await;
    let id = test.asset(host("web")).await.id;
    reevaluate_all(&test, at(1)).await;
    test.asset(host("mail")).await;
    let tx = write(&test).await;
    let started = Run::start(&tx, RunTrigger::Manual, None, None, at(2)).await.unwrap();
    let Started::New(first, ranges) = started else { panic!("it is the first") };
    Rule::set_params(&tx, "has-owner", None, Some(false), at(3)).await.unwrap();
    tx.commit().await.unwrap();
    let Some(Started::New(second, again)) = evaluate_shard(&test, &first, ranges[0]).await else {
        panic!("its rules are not those that count")
    };
    assert_eq!((second.id, second.round, second.shards_done), (first.id, 2, 0));
    assert!(evaluate_shard(&test, &first, ranges[0]).await.is_none(), "that round is over");
    assert!(evaluate_shard(&test, &second, again[0]).await.is_none());
    let tx = test.db.read(test.org).await.unwrap();
    let ended = Run::get(&tx, first.id).await.unwrap();
    assert_eq!((ended.state, ended.assets, ended.failed), (RunState::Succeeded, 2, 0));
    assert_eq!(findings(&test, id, "has-owner").await, ["OUT_OF_SCOPE 0"]);
}

#[tokio::test]
async fn a_key_is_of_one_scope() {
    let test = TestOrg::new().await;
    test.asset(host("web")).await;
    let tx = write(&test).await;
    Run::start(&tx, RunTrigger::Manual, None, Some("today"), at(1)).await.unwrap();
    let hosts = ScanScope { asset_type: Some(vec![AssetType::Host]), ..Default::default() };
    let refused = Run::start(&tx, RunTrigger::Manual, Some(&hosts), Some("today"), at(2)).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the idempotency key was used for a run of another scope"
    );
}

/// Evaluates a range as a worker would that claimed a shard of this round.
async fn evaluate_shard(test: &TestOrg, run: &Run, range: AssetRange) -> Option<Started> {
    let tx = write(test).await;
    let anew = Run::evaluate_shard(&tx, run.id, run.round, range, at(4)).await.unwrap();
    tx.commit().await.unwrap();
    anew
}

#[tokio::test]
async fn a_run_whose_rules_change_again_and_again_fails_and_says_so() {
    let test = TestOrg::new().await;
    test.asset(host("web")).await;
    let tx = write(&test).await;
    let started = Run::start(&tx, RunTrigger::Manual, None, None, at(2)).await.unwrap();
    tx.commit().await.unwrap();
    let Started::New(mut run, mut ranges) = started else { panic!("it is the first") };
    let mut is_on = true;
    loop {
        is_on = !is_on;
        let tx = write(&test).await;
        Rule::set_params(&tx, "has-owner", None, Some(is_on), at(3)).await.unwrap();
        tx.commit().await.unwrap();
        match evaluate_shard(&test, &run, ranges[0]).await {
            Some(Started::New(anew, cut)) => (run, ranges) = (anew, cut),
            _ => break,
        }
    }
    let tx = test.db.read(test.org).await.unwrap();
    let ended = Run::get(&tx, run.id).await.unwrap();
    assert_eq!((ended.state, ended.round), (RunState::Failed, 20));
    assert_eq!(ended.error.as_deref(), Some("the rules changed 20 times during the run"));
}

#[tokio::test]
async fn a_scope_that_is_left_empty_ends_well_though_rules_change() {
    let test = TestOrg::new().await;
    let id = test.asset(host("web")).await.id;
    let scope = ScanScope { assets: Some(vec![id]), ..ScanScope::default() };
    let tx = write(&test).await;
    let started = Run::start(&tx, RunTrigger::Manual, Some(&scope), None, at(2)).await.unwrap();
    let Started::New(run, ranges) = started else { panic!("it is the first") };
    Asset::set_lifecycle(&tx, id, LifecycleState::Retired, at(3)).await.unwrap();
    Rule::set_params(&tx, "has-owner", None, Some(false), at(3)).await.unwrap();
    tx.commit().await.unwrap();
    let Some(Started::New(run, ranges)) = evaluate_shard(&test, &run, ranges[0]).await else {
        panic!("its rules are not those that count")
    };
    assert!(evaluate_shard(&test, &run, ranges[0]).await.is_none());
    let tx = test.db.read(test.org).await.unwrap();
    let ended = Run::get(&tx, run.id).await.unwrap();
    assert_eq!((ended.state, ended.assets), (RunState::Succeeded, 0));
}
