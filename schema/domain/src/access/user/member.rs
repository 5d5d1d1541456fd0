//! Membership: adding users to an organization, changing and deactivating members.
//!
//! A user has the same name, e-mail and password in every organization. An organization can change name and password
//! only of users who are members of no other organization. Otherwise it could set a password and sign in to the other
//! organization. It can change no e-mail, because a refusal would tell whether the new e-mail has an account.

use async_graphql::InputObject;
use chrono::{DateTime, Utc};
use serde_json::json;
use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        session::{EndReason, Session},
        user::{MembershipState, User, credentials::SetBy, normalise_email},
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
    /// Always rejected: an organization cannot change an e-mail, only the installation's operator can.
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
    /// Creates a user who is a member of the organization. If the e-mail has an account already, invites the account's
    /// owner instead, with the same result for the caller. `password_hash` is computed beforehand, outside of any
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
        let id = Self::new_id(tx, now).await?;
        let inserted = tx
            .exec(
                "INSERT INTO \"user\" (id, email, name, password_hash, password_changed_at, created_at, created_in)
                 VALUES ($1, $2, $3, $4, $5, $5, $6) ON CONFLICT (email) DO NOTHING",
                &[&id, &email, &name, &password_hash, &now, &org],
            )
            .await?;
        let known = if inserted == 1 { None } else { Self::find_by_email(tx, &email).await? };
        let id = known.unwrap_or(id);
        match known {
            None => Self::add_membership(tx, org, id, now).await?,
            Some(known) => {
                Self::add_invitation(tx, org, viewer, known, &name, password_hash, now).await?;
            }
        }
        Entry::created("user.created", id, &json!({ "name": name, "email": email }))
            .record_in(tx, org)
            .await?;
        Self::set_roles(tx, org, viewer, id, &input.roles)
            .await
            .map_err(|error| error.within("input"))
    }

    /// Returns the id of a new user. The time in the id is any time since the installation was set up: the id of an
    /// existing account would otherwise be told from that of a new one by its age.
    async fn new_id(tx: &Tx<Auth>, now: DateTime<Utc>) -> Result<UserId> {
        let row: Row = tx.one("SELECT min(created_at) AS earliest FROM organization", &[]).await?;
        let earliest: Option<DateTime<Utc>> = row.try_get("earliest")?;
        Ok(UserId::between(earliest.unwrap_or(now), now))
    }

    async fn add_membership(
        tx: &Tx<Auth>,
        org: OrganizationId,
        id: UserId,
        now: DateTime<Utc>,
    ) -> Result<()> {
        tx.exec(
            "INSERT INTO membership (org_id, user_id, created_at) VALUES ($1, $2, $3)",
            &[&org, &id, &now],
        )
        .await?;
        Ok(())
    }

    /// Makes a user a member of the organization, with these roles, without an invitation; an invitation that is open, or a
    /// membership that was ended, becomes active. Only the command line does so, for an account that nobody can use
    /// otherwise.
    pub async fn join(
        tx: &Tx<Auth>,
        org: OrganizationId,
        viewer: Option<&Viewer>,
        id: UserId,
        roles: &[String],
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let added = tx
            .exec(
                "INSERT INTO membership (org_id, user_id, created_at) VALUES ($1, $2, $3)
                 ON CONFLICT (org_id, user_id) DO UPDATE
                 SET state = 'ACTIVE', active = true, invited_at = NULL, invited_by = NULL, invited_name = NULL,
                     invitation_hash = NULL
                 WHERE NOT membership.active",
                &[&org, &id, &now],
            )
            .await?;
        if added == 0 {
            return Err(Error::Conflict(
                "the user is already a member of this organization".into(),
            ));
        }
        stale::mark_owner(tx, org, id, "owner.active").await?;
        Self::set_roles(tx, org, viewer, id, roles).await
    }

    /// Changes a member. `password_hash` is the hash of `input.password`.
    ///
    /// # Errors
    /// `Forbidden` if the member has permissions that the viewer lacks, `Conflict` for a new name or password of a user
    /// who is also a member of another organization, `Invalid` for a new e-mail.
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
        if input.email.is_some() {
            faults.push(FieldError::new(
                "input.email",
                "cannot be changed by an organization: deactivate the user and create one with the new e-mail, or ask the installation's operator",
            ));
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
        let is_member = user.state == MembershipState::Active;
        let personal = name.is_some() || password_hash.is_some();
        if personal && is_member && Self::is_member_elsewhere(tx, viewer.org, id).await? {
            return Err(Error::Conflict(
                "this user is also a member of another organization, so this organization cannot change their name or password: ask the user or the installation's operator".into(),
            ));
        }
        let after = Self {
            name: name.unwrap_or_else(|| user.name.clone()),
            active: input.active.unwrap_or(user.active),
            ..user.clone()
        };
        if after.name != user.name {
            if is_member {
                let sql = "UPDATE \"user\" SET name = $2 WHERE id = $1";
                tx.exec(sql, &[&id, &after.name]).await?;
            } else {
                let sql =
                    "UPDATE membership SET invited_name = $3 WHERE org_id = $1 AND user_id = $2";
                tx.exec(sql, &[&viewer.org, &id, &after.name]).await?;
            }
            let values = |user: &Self| json!({ "name": user.name });
            Entry::changed("user.updated", id, values(&user), values(&after))
                .record_in(tx, viewer.org)
                .await?;
        }
        if after.active != user.active {
            Self::set_active(tx, viewer, &user, after.active, now).await?;
        }
        if let Some(hash) = password_hash {
            if is_member {
                Self::set_password(tx, id, hash, SetBy::Organization, now).await?;
            } else {
                let sql =
                    "UPDATE membership SET invitation_hash = $3 WHERE org_id = $1 AND user_id = $2";
                tx.exec(sql, &[&viewer.org, &id, &hash]).await?;
            }
            Entry::without_values("user.password_reset", id).record_in(tx, viewer.org).await?;
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
        Self::set_active(tx, viewer, &user, false, now).await?;
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
        user: &Self,
        active: bool,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let id = user.id;
        if user.state == MembershipState::Active {
            let sql = "UPDATE membership SET active = $3 WHERE org_id = $1 AND user_id = $2";
            tx.exec(sql, &[&viewer.org, &id, &active]).await?;
        } else {
            Self::renew_invitation(tx, viewer, id, active, now).await?;
        }
        stale::mark_owner(tx, viewer.org, id, "owner.active").await?;
        let action = if active { "member.activated" } else { "member.deactivated" };
        Entry::changed(action, id, json!({ "active": !active }), json!({ "active": active }))
            .record_in(tx, viewer.org)
            .await
    }

    /// Returns true if the user has a membership in another organization. Inactive memberships count, because they
    /// could be reactivated; invitations that are not accepted do not, because they would become known.
    async fn is_member_elsewhere(tx: &Tx<Auth>, org: OrganizationId, id: UserId) -> Result<bool> {
        let row: Row = tx
            .one(
                "SELECT EXISTS (SELECT FROM membership WHERE user_id = $1 AND org_id <> $2 AND state = 'ACTIVE') AS elsewhere",
                &[&id, &org],
            )
            .await?;
        Ok(row.try_get("elsewhere")?)
    }
}
