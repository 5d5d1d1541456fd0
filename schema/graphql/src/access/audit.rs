//! The audit trail: GraphQL type and query.

use async_graphql::{Context, ID, InputObject, Object};
use chrono::{DateTime, Utc};
use domain::{
    Id,
    access::{
        audit::{self, AuditQuery},
        directive::requires,
        permission::Permission::{self, AuditRead},
    },
    base::page::{CursorScope, PageArgs},
    entity::{self, AuditEntryId},
};
use futures_util::future::OptionFuture;
use serde_json::Value;

use crate::{
    access::actor::{Actor, actor},
    request::{
        context::ContextExt,
        error::Result,
        node::Identified,
        page::{Connection, wants_total},
    },
};

/// An entry of the audit trail.
pub(crate) struct AuditEntry(pub(crate) audit::AuditEntry);

/// An entry of the audit trail: one recorded change. Requires `AUDIT_READ`.
#[Object(directive = requires::apply(AuditRead))]
impl AuditEntry {
    /// The entry's id, beginning `aud_`.
    async fn id(&self) -> AuditEntryId {
        self.0.id
    }

    /// Time at which the change was made.
    async fn at(&self) -> DateTime<Utc> {
        self.0.at
    }

    /// The actor who made the change; null if the user or API key no longer exists.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }

    /// The recorded action, e.g. `asset.updated` or `auth.login`.
    async fn action(&self) -> &str {
        &self.0.action
    }

    /// Type of the changed entity, e.g. `asset`.
    async fn entity_type(&self) -> &str {
        &self.0.entity_type
    }

    /// Id of the changed entity.
    async fn entity_id(&self) -> ID {
        ID(entity::type_id_of(&self.0.entity_type, self.0.entity_id))
    }

    /// Key paths whose values differ, e.g. `attributes.os_name`.
    async fn changed_paths(&self) -> &[String] {
        &self.0.changed_paths
    }

    /// Values before the change, as an object; null if the entity was created, or for an action that changes no values,
    /// such as a sign-in.
    async fn before(&self) -> Option<&Value> {
        self.0.before.as_ref()
    }

    /// Values after the change, as an object; null if the entity was deleted, or for an action that changes no values,
    /// such as a sign-in.
    async fn after(&self) -> Option<&Value> {
        self.0.after.as_ref()
    }

    /// Client address of the request; null if no request caused the change, e.g. for a job.
    async fn source_ip(&self) -> Option<&str> {
        self.0.source_ip.as_deref()
    }

    /// Id of the request; null if no request caused the change, e.g. for a job.
    async fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }
}

/// Filter of a list of audit entries. All conditions that are set must hold.
#[derive(Debug, Default, InputObject)]
pub(crate) struct AuditFilter {
    /// Type of the changed entity, e.g. `asset`.
    entity_type: Option<String>,
    /// Id of the changed entity.
    entity_id: Option<ID>,
    /// Id of the user or API key that made the change.
    actor_id: Option<ID>,
    /// Action of the entries, e.g. `asset.updated`.
    action: Option<String>,
}

impl AuditFilter {
    fn query(self) -> Result<AuditQuery> {
        let uuid = |path: &str, id: Option<ID>| {
            id.map(|id| entity::split(&id).map(|(_, uuid)| uuid))
                .map(|uuid| uuid.ok_or_else(|| domain::Error::invalid(path, "is not an id")))
                .transpose()
        };
        Ok(AuditQuery {
            entity_id: uuid("filter.entityId", self.entity_id)?,
            actor_id: uuid("filter.actorId", self.actor_id)?,
            entity_type: self.entity_type,
            action: self.action,
        })
    }
}

/// Query fields for audit entries.
#[derive(Default)]
pub(crate) struct AuditQueries;

#[Object(name = "AuditQuery")]
impl AuditQueries {
    /// The organization's audit trail, newest first. Requires `AUDIT_READ`.
    #[graphql(directive = requires::apply(AuditRead))]
    async fn audit_entries(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Filter for the entries; default all entries.")] filter: Option<
            AuditFilter,
        >,
        #[graphql(desc = "Page size, 1 to 100; default 50.")] first: Option<i32>,
        #[graphql(desc = "Cursor after which the page starts.")] after: Option<String>,
        #[graphql(desc = "Page size from the end, 1 to 100.")] last: Option<i32>,
        #[graphql(desc = "Cursor before which the page ends.")] before: Option<String>,
    ) -> Result<Connection<AuditEntry>> {
        let query = filter.unwrap_or_default().query()?;
        let keys = &ctx.services().cursors;
        let scope = CursorScope::new(ctx.viewer()?.org, "auditEntries", &query);
        let request = PageArgs { first, after, last, before }.check(keys, &scope)?;
        let tx = ctx.read().await?;
        let counting: OptionFuture<_> =
            wants_total(ctx).then(|| audit::AuditEntry::count(&tx, &query)).into();
        let (page, total) = tokio::join!(audit::AuditEntry::list(&tx, &query, &request), counting);
        let total = total.transpose()?;
        Ok(Connection::new(page?, keys, &scope, total, audit::AuditEntry::position, AuditEntry))
    }
}

impl Identified for AuditEntry {
    type Entity = entity::AuditEntry;

    const REQUIRES: Option<Permission> = Some(AuditRead);

    fn row_id(&self) -> Id<entity::AuditEntry> {
        self.0.id
    }

    async fn find(ctx: &Context<'_>, id: Id<entity::AuditEntry>) -> Result<Option<Self>> {
        Ok(audit::AuditEntry::find(&*ctx.read().await?, id).await?.map(Self))
    }
}
