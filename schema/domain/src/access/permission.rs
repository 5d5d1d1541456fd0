//! What somebody may do: permissions, and the sets of them that roles are.
//!
//! A role is a set, never a rank that code compares: built-in and custom roles are checked the same way. Sets are a
//! 64-bit mask, so a document's check costs no allocation; choose again at the 65th permission.

use std::fmt;

use async_graphql::Enum;
use serde::{Deserialize, Serialize};

macro_rules! permissions {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// One right. What concerns the installation, not one organization, is granted by `sentryops admin` only.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enum, Serialize, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum Permission { $($(#[doc = $doc])+ $variant,)+ }

        impl Permission {
            /// Every permission, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in API and database, e.g. `ASSET_READ`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

permissions! {
    /// See assets, attributes, tags and what depends on what.
    AssetRead = "ASSET_READ",
    /// Create and change assets, dependencies, custody and tags.
    AssetWrite = "ASSET_WRITE",
    /// Delete assets.
    AssetDelete = "ASSET_DELETE",
    /// Import inventories.
    AssetImport = "ASSET_IMPORT",
    /// See rules, runs, findings, scores and reports.
    ComplianceRead = "COMPLIANCE_READ",
    /// Start and cancel compliance runs, try rules.
    ComplianceRun = "COMPLIANCE_RUN",
    /// Change rules and their parameters.
    ComplianceWrite = "COMPLIANCE_WRITE",
    /// Grant and revoke waivers.
    WaiverGrant = "WAIVER_GRANT",
    /// See services, checks and their results.
    ServiceRead = "SERVICE_READ",
    /// Change services, checks, maintenance windows and webhooks.
    ServiceWrite = "SERVICE_WRITE",
    /// Run a check on demand.
    CheckRun = "CHECK_RUN",
    /// See incidents.
    IncidentRead = "INCIDENT_READ",
    /// Acknowledge, comment and resolve incidents.
    IncidentWrite = "INCIDENT_WRITE",
    /// See triage runs and their cost.
    TriageRead = "TRIAGE_READ",
    /// Start triage runs.
    TriageRun = "TRIAGE_RUN",
    /// Accept or reject advice.
    TriageReview = "TRIAGE_REVIEW",
    /// See the organization's jobs and schedules.
    JobRead = "JOB_READ",
    /// Retry, discard and cancel jobs.
    JobManage = "JOB_MANAGE",
    /// Change schedules.
    ScheduleWrite = "SCHEDULE_WRITE",
    /// See the token budget.
    BudgetRead = "BUDGET_READ",
    /// Read the audit trail.
    AuditRead = "AUDIT_READ",
    /// See users and roles in full.
    UserRead = "USER_READ",
    /// Create, change and deactivate users, set their roles.
    UserManage = "USER_MANAGE",
    /// Define custom roles.
    RoleManage = "ROLE_MANAGE",
    /// Create and revoke API keys.
    ApiKeyManage = "API_KEY_MANAGE",
    /// Save and delete secrets.
    SecretManage = "SECRET_MANAGE",
    /// Change the organization itself.
    OrganizationManage = "ORGANIZATION_MANAGE",
    /// See the whole installation: workers, totals of the queues.
    FleetRead = "FLEET_READ",
    /// Manage the whole installation: the token budget.
    FleetManage = "FLEET_MANAGE",
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Permission {
    /// The permission of that name, or `None`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|permission| permission.as_str() == name)
    }
}

/// A set of permissions; a role is one, a viewer has the union of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PermissionSet(u64);

impl PermissionSet {
    /// No permission at all.
    pub const EMPTY: Self = Self(0);

    /// The set of these.
    pub const fn of(permissions: &[Permission]) -> Self {
        let mut mask = 0;
        let mut index = 0;
        while index < permissions.len() {
            mask |= 1 << permissions[index] as u64;
            index += 1;
        }
        Self(mask)
    }

    /// Whether the permission is in the set.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u64) != 0
    }

    /// Whether all of the other set's permissions are in this one.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// What is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is here and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its permissions, in the order of the contract.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.contains(*permission))
    }

    /// Their names, as the database keeps them.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Permission::as_str).collect()
    }

    /// The set of these names; unknown ones are left out, so a newer replica's permission is simply not had.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(Permission::parse).collect()
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        permissions
            .into_iter()
            .fold(Self::EMPTY, |set, permission| set.union(Self::of(&[permission])))
    }
}

const VIEWER: PermissionSet = PermissionSet::of(&[
    Permission::AssetRead,
    Permission::ComplianceRead,
    Permission::ServiceRead,
    Permission::IncidentRead,
    Permission::TriageRead,
    Permission::JobRead,
    Permission::BudgetRead,
]);
const OPERATOR: PermissionSet = VIEWER.union(PermissionSet::of(&[
    Permission::AssetWrite,
    Permission::AssetImport,
    Permission::ComplianceRun,
    Permission::ServiceWrite,
    Permission::CheckRun,
    Permission::IncidentWrite,
    Permission::TriageRun,
    Permission::TriageReview,
    Permission::ScheduleWrite,
]));
const ADMIN: PermissionSet = OPERATOR.union(PermissionSet::of(&[
    Permission::AssetDelete,
    Permission::ComplianceWrite,
    Permission::WaiverGrant,
    Permission::JobManage,
    Permission::AuditRead,
    Permission::UserRead,
    Permission::UserManage,
    Permission::ApiKeyManage,
    Permission::SecretManage,
]));
const OWNER: PermissionSet =
    ADMIN.union(PermissionSet::of(&[Permission::RoleManage, Permission::OrganizationManage]));

/// What concerns the installation: never part of a role, granted to a membership by `sentryops admin grant`.
pub const FLEET: PermissionSet =
    PermissionSet::of(&[Permission::FleetRead, Permission::FleetManage]);

/// The built-in roles, each with all of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuiltinRole {
    /// Reads.
    Viewer,
    /// Runs the daily work.
    Operator,
    /// Manages people, rules and jobs.
    Admin,
    /// Manages the organization.
    Owner,
}

impl BuiltinRole {
    /// All of them, lowest first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Admin, Self::Owner];

    /// The key in API and database.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The name shown to people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "Viewer",
            Self::Operator => "Operator",
            Self::Admin => "Admin",
            Self::Owner => "Owner",
        }
    }

    /// What it may do.
    pub const fn permissions(self) -> PermissionSet {
        match self {
            Self::Viewer => VIEWER,
            Self::Operator => OPERATOR,
            Self::Admin => ADMIN,
            Self::Owner => OWNER,
        }
    }

    /// The built-in role of that key, or `None`.
    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.key() == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_builtin_role_has_all_of_the_one_before() {
        for pair in BuiltinRole::ALL.windows(2) {
            assert!(pair[1].permissions().covers(pair[0].permissions()));
            assert!(!pair[0].permissions().covers(pair[1].permissions()));
        }
    }

    #[test]
    fn no_role_has_a_permission_of_the_installation() {
        assert!(BuiltinRole::Owner.permissions().intersection(FLEET).is_empty());
        let all: PermissionSet = Permission::ALL.iter().copied().collect();
        assert_eq!(BuiltinRole::Owner.permissions().union(FLEET), all);
    }

    #[test]
    fn a_set_survives_its_names() {
        let set = BuiltinRole::Admin.permissions();
        assert_eq!(PermissionSet::from_names(set.names()), set);
        assert_eq!(PermissionSet::from_names(["FROM_THE_FUTURE"]), PermissionSet::EMPTY);
    }
}
