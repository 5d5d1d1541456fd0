//! The table of entities: every type of object that has an id, with the prefix of its ids and its names. A new entity
//! is added here first.
//!
//! Each entity is a marker type without data, so that code can name an id without importing the type of its row:
//! `AssetId` needs no import of `Asset`, and no module has to import a module above it for an id.

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

        /// Names of every entity, to describe an id of the wrong type.
        const ALL: &[Names] =
            &[$(Names { prefix: $prefix, name: $name, key: $key }),+];
    };
}

/// Returns the prefix of every entity, in the order of the table.
pub fn prefixes() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|names| names.prefix)
}

entities! {
    /// An organization: the tenant that owns rows.
    Organization, OrganizationId: "org", "organization", "organization";
    /// A person who can sign in.
    User, UserId: "usr", "user", "user";
    /// A role: a named set of permissions.
    Role, RoleId: "rol", "role", "role";
    /// A session of a signed-in person.
    Session, SessionId: "ses", "session", "session";
    /// An API key for a program.
    ApiKey, ApiKeyId: "key", "API key", "api_key";
    /// An asset of the inventory.
    Asset, AssetId: "ast", "asset", "asset";
    /// A tag that assets carry.
    Tag, TagId: "tag", "tag", "tag";
    /// A dependency of one asset on another.
    Dependency, DependencyId: "dep", "dependency", "dependency";
    /// A custody (check-out record): one user holds one asset, from check-out to check-in.
    Custody, CustodyId: "cus", "custody", "custody";
    /// An entry of the audit trail.
    AuditEntry, AuditEntryId: "aud", "audit entry", "audit_entry";
    /// A job: one unit of work for a worker.
    Job, JobId: "job", "job", "job";
    /// A schedule that starts jobs at recurring times.
    Schedule, ScheduleId: "sch", "schedule", "schedule";
    /// A compliance rule, with all of its versions.
    Rule, RuleId: "rul", "rule", "rule";
    /// A version of a rule, with its condition and parameters.
    RuleVersion, RuleVersionId: "rlv", "rule version", "rule_version";
    /// A waiver: a time-limited exception to one rule, for one asset or for all assets.
    Waiver, WaiverId: "wvr", "waiver", "waiver";
    /// A finding: one asset violates one rule.
    Finding, FindingId: "fnd", "finding", "finding";
    /// A compliance run over a set of assets.
    Run, RunId: "run", "compliance run", "compliance_run";
    /// An import run: the import of one uploaded file.
    ImportRun, ImportRunId: "imp", "import", "import_run";
}

/// Splits a TypeID of any entity into its prefix and UUID. Returns `None` if the text is malformed or the prefix
/// unknown.
pub fn split(text: &str) -> Option<(&'static str, Uuid)> {
    let (prefix, suffix) = text.rsplit_once('_')?;
    let entity = ALL.iter().find(|entity| entity.prefix == prefix)?;
    Some((entity.prefix, decode(suffix)?))
}

/// Returns the TypeID of an entity from its key (e.g. `api_key`) and UUID, as the audit trail stores them. An unknown
/// key gets the prefix `row`.
pub fn type_id_of(key: &str, uuid: Uuid) -> String {
    let prefix = ALL.iter().find(|entity| entity.key == key).map_or("row", |entity| entity.prefix);
    format!("{prefix}_{}", encode(uuid))
}
