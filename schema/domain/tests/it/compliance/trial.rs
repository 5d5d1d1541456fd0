//! Trials: the verdicts of a rule on the assets, without saving it.

use domain::{
    Origin,
    compliance::{
        evidence::AssetDetails,
        rule::{Rule, RuleInput, Trial, Verdict},
    },
};
use serde_json::json;

use crate::{
    compliance::rule::{faults, own},
    harness::{TestOrg, at, host},
};

#[tokio::test]
async fn a_draft_is_tried_on_what_is_in_operation() {
    let test = TestOrg::new().await;
    for (name, attributes) in [
        ("yes", json!({ "disk_encrypted": true })),
        ("no", json!({ "disk_encrypted": false })),
        ("unknown", json!({})),
        ("odd", json!({ "disk_encrypted": true, "cpu_cores": 1 })),
    ] {
        let mut input = host(name);
        input.attributes = Some(attributes);
        test.asset(input).await;
    }
    let mut retired = host("retired");
    retired.lifecycle_state = Some(domain::inventory::asset::LifecycleState::Retired);
    test.asset(retired).await;
    let input = RuleInput {
        evidence: Some(json!({ "name": "asset.name" })),
        ..own(
            "patch-age",
            "attr.disk_encrypted && (has(attr.cpu_cores) ? 1 / (attr.cpu_cores - 1) > 0 : true)",
        )
    };
    let trial = Trial::run(&test.db, test.org, &input, at(0)).await.unwrap();
    assert_eq!((trial.assets, trial.complete), (4, true));
    assert_eq!((trial.passed, trial.failed, trial.not_assessed, trial.errors), (1, 1, 1, 1));
    let mut examples: Vec<_> = trial
        .examples
        .iter()
        .map(|example| {
            let seen = example.evidence.shown(AssetDetails::Included).unwrap();
            (seen["name"].as_str().unwrap(), example.verdict)
        })
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
    let tx = test.db.read(test.org).await.unwrap();
    assert_eq!(Rule::list(&tx).await.unwrap().len(), 16);
    let refused = Trial::run(&test.db, test.org, &own("own", "attr.nothing"), at(0)).await;
    assert_eq!(faults(refused.unwrap_err())[0].path, "condition");
}

#[tokio::test]
async fn a_trial_of_50_000_assets_says_whether_those_are_all() {
    let test = TestOrg::new().await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let add = "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, created_at, updated_at)
               SELECT $1, gen_random_uuid(), 'HST-' || n, 'host ' || n, 'HOST', 'ACTIVE', 'PROD', now(), now()
               FROM generate_series($2::integer, $3) AS n";
    tx.exec(add, &[&test.org, &1, &50_000]).await.unwrap();
    tx.commit().await.unwrap();
    let trial = Trial::run(&test.db, test.org, &own("own", "true"), at(0)).await.unwrap();
    assert_eq!((trial.assets, trial.passed, trial.complete), (50_000, 50_000, true));
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    tx.exec(add, &[&test.org, &50_001, &50_001]).await.unwrap();
    tx.commit().await.unwrap();
    let trial = Trial::run(&test.db, test.org, &own("own", "true"), at(0)).await.unwrap();
    assert_eq!((trial.assets, trial.passed, trial.complete), (50_000, 50_000, false));
}
