//! The one way in, whatever the transport: limits, parsing, who asks, what they may select, execution.
//!
//! A document is refused before anything of it runs, or it runs whole. The order is the cheapest first: what is too
//! large is not parsed, what is too complex asks nobody who they are, what is forbidden touches no row of the
//! organization.
//!
//! | file | what lives there |
//! |---|---|
//! | `schema`, `register` | the table of all nouns, and what is made of it: the roots, `node` |
//! | `prepare`, `allowlist` | a document until it may run |
//! | `execute` | who asks, what they may select, execution |
//! | `document_error` | refusals before execution, as clients learn them |
//! | `subscription`, `recognition` | a document that runs again and again; rights over time |
//! | `files` | files in and out |

mod allowlist;
mod document_error;
mod execute;
mod files;
mod prepare;
pub(crate) mod recognition;
mod register;
pub(crate) mod schema;
pub(crate) mod subscription;

use std::sync::Arc;

use async_graphql::Schema;

pub use allowlist::Allowlist;
pub use prepare::{OperationKind, Prepared};

use crate::{
    document::{
        index::{MissingPolicy, SchemaIndex},
        variables::InputTypes,
    },
    engine::{
        recognition::Watching,
        schema::{Mutation, Query, Subscription},
    },
    request::context::Services,
};

/// What the endpoint shows and accepts.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Whether the schema may be asked for, and whether a mistyped name is told what it might have been.
    pub introspection: bool,
    /// Whether only known documents run.
    pub allowlist: Allowlist,
    /// How subscriptions, and what they run on, keep up with the rows.
    pub watching: Watching,
}

/// The schema with its statements and limits; built once a process, cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    schema: Schema<Query, Mutation, Subscription>,
    index: SchemaIndex,
    input_types: InputTypes,
    services: Arc<Services>,
    settings: Settings,
}

impl Engine {
    /// Builds the schema and reads its statements.
    ///
    /// # Errors
    /// Every output type and root field that states no permission: such a schema must not be served.
    pub fn build(services: Services, settings: Settings) -> Result<Self, Vec<String>> {
        let mut builder = schema::builder();
        if !settings.introspection {
            builder = builder.disable_introspection().disable_suggestions();
        }
        let schema = builder.finish();
        let sdl = schema.sdl();
        let index = SchemaIndex::read(&sdl, schema::POLICIES).map_err(|unstated| {
            unstated.iter().map(MissingPolicy::to_string).collect::<Vec<_>>()
        })?;
        let (input_types, services) = (InputTypes::read(&sdl), Arc::new(services));
        Ok(Self(Arc::new(Inner { schema, index, input_types, services, settings })))
    }

    /// Services of the process.
    pub(crate) fn services(&self) -> &Services {
        &self.0.services
    }

    /// How subscriptions keep up.
    pub(crate) fn watching(&self) -> &Watching {
        &self.0.settings.watching
    }
}

/// The schema's text, as committed and as `sentryops schema` prints it.
pub fn sdl() -> String {
    schema::builder().finish().sdl()
}
