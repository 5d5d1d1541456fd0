//! Findings of assets: order, filters and waivers.

use domain::{
    Id, Origin,
    base::page::{CursorKeys, CursorScope, PageArgs, PageRequest},
    compliance::{
        finding::{Finding, FindingFilter, FindingState},
        rule::Severity,
        waiver::{Waiver, WaiverInput},
    },
    entity::{FindingId, WaiverId},
    inventory::asset::CreateAssetInput,
    testing::compliance::{FindingFixture, RunFixture},
};
use serde_json::json;

use crate::{
    compliance::fixture::{ALL, ComplianceFixture},
    harness::{at, host, organization},
};

/// Returns the findings that match the filter, as `asset rule state`.
async fn listed(fixture: &ComplianceFixture, filter: FindingFilter) -> Vec<String> {
    let tx = fixture.read().await;
    let rows = Finding::list(&tx, &filter, &ALL).await.unwrap().rows;
    let count = Finding::count(&tx, &filter).await.unwrap();
    assert_eq!(count, i64::try_from(rows.len()).unwrap());
    let mut shown = Vec::new();
    for row in rows {
        let asset =
            domain::inventory::asset::Asset::find(&tx, row.asset_id).await.unwrap().unwrap();
        let rule = fixture.rules.iter().find(|rule| rule.id == row.rule_id).unwrap();
        assert_eq!((rule.version, rule.severity), (row.version_id, row.severity));
        shown.push(format!("{} {} {}", asset.name, rule.key, row.state.as_str()));
    }
    shown
}

#[tokio::test]
async fn findings_that_live_are_listed_the_worst_and_newest_first() {
    let fixture = ComplianceFixture::new().await;
    let (web, db) = (fixture.asset("web", "FFP").await, fixture.asset("db", "FPF").await);
    fixture.find(web, 0, FindingFixture::open(at(1))).await;
    fixture.find(db, 2, FindingFixture::open(at(1))).await;
    fixture.find(db, 0, FindingFixture::open(at(2))).await;
    fixture.find(web, 1, FindingFixture::open(at(2))).await;
    fixture.find(web, 2, FindingFixture::ended(at(1), "FIXED", at(3))).await;
    fixture.find(db, 1, FindingFixture::ended(at(1), "OUT_OF_SCOPE", at(3))).await;
    let live = listed(&fixture, FindingFilter::default()).await;
    assert_eq!(live, ["db critical OPEN", "web high OPEN", "db low OPEN", "web low OPEN"]);
    let all = FindingFilter { state: Some(FindingState::ALL.to_vec()), ..Default::default() };
    assert_eq!(
        listed(&fixture, all).await,
        [
            "web critical FIXED",
            "db critical OPEN",
            "db high OUT_OF_SCOPE",
            "web high OPEN",
            "db low OPEN",
            "web low OPEN"
        ]
    );
}

#[tokio::test]
async fn findings_are_filtered_by_what_they_are() {
    let fixture = ComplianceFixture::new().await;
    let ada = fixture.test.person("ada@x.com", &["viewer"]).await;
    let web =
        fixture.flipping(CreateAssetInput { owner: Some(ada), ..host("web") }, "FFP", &[]).await;
    let db = fixture.asset("db", "FPF").await;
    fixture.find(web, 0, FindingFixture { reopened: 2, ..FindingFixture::open(at(1)) }).await;
    fixture.find(web, 1, FindingFixture::open(at(1))).await;
    fixture.find(db, 2, FindingFixture::ended(at(1), "FIXED", at(3))).await;
    let waiver = Some(WaiverId::new());
    fixture
        .find(db, 0, FindingFixture { state: "WAIVED", waiver, ..FindingFixture::open(at(1)) })
        .await;
    let none = FindingFilter::default;
    for (filter, expected) in [
        (none(), vec!["web high OPEN", "db low WAIVED", "web low OPEN"]),
        (
            FindingFilter { state: Some(vec![FindingState::Waived]), ..none() },
            vec!["db low WAIVED"],
        ),
        (
            FindingFilter {
                state: Some(vec![FindingState::Fixed, FindingState::Waived]),
                ..none()
            },
            vec!["db critical FIXED", "db low WAIVED"],
        ),
        (FindingFilter { state: Some(vec![]), ..none() }, vec![]),
        (FindingFilter { severity: Some(vec![Severity::High]), ..none() }, vec!["web high OPEN"]),
        (
            FindingFilter { rule: Some("low".into()), ..none() },
            vec!["db low WAIVED", "web low OPEN"],
        ),
        (FindingFilter { rule: Some("unknown".into()), ..none() }, vec![]),
        (FindingFilter { rule: Some("nul\0".into()), ..none() }, vec![]),
        (FindingFilter { asset: Some(db), ..none() }, vec!["db low WAIVED"]),
        (FindingFilter { owner: Some(ada), ..none() }, vec!["web high OPEN", "web low OPEN"]),
        (FindingFilter { reopened: Some(true), ..none() }, vec!["web low OPEN"]),
        (FindingFilter { reopened: Some(false), ..none() }, vec!["web high OPEN", "db low WAIVED"]),
    ] {
        assert_eq!(listed(&fixture, filter.clone()).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn pages_of_findings_neither_repeat_nor_hide_any() {
    let fixture = ComplianceFixture::new().await;
    for number in 0..7 {
        let asset = fixture.asset(&format!("a{number}"), "FFF").await;
        fixture.find(asset, number % 3, FindingFixture::open(at(1))).await;
    }
    let tx = fixture.read().await;
    let filter = FindingFilter::default();
    let whole = Finding::list(&tx, &filter, &ALL).await.unwrap().rows;
    let keys = CursorKeys::derive([&[7; 32][..]]);
    let scope = CursorScope::new(fixture.test.org, "findings", &filter);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let args = PageArgs { first: Some(2), after, ..PageArgs::default() };
        let page = Finding::list(&tx, &filter, &args.check(&keys, &scope).unwrap()).await.unwrap();
        after = page.rows.last().map(|row| row.position().cursor(&keys, &scope));
        seen.extend(page.rows);
        if !page.has_next {
            break;
        }
    }
    assert_eq!(seen, whole);
}

#[tokio::test]
async fn a_live_finding_was_last_seen_by_the_last_run_of_all_assets() {
    let fixture = ComplianceFixture::new().await;
    let web = fixture.asset("web", "FPP").await;
    let live = Id::from(fixture.find(web, 0, FindingFixture::open(at(50))).await);
    let ended =
        Id::from(fixture.find(web, 1, FindingFixture::ended(at(50), "FIXED", at(60))).await);
    let gone =
        Id::from(fixture.find(web, 2, FindingFixture::ended(at(50), "OUT_OF_SCOPE", at(61))).await);
    let seen =
        async |id: FindingId| Finding::get(&fixture.read().await, id).await.unwrap().last_seen_at;
    assert_eq!(seen(live).await, at(50));
    fixture.run(RunFixture::succeeded(at(10), at(20))).await;
    assert_eq!(seen(live).await, at(50));
    fixture.run(RunFixture::succeeded(at(70), at(80))).await;
    fixture.run(RunFixture { state: "FAILED", ..RunFixture::succeeded(at(90), at(95)) }).await;
    let some = Some(json!({ "type": ["HOST"] }));
    fixture.run(RunFixture { scope: some, ..RunFixture::succeeded(at(90), at(95)) }).await;
    assert_eq!((seen(live).await, seen(ended).await), (at(70), at(60)));
    let tx = fixture.read().await;
    let fixed = |finding: Finding| (finding.fixed_at(), finding.ended_at);
    let ended = Finding::get(&tx, ended).await.unwrap();
    assert_eq!(fixed(ended), (Some(at(60)), Some(at(60))));
    assert_eq!(fixed(Finding::get(&tx, gone).await.unwrap()), (None, Some(at(61))));
    assert_eq!(fixed(Finding::get(&tx, live).await.unwrap()), (None, None));
}

#[tokio::test]
async fn each_asset_has_its_own_page_of_what_it_breaks() {
    let fixture = ComplianceFixture::new().await;
    let (web, db) = (fixture.asset("web", "FFF").await, fixture.asset("db", "PPF").await);
    let idle = fixture.asset("idle", "PPP").await;
    for rule in 0..3 {
        fixture.find(web, rule, FindingFixture::open(at(1))).await;
    }
    fixture.find(db, 2, FindingFixture::open(at(1))).await;
    fixture.find(idle, 2, FindingFixture::ended(at(1), "FIXED", at(2))).await;
    let tx = fixture.read().await;
    let two = PageRequest { size: 2, ..ALL };
    let pages = Finding::of_assets(&tx, &[web, db, idle], &two).await.unwrap();
    let shown = |asset| {
        let page = &pages[asset];
        let severities: Vec<_> = page.rows.iter().map(|row| row.severity.as_str()).collect();
        (severities, page.has_next)
    };
    assert_eq!(shown(&web), (vec!["CRITICAL", "HIGH"], true));
    assert_eq!(shown(&db), (vec!["CRITICAL"], false));
    assert_eq!(shown(&idle), (vec![], false));
    let counts = Finding::count_of_assets(&tx, &[web, db, idle]).await.unwrap();
    assert_eq!((counts[&web], counts[&db], counts.get(&idle)), (3, 1, None));
}

#[tokio::test]
async fn the_findings_of_another_organization_are_not_there() {
    let fixture = ComplianceFixture::new().await;
    let web = fixture.asset("web", "FPP").await;
    let ours = FindingId::from(fixture.find(web, 0, FindingFixture::open(at(1))).await);
    let evil = organization(&fixture.test.db, "evil").await;
    let tx = fixture.test.db.read(evil).await.unwrap();
    assert_eq!(Finding::find(&tx, ours).await.unwrap(), None);
    let filter = FindingFilter { asset: Some(web), ..Default::default() };
    assert!(Finding::list(&tx, &filter, &ALL).await.unwrap().rows.is_empty());
    assert_eq!(Finding::count(&tx, &FindingFilter::default()).await.unwrap(), 0);
    assert!(Finding::of_assets(&tx, &[web], &ALL).await.unwrap()[&web].rows.is_empty());
}

/// A finding can only refer to a waiver that was granted.
#[tokio::test]
async fn a_finding_names_the_waiver_that_allows_it() {
    let fixture = ComplianceFixture::new().await;
    let web = fixture.asset("web", "WPP").await;
    let tx = fixture.test.db.write(fixture.test.org, Origin::system()).await.unwrap();
    let input = WaiverInput {
        rule: fixture.rules[0].id,
        asset: Some(web),
        reason: "until May".into(),
        expires_at: at(60),
    };
    let waiver = Waiver::grant(&tx, &input, at(1)).await.unwrap();
    tx.commit().await.unwrap();
    let allowed =
        FindingFixture { state: "WAIVED", waiver: Some(waiver.id), ..FindingFixture::open(at(1)) };
    let id = Id::from(fixture.find(web, 0, allowed).await);
    let finding = Finding::get(&fixture.read().await, id).await.unwrap();
    assert_eq!((finding.waiver_id, finding.state), (Some(waiver.id), FindingState::Waived));
}
