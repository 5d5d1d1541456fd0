//! Rules: what they say, when time changes that, and how they are kept.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Db, Error, Fault, Id, Origin,
    asset::{Asset, AssetType, Environment},
    audit::{AuditEntry, AuditQuery},
    page::PageRequest,
    rule::{
        Builtin, ControlInput, Facts, Rule, RuleInput, RuleScopeInput, Ruleset, Severity, Trial,
        Verdict,
    },
    tag::Tag,
};
use serde_json::{Value, json};
use tokio_postgres::Row;

use crate::{
    fixture::{House, at, at_once, host},
    native,
};

/// The rules that ship, as a new organization has them.
async fn shipped(house: &House) -> Ruleset {
    let tx = house.db.write(house.org, Origin::system()).await.unwrap();
    let rules = Ruleset::ensure(&tx, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    rules
}

/// A rule of the organization's own.
fn own(key: &str, condition: &str) -> RuleInput {
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

async fn save(house: &House, input: &RuleInput, now: DateTime<Utc>) -> Result<Rule, Error> {
    let tx = house.db.write(house.org, Origin::system()).await.unwrap();
    let rule = Rule::save(&tx, input, now).await?;
    tx.commit().await.unwrap();
    Ok(rule)
}

async fn set(
    house: &House,
    key: &str,
    params: Value,
    enabled: Option<bool>,
) -> Result<Rule, Error> {
    let tx = house.db.write(house.org, Origin::system()).await.unwrap();
    let rule = Rule::set_params(&tx, key, Some(&params), enabled, at(1)).await?;
    tx.commit().await.unwrap();
    Ok(rule)
}

fn faults(error: Error) -> Vec<Fault> {
    match error {
        Error::Invalid(faults) => faults,
        other => panic!("{other}"),
    }
}

async fn load(house: &House) -> Ruleset {
    Ruleset::load(&house.db.read(house.org).await.unwrap()).await.unwrap()
}

async fn facts_of(house: &House, asset: Id<Asset>) -> Facts {
    let tx = house.db.read(house.org).await.unwrap();
    tx.one(&format!("{} WHERE asset.id = $1", Facts::SELECT_WITH_TAGS), &[&asset]).await.unwrap()
}

#[tokio::test]
async fn the_rules_that_ship_say_what_their_like_by_hand_say() {
    let house = House::new().await;
    let rules = shipped(&house).await;
    assert_eq!(rules.iter().count(), 16);
    let mut stores = native::Stores::new();
    let now = native::now();
    let mut seen = BTreeSet::new();
    for _ in 0..100_000 {
        let stored = stores.draw();
        let text = stored.attributes.to_string();
        let facts = Facts::of(&stored.described(&text)).unwrap();
        for ruled in rules.iter() {
            let judged = ruled.verdict(&facts, now);
            let expected = native::verdict(&ruled.rule.key, &stored, now);
            assert_eq!(judged, expected, "{} of {stored:?}", ruled.rule.key);
            seen.insert((ruled.slot, judged as u8));
        }
    }
    // Each of them passed, failed and was not assessed; only has-owner always is.
    assert_eq!(seen.len(), 3 * 16 - 1);
}

#[tokio::test]
async fn a_flip_comes_at_the_very_microsecond() {
    let house = House::new().await;
    let rules = shipped(&house).await;
    let mut stores = native::Stores::new();
    let (now, micro) = (native::now(), TimeDelta::microseconds(1));
    let mut flips = BTreeSet::new();
    for _ in 0..10_000 {
        let stored = stores.draw();
        let text = stored.attributes.to_string();
        let facts = Facts::of(&stored.described(&text)).unwrap();
        for ruled in rules.iter() {
            let judged = ruled.verdict(&facts, now);
            let key = ruled.rule.key.as_str();
            let Some(flip) = ruled.flip(&facts, now, judged) else {
                let later = now + TimeDelta::days(40_000);
                assert_eq!(native::verdict(key, &stored, later), judged, "{key} of {stored:?}");
                continue;
            };
            assert!(flip.at > now && flip.to != judged);
            assert_eq!(
                native::verdict(key, &stored, flip.at - micro),
                judged,
                "{key} of {stored:?}"
            );
            assert_eq!(native::verdict(key, &stored, flip.at), flip.to, "{key} of {stored:?}");
            flips.insert(key.to_owned());
        }
    }
    let by_time = ["backup-recency", "os-supported", "patch-age", "tls-cert-expiry"];
    assert_eq!(flips, by_time.map(str::to_owned).into());
}

#[tokio::test]
async fn a_flip_of_many_comparisons_is_the_first_that_matters() {
    let house = House::new().await;
    let now = at(0);
    let hours = |hours: i64| now + TimeDelta::hours(hours);
    let stored = json!({
        "last_backup_at": hours(-20), "last_patched_at": hours(-10), "tls_cert_expires_at": hours(30),
        "os_name": "Ubuntu 24.04",
    });
    let support_ends: DateTime<Utc> = "2029-06-01T00:00:00Z".parse().unwrap();
    let micro = TimeDelta::microseconds(1);
    for (place, (condition, flip)) in [
        ("now - attr.last_backup_at < days(1)", Some((hours(4), Verdict::Fail))),
        ("now - attr.last_backup_at <= days(1)", Some((hours(4) + micro, Verdict::Fail))),
        ("attr.last_backup_at + hours(15) < now", None),
        ("attr.tls_cert_expires_at - now > hours(6)", Some((hours(24), Verdict::Fail))),
        ("attr.tls_cert_expires_at < now", Some((hours(30) + micro, Verdict::Pass))),
        // The first comparison turns after 4 hours and decides nothing while the other holds, until after 14.
        (
            "now - attr.last_backup_at < days(1) || now - attr.last_patched_at < days(1)",
            Some((hours(14), Verdict::Fail)),
        ),
        (
            "now - attr.last_backup_at < days(1) && now - attr.last_patched_at < days(1)",
            Some((hours(4), Verdict::Fail)),
        ),
        // Twice as fast: 30 hours ahead and 20 behind meet after 5.
        (
            "now - attr.last_backup_at > attr.tls_cert_expires_at - now",
            Some((hours(5) + micro, Verdict::Pass)),
        ),
        ("now - hours(1) > now - hours(2)", None),
        ("attr.os_supported", Some((support_ends, Verdict::Fail))),
        ("!attr.os_supported || now < attr.tls_cert_expires_at", Some((hours(30), Verdict::Fail))),
        ("attr.disk_encrypted && now < attr.tls_cert_expires_at", Some((hours(30), Verdict::Fail))),
        (
            "has(attr.os_name) ? now < attr.tls_cert_expires_at : true",
            Some((hours(30), Verdict::Fail)),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let rule = save(&house, &own(&format!("r-{place}"), condition), now).await.unwrap();
        let rules = load(&house).await;
        let ruled = rules.iter().find(|ruled| ruled.rule.id == rule.id).unwrap();
        let text = stored.to_string();
        let asset = native::Stored { attributes: stored.clone(), owner: None };
        let facts = Facts::of(&asset.described(&text)).unwrap();
        let found = ruled.flip(&facts, now, ruled.verdict(&facts, now));
        assert_eq!(found.map(|flip| (flip.at, flip.to)), flip, "{condition}");
    }
}

#[tokio::test]
async fn what_ships_is_listed_before_and_after_it_is_saved() {
    let house = House::new().await;
    let list = async || {
        let tx = house.db.read(house.org).await.unwrap();
        Rule::list(&tx).await.unwrap()
    };
    let before = list().await;
    assert_eq!(before.len(), 16);
    let rules = shipped(&house).await;
    assert_eq!(list().await, before);
    assert_eq!(rules.width(), 16);
    let keys: Vec<_> = rules.all().iter().map(|ruled| ruled.rule.key.clone()).collect();
    let shipped: Vec<_> = Builtin::all().iter().map(|builtin| builtin.key.clone()).collect();
    assert_eq!(keys, shipped);
    let tx = house.db.read(house.org).await.unwrap();
    let found = Rule::find(&tx, before[3].id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&before[3]));
    assert_eq!(Rule::find_by_key(&tx, &before[3].key).await.unwrap(), found);
    assert_eq!(Rule::find_by_key(&tx, "no\0such").await.unwrap(), None);
}

#[tokio::test]
async fn what_ships_is_saved_once_however_many_ask_at_once() {
    let house = House::new().await;
    let ask = || {
        let (db, org) = (Db::clone(&house.db), house.org);
        async move {
            let tx = db.write(org, Origin::system()).await.unwrap();
            let rules = Ruleset::ensure(&tx, at(0)).await.unwrap();
            tx.commit().await.unwrap();
            rules.iter().count()
        }
    };
    let counts = at_once([ask(), ask(), ask(), ask()]).await;
    assert_eq!(counts, [16; 4]);
    let tx = house.db.read(house.org).await.unwrap();
    let row: Row = tx.one("SELECT count(*) AS versions FROM rule_version", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>("versions"), 16);
}

#[tokio::test]
async fn an_older_version_of_what_ships_is_replaced_and_what_was_set_stays() {
    let house = House::new().await;
    shipped(&house).await;
    set(&house, "patch-age", json!({ "max_age_days": 14 }), Some(false)).await.unwrap();
    let client = house.db.superuser().await;
    client
        .batch_execute(
            "UPDATE rule SET version = 0 WHERE key = 'patch-age';
             UPDATE rule_version SET version = 0, condition = 'false', params = '{\"max_age_days\": 1, \"gone\": 1}'
             FROM rule WHERE rule.id = rule_id AND key = 'patch-age'",
        )
        .await
        .unwrap();
    let rules = shipped(&house).await;
    let patch = rules.all().iter().find(|ruled| ruled.rule.key == "patch-age").unwrap();
    assert_eq!(patch.rule.version, 1);
    assert!(!patch.rule.enabled);
    assert_eq!(patch.rule.params, json!({ "max_age_days": 14 }));
    assert!(patch.rule.definition.condition.contains("last_patched_at"));
    assert_eq!(due(&house).await.last().unwrap(), "rule.patch-age");
}

/// What is noted to be judged anew, in order.
async fn due(house: &House) -> Vec<String> {
    let tx = house.db.read(house.org).await.unwrap();
    let rows: Vec<Row> = tx
        .all("SELECT array_to_string(reads, ' ') AS reads FROM posture_due ORDER BY id", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get("reads")).collect()
}

#[tokio::test]
async fn a_rule_that_says_something_else_is_a_new_version() {
    let house = House::new().await;
    let first = save(&house, &own("own", "attr.disk_encrypted"), at(1)).await.unwrap();
    assert_eq!((first.version, first.builtin, first.enabled), (1, false, true));
    let again = save(&house, &own("own", " attr.disk_encrypted "), at(2)).await.unwrap();
    assert_eq!(again, first);
    let second = save(&house, &own("own", "attr.edr_installed"), at(3)).await.unwrap();
    assert_eq!((second.id, second.version), (first.id, 2));
    assert_eq!(due(&house).await, ["rule.own", "rule.own"]);
    let rules = load(&house).await;
    let ruled = rules.by_slot(16).unwrap();
    assert_eq!(ruled.rule, second);
    assert_eq!(ruled.reads().collect::<Vec<_>>(), ["attr.edr_installed"]);
    let tx = house.db.read(house.org).await.unwrap();
    let query = AuditQuery { entity_id: Some(first.id.uuid()), ..Default::default() };
    let page = PageRequest { size: 9, backward: false, after: None, before: None };
    let entries = AuditEntry::list(&tx, &query, &page).await.unwrap().rows;
    let actions: Vec<_> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["rule.updated", "rule.created"]);
    assert_eq!(entries[0].changed_paths, ["condition", "version"]);
}

#[tokio::test]
async fn a_run_judges_by_the_versions_and_thresholds_that_it_keeps() {
    let house = House::new().await;
    let input = RuleInput {
        params: Some(json!({ "most": 4 })),
        ..own("own", "attr.cpu_cores <= params.most")
    };
    let rule = save(&house, &input, at(1)).await.unwrap();
    set(&house, "patch-age", json!({}), Some(false)).await.unwrap();
    let kept = load(&house).await.snapshot();
    save(&house, &RuleInput { condition: "false".to_owned(), ..input }, at(2)).await.unwrap();
    set(&house, "own", json!({ "most": 1 }), Some(false)).await.unwrap();
    let tx = house.db.read(house.org).await.unwrap();
    let rules = Ruleset::of_run(&tx, &kept).await.unwrap();
    assert_eq!(rules.snapshot(), kept);
    assert_eq!(rules.iter().count(), 16);
    assert!(rules.all().iter().all(|ruled| ruled.rule.key != "patch-age"));
    let ruled = rules.by_slot(16).unwrap();
    assert_eq!((ruled.rule.id, ruled.rule.version), (rule.id, 1));
    let facts = Facts::of(
        &native::Stored { attributes: json!({}), owner: None }.described("{\"cpu_cores\": 3}"),
    )
    .unwrap();
    assert_eq!(ruled.verdict(&facts, at(0)), Verdict::Pass);
    assert!(matches!(
        Ruleset::of_run(&tx, &json!([{ "slot": "a" }])).await,
        Err(Error::Corrupt { .. })
    ));
}

#[tokio::test]
async fn thresholds_merge_by_name_and_null_goes_back() {
    let house = House::new().await;
    let ports = async |params: Value| {
        set(&house, "no-high-risk-open-ports", params, None).await.unwrap().params
    };
    let default = json!({ "forbidden_ports": [21, 23, 445, 2323, 3389] });
    assert_eq!(
        ports(json!({ "forbidden_ports": [22.0] })).await,
        json!({ "forbidden_ports": [22] })
    );
    assert_eq!(ports(json!({})).await, json!({ "forbidden_ports": [22] }));
    assert_eq!(ports(json!({ "forbidden_ports": null })).await, default);
    assert_eq!(due(&house).await.len(), 2);
    let rules = load(&house).await;
    let ruled = rules.all().iter().find(|ruled| ruled.rule.key == "patch-age").unwrap();
    let asset = |days: i64| {
        let text = json!({ "last_patched_at": at(0) - TimeDelta::days(days) }).to_string();
        let stored = native::Stored { attributes: json!({}), owner: None };
        Facts::of(&stored.described(&text)).unwrap()
    };
    assert_eq!(ruled.verdict(&asset(20), at(0)), Verdict::Pass);
    set(&house, "patch-age", json!({ "max_age_days": 14 }), None).await.unwrap();
    let rules = load(&house).await;
    let ruled = rules.all().iter().find(|ruled| ruled.rule.key == "patch-age").unwrap();
    assert_eq!(ruled.verdict(&asset(20), at(0)), Verdict::Fail);
}

#[tokio::test]
async fn wrong_thresholds_are_refused_by_name() {
    let house = House::new().await;
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
        let faults = faults(set(&house, key, params, None).await.unwrap_err());
        assert_eq!(faults[0].path, path, "{faults:?}");
        if path == "key" || path == "params.max_age" {
            assert!(faults[0].suggestion.is_some());
        }
    }
    assert_eq!(due(&house).await, Vec::<String>::new());
}

#[tokio::test]
async fn all_that_is_wrong_with_a_rule_is_said_at_once_and_nothing_saved() {
    let house = House::new().await;
    let input = RuleInput {
        title: " ".to_owned(),
        controls: vec![ControlInput { framework: "NIST".to_owned(), code: String::new() }],
        applies_to: Some(RuleScopeInput { tags: vec!["a,b".to_owned()], ..Default::default() }),
        evidence: Some(json!({ "Bad": "1", "number": 1, "unknown": "attr.unknown" })),
        ..own("Own", "attr.disk_encypted && 'yes' == true")
    };
    let faults = faults(save(&house, &input, at(1)).await.unwrap_err());
    let paths: BTreeSet<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    let expected = [
        "appliesTo.tags.0",
        "condition",
        "controls.0.code",
        "evidence.Bad",
        "evidence.number",
        "evidence.unknown",
        "key",
        "title",
    ];
    assert_eq!(paths, expected.into());
    let tx = house.db.read(house.org).await.unwrap();
    assert_eq!(Rule::list(&tx).await.unwrap().len(), 16);
}

#[tokio::test]
async fn the_key_of_a_rule_that_ships_is_taken() {
    let house = House::new().await;
    let refused = save(&house, &own("patch-age", "attr.disk_encrypted"), at(1)).await;
    let faults = faults(refused.unwrap_err());
    assert_eq!(faults[0].path, "key");
    assert!(faults[0].message.contains("setRuleParams"), "{faults:?}");
}

#[tokio::test]
async fn an_organization_has_128_rules_of_its_own() {
    let house = House::new().await;
    shipped(&house).await;
    let client = house.db.superuser().await;
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
    let sentence = crate::fixture::conflict(save(&house, &own("one-more", "true"), at(1)).await);
    assert!(sentence.contains("128"), "{sentence}");
    assert_eq!(save(&house, &own("own-7", "false"), at(1)).await.unwrap().version, 2);
}

#[tokio::test]
async fn a_saved_rule_that_cannot_be_read_any_more_is_an_error_and_no_pass() {
    let house = House::new().await;
    save(&house, &own("own", "true"), at(1)).await.unwrap();
    let client = house.db.superuser().await;
    client
        .batch_execute(
            "UPDATE rule_version SET condition = 'attr.gone' FROM rule WHERE rule.id = rule_id AND key = 'own'",
        )
        .await
        .unwrap();
    let rules = load(&house).await;
    let facts =
        Facts::of(&native::Stored { attributes: json!({}), owner: None }.described("{}")).unwrap();
    let judged = rules.by_slot(16).unwrap().judge(&facts, at(0));
    assert_eq!(judged.verdict, Verdict::Error);
    assert!(judged.reason.unwrap().contains("attr.gone"));
}

#[tokio::test]
async fn a_verdict_that_is_none_says_why() {
    let house = House::new().await;
    for (place, (condition, verdict, reason)) in [
        ("attr.disk_encrypted", Verdict::NotAssessed, "disk_encrypted is not known"),
        ("owner.mfa_enabled", Verdict::NotAssessed, "it has no owner"),
        ("asset.location == 'here'", Verdict::NotAssessed, "location is not known"),
        ("attr.os_supported", Verdict::NotAssessed, "os_supported is not known"),
        ("10 / (attr.cpu_cores - 3) > 1", Verdict::Error, "division by zero"),
        ("attr.open_ports[7] == 1", Verdict::Error, "the list has no item of that number"),
        (
            "attr.cpu_cores + 9223372036854775807 > 1",
            Verdict::Error,
            "a number, a time or a length of time became too large",
        ),
        ("int(asset.name) == 1", Verdict::Error, "int"),
        ("days(attr.cpu_cores * 100000) > days(1)", Verdict::Error, "292 years"),
        ("attr.disk_encrypted && false", Verdict::Fail, ""),
        ("attr.disk_encrypted || has(attr.cpu_cores)", Verdict::Pass, ""),
        ("!has(attr.disk_encrypted) || attr.disk_encrypted", Verdict::Pass, ""),
    ]
    .into_iter()
    .enumerate()
    {
        save(&house, &own(&format!("r-{place}"), condition), at(1)).await.unwrap();
        let rules = load(&house).await;
        let text = r#"{"cpu_cores": 3, "open_ports": [22]}"#;
        let stored = native::Stored { attributes: json!({}), owner: None };
        let facts = Facts::of(&stored.described(text)).unwrap();
        let judged = rules.by_slot(16 + place).unwrap().judge(&facts, at(0));
        assert_eq!(judged.verdict, verdict, "{condition}: {judged:?}");
        assert!(judged.reason.unwrap_or_default().contains(reason), "{condition}");
    }
}

#[tokio::test]
async fn facts_are_read_from_rows_with_owner_and_tags() {
    let house = House::new().await;
    let owner = house.person("ann@example.com", &["viewer"]).await;
    let tx = house.db.write(house.org, Origin::system()).await.unwrap();
    let tags = [
        Tag::create(&tx, "Edge", None, at(0)).await.unwrap().id,
        Tag::create(&tx, "core", None, at(0)).await.unwrap().id,
    ];
    tx.commit().await.unwrap();
    let mut input = host("web");
    input.owner = Some(owner);
    input.tags = Some(tags.to_vec());
    input.environment = Some(Environment::Staging);
    input.attributes = Some(json!({
        "os_name": "Ubuntu 20.04", "open_ports": [22, 23], "last_patched_at": at(-86_400 * 12 - 7_000),
    }));
    let asset = house.asset(input).await;
    let facts = facts_of(&house, asset.id).await;
    assert_eq!((facts.asset, facts.asset_type), (asset.id, AssetType::Host));
    assert_eq!(facts.environment, Environment::Staging);
    let evidence = RuleInput {
        applies_to: Some(RuleScopeInput {
            types: vec![AssetType::Host],
            environments: vec![Environment::Staging],
            tags: vec!["EDGE".to_owned()],
        }),
        evidence: Some(json!({
            "owner": "owner.id", "active": "owner.active", "tags": "asset.tags", "os": "attr.os_supported",
            "ports": "attr.open_ports.filter(p, p > 22)", "age_days": "now - attr.last_patched_at",
            "missing": "attr.cpu_cores", "patched": "attr.last_patched_at", "half": "1.0 / 2.0",
        })),
        ..own("own", "'core' in asset.tags && !owner.mfa_enabled")
    };
    save(&house, &evidence, at(1)).await.unwrap();
    let rules = load(&house).await;
    let ruled = rules.by_slot(16).unwrap();
    assert!(rules.reads_tags() && ruled.applies(&facts));
    assert_eq!(ruled.verdict(&facts, at(0)), Verdict::Pass);
    assert_eq!(
        ruled.evidence(&facts, at(0)),
        json!({
            "owner": owner, "active": true, "tags": ["core", "Edge"], "os": false, "ports": [23],
            "age_days": 12.1, "missing": null, "patched": at(-86_400 * 12 - 7_000), "half": 0.5,
        })
    );
    // The hash follows what is read, and the terms.
    let hash = rules.facts_hash(&facts, at(0));
    assert_eq!(rules.facts_hash(&facts_of(&house, asset.id).await, at(0)), hash);
    let other = facts_of(&house, house.asset(host("other")).await.id).await;
    assert_ne!(rules.facts_hash(&other, at(0)), hash);
    assert!(!ruled.applies(&other));
    set(&house, "patch-age", json!({ "max_age_days": 1 }), None).await.unwrap();
    assert_ne!(load(&house).await.facts_hash(&facts, at(0)), hash);
}

#[tokio::test]
async fn a_draft_is_tried_on_what_is_in_operation() {
    let house = House::new().await;
    for (name, attributes) in [
        ("yes", json!({ "disk_encrypted": true })),
        ("no", json!({ "disk_encrypted": false })),
        ("unknown", json!({})),
        ("odd", json!({ "disk_encrypted": true, "cpu_cores": 1 })),
    ] {
        let mut input = host(name);
        input.attributes = Some(attributes);
        house.asset(input).await;
    }
    let mut retired = host("retired");
    retired.lifecycle_state = Some(domain::asset::LifecycleState::Retired);
    house.asset(retired).await;
    let tx = house.db.read(house.org).await.unwrap();
    let input = RuleInput {
        evidence: Some(json!({ "name": "asset.name" })),
        ..own(
            "patch-age",
            "attr.disk_encrypted && (has(attr.cpu_cores) ? 1 / (attr.cpu_cores - 1) > 0 : true)",
        )
    };
    let trial = Trial::run(&tx, &input, at(0)).await.unwrap();
    assert_eq!((trial.assets, trial.complete), (4, true));
    assert_eq!((trial.passed, trial.failed, trial.not_assessed, trial.errors), (1, 1, 1, 1));
    let mut examples: Vec<_> = trial
        .examples
        .iter()
        .map(|example| (example.evidence["name"].as_str().unwrap(), example.verdict))
        .collect();
    examples.sort_unstable_by_key(|(name, _)| *name);
    let expected = [
        ("no", Verdict::Fail),
        ("odd", Verdict::Error),
        ("unknown", Verdict::NotAssessed),
        ("yes", Verdict::Pass),
    ];
    assert_eq!(examples, expected);
    assert_eq!(trial.reads, ["asset.name", "attr.cpu_cores", "attr.disk_encrypted"]);
    assert_eq!(Rule::list(&tx).await.unwrap().len(), 16);
    let refused = Trial::run(&tx, &own("own", "attr.nothing"), at(0)).await;
    assert_eq!(faults(refused.unwrap_err())[0].path, "condition");
}
