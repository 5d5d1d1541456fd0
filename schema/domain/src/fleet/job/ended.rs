//! How a watched job tells that it ended without being done: by a job.
//!
//! Whoever pushed it waits for it, e.g. a run for its shards. So what buries, discards or cancels a watched job pushes,
//! in the same statement, a job of the kind `<its kind>.ended`, which tells them. It is a constant, because the queue
//! (crate `jobs`) buries many at once, and people discard one.

macro_rules! new_id {
    () => {
        "encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
            substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid"
    };
}

/// A fresh id, made by Postgres for statements that push: a UUIDv7 as ours are, to the millisecond. (It makes them
/// itself from version 18 on.)
pub const NEW_ID: &str = new_id!();

/// Pushes what tells of watched jobs that they ended. Part of a statement that has a `WITH ended AS (…)`: rows of `job`
/// as they were, and as `outcome` what became of them, `BURIED`, `DISCARDED` or `CANCELLED`.
///
/// The payload is `{"outcome": …, "error": …, "subject": …}`; not the payload of the ended one: that it could not be read
/// may be why it ended. It runs as the system, before what else waits, and is not watched itself. Kinds of watched jobs
/// have at most 58 letters, as 64 is what fits a kind.
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
