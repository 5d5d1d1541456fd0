//! Notification that a watched job (`Job::WATCHED` in the crate `jobs`) ended without success. The notification is
//! itself a job.
//!
//! The code that pushed a watched job depends on its end, e.g. a compliance run on its shards. Every statement that
//! buries (dead-letters), discards or cancels a watched job therefore also pushes a job of the kind `<kind>.ended`. The
//! SQL is a constant, because it is used here for one job, and in the queue (crate `jobs`) for many.

macro_rules! new_id {
    () => {
        "encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
            substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid"
    };
}

/// SQL expression for a new id, for statements that push jobs: a UUIDv7 with a timestamp in milliseconds. Postgres has
/// a function for it from version 18 on.
pub const NEW_ID: &str = new_id!();

/// INSERT that pushes the notification jobs. The statement around it contains a `WITH ended AS (…)`, which returns the
/// previous rows of `job` and the result as `outcome`: `BURIED`, `DISCARDED` or `CANCELLED`.
///
/// The payload is `{"outcome": …, "error": …, "subject": …}`. It does not contain the payload of the ended job, which
/// may have been buried for a payload that cannot be parsed. The notification runs as the system, with a higher
/// priority than other jobs, and is not watched itself. Kinds of watched jobs have at most 58 characters, because a
/// kind has at most 64.
pub const ENDED_INSERT: &str = concat!(
    "INSERT INTO job (id, org_id, queue, kind, version, payload, subject, state, priority, run_at, max_attempts,
                      actor_kind, queued_at, changed_at)
     SELECT ",
    new_id!(),
    ", org_id, queue, kind || '.ended', version,
            jsonb_build_object('outcome', outcome, 'error', error, 'subject', subject), subject, 'WAITING',
            least(priority::bigint + 1000000, 2147483647)::integer, now(), 20, 'system', now(), now()
     FROM ended WHERE watched"
);
