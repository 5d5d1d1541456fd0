//! Evidence consists of facts of assets, so it requires `ASSET_READ` wherever it appears.

use domain::{
    Origin,
    access::permission::Permission,
    compliance::run::{Run, RunTrigger, Started},
};
use futures_util::TryStreamExt;
use serde_json::json;

use crate::harness::{Reply, Team, TestApp, client, nothing, now};

/// A name that only callers who may read assets may learn.
const FACT: &str = "hush-hush";

/// Evaluates all assets, as workers would.
async fn run(app: &TestApp, team: &Team) {
    let tx = app.test.write(team.org.id, Origin::system()).await.unwrap();
    let started = Run::start(&tx, RunTrigger::Manual, None, None, now()).await.unwrap();
    let Started::New(run, ranges) = started else { panic!("no run is open") };
    for range in ranges {
        Run::evaluate_shard(&tx, run.id, run.round, range, now()).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// Returns everything that this caller can read of the findings: answers, and the files of the report.
async fn readable(app: &TestApp, bearer: &str) -> Vec<(&'static str, String)> {
    let finding = "id evidence severity state";
    let ask = async |document: String| app.ask(bearer, &document, nothing()).await;
    let findings = ask(format!("{{ findings {{ nodes {{ {finding} }} }} }}")).await;
    let nodes = findings.data()["findings"]["nodes"].clone();
    assert!(!nodes.as_array().unwrap().is_empty());
    let id = nodes[0]["id"].as_str().unwrap();
    let runs = ask("{ complianceRuns { nodes { id } } }".to_owned()).await;
    let run = |index: usize| {
        let runs = &runs.data()["complianceRuns"]["nodes"];
        runs[index]["id"].as_str().unwrap().to_owned()
    };
    let (new, old) = (run(0), run(1));
    let documents = [
        ("finding", format!("{{ finding(id: \"{id}\") {{ {finding} }} }}")),
        ("node", format!("{{ node(id: \"{id}\") {{ ... on Finding {{ {finding} }} }} }}")),
        ("report", format!("{{ complianceReport {{ findings {{ nodes {{ {finding} }} }} }} }}")),
        (
            "drift",
            format!(
                "{{ complianceDrift(from: \"{old}\", to: \"{new}\") {{ newlyFailing {{ nodes {{ {finding} }} }} newlyPassing {{ nodes {{ {finding} }} }} }} }}"
            ),
        ),
    ];
    let mut shown = vec![("findings", findings.text.clone())];
    for (name, document) in documents {
        let reply = ask(document).await;
        reply.data();
        shown.push((name, reply.text));
    }
    let printed = app.engine.print_report("latest", Some(bearer), client("r")).await.ok().unwrap();
    shown.push(("page", printed.html));
    let file = app.engine.report_file("latest", Some(bearer), client("r")).await.ok().unwrap();
    let file: Vec<Vec<u8>> = file.try_collect().await.unwrap();
    shown.push(("file", String::from_utf8(file.concat()).unwrap()));
    shown
}

/// An organization with an asset that breaks a rule, whose author may not read assets.
async fn app() -> (TestApp, Team, String) {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let owner = &*team["owner"].bearer;
    let grant = "mutation { saveRole(key: \"author\", name: \"Author\", permissions: [COMPLIANCE_READ, COMPLIANCE_WRITE]) { id } }";
    app.ask(owner, grant, nothing()).await.data();
    let author = app.person(&team.org, "author", "author", &["author"]).await.bearer;
    run(&app, &team).await;
    let create =
        "mutation($name: String!) { createAsset(input: { name: $name, type: HOST }) { id } }";
    app.ask(&*team["operator"].bearer, create, json!({ "name": FACT })).await.data();
    let save = "mutation($input: RuleInput!) { saveRule(input: $input) { id } }";
    let rule = json!({ "input": {
        "key": "nosy", "title": "Nosy", "severity": "CRITICAL", "remediation": "None.", "condition": "asset.name == \"~\"",
        "evidence": { "name": "asset.name", "code": "asset.code" },
    } });
    app.ask(&*author, save, rule).await.data();
    run(&app, &team).await;
    (app, team, author)
}

#[tokio::test]
async fn the_author_of_a_rule_reads_no_fact_without_the_right_to_read_assets() {
    let (app, team, author) = app().await;
    for (name, text) in readable(&app, &team["viewer"].bearer).await {
        assert!(text.contains(FACT), "{name} shows a viewer the evidence: {text}");
    }
    let (_, key) = app.api_key(&team, "auditor", &[Permission::ComplianceRead]).await;
    for bearer in [&author, &key] {
        for (name, text) in readable(&app, bearer).await {
            assert!(!text.contains(FACT) && !text.contains("HST-"), "{name}: {text}");
        }
    }
    let nothing_seen = "{ findings { nodes { evidence } } }";
    let reply: Reply = app.ask(&*author, nothing_seen, nothing()).await;
    assert_eq!(reply.data()["findings"]["nodes"][0], json!({ "evidence": {} }));
    // Verdicts are below assets, and a trial tells facts by its counts.
    for document in [
        "{ findings { nodes { asset { posture { verdicts { evidence } } } } } }",
        "mutation { tryRule(input: { key: \"own\", title: \"t\", severity: LOW, condition: \"true\", remediation: \"r\" }) { assets } }",
    ] {
        let refused = app.ask(&*author, document, nothing()).await;
        assert_eq!(refused.errors()[0]["extensions"]["code"], "FORBIDDEN", "{}", refused.text);
    }
}
