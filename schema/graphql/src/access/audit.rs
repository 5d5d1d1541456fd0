//! The audit trail: the view and the query.

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

/// One recorded change.
pub(crate) struct AuditEntry(pub(crate) audit::AuditEntry);

/// One recorded change. Takes `AUDIT_READ`.
#[Object(directive = requires::apply(AuditRead))]
impl AuditEntry {
    /// Its id.
    async fn id(&self) -> AuditEntryId {
        self.0.id
    }

    /// When.
    async fn at(&self) -> DateTime<Utc> {
        self.0.at
    }

    /// Who.
    async fn actor(&self, ctx: &Context<'_>) -> Result<Option<Actor>> {
        actor(ctx, self.0.actor).await
    }

    /// What was done, e.g. `asset.updated`.
    async fn action(&self) -> &str {
        &self.0.action
    }

    /// To what kind of thing, e.g. `asset`.
    async fn entity_type(&self) -> &str {
        &self.0.entity_type
    }

    /// To which one.
    async fn entity_id(&self) -> ID {
        ID(entity::of_key(&self.0.entity_type, self.0.entity_id))
    }

    /// The key paths whose values differ, e.g. `attributes.os_name`.
    async fn changed_paths(&self) -> &[String] {
        &self.0.changed_paths
    }

    /// The values before; null for what was created.
    async fn before(&self) -> Option<&Value> {
        self.0.before.as_ref()
    }

    /// The values after; null for what was deleted.
    async fn after(&self) -> Option<&Value> {
        self.0.after.as_ref()
    }

    /// The address that the request came from.
    async fn source_ip(&self) -> Option<&str> {
        self.0.source_ip.as_deref()
    }

    /// The id of the request.
    async fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }
}

/// Which entries to list; what is given must all hold.
#[derive(Debug, Default, InputObject)]
pub(crate) struct AuditFilter {
    /// Of this kind of thing, e.g. `asset`.
    entity_type: Option<String>,
    /// Of this one thing.
    entity_id: Option<ID>,
    /// By this user or API key.
    actor_id: Option<ID>,
    /// Of this action, e.g. `asset.updated`.
    action: Option<String>,
}

impl AuditFilter {
    fn query(self) -> Result<AuditQuery> {
        let uuid = |path: &str, given: Option<ID>| {
            given
                .map(|given| entity::split(&given).map(|(_, uuid)| uuid))
                .map(|found| found.ok_or_else(|| domain::Error::invalid(path, "is not an id")))
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

/// Queries on the audit trail.
#[derive(Default)]
pub(crate) struct AuditQueries;

#[Object(name = "AuditQuery")]
impl AuditQueries {
    /// Who changed what, newest first. Takes `AUDIT_READ`.
    #[graphql(directive = requires::apply(AuditRead))]
    async fn audit_entries(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which ones; all without it.")] filter: Option<AuditFilter>,
        #[graphql(desc = "How many from the start, up to 100; 50 without it.")] first: Option<i32>,
        #[graphql(desc = "After this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end, up to 100.")] last: Option<i32>,
        #[graphql(desc = "Before this cursor.")] before: Option<String>,
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
