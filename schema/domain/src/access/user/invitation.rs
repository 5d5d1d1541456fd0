//! Invitations: the membership of an existing account in a further organization.
//!
//! An organization that adds an e-mail with an account does not learn that there is one. The account's owner sees the
//! invitation, and accepts it with the password of the account and with the one that the inviting organization gave.
//! The second password shows that the organization meant this person: whoever made the account first, and knows its
//! password, does not know it.
//!
//! An invitation gives no right, whatever roles it names: its row is never active, which a constraint ensures.

use chrono::{DateTime, Utc};
use serde_json::json;
use tokio_postgres::Row;

use crate::{
    access::{audit::Entry, organization::Organization, user::User, viewer::Viewer},
    base::{
        db::{Auth, FromRow, Tx},
        entity::{OrganizationId, UserId},
        error::{Error, Result},
        stale,
    },
};

/// An invitation of an account's owner to an organization.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// The organization that invites.
    pub organization: Organization,
    /// Name of the user who invited; `None` if the installation's operator did.
    pub invited_by: Option<String>,
    /// Time at which the invitation was made.
    pub at: DateTime<Utc>,
}

impl FromRow for Invitation {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            organization: Organization::from_row(row)?,
            invited_by: row.try_get("invited_by")?,
            at: row.try_get("invited_at")?,
        })
    }
}

/// Origin of an account.
#[derive(Debug, Clone)]
pub struct AccountOrigin {
    /// The user who owns the account.
    pub user: UserId,
    /// Time at which the account was made.
    pub created_at: DateTime<Utc>,
    /// Slug and name of the organization for which it was made; `None` if that is not known.
    pub organization: Option<(String, String)>,
    /// True if the account is an active member of any organization, so that its owner can sign in.
    pub can_sign_in: bool,
}

impl User {
    /// Invites the owner of an account to the organization. `hash` is that of the password that the inviter gives to the
    /// person.
    pub(super) async fn add_invitation(
        tx: &Tx<Auth>,
        org: OrganizationId,
        viewer: Option<&Viewer>,
        id: UserId,
        name: &str,
        hash: &str,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let inviter = viewer.and_then(Viewer::user);
        tx.exec(
            "INSERT INTO membership (org_id, user_id, created_at, active, state, invited_at, invited_by, invited_name, invitation_hash)
             VALUES ($1, $2, $3, false, 'INVITED', $3, $4, $5, $6)",
            &[&org, &id, &now, &inviter, &name, &hash],
        )
        .await?;
        Ok(())
    }

    /// Withdraws an invitation, or makes it again in the viewer's name.
    pub(super) async fn renew_invitation(
        tx: &Tx<Auth>,
        viewer: &Viewer,
        id: UserId,
        is_wanted: bool,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let state = if is_wanted { "INVITED" } else { "DECLINED" };
        tx.exec(
            "UPDATE membership SET state = $3, invited_at = $4, invited_by = $5
             WHERE org_id = $1 AND user_id = $2 AND state <> 'ACTIVE'",
            &[&viewer.org, &id, &state, &now, &viewer.user()],
        )
        .await?;
        Ok(())
    }

    /// Returns the user's open invitations, newest first.
    pub async fn invitations(tx: &Tx<Auth>, id: UserId) -> Result<Vec<Invitation>> {
        tx.all(
            "SELECT organization.id, slug, organization.name, is_demo, organization.created_at,
                    inviter.name AS invited_by, membership.invited_at
             FROM membership JOIN organization ON organization.id = membership.org_id
             LEFT JOIN \"user\" AS inviter ON inviter.id = membership.invited_by
             WHERE membership.user_id = $1 AND membership.state = 'INVITED'
             ORDER BY membership.invited_at DESC, organization.id",
            &[&id],
        )
        .await
    }

    /// Returns the hash of the password that the inviting organization gave; `None` if there is no open invitation.
    pub(crate) async fn invitation_hash(
        tx: &Tx<Auth>,
        org: OrganizationId,
        id: UserId,
    ) -> Result<Option<String>> {
        let row: Option<Row> = tx
            .opt(
                "SELECT invitation_hash FROM membership WHERE org_id = $1 AND user_id = $2 AND state = 'INVITED'",
                &[&org, &id],
            )
            .await?;
        row.map(|row| row.try_get("invitation_hash").map_err(Error::from)).transpose()
    }

    /// Makes an invited user an active member.
    ///
    /// # Errors
    /// `NotFound` if there is no open invitation.
    pub(crate) async fn accept_invitation(
        tx: &Tx<Auth>,
        org: OrganizationId,
        id: UserId,
    ) -> Result<()> {
        let sql = "UPDATE membership SET state = 'ACTIVE', active = true, invited_at = NULL, invited_by = NULL,
                       invited_name = NULL, invitation_hash = NULL
                   WHERE org_id = $1 AND user_id = $2 AND state = 'INVITED'";
        if tx.exec(sql, &[&org, &id]).await? == 0 {
            return Err(Error::not_found("invitation", org));
        }
        stale::mark_owner(tx, org, id, "owner.mfa_enabled").await?;
        let (before, after) = (json!({ "state": "INVITED" }), json!({ "state": "ACTIVE" }));
        Entry::changed("member.joined", id, before, after).record_in(tx, org).await
    }

    /// Declines an invitation.
    ///
    /// # Errors
    /// `NotFound` if there is no open invitation.
    pub async fn decline_invitation(tx: &Tx<Auth>, org: OrganizationId, id: UserId) -> Result<()> {
        let sql = "UPDATE membership SET state = 'DECLINED' WHERE org_id = $1 AND user_id = $2 AND state = 'INVITED'";
        if tx.exec(sql, &[&org, &id]).await? == 0 {
            return Err(Error::not_found("invitation", org));
        }
        stale::mark_owner(tx, org, id, "owner.active").await?;
        let (before, after) = (json!({ "state": "INVITED" }), json!({ "state": "DECLINED" }));
        Entry::changed("member.declined", id, before, after).record_in(tx, org).await
    }

    /// Withdraws up to `limit` invitations that were made before `before`. Returns their number.
    pub async fn expire_invitations(
        tx: &Tx<Auth>,
        before: DateTime<Utc>,
        limit: i64,
    ) -> Result<u64> {
        let expired: Vec<Row> = tx
            .all(
                "UPDATE membership SET state = 'DECLINED', invitation_hash = NULL WHERE (org_id, user_id) IN (
                     SELECT org_id, user_id FROM membership WHERE state = 'INVITED' AND invited_at < $1
                     LIMIT $2 FOR UPDATE SKIP LOCKED)
                 RETURNING org_id, user_id",
                &[&before, &limit],
            )
            .await?;
        for row in &expired {
            let (org, id): (OrganizationId, UserId) =
                (row.try_get("org_id")?, row.try_get("user_id")?);
            stale::mark_owner(tx, org, id, "owner.active").await?;
            let (before, after) = (json!({ "state": "INVITED" }), json!({ "state": "DECLINED" }));
            Entry::changed("member.invitation_expired", id, before, after)
                .record_in(tx, org)
                .await?;
        }
        Ok(expired.len() as u64)
    }

    /// Returns the origin of the account with the e-mail, or `None`. For the operator's command line only.
    pub async fn origin_of(tx: &Tx<Auth>, email: &str) -> Result<Option<AccountOrigin>> {
        let row: Option<Row> = tx
            .opt(
                "SELECT \"user\".id, \"user\".created_at, organization.slug, organization.name,
                        EXISTS (SELECT FROM membership WHERE user_id = \"user\".id AND active) AS can_sign_in
                 FROM \"user\" LEFT JOIN organization ON organization.id = \"user\".created_in WHERE email = $1",
                &[&email],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (slug, name): (Option<String>, Option<String>) =
            (row.try_get("slug")?, row.try_get("name")?);
        Ok(Some(AccountOrigin {
            user: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            organization: slug.zip(name),
            can_sign_in: row.try_get("can_sign_in")?,
        }))
    }
}
