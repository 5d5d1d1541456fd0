//! Sign-in, sign-out, and the viewer.

use async_graphql::{Context, Object, SimpleObject};
use chrono::{DateTime, Utc};
pub(crate) use domain::access::organization::Organization;
use domain::{
    Id,
    access::{
        directive::{authenticated, public},
        identity::Tokens,
        permission::Permission,
        role::Role,
        session::{self, EndReason},
        viewer,
    },
    entity::{self, OrganizationId, SessionId},
};

use crate::{
    access::actor::{Actor, actor},
    access::invitation::Invitation,
    access::user::RolesOfUser,
    document::policy::{
        FieldPolicy,
        Policy::{IgnoresBearer, MustBeAlone, NullIfAnonymous, ReturnsCaller, ToleratesBearer},
    },
    request::{
        context::ContextExt,
        error::{Error, ErrorCode, Result},
        loader::Load,
        node::Identified,
        row::{Row, rows},
    },
};

/// A session: one sign-in of the viewer.
#[derive(SimpleObject)]
#[graphql(directive = authenticated::apply())]
pub(crate) struct Session {
    /// The session's id, beginning `ses_`.
    pub(crate) id: SessionId,
    /// Client address of the sign-in.
    source_ip: String,
    /// Time at which the user signed in.
    created_at: DateTime<Utc>,
    /// Time of the last use, to the minute.
    last_seen_at: DateTime<Utc>,
    /// Time at which the session expires, however often it is used.
    expires_at: DateTime<Utc>,
    /// True for the session that made this request.
    current: bool,
}

impl Session {
    /// Converts a session to its GraphQL type. `current` is the id of the session that made the request.
    pub(crate) fn new(session: session::Session, current: Option<SessionId>) -> Self {
        Self {
            current: current == Some(session.id),
            id: session.id,
            source_ip: session.source_ip,
            created_at: session.created_at,
            last_seen_at: session.last_seen_at,
            expires_at: session.expires_at,
        }
    }
}

/// The viewer: the caller of the request.
pub(crate) struct Viewer(viewer::Viewer);

impl Viewer {
    /// Wraps the caller of the request.
    pub(crate) const fn new(viewer: viewer::Viewer) -> Self {
        Self(viewer)
    }
}

/// The caller of the request, with the current organization and the permissions in it.
#[Object(directive = public::apply())]
impl Viewer {
    /// The user or API key that made the request.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Actor> {
        actor(ctx, self.0.actor).await?.ok_or_else(|| {
            Error::new(ErrorCode::NotFound, "Your user or API key no longer exists.")
        })
    }

    /// The organization that the viewer is signed in to.
    async fn organization(&self, ctx: &Context<'_>) -> Result<Organization> {
        Ok(Organization::current(&*ctx.read().await?).await?)
    }

    /// Organizations to which the viewer can switch with `switchOrganization`, including the current one.
    async fn organizations(&self, ctx: &Context<'_>) -> Result<Vec<Row<Organization>>> {
        let Some(user) = self.0.user() else {
            return Ok(rows([Organization::current(&*ctx.read().await?).await?]));
        };
        let scope = ctx.scope();
        scope.read_users(async |tx| Organization::of_user(tx, user).await).await.map(rows)
    }

    /// Open invitations of the viewer to further organizations, newest first; empty for an API key.
    async fn invitations(&self, ctx: &Context<'_>) -> Result<Vec<Row<Invitation>>> {
        let Some(user) = self.0.user() else { return Ok(Vec::new()) };
        let invitations = ctx
            .scope()
            .read_users(async |tx| domain::access::user::User::invitations(tx, user).await)
            .await?;
        Ok(rows(invitations.into_iter().map(Invitation::from)))
    }

    /// Roles of the viewer in the organization; empty for an API key, which has permissions but no roles.
    async fn roles(&self, ctx: &Context<'_>) -> Result<Vec<Row<Role>>> {
        let Some(user) = self.0.user() else { return Ok(Vec::new()) };
        Ok(rows(ctx.load::<RolesOfUser>(user).await?.unwrap_or_default()))
    }

    /// Permissions of the viewer in the organization.
    async fn permissions(&self) -> Vec<Permission> {
        self.0.permissions.iter().collect()
    }

    /// The viewer's sessions that have neither ended nor expired, newest first; empty for an API key.
    async fn sessions(&self, ctx: &Context<'_>) -> Result<Vec<Row<Session>>> {
        let Some(user) = self.0.user() else { return Ok(Vec::new()) };
        let now = ctx.now();
        let sessions = ctx
            .scope()
            .read_users(async |tx| session::Session::of_user(tx, user, now).await)
            .await?;
        let view = |session| Session::new(session, self.0.session);
        Ok(rows(sessions.into_iter().map(view)))
    }
}

/// Result of a sign-in: tokens, or a challenge for a second factor.
#[derive(SimpleObject)]
#[graphql(directive = public::apply())]
pub(crate) struct LoginPayload {
    /// Tokens of the new session; null if a second factor is needed.
    tokens: Option<Tokens>,
    /// Challenge for the second factor; null if no second factor is enrolled.
    mfa_challenge: Option<String>,
}

/// Policies of the fields that authenticate the caller.
pub(crate) const POLICIES: &[FieldPolicy] = &[
    FieldPolicy { on: "Mutation", field: "login", policies: &[MustBeAlone, IgnoresBearer] },
    FieldPolicy {
        on: "Mutation",
        field: "refreshSession",
        policies: &[MustBeAlone, IgnoresBearer],
    },
    FieldPolicy { on: "Mutation", field: "changePassword", policies: &[MustBeAlone] },
    FieldPolicy { on: "Mutation", field: "switchOrganization", policies: &[MustBeAlone] },
    FieldPolicy { on: "Mutation", field: "logout", policies: &[ToleratesBearer] },
    FieldPolicy { on: "Query", field: "viewer", policies: &[NullIfAnonymous] },
    FieldPolicy { on: "Viewer", field: "actor", policies: &[ReturnsCaller] },
];

/// Query fields for the viewer.
#[derive(Default)]
pub(crate) struct SessionQuery;

#[Object]
impl SessionQuery {
    /// The caller of the request; null for an anonymous caller. Requires no sign-in.
    #[graphql(directive = public::apply())]
    async fn viewer(&self, ctx: &Context<'_>) -> Option<Viewer> {
        ctx.optional_viewer().cloned().map(Viewer)
    }
}

/// Mutation fields for sessions and sign-in.
#[derive(Default)]
pub(crate) struct SessionMutation;

#[Object]
impl SessionMutation {
    /// Signs in with e-mail and password. The mutation must be the only one in its document. Requires no sign-in.
    #[graphql(directive = public::apply())]
    async fn login(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The user's e-mail, in upper or lower case.")] email: String,
        #[graphql(desc = "The user's current password.", secret)] password: String,
    ) -> Result<LoginPayload> {
        let services = ctx.services();
        // The address first, which costs no statement; then the account, under a key that a stranger does not share
        // with the addresses from which the user has signed in.
        ctx.take_token_of_address(&services.auth_quota, "login").await?;
        let attempt = services.identity.begin_login(&email, ctx.caller()).await?;
        let account = format!("login {}", attempt.account_key());
        ctx.take_tokens(&services.auth_quota, &[&account]).await?;
        let tokens = services.identity.finish_login(attempt, &password, ctx.caller()).await?;
        Ok(LoginPayload { tokens: Some(tokens), mfa_challenge: None })
    }

    /// Exchanges a refresh token for a new access and refresh token. Each refresh token works once; a second use ends
    /// the session. Requires no sign-in.
    #[graphql(directive = public::apply())]
    async fn refresh_session(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The session's latest refresh token.", secret)] refresh_token: String,
    ) -> Result<Tokens> {
        let services = ctx.services();
        ctx.take_token_of_address(&services.auth_quota, "refresh").await?;
        Ok(services.identity.refresh(&refresh_token, ctx.caller()).await?)
    }

    /// Ends the session that made this request. Always returns true, even if no session made the request or the session
    /// has already ended. Requires no sign-in.
    #[graphql(directive = public::apply())]
    async fn logout(&self, ctx: &Context<'_>) -> Result<bool> {
        if let Some(viewer) = ctx.optional_viewer() {
            ctx.services().identity.logout(viewer, ctx.caller()).await?;
        }
        Ok(true)
    }

    /// Switches the session to another organization of the viewer, and returns new tokens. All earlier tokens of the
    /// session stop working. Requires a signed-in caller.
    #[graphql(directive = authenticated::apply())]
    async fn switch_organization(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The organization's id, beginning `org_`.")] organization: OrganizationId,
    ) -> Result<Tokens> {
        Ok(ctx.services().identity.switch(ctx.viewer()?, organization, ctx.caller()).await?)
    }

    /// Changes the viewer's own password and ends their other sessions. Requires a signed-in caller.
    #[graphql(directive = authenticated::apply())]
    async fn change_password(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The viewer's current password.", secret)] current: String,
        #[graphql(desc = "The new password: at least 15 characters, and hard to guess.", secret)]
        new: String,
    ) -> Result<bool> {
        let (services, viewer) = (ctx.services(), ctx.viewer()?);
        let account = format!("password account {}", viewer.own_id().unwrap_or_default());
        ctx.take_tokens(&services.auth_quota, &[&account]).await?;
        services.identity.change_password(viewer, &current, &new, ctx.caller()).await?;
        Ok(true)
    }

    /// Ends one of the viewer's own sessions. Requires a signed-in caller.
    #[graphql(directive = authenticated::apply())]
    async fn revoke_session(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The session's id, beginning `ses_`.")] id: SessionId,
    ) -> Result<SessionId> {
        let viewer = ctx.viewer()?;
        let tx = ctx.write_users().await?;
        let session = session::Session::find(&tx, id, ctx.now())
            .await?
            .filter(|session| Some(session.user) == viewer.user())
            .ok_or_else(|| domain::Error::not_found("session", id))?;
        session.end(&tx, EndReason::Revoked, ctx.now()).await?;
        tx.commit().await?;
        Ok(id)
    }
}

impl Identified for Session {
    type Entity = entity::Session;

    const REQUIRES: Option<Permission> = None;

    fn row_id(&self) -> Id<entity::Session> {
        self.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Session>) -> Result<Option<Self>> {
        // Returns only the viewer's own sessions; no permission allows reading the sessions of others.
        let viewer = ctx.viewer()?;
        let Some(user) = viewer.user() else { return Ok(None) };
        let now = ctx.now();
        let sessions = ctx
            .scope()
            .read_users(async |tx| session::Session::of_user(tx, user, now).await)
            .await?;
        let own = sessions.into_iter().find(|session| session.id == id);
        Ok(own.map(|session| Self::new(session, viewer.session)))
    }
}

impl Identified for Organization {
    type Entity = entity::Organization;

    const REQUIRES: Option<Permission> = None;

    fn row_id(&self) -> Id<entity::Organization> {
        self.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::Organization>) -> Result<Option<Self>> {
        if id != ctx.viewer()?.org {
            return Ok(None);
        }
        Ok(Some(Self::current(&*ctx.read().await?).await?))
    }
}
