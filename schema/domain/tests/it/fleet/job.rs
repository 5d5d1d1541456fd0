//! Jobs as users see them, and the actions of users on jobs.
//!
//! This file is long because it tests every state of a job with every action.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use chrono::TimeDelta;
use domain::{
    Actor, Db, Id, Origin, Result, Tx,
    base::{
        event::Event,
        page::{CursorKeys, CursorScope, PageArgs, PageRequest},
    },
    entity::{JobId, OrganizationId},
    fleet::job::{Job, JobFilter, JobState, NEW_ID, Queue, QueueStats},
};
use tokio_postgres::Row;

use crate::harness::{TestOrg, assert_not_found, at_once, conflict, faults, organization};

const ALL: PageRequest = PageRequest { size: 100, backward: false, after: None, before: None };

/// Column values that make a job valid in each live state.
const WAITING: &str = "";
const SCHEDULED: &str = "state = 'SCHEDULED'";
const RUNNING: &str = "state = 'RUNNING', lease_until = now() + interval '20 s', attempt = 1";
const BURIED: &str = "state = 'BURIED', attempt = 3, is_suspect = true, error = 'it broke'";

/// Inserts a waiting job as the queue would, then sets these columns.
async fn push(test: &TestOrg, org: OrganizationId, set: &str) -> JobId {
    let client = test.db.superuser().await;
    let sql = format!(
        "INSERT INTO job (id, org_id, queue, kind, version, payload, subject, state, priority, run_at, max_attempts,
                          actor_kind, queued_at, changed_at)
         VALUES ({NEW_ID}, $1, 'SCAN', 'scan.shard', 2, '{{\"n\": 7}}', 'run_1', 'WAITING', 5, now(), 3, 'system', now(), now())
         RETURNING id"
    );
    let id: JobId = client.query_one(&sql, &[&org.uuid()]).await.unwrap().get("id");
    if !set.is_empty() {
        let sql = format!("UPDATE job SET {set} WHERE id = $1");
        client.execute(&sql, &[&id.uuid()]).await.unwrap();
    }
    id
}

/// Inserts an ended job with this outcome as the queue would, then sets these columns.
async fn ended(test: &TestOrg, org: OrganizationId, outcome: &str, set: &str) -> JobId {
    let client = test.db.superuser().await;
    let sql = format!(
        "INSERT INTO job_history (id, org_id, queue, kind, outcome, priority, attempt, max_attempts, actor_kind, run_at,
                                  queued_at, started_at, finished_at)
         VALUES ({NEW_ID}, $1, 'PROBE', 'probe', $2, 0, 1, 3, 'system', now(), now(), now(), now()) RETURNING id"
    );
    let id: JobId = client.query_one(&sql, &[&org.uuid(), &outcome]).await.unwrap().get("id");
    if !set.is_empty() {
        let sql = format!("UPDATE job_history SET {set} WHERE id = $1");
        client.execute(&sql, &[&id.uuid()]).await.unwrap();
    }
    id
}

/// Runs an action in a transaction of the test's organization.
async fn commit<T>(test: &TestOrg, verb: impl AsyncFnOnce(&Tx) -> Result<T>) -> Result<T> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let done = verb(&tx).await;
    if done.is_ok() {
        tx.commit().await.unwrap();
    } else {
        tx.rollback().await.unwrap();
    }
    done
}

async fn retry(test: &TestOrg, id: JobId) -> Result<Job> {
    commit(test, async |tx| Job::retry(tx, id).await).await
}

async fn discard(test: &TestOrg, id: JobId) -> Result<Job> {
    commit(test, async |tx| Job::discard(tx, id).await).await
}

async fn cancel(test: &TestOrg, id: JobId) -> Result<Job> {
    commit(test, async |tx| Job::cancel(tx, id).await).await
}

async fn get(test: &TestOrg, id: JobId) -> Job {
    Job::get(&test.db.read(test.org).await.unwrap(), id).await.unwrap()
}

fn states(states: &[JobState]) -> JobFilter {
    JobFilter { state: Some(states.to_vec()), ..JobFilter::default() }
}

async fn listed(test: &TestOrg, filter: &JobFilter) -> Vec<JobId> {
    let tx = test.db.read(test.org).await.unwrap();
    let rows = Job::list(&tx, filter, &ALL).await.unwrap().rows;
    assert_eq!(Job::count(&tx, filter).await.unwrap(), i64::try_from(rows.len()).unwrap());
    rows.into_iter().map(|job| job.id).collect()
}

#[tokio::test]
async fn a_job_is_one_thing_before_and_after_its_end() {
    let test = TestOrg::new().await;
    let (live, done) =
        (push(&test, test.org, RUNNING).await, ended(&test, test.org, "SUCCEEDED", "").await);
    let job = get(&test, live).await;
    assert_eq!(
        (job.state, job.queue, job.kind.as_str()),
        (JobState::Running, Queue::Scan, "scan.shard")
    );
    assert_eq!((job.attempt, job.max_attempts, job.priority), (1, 3, 5));
    assert_eq!(
        (job.subject.as_deref(), job.actor, job.finished_at),
        (Some("run_1"), Actor::System, None)
    );
    let job = get(&test, done).await;
    assert_eq!((job.state, job.queue), (JobState::Succeeded, Queue::Probe));
    assert!(job.finished_at.is_some() && !job.is_cancelling);
    let tx = test.db.read(test.org).await.unwrap();
    assert_not_found(Job::get(&tx, Id::new()).await);
}

#[tokio::test]
async fn jobs_are_listed_by_what_they_are_the_last_pushed_first() {
    let test = TestOrg::new().await;
    let org = test.org;
    let waiting = push(&test, org, WAITING).await;
    let done = ended(&test, org, "SUCCEEDED", "").await;
    let buried = push(&test, org, BURIED).await;
    let running = push(
        &test,
        org,
        &format!("{RUNNING}, queue = 'IMPORT', kind = 'import', subject = 'imp_1'"),
    )
    .await;
    let cancelled = ended(&test, org, "CANCELLED", "subject = 'imp_1'").await;
    let none = JobFilter::default;
    assert_eq!(listed(&test, &none()).await, [cancelled, running, buried, done, waiting]);
    assert_eq!(listed(&test, &states(&[JobState::Buried])).await, [buried]);
    assert_eq!(listed(&test, &states(&[JobState::Running])).await, [running]);
    assert_eq!(
        listed(&test, &states(&[JobState::Waiting, JobState::Buried])).await,
        [buried, waiting]
    );
    assert_eq!(listed(&test, &states(&[JobState::Succeeded])).await, [done]);
    assert_eq!(
        listed(&test, &states(&[JobState::Cancelled, JobState::Running])).await,
        [cancelled, running]
    );
    assert_eq!(listed(&test, &states(&[])).await, []);
    let of = |queue: &[Queue]| JobFilter { queue: Some(queue.to_vec()), ..none() };
    assert_eq!(
        listed(&test, &of(&[Queue::Probe, Queue::Import])).await,
        [cancelled, running, done]
    );
    let kind = |kind: &str| JobFilter { kind: Some(kind.into()), ..none() };
    assert_eq!(listed(&test, &kind("import")).await, [running]);
    assert_eq!(listed(&test, &kind("\0")).await, []);
    let about = JobFilter { subject: Some("imp_1".into()), ..none() };
    assert_eq!(listed(&test, &about).await, [cancelled, running]);
    let all = JobFilter { queue: Some(vec![Queue::Import]), ..about };
    assert_eq!(listed(&test, &JobFilter { kind: Some("import".into()), ..all }).await, [running]);
}

#[tokio::test]
async fn pages_go_through_live_and_ended_ones_alike() {
    let test = TestOrg::new().await;
    for number in 0..20 {
        if number % 3 == 0 {
            push(&test, test.org, "").await;
        } else {
            ended(&test, test.org, "SUCCEEDED", "").await;
        }
    }
    let (keys, filter) = (CursorKeys::derive([&[7_u8; 32][..]]), JobFilter::default());
    let scope = CursorScope::new(test.org, "jobs", &filter);
    let all = listed(&test, &filter).await;
    let tx = test.db.read(test.org).await.unwrap();
    let mut walked = [Vec::new(), Vec::new()];
    for (walk, backward) in walked.iter_mut().zip([false, true]) {
        let mut args = PageArgs::default();
        if backward {
            args.last = Some(7);
        } else {
            args.first = Some(7);
        }
        loop {
            let request = args.check(&keys, &scope).unwrap();
            let page = Job::list(&tx, &filter, &request).await.unwrap();
            let cursor = |job: Option<&Job>| Some(job?.position().cursor(&keys, &scope));
            let ids = page.rows.iter().map(|job| job.id);
            if backward {
                walk.splice(0..0, ids);
                args.before = cursor(page.rows.first());
            } else {
                walk.extend(ids);
                args.after = cursor(page.rows.last());
            }
            if !(if backward { page.has_previous } else { page.has_next }) {
                break;
            }
        }
    }
    assert_eq!(walked, [all.clone(), all]);
}

/// Pages must read a constant number of rows however many exist: each table through its own index.
#[tokio::test]
async fn a_page_reads_little_however_many_there_are() {
    let test = TestOrg::new().await;
    let other = organization(&test.db, "other").await;
    let client = test.db.superuser().await;
    for org in [test.org, other] {
        let sql = "INSERT INTO job_history (id, org_id, queue, kind, outcome, priority, attempt, max_attempts, actor_kind,
                                            run_at, queued_at, finished_at)
            SELECT gen_random_uuid(), $1, 'SCAN', 'scan.shard', 'SUCCEEDED', 0, 1, 3, 'system', now(), now(),
                   now() - n * interval '0.1 s' FROM generate_series(1, 20000) AS n";
        client.execute(sql, &[&org.uuid()]).await.unwrap();
        let sql = "INSERT INTO job (id, org_id, queue, kind, version, payload, state, priority, run_at, max_attempts,
                                    actor_kind, queued_at, changed_at)
            SELECT gen_random_uuid(), $1, 'SCAN', 'scan.shard', 1, '{}', 'WAITING', 0, now(), 3, 'system', now(), now()
            FROM generate_series(1, 20000)";
        client.execute(sql, &[&org.uuid()]).await.unwrap();
    }
    client.batch_execute("ANALYZE job; ANALYZE job_history").await.unwrap();
    for _ in 0..3 {
        push(&test, test.org, BURIED).await;
        push(&test, test.org, RUNNING).await;
    }
    let page = PageRequest { size: 10, ..ALL };
    let after = {
        let tx = test.db.read(test.org).await.unwrap();
        let first = Job::list(&tx, &JobFilter::default(), &page).await.unwrap();
        PageRequest { after: first.rows.last().map(Job::position), ..page.clone() }
    };
    let mut read = Vec::new();
    for (filter, request) in [
        (JobFilter::default(), &page),
        (JobFilter::default(), &after),
        (JobFilter::default(), &PageRequest { backward: true, ..page.clone() }),
        (states(&[JobState::Buried]), &page),
        (states(&[JobState::Running]), &page),
        (states(&[JobState::Succeeded, JobState::Waiting]), &page),
        (JobFilter { queue: Some(vec![Queue::Scan]), ..JobFilter::default() }, &page),
    ] {
        let tx = test.db.read(test.org).await.unwrap();
        Job::list(&tx, &filter, request).await.unwrap();
        let sql = "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::int8 AS rows
            FROM pg_stat_xact_user_tables WHERE relname LIKE 'job%'";
        let row: Row = tx.one(sql, &[]).await.unwrap();
        read.push(row.get::<_, i64>("rows"));
    }
    assert!(read.iter().all(|rows| *rows < 100), "rows read: {read:?}");
}

#[tokio::test]
async fn a_buried_job_waits_again_with_all_its_attempts() {
    let test = TestOrg::new().await;
    let id = push(&test, test.org, &format!("{BURIED}, run_at = now() - interval '1 day'")).await;
    let job = retry(&test, id).await.unwrap();
    assert_eq!(
        (job.state, job.attempt, job.error.as_deref()),
        (JobState::Waiting, 0, Some("it broke"))
    );
    assert!(job.run_at > job.queued_at - TimeDelta::minutes(1));
    assert_eq!(get(&test, id).await, job);
    let sql = "SELECT count(*) AS jobs FROM job WHERE NOT is_suspect AND fence = 0 AND lease_until IS NULL";
    let row = test.db.superuser().await.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>("jobs"), 1);
    assert_eq!(test.audited("job.retried by system").await, 1);
    assert_eq!(
        conflict(retry(&test, id).await),
        "this job is WAITING: only BURIED jobs can be retried"
    );
}

#[tokio::test]
async fn what_has_ended_says_so() {
    let test = TestOrg::new().await;
    let done = ended(&test, test.org, "SUCCEEDED", "").await;
    for refusal in [retry(&test, done).await, discard(&test, done).await, cancel(&test, done).await]
    {
        assert_eq!(conflict(refusal), "this job has ended: SUCCEEDED");
    }
    let running = push(&test, test.org, RUNNING).await;
    assert_eq!(
        conflict(discard(&test, running).await),
        "this job is RUNNING: only BURIED jobs can be discarded"
    );
    let buried = push(&test, test.org, BURIED).await;
    assert_eq!(
        conflict(cancel(&test, buried).await),
        "this job is BURIED: retry or discard it instead"
    );
    for refusal in [
        retry(&test, Id::new()).await,
        discard(&test, Id::new()).await,
        cancel(&test, Id::new()).await,
    ] {
        assert_not_found(refusal);
    }
    assert!(!test.audit().await.iter().any(|entry| entry.starts_with("job")));
}

#[tokio::test]
async fn a_job_is_not_retried_beside_its_twin() {
    let test = TestOrg::new().await;
    let buried = push(&test, test.org, &format!("{BURIED}, unique_key = 'k'")).await;
    let twin = push(&test, test.org, "unique_key = 'k'").await;
    let sentence = "a job with the same kind and key is already waiting: it will do the same work";
    assert_eq!(conflict(retry(&test, buried).await), sentence);
    cancel(&test, twin).await.unwrap();
    assert_eq!(retry(&test, buried).await.unwrap().state, JobState::Waiting);
}

#[tokio::test]
async fn many_are_retried_at_once_and_of_twins_the_first() {
    let test = TestOrg::new().await;
    let other = organization(&test.db, "other").await;
    let with = |set: &str| format!("{BURIED}, {set}");
    let first = push(&test, test.org, &with("unique_key = 'k'")).await;
    let second = push(&test, test.org, &with("unique_key = 'k'")).await;
    let blocked = push(&test, test.org, &with("unique_key = 'l'")).await;
    push(&test, test.org, "unique_key = 'l'").await;
    let plain = [push(&test, test.org, BURIED).await, push(&test, test.org, BURIED).await];
    let elsewhere = push(&test, test.org, &with("queue = 'NOTIFY'")).await;
    let foreign = push(&test, other, BURIED).await;
    let filter = JobFilter { queue: Some(vec![Queue::Scan]), ..JobFilter::default() };
    let retried = commit(&test, async |tx| Job::retry_all(tx, &filter).await).await;
    assert_eq!(retried.unwrap(), 3);
    for id in [first, plain[0], plain[1]] {
        let job = get(&test, id).await;
        assert_eq!((job.state, job.attempt), (JobState::Waiting, 0));
    }
    for id in [second, blocked, elsewhere] {
        assert_eq!(get(&test, id).await.state, JobState::Buried);
    }
    let foreigner = Job::get(&test.db.read(other).await.unwrap(), foreign).await.unwrap();
    assert_eq!(foreigner.state, JobState::Buried);
    let sql = "SELECT after, entity_id FROM audit_entry WHERE action = 'job.all_retried'";
    let row = test.db.superuser().await.query_one(sql, &[]).await.unwrap();
    let after: serde_json::Value = row.get("after");
    assert_eq!(after, serde_json::json!({ "filter": { "queue": ["SCAN"] }, "retried": 3 }));
    assert_eq!(row.get::<_, uuid::Uuid>("entity_id"), test.org.uuid());
    let again = commit(&test, async |tx| Job::retry_all(tx, &filter).await).await;
    assert_eq!(again.unwrap(), 0);
    assert_eq!(test.audited("job.all_retried").await, 1, "nothing happened the second time");
    let wrong = states(&[JobState::Buried, JobState::Running]);
    let refusal = commit(&test, async |tx| Job::retry_all(tx, &wrong).await).await;
    assert_eq!(
        faults(refusal),
        ["filter.state only BURIED jobs can be retried: omit the state, or give BURIED alone"]
    );
}

#[tokio::test]
async fn a_discarded_job_is_history() {
    let test = TestOrg::new().await;
    let id = push(&test, test.org, BURIED).await;
    let job = discard(&test, id).await.unwrap();
    assert_eq!(
        (job.state, job.error.as_deref(), job.attempt),
        (JobState::Discarded, Some("it broke"), 3)
    );
    assert!(job.finished_at.is_some());
    assert_eq!(get(&test, id).await, job);
    assert_eq!(listed(&test, &JobFilter::default()).await, [id], "nobody watched it");
    assert_eq!(test.audited("job.discarded by system").await, 1);
}

#[tokio::test]
async fn what_waits_is_cancelled_at_once_and_what_runs_is_told() {
    let test = TestOrg::new().await;
    for set in [WAITING, SCHEDULED] {
        let id = push(&test, test.org, set).await;
        assert_eq!(cancel(&test, id).await.unwrap().state, JobState::Cancelled);
        assert_eq!(get(&test, id).await.state, JobState::Cancelled);
    }
    let id = push(&test, test.org, RUNNING).await;
    for _ in 0..2 {
        let job = cancel(&test, id).await.unwrap();
        assert_eq!((job.state, job.is_cancelling), (JobState::Running, true));
    }
    assert!(get(&test, id).await.is_cancelling);
    assert_eq!(test.audited("job.cancelled").await, 3, "once a job");
}

#[tokio::test]
async fn of_many_who_cancel_one_ends_it() {
    let test = Arc::new(TestOrg::new().await);
    let id = push(&test, test.org, "watched = true").await;
    let tries = (0..8).map(|_| {
        let test = Arc::clone(&test);
        async move { cancel(&test, id).await }
    });
    let (done, refused): (Vec<_>, Vec<_>) =
        at_once(tries).await.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), refused.len()), (1, 7));
    for refusal in refused {
        assert_eq!(conflict(refusal), "this job has ended: CANCELLED");
    }
    let messages = JobFilter { kind: Some("scan.shard.ended".into()), ..JobFilter::default() };
    assert_eq!(listed(&test, &messages).await.len(), 1);
}

#[tokio::test]
async fn a_watched_job_tells_how_it_ended() {
    let test = TestOrg::new().await;
    for (set, outcome) in [("priority = 2147000000", "CANCELLED"), (BURIED, "DISCARDED")] {
        let set =
            [set, "watched = true, permission = 'COMPLIANCE_RUN', unique_key = 'k'"].join(", ");
        let id = push(&test, test.org, &set).await;
        if outcome == "CANCELLED" { cancel(&test, id).await } else { discard(&test, id).await }
            .unwrap();
        let sql = "DELETE FROM job RETURNING queue || ' ' || kind || ' ' || subject || ' ' || state AS is, version, payload,
            priority, max_attempts, actor_kind, watched, attempt, unique_key IS NULL AND permission IS NULL AS free,
            run_at <= now() AS due, id";
        let row = test.db.superuser().await.query_one(sql, &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>("is"), "SCAN scan.shard.ended run_1 WAITING");
        let error = if outcome == "CANCELLED" { None } else { Some("it broke") };
        assert_eq!(
            row.get::<_, serde_json::Value>("payload"),
            serde_json::json!({ "outcome": outcome, "error": error, "subject": "run_1" })
        );
        let priority = if outcome == "CANCELLED" { i32::MAX } else { 1_000_005 };
        assert_eq!((row.get::<_, i32>("priority"), row.get::<_, i16>("version")), (priority, 2));
        assert_eq!((row.get::<_, i16>("max_attempts"), row.get::<_, i16>("attempt")), (20, 0));
        assert_eq!(
            (row.get::<_, &str>("actor_kind"), row.get::<_, bool>("watched")),
            ("system", false)
        );
        assert!(row.get::<_, bool>("free") && row.get::<_, bool>("due"));
    }
}

#[tokio::test]
async fn ids_made_by_postgres_are_as_ours() {
    let test = TestOrg::new().await;
    let client = test.db.superuser().await;
    let sql = format!("SELECT {NEW_ID} AS id FROM generate_series(1, 1000)");
    let before = uuid::Uuid::now_v7();
    let rows = client.query(&sql, &[]).await.unwrap();
    let ids: BTreeSet<uuid::Uuid> = rows.iter().map(|row| row.get("id")).collect();
    assert_eq!(ids.len(), 1000);
    let millis = |id: &uuid::Uuid| id.as_u128() >> 80;
    for id in &ids {
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        assert!(millis(id) + 1000 >= millis(&before) && millis(id) < millis(&before) + 60_000);
    }
}

#[tokio::test]
async fn queues_are_counted_for_one_and_for_all() {
    let test = TestOrg::new().await;
    let other = organization(&test.db, "other").await;
    for set in ["run_at = now() - interval '90 s'", "", SCHEDULED, RUNNING, BURIED] {
        push(&test, test.org, set).await;
    }
    push(&test, test.org, &format!("{BURIED}, changed_at = now() - interval '6 min'")).await;
    push(&test, other, WAITING).await;
    for set in ["", "", "finished_at = now() - interval '6 min'"] {
        ended(&test, test.org, "SUCCEEDED", set).await;
    }
    ended(&test, test.org, "DISCARDED", "").await;
    let stats = QueueStats::list(&test.db.read(test.org).await.unwrap()).await.unwrap();
    assert_eq!(stats.iter().map(|stats| stats.queue).collect::<Vec<_>>(), Queue::ALL);
    let [scan, probe, triage, ..] = &stats[..] else { panic!("not six") };
    assert_eq!((scan.waiting, scan.scheduled, scan.running, scan.buried), (2, 1, 1, 2));
    assert!((90.0..150.0).contains(&scan.oldest_waiting_seconds.unwrap()));
    assert!((scan.failed_per_minute - 0.2).abs() < 1e-9 && scan.done_per_minute == 0.0);
    assert!((probe.done_per_minute - 0.4).abs() < 1e-9 && probe.oldest_waiting_seconds.is_none());
    assert_eq!((triage.waiting, triage.done_per_minute), (0, 0.0));
    let fleet = QueueStats::list(&test.db.fleet().await.unwrap()).await.unwrap();
    assert_eq!((fleet[0].waiting, fleet[0].buried), (3, 2));
}

#[tokio::test]
async fn whoever_takes_jobs_is_told_after_the_commit() {
    let test = TestOrg::new().await;
    let sent: Arc<Mutex<Vec<Event>>> = Arc::default();
    let log = Arc::clone(&sent);
    let db: Db = test.db.db.clone().publishing(move |events| log.lock().unwrap().extend(events));
    let id = push(&test, test.org, BURIED).await;
    let tx = db.write(test.org, Origin::system()).await.unwrap();
    Job::retry(&tx, id).await.unwrap();
    assert!(sent.lock().unwrap().is_empty());
    tx.commit().await.unwrap();
    let expected = [Event::jobs_ready(test.org, Queue::Scan), Event::jobs_changed(test.org)];
    assert_eq!(*sent.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_job_of_another_organization_is_neither_seen_nor_touched() {
    let test = TestOrg::new().await;
    let other = organization(&test.db, "other").await;
    let (live, done) =
        (push(&test, other, BURIED).await, ended(&test, other, "SUCCEEDED", "").await);
    for id in [live, done] {
        for refusal in [retry(&test, id).await, discard(&test, id).await, cancel(&test, id).await] {
            assert_not_found(refusal);
        }
    }
    assert_eq!(listed(&test, &JobFilter::default()).await, []);
}
