//! Verdicts of assets, and the transitions of their findings. `reevaluation` tests that after any changes they equal a
//! full evaluation.

use std::collections::BTreeMap;

use async_graphql::MaybeUndefined::Value as Given;
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Db, Origin, Tx,
    access::user::User,
    compliance::{
        asset_deletion::delete_asset,
        posture,
        range::AssetRange,
        rule::{Rule, RuleInput, Severity},
        run::{Run, RunTrigger, Started},
        scope::ScanScope,
        waiver::{Waiver, WaiverInput},
    },
    entity::AssetId,
    inventory::asset::{Asset, CreateAssetInput, LifecycleState, UpdateAssetInput},
};
use serde_json::{Value, json};

use crate::{
    compliance::rule::{own, save},
    harness::{A_LOCK_IS_AWAITED, TestOrg, at, host, until, viewer},
};

pub(crate) async fn write(test: &TestOrg) -> Tx {
    test.db.write(test.org, Origin::system()).await.unwrap()
}

/// Runs a complete compliance run, as workers would.
pub(crate) async fn run(test: &TestOrg, scope: Option<&ScanScope>, now: DateTime<Utc>) -> Run {
    let tx = write(test).await;
    let started = Run::start(&tx, RunTrigger::Manual, scope, None, now).await.unwrap();
    let Started::New(run, ranges) = started else { panic!("one is under way") };
    tx.commit().await.unwrap();
    for range in ranges {
        let tx = write(test).await;
        let anew = Run::evaluate_shard(&tx, run.id, run.round, range, now).await.unwrap();
        assert!(anew.is_none(), "rules changed");
        tx.commit().await.unwrap();
    }
    let tx = test.db.read(test.org).await.unwrap();
    Run::get(&tx, run.id).await.unwrap()
}

/// Re-evaluates everything that changed, also by time alone, as workers would.
pub(crate) async fn reevaluate_all(test: &TestOrg, now: DateTime<Utc>) {
    loop {
        let tx = write(test).await;
        let reevaluated = posture::reevaluate(&tx, now).await.unwrap();
        tx.commit().await.unwrap();
        for range in reevaluated.refresh_ranges {
            let tx = write(test).await;
            posture::refresh(&tx, range, now).await.unwrap();
            tx.commit().await.unwrap();
        }
        if !reevaluated.has_more {
            break;
        }
    }
    loop {
        let tx = write(test).await;
        posture::reevaluate_flips(&tx, now).await.unwrap();
        let next = posture::next_flip(&tx).await.unwrap();
        tx.commit().await.unwrap();
        if next.is_none_or(|next| next > now) {
            break;
        }
    }
}

/// Returns what is stored, by asset and by finding, without the time of the write.
pub(crate) async fn stored(test: &TestOrg) -> BTreeMap<String, String> {
    let sql = "SELECT asset_id::text AS of,
                      concat_ws(' ', verdicts, passed_weight, failed_weight, waived_weight, whole_weight, score, facts_hash,
                                flips, flips_at, errors) AS what FROM posture
               UNION ALL
               SELECT asset_id || ' ' || rule_id, concat_ws(' ', state, severity, weight, waiver_id, version_id, evidence::jsonb - 'age_days' - 'remaining_days')
               FROM finding WHERE ended_at IS NULL";
    let rows = test.db.superuser().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get("of"), row.get("what"))).collect()
}

/// Returns the code of a rule in an asset's posture.
pub(crate) async fn verdict_code(test: &TestOrg, asset: AssetId, key: &str) -> String {
    let sql =
        "SELECT substr(verdicts, slot + 1, 1) AS verdict_code FROM posture JOIN rule USING (org_id)
               WHERE asset_id = $1 AND key = $2";
    let row = test.db.superuser().await.query_opt(sql, &[&asset, &key]).await.unwrap();
    row.map(|row| row.get("verdict_code")).unwrap_or_default()
}

/// Returns an asset's findings of a rule, oldest first.
pub(crate) async fn findings(test: &TestOrg, asset: AssetId, key: &str) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', state, reopened) AS said FROM finding
               JOIN rule ON rule.org_id = finding.org_id AND rule.id = finding.rule_id
               WHERE asset_id = $1 AND key = $2 ORDER BY finding.id";
    let rows = test.db.superuser().await.query(sql, &[&asset, &key]).await.unwrap();
    rows.iter().map(|row| row.get("said")).collect()
}

pub(crate) async fn update(test: &TestOrg, id: AssetId, attributes: Value, now: DateTime<Utc>) {
    let patch = UpdateAssetInput { attributes: Given(attributes), ..Default::default() };
    let tx = write(test).await;
    Asset::update(&tx, id, &patch, now).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) fn with(name: &str, attributes: Value) -> CreateAssetInput {
    CreateAssetInput { attributes: Some(attributes), ..host(name) }
}

#[tokio::test]
async fn a_rule_that_is_broken_again_is_a_new_finding() {
    let test = TestOrg::new().await;
    let id = test.asset(with("web", json!({"disk_encrypted": false}))).await.id;
    reevaluate_all(&test, at(1)).await;
    assert_eq!(findings(&test, id, "disk-encryption").await, ["OPEN 0"]);
    update(&test, id, json!({"disk_encrypted": true}), at(2)).await;
    reevaluate_all(&test, at(3)).await;
    assert_eq!(findings(&test, id, "disk-encryption").await, ["FIXED 0"]);
    update(&test, id, json!({"disk_encrypted": false}), at(4)).await;
    reevaluate_all(&test, at(5)).await;
    assert_eq!(findings(&test, id, "disk-encryption").await, ["FIXED 0", "OPEN 1"]);
}

#[tokio::test]
async fn what_is_not_known_any_more_is_not_fixed() {
    let test = TestOrg::new().await;
    let id = test.asset(with("web", json!({"disk_encrypted": false}))).await.id;
    reevaluate_all(&test, at(1)).await;
    update(&test, id, json!({"disk_encrypted": null}), at(2)).await;
    reevaluate_all(&test, at(3)).await;
    assert_eq!(verdict_code(&test, id, "disk-encryption").await, "N");
    assert_eq!(findings(&test, id, "disk-encryption").await, ["OUT_OF_SCOPE 0"]);
}

#[tokio::test]
async fn what_cannot_be_judged_leaves_a_finding_as_it_is() {
    let test = TestOrg::new().await;
    save(&test, &own("spares", "10 / attr.password_max_age_days > 1"), at(0)).await.unwrap();
    let id = test.asset(with("web", json!({"password_max_age_days": 10}))).await.id;
    reevaluate_all(&test, at(1)).await;
    assert_eq!(findings(&test, id, "spares").await, ["OPEN 0"]);
    update(&test, id, json!({"password_max_age_days": 0}), at(2)).await;
    reevaluate_all(&test, at(3)).await;
    assert_eq!(verdict_code(&test, id, "spares").await, "E");
    assert_eq!(findings(&test, id, "spares").await, ["OPEN 0"]);
    update(&test, id, json!({"password_max_age_days": 20}), at(4)).await;
    let again = run(&test, None, at(5)).await;
    assert_eq!(verdict_code(&test, id, "spares").await, "F");
    assert_eq!(findings(&test, id, "spares").await, ["OPEN 0"]);
    assert_eq!(again.opened, 0, "it was open all the time");
    update(&test, id, json!({"password_max_age_days": 5}), at(6)).await;
    reevaluate_all(&test, at(7)).await;
    assert_eq!(findings(&test, id, "spares").await, ["FIXED 0"]);
}

#[tokio::test]
async fn what_cannot_be_judged_is_allowed_as_long_as_its_waiver_holds() {
    let test = TestOrg::new().await;
    let rule = save(&test, &own("spares", "10 / attr.password_max_age_days > 1"), at(0)).await;
    let rule = rule.unwrap().id;
    let mut broken = Vec::new();
    for (name, expires_at) in [("revoked", at(1_000)), ("over", at(9))] {
        let id = test.asset(with(name, json!({"password_max_age_days": 10}))).await.id;
        let tx = write(&test).await;
        let reason = "for now".to_owned();
        let input = WaiverInput { rule, asset: Some(id), reason, expires_at };
        broken.push((id, Waiver::grant(&tx, &input, at(1)).await.unwrap().id));
        tx.commit().await.unwrap();
    }
    let of = async |at: usize| findings(&test, broken[at].0, "spares").await;
    for (id, _) in &broken {
        update(&test, *id, json!({"password_max_age_days": 10}), at(5)).await;
        reevaluate_all(&test, at(6)).await;
        update(&test, *id, json!({"password_max_age_days": 0}), at(7)).await;
        reevaluate_all(&test, at(8)).await;
        assert_eq!(verdict_code(&test, *id, "spares").await, "E");
        assert_eq!(findings(&test, *id, "spares").await, ["WAIVED 0"]);
    }
    let tx = write(&test).await;
    Waiver::revoke(&tx, broken[0].1, at(8)).await.unwrap();
    tx.commit().await.unwrap();
    reevaluate_all(&test, at(10)).await;
    assert_eq!((of(0).await, of(1).await), (vec!["OPEN 0".to_owned()], vec!["OPEN 0".to_owned()]));
}

#[tokio::test]
async fn what_could_not_be_judged_and_is_well_was_never_fixed() {
    let test = TestOrg::new().await;
    save(&test, &own("spares", "10 / attr.password_max_age_days > 1"), at(0)).await.unwrap();
    let id = test.asset(with("web", json!({"password_max_age_days": 0}))).await.id;
    reevaluate_all(&test, at(1)).await;
    update(&test, id, json!({"password_max_age_days": 5}), at(2)).await;
    assert_eq!(run(&test, None, at(3)).await.fixed, 0);
    assert_eq!(verdict_code(&test, id, "spares").await, "P");
    assert!(findings(&test, id, "spares").await.is_empty());
}

#[tokio::test]
async fn a_finding_is_as_bad_as_its_rule_says_whatever_was_followed_first() {
    let test = TestOrg::new().await;
    let id = test.asset(with("web", json!({"disk_encrypted": false}))).await.id;
    let rule = own("crypt", "attr.disk_encrypted");
    save(&test, &rule, at(0)).await.unwrap();
    reevaluate_all(&test, at(1)).await;
    save(&test, &RuleInput { severity: Severity::Critical, ..rule }, at(2)).await.unwrap();
    let tx = write(&test).await;
    let refresh_ranges = posture::reevaluate(&tx, at(2)).await.unwrap().refresh_ranges;
    tx.commit().await.unwrap();
    assert_eq!(refresh_ranges.len(), 1);
    // The refresh of all assets is queued but has not begun when another change is re-evaluated.
    let sql = "INSERT INTO job (id, org_id, queue, kind, version, payload, state, priority, run_at, max_attempts,
                                actor_kind, queued_at, changed_at)
               VALUES (gen_random_uuid(), $1, 'SCAN', 'scan.refresh', 1, '{}', 'WAITING', 5, now(), 3, 'system', now(), now())";
    test.db.superuser().await.execute(sql, &[&test.org.uuid()]).await.unwrap();
    update(&test, id, json!({"firewall_enabled": true}), at(3)).await;
    reevaluate_all(&test, at(4)).await;
    let tx = write(&test).await;
    posture::refresh(&tx, refresh_ranges[0], at(5)).await.unwrap();
    tx.commit().await.unwrap();
    let sql = "SELECT severity FROM finding JOIN rule ON rule.id = rule_id WHERE key = 'crypt'";
    let row = test.db.superuser().await.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>("severity"), "CRITICAL");
}

#[tokio::test]
async fn what_a_retired_asset_broke_goes_out_of_scope() {
    let test = TestOrg::new().await;
    let id = test.asset(with("web", json!({"disk_encrypted": false}))).await.id;
    reevaluate_all(&test, at(1)).await;
    let tx = write(&test).await;
    Asset::set_lifecycle(&tx, id, LifecycleState::Retired, at(2)).await.unwrap();
    tx.commit().await.unwrap();
    reevaluate_all(&test, at(3)).await;
    assert_eq!(verdict_code(&test, id, "disk-encryption").await, "");
    assert_eq!(findings(&test, id, "disk-encryption").await, ["OUT_OF_SCOPE 0"]);
}

#[tokio::test]
async fn a_deleted_asset_leaves_nothing() {
    let test = TestOrg::new().await;
    let id = test.asset(with("web", json!({"disk_encrypted": false}))).await.id;
    reevaluate_all(&test, at(1)).await;
    for state in [LifecycleState::Retired, LifecycleState::Disposed] {
        let tx = write(&test).await;
        Asset::set_lifecycle(&tx, id, state, at(2)).await.unwrap();
        tx.commit().await.unwrap();
    }
    let tx = write(&test).await;
    delete_asset(&tx, id, at(3)).await.unwrap();
    tx.commit().await.unwrap();
    reevaluate_all(&test, at(4)).await;
    assert!(stored(&test).await.is_empty());
    assert!(findings(&test, id, "disk-encryption").await.is_empty());
}

#[tokio::test]
async fn an_asset_deleted_beside_a_re_evaluation_leaves_nothing() {
    let test = TestOrg::new().await;
    let id = test.asset(with("web", json!({"disk_encrypted": false}))).await.id;
    // The asset is in operation when its facts are read, and the result is not committed yet.
    let reevaluation = write(&test).await;
    posture::reevaluate(&reevaluation, at(1)).await.unwrap();
    let tx = write(&test).await;
    Asset::set_lifecycle(&tx, id, LifecycleState::Retired, at(2)).await.unwrap();
    tx.commit().await.unwrap();
    let (db, org) = (Db::clone(&test.db), test.org);
    let deletion = tokio::spawn(async move {
        let tx = db.write(org, Origin::system()).await?;
        delete_asset(&tx, id, at(3)).await?;
        tx.commit().await
    });
    let watcher = test.db.superuser().await;
    until(&watcher, A_LOCK_IS_AWAITED).await;
    let free = "SELECT FROM asset WHERE id = $1 FOR UPDATE SKIP LOCKED";
    assert!(watcher.query_opt(free, &[&id]).await.unwrap().is_none(), "the row is locked first");
    reevaluation.commit().await.unwrap();
    deletion.await.unwrap().unwrap();
    assert!(stored(&test).await.is_empty());
    assert!(findings(&test, id, "disk-encryption").await.is_empty());
}

#[tokio::test]
async fn a_backup_that_grows_old_fails_at_its_time() {
    let test = TestOrg::new().await;
    let id = test.asset(with("db", json!({"last_backup_at": at(0)}))).await.id;
    reevaluate_all(&test, at(1)).await;
    assert_eq!(verdict_code(&test, id, "backup-recency").await, "P");
    let tx = write(&test).await;
    let due = at(0) + TimeDelta::days(7) + TimeDelta::microseconds(1);
    assert_eq!(posture::next_flip(&tx).await.unwrap(), Some(due), "seven days are still recent");
    drop(tx);
    reevaluate_all(&test, due - TimeDelta::microseconds(1)).await;
    assert_eq!(verdict_code(&test, id, "backup-recency").await, "P");
    reevaluate_all(&test, due).await;
    assert_eq!(verdict_code(&test, id, "backup-recency").await, "F");
}

#[tokio::test]
async fn a_waived_finding_does_not_fail_until_its_time_is_over() {
    let test = TestOrg::new().await;
    let id = test.asset(with("web", json!({"disk_encrypted": false}))).await.id;
    reevaluate_all(&test, at(1)).await;
    let tx = write(&test).await;
    let rules = Rule::list(&tx).await.unwrap();
    let rule = rules.iter().find(|rule| rule.key == "disk-encryption").unwrap().id;
    let input = WaiverInput { rule, asset: Some(id), reason: "soon".into(), expires_at: at(100) };
    Waiver::grant(&tx, &input, at(2)).await.unwrap();
    tx.commit().await.unwrap();
    reevaluate_all(&test, at(3)).await;
    assert_eq!(verdict_code(&test, id, "disk-encryption").await, "W");
    assert_eq!(findings(&test, id, "disk-encryption").await, ["WAIVED 0"]);
    let counted = run(&test, None, at(4)).await;
    assert_eq!((counted.waived, counted.failed), (1, 1), "has-owner still fails");
    reevaluate_all(&test, at(99)).await;
    assert_eq!(verdict_code(&test, id, "disk-encryption").await, "W");
    reevaluate_all(&test, at(100)).await;
    assert_eq!(findings(&test, id, "disk-encryption").await, ["OPEN 0"]);
}

#[tokio::test]
async fn who_leaves_the_organization_is_followed_to_what_they_own() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@x.com", &["owner"]).await;
    let bob = test.person("bob@x.com", &["viewer"]).await;
    test.asset(CreateAssetInput { owner: Some(bob), ..host("web") }).await;
    reevaluate_all(&test, at(1)).await;
    let tx = test.db.auth(Origin::system()).await.unwrap();
    let boss = viewer(test.org, ada, domain::access::permission::BuiltinRole::Owner);
    User::deactivate(&tx, &boss, bob, at(2)).await.unwrap();
    tx.commit().await.unwrap();
    let tx = test.db.fleet().await.unwrap();
    assert_eq!(posture::due::waiting(&tx).await.unwrap(), [test.org]);
    drop(tx);
    reevaluate_all(&test, at(3)).await;
    let before = stored(&test).await;
    run(&test, None, at(3)).await;
    assert_eq!(before, stored(&test).await);
}

#[tokio::test]
async fn what_somebody_meddled_with_is_found_and_mended() {
    let test = TestOrg::new().await;
    let id = test.asset(with("web", json!({"disk_encrypted": false}))).await.id;
    test.asset(host("other")).await;
    reevaluate_all(&test, at(1)).await;
    let all = AssetRange { above: None, up_to: None };
    let tx = write(&test).await;
    assert_eq!(posture::verify(&tx, all, at(2)).await.unwrap().mismatches, []);
    drop(tx);
    let meddle = "UPDATE posture SET verdicts = translate(verdicts, 'F', 'P') WHERE asset_id = $1";
    test.db.superuser().await.execute(meddle, &[&id]).await.unwrap();
    let tx = write(&test).await;
    let found = posture::verify(&tx, all, at(2)).await.unwrap().mismatches;
    assert_eq!(found.iter().map(|found| found.asset).collect::<Vec<_>>(), [id]);
    posture::repair(&tx, &found, at(3)).await.unwrap();
    tx.commit().await.unwrap();
    let tx = write(&test).await;
    assert_eq!(posture::verify(&tx, all, at(4)).await.unwrap().mismatches, []);
    drop(tx);
    let meddle = "UPDATE finding SET state = 'FIXED', ended_at = opened_at WHERE asset_id = $1";
    test.db.superuser().await.execute(meddle, &[&id]).await.unwrap();
    let tx = write(&test).await;
    let found = posture::verify(&tx, all, at(5)).await.unwrap().mismatches;
    assert_eq!(found.iter().map(|found| found.asset).collect::<Vec<_>>(), [id]);
    posture::repair(&tx, &found, at(6)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(findings(&test, id, "disk-encryption").await, ["FIXED 0", "OPEN 1"]);
}
