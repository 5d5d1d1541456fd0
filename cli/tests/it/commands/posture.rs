//! `sentryops admin verify-posture`: it finds what is not as it should be, says so by its exit code, and mends it.

use domain::{Origin, compliance::posture};
use serde_json::json;

use crate::{
    server::{Site, run, text},
    team::{Team, chrono_now},
};

/// Exit code and what is printed.
fn verify(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(site.command(&[&["admin", "verify-posture"], arguments].concat()), "");
    assert_eq!(text(&output.stderr), "");
    (output.status.code(), text(&output.stdout))
}

/// Does what the worker does that is asked to follow changes.
async fn follow(team: &Team, site: &Site) {
    let tx = site.db.write(team.id.parse().unwrap(), Origin::system()).await.unwrap();
    posture::reevaluate(&tx, chrono_now()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_posture_that_is_not_what_a_look_finds_is_told_and_mended() {
    let (team, world) = Team::of_world().await;
    let site = &world.site;
    let (one, _other) = (team.asset("one", "ACTIVE").await, team.asset("other", "ACTIVE").await);
    team.asset("old", "RETIRED").await;
    let of = ["--organization", team.slug.as_str()];
    let waits = "0 assets compared, 0 differ; 2 wait to be judged and were not compared";
    assert_eq!(verify(site, &of), (Some(3), format!("{}: {waits}\n", team.slug)));
    let right = format!("{}: 2 assets compared, 0 differ\n", team.slug);
    follow(&team, site).await;
    assert_eq!(verify(site, &of), (Some(0), right.clone()));

    let postgres = site.db.superuser().await;
    let falsify = format!(
        "UPDATE posture SET verdicts = translate(verdicts, 'N', 'P') FROM asset
         WHERE asset.id = posture.asset_id AND asset.org_id = posture.org_id AND name = 'one'
           AND asset.org_id = (SELECT id FROM organization WHERE slug = '{}')",
        team.slug
    );
    assert_eq!(postgres.execute(&falsify, &[]).await.unwrap(), 1);
    let query = "query($id: ID!) { asset(id: $id) { code } }";
    let code = team.owner.client.get_data(query, json!({ "id": one })).await;
    let code = code["asset"]["code"].as_str().unwrap();
    let (exit, said) = verify(site, &of);
    assert_eq!(exit, Some(1), "{said}");
    let [head, line] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert_eq!(head, format!("{}: 2 assets compared, 1 differ", team.slug));
    let letters = line.trim().strip_prefix(&format!("{code}: kept ")).unwrap();
    let (kept, judged) = letters.split_once(", judged ").unwrap();
    assert!(kept.len() == judged.len() && kept == judged.replace('N', "P"), "{line}");
    assert!(judged.contains('N'), "{line}");

    let (exit, said) = verify(site, &[&of[..], &["--repair"]].concat());
    assert_eq!(exit, Some(1), "{said}");
    assert!(said.contains("1 differ, and were judged anew"), "{said}");
    assert_eq!(verify(site, &of), (Some(0), right));
}

#[tokio::test]
async fn an_unknown_organization_is_refused() {
    let (_team, world) = Team::of_world().await;
    let arguments = ["admin", "verify-posture", "--organization", "nowhere"];
    let output = run(world.site.command(&arguments), "");
    super::refused(&output, &["--organization", "nowhere"]);
    assert_eq!(text(&output.stdout), "");
}
