//! Invitations of the viewer to further organizations.

use async_graphql::{Context, Object, SimpleObject};
use chrono::{DateTime, Utc};
use domain::{
    access::{
        directive::authenticated,
        identity::Acceptance,
        user::{self, User},
    },
    entity::OrganizationId,
};

use crate::{
    access::session::{Organization, Viewer},
    document::policy::{FieldPolicy, Policy::MustBeAlone},
    request::{
        context::ContextExt,
        error::{Error, ErrorCode, Result},
    },
};

/// An invitation of the viewer to a further organization. It gives no right before it is accepted.
#[derive(SimpleObject)]
#[graphql(directive = authenticated::apply())]
pub(crate) struct Invitation {
    /// The organization that invites the viewer.
    organization: Organization,
    /// Name of the user who invited the viewer; null if the installation's operator did.
    invited_by: Option<String>,
    /// Time at which the invitation was made.
    at: DateTime<Utc>,
}

impl From<user::Invitation> for Invitation {
    fn from(invitation: user::Invitation) -> Self {
        let user::Invitation { organization, invited_by, at } = invitation;
        Self { organization, invited_by, at }
    }
}

/// Policies of the fields that check passwords.
pub(crate) const POLICIES: &[FieldPolicy] =
    &[FieldPolicy { on: "Mutation", field: "acceptInvitation", policies: &[MustBeAlone] }];

/// Mutation fields for invitations.
#[derive(Default)]
pub(crate) struct InvitationMutation;

#[Object]
impl InvitationMutation {
    /// Accepts an invitation: the viewer becomes a member of the organization, and the viewer's other sessions end. Use
    /// `switchOrganization` to work in the organization. Requires a signed-in caller.
    #[graphql(directive = authenticated::apply())]
    async fn accept_invitation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the organization that invites, beginning `org_`.")]
        organization: OrganizationId,
        #[graphql(desc = "The viewer's current password.", secret)] password: String,
        #[graphql(
            desc = "The first password that the inviting organization gave to the viewer.",
            secret
        )]
        invitation_password: String,
        #[graphql(
            desc = "A new password; required if an organization set the current one and the viewer never changed it.",
            secret
        )]
        new_password: Option<String>,
    ) -> Result<Viewer> {
        let (services, viewer) = (ctx.services(), ctx.viewer()?);
        let account = format!("password account {}", viewer.own_id().unwrap_or_default());
        ctx.take_tokens(&services.auth_quota, &[&account]).await?;
        let given = Acceptance {
            current: &password,
            invitation: &invitation_password,
            new: new_password.as_deref(),
        };
        services.identity.accept_invitation(viewer, organization, given, ctx.caller()).await?;
        Ok(Viewer::new(viewer.clone()))
    }

    /// Declines an invitation; the inviting organization sees the user as inactive. Requires a signed-in caller.
    #[graphql(directive = authenticated::apply())]
    async fn decline_invitation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of the organization that invites, beginning `org_`.")]
        organization: OrganizationId,
    ) -> Result<OrganizationId> {
        let user = ctx.viewer()?.user().ok_or_else(|| {
            Error::new(ErrorCode::Forbidden, "An API key has no invitations: sign in as a user.")
        })?;
        let tx = ctx.write_users().await?;
        User::decline_invitation(&tx, organization, user).await?;
        tx.commit().await?;
        Ok(organization)
    }
}
