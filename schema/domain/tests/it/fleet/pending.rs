//! Jobs of a kind that have not ended.

use domain::{
    Origin,
    entity::OrganizationId,
    fleet::{
        job::NEW_ID,
        pending::{self, JobKind},
    },
};

use crate::harness::{TestOrg, organization};

/// Inserts a job with this kind and subject, then sets these columns.
async fn push(test: &TestOrg, org: OrganizationId, kind: JobKind, subject: &str, set: &str) {
    let client = test.db.superuser().await;
    let sql = format!(
        "INSERT INTO job (id, org_id, queue, kind, version, payload, subject, state, priority, run_at, max_attempts,
                          actor_kind, queued_at, changed_at)
         VALUES ({NEW_ID}, $1, 'SCAN', $2, 1, '{{}}', $3, 'WAITING', 0, now(), 3, 'system', now(), now())"
    );
    client.execute(&sql, &[&org.uuid(), &kind.as_str(), &subject]).await.unwrap();
    if !set.is_empty() {
        let sql = format!("UPDATE job SET {set} WHERE subject = $1");
        client.execute(&sql, &[&subject]).await.unwrap();
    }
}

/// Returns the subjects of all jobs, sorted.
async fn subjects(test: &TestOrg) -> Vec<String> {
    let sql = "SELECT subject FROM job ORDER BY subject";
    let rows = test.db.superuser().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get("subject")).collect()
}

const SCHEDULED: &str = "state = 'SCHEDULED', run_at = now() + interval '1 hour'";
const RUNNING: &str = "state = 'RUNNING', lease_until = now() + interval '20 s', attempt = 1";
const BURIED: &str = "state = 'BURIED', attempt = 3, is_suspect = true, error = 'it broke'";

#[tokio::test]
async fn only_what_waits_of_a_kind_and_a_subject_is_cancelled() {
    let test = TestOrg::new().await;
    let other = organization(&test.db, "other").await;
    push(&test, test.org, JobKind::RUN_SHARD, "a", "").await;
    push(&test, test.org, JobKind::RUN_SHARD, "b", "").await;
    push(&test, test.org, JobKind::REFRESH, "c", "").await;
    push(&test, test.org, JobKind::RUN_SHARD, "d", RUNNING).await;
    push(&test, test.org, JobKind::RUN_SHARD, "e", SCHEDULED).await;
    push(&test, other, JobKind::RUN_SHARD, "f", "").await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    pending::cancel_of_subject(&tx, JobKind::RUN_SHARD, "a").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(subjects(&test).await, ["b", "c", "d", "e", "f"]);
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    pending::cancel_all(&tx, JobKind::RUN_SHARD).await.unwrap();
    assert!(pending::exists(&tx, JobKind::RUN_SHARD).await.unwrap(), "one runs");
    assert!(!pending::exists(&tx, JobKind::REEVALUATE).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(subjects(&test).await, ["c", "d", "f"]);
}

#[tokio::test]
async fn an_organization_has_none_while_it_has_others_or_its_own_was_buried_long_ago() {
    let test = TestOrg::new().await;
    let other = organization(&test.db, "other").await;
    let organizations_without = async || {
        let tx = test.db.fleet().await.unwrap();
        pending::organizations_without(&tx, JobKind::REEVALUATE, &[test.org, other]).await.unwrap()
    };
    push(&test, test.org, JobKind::REEVALUATE, "a", "").await;
    push(&test, other, JobKind::REFRESH, "b", "").await;
    assert_eq!(organizations_without().await, [other]);
    push(&test, other, JobKind::REEVALUATE, "c", BURIED).await;
    assert_eq!(organizations_without().await, []);
    let sql = "UPDATE job SET changed_at = now() - interval '11 minutes' WHERE subject = 'c'";
    test.db.superuser().await.execute(sql, &[]).await.unwrap();
    assert_eq!(organizations_without().await, [other]);
}
