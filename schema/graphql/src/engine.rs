//! The entry point for every transport: limits, parsing, authentication, authorization, execution.
//!
//! A GraphQL document is either rejected before any field runs, or executed as a whole. The cheapest checks run first:
//! a document that is too large is not parsed, a document that is too complex is rejected before authentication, and a
//! document for which the caller lacks a permission reads no row of the organization.
//!
//! | file | contents |
//! |---|---|
//! | `schema`, `register` | the table of files with root fields or node types; the types generated from it |
//! | `prepare`, `allowlist` | checks that need neither the caller nor the database |
//! | `execute` | authentication, authorization, execution |
//! | `error_answer`, `early_end` | errors of rejected documents and of executions that ended early |
//! | `subscription`, `connection` | repeated execution of a subscription; permissions of open connections |
//! | `files` | upload and download of files |
//! | `resolver_calls` | counts of resolver calls, with the feature `testing` |

mod allowlist;
pub(crate) mod connection;
mod early_end;
mod error_answer;
mod execute;
mod files;
mod prepare;
mod register;
#[cfg(feature = "testing")]
mod resolver_calls;
pub(crate) mod schema;
pub(crate) mod subscription;

use std::sync::Arc;

use async_graphql::{Schema, SchemaBuilder, ValidationMode};

pub use allowlist::Allowlist;
pub use files::Download;
pub use prepare::{OperationKind, Prepared};
#[cfg(feature = "testing")]
pub use resolver_calls::ResolverCalls;

use crate::{
    document::{
        index::{SchemaFault, SchemaIndex},
        variables::InputTypes,
    },
    engine::{
        connection::CheckIntervals,
        schema::{Mutation, Query, Subscription},
    },
    request::{context::Services, execution_slot::ExecutionSlots},
};

type Builder = SchemaBuilder<Query, Mutation, Subscription>;

/// Settings of the GraphQL endpoint.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// True if introspection is allowed and errors for mistyped names suggest similar ones.
    pub introspection: bool,
    /// Allowlist of the documents that clients can run.
    pub allowlist: Allowlist,
    /// Intervals at which subscriptions poll and open connections check their permissions.
    pub intervals: CheckIntervals,
}

/// The executable schema with its permission checks and limits. Built once per process; cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    schema: Schema<Query, Mutation, Subscription>,
    /// For merged operations, because the document as sent has been validated.
    schema_without_validation: Schema<Query, Mutation, Subscription>,
    /// Validates the documents whose merged operations are executed. No extension is attached to it.
    validator: Schema<Query, Mutation, Subscription>,
    index: SchemaIndex,
    input_types: InputTypes,
    services: Arc<Services>,
    slots: ExecutionSlots,
    settings: Settings,
}

impl Engine {
    /// Builds the schema and indexes its permission directives.
    ///
    /// # Errors
    /// Returns one line per error in the schema, e.g. an object type or root field without a permission directive. The
    /// server must not start then.
    pub fn build(services: Services, settings: Settings) -> Result<Self, Vec<String>> {
        Self::build_with(services, settings, |builder| builder)
    }

    /// Builds the engine from a schema builder that `extend` has extended.
    fn build_with(
        services: Services,
        settings: Settings,
        extend: impl Fn(Builder) -> Builder,
    ) -> Result<Self, Vec<String>> {
        let build = |mode, extend: &dyn Fn(Builder) -> Builder| {
            let builder = extend(schema::builder().validation_mode(mode));
            if settings.introspection {
                builder.finish()
            } else {
                builder.disable_introspection().disable_suggestions().finish()
            }
        };
        let schema = build(ValidationMode::Strict, &extend);
        let schema_without_validation = build(ValidationMode::Fast, &extend);
        let validator = build(ValidationMode::Strict, &|builder| builder);
        let sdl = schema.sdl();
        let index = SchemaIndex::read(&sdl, schema::POLICIES)
            .map_err(|faults| faults.iter().map(SchemaFault::to_string).collect::<Vec<_>>())?;
        let (input_types, services) = (InputTypes::read(&sdl), Arc::new(services));
        let slots = ExecutionSlots::new(services.db.pool_size());
        let inner = Inner {
            schema,
            schema_without_validation,
            validator,
            index,
            input_types,
            services,
            slots,
            settings,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Returns the services of the process.
    pub(crate) fn services(&self) -> &Services {
        &self.0.services
    }

    /// Returns the intervals of subscriptions and open connections.
    pub(crate) fn intervals(&self) -> &CheckIntervals {
        &self.0.settings.intervals
    }
}

/// Returns the schema as SDL, the same text that is committed and that `sentryops schema` prints.
pub fn sdl() -> String {
    schema::builder().finish().sdl()
}
