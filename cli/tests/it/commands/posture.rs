//! `sentryops admin verify-posture`: finds wrong postures, reports them by its exit code, and repairs them.

use domain::{Origin, compliance::posture};
use serde_json::json;

use crate::{
    server::{TestDeployment, run, text},
    team::{Team, chrono_now},
};

/// Runs `verify-posture` and returns its exit code and output.
fn verify(deployment: &TestDeployment, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(deployment.command(&[&["admin", "verify-posture"], arguments].concat()), "");
    assert_eq!(text(&output.stderr), "");
    (output.status.code(), text(&output.stdout))
}

/// Re-evaluates changed assets, as the worker's job does.
async fn reevaluate(team: &Team, deployment: &TestDeployment) {
    let tx = deployment.db.write(team.id.parse().unwrap(), Origin::system()).await.unwrap();
    posture::reevaluate(&tx, chrono_now()).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_posture_that_is_not_what_a_look_finds_is_told_and_mended() {
    let (team, shared_server) = Team::on_shared_server().await;
    let deployment = &shared_server.deployment;
    let (one, _other) = (team.asset("one", "ACTIVE").await, team.asset("other", "ACTIVE").await);
    team.asset("old", "RETIRED").await;
    let of = ["--organization", team.slug.as_str()];
    let waits = "0 assets compared, 0 differ; 2 await evaluation and were not compared";
    assert_eq!(verify(deployment, &of), (Some(3), format!("{}: {waits}\n", team.slug)));
    let right = format!("{}: 2 assets compared, 0 differ\n", team.slug);
    reevaluate(&team, deployment).await;
    assert_eq!(verify(deployment, &of), (Some(0), right.clone()));

    let postgres = deployment.db.superuser().await;
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
    let (exit, answer) = verify(deployment, &of);
    assert_eq!(exit, Some(1), "{answer}");
    let [head, line] = answer.lines().collect::<Vec<_>>()[..] else { panic!("{answer}") };
    assert_eq!(head, format!("{}: 2 assets compared, 1 differ", team.slug));
    let letters = line.trim().strip_prefix(&format!("{code}: stored ")).unwrap();
    let (stored, evaluated) = letters.split_once(", evaluated ").unwrap();
    assert!(stored.len() == evaluated.len() && stored == evaluated.replace('N', "P"), "{line}");
    assert!(evaluated.contains('N'), "{line}");

    let (exit, answer) = verify(deployment, &[&of[..], &["--repair"]].concat());
    assert_eq!(exit, Some(1), "{answer}");
    assert!(answer.contains("1 differ, and were re-evaluated"), "{answer}");
    assert_eq!(verify(deployment, &of), (Some(0), right));
}

#[tokio::test]
async fn an_unknown_organization_is_refused() {
    let (_team, shared_server) = Team::on_shared_server().await;
    let arguments = ["admin", "verify-posture", "--organization", "nowhere"];
    let output = run(shared_server.deployment.command(&arguments), "");
    super::refused(&output, &["--organization", "nowhere"]);
    assert_eq!(text(&output.stdout), "");
}
