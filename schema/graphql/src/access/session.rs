//! Signing in and out, and the viewer: who asks.

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
        user::normalise_email,
        viewer,
    },
    entity::{self, OrganizationId, SessionId},
};

use crate::{
    access::actor::{Actor, actor},
    access::user::RolesOfUser,
    document::policy::{
        FieldPolicy,
        Policy::{IgnoresBearer, NullForNobody, Oneself, StandsAlone, ToleratesBearer},
    },
    request::{
        context::ContextExt,
        error::{Error, ErrorCode, Result},
        loader::Load,
        node::Identified,
    },
};

/// One sign-in.
#[derive(SimpleObject)]
#[graphql(directive = authenticated::apply())]
pub(crate) struct Session {
    /// Its id.
    pub(crate) id: SessionId,
    /// The address it was opened from.
    source_ip: String,
    /// When it was opened.
    created_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    last_seen_at: DateTime<Utc>,
    /// When it ends at the latest.
    expires_at: DateTime<Utc>,
    /// Whether it is the one that asks.
    current: bool,
}

impl Session {
    /// The view of a session, where `current` asks.
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

/// Who asks.
pub(crate) struct Viewer(viewer::Viewer);

/// Who asks, where they are signed in, and what they may do there.
#[Object(directive = public::apply())]
impl Viewer {
    /// The user or API key that asks.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Actor> {
        actor(ctx, self.0.actor)
            .await?
            .ok_or_else(|| Error::new(ErrorCode::NotFound, "You are gone."))
    }

    /// The organization it is signed in to.
    async fn organization(&self, ctx: &Context<'_>) -> Result<Organization> {
        Ok(Organization::current(&*ctx.read().await?).await?)
    }

    /// The organizations it could be signed in to; see `switchOrganization`.
    async fn organizations(&self, ctx: &Context<'_>) -> Result<Vec<Organization>> {
        let Some(user) = self.0.user() else {
            return Ok(vec![Organization::current(&*ctx.read().await?).await?]);
        };
        ctx.scope().read_people(async |tx| Organization::of_user(tx, user).await).await
    }

    /// Its roles there; an API key has none, only permissions.
    async fn roles(&self, ctx: &Context<'_>) -> Result<Vec<Role>> {
        let Some(user) = self.0.user() else { return Ok(Vec::new()) };
        Ok(ctx.load::<RolesOfUser>(user).await?.unwrap_or_default())
    }

    /// What it may do there.
    async fn permissions(&self) -> Vec<Permission> {
        self.0.permissions.iter().collect()
    }

    /// Its own sessions that are alive, newest first.
    async fn sessions(&self, ctx: &Context<'_>) -> Result<Vec<Session>> {
        let Some(user) = self.0.user() else { return Ok(Vec::new()) };
        let now = ctx.now();
        let sessions = ctx
            .scope()
            .read_people(async |tx| session::Session::of_user(tx, user, now).await)
            .await?;
        let view = |session| Session::new(session, self.0.session);
        Ok(sessions.into_iter().map(view).collect())
    }
}

/// What signing in leads to: tokens, or the question for a second factor.
#[derive(SimpleObject)]
#[graphql(directive = public::apply())]
pub(crate) struct LoginPayload {
    /// What to go on with.
    tokens: Option<Tokens>,
    /// What to answer with a second factor; absent where none is enrolled.
    mfa_challenge: Option<String>,
}

/// Policies of the fields that say who somebody is.
pub(crate) const POLICIES: &[FieldPolicy] = &[
    FieldPolicy { on: "Mutation", field: "login", policies: &[StandsAlone, IgnoresBearer] },
    FieldPolicy {
        on: "Mutation",
        field: "refreshSession",
        policies: &[StandsAlone, IgnoresBearer],
    },
    FieldPolicy { on: "Mutation", field: "changePassword", policies: &[StandsAlone] },
    FieldPolicy { on: "Mutation", field: "switchOrganization", policies: &[StandsAlone] },
    FieldPolicy { on: "Mutation", field: "logout", policies: &[ToleratesBearer] },
    FieldPolicy { on: "Query", field: "viewer", policies: &[NullForNobody] },
    FieldPolicy { on: "Viewer", field: "actor", policies: &[Oneself] },
];

/// Queries on the viewer.
#[derive(Default)]
pub(crate) struct SessionQuery;

#[Object]
impl SessionQuery {
    /// Who asks; null when nobody is signed in. Open to everybody.
    #[graphql(directive = public::apply())]
    async fn viewer(&self, ctx: &Context<'_>) -> Option<Viewer> {
        ctx.viewer_or_nobody().cloned().map(Viewer)
    }
}

/// Mutations of sessions.
#[derive(Default)]
pub(crate) struct SessionMutation;

#[Object]
impl SessionMutation {
    /// Signs in. A document holds one sign-in and no other mutation. Open to everybody.
    #[graphql(directive = public::apply())]
    async fn login(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The e-mail, whatever its case.")] email: String,
        #[graphql(desc = "The password.", secret)] password: String,
    ) -> Result<LoginPayload> {
        let services = ctx.services();
        let account = format!("login account {}", normalise_email(&email).unwrap_or_default());
        let address = format!("login address {}", jobs::address_bucket(ctx.caller().address));
        ctx.take(&services.auth_quota, &[&account, &address]).await?;
        let tokens = services.identity.login(&email, &password, ctx.caller()).await?;
        Ok(LoginPayload { tokens: Some(tokens), mfa_challenge: None })
    }

    /// Trades a refresh token for the next pair. Each works once: using one again ends its session. Open to everybody.
    #[graphql(directive = public::apply())]
    async fn refresh_session(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The refresh token.", secret)] refresh_token: String,
    ) -> Result<Tokens> {
        let services = ctx.services();
        let address = format!("refresh address {}", jobs::address_bucket(ctx.caller().address));
        ctx.take(&services.auth_quota, &[&address]).await?;
        Ok(services.identity.refresh(&refresh_token, ctx.caller()).await?)
    }

    /// Ends the session that asks. Again, or with none, it changes nothing and is true. Open to everybody.
    #[graphql(directive = public::apply())]
    async fn logout(&self, ctx: &Context<'_>) -> Result<bool> {
        if let Some(viewer) = ctx.viewer_or_nobody() {
            ctx.services().identity.logout(viewer, ctx.caller()).await?;
        }
        Ok(true)
    }

    /// Signs the session in to another of the viewer's organizations; its former tokens end. For everybody signed in.
    #[graphql(directive = authenticated::apply())]
    async fn switch_organization(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] organization: OrganizationId,
    ) -> Result<Tokens> {
        Ok(ctx.services().identity.switch(ctx.viewer()?, organization, ctx.caller()).await?)
    }

    /// Changes the viewer's own password and ends their other sessions. For everybody signed in.
    #[graphql(directive = authenticated::apply())]
    async fn change_password(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The password of now.", secret)] current: String,
        #[graphql(desc = "The next one: 15 characters at least, hard to guess.", secret)]
        new: String,
    ) -> Result<bool> {
        let (services, viewer) = (ctx.services(), ctx.viewer()?);
        let account = format!("password account {}", viewer.own_id().unwrap_or_default());
        ctx.take(&services.auth_quota, &[&account]).await?;
        services.identity.change_password(viewer, &current, &new, ctx.caller()).await?;
        Ok(true)
    }

    /// Ends one of the viewer's own sessions. For everybody signed in.
    #[graphql(directive = authenticated::apply())]
    async fn revoke_session(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which one.")] id: SessionId,
    ) -> Result<SessionId> {
        let viewer = ctx.viewer()?;
        let tx = ctx.write_people().await?;
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
        // Only the viewer's own: nobody reads somebody else's.
        let viewer = ctx.viewer()?;
        let Some(user) = viewer.user() else { return Ok(None) };
        let now = ctx.now();
        let sessions = ctx
            .scope()
            .read_people(async |tx| session::Session::of_user(tx, user, now).await)
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
