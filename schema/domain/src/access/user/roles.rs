//! Permissions of a member: the roles in the organization, and fleet permissions that the installation's operator
//! grants.

use serde_json::json;
use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        permission::{FLEET, PermissionSet},
        role::{self, Role},
        user::User,
        viewer::Viewer,
    },
    base::{
        db::{Auth, Tx},
        entity::{OrganizationId, UserId},
        error::{Error, FieldError, Result},
    },
};

impl User {
    /// Replaces a member's roles in the organization.
    ///
    /// # Errors
    /// `Forbidden` if the viewer lacks a permission of a role to add or remove. `Conflict` if the organization would
    /// have no active owner.
    pub async fn set_roles(
        tx: &Tx<Auth>,
        org: OrganizationId,
        viewer: Option<&Viewer>,
        id: UserId,
        keys: &[String],
    ) -> Result<Self> {
        let user = Self::member(tx, org, id).await?;
        let known = Role::list(tx, org).await?;
        let mut requested = Vec::new();
        let mut faults = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match known.iter().find(|role| role.key == *key) {
                Some(role) if requested.contains(role) => {}
                Some(role) => requested.push(role.clone()),
                None => faults.push(FieldError {
                    path: format!("roles.{index}"),
                    message: "there is no role with this key".to_owned(),
                    suggestion: Some(
                        known.iter().map(|role| role.key.as_str()).collect::<Vec<_>>().join(", "),
                    ),
                }),
            }
        }
        if keys.is_empty() {
            faults.push(FieldError::new(
                "roles",
                "a user needs at least one role: to withdraw access, deactivate the user",
            ));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let current_roles: Vec<Role> =
            Role::of_users(tx, org, &[id]).await?.into_iter().map(|(_, role)| role).collect();
        let differing: Vec<&Role> = requested
            .iter()
            .filter(|role| !current_roles.contains(role))
            .chain(current_roles.iter().filter(|role| !requested.contains(role)))
            .collect();
        if differing.is_empty() {
            return Ok(user);
        }
        let sets = differing.into_iter().map(Role::set);
        let changed_permissions = sets.fold(PermissionSet::EMPTY, PermissionSet::union);
        if let Some(viewer) = viewer {
            role::require_all(viewer, changed_permissions)?;
        }
        let requested_ids: Vec<_> = requested.iter().map(|role| role.id.uuid()).collect();
        tx.exec(
            "DELETE FROM membership_role WHERE org_id = $1 AND user_id = $2 AND role_id <> ALL($3)",
            &[&org, &id, &requested_ids],
        )
        .await?;
        tx.exec(
            "INSERT INTO membership_role (org_id, user_id, role_id)
             SELECT $1, $2, unnest($3::uuid[]) ON CONFLICT DO NOTHING",
            &[&org, &id, &requested_ids],
        )
        .await?;
        let keys = |roles: &[Role]| json!({ "roles": roles.iter().map(|role| role.key.as_str()).collect::<Vec<_>>() });
        Entry::changed("member.role_changed", id, keys(&current_roles), keys(&requested))
            .record_in(tx, org)
            .await?;
        Ok(user)
    }

    /// Replaces a member's fleet permissions; other permissions in the set are ignored. Used by `sentryops admin grant`
    /// only.
    pub async fn grant(
        tx: &Tx<Auth>,
        org: OrganizationId,
        id: UserId,
        permissions: PermissionSet,
    ) -> Result<()> {
        Self::member(tx, org, id).await?;
        let names = permissions.intersection(FLEET).names();
        tx.exec(
            "UPDATE membership SET permissions = $3 WHERE org_id = $1 AND user_id = $2",
            &[&org, &id, &names],
        )
        .await?;
        Entry::created("member.granted", id, &json!({ "permissions": names }))
            .record_in(tx, org)
            .await
    }

    /// Checks that the viewer has every permission of the member to be managed, including fleet permissions.
    ///
    /// # Errors
    /// `Forbidden` if the viewer lacks one of these permissions.
    pub async fn require_permissions_of(tx: &Tx<Auth>, viewer: &Viewer, id: UserId) -> Result<()> {
        let current_roles = Role::of_users(tx, viewer.org, &[id]).await?;
        let row: Row = tx
            .one(
                "SELECT permissions FROM membership WHERE org_id = $1 AND user_id = $2",
                &[&viewer.org, &id],
            )
            .await?;
        let granted: Vec<&str> = row.try_get("permissions")?;
        let set = current_roles
            .iter()
            .map(|(_, role)| role.set())
            .fold(PermissionSet::from_names(granted), PermissionSet::union);
        if viewer.permissions.covers(set) {
            return Ok(());
        }
        Err(Error::Forbidden(
            "this user has permissions that you lack: only a user who has all of these permissions can manage this user"
                .into(),
        ))
    }
}
