//! Verdicts of rules, and when time changes them.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Origin,
    compliance::{
        evidence::AssetDetails,
        rule::{Facts, RuleInput, RuleScopeInput, Verdict},
    },
    entity::AssetId,
    inventory::{
        asset::{AssetType, Environment},
        tag::Tag,
    },
};
use serde_json::json;

use crate::{
    compliance::{
        native,
        rule::{load, own, save, set, shipped},
    },
    harness::{TestOrg, at, host},
};

async fn facts_of(test: &TestOrg, asset: AssetId) -> Facts {
    let tx = test.db.read(test.org).await.unwrap();
    tx.one(&format!("{} WHERE asset.id = $1", Facts::SELECT_WITH_TAGS), &[&asset]).await.unwrap()
}

#[tokio::test]
async fn the_rules_that_ship_say_what_their_like_by_hand_say() {
    let test = TestOrg::new().await;
    let rules = shipped(&test).await;
    assert_eq!(rules.iter().count(), 16);
    let mut assets = native::Stores::new();
    let now = native::now();
    let mut seen = BTreeSet::new();
    for _ in 0..100_000 {
        let stored = assets.draw();
        let json_text = stored.attributes.to_string();
        let facts = Facts::of(&stored.described(&json_text)).unwrap();
        for one in rules.iter() {
            let evaluated = one.verdict(&facts, now);
            let expected = native::verdict(&one.rule.key, &stored, now);
            assert_eq!(evaluated, expected, "{} of {stored:?}", one.rule.key);
            seen.insert((one.slot, evaluated as u8));
        }
    }
    // Each rule passed, failed and was not assessed; only has-owner can always be assessed.
    assert_eq!(seen.len(), 3 * 16 - 1);
}

#[tokio::test]
async fn a_flip_comes_at_the_very_microsecond() {
    let test = TestOrg::new().await;
    let rules = shipped(&test).await;
    let mut assets = native::Stores::new();
    let (now, micro) = (native::now(), TimeDelta::microseconds(1));
    let mut flips = BTreeSet::new();
    for _ in 0..10_000 {
        let stored = assets.draw();
        let json_text = stored.attributes.to_string();
        let facts = Facts::of(&stored.described(&json_text)).unwrap();
        for one in rules.iter() {
            let evaluated = one.verdict(&facts, now);
            let key = one.rule.key.as_str();
            let Some(flip) = one.flip(&facts, now, evaluated) else {
                let later = now + TimeDelta::days(40_000);
                assert_eq!(native::verdict(key, &stored, later), evaluated, "{key} of {stored:?}");
                continue;
            };
            assert!(flip.at > now && flip.to != evaluated);
            assert_eq!(
                native::verdict(key, &stored, flip.at - micro),
                evaluated,
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
    let test = TestOrg::new().await;
    let now = at(0);
    let hours = |hours: i64| now + TimeDelta::hours(hours);
    let stored = json!({
        "last_backup_at": hours(-20), "last_patched_at": hours(-10), "tls_cert_expires_at": hours(30),
        "os_name": "Ubuntu 24.04",
    });
    let support_ends: DateTime<Utc> = "2029-06-01T00:00:00Z".parse().unwrap();
    let micro = TimeDelta::microseconds(1);
    for (index, (condition, flip)) in [
        ("now - attr.last_backup_at < days(1)", Some((hours(4), Verdict::Fail))),
        ("now - attr.last_backup_at <= days(1)", Some((hours(4) + micro, Verdict::Fail))),
        ("attr.last_backup_at + hours(15) < now", None),
        ("attr.tls_cert_expires_at - now > hours(6)", Some((hours(24), Verdict::Fail))),
        ("attr.tls_cert_expires_at < now", Some((hours(30) + micro, Verdict::Pass))),
        // The first comparison changes after 4 hours, but decides nothing until the other one changes after 14.
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
        let rule = save(&test, &own(&format!("r-{index}"), condition), now).await.unwrap();
        let rules = load(&test).await;
        let one = rules.iter().find(|one| one.rule.id == rule.id).unwrap();
        let json_text = stored.to_string();
        let asset = native::Stored { attributes: stored.clone(), owner: None };
        let facts = Facts::of(&asset.described(&json_text)).unwrap();
        let found = one.flip(&facts, now, one.verdict(&facts, now));
        assert_eq!(found.map(|flip| (flip.at, flip.to)), flip, "{condition}");
    }
}

#[tokio::test]
async fn a_saved_rule_that_cannot_be_read_any_more_is_an_error_and_no_pass() {
    let test = TestOrg::new().await;
    save(&test, &own("own", "true"), at(1)).await.unwrap();
    let client = test.db.superuser().await;
    client
        .batch_execute(
            "UPDATE rule_version SET condition = 'attr.gone' FROM rule WHERE rule.id = rule_id AND key = 'own'",
        )
        .await
        .unwrap();
    let rules = load(&test).await;
    let facts =
        Facts::of(&native::Stored { attributes: json!({}), owner: None }.described("{}")).unwrap();
    let evaluated = rules.by_slot(16).unwrap().evaluate(&facts, at(0));
    assert_eq!(evaluated.verdict, Verdict::Error);
    assert!(evaluated.reason.unwrap().contains("attr.gone"));
}

#[tokio::test]
async fn a_verdict_that_is_none_says_why() {
    let test = TestOrg::new().await;
    for (index, (condition, verdict, reason)) in [
        ("attr.disk_encrypted", Verdict::NotAssessed, "disk_encrypted has no value"),
        ("owner.mfa_enabled", Verdict::NotAssessed, "the asset has no owner"),
        ("asset.location == 'here'", Verdict::NotAssessed, "location has no value"),
        ("attr.os_supported", Verdict::NotAssessed, "os_supported has no value"),
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
        save(&test, &own(&format!("r-{index}"), condition), at(1)).await.unwrap();
        let rules = load(&test).await;
        let json_text = r#"{"cpu_cores": 3, "open_ports": [22]}"#;
        let stored = native::Stored { attributes: json!({}), owner: None };
        let facts = Facts::of(&stored.described(json_text)).unwrap();
        let evaluated = rules.by_slot(16 + index).unwrap().evaluate(&facts, at(0));
        assert_eq!(evaluated.verdict, verdict, "{condition}: {evaluated:?}");
        assert!(evaluated.reason.unwrap_or_default().contains(reason), "{condition}");
    }
}

#[tokio::test]
async fn facts_are_read_from_rows_with_owner_and_tags() {
    let test = TestOrg::new().await;
    let owner = test.person("ann@example.com", &["viewer"]).await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
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
    let asset = test.asset(input).await;
    let facts = facts_of(&test, asset.id).await;
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
    save(&test, &evidence, at(1)).await.unwrap();
    let rules = load(&test).await;
    let one = rules.by_slot(16).unwrap();
    assert_eq!(rules.select_facts(), Facts::SELECT_WITH_TAGS);
    assert!(one.applies(&facts));
    assert_eq!(one.verdict(&facts, at(0)), Verdict::Pass);
    assert_eq!(
        one.evidence(&facts, at(0)).shown(AssetDetails::Included),
        Some(&json!({
            "owner": owner, "active": true, "tags": ["core", "Edge"], "os": false, "ports": [23],
            "age_days": 12.1, "missing": null, "patched": at(-86_400 * 12 - 7_000), "half": 0.5,
        }))
    );
    assert_eq!(one.evidence(&facts, at(0)).shown(AssetDetails::Omitted), None);
    // The hash depends on the facts that are read, and on versions and parameters.
    let hash = rules.facts_hash(&facts);
    assert_eq!(rules.facts_hash(&facts_of(&test, asset.id).await), hash);
    let other = facts_of(&test, test.asset(host("other")).await.id).await;
    assert_ne!(rules.facts_hash(&other), hash);
    assert!(!one.applies(&other));
    set(&test, "patch-age", json!({ "max_age_days": 1 }), None).await.unwrap();
    assert_ne!(load(&test).await.facts_hash(&facts), hash);
}
