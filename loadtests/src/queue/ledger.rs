//! The ledger: a record of job events, read from Postgres as a superuser, which bypasses row security.
//!
//! While recording is on, triggers record each push, start and reap of a job in the transaction of the event, with the
//! clock time. A reap makes the job of a dead worker claimable again. The checks compare these events with the final
//! state of the queue.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use tokio_postgres::{Client, types::ToSql};
use uuid::Uuid;

use crate::{
    measurement::{Measurement, number},
    stores,
};

const POLL_EVERY: Duration = Duration::from_millis(100);
/// Query for the number of live jobs: jobs that are not buried (dead-lettered), and are due within the next hour. The
/// job for the next change of a verdict by time alone is not live: it may be due at any time.
pub(crate) const LIVE: &str = "SELECT count(*) FROM job WHERE state <> 'BURIED' AND run_at < now() + interval '1 hour' AND kind <> 'scan.turn'";
/// Query that returns 1 if there is a live job, otherwise 0. Its cost depends neither on the number of jobs nor on dead
/// rows in the table. Jobs that are due later, such as the next daily verification of postures, always exist and are
/// not live.
pub(crate) const ANY_LIVE: &str = "SELECT count(*) FROM (
    SELECT FROM job WHERE state <> 'BURIED' AND run_at < now() + interval '1 hour' AND kind <> 'scan.turn' LIMIT 1) AS any_live";

const CREATE_TABLES: &str = "
    CREATE TABLE drill_effect (id uuid NOT NULL);
    GRANT INSERT ON drill_effect TO sentryops_app;
    CREATE TABLE drill_event (
        what text NOT NULL, id uuid NOT NULL, kind text NOT NULL, fence integer NOT NULL,
        worker uuid, mark uuid, at timestamptz NOT NULL);
    CREATE FUNCTION drill_record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO drill_event VALUES (
            TG_ARGV[0], NEW.id, NEW.kind, NEW.fence, NEW.worker, (NEW.payload ->> 'id')::uuid, clock_timestamp());
        RETURN NULL;
    END $$;";
const CREATE_TRIGGERS: &str = "
    CREATE TRIGGER drill_pushed AFTER INSERT ON job FOR EACH ROW EXECUTE FUNCTION drill_record('pushed');
    CREATE TRIGGER drill_started AFTER UPDATE OF fence ON job FOR EACH ROW
        WHEN (NEW.fence > OLD.fence) EXECUTE FUNCTION drill_record('started');
    CREATE TRIGGER drill_reaped AFTER UPDATE OF is_suspect ON job FOR EACH ROW
        WHEN (OLD.state = 'RUNNING') EXECUTE FUNCTION drill_record('reaped');";
const CLEAR: &str = "
    DROP TRIGGER IF EXISTS drill_pushed ON job;
    DROP TRIGGER IF EXISTS drill_started ON job;
    DROP TRIGGER IF EXISTS drill_reaped ON job;
    TRUNCATE job, job_history, drill_effect, drill_event;";

/// A superuser connection that reads job events and the queue's tables.
pub(crate) struct Ledger(Client);

impl Ledger {
    /// Connects to the Postgres at this URL.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        Ok(Self(stores::connect(url).await?))
    }

    /// Creates the tables and the trigger function that record events and effects of jobs.
    pub(crate) async fn prepare(&self) -> Result<()> {
        self.0.batch_execute(CREATE_TABLES).await.context("create the tables of the checks")
    }

    /// Drops the triggers, deletes all jobs and recorded events, and vacuums the table `job`.
    pub(crate) async fn clear(&self) -> Result<()> {
        self.0.batch_execute(CLEAR).await.context("empty the queue")?;
        self.0.batch_execute("VACUUM ANALYZE job").await.context("vacuum")
    }

    /// Creates the triggers that record job events.
    pub(crate) async fn start_recording(&self) -> Result<()> {
        self.0.batch_execute(CREATE_TRIGGERS).await.context("create the triggers on the queue")
    }

    /// Executes other SQL statements, such as `ANALYZE`.
    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        self.0.batch_execute(sql).await.with_context(|| sql.to_owned())
    }

    /// Returns the current time by the clock of Postgres.
    pub(crate) async fn now(&self) -> Result<DateTime<Utc>> {
        Ok(self.0.query_one("SELECT clock_timestamp()", &[]).await?.try_get(0)?)
    }

    /// Returns the integer that a query selects.
    pub(crate) async fn count(&self, sql: &str) -> Result<i64> {
        let row = self.0.query_one(sql, &[]).await.with_context(|| sql.to_owned())?;
        Ok(row.try_get(0)?)
    }

    /// Returns the number that a query selects, or 0 if it is null.
    pub(crate) async fn number(&self, sql: &str, given: &[&(dyn ToSql + Sync)]) -> Result<f64> {
        let row = self.0.query_one(sql, given).await.with_context(|| sql.to_owned())?;
        Ok(row.try_get::<_, Option<f64>>(0)?.unwrap_or_default())
    }

    /// Returns the 50th percentile, the 99th percentile and the maximum of the values in a query's only column, and the
    /// number of values. The percentiles and the maximum are 0 if the query returns no rows.
    pub(crate) async fn spread(
        &self,
        sql: &str,
        given: &[&(dyn ToSql + Sync)],
    ) -> Result<([f64; 3], i64)> {
        let sql = format!(
            "SELECT percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY value::float8), count(*)
             FROM ({sql}) AS found (value)"
        );
        let row = self.0.query_one(&sql, given).await.with_context(|| sql.clone())?;
        let found: Option<Vec<f64>> = row.try_get(0)?;
        let spread = found.and_then(|found| <[f64; 3]>::try_from(found).ok()).unwrap_or_default();
        Ok((spread, row.try_get(1)?))
    }

    /// Returns the ids of all registered worker processes, including those that have exited.
    pub(crate) async fn workers(&self) -> Result<Vec<Uuid>> {
        let rows = self.0.query("SELECT id FROM worker", &[]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Waits until the count that a query selects is 0.
    ///
    /// # Errors
    /// Fails with a list of the remaining jobs if the wait takes longer than `limit`.
    pub(crate) async fn wait(&self, sql: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let left = self.count(sql).await?;
            if left == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                let seconds = limit.as_secs();
                bail!(
                    "{left} jobs are unfinished after {seconds} s:\n{}",
                    self.remaining_jobs().await?
                );
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    async fn remaining_jobs(&self) -> Result<String> {
        let sql = "SELECT concat_ws(' ', count(*), kind, state, 'attempt', attempt, 'of', max_attempts, 'suspect', is_suspect,
                          'lease', round(extract(epoch FROM min(lease_until) - now())), 's', 'worker', worker)
            FROM job GROUP BY kind, state, attempt, max_attempts, is_suspect, worker ORDER BY count(*) DESC LIMIT 20";
        let rows = self.0.query(sql, &[]).await?;
        let lines = rows.iter().map(|row| Ok(row.try_get(0)?));
        Ok(lines.collect::<Result<Vec<String>>>()?.join("\n"))
    }

    /// Adds the checks of the recorded jobs after all jobs have completed: no job lost or completed twice, no effect
    /// missing or duplicated. An effect is a row that a job inserts. `acknowledged` is the number of jobs whose push
    /// was acknowledged to the client.
    pub(crate) async fn audit(
        &self,
        measurement: &mut Measurement,
        acknowledged: i64,
    ) -> Result<()> {
        let pushed = self.count("SELECT count(*) FROM drill_event WHERE what = 'pushed'").await?;
        measurement.figure("jobs pushed", number(pushed), "");
        let lost = "SELECT count(*) FROM drill_event AS event WHERE what = 'pushed'
            AND NOT EXISTS (SELECT FROM job WHERE job.id = event.id)
            AND NOT EXISTS (SELECT FROM job_history AS history WHERE history.id = event.id AND outcome = 'SUCCEEDED')";
        let lost = self.count(lost).await? + (acknowledged - pushed).max(0);
        measurement.check("jobs lost", lost, 0);
        let twice = "SELECT count(*) - count(DISTINCT id) FROM job_history";
        measurement.check("jobs completed twice", self.count(twice).await?, 0);
        let both = "SELECT count(*) FROM job JOIN job_history USING (id)";
        measurement.check("completed jobs still in the queue", self.count(both).await?, 0);
        let twice = "SELECT count(*) - count(DISTINCT id) FROM drill_effect";
        measurement.check("effects applied twice", self.count(twice).await?, 0);
        let missing =
            "SELECT count(*) FROM drill_event AS event JOIN job_history AS history USING (id)
            WHERE what = 'pushed' AND event.kind = 'effect' AND outcome = 'SUCCEEDED'
              AND NOT EXISTS (SELECT FROM drill_effect WHERE drill_effect.id = event.mark)";
        measurement.check("effects missing", self.count(missing).await?, 0);
        let early = "SELECT count(*) FROM drill_effect AS effect
            WHERE NOT EXISTS (SELECT FROM drill_event AS event JOIN job_history AS history USING (id)
                              WHERE what = 'pushed' AND event.mark = effect.id)";
        measurement.check("effects of uncompleted jobs", self.count(early).await?, 0);
        Ok(())
    }
}
