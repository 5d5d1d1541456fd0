//! The schema: the roots, put together of a file's worth each; in groups, because a root nests a future for each that it is made
//! of, and the compiler follows only so many.

use async_graphql::{MergedObject, MergedSubscription, Schema, SchemaBuilder};

use crate::{
    access::{
        api_key::{ApiKeyMutation, ApiKeyQuery},
        audit::AuditQueries,
        session::{SessionMutation, SessionQuery},
        user::{UserMutation, UserQuery},
    },
    compliance::{
        drift::DriftQuery,
        finding::FindingQuery,
        forecast::ForecastQuery,
        report::ReportQuery,
        rule::{RuleMutation, RuleQuery},
        run::{ComplianceMutation, ComplianceQuery, RunSubscription},
        score::ScoreQuery,
        waiver::{WaiverMutation, WaiverQuery},
    },
    engine::node::NodeQuery,
    fleet::{
        job::{JobMutation, JobQuery, JobSubscription},
        schedule::{ScheduleMutation, ScheduleQuery},
        worker::WorkerQuery,
    },
    inventory::{
        asset::{AssetMutation, AssetQuery},
        attribute::AttributeQuery,
        custody::CustodyMutation,
        dependency::DependencyMutation,
        import::{ImportMutation, ImportQuery, ImportSubscription},
        tag::{TagMutation, TagQuery},
    },
    request::error::ErrorCode,
};

/// What can be read.
#[derive(MergedObject, Default)]
pub(crate) struct Query(PeopleQuery, InventoryQuery, JudgingQuery, FleetQuery);

/// Who is there, who asks, and what they did.
#[derive(MergedObject, Default)]
pub(crate) struct PeopleQuery(SessionQuery, NodeQuery, UserQuery, ApiKeyQuery, AuditQueries);

/// What is operated.
#[derive(MergedObject, Default)]
pub(crate) struct InventoryQuery(AssetQuery, TagQuery, AttributeQuery, ImportQuery);

/// How it is judged, and what came of that.
#[derive(MergedObject, Default)]
pub(crate) struct JudgingQuery(
    RuleQuery,
    ComplianceQuery,
    FindingQuery,
    WaiverQuery,
    ScoreQuery,
    DriftQuery,
    ForecastQuery,
    ReportQuery,
);

/// Who does the work, and when.
#[derive(MergedObject, Default)]
pub(crate) struct FleetQuery(JobQuery, WorkerQuery, ScheduleQuery);

/// What can be done.
#[derive(MergedObject, Default)]
pub(crate) struct Mutation(PeopleMutation, InventoryMutation, JudgingMutation, FleetMutation);

/// What is done about people.
#[derive(MergedObject, Default)]
pub(crate) struct PeopleMutation(SessionMutation, UserMutation, ApiKeyMutation);

/// What is done about what is operated.
#[derive(MergedObject, Default)]
pub(crate) struct InventoryMutation(
    AssetMutation,
    TagMutation,
    ImportMutation,
    DependencyMutation,
    CustodyMutation,
);

/// What is done about how it is judged.
#[derive(MergedObject, Default)]
pub(crate) struct JudgingMutation(RuleMutation, ComplianceMutation, WaiverMutation);

/// What is done about work.
#[derive(MergedObject, Default)]
pub(crate) struct FleetMutation(JobMutation, ScheduleMutation);

/// What can be watched.
#[derive(MergedSubscription, Default)]
pub(crate) struct Subscription(RunSubscription, ImportSubscription, JobSubscription);

/// The schema, before it is known whether it may be asked for.
pub(crate) fn builder() -> SchemaBuilder<Query, Mutation, Subscription> {
    // Depth, cost and the like are ours, measured before execution; see `cost`.
    Schema::build(Query::default(), Mutation::default(), Subscription::default())
        .register_output_type::<ErrorCode>()
}
