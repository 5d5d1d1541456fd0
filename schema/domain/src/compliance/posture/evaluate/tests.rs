//! Tests of evaluations, without a database.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::{
    Actor,
    base::id::Id,
    compliance::rule::{AppliesTo, Definition, FactsRow, Rule, Severity},
    inventory::asset::{AssetType, Environment, LifecycleState},
};

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

fn rule(slot: usize, condition: &str) -> CompiledRule {
    let definition = Definition {
        title: "t".to_owned(),
        severity: Severity::High,
        controls: Vec::new(),
        applies_to: AppliesTo::default(),
        params: json!({}),
        condition: condition.to_owned(),
        evidence: BTreeMap::new(),
        remediation: "r".to_owned(),
    };
    let id = Id::from(Uuid::from_u128(slot as u128));
    let rule = Rule {
        id,
        key: format!("rule-{slot}"),
        version: 1,
        builtin: false,
        enabled: true,
        params: json!({}),
        definition,
    };
    CompiledRule::new(rule, slot, Id::from(Uuid::nil()))
}

/// Two rules: the disk is encrypted, and endpoint detection is installed.
fn rules() -> Arc<Ruleset> {
    Arc::new(Ruleset::new(vec![rule(0, "attr.disk_encrypted"), rule(1, "attr.edr_installed")]))
}

fn facts(attributes: &str) -> Facts {
    Facts::of(&FactsRow {
        asset: Id::from(Uuid::nil()),
        asset_type: AssetType::Host,
        environment: Environment::Prod,
        lifecycle_state: LifecycleState::Active,
        name: "web-1",
        code: "HST-AAAAA",
        external_id: None,
        location: None,
        description: None,
        owner: None,
        tags: Vec::new(),
        attributes: attributes.as_bytes(),
    })
    .unwrap()
}

/// Returns a waiver of the first rule for all assets that expires after this number of days.
fn waiver(number: u128, days: i64) -> Waiver {
    Waiver {
        id: Id::from(Uuid::from_u128(number)),
        rule_id: Id::from(Uuid::from_u128(0)),
        asset_id: None,
        reason: "soon".to_owned(),
        granted_by: Actor::System,
        granted_at: NOW,
        expires_at: NOW + TimeDelta::days(days),
        revoked_by: None,
        revoked_at: None,
    }
}

/// Returns the posture's codes, followed by the transitions of findings, each with the rule's slot.
fn said(evaluated: &EvaluationResult) -> String {
    let codes = evaluated.posture.codes.iter().map(|code| char::from(code.as_byte()));
    let differences = evaluated.differences.iter().map(|difference| match difference {
        Difference::Opened(failure) => format!(" opened {}", failure.rule.uuid().as_u128()),
        Difference::Changed(failure) => format!(" changed {}", failure.rule.uuid().as_u128()),
        Difference::Unevaluable(_) => " restated".to_owned(),
        Difference::Ended(ended) => {
            format!(" {} {}", ended.state.as_str(), ended.rule.uuid().as_u128())
        }
    });
    codes.collect::<String>() + &differences.collect::<String>()
}

const BROKEN: &str = r#"{"disk_encrypted": false, "edr_installed": true}"#;
const SOUND: &str = r#"{"disk_encrypted": true, "edr_installed": true}"#;

#[test]
fn a_broken_rule_opens_a_finding_once() {
    let rules = rules();
    let evaluation = Evaluation::new(&rules, &[], NOW);
    let first = evaluation.evaluate(&facts(BROKEN), None, &None);
    assert_eq!((said(&first).as_str(), first.has_changed), ("FP opened 0", true));
    assert_eq!(first.posture.score, Some(50_000_000));
    let again = evaluation.evaluate(&facts(BROKEN), Some(&first.posture), &None);
    assert_eq!((said(&again).as_str(), again.has_changed), ("FP", false));
    assert_eq!(again.posture, first.posture);
}

#[test]
fn a_finding_ends_where_the_rule_holds_again_or_cannot_be_assessed() {
    let rules = rules();
    let evaluation = Evaluation::new(&rules, &[], NOW);
    let before = evaluation.evaluate(&facts(BROKEN), None, &None).posture;
    let after = |attributes| said(&evaluation.evaluate(&facts(attributes), Some(&before), &None));
    assert_eq!(after(SOUND), "PP FIXED 0");
    assert_eq!(after(r#"{"edr_installed": true}"#), "NP OUT_OF_SCOPE 0");
    let left = EvaluationResult {
        differences: evaluation.end_all(&before),
        posture: before,
        has_changed: true,
    };
    assert_eq!(said(&left), "FP OUT_OF_SCOPE 0");
}

#[test]
fn a_waiver_counts_until_it_ends_and_another_one_is_told() {
    let rules = rules();
    let evaluation = |waivers: &[Waiver]| Evaluation::new(&rules, waivers, NOW);
    let open = evaluation(&[]).evaluate(&facts(BROKEN), None, &None).posture;
    let waived =
        evaluation(&[waiver(1, 3), waiver(2, 5)]).evaluate(&facts(BROKEN), Some(&open), &None);
    assert_eq!((said(&waived).as_str(), waived.has_changed), ("WP changed 0", true));
    let end = Flip { slot: 0, at: NOW + TimeDelta::days(5), to: VerdictCode::Fail };
    assert_eq!(waived.posture.flips, [end], "the one that holds longest counts");
    assert_ne!(waived.posture.inputs_hash, open.inputs_hash);
    let another =
        evaluation(&[waiver(3, 5)]).evaluate(&facts(BROKEN), Some(&waived.posture), &None);
    assert_eq!((said(&another).as_str(), another.has_changed), ("WP changed 0", true));
}

#[test]
fn rules_that_read_nothing_of_what_changed_say_what_they_said() {
    let rules = rules();
    let mut evaluation = Evaluation::new(&rules, &[], NOW);
    let before = evaluation.evaluate(&facts(BROKEN), None, &None).posture;
    let changed = Some(["attr.edr_installed".to_owned()].into());
    let attributes = r#"{"disk_encrypted": true, "edr_installed": false}"#;
    assert_eq!(
        said(&evaluation.evaluate(&facts(attributes), Some(&before), &changed)),
        "FF opened 1"
    );
    evaluation.evaluates_all_rules = true;
    let whole = evaluation.evaluate(&facts(attributes), Some(&before), &changed);
    assert_eq!(said(&whole), "PF FIXED 0 opened 1");
}
