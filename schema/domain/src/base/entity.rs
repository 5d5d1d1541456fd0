//! The table of entities: whatever has an id, with its prefix and names. A new noun signs here first.
//!
//! Each is a marker without data, so that an id can be named where its row is not known: `AssetId` takes no import of `Asset`, and
//! no wing has to look up into another for an id.

use uuid::Uuid;

pub use super::id::Entity;
use super::id::{Id, Names, decode, encode};

macro_rules! entities {
    ($($(#[$meta:meta])* $entity:ident, $id:ident: $prefix:literal, $name:literal, $key:literal;)+) => {
        $(
            $(#[$meta])*
            #[derive(Debug)]
            pub struct $entity;

            impl Entity for $entity {
                const PREFIX: &'static str = $prefix;
                const NAME: &'static str = $name;
                const KEY: &'static str = $key;
                const ALL: &'static [Names] = ALL;
            }

            $(#[$meta])*
            pub type $id = Id<$entity>;
        )+

        /// Every entity: how an id of another type is called by its name.
        const ALL: &[Names] =
            &[$(Names { prefix: $prefix, name: $name, key: $key }),+];
    };
}

/// The prefix of every entity, in the order of the table.
pub fn prefixes() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|names| names.prefix)
}

entities! {
    /// An organization.
    Organization, OrganizationId: "org", "organization", "organization";
    /// A person.
    User, UserId: "usr", "user", "user";
    /// A role.
    Role, RoleId: "rol", "role", "role";
    /// A session.
    Session, SessionId: "ses", "session", "session";
    /// An API key.
    ApiKey, ApiKeyId: "key", "API key", "api_key";
    /// An asset.
    Asset, AssetId: "ast", "asset", "asset";
    /// A tag.
    Tag, TagId: "tag", "tag", "tag";
    /// A dependency.
    Dependency, DependencyId: "dep", "dependency", "dependency";
    /// A custody.
    Custody, CustodyId: "cus", "custody", "custody";
    /// An audit entry.
    AuditEntry, AuditEntryId: "aud", "audit entry", "audit_entry";
    /// A job.
    Job, JobId: "job", "job", "job";
    /// A schedule.
    Schedule, ScheduleId: "sch", "schedule", "schedule";
    /// A rule.
    Rule, RuleId: "rul", "rule", "rule";
    /// A version of a rule.
    RuleVersion, RuleVersionId: "rlv", "rule version", "rule_version";
    /// A waiver.
    Waiver, WaiverId: "wvr", "waiver", "waiver";
    /// A finding.
    Finding, FindingId: "fnd", "finding", "finding";
    /// A compliance run.
    Run, RunId: "run", "compliance run", "compliance_run";
    /// An import run.
    ImportRun, ImportRunId: "imp", "import", "import_run";
}

/// The prefix of a well-formed TypeID of ours, and its uuid: for `node(id)`, which finds any.
pub fn split(text: &str) -> Option<(&'static str, Uuid)> {
    let (prefix, suffix) = text.rsplit_once('_')?;
    let known = ALL.iter().find(|known| known.prefix == prefix)?;
    Some((known.prefix, decode(suffix)?))
}

/// The TypeID of a row that the audit trail names by its key, e.g. `api_key`.
pub fn of_key(key: &str, uuid: Uuid) -> String {
    let prefix = ALL.iter().find(|known| known.key == key).map_or("row", |known| known.prefix);
    format!("{prefix}_{}", encode(uuid))
}
