//! Users. A user exists once per installation and can be a member of several organizations. Each membership has its own
//! roles and permissions.
//!
//! | file | contents |
//! |---|---|
//! | `member` | adding people to an organization, changing and deactivating them |
//! | `roles` | a member's roles and permissions, and the check that a viewer can manage a member |
//! | `invitation` | membership of an existing account in a further organization |
//! | `credentials` | passwords and the second factor |

pub(crate) mod credentials;
mod invitation;
mod member;
mod roles;

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use unicode_normalization::UnicodeNormalization;

pub use self::{
    invitation::{AccountOrigin, Invitation},
    member::{CreateUserInput, UpdateUserInput},
};
use crate::{
    access::{
        directive::{or_oneself, requires},
        permission::Permission,
    },
    base::{
        db::{Auth, FromRow, Tx},
        entity::{OrganizationId, UserId},
        error::{Error, Result},
        listing::{Listing, Order},
        page::{Page, PageRequest, Position},
    },
};

/// A user, as a member of an organization.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(name = "UserRow")]
pub struct User {
    /// The user's id, beginning `usr_`.
    pub id: UserId,
    /// The user's name, as shown to others.
    pub name: String,
    /// The user's e-mail in lower case, used to sign in.
    #[graphql(directive = requires::apply(Permission::UserRead), directive = or_oneself::apply())]
    pub email: String,
    /// True if the user can sign in to this organization.
    #[graphql(directive = requires::apply(Permission::UserRead), directive = or_oneself::apply())]
    pub active: bool,
    /// True if a second factor is enrolled.
    #[graphql(directive = requires::apply(Permission::UserRead), directive = or_oneself::apply())]
    pub mfa_enabled: bool,
    /// Time at which the user was added to the organization.
    #[graphql(directive = requires::apply(Permission::UserRead), directive = or_oneself::apply())]
    pub created_at: DateTime<Utc>,
    /// Time of the user's last request, to the minute; null before the first.
    #[graphql(directive = requires::apply(Permission::UserRead), directive = or_oneself::apply())]
    pub last_seen_at: Option<DateTime<Utc>>,
    /// State of the membership, which the organization does not see.
    #[graphql(skip)]
    pub(crate) state: MembershipState,
}

/// State of a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MembershipState {
    /// The user belongs to the organization, and may be active or not.
    Active,
    /// The organization has invited the owner of an existing account, who has not answered.
    Invited,
    /// The invitation was declined or withdrawn.
    Declined,
}

impl MembershipState {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "ACTIVE" => Some(Self::Active),
            "INVITED" => Some(Self::Invited),
            "DECLINED" => Some(Self::Declined),
            _ => None,
        }
    }
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
            state: MembershipState::parse(row.try_get("state")?)
                .ok_or(Error::Corrupt { table: "membership", column: "state" })?,
        })
    }
}

/// Selects members as their organization sees them. The view shows nothing of an account that has not accepted its
/// invitation, so an organization cannot tell an invited person from a new one.
const MEMBERS: &str =
    "SELECT id, name, email, active, mfa_enabled, created_at, last_seen_at, state FROM member";

/// Maximum size in bytes of a text that may be an e-mail, before it is normalised.
const MAX_EMAIL_BYTES: usize = 1_024;

/// Returns the e-mail in the normalised form that is stored and compared, or `None` if it cannot be an e-mail.
pub fn normalise_email(email: &str) -> Option<String> {
    // Normalising can make a text eighteen times as long, so a long one is rejected before.
    if email.len() > MAX_EMAIL_BYTES {
        return None;
    }
    let email: String = email.trim().nfkc().flat_map(char::to_lowercase).collect();
    let (local, domain) = email.rsplit_once('@')?;
    let sane = |part: &str| {
        !part.is_empty() && !part.chars().any(|c| c.is_whitespace() || c.is_control() || c == '@')
    };
    (sane(local) && sane(domain) && email.chars().count() <= 255).then_some(email)
}

impl User {
    /// Returns a page of the organization's members, ordered by name.
    pub async fn list(tx: &Tx, page: &PageRequest) -> Result<Page<Self>> {
        let order = Order { column: Some(("name", "text")), id: "id", descending: false };
        Listing::default().page(tx, MEMBERS, order, page).await
    }

    /// Returns the number of the organization's members, including inactive ones.
    pub async fn count(tx: &Tx) -> Result<i64> {
        Listing::default().count(tx, "membership").await
    }

    /// Returns the user's position in the list.
    pub fn position(&self) -> Position {
        Position { value: self.name.clone(), id: self.id.uuid() }
    }

    /// Returns the users with these ids who are members of the transaction's organization.
    pub async fn of_ids(tx: &Tx, ids: &[UserId]) -> Result<Vec<Self>> {
        let ids: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
        let sql = format!("{MEMBERS} WHERE org_id = $1 AND id = ANY($2)");
        tx.all(&sql, &[&tx.org(), &ids]).await
    }

    /// Returns a member, and locks the membership for the rest of the transaction.
    ///
    /// # Errors
    /// `NotFound` if the user is not a member of the organization.
    pub async fn member(tx: &Tx<Auth>, org: OrganizationId, id: UserId) -> Result<Self> {
        // Not FOR UPDATE, which could deadlock: a sign-in locks the user's row, and then the foreign key of its new
        // session locks the membership.
        let lock = "SELECT FROM membership WHERE org_id = $1 AND user_id = $2 FOR NO KEY UPDATE";
        tx.exec(lock, &[&org, &id]).await?;
        let sql = format!("{MEMBERS} WHERE org_id = $1 AND id = $2");
        tx.opt(&sql, &[&org, &id]).await?.ok_or_else(|| Error::not_found("user", id))
    }

    /// Returns the id of the user with the e-mail, or `None`.
    pub async fn find_by_email(tx: &Tx<Auth>, email: &str) -> Result<Option<UserId>> {
        let row: Option<Row> =
            tx.opt("SELECT id FROM \"user\" WHERE email = $1", &[&email]).await?;
        row.map(|row| row.try_get("id").map_err(Error::from)).transpose()
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
