//! A role: a named set of permissions in an organization. Four are built in; more may be defined there.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
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

/// A named set of permissions.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(directive = authenticated::apply())]
pub struct Role {
    /// Its id.
    pub id: RoleId,
    /// Its key, e.g. `operator`; what `setUserRoles` takes.
    pub key: String,
    /// Its name.
    pub name: String,
    /// What its holders may do.
    pub permissions: Vec<Permission>,
    /// Whether it comes with SentryOps and cannot be changed.
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

/// What a role's row grants: built-in ones by the code, custom ones by the row, never what concerns the installation.
fn permissions_of(key: &str, builtin: bool, stored: &[String]) -> PermissionSet {
    if builtin {
        return BuiltinRole::parse(key).map_or(PermissionSet::EMPTY, BuiltinRole::permissions);
    }
    PermissionSet::from_names(stored.iter().map(String::as_str)).without(FLEET)
}

const COLUMNS: &str =
    "SELECT role.id, role.key, role.name, role.permissions, role.builtin FROM role";

impl Role {
    /// What its holders may do.
    pub fn set(&self) -> PermissionSet {
        self.permissions.iter().copied().collect()
    }

    /// The roles of an organization, built-in ones first.
    pub async fn list<K: Kind>(tx: &Tx<K>, org: OrganizationId) -> Result<Vec<Self>> {
        let sql = format!("{COLUMNS} WHERE org_id = $1 ORDER BY builtin DESC, id");
        tx.all(&sql, &[&org]).await
    }

    /// The roles of members of the organization, each with its holder.
    pub async fn of_users<K: Kind>(
        tx: &Tx<K>,
        org: OrganizationId,
        users: &[UserId],
    ) -> Result<Vec<(UserId, Self)>> {
        struct Held(UserId, Role);
        impl FromRow for Held {
            fn from_row(row: &Row) -> Result<Self> {
                Ok(Self(row.try_get("user_id")?, Role::from_row(row)?))
            }
        }
        let users: Vec<_> = users.iter().map(|user| user.uuid()).collect();
        let held: Vec<Held> = tx
            .all(
                "SELECT membership_role.user_id, role.id, role.key, role.name, role.permissions, role.builtin
                 FROM membership_role
                 JOIN role ON role.org_id = membership_role.org_id AND role.id = membership_role.role_id
                 WHERE membership_role.org_id = $1 AND membership_role.user_id = ANY($2)
                 ORDER BY role.builtin DESC, role.id",
                &[&org, &users],
            )
            .await?;
        Ok(held.into_iter().map(|Held(user, role)| (user, role)).collect())
    }

    /// Defines a custom role, or redefines it.
    ///
    /// # Errors
    /// `Forbidden` where it would hold what the viewer lacks, `Conflict` for a built-in key.
    pub async fn save(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        key: &str,
        name: &str,
        permissions: &[Permission],
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let mut faults = Vec::new();
        let name = text::check("name", name, text::NAME, &mut faults);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if key.is_empty() || key.len() > 63 || !key.chars().all(plain) || key.starts_with('-') {
            faults.push(FieldError::new(
                "key",
                "must be 1 to 63 of a-z, 0-9 and -, not starting with -",
            ));
        }
        let set: PermissionSet = permissions.iter().copied().collect();
        if !set.intersection(FLEET).is_empty() {
            faults.push(FieldError::new(
                "permissions",
                "what concerns the installation is granted by `sentryops admin grant` only",
            ));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        refuse_beyond(viewer, set)?;
        let existing = Self::list(tx, viewer.org).await?.into_iter().find(|role| role.key == key);
        if let Some(role) = &existing {
            if role.builtin {
                return Err(Error::Conflict(format!("{key} is built in and cannot be changed")));
            }
            // Narrowing it must not be a way to touch what one could not grant.
            refuse_beyond(viewer, role.set())?;
        }
        let role: Self = tx
            .one(
                "INSERT INTO role (org_id, id, key, name, permissions, builtin) VALUES ($1, $2, $3, $4, $5, false)
                 ON CONFLICT ON CONSTRAINT role_key_key DO UPDATE SET name = $4, permissions = $5
                 RETURNING id, key, name, permissions, builtin",
                &[&viewer.org, &RoleId::new(), &key, &name, &set.names()],
            )
            .await?;
        let entry = match existing {
            None => Entry::created("role.created", role.id, &role.snapshot()),
            Some(before) => {
                Entry::changed("role.updated", role.id, before.snapshot(), role.snapshot())
            }
        };
        entry.record_in(tx, viewer.org, now).await?;
        Ok(role)
    }

    /// Deletes a custom role that nobody holds.
    pub async fn delete(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        key: &str,
        now: DateTime<Utc>,
    ) -> Result<RoleId> {
        let roles = Self::list(tx, viewer.org).await?;
        let role = roles
            .into_iter()
            .find(|role| role.key == key)
            .ok_or_else(|| Error::not_found("role", key))?;
        if role.builtin {
            return Err(Error::Conflict(format!("{key} is built in and cannot be deleted")));
        }
        refuse_beyond(viewer, role.set())?;
        let deleted = tx
            .exec("DELETE FROM role WHERE org_id = $1 AND id = $2", &[&viewer.org, &role.id])
            .await?;
        if deleted == 0 {
            return Err(Error::not_found("role", key)); // Somebody else was faster.
        }
        Entry::deleted("role.deleted", role.id, role.snapshot())
            .record_in(tx, viewer.org, now)
            .await?;
        Ok(role.id)
    }

    fn snapshot(&self) -> serde_json::Value {
        json!({ "key": self.key, "name": self.name, "permissions": self.permissions })
    }
}

/// Nobody grants what they lack.
pub(crate) fn refuse_beyond(viewer: &Viewer, set: PermissionSet) -> Result<()> {
    let lacking = set.without(viewer.permissions);
    if lacking.is_empty() {
        return Ok(());
    }
    let names = lacking.names().join(", ");
    Err(Error::Forbidden(format!("nobody grants or takes what they lack: you do not have {names}")))
}

/// What somebody may do: built-in roles by the code, custom ones by their rows, and what the installation granted.
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
