//! A person. Known to the installation; what they may do, they may do in an organization, by membership and its roles.
//!
//! | file | what lives there |
//! |---|---|
//! | `member` | joining an organization, being changed by it, being kept out of it |
//! | `roles` | the rights of a member, and who may manage whom |
//! | `credentials` | passwords and the second factor |

mod credentials;
mod member;
mod roles;

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use unicode_normalization::UnicodeNormalization;

pub use self::member::{CreateUserInput, UpdateUserInput};
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

    /// The number of the organization's members, inactive ones too.
    pub async fn count(tx: &Tx) -> Result<i64> {
        Listing::default().count(tx, "membership").await
    }

    /// The place in the list.
    pub fn position(&self) -> Position {
        Position { value: self.name.clone(), id: self.id.uuid() }
    }

    /// The members of the transaction's organization among these people.
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
