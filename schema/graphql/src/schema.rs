//! The schema: the roots, put together of a file's worth each.

use async_graphql::{MergedObject, MergedSubscription, Schema, SchemaBuilder};

use crate::{
    api_key::{ApiKeyMutation, ApiKeyQuery},
    asset::{AssetMutation, AssetQuery},
    attribute::AttributeQuery,
    audit::AuditQueries,
    compliance::{ComplianceMutation, ComplianceQuery},
    custody::CustodyMutation,
    dependency::DependencyMutation,
    drift::DriftQuery,
    error::ErrorCode,
    finding::FindingQuery,
    forecast::ForecastQuery,
    import::{ImportMutation, ImportQuery},
    job::{JobMutation, JobQuery},
    node::NodeQuery,
    report::ReportQuery,
    rule::{RuleMutation, RuleQuery},
    schedule::{ScheduleMutation, ScheduleQuery},
    score::ScoreQuery,
    session::{SessionMutation, SessionQuery},
    subscription::{ImportSubscription, JobSubscription, RunSubscription},
    tag::{TagMutation, TagQuery},
    user::{UserMutation, UserQuery},
    waiver::{WaiverMutation, WaiverQuery},
    worker::WorkerQuery,
};

/// What can be read.
#[derive(MergedObject, Default)]
pub(crate) struct Query(
    SessionQuery,
    NodeQuery,
    AssetQuery,
    TagQuery,
    AttributeQuery,
    ImportQuery,
    AuditQueries,
    UserQuery,
    ApiKeyQuery,
    RuleQuery,
    ComplianceQuery,
    FindingQuery,
    WaiverQuery,
    ScoreQuery,
    DriftQuery,
    ForecastQuery,
    ReportQuery,
    JobQuery,
    WorkerQuery,
    ScheduleQuery,
);

/// What can be done.
#[derive(MergedObject, Default)]
pub(crate) struct Mutation(
    SessionMutation,
    UserMutation,
    ApiKeyMutation,
    AssetMutation,
    TagMutation,
    ImportMutation,
    DependencyMutation,
    CustodyMutation,
    RuleMutation,
    ComplianceMutation,
    WaiverMutation,
    JobMutation,
    ScheduleMutation,
);

/// What can be watched.
#[derive(MergedSubscription, Default)]
pub(crate) struct Subscription(RunSubscription, ImportSubscription, JobSubscription);

/// The schema, before it is known whether it may be asked for.
pub(crate) fn builder() -> SchemaBuilder<Query, Mutation, Subscription> {
    // Depth, cost and the like are ours, measured before execution; see `cost`.
    Schema::build(Query::default(), Mutation::default(), Subscription::default())
        .register_output_type::<ErrorCode>()
}
