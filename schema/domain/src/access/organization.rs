//! Organizations: the tenants of an installation, which own its rows. An installation starts with one organization, so
//! a single team need not manage tenants.

use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::{
    access::{audit, directive::authenticated, permission::BuiltinRole},
    base::{
        db::{Auth, FromRow, Kind, Tx},
        entity::{OrganizationId, RoleId, UserId},
        error::{Error, FieldError, Result},
        id::Id,
        text,
    },
};

/// A tenant of the installation: one team, or one customer of a service provider. Only members can read the
/// organization's data.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(directive = authenticated::apply())]
pub struct Organization {
    /// The organization's id, beginning `org_`.
    pub id: OrganizationId,
    /// Short unique name for scripts, e.g. `default`: 1 to 63 characters of a-z, 0-9 and -.
    pub slug: String,
    /// The organization's name, shown to users.
    pub name: String,
    /// True if the organization contains demonstration data.
    pub is_demo: bool,
    /// Time at which the organization was created.
    pub created_at: DateTime<Utc>,
}

impl FromRow for Organization {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            slug: row.try_get("slug")?,
            name: row.try_get("name")?,
            is_demo: row.try_get("is_demo")?,
            created_at: row.try_get("created_at")?,
        })
    }
}

impl Organization {
    /// Creates an organization with the built-in roles.
    ///
    /// # Errors
    /// `Invalid` for a malformed slug or name, `Conflict` if another organization has the slug.
    pub async fn create(
        tx: &Tx<Auth>,
        slug: &str,
        name: &str,
        is_demo: bool,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        let mut faults = Vec::new();
        let name = text::check("name", name, text::NAME, &mut faults);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if slug.is_empty() || slug.len() > 63 || !slug.chars().all(plain) || slug.starts_with('-') {
            faults.push(FieldError::new(
                "slug",
                "must have 1 to 63 characters of a-z, 0-9 and -, and must not start with -",
            ));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let organization =
            Self { id: Id::new(), slug: slug.to_owned(), name, is_demo, created_at: now };
        tx.exec(
            "INSERT INTO organization (id, slug, name, is_demo, created_at) VALUES ($1, $2, $3, $4, $5)",
            &[&organization.id, &organization.slug, &organization.name, &is_demo, &now],
        )
        .await
        .map_err(|error| {
            let sentence = "an organization with this slug already exists";
            error.on_constraint("organization_slug_key", sentence)
        })?;
        for role in BuiltinRole::ALL {
            // The permissions of a built-in role are defined in code, so a new release can change them without a
            // migration.
            tx.exec(
                "INSERT INTO role (org_id, id, key, name, permissions, builtin) VALUES ($1, $2, $3, $4, '{}', true)",
                &[&organization.id, &RoleId::new(), &role.key(), &role.name()],
            )
            .await?;
        }
        audit::Entry::created("organization.created", organization.id, &organization.snapshot())
            .record_in(tx, organization.id)
            .await?;
        Ok(organization)
    }

    /// Returns the organization with the slug, or `None`.
    pub async fn find_by_slug(tx: &Tx<Auth>, slug: &str) -> Result<Option<Self>> {
        tx.opt(
            "SELECT id, slug, name, is_demo, created_at FROM organization WHERE slug = $1",
            &[&slug],
        )
        .await
    }

    /// Returns all organizations, ordered by slug.
    pub async fn all<K: Kind>(tx: &Tx<K>) -> Result<Vec<Self>> {
        let sql = "SELECT id, slug, name, is_demo, created_at FROM organization ORDER BY slug";
        tx.all(sql, &[]).await
    }

    /// Returns true if any organization exists.
    pub async fn any(tx: &Tx<Auth>) -> Result<bool> {
        let row: Option<Row> = tx.opt("SELECT 1 AS one FROM organization LIMIT 1", &[]).await?;
        Ok(row.is_some())
    }

    /// Returns the organizations in which the user is an active member, ordered by name.
    pub async fn of_user(tx: &Tx<Auth>, user: UserId) -> Result<Vec<Self>> {
        tx.all(
            "SELECT organization.id, slug, name, is_demo, organization.created_at
             FROM organization JOIN membership ON membership.org_id = organization.id
             WHERE membership.user_id = $1 AND membership.active
             ORDER BY name, organization.id",
            &[&user],
        )
        .await
    }

    /// Returns the transaction's own organization.
    pub async fn current(tx: &Tx) -> Result<Self> {
        let org = tx.org();
        tx.opt(
            "SELECT id, slug, name, is_demo, created_at FROM organization WHERE id = $1",
            &[&org],
        )
        .await?
        .ok_or_else(|| Error::not_found("organization", org))
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({ "slug": self.slug, "name": self.name, "isDemo": self.is_demo })
    }
}
