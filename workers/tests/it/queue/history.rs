//! History of jobs that have ended.

use jobs::queue::history;

use crate::harness::TestFleet;

#[tokio::test]
async fn days_are_dropped_when_they_are_old_and_made_before_they_come() {
    let fleet = TestFleet::new().await;
    fleet
        .run_sql(
            "SET ROLE sentryops_owner;
             CREATE TABLE job_history_20200101 PARTITION OF job_history FOR VALUES FROM ('2020-01-01') TO ('2020-01-02');
             RESET ROLE;
             INSERT INTO job_history (id, org_id, queue, kind, outcome, priority, attempt, max_attempts, actor_kind, run_at,
                                      queued_at, finished_at)
             SELECT gen_random_uuid(), gen_random_uuid(), 'SCAN', 'x', 'SUCCEEDED', 0, 1, 5, 'system', at, at, at
             FROM unnest(ARRAY['2020-01-01T12:00Z', '2020-01-03T12:00Z']::timestamptz[]) AS at",
        )
        .await;
    let tx = fleet.db.fleet().await.unwrap();
    history::rotate(&tx, 30).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(fleet.count("SELECT id FROM job_history").await, 0);
    let days = "SELECT relname FROM pg_class WHERE relname ~ '^job_history_[0-9]{8}$'";
    assert_eq!(fleet.count(days).await, 8);
}
