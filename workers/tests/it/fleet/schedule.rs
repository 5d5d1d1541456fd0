//! Schedules, run by worker processes.

use domain::{
    Actor, Viewer,
    access::permission::BuiltinRole,
    base::run_state::RunState,
    compliance::run::{Run, RunTrigger},
    entity::UserId,
    fleet::schedule::{Schedule, ScheduleAction, ScheduleInput},
};

use crate::harness::{TestFleet, at, eventually};

/// Creates a schedule that is due, on behalf of this actor.
async fn due(fleet: &TestFleet, actor: Actor) -> Schedule {
    let input = ScheduleInput {
        name: "nightly".to_owned(),
        cron: "0 2 * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        action: ScheduleAction::ComplianceRun,
        enabled: true,
    };
    let viewer = Viewer {
        actor,
        org: fleet.org,
        session: None,
        roles: Vec::new(),
        permissions: BuiltinRole::Operator.permissions(),
    };
    let tx = fleet.write_as(actor).await;
    let schedule = Schedule::save(&tx, &viewer, &input, at()).await.unwrap();
    tx.commit().await.unwrap();
    fleet.run_sql("UPDATE schedule SET next_tick = now(), next_run_at = now()").await;
    schedule
}

async fn runs(fleet: &TestFleet) -> Vec<Run> {
    let tx = fleet.db.read(fleet.org).await.unwrap();
    let ids: Vec<tokio_postgres::Row> = tx.all("SELECT id FROM compliance_run", &[]).await.unwrap();
    let mut runs = Vec::new();
    for row in ids {
        runs.push(Run::get(&tx, row.get("id")).await.unwrap());
    }
    tx.commit().await.unwrap();
    runs
}

#[tokio::test]
async fn a_due_schedule_starts_one_run_however_many_look() {
    let fleet = TestFleet::new().await;
    due(&fleet, Actor::System).await;
    fleet.start();
    fleet.start();
    let is_done = async || {
        runs(&fleet).await.iter().any(|run| run.state == RunState::Succeeded)
            && fleet.count("SELECT id FROM job WHERE kind LIKE 'scan.s%'").await == 0
    };
    eventually(is_done).await;
    let runs = runs(&fleet).await;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].trigger, RunTrigger::Schedule);
}

#[tokio::test]
async fn a_schedule_of_somebody_who_lost_the_right_starts_nothing() {
    let fleet = TestFleet::new().await;
    // No member has this id.
    due(&fleet, Actor::User(UserId::new())).await;
    fleet.start();
    eventually(async || fleet.audited("job.denied_at_run").await == 1).await;
    assert!(runs(&fleet).await.is_empty());
}
