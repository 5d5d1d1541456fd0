//! A hint that a row changed, sent after the commit. The row is the truth; a hint carries ids only and may be lost.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    id::{Entity, Id},
    organization::Organization,
};

/// The kind of an event that says: what somebody may do in the organization changed. Its id is the organization's.
pub const RIGHTS: &str = "rights";

/// A row of an organization changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Whose row.
    pub org: Uuid,
    /// The prefix of its id's type, e.g. `ast`.
    pub kind: String,
    /// Its id.
    pub id: Uuid,
}

impl Event {
    /// This row of this organization changed.
    pub fn changed<T: Entity>(org: Id<Organization>, id: Id<T>) -> Self {
        Self { org: org.uuid(), kind: T::PREFIX.to_owned(), id: id.uuid() }
    }

    /// What somebody may do in this organization changed: a session ended, a role, a member or a key changed.
    pub fn rights(org: Id<Organization>) -> Self {
        Self { org: org.uuid(), kind: RIGHTS.to_owned(), id: org.uuid() }
    }
}
