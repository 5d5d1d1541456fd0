//! A person. Known to the installation; what they may do, they may do in an organization, by membership and its roles.
//!
//! Whoever manages users manages an organization's members. What belongs to the person everywhere (name, e-mail,
//! password) they may change only for people who belong to no other organization: it would be a way in elsewhere.
//!
//! Long, because each write repeats whom it may touch and what ends with it; apart, one of them would be forgotten.

use async_graphql::{InputObject, SimpleObject};
use chrono::{DateTime, Utc};
use serde_json::json;
use tokio_postgres::Row;
use unicode_normalization::UnicodeNormalization;

use crate::{
    access::{
        audit::Entry,
        directive::{or_oneself, requires},
        login::Guard,
        organization::Organization,
        permission::{FLEET, Permission, PermissionSet},
        role::{self, Role},
        session::{EndReason, Session},
        viewer::Viewer,
    },
    base::{
        db::{Auth, FromRow, Tx},
        entity::{OrganizationId, SessionId, UserId},
        error::{Error, Fault, Result},
        listing::{Listing, Order},
        page::{Page, PageRequest, Place},
        stale, text,
    },
};

/// A person, as a member of an organization.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(name = "UserRow")]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their name.
    pub name: String,
    /// Their e-mail, lower case; what they sign in with.
    #[graphql(directive = requires::apply(Permission::UserRead), directive = or_oneself::apply())]
    pub email: String,
    /// Whether they may sign in to this organization.
    #[graphql(directive = requires::apply(Permission::UserRead), directive = or_oneself::apply())]
    pub active: bool,
    /// Whether a second factor is enrolled.
    #[graphql(directive = requires::apply(Permission::UserRead), directive = or_oneself::apply())]
    pub mfa_enabled: bool,
    /// When they were added to the installation.
    #[graphql(directive = requires::apply(Permission::UserRead), directive = or_oneself::apply())]
    pub created_at: DateTime<Utc>,
    /// When they last used SentryOps, to the minute.
    #[graphql(directive = requires::apply(Permission::UserRead), directive = or_oneself::apply())]
    pub last_seen_at: Option<DateTime<Utc>>,
}

impl FromRow for User {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            email: row.try_get("email")?,
            active: row.try_get("active")?,
            mfa_enabled: row.try_get("mfa_enabled")?,
            created_at: row.try_get("created_at")?,
            last_seen_at: row.try_get("last_seen_at")?,
        })
    }
}

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
    pub fn check(&self) -> Result<(String, String), Vec<Fault>> {
        let mut faults = Vec::new();
        let name = text::check("input.name", &self.name, text::NAME, &mut faults);
        let email = normalise_email(&self.email);
        if email.is_none() {
            faults.push(Fault::new("input.email", "is not an e-mail address"));
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

const MEMBERS: &str =
    "SELECT \"user\".id, \"user\".name, \"user\".email, membership.active, \"user\".mfa_enabled, \"user\".created_at, \"user\".last_seen_at
     FROM membership JOIN \"user\" ON \"user\".id = membership.user_id";

/// The e-mail in the one form that is stored and compared, or `None` where it cannot be one.
pub fn normalise_email(email: &str) -> Option<String> {
    let email: String = email.trim().nfkc().flat_map(char::to_lowercase).collect();
    let (local, domain) = email.rsplit_once('@')?;
    let sane = |part: &str| {
        !part.is_empty() && !part.chars().any(|c| c.is_whitespace() || c.is_control() || c == '@')
    };
    (sane(local) && sane(domain) && email.chars().count() <= 255).then_some(email)
}

impl User {
    /// The organization's members, by name.
    pub async fn list(tx: &Tx, page: &PageRequest) -> Result<Page<Self>> {
        let order =
            Order { column: Some(("\"user\".name", "text")), id: "\"user\".id", descending: false };
        Listing::default().page(tx, MEMBERS, order, page).await
    }

    /// How many members the organization has.
    pub async fn count(tx: &Tx) -> Result<i64> {
        Listing::default().count(tx, "membership").await
    }

    /// The place in the list.
    pub fn place(&self) -> Place {
        Place { value: self.name.clone(), id: self.id.uuid() }
    }

    /// Those of these who are members of the transaction's organization.
    pub async fn of_ids(tx: &Tx, ids: &[UserId]) -> Result<Vec<Self>> {
        let ids: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
        let sql =
            format!("{MEMBERS} WHERE membership.org_id = $1 AND membership.user_id = ANY($2)");
        tx.all(&sql, &[&tx.org(), &ids]).await
    }

    /// A member, locked for the rest of the transaction, which is one of `Db::auth`.
    pub async fn member(tx: &Tx<Auth>, org: OrganizationId, id: UserId) -> Result<Self> {
        // Not FOR UPDATE: a sign-in holds the user while its session's foreign key asks for the membership.
        let sql = format!(
            "{MEMBERS} WHERE membership.org_id = $1 AND membership.user_id = $2 FOR NO KEY UPDATE OF membership"
        );
        tx.opt(&sql, &[&org, &id]).await?.ok_or_else(|| Error::not_found("user", id))
    }

    /// The person of that e-mail, or `None`.
    pub async fn find_by_email(tx: &Tx<Auth>, email: &str) -> Result<Option<UserId>> {
        let row: Option<Row> =
            tx.opt("SELECT id FROM \"user\" WHERE email = $1", &[&email]).await?;
        row.map(|row| row.try_get("id").map_err(Error::from)).transpose()
    }

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
                None => faults.push(Fault {
                    path: format!("roles.{index}"),
                    message: "there is no role of this key".to_owned(),
                    suggestion: Some(
                        known.iter().map(|role| role.key.as_str()).collect::<Vec<_>>().join(", "),
                    ),
                }),
            }
        }
        if keys.is_empty() {
            faults.push(Fault::new(
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

    /// Notes whether somebody signs in with a second factor, which rules ask of owners.
    pub async fn note_mfa(
        tx: &Tx<Auth>,
        org: OrganizationId,
        id: UserId,
        enabled: bool,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let changed = tx
            .exec(
                "UPDATE \"user\" SET mfa_enabled = $2 WHERE id = $1 AND mfa_enabled <> $2",
                &[&id, &enabled],
            )
            .await?;
        if changed == 0 {
            return Ok(());
        }
        let sql = "SELECT org_id FROM membership WHERE user_id = $1";
        let memberships: Vec<Row> = tx.all(sql, &[&id]).await?;
        for membership in &memberships {
            stale::mark_owner(tx, membership.try_get("org_id")?, id, "owner.mfa_enabled").await?;
        }
        let (before, after) = (json!({ "mfaEnabled": !enabled }), json!({ "mfaEnabled": enabled }));
        Entry::changed("user.updated", id, before, after).record_in(tx, org, now).await
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
            faults.push(Fault::new("input.email", "is not an e-mail address"));
        }
        if input.active == Some(false) {
            faults.push(Fault::new(
                "input.active",
                "use deactivateUser, which also ends their sessions",
            ));
        }
        if password_hash.is_some() && viewer.user() == Some(id) {
            faults.push(Fault::new(
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

    /// Stores a new password, unlocks the account, ends its sessions but one.
    pub async fn set_password(
        tx: &Tx<Auth>,
        id: UserId,
        hash: &str,
        keep: Option<SessionId>,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let row: Row = tx
            .one(
                "UPDATE \"user\" SET password_hash = $2, password_changed_at = $3 WHERE id = $1 RETURNING email",
                &[&id, &hash, &now],
            )
            .await?;
        Guard::clear_account(tx, id, row.try_get("email")?).await?;
        for session in Session::of_user(tx, id, now).await? {
            if Some(session.id) != keep {
                session.end(tx, EndReason::PasswordChanged, now).await?;
            }
        }
        Ok(())
    }

    /// Sets a password from the command line, for all organizations that the person belongs to.
    pub async fn reset_password(
        tx: &Tx<Auth>,
        id: UserId,
        hash: &str,
        now: DateTime<Utc>,
    ) -> Result<()> {
        Self::set_password(tx, id, hash, None, now).await?;
        for organization in Organization::of_user(tx, id).await? {
            Entry::happened("user.password_reset", id).record_in(tx, organization.id, now).await?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_have_one_form() {
        assert_eq!(normalise_email(" Ada@Example.COM ").unwrap(), "ada@example.com");
        assert_eq!(normalise_email("Ａda@example.com").unwrap(), "ada@example.com");
        for text in ["", "ada", "@", "a@", "@b", "a b@c", "a@b@c"] {
            assert!(normalise_email(text).is_none(), "{text}");
        }
    }
}
