//! Rules: evaluation, changes by time alone, and storage.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Actor, Db, Error, FieldError, Origin,
    access::audit::{AuditEntry, AuditQuery},
    base::page::PageRequest,
    compliance::rule::{
        Builtin, ControlInput, Facts, Rule, RuleInput, RuleScopeInput, Ruleset, Severity, Verdict,
    },
    entity::RuleId,
    inventory::asset::CreateAssetInput,
    testing::compliance::{RuleContent, RuleFixture},
};
use serde_json::{Value, json};
use tokio_postgres::Row;

use crate::{
    compliance::native,
    harness::{TestOrg, at, at_once, host},
};

/// Returns the builtin rules as a new organization has them.
pub(crate) async fn shipped(test: &TestOrg) -> Ruleset {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let rules = Ruleset::ensure(&tx, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    rules
}

/// Returns a rule of the organization's own.
pub(crate) fn own(key: &str, condition: &str) -> RuleInput {
    RuleInput {
        key: key.to_owned(),
        title: "It is as we want it".to_owned(),
        severity: Severity::Medium,
        controls: Vec::new(),
        applies_to: None,
        params: None,
        condition: condition.to_owned(),
        evidence: None,
        remediation: "Make it so.".to_owned(),
    }
}

pub(crate) async fn save(
    test: &TestOrg,
    input: &RuleInput,
    now: DateTime<Utc>,
) -> Result<Rule, Error> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let rule = Rule::save(&tx, input, now).await?;
    tx.commit().await.unwrap();
    Ok(rule)
}

pub(crate) async fn set(
    test: &TestOrg,
    key: &str,
    params: Value,
    enabled: Option<bool>,
) -> Result<Rule, Error> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let rule = Rule::set_params(&tx, key, Some(&params), enabled, at(1)).await?;
    tx.commit().await.unwrap();
    Ok(rule)
}

pub(crate) fn faults(error: Error) -> Vec<FieldError> {
    match error {
        Error::Invalid(faults) => faults,
        other => panic!("{other}"),
    }
}

pub(crate) async fn load(test: &TestOrg) -> Ruleset {
    Ruleset::load(&test.db.read(test.org).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn what_ships_is_listed_before_and_after_it_is_saved() {
    let test = TestOrg::new().await;
    let list = async || {
        let tx = test.db.read(test.org).await.unwrap();
        Rule::list(&tx).await.unwrap()
    };
    let before = list().await;
    assert_eq!(before.len(), 16);
    let rules = shipped(&test).await;
    assert_eq!(list().await, before);
    assert_eq!(rules.width(), 16);
    let keys: Vec<_> = rules.all().iter().map(|one| one.rule.key.clone()).collect();
    let shipped: Vec<_> = Builtin::all().iter().map(|builtin| builtin.key.clone()).collect();
    assert_eq!(keys, shipped);
    let tx = test.db.read(test.org).await.unwrap();
    let found = Rule::find(&tx, before[3].id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&before[3]));
    assert_eq!(Rule::find_by_key(&tx, &before[3].key).await.unwrap(), found);
    assert_eq!(Rule::find_by_key(&tx, "no\0such").await.unwrap(), None);
}

#[tokio::test]
async fn what_ships_is_saved_once_however_many_ask_at_once() {
    let test = TestOrg::new().await;
    let ask = || {
        let (db, org) = (Db::clone(&test.db), test.org);
        async move {
            let tx = db.write(org, Origin::system()).await.unwrap();
            let rules = Ruleset::ensure(&tx, at(0)).await.unwrap();
            tx.commit().await.unwrap();
            rules.iter().count()
        }
    };
    let counts = at_once([ask(), ask(), ask(), ask()]).await;
    assert_eq!(counts, [16; 4]);
    let tx = test.db.read(test.org).await.unwrap();
    let row: Row = tx.one("SELECT count(*) AS versions FROM rule_version", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>("versions"), 16);
}

#[tokio::test]
async fn an_older_version_of_what_ships_is_replaced_and_what_was_set_stays() {
    let test = TestOrg::new().await;
    shipped(&test).await;
    set(&test, "patch-age", json!({ "max_age_days": 14 }), Some(false)).await.unwrap();
    let client = test.db.superuser().await;
    client
        .batch_execute(
            "ALTER TABLE rule_version DROP CONSTRAINT rule_version_version_check;
             UPDATE rule SET version = 0, params = params || '{\"gone\": 7}' WHERE key = 'patch-age';
             UPDATE rule_version SET version = 0, condition = 'false', params = '{\"max_age_days\": 1, \"gone\": 1}'
             FROM rule WHERE rule.id = rule_id AND key = 'patch-age'",
        )
        .await
        .unwrap();
    let rules = shipped(&test).await;
    let patch = rules.all().iter().find(|one| one.rule.key == "patch-age").unwrap();
    assert_eq!(patch.rule.version, 1);
    assert!(!patch.rule.enabled);
    assert_eq!(patch.rule.params, json!({ "max_age_days": 14 }));
    assert!(patch.rule.definition.condition.contains("last_patched_at"));
    assert_eq!(count_marked(&test).await, 2);
    let entries = entries(&test, patch.rule.id).await;
    assert_eq!(entries[0].actor, Actor::System);
    assert_eq!(entries[0].changed_paths, ["condition", "params.gone", "version"]);
}

/// Counts how often all assets were marked for re-evaluation.
async fn count_marked(test: &TestOrg) -> i64 {
    let tx = test.db.read(test.org).await.unwrap();
    let sql = "SELECT count(*) AS count_marked FROM posture_due
               WHERE asset_id IS NULL AND owner_id IS NULL AND reads IS NULL";
    tx.one::<Row>(sql, &[]).await.unwrap().get("count_marked")
}

/// Returns the audit entries of a rule, newest first.
async fn entries(test: &TestOrg, rule: RuleId) -> Vec<AuditEntry> {
    let tx = test.db.read(test.org).await.unwrap();
    let query = AuditQuery { entity_id: Some(rule.uuid()), ..Default::default() };
    let page = PageRequest { size: 9, backward: false, after: None, before: None };
    AuditEntry::list(&tx, &query, &page).await.unwrap().rows
}

#[tokio::test]
async fn a_rule_that_says_something_else_is_a_new_version() {
    let test = TestOrg::new().await;
    let first = save(&test, &own("own", "attr.disk_encrypted"), at(1)).await.unwrap();
    assert_eq!((first.version, first.builtin, first.enabled), (1, false, true));
    let again = save(&test, &own("own", " attr.disk_encrypted "), at(2)).await.unwrap();
    assert_eq!(again, first);
    let second = save(&test, &own("own", "attr.edr_installed"), at(3)).await.unwrap();
    assert_eq!((second.id, second.version), (first.id, 2));
    assert_eq!(count_marked(&test).await, 2);
    let rules = load(&test).await;
    let one = rules.by_slot(16).unwrap();
    assert_eq!(one.rule, second);
    assert_eq!(one.reads().collect::<Vec<_>>(), ["attr.edr_installed"]);
    let entries = entries(&test, first.id).await;
    let actions: Vec<_> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["rule.updated", "rule.created"]);
    assert_eq!(entries[0].changed_paths, ["condition", "version"]);
}

#[tokio::test]
async fn a_run_judges_by_the_versions_and_thresholds_that_it_keeps() {
    let test = TestOrg::new().await;
    let input = RuleInput {
        params: Some(json!({ "most": 4 })),
        ..own("own", "attr.cpu_cores <= params.most")
    };
    let rule = save(&test, &input, at(1)).await.unwrap();
    set(&test, "patch-age", json!({}), Some(false)).await.unwrap();
    let stored = load(&test).await.snapshot();
    save(&test, &RuleInput { condition: "false".to_owned(), ..input }, at(2)).await.unwrap();
    set(&test, "own", json!({ "most": 1 }), Some(false)).await.unwrap();
    let tx = test.db.read(test.org).await.unwrap();
    let rules = Ruleset::of_run(&tx, &stored).await.unwrap();
    assert_eq!(rules.snapshot(), stored);
    assert_eq!(rules.iter().count(), 16);
    assert!(rules.all().iter().all(|one| one.rule.key != "patch-age"));
    let one = rules.by_slot(16).unwrap();
    assert_eq!((one.rule.id, one.rule.version), (rule.id, 1));
    let facts = Facts::of(
        &native::Stored { attributes: json!({}), owner: None }.described("{\"cpu_cores\": 3}"),
    )
    .unwrap();
    assert_eq!(one.verdict(&facts, at(0)), Verdict::Pass);
    assert!(matches!(
        Ruleset::of_run(&tx, &json!([{ "slot": "a" }])).await,
        Err(Error::Corrupt { .. })
    ));
}

#[tokio::test]
async fn thresholds_merge_by_name_and_null_goes_back() {
    let test = TestOrg::new().await;
    let ports = async |params: Value| {
        set(&test, "no-high-risk-open-ports", params, None).await.unwrap().params
    };
    let default = json!({ "forbidden_ports": [21, 23, 445, 2323, 3389] });
    assert_eq!(
        ports(json!({ "forbidden_ports": [22.0] })).await,
        json!({ "forbidden_ports": [22] })
    );
    assert_eq!(ports(json!({})).await, json!({ "forbidden_ports": [22] }));
    assert_eq!(ports(json!({ "forbidden_ports": null })).await, default);
    assert_eq!(count_marked(&test).await, 2);
    let rules = load(&test).await;
    let one = rules.all().iter().find(|one| one.rule.key == "patch-age").unwrap();
    let asset = |days: i64| {
        let json_text = json!({ "last_patched_at": at(0) - TimeDelta::days(days) }).to_string();
        let stored = native::Stored { attributes: json!({}), owner: None };
        Facts::of(&stored.described(&json_text)).unwrap()
    };
    assert_eq!(one.verdict(&asset(20), at(0)), Verdict::Pass);
    set(&test, "patch-age", json!({ "max_age_days": 14 }), None).await.unwrap();
    let rules = load(&test).await;
    let one = rules.all().iter().find(|one| one.rule.key == "patch-age").unwrap();
    assert_eq!(one.verdict(&asset(20), at(0)), Verdict::Fail);
}

#[tokio::test]
async fn wrong_thresholds_are_refused_by_name() {
    let test = TestOrg::new().await;
    for (key, params, path) in [
        ("patch-age", json!({ "max_age_days": "14" }), "params.max_age_days"),
        ("patch-age", json!({ "max_age": 14 }), "params.max_age"),
        ("patch-age", json!([14]), "params"),
        ("patch-age", json!({ "max_age_days": 1_000_000 }), "condition"),
        ("patch-ages", json!({}), "key"),
        (
            "no-high-risk-open-ports",
            json!({ "forbidden_ports": vec![1; 257] }),
            "params.forbidden_ports",
        ),
    ] {
        let faults = faults(set(&test, key, params, None).await.unwrap_err());
        assert_eq!(faults[0].path, path, "{faults:?}");
        if path == "key" || path == "params.max_age" {
            assert!(faults[0].suggestion.is_some());
        }
    }
    let both = json!({ "max_age_days": 1_000_000, "max_age": 14 });
    let faults = faults(set(&test, "patch-age", both, None).await.unwrap_err());
    let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["params.max_age", "condition"]);
    assert_eq!(count_marked(&test).await, 0);
}

#[tokio::test]
async fn all_that_is_wrong_with_a_rule_is_said_at_once_and_nothing_saved() {
    let test = TestOrg::new().await;
    let input = RuleInput {
        title: " ".to_owned(),
        controls: vec![ControlInput { framework: "NIST".to_owned(), code: String::new() }],
        applies_to: Some(RuleScopeInput { tags: vec!["a,b".to_owned()], ..Default::default() }),
        params: Some(json!({ "most": null, "least": [] })),
        evidence: Some(json!({
            "Bad": "1", "number": 1, "unknown": "attr.unknown", "most": "params.most + 1",
        })),
        ..own("Own", "attr.disk_encypted && 'yes' == true && attr.cpu_cores > params.least")
    };
    let faults = faults(save(&test, &input, at(1)).await.unwrap_err());
    let paths: BTreeSet<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    let expected = [
        "appliesTo.tags.0",
        "condition",
        "controls.0.code",
        "evidence.Bad",
        "evidence.number",
        "evidence.unknown",
        "key",
        "params.least",
        "params.most",
        "title",
    ];
    assert_eq!(paths, expected.into());
    let tx = test.db.read(test.org).await.unwrap();
    assert_eq!(Rule::list(&tx).await.unwrap().len(), 16);
}

#[tokio::test]
async fn the_key_of_a_rule_that_ships_is_taken() {
    let test = TestOrg::new().await;
    let refused = save(&test, &own("patch-age", "attr.disk_encrypted"), at(1)).await;
    let faults = faults(refused.unwrap_err());
    assert_eq!(faults[0].path, "key");
    assert!(faults[0].message.contains("setRuleParams"), "{faults:?}");
}

#[tokio::test]
async fn a_rule_of_ones_own_keeps_a_key_that_ships_later() {
    let test = TestOrg::new().await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let content = RuleContent { condition: "attr.disk_encrypted", evidence: &[], controls: &[] };
    let stored =
        RuleFixture::insert(&tx, "patch-age", 0, Severity::Low, content, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    let rules = shipped(&test).await;
    assert_eq!((rules.all().len(), rules.width()), (16, 16));
    let tx = test.db.read(test.org).await.unwrap();
    let list = Rule::list(&tx).await.unwrap();
    assert_eq!(list.len(), 16);
    assert_eq!((list[15].id, list[15].builtin), (stored.id, false));
    let shipped = Builtin::of_key("patch-age").unwrap().id(test.org);
    assert_eq!(Rule::find(&tx, shipped).await.unwrap(), None);
    let saved = save(&test, &own("patch-age", "attr.edr_installed"), at(1)).await.unwrap();
    assert_eq!((saved.id, saved.version), (stored.id, 2));
}

#[tokio::test]
async fn an_organization_has_128_rules_of_its_own() {
    let test = TestOrg::new().await;
    shipped(&test).await;
    let client = test.db.superuser().await;
    client
        .batch_execute(
            "INSERT INTO rule (org_id, id, key, slot, builtin, enabled, version, params, created_at, updated_at)
             SELECT org_id, gen_random_uuid(), 'own-' || n, 15 + n, false, true, 1, '{}', now(), now()
             FROM (SELECT DISTINCT org_id FROM rule) AS org, generate_series(1, 128) AS n;
             INSERT INTO rule_version (org_id, id, rule_id, version, title, severity, controls, applies_to, params,
                                       condition, evidence, remediation, created_at)
             SELECT org_id, gen_random_uuid(), id, 1, 't', 'LOW', '[]', '{}', '{}', 'true', '{}', 'r', now()
             FROM rule WHERE NOT builtin",
        )
        .await
        .unwrap();
    let sentence = crate::harness::conflict(save(&test, &own("one-more", "true"), at(1)).await);
    assert!(sentence.contains("128"), "{sentence}");
    assert_eq!(save(&test, &own("own-7", "false"), at(1)).await.unwrap().version, 2);
}

#[tokio::test]
async fn a_rule_that_can_judge_no_asset_is_not_saved() {
    let test = TestOrg::new().await;
    let with = |cores| CreateAssetInput {
        attributes: Some(json!({ "cpu_cores": cores })),
        ..host(&format!("{cores} cores"))
    };
    test.asset(with(4)).await;
    test.asset(host("unknown")).await;
    let input = own("spread", "100 / (attr.cpu_cores - 4) > 1");
    let refused = &faults(save(&test, &input, at(1)).await.unwrap_err())[0];
    assert_eq!(
        (refused.path.as_str(), refused.message.as_str()),
        (
            "condition",
            "cannot be evaluated on any of the 1 assets that have its facts, among the first 2: division by zero"
        )
    );
    let tx = test.db.read(test.org).await.unwrap();
    assert!(Rule::find_by_key(&tx, "spread").await.unwrap().is_none());
    drop(tx);
    test.asset(with(8)).await;
    save(&test, &input, at(2)).await.unwrap();
}
