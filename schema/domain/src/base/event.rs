//! A hint that a row changed, sent after the commit. The row is the truth; a hint carries ids only and may be lost.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::{
    entity::{Entity, OrganizationId},
    id::Id,
};

/// The kind of an event that says: what somebody may do in the organization changed. Its id is the organization's.
pub const RIGHTS: &str = "rights";

/// A row of an organization changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// Whose row.
    pub org: Uuid,
    /// The prefix of its id's type, e.g. `ast`; or `queue.scan`, where jobs are ready.
    pub kind: String,
    /// Its id; nil where a hint names no row.
    pub id: Uuid,
}

impl Event {
    /// This row of this organization changed.
    pub fn changed<T: Entity>(org: OrganizationId, id: Id<T>) -> Self {
        Self { org: org.uuid(), kind: T::PREFIX.to_owned(), id: id.uuid() }
    }

    /// What somebody may do in this organization changed: a session ended, a role, a member or a key changed.
    pub fn rights(org: OrganizationId) -> Self {
        Self { org: org.uuid(), kind: RIGHTS.to_owned(), id: org.uuid() }
    }
}
