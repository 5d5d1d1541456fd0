//! The budget of an organization's rules, and what rules that cost much keep from whom.

use domain::{
    Origin, Tx,
    compliance::{
        posture,
        rule::{Rule, Severity},
        run::{Run, RunTrigger, Started},
    },
    entity::UserId,
    testing::compliance::{RuleContent, RuleFixture},
};
use serde_json::json;

use crate::{
    compliance::{
        posture::{reevaluate_all, run, stored, write},
        rule::{faults, load, own, save, set, shipped},
    },
    harness::{A_LOCK_IS_AWAITED, TestOrg, at, until},
};

/// Returns a condition of almost 100,000 steps, the most that a rule may have.
fn costly() -> String {
    ["attr.open_ports.all(p, p > 0)"; 11].join(" && ")
}

/// Saves this number of rules that cost 99,032 steps each, as an earlier version of the server could.
async fn insert_dear(tx: &Tx, count: usize) {
    let condition = costly();
    let content = RuleContent { condition: &condition, evidence: &[], controls: &[] };
    for number in 0..count {
        let key = format!("costly-{number}");
        let slot = 16 + number;
        RuleFixture::insert(tx, &key, slot, Severity::Low, content, at(0)).await.unwrap();
    }
}

/// Inserts assets of this owner, or of none.
async fn insert_assets(tx: &Tx, count: i32, owner: Option<UserId>) {
    let sql = "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, owner_id, attributes,
                                  created_at, updated_at)
               SELECT $1, gen_random_uuid(), 'HST-' || n, 'host ' || n, 'HOST', 'ACTIVE', 'PROD', $2,
                      '{\"open_ports\": [22]}', now(), now()
               FROM generate_series(1, $3::integer) AS n";
    tx.exec(sql, &[&tx.org(), &owner, &count]).await.unwrap();
}

#[tokio::test]
async fn the_enabled_rules_of_an_organization_have_one_budget() {
    let test = TestOrg::new().await;
    let shipped = shipped(&test).await.cost();
    for number in 0..9 {
        save(&test, &own(&format!("costly-{number}"), &costly()), at(1)).await.unwrap();
    }
    let refused = save(&test, &own("costly-9", &costly()), at(1)).await.unwrap_err();
    let refused = faults(refused).remove(0);
    let sum = shipped + 10 * 99_032;
    assert_eq!(refused.path, "condition");
    let expected = format!(
        "the enabled rules would take up to {sum} steps per asset together, at most 1000000 are allowed: simplify or disable one of the most expensive: costly-0 (99032), costly-1 (99032), costly-2 (99032), costly-3 (99032), costly-4 (99032)"
    );
    assert_eq!(refused.message, expected);
    set(&test, "costly-3", json!({}), Some(false)).await.unwrap();
    save(&test, &own("costly-9", &costly()), at(2)).await.unwrap();
    let refused = set(&test, "costly-3", json!({}), Some(true)).await.unwrap_err();
    assert_eq!(faults(refused)[0].path, "enabled");
    let tx = test.db.read(test.org).await.unwrap();
    assert!(!Rule::find_by_key(&tx, "costly-3").await.unwrap().unwrap().enabled);
}

#[tokio::test]
async fn evidence_and_the_search_for_the_next_change_are_part_of_the_budget() {
    let test = TestOrg::new().await;
    let shipped = shipped(&test).await.cost();
    let cost = async || load(&test).await.cost() - shipped;
    save(&test, &own("own", "attr.cpu_cores > 1"), at(1)).await.unwrap();
    let plain = cost().await;
    let evidence = Some(json!({ "cores": "attr.cpu_cores" }));
    let shown =
        domain::compliance::rule::RuleInput { evidence, ..own("own", "attr.cpu_cores > 1") };
    save(&test, &shown, at(2)).await.unwrap();
    assert!(cost().await > plain);
    save(&test, &own("own", "attr.last_patched_at < now"), at(3)).await.unwrap();
    let rules = load(&test).await;
    let condition = rules.all().iter().find(|rule| rule.rule.key == "own").unwrap().cost();
    // Once for the verdict, once for the time of the next change, and twice around that time.
    assert_eq!(cost().await, 4 * condition);
}

#[tokio::test]
async fn rules_above_the_budget_go_on_and_may_only_become_cheaper() {
    let test = TestOrg::new().await;
    shipped(&test).await;
    let tx = write(&test).await;
    insert_dear(&tx, 12).await;
    insert_assets(&tx, 1, None).await;
    tx.commit().await.unwrap();
    let cost = load(&test).await.cost();
    assert!(cost > 1_100_000);
    assert_eq!(run(&test, None, at(1)).await.passed, 13, "the costly ones and one that ships");
    let refused = faults(save(&test, &own("one-more", "true"), at(2)).await.unwrap_err());
    assert_eq!(refused[0].path, "condition");
    let cheaper = costly().rsplit_once(" && ").unwrap().0.to_owned();
    save(&test, &own("costly-0", &cheaper), at(3)).await.unwrap();
    assert!(load(&test).await.cost() < cost);
    set(&test, "costly-1", json!({}), Some(false)).await.unwrap();
}

#[tokio::test]
async fn a_change_of_rules_waits_for_no_evaluation_and_has_the_last_word() {
    let test = TestOrg::new().await;
    let tx = write(&test).await;
    insert_assets(&tx, 3, None).await;
    tx.commit().await.unwrap();
    let tx = write(&test).await;
    let started = Run::start(&tx, RunTrigger::Manual, None, None, at(1)).await.unwrap();
    let Started::New(begun, ranges) = started else { panic!("it is the first") };
    tx.commit().await.unwrap();
    // The shard has evaluated its assets with the old rules, and has not committed.
    let shard = write(&test).await;
    let round = begun.round;
    Run::evaluate_shard(&shard, begun.id, round, ranges[0], at(1)).await.unwrap();
    set(&test, "has-owner", json!({}), Some(false)).await.unwrap();
    save(&test, &own("own", "size(attr.open_ports) > 1"), at(2)).await.unwrap();
    let superuser = test.db.superuser().await;
    let following = async {
        let tx = write(&test).await;
        let remaining = posture::reevaluate(&tx, at(2)).await.unwrap();
        tx.commit().await.unwrap();
        remaining
    };
    let ending = async {
        until(&superuser, A_LOCK_IS_AWAITED).await;
        shard.commit().await.unwrap();
    };
    let (remaining, ()) = tokio::join!(following, ending);
    for range in remaining.refresh_ranges {
        let tx = write(&test).await;
        posture::refresh(&tx, range, at(2)).await.unwrap();
        tx.commit().await.unwrap();
    }
    let followed = stored(&test).await;
    run(&test, None, at(2)).await;
    assert_eq!(followed, stored(&test).await);
    let open = "(SELECT count(*) FROM finding JOIN rule ON rule.id = rule_id
                 WHERE key = 'own' AND state = 'OPEN') = 3";
    until(&superuser, open).await;
}

#[tokio::test]
async fn the_dearer_the_rules_the_smaller_a_transaction() {
    let test = TestOrg::new().await;
    let owner = test.person("a@x.com", &["viewer"]).await;
    shipped(&test).await;
    let tx = write(&test).await;
    insert_assets(&tx, 120, Some(owner)).await;
    let whole = Run::start(&tx, RunTrigger::Manual, None, None, at(1)).await.unwrap();
    assert!(matches!(whole, Started::New(_, ranges) if ranges.len() == 1));
    tx.rollback().await.unwrap();
    let tx = write(&test).await;
    insert_assets(&tx, 120, Some(owner)).await;
    insert_dear(&tx, 10).await;
    tx.commit().await.unwrap();
    reevaluate_all(&test, at(1)).await;
    let tx = write(&test).await;
    let cut = Run::start(&tx, RunTrigger::Manual, None, None, at(1)).await.unwrap();
    assert!(matches!(cut, Started::New(_, ranges) if ranges.len() == 3));
    tx.rollback().await.unwrap();
    // A change of the owner affects 120 assets, which three transactions evaluate.
    let sql = "INSERT INTO posture_due (org_id, id, owner_id, reads) VALUES ($1, gen_random_uuid(), $2, '{owner.active}')";
    test.db.superuser().await.execute(sql, &[&test.org, &owner]).await.unwrap();
    let mut transactions = 0;
    loop {
        let tx = test.db.write(test.org, Origin::system()).await.unwrap();
        let remaining = posture::reevaluate(&tx, at(2)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(remaining.refresh_ranges, []);
        if !remaining.has_more {
            break;
        }
        transactions += 1;
    }
    assert_eq!(transactions, 3, "one for the owner, and two full ones");
    let client = test.db.superuser().await;
    let count = client.query_one("SELECT count(*) AS count FROM posture", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>("count"), 120);
}
