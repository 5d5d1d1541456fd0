//! Rules in the API: reading, saving and trying them.

use domain::access::permission::Permission;
use serde_json::{Value, json};

use crate::harness::TestApp;

fn input(condition: &str) -> Value {
    json!({ "input": {
        "key": "small-disk", "title": "The disk is small", "severity": "LOW", "remediation": "Buy less.",
        "params": { "most": 1000 }, "condition": condition, "evidence": { "bytes": "attr.disk_bytes" },
        "controls": [{ "framework": "NIST", "code": "AC-2(1)" }],
    } })
}

#[tokio::test]
async fn a_rule_is_tried_saved_set_and_found_again() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let (admin, operator) = (team["admin"].bearer.as_str(), team["operator"].bearer.as_str());
    let create = "mutation { createAsset(input: { name: \"nas\", type: HOST, attributes: { disk_bytes: 500 } }) { id } }";
    let asset = app.ask(operator, create, json!({})).await.data()["createAsset"]["id"].clone();

    let rule = input("attr.disk_bytes <= params.most");
    let attempt = "mutation($input: RuleInput!) { tryRule(input: $input) { assets complete passed failed notAssessed errors cost reads examples { verdict reason evidence asset { id } } } }";
    let tried = app.ask(operator, attempt, rule.clone()).await;
    assert_eq!(
        tried.data()["tryRule"],
        json!({
            "assets": 1, "complete": true, "passed": 1, "failed": 0, "notAssessed": 0, "errors": 0, "cost": 4,
            "reads": ["attr.disk_bytes"],
            "examples": [{ "verdict": "PASS", "reason": null, "evidence": { "bytes": 500 }, "asset": { "id": asset } }],
        })
    );

    let save = "mutation($input: RuleInput!) { saveRule(input: $input) { id version builtin enabled params controls { title family } } }";
    let saved = app.ask(admin, save, rule).await.data()["saveRule"].clone();
    assert_eq!((&saved["version"], &saved["builtin"]), (&json!(1), &json!(false)));
    assert_eq!(
        saved["controls"],
        json!([{ "title": "Automated System Account Management", "family": "Access Control" }])
    );

    let set = "mutation { setRuleParams(key: \"small-disk\", params: { most: 7 }, enabled: false) { id params enabled } }";
    let set = app.ask(admin, set, json!({})).await;
    assert_eq!(
        set.data()["setRuleParams"],
        json!({ "id": saved["id"], "params": { "most": 7 }, "enabled": false })
    );

    let viewer = team["viewer"].bearer.as_str();
    let find = "query($id: ID!) { node(id: $id) { ... on Rule { key reads } } rule(key: \"small-disk\") { params } rules { key } }";
    let found = app.ask(viewer, find, json!({ "id": saved["id"] })).await;
    let found = found.data();
    assert_eq!(found["node"], json!({ "key": "small-disk", "reads": ["attr.disk_bytes"] }));
    assert_eq!(found["rule"]["params"], json!({ "most": 7 }));
    assert_eq!(found["rules"].as_array().unwrap().len(), 17);
}

#[tokio::test]
async fn a_wrong_rule_says_where_and_what_was_meant() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let save = "mutation($input: RuleInput!) { saveRule(input: $input) { id } }";
    let wrong = input("attr.disk_byte <= params.mst");
    let refused = app.ask(team["admin"].bearer.as_str(), save, wrong).await;
    assert_eq!(refused.code(), "VALIDATION");
    assert_eq!(
        refused.error()["extensions"]["fields"],
        json!([
            { "path": "input.condition", "suggestion": "attr.disk_bytes",
              "message": "line 1, column 1: there is no attribute attr.disk_byte: the query attributes lists all attributes" },
            { "path": "input.condition", "suggestion": "most",
              "message": "line 1, column 19: the rule has no parameter \"mst\": it has most" },
        ])
    );
    let rules = app.ask(team["viewer"].bearer.as_str(), "{ rules { key } }", json!({})).await;
    assert_eq!(rules.data()["rules"].as_array().unwrap().len(), 16);
}

#[tokio::test]
async fn a_trial_takes_the_right_to_see_assets_because_its_counts_tell_their_facts() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let (_, runs) = app.api_key(&team, "nightly", &[Permission::ComplianceRun]).await;
    let both = [Permission::ComplianceRun, Permission::AssetRead];
    let (_, reads) = app.api_key(&team, "tester", &both).await;
    let create = "mutation { createAsset(input: { name: \"nas\", type: HOST, attributes: { disk_bytes: 500 } }) { id } }";
    app.ask(&*team["operator"].bearer, create, json!({})).await.data();
    let attempt = "mutation($input: RuleInput!) { tryRule(input: $input) { passed } }";
    let rule = input("attr.disk_bytes <= params.most");
    let refused = app.ask(&*runs, attempt, rule.clone()).await;
    assert_eq!((refused.code(), refused.executed), ("FORBIDDEN", false));
    assert!(refused.text.contains("ASSET_READ"), "{}", refused.text);
    let tried = app.ask(&*reads, attempt, rule).await;
    assert_eq!(tried.data()["tryRule"], json!({ "passed": 1 }));
    // A key that only starts runs still does.
    let start = "mutation { startComplianceRun { state } }";
    app.ask(&*runs, start, json!({})).await.data();
}

#[tokio::test]
async fn a_rule_above_the_budget_is_refused_with_the_sum_and_the_most_expensive() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let save = "mutation($input: RuleInput!) { saveRule(input: $input) { cost } }";
    let costly = ["attr.open_ports.all(p, p > 0)"; 11].join(" && ");
    let mut refused = None;
    for number in 0..10 {
        let mut rule = input(&costly);
        rule["input"]["key"] = json!(format!("costly-{number}"));
        refused = Some(app.ask(&*team["admin"].bearer, save, rule).await);
    }
    let refused = refused.unwrap();
    assert_eq!(refused.faults(), ["input.condition"]);
    let message = refused.error()["extensions"]["fields"][0]["message"].as_str().unwrap();
    assert!(message.contains("at most 1000000 are allowed"), "{message}");
    assert!(message.contains("costly-0 ("), "{message}");
}
