//! Jobs, queues, workers and schedules, as users see them, and the actions of users.

use domain::{
    access::permission::Permission,
    fleet::{
        job::Queue,
        worker::{NewWorker, Worker},
    },
};
use serde_json::{Value, json};

use crate::harness::{SET_BURIED, Team, TestApp, nothing};

async fn grant_fleet(app: &TestApp, team: &Team) {
    let (org, user) = (team.org.id.uuid(), team["viewer"].id.uuid());
    app
        .execute_sql(&format!(
            "UPDATE membership SET permissions = '{{FLEET_READ}}' WHERE org_id = '{org}' AND user_id = '{user}'"
        ))
        .await;
}

#[tokio::test]
async fn a_job_is_followed_retried_and_given_up() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let worker = uuid::Uuid::now_v7();
    let id = app.job(&team, &format!("{SET_BURIED}, worker = '{worker}'")).await;
    let admin = team["admin"].bearer.as_str();
    let show = "query($id: ID!) { job(id: $id) { id queue kind state attempt maxAttempts error worker subject isCancelling finishedAt actor { __typename } } }";
    let id = json!({ "id": id });
    let shown = app.ask(team["viewer"].bearer.as_str(), show, id.clone()).await;
    assert_eq!(
        shown.data()["job"],
        json!({
            "id": id["id"], "queue": "SCAN", "kind": "scan.shard", "state": "BURIED", "attempt": 3, "maxAttempts": 3,
            "error": "it broke", "worker": worker.to_string(), "subject": "run_1", "isCancelling": false,
            "finishedAt": null, "actor": { "__typename": "System" },
        })
    );
    let retry = "mutation($id: ID!) { retryJob(id: $id) { state attempt } }";
    let retried = app.ask(admin, retry, id.clone()).await;
    assert_eq!(retried.data()["retryJob"], json!({ "state": "WAITING", "attempt": 0 }));
    let again = app.ask(admin, retry, id.clone()).await;
    assert_eq!(again.code(), "CONFLICT");
    assert_eq!(again.error()["message"], "This job is WAITING: only BURIED jobs can be retried.");
    let cancel = "mutation($id: ID!) { cancelJob(id: $id) { state finishedAt } }";
    let cancelled = app.ask(admin, cancel, id.clone()).await;
    assert_eq!(cancelled.data()["cancelJob"]["state"], "CANCELLED");
    assert!(cancelled.data()["cancelJob"]["finishedAt"].is_string());
    let ended = app.ask(admin, cancel, id).await;
    assert_eq!(ended.error()["message"], "This job has ended: CANCELLED.");
}

#[tokio::test]
async fn jobs_are_paged_and_filtered() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    for set in ["", SET_BURIED, "queue = 'NOTIFY', kind = 'mail'", "", ""] {
        app.job(&team, set).await;
    }
    let viewer = team["viewer"].bearer.as_str();
    let list = "query($filter: JobFilter, $after: String) { jobs(filter: $filter, first: 2, after: $after) {
        totalCount nodes { kind state } pageInfo { hasNextPage endCursor } } }";
    let filter = json!({ "queue": ["SCAN"], "state": ["WAITING", "SUCCEEDED"] });
    let page = app.ask(viewer, list, json!({ "filter": filter })).await.data()["jobs"].clone();
    assert_eq!((&page["totalCount"], &page["pageInfo"]["hasNextPage"]), (&json!(3), &json!(true)));
    let next = json!({ "filter": filter, "after": page["pageInfo"]["endCursor"] });
    let rest = app.ask(viewer, list, next).await.data()["jobs"].clone();
    assert_eq!(rest["nodes"], json!([{ "kind": "scan.shard", "state": "WAITING" }]));
    let other = json!({ "after": page["pageInfo"]["endCursor"] });
    assert_eq!(app.ask(viewer, list, other).await.faults(), ["after"], "a cursor of another list");
    let retry = "mutation($filter: JobFilter!) { retryJobs(filter: $filter) }";
    let retried = app.ask(team["admin"].bearer.as_str(), retry, json!({ "filter": {} })).await;
    assert_eq!(retried.data(), &json!({ "retryJobs": 1 }));
}

#[tokio::test]
async fn the_queues_of_all_are_for_who_may_see_the_installation() {
    let app = TestApp::new().await;
    let (team, other) = (app.team("alfa").await, app.team("bravo").await);
    app.job(&team, "").await;
    app.job(&other, "").await;
    let viewer = team["viewer"].bearer.as_str();
    let waiting = |queues: &Value| {
        let queues = queues["queues"].as_array().unwrap().clone();
        assert_eq!(queues.len(), Queue::ALL.len());
        queues.iter().map(|queue| queue["waiting"].as_i64().unwrap()).sum::<i64>()
    };
    for own in [
        "{ queues { queue waiting } }",
        "{ queues(fleet: false) { waiting } }",
        "{ queues(fleet: null) { waiting } }",
    ] {
        assert_eq!(waiting(app.ask(viewer, own, nothing()).await.data()), 1, "{own}");
    }
    let all = "{ queues(fleet: true) { queue waiting oldestWaitingSeconds donePerMinute } }";
    for role in ["viewer", "owner"] {
        let refused = app.ask(team[role].bearer.as_str(), all, nothing()).await;
        assert_eq!((refused.code(), &refused.error()["path"]), ("FORBIDDEN", &json!(["queues"])));
    }
    grant_fleet(&app, &team).await;
    assert_eq!(waiting(app.ask(viewer, all, nothing()).await.data()), 2);
}

#[tokio::test]
async fn workers_are_for_who_may_see_the_installation() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let worker = NewWorker {
        id: uuid::Uuid::now_v7(),
        host: "node-1".into(),
        version: "1.2.3".into(),
        queues: vec![Queue::Scan],
        capacity: 4,
    };
    let tx = app.test.fleet().await.unwrap();
    Worker::register(&tx, &worker).await.unwrap();
    tx.commit().await.unwrap();
    let viewer = team["viewer"].bearer.as_str();
    let list = "{ workers { id host version queues running capacity isDraining } }";
    let refused = app.ask(viewer, list, nothing()).await;
    assert!(!refused.executed && refused.code() == "FORBIDDEN");
    grant_fleet(&app, &team).await;
    assert_eq!(
        app.ask(viewer, list, nothing()).await.data()["workers"],
        json!([{ "id": worker.id.to_string(), "host": "node-1", "version": "1.2.3", "queues": ["SCAN"], "running": 0,
                 "capacity": 4, "isDraining": false }])
    );
}

#[tokio::test]
async fn a_schedule_is_saved_shown_and_deleted() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let operator = team["operator"].bearer.as_str();
    let save = "mutation($input: ScheduleInput!) { saveSchedule(input: $input) {
        id name cron timeZone action enabled lastRunAt nextRunAt actor { ... on User { name } } } }";
    let input = json!({ "name": "nightly", "cron": "0 2 * * MON-FRI", "timeZone": "Europe/Berlin", "action": "COMPLIANCE_RUN" });
    let saved =
        app.ask(operator, save, json!({ "input": input })).await.data()["saveSchedule"].clone();
    assert_eq!((&saved["enabled"], &saved["lastRunAt"]), (&json!(true), &Value::Null));
    assert_eq!(saved["actor"], json!({ "name": "alfa operator" }));
    assert!(saved["nextRunAt"].is_string());
    let viewer = team["viewer"].bearer.as_str();
    let shown = app.ask(viewer, "{ schedules { name cron timeZone } }", nothing()).await;
    assert_eq!(
        shown.data()["schedules"],
        json!([{ "name": "nightly", "cron": "0 2 * * MON-FRI", "timeZone": "Europe/Berlin" }])
    );
    let delete = "mutation($id: ID!) { deleteSchedule(id: $id) }";
    let id = json!({ "id": saved["id"] });
    assert_eq!(app.ask(operator, delete, id.clone()).await.data()["deleteSchedule"], saved["id"]);
    assert_eq!(app.ask(operator, delete, id).await.code(), "NOT_FOUND");
}

#[tokio::test]
async fn a_wrong_schedule_says_where_and_what_was_meant() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let save = "mutation($input: ScheduleInput!) { saveSchedule(input: $input) { id } }";
    let input = json!({ "name": "nightly", "cron": "0 0 2 * * *", "timeZone": "Berlin", "action": "COMPLIANCE_RUN" });
    let refused = app.ask(team["operator"].bearer.as_str(), save, json!({ "input": input })).await;
    assert_eq!(refused.code(), "VALIDATION");
    assert_eq!(
        refused.error()["extensions"]["fields"],
        json!([
            { "path": "input.cron", "suggestion": "0 2 * * *",
              "message": "has 6 fields, but an expression has five: minute hour day month weekday" },
            { "path": "input.timeZone", "suggestion": "Europe/Berlin",
              "message": "\"Berlin\" is not a time zone: give an IANA name, such as Europe/Berlin or UTC" },
        ])
    );
    // A key that may change schedules, but not start runs.
    let (_, secret) =
        app.api_key(&team, "clerk", &[Permission::ScheduleWrite, Permission::JobRead]).await;
    let input = json!({ "name": "nightly", "cron": "0 2 * * *", "action": "COMPLIANCE_RUN" });
    let refused = app.ask(secret.as_str(), save, json!({ "input": input })).await;
    assert_eq!((refused.code(), refused.executed), ("FORBIDDEN", true));
}

#[tokio::test]
async fn null_in_the_filter_of_a_change_is_refused() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let buried = app.job(&team, crate::harness::SET_BURIED).await;
    let bearer = team["admin"].bearer.as_str();
    let retry = "mutation($subject: String) { retryJobs(filter: { subject: $subject }) }";
    for subject in [json!({ "subject": null }), json!({})] {
        let reply = app.ask(bearer, retry, subject).await;
        assert_eq!(reply.faults(), ["filter.subject"], "{buried}");
    }
    let all = app.ask(bearer, "mutation { retryJobs(filter: {}) }", nothing()).await;
    assert_eq!(all.data()["retryJobs"], 1);
    let scope = "mutation { startComplianceRun(scope: { tag: null }) { id } }";
    let refused = app.ask(bearer, scope, nothing()).await;
    assert_eq!(refused.code(), "VALIDATION", "{}", refused.text);
}

/// Sends the request of the crontab line in `docker/docs/schedules.md`.
#[tokio::test]
async fn a_key_that_may_only_start_runs_starts_one_a_day() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let (_, secret) = app.api_key(&team, "cron", &[Permission::ComplianceRun]).await;
    let start = "mutation($key: String!) { startComplianceRun(idempotencyKey: $key) { id state } }";
    let mut runs = Vec::new();
    for day in ["2026-06-01", "2026-06-01", "2026-06-02"] {
        if day == "2026-06-02" {
            // While a run of the same assets is open, a request with another key returns that run.
            let end = "mutation($id: ID!) { cancelComplianceRun(id: $id) { state } }";
            app.ask(secret.as_str(), end, json!({ "id": runs[0] })).await.data();
        }
        let started = app.ask(secret.as_str(), start, json!({ "key": day })).await;
        assert_eq!(started.data()["startComplianceRun"]["state"], "QUEUED");
        runs.push(started.data()["startComplianceRun"]["id"].clone());
    }
    assert!(runs[0] == runs[1] && runs[1] != runs[2]);
    assert_eq!(
        app.ask(secret.as_str(), "{ jobs { totalCount } }", nothing()).await.code(),
        "FORBIDDEN"
    );
}
