//! An organization as an earlier version (commit 62781e4) stored it, and what its users held in their hands.
//!
//! Made by running the binaries of that commit; afterwards only the organization's slug was changed, and its audit and the history
//! of its jobs were shortened. One row of each kind of job waits in it, except `scan.shard` of version 1, which that commit only read.
//! The keys and passwords were made for this file and open nothing else.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::TestDb;
use crate::{base::id::Id, entity::OrganizationId};

/// The rows, as `INSERT` statements.
const ROWS: &str = include_str!("earlier/rows.sql");
const CURSORS: &str = include_str!("earlier/cursors.json");

/// The e-mail of the organization's owner.
pub const OWNER: &str = "owner@acme.example";
/// The password of everybody, hashed by Argon2id with 19 MiB and two passes.
pub const PASSWORD: &str = "correct pelican mosaic";
/// The ring that signed access tokens, as `JWT_KEYS` had it.
pub const JWT_KEYS: &str = "before:0bgc7ABNybY0L_ckfp1QPgVnqWXsFe1Ruu1wjQTNXt4";
/// The ring from which the keys of cursors are derived, as `ENCRYPTION_KEYS` had it.
pub const ENCRYPTION_KEYS: &str = "before:VDmyKcR3oiEbMfyE3LG0B-B3f1y4LSJmTjrSO6KXS1Y";
/// An access token of the owner, made at [`signed_in_at`] for half an hour.
pub const ACCESS_TOKEN: &str = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiIsImtpZCI6ImJlZm9yZSJ9.eyJzdWIiOiJ1c3JfMDFtOHFqYnh6emUwYmJkOTdiNWg4YTlhZ3kiLCJzaWQiOiJzZXNfMDFtOHFqZTN3MmU2a3JoaDY0Ym0wdHcwbmMiLCJvcmciOiJvcmdfMDFtOHFqYng1emVuOHJoanZlejducWI0djAiLCJpYXQiOjE3OTYwODc0MTgsIm5iZiI6MTc5NjA4NzQxOCwiZXhwIjoxNzk2MDg5MjE4LCJqdGkiOiI4ZjgzNTEzZC01YjNiLTRjOTQtYmExOC1jOWFlOTY1YjdmMzMiLCJpc3MiOiJzZW50cnlvcHMiLCJhdWQiOiJzZW50cnlvcHMtYXBpIn0.mk1AR0AiBtw46wF9Ahgdu-gYS7NrLMqOho8hZb5eRF4";
/// The unused refresh token of the same session, which lasts 14 days.
pub const REFRESH_TOKEN: &str = "-IIovnOb2eB3FLbWHiFy0f8W76dIlpUTKWSBmSwICJk";
/// An API key that may read assets and run compliance, until September 2027.
pub const API_KEY: &str = "sok_NSA5EIXFJJ_UlyNUsF0Jv1w_nSWLcnBHylsCsZBofbBpDxdeehtl20e88b48";

/// When the owner signed in.
pub fn signed_in_at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_796_087_418, 0).expect("the second is one of December 2026")
}

/// The organization's id.
pub fn organization() -> OrganizationId {
    Id::from(Uuid::from_u128(0x01a2_2f25_f4bf_7551_88cb_6ef9_eb75_9360))
}

/// The only key of a ring: its name, and the text of its secret.
pub fn only_key(ring: &'static str) -> (&'static str, &'static str) {
    ring.split_once(':').expect("a ring is `kid:secret`")
}

/// The end of a list's first page, and the list after it.
#[derive(Debug, Deserialize)]
pub struct Cursor {
    /// The list, for messages.
    pub name: String,
    /// The query for what follows `$after`.
    pub query: String,
    /// The fields of the answer on the way to the connection.
    pub path: Vec<String>,
    /// The cursor's text.
    pub cursor: String,
    /// The nodes that followed.
    pub rest: Vec<Value>,
}

/// One or more cursors of each kind of list.
pub fn cursors() -> Vec<Cursor> {
    serde_json::from_str(CURSORS).expect("the file is a list of cursors")
}

/// Puts the rows into a fresh database, as a restored backup would be.
pub async fn restore(db: &TestDb) {
    let client = db.superuser().await;
    // The rows come table by table, not in the order of their foreign keys.
    let sql = format!("SET session_replication_role = replica; {ROWS}");
    client.batch_execute(&sql).await.expect("today's tables take the rows of the version before");
}
