//! API keys for programs. A key has its own permissions, expires, and can be revoked. The full key is shown only once,
//! when it is created.
//!
//! A key can do what its own permissions and those of its creator allow at the moment of use. It loses at once what its
//! creator loses, and it can manage no users, roles, keys or organizations.
//!
//! The full key has the form `sok_<prefix>_<secret><checksum>`. The prefix identifies the row. The secret has 256
//! random bits, so a fast hash is enough. The checksum lets scanners for leaked secrets recognise a real key without
//! calling the server.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        permission::{NOT_FOR_KEYS, Permission, PermissionSet},
        role::{self, HELD},
        token::{digest, opaque},
        viewer::Viewer,
    },
    base::{
        actor::Actor,
        db::{Auth, FromRow, Tx},
        entity::{ApiKeyId, OrganizationId, UserId},
        error::{Error, FieldError, Result},
        text,
    },
};

/// Prefix of every API key.
pub const SCHEME: &str = "sok_";
/// Error for every key that authenticates nobody.
const REJECTED: Error =
    Error::BadToken("the API key is unknown, revoked, expired or not allowed from this address");
/// Maximum lifetime of a key.
const MAX_LIFETIME: TimeDelta = TimeDelta::days(366);

/// An API key. Only a hash of the full key is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The key's id, beginning `key_`.
    pub id: ApiKeyId,
    /// Display name, e.g. the program that uses the key.
    pub name: String,
    /// Public part of the key, shown in lists.
    pub prefix: String,
    /// Permissions that the key grants.
    pub permissions: Vec<Permission>,
    /// Networks that the key may be used from, as CIDR; empty allows any address.
    pub allowed_cidrs: Vec<String>,
    /// The user who created the key.
    pub created_by: UserId,
    /// Time at which the key was created.
    pub created_at: DateTime<Utc>,
    /// Time at which the key expires.
    pub expires_at: DateTime<Utc>,
    /// Time of the last use, to the minute; `None` if the key was never used.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Time of revocation; `None` if the key is not revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl FromRow for ApiKey {
    fn from_row(row: &Row) -> Result<Self> {
        let permissions: Vec<&str> = row.try_get("permissions")?;
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            prefix: row.try_get("prefix")?,
            permissions: PermissionSet::from_names(permissions).iter().collect(),
            allowed_cidrs: row.try_get("allowed_cidrs")?,
            created_by: row.try_get("created_by")?,
            created_at: row.try_get("created_at")?,
            expires_at: row.try_get("expires_at")?,
            last_used_at: row.try_get("last_used_at")?,
            revoked_at: row.try_get("revoked_at")?,
        })
    }
}

const COLUMNS: &str = "id, name, prefix, permissions, allowed_cidrs, created_by, created_at, expires_at, last_used_at, revoked_at";

/// As [`COLUMNS`], for a statement that joins the creator's membership.
const QUALIFIED: &str = "api_key.id, name, prefix, api_key.permissions, allowed_cidrs, created_by, api_key.created_at, expires_at, last_used_at, revoked_at";

/// Joins the creator's membership. A key whose creator is no longer an active member has no row.
const CREATOR: &str = "JOIN membership ON membership.org_id = api_key.org_id AND membership.user_id = api_key.created_by AND membership.active";

/// Returns the permissions of a row with the key's permissions and the columns [`HELD`] of its creator.
fn usable(row: &Row) -> Result<PermissionSet> {
    let own = PermissionSet::from_names(row.try_get::<_, Vec<&str>>("permissions")?);
    let (_, of_creator) = role::held(row)?;
    Ok(own.intersection(of_creator).without(NOT_FOR_KEYS))
}

/// Settings of a new API key, not yet validated.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Display name, e.g. the program that uses the key.
    pub name: String,
    /// Permissions that the key grants. The creator must have all of them.
    pub permissions: Vec<Permission>,
    /// Time at which the key expires, at most 366 days from now.
    pub expires_at: DateTime<Utc>,
    /// Networks that the key may be used from, as CIDR or single addresses; empty allows any address.
    pub allowed_cidrs: Vec<String>,
}

impl ApiKey {
    /// Creates a key. Returns its row and the full key, which is not stored and can therefore be shown only once.
    ///
    /// # Errors
    /// `Forbidden` if the viewer is an API key or lacks a permission of the new key. `Invalid` for an empty name, no
    /// permission, a permission of [`NOT_FOR_KEYS`], an expiry in the past or beyond 366 days, or a malformed network.
    pub async fn create(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        new: NewApiKey,
        now: DateTime<Utc>,
    ) -> Result<(Self, String)> {
        let created_by = viewer.user().ok_or_else(|| {
            Error::Forbidden("an API key cannot create API keys: sign in as a user".into())
        })?;
        let mut faults = Vec::new();
        let name = text::check("input.name", &new.name, text::NAME, &mut faults);
        let set: PermissionSet = new.permissions.iter().copied().collect();
        if set.is_empty() {
            faults
                .push(FieldError::new("input.permissions", "a key needs at least one permission"));
        }
        let excluded = set.intersection(NOT_FOR_KEYS);
        if !excluded.is_empty() {
            faults.push(FieldError::new(
                "input.permissions",
                format!("an API key cannot have {}", excluded.names().join(", ")),
            ));
        }
        if new.expires_at <= now || new.expires_at > now + MAX_LIFETIME {
            faults.push(FieldError::new(
                "input.expiresAt",
                "must be in the future and at most 366 days from now",
            ));
        }
        for (index, cidr) in new.allowed_cidrs.iter().enumerate() {
            if parse_network(cidr).is_none() {
                faults.push(FieldError::new(
                    format!("input.allowedCidrs.{index}"),
                    "must be a network such as 10.0.0.0/8 or 2001:db8::/32",
                ));
            }
        }
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        role::require_all(viewer, set)?;
        let (prefix, secret) = (opaque()?[..10].replace(['-', '_'], "x"), opaque()?);
        let text = format!("{SCHEME}{prefix}_{secret}{}", checksum(&prefix, &secret));
        let sql = format!(
            "INSERT INTO api_key (org_id, id, name, prefix, secret_hash, permissions, allowed_cidrs, created_by, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING {COLUMNS}"
        );
        let key: Self = tx
            .one(
                &sql,
                &[
                    &viewer.org,
                    &ApiKeyId::new(),
                    &name,
                    &prefix,
                    &digest(&text),
                    &set.names(),
                    &new.allowed_cidrs,
                    &created_by,
                    &now,
                    &new.expires_at,
                ],
            )
            .await?;
        Entry::created("api_key.created", key.id, &key.snapshot())
            .record_in(tx, viewer.org)
            .await?;
        Ok((key, text))
    }

    /// Returns the organization's keys, newest first, including revoked ones.
    pub async fn list(tx: &Tx) -> Result<Vec<Self>> {
        let sql = format!("SELECT {COLUMNS} FROM api_key ORDER BY id DESC");
        tx.all(&sql, &[]).await
    }

    /// Returns the keys with these ids, without those of other organizations.
    pub async fn of_ids(tx: &Tx, ids: &[ApiKeyId]) -> Result<Vec<Self>> {
        let ids: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
        let sql = format!("SELECT {COLUMNS} FROM api_key WHERE id = ANY($1)");
        tx.all(&sql, &[&ids]).await
    }

    /// Returns the keys of all organizations that lost permissions when keys stopped managing users, roles, keys and
    /// organizations: the slug of the organization, the name and the lost permissions of each key in use.
    pub async fn reduced(
        tx: &Tx<Auth>,
        now: DateTime<Utc>,
    ) -> Result<Vec<(String, String, Vec<String>)>> {
        let rows: Vec<Row> = tx
            .all(
                "SELECT organization.slug, api_key.name, api_key.withdrawn FROM api_key
                 JOIN organization ON organization.id = api_key.org_id
                 WHERE withdrawn <> '{}' AND revoked_at IS NULL AND expires_at > $1
                 ORDER BY organization.slug, api_key.name",
                &[&now],
            )
            .await?;
        let read =
            |row: &Row| Ok((row.try_get("slug")?, row.try_get("name")?, row.try_get("withdrawn")?));
        rows.iter().map(read).collect()
    }

    /// Revokes a key. Does nothing if the key is already revoked.
    pub async fn revoke(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        id: ApiKeyId,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let sql = format!("SELECT {COLUMNS} FROM api_key WHERE org_id = $1 AND id = $2 FOR UPDATE");
        let key: Self = tx
            .opt(&sql, &[&viewer.org, &id])
            .await?
            .ok_or_else(|| Error::not_found("API key", id))?;
        if key.revoked_at.is_some() {
            return Ok(());
        }
        tx.exec(
            "UPDATE api_key SET revoked_at = $3 WHERE org_id = $1 AND id = $2",
            &[&viewer.org, &id, &now],
        )
        .await?;
        let after = Self { revoked_at: Some(now), ..key.clone() };
        Entry::changed("api_key.revoked", id, key.snapshot(), after.snapshot())
            .record_in(tx, viewer.org)
            .await
    }

    /// Checks that a text has the form of a full key and the right checksum. Uses no database.
    ///
    /// # Errors
    /// `BadToken`, the same as for an unknown key.
    pub(crate) fn check_form(text: &str) -> Result<()> {
        checked_prefix(text).map(drop).ok_or(REJECTED)
    }

    /// Authenticates a full key and returns its viewer. One statement reads the key, its creator's membership and roles.
    ///
    /// # Errors
    /// `BadToken` if the key is unknown, revoked, expired or not allowed from this address, or if the key's creator is
    /// no longer an active member.
    pub async fn viewer(
        tx: &Tx<Auth>,
        text: &str,
        address: IpAddr,
        now: DateTime<Utc>,
    ) -> Result<Viewer> {
        let prefix = checked_prefix(text).ok_or(REJECTED)?;
        let sql = format!(
            "SELECT {QUALIFIED}, api_key.org_id, secret_hash, {HELD} FROM api_key {CREATOR} WHERE prefix = $1"
        );
        let row: Row = tx.opt(&sql, &[&prefix]).await?.ok_or(REJECTED)?;
        let key = Self::from_row(&row)?;
        let hash: Vec<u8> = row.try_get("secret_hash")?;
        if !bool::from(digest(text).ct_eq(&hash)) || !key.is_usable(address, now) {
            return Err(REJECTED);
        }
        if key.last_used_at.is_none_or(|last| last + TimeDelta::minutes(1) < now) {
            tx.exec("UPDATE api_key SET last_used_at = $2 WHERE prefix = $1", &[&prefix, &now])
                .await?;
        }
        Ok(Viewer {
            actor: Actor::ApiKey(key.id),
            org: row.try_get("org_id")?,
            session: None,
            roles: Vec::new(),
            permissions: usable(&row)?,
        })
    }

    /// Returns the organization and id of a key that authenticates nobody, with the reason; `None` if there is no such key.
    pub(crate) async fn refused(
        tx: &Tx<Auth>,
        text: &str,
        address: IpAddr,
        now: DateTime<Utc>,
    ) -> Result<Option<((OrganizationId, ApiKeyId), &'static str)>> {
        let Some(prefix) = checked_prefix(text) else { return Ok(None) };
        let sql = format!("SELECT {COLUMNS}, org_id, secret_hash FROM api_key WHERE prefix = $1");
        let row: Option<Row> = tx.opt(&sql, &[&prefix]).await?;
        let Some(row) = row else { return Ok(None) };
        let (key, hash) = (Self::from_row(&row)?, row.try_get::<_, Vec<u8>>("secret_hash")?);
        if !bool::from(digest(text).ct_eq(&hash)) {
            return Ok(None);
        }
        let reason = if key.revoked_at.is_some() {
            "revoked"
        } else if now >= key.expires_at {
            "expired"
        } else if !key.is_usable(address, now) {
            "address"
        } else {
            "creator"
        };
        Ok(Some(((row.try_get("org_id")?, key.id), reason)))
    }

    /// Returns what a key can do at `now`, without checking the client's address. Returns the empty set if the key is
    /// revoked or expired, or if the key's creator is no longer an active member.
    pub(crate) async fn permissions(
        tx: &Tx<Auth>,
        org: OrganizationId,
        id: ApiKeyId,
        now: DateTime<Utc>,
    ) -> Result<PermissionSet> {
        let sql = format!(
            "SELECT api_key.permissions, {HELD} FROM api_key {CREATOR}
             WHERE api_key.org_id = $1 AND api_key.id = $2 AND revoked_at IS NULL AND expires_at > $3"
        );
        let row: Option<Row> = tx.opt(&sql, &[&org, &id, &now]).await?;
        row.map_or(Ok(PermissionSet::EMPTY), |row| usable(&row))
    }

    fn is_usable(&self, address: IpAddr, now: DateTime<Utc>) -> bool {
        let is_allowed_address = self.allowed_cidrs.is_empty()
            || self
                .allowed_cidrs
                .iter()
                .filter_map(|cidr| parse_network(cidr))
                .any(|network| network.contains(&address.to_canonical()));
        self.revoked_at.is_none() && now < self.expires_at && is_allowed_address
    }

    fn snapshot(&self) -> serde_json::Value {
        json!({
            "name": self.name,
            "prefix": self.prefix,
            "permissions": self.permissions,
            "allowedCidrs": self.allowed_cidrs,
            "expiresAt": self.expires_at,
            "revokedAt": self.revoked_at,
        })
    }
}

/// Parses a network in CIDR notation, or a single address as a network of one address.
fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn checksum(prefix: &str, secret: &str) -> String {
    let mut sum = format!("{:x}", Sha256::digest(format!("{SCHEME}{prefix}_{secret}")));
    sum.truncate(6);
    sum
}

/// Returns the prefix of a full key, or `None` if the text does not have the form of a key or the checksum is wrong.
fn checked_prefix(text: &str) -> Option<&str> {
    let (prefix, rest) = text.strip_prefix(SCHEME)?.split_once('_')?;
    let (secret, sum) = rest.split_at_checked(rest.len().checked_sub(6)?)?;
    (checksum(prefix, secret) == sum).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_alike_is_told_by_its_checksum() {
        let secret = opaque().unwrap();
        let text = format!("{SCHEME}abc_{secret}{}", checksum("abc", &secret));
        assert_eq!(checked_prefix(&text), Some("abc"));
        for broken in [
            &text[..text.len() - 1],
            "sok_",
            "sok__",
            "sok_abc_",
            "sok_abc_short",
            "sok_é_ééééé",
            &text.replace("abc", "abd"),
        ] {
            assert_eq!(checked_prefix(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_single_address_is_a_network() {
        assert!(parse_network("10.1.2.3").is_some() && parse_network("10.0.0.0/8").is_some());
        assert!(parse_network("10.0.0.0/33").is_none() && parse_network("somewhere").is_none());
    }
}
