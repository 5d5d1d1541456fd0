//! `node(id)`: any row by its id, if the caller may read its type.

use async_graphql::{Context, ID, Interface, Object};
use domain::{
    Id,
    access::{
        audit, directive::authenticated, organization::Organization, permission::Permission,
        role::Role, session, viewer::Viewer,
    },
    base::entity::Entity,
    compliance::{finding, rule, run, waiver},
    entity::{self, SessionId},
    fleet::{job, schedule},
    inventory::{asset, custody, dependency, import, tag::Tag},
};

use crate::{
    access::api_key::ApiKeyById,
    access::user::UserById,
    access::{api_key::ApiKey, audit::AuditEntry, session::Session, user::User},
    compliance::{finding::Finding, rule::Rule, run::ComplianceRun, waiver::Waiver},
    fleet::{job::Job, schedule::Schedule},
    inventory::{asset::Asset, custody::Custody, dependency::Dependency, import::ImportRun},
    request::{context::ContextExt, error::Result, loader::Load},
};

/// Every type with an id.
#[derive(Interface)]
#[graphql(field(
    name = "id",
    method = "node_id",
    ty = "ID",
    desc = "The id: a prefix that says the type, and a UUIDv7."
))]
pub(crate) enum Node {
    /// Something we operate.
    Asset(Asset),
    /// What an asset needs.
    Dependency(Dependency),
    /// Somebody holding an asset, now or once.
    Custody(Custody),
    /// A person.
    User(User),
    /// A team.
    Organization(Organization),
    /// A named set of permissions.
    Role(Role),
    /// One sign-in of the viewer's own.
    Session(Session),
    /// A program's key.
    ApiKey(ApiKey),
    /// A recorded change.
    AuditEntry(AuditEntry),
    /// A machine-checkable condition.
    Rule(Rule),
    /// One compliance run.
    ComplianceRun(ComplianceRun),
    /// A rule that an asset breaks, or broke.
    Finding(Finding),
    /// A dated permission to leave a rule broken.
    Waiver(Waiver),
    /// An order to a worker.
    Job(Job),
    /// What is to be done at which times.
    Schedule(Schedule),
    /// A word that people group assets by.
    Tag(Tag),
    /// One import.
    ImportRun(ImportRun),
}

/// A row's id whatever its type.
trait NodeId {
    async fn node_id(&self, _ctx: &Context<'_>) -> Result<ID>;
}

macro_rules! node_ids {
    ($($view:ty: |$row:ident| $id:expr,)+) => {
        $(impl NodeId for $view {
            async fn node_id(&self, _ctx: &Context<'_>) -> Result<ID> {
                let $row = self;
                Ok(ID($id.to_string()))
            }
        })+
    };
}
node_ids! {
    Asset: |asset| asset.0.id,
    Dependency: |dependency| dependency.0.id,
    Custody: |custody| custody.0.id,
    User: |user| user.0.id,
    Organization: |organization| organization.id,
    Role: |role| role.id,
    Session: |session| session.id,
    ApiKey: |key| key.0.id,
    AuditEntry: |entry| entry.0.id,
    Rule: |rule| rule.row.id,
    ComplianceRun: |run| run.0.id,
    Finding: |finding| finding.0.id,
    Waiver: |waiver| waiver.0.id,
    Tag: |tag| tag.id,
    ImportRun: |run| run.0.id,
    Job: |job| job.0.id,
    Schedule: |schedule| schedule.0.id,
}

/// The query on any row.
#[derive(Default)]
pub(crate) struct NodeQuery;

#[Object]
impl NodeQuery {
    /// Any row by its id; what does not exist or the caller may not read is null. For everybody signed in.
    #[graphql(directive = authenticated::apply())]
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id, such as ast_01j8xq4m9ke5trv3yx2f7nbc6d.")] id: ID,
    ) -> Result<Option<Node>> {
        let Some((prefix, uuid)) = entity::split(&id) else {
            return Err(domain::Error::invalid(
                "id",
                "not an id: ids look like ast_01j8xq4m9ke5trv3yx2f7nbc6d",
            )
            .into());
        };
        let viewer = ctx.viewer()?;
        let oneself = viewer.own_id().is_some_and(|own| own == *id);
        Ok(match prefix {
            entity::Asset::PREFIX if viewer.may(Permission::AssetRead) => {
                asset::Asset::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|asset| Node::Asset(Asset(asset)))
            }
            entity::Dependency::PREFIX if viewer.may(Permission::AssetRead) => {
                dependency::Dependency::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|dependency| Node::Dependency(Dependency(dependency)))
            }
            entity::Custody::PREFIX if viewer.may(Permission::AssetRead) => {
                custody::Custody::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|custody| Node::Custody(Custody(custody)))
            }
            entity::User::PREFIX => {
                ctx.load::<UserById>(Id::from(uuid)).await?.map(|user| Node::User(User(user)))
            }
            entity::Organization::PREFIX if uuid == viewer.org.uuid() => {
                Some(Node::Organization(Organization::current(&*ctx.read().await?).await?))
            }
            entity::Role::PREFIX => {
                let roles = Role::list(&*ctx.read().await?, viewer.org).await?;
                roles.into_iter().find(|role| role.id.uuid() == uuid).map(Node::Role)
            }
            entity::Session::PREFIX => {
                own_session(ctx, viewer, Id::from(uuid)).await?.map(Node::Session)
            }
            entity::ApiKey::PREFIX if oneself || viewer.may(Permission::ApiKeyManage) => {
                ctx.load::<ApiKeyById>(Id::from(uuid)).await?.map(|key| Node::ApiKey(ApiKey(key)))
            }
            entity::AuditEntry::PREFIX if viewer.may(Permission::AuditRead) => {
                audit::AuditEntry::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|entry| Node::AuditEntry(AuditEntry(entry)))
            }
            entity::Rule::PREFIX if viewer.may(Permission::ComplianceRead) => {
                rule::Rule::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|rule| Node::Rule(Rule::from(rule)))
            }
            entity::Run::PREFIX if viewer.may(Permission::ComplianceRead) => {
                run::Run::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|run| Node::ComplianceRun(ComplianceRun(run)))
            }
            entity::Finding::PREFIX if viewer.may(Permission::ComplianceRead) => {
                finding::Finding::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|finding| Node::Finding(Finding(finding)))
            }
            entity::Waiver::PREFIX if viewer.may(Permission::ComplianceRead) => {
                waiver::Waiver::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|waiver| Node::Waiver(Waiver(waiver)))
            }
            entity::Job::PREFIX if viewer.may(Permission::JobRead) => {
                job::Job::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|job| Node::Job(Job(job)))
            }
            entity::Schedule::PREFIX if viewer.may(Permission::JobRead) => {
                schedule::Schedule::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|schedule| Node::Schedule(Schedule(schedule)))
            }
            entity::Tag::PREFIX if viewer.may(Permission::AssetRead) => {
                Tag::find(&*ctx.read().await?, Id::from(uuid)).await?.map(Node::Tag)
            }
            entity::ImportRun::PREFIX if viewer.may(Permission::AssetRead) => {
                import::ImportRun::find(&*ctx.read().await?, Id::from(uuid))
                    .await?
                    .map(|run| Node::ImportRun(ImportRun(run)))
            }
            _ => None,
        })
    }
}

/// A live session, if it is the viewer's own: nobody reads somebody else's.
async fn own_session(ctx: &Context<'_>, viewer: &Viewer, id: SessionId) -> Result<Option<Session>> {
    let Some(user) = viewer.user() else { return Ok(None) };
    let now = ctx.now();
    let sessions =
        ctx.scope().read_people(async |tx| session::Session::of_user(tx, user, now).await).await?;
    let own = sessions.into_iter().find(|session| session.id == id);
    Ok(own.map(|session| Session::new(session, viewer.session)))
}
