//! Scores and coverage, overall and by group.

use domain::{
    Id, Origin,
    compliance::score::{Dimension, Figures, PostureGroup, Score},
    entity::WaiverId,
    inventory::{
        asset::{AssetType, CreateAssetInput, Environment},
        tag::Tag,
    },
    testing::compliance::{FindingFixture, RunFixture},
};
use serde_json::json;

use crate::{
    compliance::fixture::{ComplianceFixture, run},
    harness::{assert_not_found, at, host, organization},
};

#[tokio::test]
async fn the_score_is_what_the_postures_add_up_to() {
    let fixture = ComplianceFixture::new().await;
    assert_eq!(Score::now(&fixture.read().await, at(9)).await.unwrap(), None);
    fixture.asset("unknown", "NNE").await;
    assert_eq!(Score::now(&fixture.read().await, at(9)).await.unwrap(), None);
    let good = fixture.asset("good", "PPP").await;
    let bad = fixture.asset("bad", "WFP").await;
    fixture.asset("other", "-NN").await;
    fixture.find(bad, 1, FindingFixture::open(at(1))).await;
    let waiver = Some(WaiverId::new());
    fixture
        .find(bad, 0, FindingFixture { state: "WAIVED", waiver, ..FindingFixture::open(at(1)) })
        .await;
    fixture.find(good, 2, FindingFixture::ended(at(1), "FIXED", at(2))).await;
    let score = Score::now(&fixture.read().await, at(9)).await.unwrap().unwrap();
    // Weights 1, 5, 10: good has 16 of 16, bad 10 of 15 and 1 waived; 16 and 15 are not assessed.
    assert!((score.mean.unwrap() - f64::midpoint(100.0, 1000.0 / 15.0)).abs() < 1e-5, "{score:?}");
    assert!((score.weighted.unwrap() - 2600.0 / 31.0).abs() < 1e-9, "{score:?}");
    assert!((score.coverage - 32.0 / 63.0).abs() < 1e-9, "{score:?}");
    assert_eq!((score.assets, score.at), (4, at(9)));
    let failing: Vec<_> = score.by_severity.iter().map(|count| count.failing).collect();
    assert_eq!(failing, [0, 0, 1, 0]);
}

/// Returns the groups, as `label assets failing score`.
async fn groups(fixture: &ComplianceFixture, dimension: Dimension) -> Vec<String> {
    let groups = PostureGroup::list(&fixture.read().await, dimension).await.unwrap();
    let shown = groups.iter().map(|group| {
        let score = group.score.map_or("?".to_owned(), |score| format!("{score:.0}"));
        let PostureGroup { label, assets, failing, coverage, .. } = group;
        format!("{label} {assets} {failing} {score} {coverage:.2}")
    });
    shown.collect()
}

#[tokio::test]
async fn postures_are_grouped_by_what_their_assets_are() {
    let fixture = ComplianceFixture::new().await;
    let ada = fixture.test.person("ada@x.com", &["viewer"]).await;
    let tx = fixture.test.db.write(fixture.test.org, Origin::system()).await.unwrap();
    let tag = async |name: &str| Tag::create(&tx, name, None, at(0)).await.unwrap().id;
    let (edge, core) = (tag("edge").await, tag("core").await);
    tx.commit().await.unwrap();
    let owned = CreateAssetInput {
        owner: Some(ada),
        tags: Some(vec![edge, core]),
        environment: Some(Environment::Dev),
        ..host("a")
    };
    fixture.flipping(owned, "FFP", &[]).await;
    let tagged =
        CreateAssetInput { tags: Some(vec![edge]), asset_type: AssetType::Service, ..host("b") };
    fixture.flipping(tagged, "PPP", &[]).await;
    fixture.asset("c", "NNN").await;
    assert_eq!(
        groups(&fixture, Dimension::Owner).await,
        ["ada 1 2 62 1.00", "(none) 2 0 100 0.50"]
    );
    assert_eq!(
        groups(&fixture, Dimension::Tag).await,
        ["core 1 2 62 1.00", "edge 2 2 81 1.00", "(none) 1 0 ? 0.00"]
    );
    assert_eq!(
        groups(&fixture, Dimension::Type).await,
        ["HOST 2 2 62 0.50", "SERVICE 1 0 100 1.00"]
    );
    assert_eq!(
        groups(&fixture, Dimension::Environment).await,
        ["DEV 1 2 62 1.00", "PROD 2 0 100 0.50"]
    );
    let tx = fixture.read().await;
    let owners = PostureGroup::list(&tx, Dimension::Owner).await.unwrap();
    assert_eq!((owners[0].owner_id, owners[1].owner_id), (Some(ada), None));
    let tags = PostureGroup::list(&tx, Dimension::Tag).await.unwrap();
    assert_eq!((tags[0].tag_id, tags[2].tag_id), (Some(core), None));
    drop(tx);
    let evil = organization(&fixture.test.db, "evil").await;
    let tx = fixture.test.db.read(evil).await.unwrap();
    assert!(PostureGroup::list(&tx, Dimension::Tag).await.unwrap().is_empty());
    assert_eq!(Score::now(&tx, at(9)).await.unwrap(), None);
}

#[tokio::test]
async fn a_run_has_the_figures_of_its_rules() {
    let fixture = ComplianceFixture::new().await;
    let tallies = [[1, 0, 0, 2, 0], [0, 2, 1, 0, 0], [1, 1, 0, 0, 1]];
    let first = fixture.run(RunFixture { scores: (3, 100_000_000), ..run(100, tallies) }).await;
    let scope = Some(json!({ "type": ["HOST"] }));
    let part = fixture.run(RunFixture { scope: scope.clone(), ..run(200, tallies) }).await;
    let second = fixture.run(run(300, tallies)).await;
    let failed = fixture.run(RunFixture { state: "FAILED", ..run(400, tallies) }).await;
    let tx = fixture.read().await;
    let figures = Figures::get(&tx, first).await.unwrap();
    let severities: Vec<_> = figures.rule_tallies.iter().map(|fixture| fixture.severity).collect();
    assert_eq!(severities, fixture.rules.each_ref().map(|rule| rule.severity));
    let tally = figures.tally();
    assert_eq!((tally.passed, tally.failed, tally.waived), (2, 3, 1));
    assert_eq!((tally.not_assessed, tally.errors), (2, 1));
    let held = figures.score().unwrap();
    // Weights 1, 5, 10: 1 + 10 passed, 10 + 10 failed, 5 waived, 2 and 10 not assessed.
    assert!((held.weighted.unwrap() - 1100.0 / 31.0).abs() < 1e-9, "{held:?}");
    assert!((held.coverage - 36.0 / 48.0).abs() < 1e-9, "{held:?}");
    assert!((held.mean.unwrap() - 100.0 / 3.0).abs() < 1e-5, "{held:?}");
    assert_eq!((held.assets, held.at), (3, at(100)));
    assert_eq!(Figures::last(&tx, 1).await.unwrap()[0].run, second);
    let second = Figures::get(&tx, second).await.unwrap();
    assert_eq!(second.before(&tx).await.unwrap().map(|before| before.run), Some(first));
    assert_eq!(figures.before(&tx).await.unwrap(), None);
    assert_eq!(Figures::get(&tx, part).await.unwrap().before(&tx).await.unwrap(), None);
    assert_eq!(Figures::get(&tx, failed).await.unwrap().score(), None);
    assert_not_found(Figures::get(&tx, Id::new()).await);
}
