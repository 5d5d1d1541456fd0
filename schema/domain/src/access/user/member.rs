//! Membership: adding users to an organization, changing and deactivating members.
//!
//! A user has the same name, e-mail and password in every organization. An organization can change these only for users
//! who are members of no other organization. Otherwise it could set a password and sign in to the other organization.

use async_graphql::InputObject;
use chrono::{DateTime, Utc};
use serde_json::json;
use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        session::{EndReason, Session},
        user::{User, normalise_email},
        viewer::Viewer,
    },
    base::{
        db::{Auth, Tx},
        entity::{OrganizationId, UserId},
        error::{Error, FieldError, Result},
        stale, text,
    },
};

/// Input of `createUser`: the new user and their roles.
#[derive(Debug, Clone, InputObject)]
pub struct CreateUserInput {
    /// The user's e-mail, used to sign in.
    pub email: String,
    /// The user's name, as shown to others.
    pub name: String,
    /// The user's first password, at least 15 characters long.
    #[graphql(secret)]
    pub password: String,
    /// Keys of the user's roles, e.g. `viewer`.
    #[graphql(default_with = "vec![\"viewer\".to_owned()]")]
    pub roles: Vec<String>,
}

impl CreateUserInput {
    /// Returns the name and e-mail in the form to be stored, or the errors of both fields.
    pub fn check(&self) -> Result<(String, String), Vec<FieldError>> {
        let mut faults = Vec::new();
        let name = text::check("input.name", &self.name, text::NAME, &mut faults);
        let email = normalise_email(&self.email);
        if email.is_none() {
            faults.push(FieldError::new("input.email", "is not an e-mail address"));
        }
        email.filter(|_| faults.is_empty()).map(|email| (name, email)).ok_or(faults)
    }
}

/// Input of `updateUser`: the fields to change. Absent fields stay unchanged.
#[derive(Debug, Clone, Default, InputObject)]
pub struct UpdateUserInput {
    /// The user's new name; null leaves it unchanged.
    pub name: Option<String>,
    /// The user's new e-mail; null leaves it unchanged.
    pub email: Option<String>,
    /// The user's new password, which unlocks the account and ends the user's sessions; null leaves the password
    /// unchanged.
    #[graphql(secret)]
    pub password: Option<String>,
    /// `true` reactivates a deactivated member; null changes nothing; `false` is rejected, use `deactivateUser`
    /// instead.
    pub active: Option<bool>,
}

impl User {
    /// Creates a user who is a member of the organization. `password_hash` is computed beforehand, outside of any
    /// transaction. `viewer` is `None` on the command line, which can assign any role.
    pub async fn create(
        tx: &Tx<Auth>,
        org: OrganizationId,
        viewer: Option<&Viewer>,
        input: &CreateUserInput,
        password_hash: &str,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let (name, email) = input.check().map_err(Error::Invalid)?;
        let id = UserId::new();
        tx.exec(
            "INSERT INTO \"user\" (id, email, name, password_hash, password_changed_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $5)",
            &[&id, &email, &name, &password_hash, &now],
        )
        .await?;
        Entry::created("user.created", id, &json!({ "name": name, "email": email }))
            .record_in(tx, org, now)
            .await?;
        Self::join(tx, org, viewer, id, &input.roles, now)
            .await
            .map_err(|error| error.within("input"))
    }

    /// Makes a user a member of the organization, with these roles.
    pub async fn join(
        tx: &Tx<Auth>,
        org: OrganizationId,
        viewer: Option<&Viewer>,
        id: UserId,
        roles: &[String],
        now: DateTime<Utc>,
    ) -> Result<Self> {
        tx.exec(
            "INSERT INTO membership (org_id, user_id, created_at) VALUES ($1, $2, $3)",
            &[&org, &id, &now],
        )
        .await?;
        Self::set_roles(tx, org, viewer, id, roles, now).await
    }

    /// Changes a member. `password_hash` is the hash of `input.password`.
    ///
    /// # Errors
    /// `Forbidden` if the member has permissions that the viewer lacks, `Conflict` for a new name, e-mail or password
    /// of a user who is also a member of another organization.
    pub async fn update(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        id: UserId,
        input: &UpdateUserInput,
        password_hash: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let user = Self::member(tx, viewer.org, id).await?;
        Self::require_permissions_of(tx, viewer, id).await?;
        let mut faults = Vec::new();
        let name = input
            .name
            .as_deref()
            .map(|name| text::check("input.name", name, text::NAME, &mut faults));
        let email = input.email.as_deref().map(normalise_email);
        if email == Some(None) {
            faults.push(FieldError::new("input.email", "is not an e-mail address"));
        }
        if input.active == Some(false) {
            faults.push(FieldError::new(
                "input.active",
                "cannot be false here: use deactivateUser, which also ends the user's sessions",
            ));
        }
        if password_hash.is_some() && viewer.user() == Some(id) {
            faults.push(FieldError::new(
                "input.password",
                "is your own password: use changePassword, which requires the current password",
            ));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let personal = name.is_some() || email.is_some() || password_hash.is_some();
        if personal && Self::is_member_elsewhere(tx, viewer.org, id).await? {
            return Err(Error::Conflict(
                "this user is also a member of another organization, so this organization cannot change their name, e-mail or password: ask the user or the installation's operator".into(),
            ));
        }
        let after = Self {
            name: name.unwrap_or_else(|| user.name.clone()),
            email: email.flatten().unwrap_or_else(|| user.email.clone()),
            active: input.active.unwrap_or(user.active),
            ..user.clone()
        };
        if after.name != user.name || after.email != user.email {
            tx.exec(
                "UPDATE \"user\" SET name = $2, email = $3 WHERE id = $1",
                &[&id, &after.name, &after.email],
            )
            .await?;
            let values = |user: &Self| json!({ "name": user.name, "email": user.email });
            Entry::changed("user.updated", id, values(&user), values(&after))
                .record_in(tx, viewer.org, now)
                .await?;
        }
        if after.active != user.active {
            Self::set_active(tx, viewer, id, after.active, now).await?;
        }
        if let Some(hash) = password_hash {
            Self::set_password(tx, id, hash, None, now).await?;
            Entry::without_values("user.password_reset", id).record_in(tx, viewer.org, now).await?;
        }
        Ok(after)
    }

    /// Deactivates a member and ends their sessions in the organization. Does nothing if the member is already
    /// inactive.
    pub async fn deactivate(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        id: UserId,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let user = Self::member(tx, viewer.org, id).await?;
        Self::require_permissions_of(tx, viewer, id).await?;
        if !user.active {
            return Ok(user);
        }
        Self::set_active(tx, viewer, id, false, now).await?;
        for session in Session::of_user(tx, id, now).await? {
            if session.org == viewer.org {
                session.end(tx, EndReason::Deactivated, now).await?;
            }
        }
        Ok(Self { active: false, ..user })
    }

    async fn set_active(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        id: UserId,
        active: bool,
        now: DateTime<Utc>,
    ) -> Result<()> {
        tx.exec(
            "UPDATE membership SET active = $3 WHERE org_id = $1 AND user_id = $2",
            &[&viewer.org, &id, &active],
        )
        .await?;
        stale::mark_owner(tx, viewer.org, id, "owner.active").await?;
        let action = if active { "member.activated" } else { "member.deactivated" };
        Entry::changed(action, id, json!({ "active": !active }), json!({ "active": active }))
            .record_in(tx, viewer.org, now)
            .await
    }

    /// Returns true if the user has a membership in another organization. Inactive memberships count, because they
    /// could be reactivated.
    async fn is_member_elsewhere(tx: &Tx<Auth>, org: OrganizationId, id: UserId) -> Result<bool> {
        let row: Row = tx
            .one(
                "SELECT EXISTS (SELECT FROM membership WHERE user_id = $1 AND org_id <> $2) AS elsewhere",
                &[&id, &org],
            )
            .await?;
        Ok(row.try_get("elsewhere")?)
    }
}
