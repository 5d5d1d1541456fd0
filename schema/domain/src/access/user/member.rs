//! Membership: joining an organization, being changed by it, being kept out of it.
//!
//! An organization may change what belongs to the person everywhere (name, e-mail, password) only for people who belong
//! to no other: it would be a way in elsewhere.

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

/// A new person.
#[derive(Debug, Clone, InputObject)]
pub struct CreateUserInput {
    /// Their e-mail.
    pub email: String,
    /// Their name.
    pub name: String,
    /// Their first password.
    #[graphql(secret)]
    pub password: String,
    /// The keys of their roles, e.g. `viewer`.
    #[graphql(default_with = "vec![\"viewer\".to_owned()]")]
    pub roles: Vec<String>,
}

impl CreateUserInput {
    /// The name and the e-mail as they are stored, or all that is wrong with them.
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

/// What to change of a person; what is absent stays.
#[derive(Debug, Clone, Default, InputObject)]
pub struct UpdateUserInput {
    /// Their name.
    pub name: Option<String>,
    /// Their e-mail.
    pub email: Option<String>,
    /// A new password: unlocks the account and ends all its sessions.
    #[graphql(secret)]
    pub password: Option<String>,
    /// `true` lets a deactivated member in again.
    pub active: Option<bool>,
}

impl User {
    /// Adds a person with a membership. The hash is made before, outside of any transaction; `viewer` is `None` for
    /// the command line.
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

    /// Makes a person a member.
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

    /// Changes a member. `password_hash` is that of `input.password`.
    pub async fn update(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        id: UserId,
        input: &UpdateUserInput,
        password_hash: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let user = Self::member(tx, viewer.org, id).await?;
        Self::refuse_stronger(tx, viewer, id).await?;
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
                "use deactivateUser, which also ends their sessions",
            ));
        }
        if password_hash.is_some() && viewer.user() == Some(id) {
            faults.push(FieldError::new(
                "input.password",
                "is your own: use changePassword, which asks for the current one",
            ));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let personal = name.is_some() || email.is_some() || password_hash.is_some();
        if personal && Self::is_member_elsewhere(tx, viewer.org, id).await? {
            return Err(Error::Conflict(
                "this person belongs to another organization too: they change their own name and password, or the installation's operator does".into(),
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
            Entry::happened("user.password_reset", id).record_in(tx, viewer.org, now).await?;
        }
        Ok(after)
    }

    /// Keeps a member out of the organization and ends their sessions there.
    pub async fn deactivate(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        id: UserId,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let user = Self::member(tx, viewer.org, id).await?;
        Self::refuse_stronger(tx, viewer, id).await?;
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

    /// Whether the person belongs to another organization; one that keeps them out may let them in again.
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
