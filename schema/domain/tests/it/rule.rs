//! Rules: what they say, when time changes that, and how they are kept.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Error, Fault, Id, Origin,
    asset::{Asset, AssetType, Environment},
    audit::{AuditEntry, AuditQuery},
    page::PageRequest,
    rule::{Builtin, Facts, Rule, RuleInput, RuleScopeInput, Ruleset, Severity, Trial, Verdict},
    tag::Tag,
};
use serde_json::{Value, json};
use tokio_postgres::Row;

use crate::{
    fixture::{House, at, host},
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
