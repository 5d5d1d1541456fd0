//! Events: hints, i.e. notifications without content that a row may have changed, sent after the commit. Events carry
//! ids only and can be lost, so receivers always read the row.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::{
    entity::{Entity, OrganizationId},
    id::Id,
};

/// Kind of an event after which the permissions of a user or API key of the organization may have changed. The event's
/// id is the organization's id.
pub const PERMISSIONS_CHANGED: &str = "rights";

/// A hint that a row of an organization may have changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// Id of the organization that owns the row.
    pub org: Uuid,
    /// Prefix of the row's TypeID, e.g. `ast`; or [`PERMISSIONS_CHANGED`]; or `queue.<name>`, e.g. `queue.scan`, if
    /// jobs of this queue are ready to run.
    pub kind: String,
    /// Id of the row; nil if the event refers to no row.
    pub id: Uuid,
}

impl Event {
    /// Returns the event of a changed row.
    pub fn changed<T: Entity>(org: OrganizationId, id: Id<T>) -> Self {
        Self { org: org.uuid(), kind: T::PREFIX.to_owned(), id: id.uuid() }
    }

    /// Returns the event of changed permissions: a session ended, or a role, a member or an API key changed.
    pub fn permissions_changed(org: OrganizationId) -> Self {
        Self { org: org.uuid(), kind: PERMISSIONS_CHANGED.to_owned(), id: org.uuid() }
    }
}
