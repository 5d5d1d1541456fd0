//! Reports of runs, and verdicts with their reasons.

use std::collections::HashSet;

use domain::{
    Id, Origin, Result,
    base::page::PageRequest,
    compliance::{
        evidence::AssetDetails,
        posture::{Posture, RuleVerdict},
        report::{FindingFile, Report},
        rule::{Rule, Verdict},
        waiver::{Waiver, WaiverInput},
    },
    entity::{AssetId, FindingId, RunId, WaiverId},
    inventory::asset::{Asset, CreateAssetInput, UpdateAssetInput},
    testing::compliance::{FindingFixture, RunFixture},
};
use serde_json::json;

use crate::{
    compliance::fixture::{ALL, ComplianceFixture, run},
    harness::{assert_not_found, at, conflict, faults, host, organization},
};

async fn report(fixture: &ComplianceFixture, run: Option<RunId>) -> Result<Report> {
    Report::of(&fixture.read().await, run, at(900)).await
}

const TALLIES: [[i32; 5]; 3] = [[8, 1, 0, 1, 0], [4, 4, 1, 1, 0], [8, 1, 0, 0, 1]];

#[tokio::test]
async fn without_a_run_there_is_a_report_without_numbers() {
    let fixture = ComplianceFixture::new().await;
    let empty = report(&fixture, None).await.unwrap();
    assert_eq!((empty.organization.as_str(), empty.generated_at), ("acme", at(900)));
    assert_eq!((empty.score(), empty.previous_score(), empty.score_change()), (None, None, None));
    assert_eq!(empty.tally().total(), 0);
    assert!(empty.families().is_empty() && empty.remediations().is_empty());
    assert!(empty.rules.is_empty() && empty.by_severity().len() == 4);
    let tx = fixture.read().await;
    assert!(empty.worst_assets(&tx, 10).await.unwrap().is_empty());
    assert!(empty.findings(&tx, &ALL).await.unwrap().rows.is_empty());
    assert_eq!(empty.count_findings(&tx).await.unwrap(), 0);
}

#[tokio::test]
async fn the_newest_run_of_all_assets_that_succeeded_is_reported_and_compared() {
    let fixture = ComplianceFixture::new().await;
    let worse = [[8, 1, 0, 1, 0], [1, 7, 1, 1, 0], [8, 1, 0, 0, 1]];
    let before = fixture.run(run(100, worse)).await;
    let newest = fixture.run(run(200, TALLIES)).await;
    fixture.run(RunFixture { state: "FAILED", ..run(300, worse) }).await;
    let part = Some(json!({ "type": ["HOST"] }));
    fixture.run(RunFixture { scope: part, ..run(400, worse) }).await;
    let newest_report = report(&fixture, None).await.unwrap();
    assert_eq!(newest_report.figures.as_ref().map(|figures| figures.run), Some(newest));
    assert_eq!(newest_report.previous.as_ref().map(|figures| figures.run), Some(before));
    // Weights 1, 5, 10: 8 + 20 + 80 passed of 108 + 1 + 20 + 10; before 8 + 5 + 80 of 93 + 1 + 35 + 10.
    let change = newest_report.score_change().unwrap();
    assert!((change - 1500.0 / 139.0).abs() < 1e-9, "{change}");
    let older = report(&fixture, Some(before)).await.unwrap();
    assert_eq!((older.previous_score(), older.score_change()), (None, None));
    assert!(older.score().is_some());
}

#[tokio::test]
async fn families_and_remediations_follow_from_the_numbers() {
    let fixture = ComplianceFixture::new().await;
    fixture.run(run(200, TALLIES)).await;
    let report = report(&fixture, None).await.unwrap();
    let [family] = &report.families()[..] else { panic!("one family") };
    assert_eq!(family.family, "System and Communications Protection");
    assert_eq!((family.passed, family.failed, family.waived), (20, 6, 1));
    assert_eq!((family.not_assessed, family.errors), (2, 1));
    assert!((family.score.unwrap() - 10_800.0 / 139.0).abs() < 1e-9, "{family:?}");
    assert!((family.coverage - 144.0 / 160.0).abs() < 1e-9, "{family:?}");
    let shown: Vec<_> = report
        .remediations()
        .into_iter()
        .map(|remediation| {
            let gain = format!("{:.3}", remediation.score_gain);
            (remediation.rule.key, remediation.assets, remediation.recoverable_weight, gain)
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("high".to_owned(), 4, 20, "14.388".to_owned()),
            ("critical".to_owned(), 1, 10, "7.194".to_owned()),
            ("low".to_owned(), 1, 1, "0.719".to_owned()),
        ]
    );
    assert_eq!(report.tally().total(), 30);
    let rules: Vec<_> = report.rules.iter().map(|rule| (rule.key.as_str(), rule.version)).collect();
    assert_eq!(rules, [("low", 1), ("high", 1), ("critical", 1)]);
}

#[tokio::test]
async fn what_failed_when_the_run_ended_is_reported_whatever_came_of_it() {
    let fixture = ComplianceFixture::new().await;
    let (web, db) = (fixture.asset("web", "FFP").await, fixture.asset("db", "PFP").await);
    fixture.run(run(200, TALLIES)).await;
    fixture.find(web, 0, FindingFixture::open(at(200))).await;
    fixture.find(web, 1, FindingFixture::ended(at(100), "FIXED", at(250))).await;
    fixture.find(db, 1, FindingFixture::open(at(100))).await;
    let waiver = Some(WaiverId::new());
    let allowed = FindingFixture { state: "WAIVED", waiver, ..FindingFixture::open(at(100)) };
    fixture.find(db, 2, allowed).await;
    fixture.find(db, 0, FindingFixture::open(at(201))).await;
    fixture.find(web, 2, FindingFixture::ended(at(100), "FIXED", at(200))).await;
    let report = report(&fixture, None).await.unwrap();
    let tx = fixture.read().await;
    let findings = report.findings(&tx, &ALL).await.unwrap().rows;
    let shown: Vec<_> = findings.iter().map(|row| (row.asset_id, row.severity.as_str())).collect();
    assert_eq!(shown, [(db, "CRITICAL"), (db, "HIGH"), (web, "HIGH"), (web, "LOW")]);
    assert_eq!(report.count_findings(&tx).await.unwrap(), 4);
    let two = PageRequest { size: 2, ..ALL };
    let first = report.findings(&tx, &two).await.unwrap();
    let after = PageRequest {
        after: first.rows.last().map(domain::compliance::finding::Finding::position),
        ..two
    };
    let rest = report.findings(&tx, &after).await.unwrap();
    assert_eq!([first.rows, rest.rows].concat(), findings);
    assert!(first.has_next && !rest.has_next);
    let worst = report.worst_assets(&tx, 10).await.unwrap();
    let worst: Vec<_> =
        worst.iter().map(|worst| (worst.asset, worst.failed, worst.failed_weight)).collect();
    assert_eq!(worst, [(web, 2, 6), (db, 1, 5)]);
    assert_eq!(report.worst_assets(&tx, 1).await.unwrap().len(), 1);
    assert_eq!(
        faults(report.worst_assets(&tx, 0).await),
        ["first is 0; a report lists 1 to 100 assets"]
    );
}

#[tokio::test]
async fn a_run_that_did_not_come_to_its_end_has_no_report() {
    let fixture = ComplianceFixture::new().await;
    let failed = fixture.run(RunFixture { state: "CANCELLED", ..run(300, TALLIES) }).await;
    let running = RunFixture { state: "RUNNING", finished_at: None, ..run(400, TALLIES) };
    let running = fixture.run(running).await;
    assert_eq!(
        conflict(report(&fixture, Some(failed)).await),
        "the run did not succeed, so it has no report: it is CANCELLED"
    );
    assert_eq!(
        conflict(report(&fixture, Some(running)).await),
        "the run has not ended yet, so it has no report: it is RUNNING"
    );
    assert_not_found(report(&fixture, Some(Id::new())).await);
    let ours = fixture.run(run(500, TALLIES)).await;
    let evil = organization(&fixture.test.db, "evil").await;
    let tx = fixture.test.db.read(evil).await.unwrap();
    assert_not_found(Report::of(&tx, Some(ours), at(900)).await);
    assert_eq!(Report::of(&tx, None, at(900)).await.unwrap().figures, None);
}

#[tokio::test]
async fn the_report_of_a_part_is_about_that_part() {
    let fixture = ComplianceFixture::new().await;
    let (web, db) = (fixture.asset("web", "FPP").await, fixture.asset("db", "FPP").await);
    for asset in [web, db] {
        fixture.find(asset, 0, FindingFixture::open(at(100))).await;
    }
    for (scope, expected) in [
        (json!({ "assets": [web] }), vec![web]),
        (json!({ "type": ["SERVICE"] }), vec![]),
        (json!({ "type": ["HOST"], "environment": ["PROD"] }), vec![db, web]),
    ] {
        let run = fixture.run(RunFixture { scope: Some(scope), ..run(200, TALLIES) }).await;
        let report = report(&fixture, Some(run)).await.unwrap();
        let tx = fixture.read().await;
        let found = report.findings(&tx, &ALL).await.unwrap().rows;
        let found: Vec<_> = found.iter().map(|finding| finding.asset_id).collect();
        assert_eq!(found, expected);
        let count = i64::try_from(expected.len()).unwrap();
        assert_eq!(report.count_findings(&tx).await.unwrap(), count);
        assert_eq!(report.worst_assets(&tx, 10).await.unwrap().len(), expected.len());
    }
}

/// Returns the lines of the file.
async fn file(fixture: &ComplianceFixture, assets: AssetDetails) -> Vec<String> {
    let mut file = FindingFile::begin(report(fixture, None).await.unwrap(), assets);
    let mut content = file.header();
    while let Some(page) = file.page(&fixture.read().await).await.unwrap() {
        content.extend(page);
    }
    String::from_utf8(content).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_failed_is_written_as_cells_that_run_nowhere() {
    let fixture = ComplianceFixture::new().await;
    let ada = fixture.test.person("ada@x.com", &["viewer"]).await;
    let input = CreateAssetInput { owner: Some(ada), ..host("=web") };
    let web = fixture.flipping(input, "FFP", &[]).await;
    fixture.run(run(200, TALLIES)).await;
    let seen = json!({ "observed": "a \"b\"" });
    let finding = FindingFixture { evidence: seen, ..FindingFixture::open(at(100)) };
    let finding: FindingId = fixture.find(web, 1, finding).await.into();
    let code = Asset::find(&fixture.read().await, web).await.unwrap().unwrap().code;
    let rest = |evidence: &str| {
        format!(
            "high,high must hold,HIGH,OPEN,NIST SC-28,2027-01-15T08:01:40Z,{evidence},see to high,{finding}"
        )
    };
    let seen = rest("\"{\"\"observed\"\":\"\"a \\\"\"b\\\"\"\"\"}\"");
    assert_eq!(
        file(&fixture, AssetDetails::Included).await,
        [
            "asset_code,asset_name,asset_type,asset_environment,owner,rule,title,severity,state,control,opened_at,evidence,remediation,finding".to_owned(),
            format!("{code},'=web,HOST,PROD,ada,{seen}"),
        ]
    );
    assert_eq!(file(&fixture, AssetDetails::Omitted).await[1], format!(",,,,,{}", rest("")));
}

#[tokio::test]
async fn a_file_has_every_finding_however_many_there_are_and_whatever_becomes_of_them() {
    let fixture = ComplianceFixture::new().await;
    let web = fixture.asset("web", "PFP").await;
    fixture.run(run(200, TALLIES)).await;
    fixture.find(web, 1, FindingFixture::open(at(100))).await;
    let many = "INSERT INTO finding (org_id, id, asset_id, rule_id, version_id, severity, weight, state, evidence, opened_at,
                                     changed_at, ended_at)
        SELECT org_id, gen_random_uuid(), asset_id, rule_id, version_id, severity, weight, 'FIXED', evidence, opened_at,
               changed_at, opened_at + interval '1 hour'
        FROM finding, generate_series(1, 4100)";
    let superuser = fixture.test.db.superuser().await;
    superuser.batch_execute(many).await.unwrap();
    let mut file =
        FindingFile::begin(report(&fixture, None).await.unwrap(), AssetDetails::Included);
    let mut content = file.header();
    while let Some(page) = file.page(&fixture.read().await).await.unwrap() {
        content.extend(page);
        let worse = "UPDATE finding SET severity = 'CRITICAL', weight = 10";
        superuser.batch_execute(worse).await.unwrap();
    }
    let content = String::from_utf8(content).unwrap();
    let findings = content.lines().map(|line| line.rsplit(',').next());
    assert_eq!(findings.clone().count(), 4102);
    assert_eq!(findings.collect::<HashSet<_>>().len(), 4102);
}

/// Returns the verdicts of an asset, as `rule verdict reason evidence`.
async fn verdicts(fixture: &ComplianceFixture, asset: AssetId) -> Vec<String> {
    let tx = fixture.read().await;
    let postures = Posture::of_assets(&tx, &[asset]).await.unwrap();
    let verdicts = RuleVerdict::of_postures(&tx, &postures).await.unwrap().remove(&asset).unwrap();
    let shown = verdicts.into_iter().map(|shown| {
        let RuleVerdict { rule, verdict, waived, reason, evidence, .. } = shown;
        let waived = if waived { " waived" } else { "" };
        let evidence = evidence.as_ref().and_then(|seen| seen.shown(AssetDetails::Included));
        let evidence = evidence.map(ToString::to_string);
        let (reason, evidence) = (reason.unwrap_or_default(), evidence.unwrap_or_default());
        format!("{} {verdict:?}{waived} [{reason}] {evidence}", rule.key)
    });
    shown.collect()
}

#[tokio::test]
async fn verdicts_come_with_what_was_seen_and_why_there_is_none() {
    let fixture = ComplianceFixture::new().await;
    let broken =
        CreateAssetInput { attributes: Some(json!({ "disk_encrypted": false })), ..host("broken") };
    let broken = fixture.flipping(broken, "FW-", &[(0, at(77), 'P')]).await;
    assert_eq!(
        verdicts(&fixture, broken).await,
        [r#"low Fail [] {"observed":false}"#, r#"high Fail waived [] {"observed":false}"#]
    );
    let silent = fixture.asset("silent", "NNN").await;
    let missing = verdicts(&fixture, silent).await;
    assert!(missing[0].contains("disk_encrypted"), "{missing:?}");
    let tx = fixture.read().await;
    let postures = Posture::of_assets(&tx, &[broken, silent]).await.unwrap();
    let all = RuleVerdict::of_postures(&tx, &postures).await.unwrap();
    assert_eq!(all[&broken][0].flips_at, Some(at(77)));
    assert!(all[&silent].iter().all(|shown| shown.verdict == Verdict::NotAssessed));
}

#[tokio::test]
async fn a_verdict_that_a_change_has_overtaken_shows_no_evidence_of_another() {
    let fixture = ComplianceFixture::new().await;
    let asset = fixture.asset("web", "NPP").await;
    let tx = fixture.test.db.write(fixture.test.org, Origin::system()).await.unwrap();
    let patch = UpdateAssetInput {
        attributes: async_graphql::MaybeUndefined::Value(json!({ "disk_encrypted": true })),
        ..Default::default()
    };
    Asset::update(&tx, asset, &patch, at(1)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        verdicts(&fixture, asset).await,
        [
            "low NotAssessed [the asset has just changed and is being re-evaluated; read the verdict again in a second] ",
            r#"high Pass [] {"observed":true}"#,
            r#"critical Pass [] {"observed":true}"#,
        ]
    );
}

#[tokio::test]
async fn a_rule_that_ships_is_waived_before_anything_was_judged_by_it() {
    let fixture = ComplianceFixture::new().await;
    let shipped = Rule::list(&fixture.read().await).await.unwrap();
    let shipped = shipped.iter().find(|rule| rule.builtin).unwrap().id;
    let tx = fixture.test.db.write(fixture.test.org, Origin::system()).await.unwrap();
    let input = WaiverInput {
        rule: shipped,
        asset: None,
        reason: "nobody here has one".into(),
        expires_at: at(60),
    };
    let waiver = Waiver::grant(&tx, &input, at(1)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(waiver.rule_id, shipped);
}
