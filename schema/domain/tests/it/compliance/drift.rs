//! Drift between runs, the trend of the score, and the forecast.

use domain::{
    Id,
    base::page::PageRequest,
    compliance::{
        drift::{self, Direction, Drift},
        forecast::Horizon,
        rule::Verdict,
    },
    entity::RunId,
    inventory::asset::Asset,
    testing::compliance::{FindingFixture, RunFixture},
};
use serde_json::json;

use crate::{
    compliance::fixture::{ALL, ComplianceFixture, run},
    harness::{assert_not_found, at, conflict, faults, host, organization},
};

const QUIET: [[i32; 5]; 3] = [[3, 0, 0, 0, 0]; 3];

/// Returns the changes of this direction between these runs, as names of assets and keys of rules, sorted.
async fn changed(
    fixture: &ComplianceFixture,
    from: RunId,
    to: RunId,
    way: Direction,
) -> Vec<String> {
    let tx = fixture.read().await;
    let drift = Drift::between(&tx, from, to).await.unwrap();
    let rows = drift.list(&tx, way, &ALL).await.unwrap().rows;
    assert_eq!(drift.count(&tx, way).await.unwrap(), i64::try_from(rows.len()).unwrap());
    let mut shown = Vec::new();
    for row in rows {
        let asset = Asset::find(&tx, row.asset_id).await.unwrap().unwrap();
        let rule = fixture.rules.iter().find(|rule| rule.id == row.rule_id).unwrap();
        shown.push(format!("{} {}", asset.name, rule.key));
    }
    shown.sort_unstable();
    shown
}

/// Findings of one asset and rule, and whether they count as drift between a run that ended at 100 and one that ended
/// at 200.
#[tokio::test]
async fn drift_is_what_differs_between_the_ends_of_two_runs() {
    let fixture = ComplianceFixture::new().await;
    let (from, to) = (fixture.run(run(100, QUIET)).await, fixture.run(run(200, QUIET)).await);
    let open = |opened: i64| FindingFixture::open(at(opened));
    let fixed = |opened: i64, ended: i64| FindingFixture::ended(at(opened), "FIXED", at(ended));
    let gone =
        |opened: i64, ended: i64| FindingFixture::ended(at(opened), "OUT_OF_SCOPE", at(ended));
    for (name, episodes) in [
        ("broke", vec![open(150)]),
        ("broke-as-the-run-ended", vec![open(200)]),
        ("broke-later", vec![open(201)]),
        ("broken-all-along", vec![open(50)]),
        ("broken-as-the-first-ended", vec![open(100)]),
        ("mended-and-broke-again", vec![fixed(50, 120), open(150)]),
        ("broke-and-was-mended", vec![fixed(120, 150)]),
        ("mended-since", vec![fixed(150, 250)]),
        ("was-mended", vec![fixed(50, 150)]),
        ("was-mended-as-the-run-ended", vec![fixed(50, 200)]),
        ("was-mended-twice", vec![fixed(50, 120), fixed(130, 150)]),
        ("was-mended-before", vec![fixed(50, 100)]),
        ("left", vec![gone(50, 150)]),
        ("mended-broke-and-left", vec![fixed(50, 120), gone(130, 150)]),
        ("was-broken-long-ago", vec![fixed(10, 20), open(150)]),
    ] {
        let asset = fixture.asset(name, "PPP").await;
        for episode in episodes {
            fixture.find(asset, 1, episode).await;
        }
    }
    assert_eq!(
        changed(&fixture, from, to, Direction::Failing).await,
        [
            "broke high",
            "broke-as-the-run-ended high",
            "mended-since high",
            "was-broken-long-ago high"
        ]
    );
    assert_eq!(
        changed(&fixture, from, to, Direction::Passing).await,
        ["was-mended high", "was-mended-as-the-run-ended high", "was-mended-twice high"]
    );
}

#[tokio::test]
async fn what_broke_comes_in_pages_the_worst_first() {
    let fixture = ComplianceFixture::new().await;
    let (from, to) = (fixture.run(run(100, QUIET)).await, fixture.run(run(200, QUIET)).await);
    let asset = fixture.asset("web", "FFF").await;
    for rule in 0..3 {
        fixture.find(asset, rule, FindingFixture::open(at(150))).await;
    }
    let tx = fixture.read().await;
    let drift = Drift::between(&tx, from, to).await.unwrap();
    let two = PageRequest { size: 2, ..ALL };
    let first = drift.list(&tx, Direction::Failing, &two).await.unwrap();
    let severity = |page: &domain::base::page::Page<domain::compliance::finding::Finding>| {
        page.rows.iter().map(|row| row.severity.as_str()).collect::<Vec<_>>()
    };
    assert_eq!((severity(&first), first.has_next), (vec!["CRITICAL", "HIGH"], true));
    let after = PageRequest {
        after: first.rows.last().map(domain::compliance::finding::Finding::position),
        ..two
    };
    let rest = drift.list(&tx, Direction::Failing, &after).await.unwrap();
    assert_eq!((severity(&rest), rest.has_next), (vec!["LOW"], false));
}

#[tokio::test]
async fn the_score_changes_between_runs_of_the_same_assets_only() {
    let fixture = ComplianceFixture::new().await;
    let half = [[0, 0, 0, 0, 0], [2, 2, 0, 0, 0], [0, 0, 0, 0, 0]];
    let most = [[0, 0, 0, 0, 0], [3, 1, 0, 0, 0], [0, 0, 0, 0, 0]];
    let nothing = [[0, 0, 0, 4, 0]; 3];
    let first = fixture.run(run(100, half)).await;
    let second = fixture.run(run(200, most)).await;
    let scope = Some(json!({ "type": ["HOST"] }));
    let third = fixture.run(RunFixture { scope, ..run(300, half) }).await;
    let fourth = fixture.run(run(400, nothing)).await;
    let tx = fixture.read().await;
    let change = async |from, to| Drift::between(&tx, from, to).await.unwrap().score_change();
    assert_eq!(change(first, second).await, Some(25.0));
    assert_eq!(change(second, third).await, None);
    assert_eq!(change(second, fourth).await, None);
}

#[tokio::test]
async fn runs_that_cannot_be_compared_are_refused() {
    let fixture = ComplianceFixture::new().await;
    let first = fixture.run(run(100, QUIET)).await;
    let second = fixture.run(run(200, QUIET)).await;
    let failed = fixture.run(RunFixture { state: "FAILED", ..run(300, QUIET) }).await;
    let running = RunFixture { state: "RUNNING", finished_at: None, ..run(400, QUIET) };
    let running = fixture.run(running).await;
    let tx = fixture.read().await;
    let between = async |from, to| Drift::between(&tx, from, to).await;
    assert_eq!(
        faults(between(first, first).await),
        ["to is the same run as `from`; give a later run"]
    );
    assert_eq!(
        faults(between(second, first).await),
        ["to did not end after the run `from`; swap the two runs"]
    );
    let sentence = "did not succeed, so there is nothing to compare: it is";
    assert_eq!(conflict(between(first, failed).await), format!("the run to {sentence} FAILED"));
    assert_eq!(conflict(between(running, first).await), format!("the run from {sentence} RUNNING"));
    assert_not_found(between(first, Id::new()).await);
    assert_not_found(between(Id::new(), first).await);
    let evil = organization(&fixture.test.db, "evil").await;
    let tx = fixture.test.db.read(evil).await.unwrap();
    assert_not_found(Drift::between(&tx, first, second).await);
}

#[tokio::test]
async fn the_trend_has_the_scores_of_the_last_runs_oldest_first() {
    let fixture = ComplianceFixture::new().await;
    let half = [[0, 0, 0, 0, 0], [2, 2, 1, 0, 0], [0, 0, 0, 0, 0]];
    let mut runs = Vec::new();
    for ended in [100, 200, 300] {
        runs.push(fixture.run(RunFixture { scores: (2, 150_000_000), ..run(ended, half) }).await);
    }
    fixture.run(RunFixture { state: "CANCELLED", ..run(400, half) }).await;
    fixture.run(RunFixture { scope: Some(json!({})), ..run(500, half) }).await;
    let tx = fixture.read().await;
    let two = drift::trend(&tx, 2).await.unwrap();
    assert_eq!(two.iter().map(|(run, _)| *run).collect::<Vec<_>>(), runs[1..]);
    let score = two[1].1.as_ref().unwrap();
    assert_eq!((score.mean, score.weighted, score.at), (Some(75.0), Some(50.0), at(300)));
    assert!((score.coverage - 1.0).abs() < f64::EPSILON);
    let failing: Vec<_> = score.by_severity.iter().map(|count| count.failing).collect();
    assert_eq!(failing, [0, 0, 2, 0]);
    assert_eq!(drift::trend(&tx, 30).await.unwrap().len(), 3);
    for last in [0, -1, 101] {
        let message = format!("last is {last}; a trend covers 1 to 100 runs");
        assert_eq!(faults(drift::trend(&tx, last).await), [message]);
    }
}

#[tokio::test]
async fn the_forecast_tells_what_time_will_change_in_its_order() {
    let fixture = ComplianceFixture::new().await;
    let web = fixture.flipping(host("web"), "PPW", &[(1, at(90), 'F'), (0, at(30), 'F')]).await;
    let db = fixture
        .flipping(host("db"), "FNP", &[(0, at(40), 'P'), (1, at(30), 'F'), (2, at(5_000), 'F')])
        .await;
    fixture.flipping(host("waived"), "WPP", &[(0, at(50), 'F')]).await;
    let tx = fixture.read().await;
    let horizon = Horizon::check(at(90), at(1)).unwrap();
    let flips = horizon.list(&tx, &ALL).await.unwrap().rows;
    let shown: Vec<_> =
        flips.iter().map(|flip| (flip.asset, flip.slot, flip.from, flip.to, flip.at)).collect();
    assert_eq!(
        shown,
        [
            (web, 0, Verdict::Pass, Verdict::Fail, at(30)),
            (db, 1, Verdict::NotAssessed, Verdict::Fail, at(30)),
            (db, 0, Verdict::Fail, Verdict::Pass, at(40)),
            (web, 1, Verdict::Pass, Verdict::Fail, at(90)),
        ]
    );
    assert_eq!(flips[0].rule, fixture.rules[0].id);
    assert_eq!(horizon.count(&tx).await.unwrap(), 4);
    assert_eq!(Horizon::check(at(5_000), at(1)).unwrap().count(&tx).await.unwrap(), 5);
    let mut paged = Vec::new();
    let mut page = PageRequest { size: 1, ..ALL };
    loop {
        let one = horizon.list(&tx, &page).await.unwrap();
        page.after = one.rows.last().map(domain::compliance::forecast::Flip::position);
        paged.extend(one.rows);
        if !one.has_next {
            break;
        }
    }
    assert_eq!(paged, flips);
    drop(tx);
    let evil = organization(&fixture.test.db, "evil").await;
    let tx = fixture.test.db.read(evil).await.unwrap();
    assert!(horizon.list(&tx, &ALL).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn a_rule_that_is_switched_off_flips_nothing() {
    let fixture = ComplianceFixture::new().await;
    fixture.flipping(host("web"), "PPP", &[(0, at(30), 'F'), (1, at(30), 'F')]).await;
    let off = "UPDATE rule SET enabled = false WHERE key = 'low'";
    fixture.test.db.superuser().await.batch_execute(off).await.unwrap();
    let tx = fixture.read().await;
    let flips = Horizon::check(at(90), at(1)).unwrap().list(&tx, &ALL).await.unwrap().rows;
    assert_eq!(flips.iter().map(|flip| flip.slot).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_forecast_looks_ahead_for_five_years_at_most() {
    let past = "until is not in the future; give a later time";
    assert_eq!(faults(Horizon::check(at(1), at(1))), [past]);
    assert_eq!(faults(Horizon::check(at(0), at(1))), [past]);
    let five_years = at(0) + chrono::Months::new(60);
    Horizon::check(five_years, at(0)).unwrap();
    let too_far = five_years + chrono::TimeDelta::seconds(1);
    assert_eq!(
        faults(Horizon::check(too_far, at(0))),
        ["until is more than five years ahead; give an earlier time"]
    );
}
