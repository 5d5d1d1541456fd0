//! A hint that a row changed, sent after the commit. The row is the truth; a hint carries ids only and may be lost.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    id::{Entity, Id},
    organization::Organization,
};

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
}
