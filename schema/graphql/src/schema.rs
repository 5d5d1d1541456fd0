//! The schema: the roots, put together of a file's worth each.

use async_graphql::{EmptySubscription, MergedObject, Schema, SchemaBuilder};

use crate::{
    api_key::{ApiKeyMutation, ApiKeyQuery},
    asset::{AssetMutation, AssetQuery},
    audit::AuditQueries,
    compliance::{ComplianceMutation, ComplianceQuery},
    error::ErrorCode,
    node::NodeQuery,
    session::{SessionMutation, SessionQuery},
    user::{UserMutation, UserQuery},
};

/// What can be read.
#[derive(MergedObject, Default)]
pub(crate) struct Query(
    SessionQuery,
    NodeQuery,
    AssetQuery,
    AuditQueries,
    UserQuery,
    ApiKeyQuery,
    ComplianceQuery,
);

/// What can be done.
#[derive(MergedObject, Default)]
pub(crate) struct Mutation(
    SessionMutation,
    UserMutation,
    ApiKeyMutation,
    AssetMutation,
    ComplianceMutation,
);

/// The schema, before it is known whether it may be asked for.
pub(crate) fn builder() -> SchemaBuilder<Query, Mutation, EmptySubscription> {
    // Depth, cost and the like are ours, measured before execution; see `cost`.
    Schema::build(Query::default(), Mutation::default(), EmptySubscription)
        .register_output_type::<ErrorCode>()
}
