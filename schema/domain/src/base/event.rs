//! A hint that a row changed, sent after the commit. The row is the truth; a hint carries ids only and may be lost.
//!
//! Jobs come by the thousand, so theirs name the queue or the organization and no row.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    base::{
        entity::{self, Entity, OrganizationId},
        id::Id,
    },
    fleet::job::Queue,
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

    /// Jobs of this organization are ready in that queue: who takes from it need not wait for the next poll.
    pub fn ready(org: OrganizationId, queue: Queue) -> Self {
        Self { org: org.uuid(), kind: Self::ready_kind(queue), id: Uuid::nil() }
    }

    /// The kind of such hints.
    pub fn ready_kind(queue: Queue) -> String {
        format!("queue.{}", queue.as_str().to_lowercase())
    }

    /// Jobs of this organization changed.
    pub fn jobs(org: OrganizationId) -> Self {
        Self { org: org.uuid(), kind: entity::Job::PREFIX.to_owned(), id: Uuid::nil() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_about_jobs_name_no_row() {
        let org = Id::new();
        let kinds = [Event::ready(org, Queue::Scan), Event::jobs(org)].map(|event| {
            assert_eq!((event.org, event.id), (org.uuid(), Uuid::nil()));
            event.kind
        });
        assert_eq!(kinds, ["queue.scan", "job"]);
    }
}
