//! Rights of a member: the roles in the organization, and what the installation grants beside them.

use chrono::{DateTime, Utc};
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
    /// Sets a member's roles in the organization.
    ///
    /// # Errors
    /// `Forbidden` where the viewer would grant or take what they lack, `Conflict` for the last owner.
    pub async fn set_roles(
        tx: &Tx<Auth>,
        org: OrganizationId,
        viewer: Option<&Viewer>,
        id: UserId,
        keys: &[String],
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let user = Self::member(tx, org, id).await?;
        let known = Role::list(tx, org).await?;
        let mut wanted = Vec::new();
        let mut faults = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match known.iter().find(|role| role.key == *key) {
                Some(role) if wanted.contains(role) => {}
                Some(role) => wanted.push(role.clone()),
                None => faults.push(FieldError {
                    path: format!("roles.{index}"),
                    message: "there is no role of this key".to_owned(),
                    suggestion: Some(
                        known.iter().map(|role| role.key.as_str()).collect::<Vec<_>>().join(", "),
                    ),
                }),
            }
        }
        if keys.is_empty() {
            faults.push(FieldError::new(
                "roles",
                "at least one role is needed: deactivate the user instead",
            ));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let held: Vec<Role> =
            Role::of_users(tx, org, &[id]).await?.into_iter().map(|(_, role)| role).collect();
        let differing: Vec<&Role> = wanted
            .iter()
            .filter(|role| !held.contains(role))
            .chain(held.iter().filter(|role| !wanted.contains(role)))
            .collect();
        if differing.is_empty() {
            return Ok(user);
        }
        let sets = differing.into_iter().map(Role::set);
        let touched = sets.fold(PermissionSet::EMPTY, PermissionSet::union);
        if let Some(viewer) = viewer {
            role::refuse_beyond(viewer, touched)?;
        }
        let wanted_ids: Vec<_> = wanted.iter().map(|role| role.id.uuid()).collect();
        tx.exec(
            "DELETE FROM membership_role WHERE org_id = $1 AND user_id = $2 AND role_id <> ALL($3)",
            &[&org, &id, &wanted_ids],
        )
        .await?;
        tx.exec(
            "INSERT INTO membership_role (org_id, user_id, role_id)
             SELECT $1, $2, unnest($3::uuid[]) ON CONFLICT DO NOTHING",
            &[&org, &id, &wanted_ids],
        )
        .await?;
        let keys = |roles: &[Role]| json!({ "roles": roles.iter().map(|role| role.key.as_str()).collect::<Vec<_>>() });
        Entry::changed("member.role_changed", id, keys(&held), keys(&wanted))
            .record_in(tx, org, now)
            .await?;
        Ok(user)
    }

    /// Gives a member what concerns the installation. For `sentryops admin grant` only.
    pub async fn grant(
        tx: &Tx<Auth>,
        org: OrganizationId,
        id: UserId,
        permissions: PermissionSet,
        now: DateTime<Utc>,
    ) -> Result<()> {
        Self::member(tx, org, id).await?;
        let names = permissions.intersection(FLEET).names();
        tx.exec(
            "UPDATE membership SET permissions = $3 WHERE org_id = $1 AND user_id = $2",
            &[&org, &id, &names],
        )
        .await?;
        Entry::created("member.granted", id, &json!({ "permissions": names }))
            .record_in(tx, org, now)
            .await
    }

    /// Nobody manages somebody who may do more than they themselves, in the organization or of the installation.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn refuse_stronger(tx: &Tx<Auth>, viewer: &Viewer, id: UserId) -> Result<()> {
        let held = Role::of_users(tx, viewer.org, &[id]).await?;
        let row: Row = tx
            .one(
                "SELECT permissions FROM membership WHERE org_id = $1 AND user_id = $2",
                &[&viewer.org, &id],
            )
            .await?;
        let granted: Vec<&str> = row.try_get("permissions")?;
        let set = held
            .iter()
            .map(|(_, role)| role.set())
            .fold(PermissionSet::from_names(granted), PermissionSet::union);
        if viewer.permissions.covers(set) {
            return Ok(());
        }
        Err(Error::Forbidden(
            "this user may do more than you: only somebody who may do as much can manage them"
                .into(),
        ))
    }
}
