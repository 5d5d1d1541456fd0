//! The quota of compliance runs and trials, `SCAN_LIMIT`: per caller, and per organization.

use jobs::Quota;
use serde_json::json;

use crate::harness::{Reply, Team, TestApp, nothing};

const START: &str = "mutation { startComplianceRun { id } }";

/// An app in which a caller and an organization start six runs a minute.
async fn app() -> TestApp {
    TestApp::with_run_quota(Quota::parse("scan-of-a-test", "6/minute").unwrap()).await
}

async fn start(app: &TestApp, bearer: &str) -> Reply {
    app.ask(bearer, START, nothing()).await
}

/// Uses up the quota of this member and of the organization.
async fn exhaust(app: &TestApp, team: &Team) {
    for _ in 0..6 {
        start(app, &team["operator"].bearer).await.data();
    }
}

#[track_caller]
fn assert_limited(reply: &Reply) {
    assert_eq!(reply.code(), "RATE_LIMITED");
    let wait = reply.error()["extensions"]["retryAfterMs"].as_u64().unwrap();
    assert!((1..=10_000).contains(&wait), "six a minute is one in ten seconds: {wait}");
}

#[tokio::test]
async fn the_seventh_run_in_a_minute_is_refused_with_the_time() {
    let app = app().await;
    let team = app.team("alfa").await;
    exhaust(&app, &team).await;
    assert_limited(&start(&app, &team["operator"].bearer).await);
}

#[tokio::test]
async fn the_runs_of_all_members_count_for_the_organization_and_for_no_other() {
    let app = app().await;
    let (alfa, bravo) = (app.team("alfa").await, app.team("bravo").await);
    exhaust(&app, &alfa).await;
    assert_limited(&start(&app, &alfa["admin"].bearer).await);
    start(&app, &bravo["operator"].bearer).await.data();
}

#[tokio::test]
async fn the_runs_of_a_caller_count_in_all_organizations() {
    let app = app().await;
    let (alfa, bravo) = (app.team("alfa").await, app.team("bravo").await);
    let operator = &alfa["operator"];
    let (org, user) = (bravo.org.id.uuid(), operator.id.uuid());
    app.execute_sql(&format!(
        "INSERT INTO membership (org_id, user_id, created_at) VALUES ('{org}', '{user}', now());
         INSERT INTO membership_role (org_id, user_id, role_id)
         SELECT org_id, '{user}', id FROM role WHERE org_id = '{org}' AND key = 'operator'"
    ))
    .await;
    exhaust(&app, &alfa).await;
    let switch = "mutation($id: ID!) { switchOrganization(organization: $id) { accessToken } }";
    let switched = app.ask(&*operator.bearer, switch, json!({ "id": bravo.org.id })).await;
    let there = switched.data()["switchOrganization"]["accessToken"].as_str().unwrap().to_owned();
    assert_limited(&start(&app, &there).await);
    start(&app, &bravo["operator"].bearer).await.data();
}

#[tokio::test]
async fn trials_count_as_runs() {
    let app = app().await;
    let team = app.team("alfa").await;
    let attempt = "mutation { tryRule(input: { key: \"own\", title: \"t\", severity: LOW, condition: \"true\", remediation: \"r\" }) { assets } }";
    for _ in 0..6 {
        app.ask(&*team["operator"].bearer, attempt, nothing()).await.data();
    }
    assert_limited(&app.ask(&*team["operator"].bearer, attempt, nothing()).await);
    assert_limited(&start(&app, &team["operator"].bearer).await);
}
