//! Permissions, and the sets of permissions that roles are made of.
//!
//! Checks test for a permission, never for a role, so built-in and custom roles work in the same way. A set is a 64-bit
//! mask, so the permission check of a GraphQL document allocates nothing. Revisit when a 65th permission is needed.
//!
//! Fleet permissions (`FLEET_READ`, `FLEET_MANAGE`) apply to the fleet, i.e. to the whole installation with all of its
//! organizations. All others apply to one organization.

use std::fmt;

use async_graphql::Enum;
use serde::{Deserialize, Serialize};

macro_rules! permissions {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A permission in one organization. The fleet permissions `FLEET_READ` and `FLEET_MANAGE` apply to the whole
        /// installation instead; only `sentryops admin grant` grants these two.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enum, Serialize, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum Permission { $($(#[doc = $doc])+ $variant,)+ }

        impl Permission {
            /// List of all permissions, in the order of the enum.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the name used in the API and in the database, e.g. `ASSET_READ`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

permissions! {
    /// Read assets, attributes, tags, dependencies and custodies (check-out records).
    AssetRead = "ASSET_READ",
    /// Create and change assets, dependencies and tags; check assets out and in.
    AssetWrite = "ASSET_WRITE",
    /// Delete assets of the organization.
    AssetDelete = "ASSET_DELETE",
    /// Import assets and dependencies from files.
    AssetImport = "ASSET_IMPORT",
    /// Read compliance rules, runs, findings, waivers, scores and reports.
    ComplianceRead = "COMPLIANCE_READ",
    /// Start and cancel compliance runs, and test rules before saving them.
    ComplianceRun = "COMPLIANCE_RUN",
    /// Create and change compliance rules and their parameters.
    ComplianceWrite = "COMPLIANCE_WRITE",
    /// Grant and revoke waivers, which are time-limited exceptions to rules.
    WaiverGrant = "WAIVER_GRANT",
    /// Read services, checks and their results.
    ServiceRead = "SERVICE_READ",
    /// Change services, checks, maintenance windows and webhooks.
    ServiceWrite = "SERVICE_WRITE",
    /// Run a service check on demand.
    CheckRun = "CHECK_RUN",
    /// Read incidents of the organization.
    IncidentRead = "INCIDENT_READ",
    /// Acknowledge, comment on and resolve incidents.
    IncidentWrite = "INCIDENT_WRITE",
    /// Read AI triage runs of incidents, and the cost of the runs.
    TriageRead = "TRIAGE_READ",
    /// Start AI triage runs of incidents.
    TriageRun = "TRIAGE_RUN",
    /// Accept or reject the advice of an AI triage run.
    TriageReview = "TRIAGE_REVIEW",
    /// Read the organization's jobs and schedules.
    JobRead = "JOB_READ",
    /// Retry, discard and cancel jobs.
    JobManage = "JOB_MANAGE",
    /// Create, change and delete schedules.
    ScheduleWrite = "SCHEDULE_WRITE",
    /// Read the LLM token budget of the organization.
    BudgetRead = "BUDGET_READ",
    /// Read the organization's audit trail.
    AuditRead = "AUDIT_READ",
    /// Read all fields of users, and list users and roles. Without this permission a caller reads only the id and name
    /// of other users.
    UserRead = "USER_READ",
    /// Create, change and deactivate users, and set their roles.
    UserManage = "USER_MANAGE",
    /// Define and delete custom roles.
    RoleManage = "ROLE_MANAGE",
    /// Create and revoke API keys.
    ApiKeyManage = "API_KEY_MANAGE",
    /// Save and delete secrets of the organization.
    SecretManage = "SECRET_MANAGE",
    /// Change the settings of the organization.
    OrganizationManage = "ORGANIZATION_MANAGE",
    /// Read the state of the fleet: workers, and queue totals over all organizations.
    FleetRead = "FLEET_READ",
    /// Change the installation-wide LLM token budget.
    FleetManage = "FLEET_MANAGE",
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Permission {
    /// Returns the permission with the name, or `None` if it is unknown.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|permission| permission.as_str() == name)
    }
}

/// A set of permissions. A role grants one set; a caller has the union of the sets of all roles that the caller holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PermissionSet(u64);

impl PermissionSet {
    /// The set without any permission.
    pub const EMPTY: Self = Self(0);

    /// Returns the set of these permissions.
    pub const fn of(permissions: &[Permission]) -> Self {
        let mut mask = 0;
        let mut index = 0;
        while index < permissions.len() {
            mask |= 1 << permissions[index] as u64;
            index += 1;
        }
        Self(mask)
    }

    /// Returns true if the permission is in the set.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u64) != 0
    }

    /// Returns true if every permission of `other` is in this set.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Returns the permissions in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the permissions in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the permissions of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns true if the set has no permission.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Iterates over the permissions, in the order of the enum.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.contains(*permission))
    }

    /// Returns the names of the permissions, as the database stores them.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Permission::as_str).collect()
    }

    /// Returns the set of these names. Unknown names, e.g. of permissions added by a newer server version, are ignored
    /// and grant nothing.
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

/// Fleet permissions, which apply to the whole installation. No role contains these permissions; `sentryops admin
/// grant` grants them to individual members.
pub const FLEET: PermissionSet =
    PermissionSet::of(&[Permission::FleetRead, Permission::FleetManage]);

/// Permissions that no API key can have: with these, a stolen key, or the key of somebody who lost access, could give
/// people access again.
pub const NOT_FOR_KEYS: PermissionSet = PermissionSet::of(&[
    Permission::UserManage,
    Permission::RoleManage,
    Permission::ApiKeyManage,
    Permission::OrganizationManage,
    Permission::FleetRead,
    Permission::FleetManage,
]);

/// The built-in roles. Each role has all permissions of the previous role, and additional ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuiltinRole {
    /// Reads the organization's data, except user details and the audit trail.
    Viewer,
    /// Changes assets, services, checks and schedules, works on incidents, and starts compliance and AI triage runs.
    Operator,
    /// Manages users, API keys, rules, waivers, jobs and secrets, and reads the audit trail.
    Admin,
    /// Manages custom roles and the organization's settings.
    Owner,
}

impl BuiltinRole {
    /// The built-in roles, lowest first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Admin, Self::Owner];

    /// Returns the key used in the API and in the database.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// Returns the name shown to users.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "Viewer",
            Self::Operator => "Operator",
            Self::Admin => "Admin",
            Self::Owner => "Owner",
        }
    }

    /// Returns the permissions that the role grants.
    pub const fn permissions(self) -> PermissionSet {
        match self {
            Self::Viewer => VIEWER,
            Self::Operator => OPERATOR,
            Self::Admin => ADMIN,
            Self::Owner => OWNER,
        }
    }

    /// Returns the built-in role with the key, or `None`.
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
