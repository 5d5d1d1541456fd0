//! Rows of an organization as an earlier version of SentryOps (commit 62781e4) stored them, with the credentials of its
//! users, for compatibility tests.
//!
//! Created by running the binaries of that commit. Afterwards only the organization's slug was changed, and its audit
//! trail and job history were shortened. The organization has one waiting job of each kind, except `scan.shard` version
//! 1, which that commit could run but no longer created. The keys and passwords were generated for this file and give
//! access to nothing else.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::TestDb;
use crate::{base::id::Id, entity::OrganizationId};

/// The rows as `INSERT` statements.
const ROWS: &str = include_str!("earlier/rows.sql");
const CURSORS: &str = include_str!("earlier/cursors.json");

/// E-mail of the user with the role `owner`.
pub const OWNER: &str = "owner@acme.example";
/// Password of every user, hashed with Argon2id at 19 MiB and two passes.
pub const PASSWORD: &str = "correct pelican mosaic";
/// The key ring that signed access tokens, in the form of `JWT_KEYS`.
pub const JWT_KEYS: &str = "before:0bgc7ABNybY0L_ckfp1QPgVnqWXsFe1Ruu1wjQTNXt4";
/// The key ring from which cursor keys are derived, in the form of `ENCRYPTION_KEYS`.
pub const ENCRYPTION_KEYS: &str = "before:VDmyKcR3oiEbMfyE3LG0B-B3f1y4LSJmTjrSO6KXS1Y";
/// Access token of the owner, issued at [`signed_in_at`] and valid for 30 minutes.
pub const ACCESS_TOKEN: &str = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiIsImtpZCI6ImJlZm9yZSJ9.eyJzdWIiOiJ1c3JfMDFtOHFqYnh6emUwYmJkOTdiNWg4YTlhZ3kiLCJzaWQiOiJzZXNfMDFtOHFqZTN3MmU2a3JoaDY0Ym0wdHcwbmMiLCJvcmciOiJvcmdfMDFtOHFqYng1emVuOHJoanZlejducWI0djAiLCJpYXQiOjE3OTYwODc0MTgsIm5iZiI6MTc5NjA4NzQxOCwiZXhwIjoxNzk2MDg5MjE4LCJqdGkiOiI4ZjgzNTEzZC01YjNiLTRjOTQtYmExOC1jOWFlOTY1YjdmMzMiLCJpc3MiOiJzZW50cnlvcHMiLCJhdWQiOiJzZW50cnlvcHMtYXBpIn0.mk1AR0AiBtw46wF9Ahgdu-gYS7NrLMqOho8hZb5eRF4";
/// Unused refresh token of the same session, which expires 14 days after [`signed_in_at`].
pub const REFRESH_TOKEN: &str = "-IIovnOb2eB3FLbWHiFy0f8W76dIlpUTKWSBmSwICJk";
/// An API key that may read assets and run compliance, valid until September 2027.
pub const API_KEY: &str = "sok_NSA5EIXFJJ_UlyNUsF0Jv1w_nSWLcnBHylsCsZBofbBpDxdeehtl20e88b48";

/// Returns the time of the owner's sign-in.
pub fn signed_in_at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_796_087_418, 0).expect("the second is one of December 2026")
}

/// Returns the id of the restored organization.
pub fn organization() -> OrganizationId {
    Id::from(Uuid::from_u128(0x01a2_2f25_f4bf_7551_88cb_6ef9_eb75_9360))
}

/// Splits a key ring with a single key into the key's id and its encoded secret.
pub fn only_key(ring: &'static str) -> (&'static str, &'static str) {
    ring.split_once(':').expect("a ring is `kid:secret`")
}

/// A cursor that the earlier version issued, and the nodes that must follow it.
#[derive(Debug, Deserialize)]
pub struct Cursor {
    /// Name of the list, for messages.
    pub name: String,
    /// Query for the nodes after `$after`.
    pub query: String,
    /// Path of response fields to the connection.
    pub path: Vec<String>,
    /// Text of the cursor, used as `$after`.
    pub cursor: String,
    /// Nodes that follow the cursor.
    pub rest: Vec<Value>,
}

/// Returns one or more cursors of each kind of list.
pub fn cursors() -> Vec<Cursor> {
    serde_json::from_str(CURSORS).expect("the file is a list of cursors")
}

/// Inserts the rows into a fresh database, as restoring a backup would.
pub async fn restore(db: &TestDb) {
    let client = db.superuser().await;
    // The rows are ordered by table, not by foreign key, so foreign keys are disabled during the import.
    let sql = format!("SET session_replication_role = replica; {ROWS}");
    client
        .batch_execute(&sql)
        .await
        .expect("the current tables accept the rows of the earlier version");
}
