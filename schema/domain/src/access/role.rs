//! Roles: named sets of permissions in an organization. Four are built in; organizations can define more.

use async_graphql::SimpleObject;
use serde_json::json;
use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        directive::authenticated,
        permission::{BuiltinRole, FLEET, Permission, PermissionSet},
        viewer::Viewer,
    },
    base::{
        db::{Auth, FromRow, Kind, Tx},
        entity::{OrganizationId, RoleId, UserId},
        error::{Error, FieldError, Result},
        text,
    },
};

/// A role: a named set of permissions.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(directive = authenticated::apply())]
pub struct Role {
    /// The role's id, beginning `rol_`.
    pub id: RoleId,
    /// The role's key, e.g. `operator`, used by `setUserRoles`.
    pub key: String,
    /// The role's name, shown to users.
    pub name: String,
    /// Permissions that the role grants.
    pub permissions: Vec<Permission>,
    /// True if the role is built in and cannot be changed.
    pub builtin: bool,
}

impl FromRow for Role {
    fn from_row(row: &Row) -> Result<Self> {
        let (key, builtin): (String, bool) = (row.try_get("key")?, row.try_get("builtin")?);
        let stored: Vec<String> = row.try_get("permissions")?;
        let permissions = permissions_of(&key, builtin, &stored).iter().collect();
        Ok(Self { id: row.try_get("id")?, key, name: row.try_get("name")?, permissions, builtin })
    }
}

/// Returns the permissions that a role grants: of a built-in role from the code, of a custom role from its row. Fleet
/// permissions are never included.
fn permissions_of(key: &str, builtin: bool, stored: &[String]) -> PermissionSet {
    if builtin {
        return BuiltinRole::parse(key).map_or(PermissionSet::EMPTY, BuiltinRole::permissions);
    }
    PermissionSet::from_names(stored.iter().map(String::as_str)).without(FLEET)
}

/// Columns with the keys and permissions of the roles that the member of a row of `membership` has, for [`held`].
pub(crate) const HELD: &str = "membership.permissions AS granted,
    ARRAY(SELECT role.key FROM membership_role AS held
          JOIN role ON role.org_id = held.org_id AND role.id = held.role_id
          WHERE held.org_id = membership.org_id AND held.user_id = membership.user_id
          ORDER BY role.builtin DESC, role.id) AS roles,
    ARRAY(SELECT unnest(role.permissions) FROM membership_role AS held
          JOIN role ON role.org_id = held.org_id AND role.id = held.role_id
          WHERE held.org_id = membership.org_id AND held.user_id = membership.user_id
            AND NOT role.builtin) AS custom";

/// Reads the columns [`HELD`]: the keys of the member's roles, and all permissions of the member.
pub(crate) fn held(row: &Row) -> Result<(Vec<String>, PermissionSet)> {
    let roles: Vec<String> = row.try_get("roles")?;
    let (custom, granted): (Vec<&str>, Vec<&str>) =
        (row.try_get("custom")?, row.try_get("granted")?);
    let set = permissions(&roles, &custom, &granted);
    Ok((roles, set))
}

const COLUMNS: &str =
    "SELECT role.id, role.key, role.name, role.permissions, role.builtin FROM role";

impl Role {
    /// Returns the permissions that the role grants, as a set.
    pub fn set(&self) -> PermissionSet {
        self.permissions.iter().copied().collect()
    }

    /// Returns the roles of an organization, built-in ones first.
    pub async fn list<K: Kind>(tx: &Tx<K>, org: OrganizationId) -> Result<Vec<Self>> {
        let sql = format!("{COLUMNS} WHERE org_id = $1 ORDER BY builtin DESC, id");
        tx.all(&sql, &[&org]).await
    }

    /// Returns the roles of members of the organization, as pairs of member and role.
    pub async fn of_users<K: Kind>(
        tx: &Tx<K>,
        org: OrganizationId,
        users: &[UserId],
    ) -> Result<Vec<(UserId, Self)>> {
        struct UserRole(UserId, Role);
        impl FromRow for UserRole {
            fn from_row(row: &Row) -> Result<Self> {
                Ok(Self(row.try_get("user_id")?, Role::from_row(row)?))
            }
        }
        let users: Vec<_> = users.iter().map(|user| user.uuid()).collect();
        let user_roles: Vec<UserRole> = tx
            .all(
                "SELECT membership_role.user_id, role.id, role.key, role.name, role.permissions, role.builtin
                 FROM membership_role
                 JOIN role ON role.org_id = membership_role.org_id AND role.id = membership_role.role_id
                 WHERE membership_role.org_id = $1 AND membership_role.user_id = ANY($2)
                 ORDER BY role.builtin DESC, role.id",
                &[&org, &users],
            )
            .await?;
        Ok(user_roles.into_iter().map(|UserRole(user, role)| (user, role)).collect())
    }

    /// Creates a custom role, or replaces the name and permissions of the existing role with this key.
    ///
    /// # Errors
    /// `Forbidden` if the viewer lacks a permission of the old or the new role, `Conflict` for the key of a built-in
    /// role.
    pub async fn save(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        key: &str,
        name: &str,
        permissions: &[Permission],
    ) -> Result<Self> {
        let mut faults = Vec::new();
        let name = text::check("name", name, text::NAME, &mut faults);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if key.is_empty() || key.len() > 63 || !key.chars().all(plain) || key.starts_with('-') {
            faults.push(FieldError::new(
                "key",
                "must have 1 to 63 characters of a-z, 0-9 and -, and must not start with -",
            ));
        }
        let set: PermissionSet = permissions.iter().copied().collect();
        if !set.intersection(FLEET).is_empty() {
            faults.push(FieldError::new(
                "permissions",
                "fleet permissions (FLEET_READ, FLEET_MANAGE) can be granted only with `sentryops admin grant`",
            ));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        require_all(viewer, set)?;
        let created: Option<Self> = tx
            .opt(
                "INSERT INTO role (org_id, id, key, name, permissions, builtin) VALUES ($1, $2, $3, $4, $5, false)
                 ON CONFLICT ON CONSTRAINT role_key_key DO NOTHING
                 RETURNING id, key, name, permissions, builtin",
                &[&viewer.org, &RoleId::new(), &key, &name, &set.names()],
            )
            .await?;
        if let Some(role) = created {
            Entry::created("role.created", role.id, &role.snapshot())
                .record_in(tx, viewer.org)
                .await?;
            return Ok(role);
        }
        let before = Self::lock(tx, viewer.org, key).await?;
        if before.builtin {
            return Err(Error::Conflict(format!("{key} is built in and cannot be changed")));
        }
        // Replacing the role may withdraw its old permissions from members, so the viewer must have the old ones too.
        require_all(viewer, before.set())?;
        let role: Self = tx
            .one(
                "UPDATE role SET name = $3, permissions = $4 WHERE org_id = $1 AND id = $2
                 RETURNING id, key, name, permissions, builtin",
                &[&viewer.org, &before.id, &name, &set.names()],
            )
            .await?;
        Entry::changed("role.updated", role.id, before.snapshot(), role.snapshot())
            .record_in(tx, viewer.org)
            .await?;
        Ok(role)
    }

    /// Returns the role with the key, and locks it: a check of its permissions is worth nothing if another request
    /// changes them before this one does.
    ///
    /// # Errors
    /// `NotFound` if the organization has no such role.
    async fn lock(tx: &Tx<Auth>, org: OrganizationId, key: &str) -> Result<Self> {
        let sql = format!("{COLUMNS} WHERE org_id = $1 AND key = $2 FOR UPDATE");
        // No key contains a NUL, and Postgres rejects it in a parameter.
        let found = if key.contains('\0') { None } else { tx.opt(&sql, &[&org, &key]).await? };
        found.ok_or_else(|| Error::not_found("role", key))
    }

    /// Deletes a custom role that no member has.
    ///
    /// # Errors
    /// `Forbidden` if the viewer lacks a permission of the role, `Conflict` for a built-in role, or if members still
    /// have the role.
    pub async fn delete(tx: &Tx<Auth>, viewer: &Viewer, key: &str) -> Result<RoleId> {
        let role = Self::lock(tx, viewer.org, key).await?;
        if role.builtin {
            return Err(Error::Conflict(format!("{key} is built in and cannot be deleted")));
        }
        require_all(viewer, role.set())?;
        tx.exec("DELETE FROM role WHERE org_id = $1 AND id = $2", &[&viewer.org, &role.id]).await?;
        Entry::deleted("role.deleted", role.id, role.snapshot()).record_in(tx, viewer.org).await?;
        Ok(role.id)
    }

    fn snapshot(&self) -> serde_json::Value {
        json!({ "key": self.key, "name": self.name, "permissions": self.permissions })
    }
}

/// Checks that the viewer has every permission of the set. A viewer can grant and withdraw only permissions that the
/// viewer has.
///
/// # Errors
/// `Forbidden`, with the names of the missing permissions.
pub(crate) fn require_all(viewer: &Viewer, set: PermissionSet) -> Result<()> {
    let missing = set.without(viewer.permissions);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.names().join(", ");
    Err(Error::Forbidden(format!(
        "you can only grant or withdraw permissions that you have: you lack {names}"
    )))
}

/// Returns a member's permissions: those of the built-in roles with the keys `roles`, those of custom roles (`custom`),
/// and fleet permissions (`granted`). Fleet permissions in `custom` and others in `granted` are ignored.
pub(crate) fn permissions(roles: &[String], custom: &[&str], granted: &[&str]) -> PermissionSet {
    let builtin = roles
        .iter()
        .filter_map(|key| BuiltinRole::parse(key))
        .map(BuiltinRole::permissions)
        .fold(PermissionSet::EMPTY, PermissionSet::union);
    let custom = PermissionSet::from_names(custom.iter().copied()).without(FLEET);
    let granted = PermissionSet::from_names(granted.iter().copied()).intersection(FLEET);
    builtin.union(custom).union(granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_add_up_and_the_installation_is_granted_apart() {
        let set = permissions(
            &["viewer".into(), "night-shift".into()],
            &["CHECK_RUN", "FLEET_MANAGE"],
            &["FLEET_READ", "ASSET_DELETE"],
        );
        assert!(set.contains(Permission::AssetRead) && set.contains(Permission::CheckRun));
        assert!(set.contains(Permission::FleetRead));
        assert!(!set.contains(Permission::FleetManage), "a custom role cannot hold it");
        assert!(
            !set.contains(Permission::AssetDelete),
            "a grant gives nothing of the organization's"
        );
    }
}
