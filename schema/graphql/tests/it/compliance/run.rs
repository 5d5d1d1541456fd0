//! Findings, waivers, scores, drift, forecast and reports in the API.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Id, Origin,
    access::permission::Permission,
    compliance::rule::Severity,
    entity::{AssetId, FindingId, RunId},
    testing::compliance::{FindingFixture, RuleContent, RuleFixture, RunFixture, posture},
};
use futures_util::TryStreamExt;
use graphql::Answer;
use serde_json::{Value, json};

use crate::harness::{self, Reply, Team, TestApp, client, nothing};

/// A host without disk encryption, evaluated twice: it passes first and then fails a new rule.
struct ComplianceFixture {
    app: TestApp,
    team: Team,
    now: DateTime<Utc>,
    host: AssetId,
    rule: RuleFixture,
    finding: FindingId,
    runs: [RunId; 2],
}

impl ComplianceFixture {
    /// Creates the host under this name.
    async fn new(name: &str) -> Self {
        let app = TestApp::new().await;
        let team = app.team("alfa").await;
        let now = harness::now();
        let create = "mutation($name: String!) { createAsset(input: { name: $name, type: HOST, attributes: { disk_encrypted: false } }) { id } }";
        let made = app.ask(team["operator"].bearer.as_str(), create, json!({ "name": name })).await;
        let host = made.data()["createAsset"]["id"].as_str().unwrap().parse().unwrap();
        let tx = app.test.write(team.org.id, Origin::system()).await.unwrap();
        let text = RuleContent {
            condition: "attr.disk_encrypted",
            evidence: &[("observed", "attr.disk_encrypted")],
            controls: &[("NIST", "SC-28")],
        };
        let rule =
            RuleFixture::insert(&tx, "encrypted", 0, Severity::High, text, now).await.unwrap();
        let rules = [rule.clone()];
        let flips = [(0, now + TimeDelta::days(3), 'P')];
        posture(&tx, host, &rules, "F", &flips, now).await.unwrap();
        let broke = FindingFixture {
            evidence: json!({ "observed": "<b>&" }),
            ..FindingFixture::open(now - TimeDelta::minutes(5))
        };
        let finding = Id::from(broke.insert(&tx, host, &rule).await.unwrap());
        let mut runs = Vec::new();
        for (minutes, tally) in [(9, [1, 0, 0, 0, 0]), (1, [0, 1, 0, 0, 0])] {
            let at = now - TimeDelta::minutes(minutes);
            let run = RunFixture {
                tallies: vec![tally],
                assets: 1,
                scores: (1, i64::from(tally[0]) * 100_000_000),
                ..RunFixture::succeeded(at, at)
            };
            runs.push(run.insert(&tx, &rules).await.unwrap());
        }
        tx.commit().await.unwrap();
        Self { app, team, now, host, rule, finding, runs: runs.try_into().unwrap() }
    }

    async fn ask(&self, role: &str, document: &str, variables: Value) -> Reply {
        self.app.ask(self.team[role].bearer.as_str(), document, variables).await
    }
}

#[tokio::test]
async fn a_finding_is_shown_with_its_asset_its_rule_and_what_was_seen() {
    let fixture = ComplianceFixture::new("web").await;
    let document = "query($host: ID!) {
        findings { totalCount nodes { id state severity reopened fixedAt evidence asset { name } rule { key version controls { family } } waiver { id } } }
        asset(id: $host) { findings { nodes { id } } posture { score coverage verdicts { rule { key } verdict waived reason evidence } } }
    }";
    let reply = fixture.ask("viewer", document, json!({ "host": fixture.host })).await;
    let rule = json!({ "key": "encrypted", "version": 1, "controls": [{ "family": "System and Communications Protection" }] });
    assert_eq!(
        reply.data()["findings"],
        json!({ "totalCount": 1, "nodes": [{
            "id": fixture.finding, "state": "OPEN", "severity": "HIGH", "reopened": 0, "fixedAt": null,
            "evidence": { "observed": "<b>&" }, "asset": { "name": "web" }, "rule": rule, "waiver": null,
        }] })
    );
    assert_eq!(
        reply.data()["asset"],
        json!({
            "findings": { "nodes": [{ "id": fixture.finding }] },
            "posture": { "score": 0.0, "coverage": 1.0, "verdicts": [{
                "rule": { "key": "encrypted" }, "verdict": "FAIL", "waived": false, "reason": null,
                "evidence": { "observed": false },
            }] },
        })
    );
}

#[tokio::test]
async fn a_waiver_is_granted_and_revoked_and_says_where_it_stands() {
    let fixture = ComplianceFixture::new("web").await;
    let grant = "mutation($input: WaiverInput!) { grantWaiver(input: $input) { id state asset { name } rule { key } grantedBy { ... on User { name } } } }";
    let until = (fixture.now + TimeDelta::days(30)).to_rfc3339();
    let input = json!({ "rule": fixture.rule.id, "asset": fixture.host, "reason": "new disks", "expiresAt": until });
    let granted = fixture.ask("admin", grant, json!({ "input": input })).await;
    let granted = &granted.data()["grantWaiver"];
    assert_eq!(
        granted,
        &json!({
            "id": granted["id"], "state": "ACTIVE", "asset": { "name": "web" }, "rule": { "key": "encrypted" },
            "grantedBy": { "name": "alfa admin" },
        })
    );
    let again = fixture.ask("admin", grant, json!({ "input": input })).await;
    assert_eq!(again.code(), "CONFLICT");
    let revoke =
        "mutation($id: ID!) { revokeWaiver(id: $id) { state revokedBy { ... on User { name } } } }";
    let revoked = fixture.ask("owner", revoke, json!({ "id": granted["id"] })).await;
    let expected = json!({ "state": "REVOKED", "revokedBy": { "name": "alfa owner" } });
    assert_eq!(revoked.data()["revokeWaiver"], expected);
    let again = fixture.ask("owner", revoke, json!({ "id": granted["id"] })).await;
    assert_eq!(
        (again.code(), again.error()["message"].as_str()),
        ("CONFLICT", Some("The waiver has ended already: it is REVOKED."))
    );
    let listed = "{ waivers { totalCount nodes { id state reason } } }";
    let listed = fixture.ask("viewer", listed, nothing()).await;
    assert_eq!(
        listed.data()["waivers"],
        json!({ "totalCount": 1, "nodes": [{ "id": granted["id"], "state": "REVOKED", "reason": "new disks" }] })
    );
    let refused = fixture.ask("operator", grant, json!({ "input": input })).await;
    assert_eq!((refused.code(), refused.executed), ("FORBIDDEN", false));
}

#[tokio::test]
async fn a_waiver_without_an_end_is_refused_by_name() {
    let fixture = ComplianceFixture::new("web").await;
    let grant = "mutation($input: WaiverInput!) { grantWaiver(input: $input) { id } }";
    let endless = json!({ "input": { "rule": fixture.rule.id, "reason": "always" } });
    let refused = fixture.ask("admin", grant, endless).await;
    assert_eq!(refused.code(), "VALIDATION");
    let message = refused.error()["message"].as_str().unwrap();
    assert!(message.contains("$input.expiresAt is required: its type is DateTime!"), "{message}");
    let literal = format!(
        "mutation {{ grantWaiver(input: {{ rule: \"{}\", reason: \"always\" }}) {{ id }} }}",
        fixture.rule.id
    );
    let refused = fixture.ask("admin", &literal, nothing()).await;
    let message = refused.error()["message"].as_str().unwrap();
    assert_eq!(refused.code(), "VALIDATION");
    assert!(message.contains("expiresAt"), "{message}");
    for (until, path) in
        [("2001-01-01T00:00:00Z", "input.expiresAt"), ("2199-01-01T00:00:00Z", "input.expiresAt")]
    {
        let input =
            json!({ "input": { "rule": fixture.rule.id, "reason": "past", "expiresAt": until } });
        let refused = fixture.ask("admin", grant, input).await;
        assert_eq!((refused.code(), refused.faults()), ("VALIDATION", vec![path]));
    }
    let saved = fixture.ask("viewer", "{ waivers { totalCount } }", nothing()).await;
    assert_eq!(saved.data()["waivers"]["totalCount"], 0);
}

#[tokio::test]
async fn scores_drift_and_forecast_tell_the_same_story() {
    let fixture = ComplianceFixture::new("web").await;
    let [before, after] = fixture.runs;
    let document = "query($from: ID!, $to: ID!, $until: DateTime!) {
        complianceScore { mean weighted coverage assets bySeverity { severity failing } }
        postureBy(dimension: TYPE) { label assets score coverage failing owner { name } tag { name } }
        complianceTrend { run { id } score { weighted } }
        complianceDrift(from: $from, to: $to) { from { id } to { id score { weighted } } scoreChange newlyFailing { totalCount nodes { id } } newlyPassing { nodes { id } } }
        complianceForecast(until: $until) { totalCount nodes { asset { name } rule { key } from to at } }
    }";
    let until = fixture.now + TimeDelta::days(9);
    let variables = json!({ "from": before, "to": after, "until": until.to_rfc3339() });
    let reply = fixture.ask("viewer", document, variables).await;
    let data = reply.data();
    let count = |severity: &str, failing: i32| json!({ "severity": severity, "failing": failing });
    assert_eq!(
        data["complianceScore"],
        json!({
            "mean": 0.0, "weighted": 0.0, "coverage": 1.0, "assets": 1,
            "bySeverity": [count("LOW", 0), count("MEDIUM", 0), count("HIGH", 1), count("CRITICAL", 0)],
        })
    );
    assert_eq!(
        data["postureBy"],
        json!([{ "label": "HOST", "assets": 1, "score": 0.0, "coverage": 1.0, "failing": 1, "owner": null, "tag": null }])
    );
    assert_eq!(
        data["complianceTrend"],
        json!([
            { "run": { "id": before }, "score": { "weighted": 100.0 } },
            { "run": { "id": after }, "score": { "weighted": 0.0 } },
        ])
    );
    assert_eq!(
        data["complianceDrift"],
        json!({
            "from": { "id": before }, "to": { "id": after, "score": { "weighted": 0.0 } }, "scoreChange": -100.0,
            "newlyFailing": { "totalCount": 1, "nodes": [{ "id": fixture.finding }] }, "newlyPassing": { "nodes": [] },
        })
    );
    let flip = &data["complianceForecast"]["nodes"][0];
    assert_eq!(
        (&flip["asset"]["name"], &flip["rule"]["key"], &flip["from"], &flip["to"]),
        (&json!("web"), &json!("encrypted"), &json!("FAIL"), &json!("PASS"))
    );
    let backwards =
        "query($from: ID!, $to: ID!) { complianceDrift(from: $from, to: $to) { scoreChange } }";
    let refused = fixture.ask("viewer", backwards, json!({ "from": after, "to": before })).await;
    assert_eq!((refused.code(), refused.faults()), ("VALIDATION", vec!["to"]));
    let past = "{ complianceForecast(until: \"2001-01-01T00:00:00Z\") { totalCount } }";
    let refused = fixture.ask("viewer", past, nothing()).await;
    assert_eq!((refused.code(), refused.faults()), ("VALIDATION", vec!["until"]));
}

const REPORT: &str = "query($run: ID) { complianceReport(run: $run) {
    run { id } organization score { weighted } previousScore { weighted } scoreChange verdicts { passed failed } bySeverity { failing }
    families { family passed failed coverage score } remediations { rule { key } assets recoverableWeight scoreGain }
    worstAssets { asset { name } failed failedWeight } findings { totalCount nodes { id } } rules { key params }
} }";

#[tokio::test]
async fn a_report_says_what_a_run_found_and_what_would_help() {
    let fixture = ComplianceFixture::new("web").await;
    let reply = fixture.ask("viewer", REPORT, nothing()).await;
    assert_eq!(
        reply.data()["complianceReport"],
        json!({
            "run": { "id": fixture.runs[1] }, "organization": "alfa team", "score": { "weighted": 0.0 },
            "previousScore": { "weighted": 100.0 }, "scoreChange": -100.0, "verdicts": { "passed": 0, "failed": 1 },
            "bySeverity": [{ "failing": 0 }, { "failing": 0 }, { "failing": 1 }, { "failing": 0 }],
            "families": [{ "family": "System and Communications Protection", "passed": 0, "failed": 1, "coverage": 1.0, "score": 0.0 }],
            "remediations": [{ "rule": { "key": "encrypted" }, "assets": 1, "recoverableWeight": 5, "scoreGain": 100.0 }],
            "worstAssets": [{ "asset": { "name": "web" }, "failed": 1, "failedWeight": 5 }],
            "findings": { "totalCount": 1, "nodes": [{ "id": fixture.finding }] },
            "rules": [{ "key": "encrypted", "params": {} }],
        })
    );
    let before = fixture.ask("viewer", REPORT, json!({ "run": fixture.runs[0] })).await;
    assert_eq!(before.data()["complianceReport"]["findings"]["totalCount"], 0);
    let unknown = fixture.ask("viewer", REPORT, json!({ "run": RunId::new() })).await;
    assert_eq!(unknown.code(), "NOT_FOUND");
    let bravo = fixture.app.team("bravo").await;
    let theirs = json!({ "run": fixture.runs[0] });
    let reply = fixture.app.ask(bravo["viewer"].bearer.as_str(), REPORT, theirs).await;
    assert_eq!(reply.code(), "NOT_FOUND");
    let empty = fixture.app.ask(bravo["viewer"].bearer.as_str(), REPORT, nothing()).await;
    assert_eq!(
        empty.data()["complianceReport"],
        json!({
            "run": null, "organization": "bravo team", "score": null, "previousScore": null, "scoreChange": null,
            "verdicts": { "passed": 0, "failed": 0 },
            "bySeverity": [{ "failing": 0 }, { "failing": 0 }, { "failing": 0 }, { "failing": 0 }],
            "families": [], "remediations": [], "worstAssets": [], "findings": { "totalCount": 0, "nodes": [] }, "rules": [],
        })
    );
}

/// Returns the page of that run, or the refusal.
async fn page(fixture: &ComplianceFixture, run: &str, bearer: &str) -> Result<String, Reply> {
    let printed = fixture.app.engine.print_report(run, Some(bearer), client("the-request")).await;
    printed.map(|printed| printed.html).map_err(|refused: Answer| refused.into())
}

#[tokio::test]
async fn a_printed_report_shows_what_people_wrote_and_runs_none_of_it() {
    let fixture = ComplianceFixture::new("<script>alert(1)</script>").await;
    let bearer = fixture.team["viewer"].bearer.as_str();
    let html = page(&fixture, "latest", bearer).await.unwrap();
    assert!(html.starts_with("<!DOCTYPE html>"));
    for shown in [
        "alfa team",
        &fixture.runs[1].to_string(),
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "observed: &lt;b&gt;&amp;",
        "encrypted must hold",
        "System and Communications Protection",
        "NIST SC-28 (Protection of Information at Rest)",
        "1 of 1. The complete list is in",
        "see to encrypted",
        "-100.0 points",
    ] {
        assert!(html.contains(shown), "{shown} is not in {html}");
    }
    for loaded in ["<script", "<link", "<img", "src=", "href=", "url(", "@import", " style="] {
        assert!(!html.contains(loaded), "{loaded} is in {html}");
    }
    assert!(page(&fixture, &fixture.runs[1].to_string(), bearer).await.is_ok());
    let (_, reader) =
        fixture.app.api_key(&fixture.team, "auditor", &[Permission::ComplianceRead]).await;
    let withheld = page(&fixture, "latest", &reader).await.unwrap();
    assert!(!withheld.contains("&lt;script") && withheld.contains(&fixture.host.to_string()));
}

#[tokio::test]
async fn what_there_is_no_report_of_is_said() {
    let fixture = ComplianceFixture::new("web").await;
    let (_, other) =
        fixture.app.api_key(&fixture.team, "inventory", &[Permission::AssetRead]).await;
    let viewer = fixture.team["viewer"].bearer.clone();
    let [running, failed] = fixture.runs.map(Id::uuid);
    let broken = format!(
        "UPDATE compliance_run SET state = 'FAILED' WHERE id = '{failed}';
         UPDATE compliance_run SET state = 'RUNNING', finished_at = NULL WHERE id = '{running}'"
    );
    fixture.app.execute_sql(&broken).await;
    let running = fixture.runs[0].to_string();
    for (run, bearer, code) in [
        (running.as_str(), viewer.as_str(), "CONFLICT"),
        (&RunId::new().to_string(), &viewer, "NOT_FOUND"),
        ("yesterday", &viewer, "NOT_FOUND"),
        (&fixture.host.to_string(), &viewer, "NOT_FOUND"),
        ("latest", &other, "FORBIDDEN"),
        ("latest", "nobody", "UNAUTHENTICATED"),
    ] {
        let refused = page(&fixture, run, bearer).await.unwrap_err();
        assert_eq!(refused.code(), code, "{run}");
        let file = fixture.app.engine.report_file(run, Some(bearer), client("the-request")).await;
        let Err(refused) = file else { panic!("{run} is given out") };
        assert_eq!(Reply::from(refused).code(), code, "{run}");
    }
    let html = page(&fixture, "latest", &viewer).await.unwrap();
    assert!(html.contains("No run has succeeded yet"), "{html}");
}

#[tokio::test]
async fn all_findings_come_as_a_file() {
    let fixture = ComplianceFixture::new("=web").await;
    let viewer = fixture.team["viewer"].bearer.as_str();
    let pages = fixture.app.engine.report_file("latest", Some(viewer), client("r")).await;
    let pages: Vec<Vec<u8>> = pages.ok().unwrap().try_collect().await.unwrap();
    let file = String::from_utf8(pages.concat()).unwrap();
    let lines: Vec<_> = file.lines().collect();
    assert_eq!(lines.len(), 2, "{file}");
    assert!(lines[0].starts_with("asset_code,asset_name,"), "{file}");
    assert!(lines[1].contains(",'=web,HOST,PROD,,encrypted,"), "{file}");
    assert!(lines[1].ends_with(&fixture.finding.to_string()), "{file}");
}
