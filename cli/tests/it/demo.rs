//! The demo organization of `sentryops up --demo`, as the API shows it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    client::{Client, own_address},
    server::{Api, TestDeployment},
    team::{PASSWORD, sign_in, word},
};

const ASSETS: &str = "{ assets(first: 100) { nodes {
    name lifecycleState owner { name } posture { score coverage verdicts { rule { key builtin } verdict } } } } }";

/// Loads a new demo and signs in as its administrator.
async fn administrator() -> (Client, TestDeployment, Api) {
    let deployment = TestDeployment::new().await;
    let up = Api::start(deployment.command(&["up", "--demo"])).await;
    let email = "admin@demo.example";
    deployment.admin(&["reset-password", "--email", email, "--password-stdin"], PASSWORD);
    let admin = sign_in(&Client::new(&up, own_address()), "", email).await;
    (admin.client, deployment, up)
}

fn nodes(of: &Value) -> &[Value] {
    of["nodes"].as_array().unwrap()
}

#[tokio::test]
async fn every_rule_that_ships_passes_and_fails_in_the_demo() {
    let (admin, _site, _up) = administrator().await;
    let data = admin.get_data("{ rules { key builtin enabled } }", json!({})).await;
    let rules: BTreeSet<_> = data["rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["builtin"] == true && rule["enabled"] == true)
        .map(|rule| word(&rule["key"]))
        .collect();
    assert_eq!(rules.len(), 16);
    let data = admin.get_data(ASSETS, json!({})).await;
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for asset in nodes(&data["assets"]) {
        let is_evaluated = asset["lifecycleState"] != "RETIRED";
        assert_eq!(asset["posture"].is_object(), is_evaluated, "{asset}");
        for verdict in asset["posture"]["verdicts"].as_array().into_iter().flatten() {
            let verdicts = seen.entry(word(&verdict["rule"]["key"])).or_default();
            verdicts.insert(word(&verdict["verdict"]));
        }
    }
    for rule in &rules {
        let verdicts = &seen[rule];
        assert!(verdicts.contains("PASS") && verdicts.contains("FAIL"), "{rule}: {verdicts:?}");
        assert!(!verdicts.contains("ERROR"), "{rule}: {verdicts:?}");
    }
}

#[tokio::test]
async fn the_demo_has_been_judged_twice_and_something_has_changed_and_one_thing_is_waived() {
    let (admin, _site, _up) = administrator().await;
    let query = "{ complianceRuns(first: 5) { nodes { id state assets opened fixed errors score { weighted coverage } } }
        waivers(first: 5) { nodes { rule { key } asset { name } reason } } }";
    let data = admin.get_data(query, json!({})).await;
    let [today, yesterday] = nodes(&data["complianceRuns"]) else { panic!("{data}") };
    for run in [today, yesterday] {
        assert_eq!((&run["state"], &run["assets"]), (&json!("SUCCEEDED"), &json!(29)), "{run}");
        assert_eq!(run["errors"], 0, "{run}");
        let score = run["score"]["weighted"].as_f64().unwrap();
        assert!(score > 50.0 && score < 100.0, "{run}");
    }
    assert_eq!((&today["opened"], &today["fixed"]), (&json!(2), &json!(1)), "{today}");
    let drift = "query($from: ID!, $to: ID!) { complianceDrift(from: $from, to: $to) {
        newlyFailing { nodes { asset { name } rule { key } } } newlyPassing { nodes { asset { name } rule { key } } } } }";
    let given = json!({ "from": yesterday["id"], "to": today["id"] });
    let drift = admin.get_data(drift, given).await;
    let names = |of: &Value| {
        let finding =
            |one: &Value| format!("{} {}", word(&one["asset"]["name"]), word(&one["rule"]["key"]));
        nodes(of).iter().map(finding).collect::<BTreeSet<_>>()
    };
    let drift = &drift["complianceDrift"];
    let failing = ["billing-app-1 edr-present", "mail-1 log-retention"].map(str::to_owned);
    assert_eq!(names(&drift["newlyFailing"]), failing.into());
    assert_eq!(names(&drift["newlyPassing"]), ["shop-web-1 firewall-enabled".to_owned()].into());
    let [waiver] = nodes(&data["waivers"]) else { panic!("{data}") };
    assert_eq!(
        (&waiver["rule"]["key"], &waiver["asset"]["name"]),
        (&json!("os-supported"), &json!("billing-db-1"))
    );
    let query =
        "{ findings(filter: { state: [WAIVED] }) { nodes { asset { name } rule { key } } } }";
    let excused = admin.get_data(query, json!({})).await;
    assert_eq!(names(&excused["findings"]), ["billing-db-1 os-supported".to_owned()].into());
}

#[tokio::test]
async fn what_is_kept_of_the_demo_is_what_a_look_finds() {
    let (_admin, deployment, _up) = administrator().await;
    let output = deployment.admin(&["verify-posture", "--organization", "demo"], "");
    assert_eq!(output, "demo: 29 assets compared, 0 differ");
}
