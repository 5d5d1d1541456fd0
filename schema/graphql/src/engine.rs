//! The one way in, whatever the transport: limits, parsing, who asks, what they may select, execution.
//!
//! A document is refused before anything of it runs, or it runs whole. The order is the cheapest first: what is too
//! large is not parsed, what is too complex asks nobody who they are, what is forbidden touches no row of the
//! organization.
//!
//! Long, because what runs once and what is watched pass the same steps in the same order, seen side by side here.

mod files;
pub(crate) mod recognition;
mod register;
pub(crate) mod schema;
pub(crate) mod subscription;

use std::{collections::HashSet, sync::Arc};

use async_graphql::{
    PathSegment, Request, Response, Schema, ServerError, Variables,
    parser::{parse_query, types::OperationType},
};
use chrono::{DateTime, Utc};
use domain::Viewer;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};

use crate::{
    document::{
        authorize::{self, Forbidden, Need},
        expansion::Bounded,
        index::{Shape, Unstated},
        key_order::Keys,
        lexer,
        policy::Policy,
        rejection::Refusal,
        root,
        variables::Inputs,
    },
    engine::{
        recognition::Watching,
        schema::{Mutation, Query, Subscription},
    },
    request::{
        answer::{Answer, has_run, is_limited, refused, sign},
        context::{Client, RequestScope, SIGN_IN, Services},
        drive::{Loads, drive},
        error::{Error, ErrorCode},
        loader::Loaders,
        watch::Watch,
    },
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

/// Which documents run.
#[derive(Debug, Clone, Default)]
pub enum Allowlist {
    /// All.
    #[default]
    Off,
    /// All, and those with other digests (SHA-256, hex) are logged.
    Log(HashSet<String>),
    /// Those with these digests.
    Enforce(HashSet<String>),
}

/// What kind of operation a document asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It reads.
    Query,
    /// It changes.
    Mutation,
    /// It watches.
    Subscription,
}

/// A document within its limits, parsed; nothing of it has run.
pub struct Prepared {
    /// What it asks for.
    pub operation: Operation,
    bounded: Bounded,
    operation_name: Option<String>,
    variables: Variables,
    /// It signs in or refreshes, so what stands in its bearer is not looked at.
    ignores_bearer: bool,
    /// It only signs out, which a bearer that is no longer good does not keep it from.
    tolerates_bearer: bool,
}

/// The schema with its statements and limits; built once a process, cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    schema: Schema<Query, Mutation, Subscription>,
    shape: Shape,
    inputs: Inputs,
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
        let shape = Shape::read(&sdl, schema::POLICIES)
            .map_err(|unstated| unstated.iter().map(Unstated::to_string).collect::<Vec<_>>())?;
        let (inputs, services) = (Inputs::read(&sdl), Arc::new(services));
        Ok(Self(Arc::new(Inner { schema, shape, inputs, services, settings })))
    }

    /// Checks size, nesting and tokens, parses, picks the operation and measures it. Never touches the database.
    ///
    /// # Errors
    /// The answer to send.
    #[expect(clippy::result_large_err, reason = "made once a request and sent at once")]
    pub fn prepare(
        &self,
        source: &str,
        operation_name: Option<&str>,
        mut variables: Variables,
    ) -> Result<Prepared, Answer> {
        self.check_allowed(source).map_err(|error| refused(&error))?;
        lexer::source(source).map_err(|refusal| refused_at(&refusal))?;
        lexer::variables(&variables).map_err(|refusal| refused_at(&refusal))?;
        let document = parse_query(source).map_err(|error| {
            let error = ServerError::from(error);
            let mut answer = refused(&Error::new(ErrorCode::Validation, error.message));
            answer.response.errors[0].locations = error.locations;
            answer
        })?;
        let bounded = Bounded::of(document).map_err(|refusal| refused_at(&refusal))?;
        let chosen = bounded
            .choose(operation_name, &mut variables)
            .map_err(|refusal| refused_at(&refusal))?;
        let (shape, inputs) = (&self.0.shape, &self.0.inputs);
        root::check_root(chosen)
            .and_then(|()| shape.cost(chosen))
            .and_then(|_| inputs.check(chosen.definition(), chosen.variables()))
            .map_err(|refusal| refused_at(&refusal))?;
        let is_introspection = |root: &&str| matches!(*root, "__schema" | "__type");
        if !self.0.settings.introspection && chosen.root_fields().iter().any(is_introspection) {
            let message = "Introspection is off here: the schema comes with the release, or from `sentryops schema`.";
            return Err(refused(&Error::new(ErrorCode::Forbidden, message)));
        }
        let operation = match chosen.kind() {
            OperationType::Query => Operation::Query,
            OperationType::Mutation => Operation::Mutation,
            OperationType::Subscription => Operation::Subscription,
        };
        let ignores_bearer = shape.any_root(chosen, Policy::IgnoresBearer);
        let tolerates_bearer = shape.all_roots(chosen, Policy::ToleratesBearer);
        Ok(Prepared {
            operation,
            bounded,
            operation_name: operation_name.map(ToOwned::to_owned),
            variables,
            ignores_bearer,
            tolerates_bearer,
        })
    }

    fn check_allowed(&self, source: &str) -> Result<(), Error> {
        let (known, enforced) = match &self.0.settings.allowlist {
            Allowlist::Off => return Ok(()),
            Allowlist::Log(known) => (known, false),
            Allowlist::Enforce(known) => (known, true),
        };
        let digest = format!("{:x}", Sha256::digest(source));
        if known.contains(&digest) {
            return Ok(());
        }
        if enforced {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "This server runs only documents that it was told of.",
            ));
        }
        tracing::info!(document.sha256 = digest, "a document that is not on the list");
        Ok(())
    }

    /// Finds out who asks, checks the whole document against what they may, executes it.
    #[expect(clippy::disallowed_methods, reason = "the edge at which a request gets its time")]
    pub async fn execute(
        &self,
        prepared: Prepared,
        bearer: Option<&str>,
        client: Client,
    ) -> Answer {
        let now = Utc::now();
        let request_id = client.request_id.clone();
        let mut answer = match self.viewer(&prepared, bearer, &client, now).await {
            Ok(viewer) => self.run(prepared, viewer, client, now).await,
            Err(error) => refused(&error),
        };
        sign(&mut answer.response, &request_id);
        answer
    }

    /// One execution of a subscription: the answers that it gives now. As [`Engine::execute`], but the document stays.
    #[expect(clippy::disallowed_methods, reason = "the edge at which an execution gets its time")]
    pub(crate) async fn tick(
        &self,
        prepared: &Prepared,
        bearer: Option<&str>,
        client: Client,
        watch: &Arc<Watch>,
    ) -> Vec<Answer> {
        let now = Utc::now();
        let request_id = client.request_id.clone();
        let mut answers = match self.viewer(prepared, bearer, &client, now).await {
            Ok(viewer) => self.watch(prepared, viewer, client, now, watch).await,
            Err(error) => vec![refused(&error)],
        };
        for answer in &mut answers {
            sign(&mut answer.response, &request_id);
        }
        answers
    }

    /// Services of the process.
    pub(crate) fn services(&self) -> &Services {
        &self.0.services
    }

    /// How subscriptions keep up.
    pub(crate) fn watching(&self) -> &Watching {
        &self.0.settings.watching
    }

    async fn viewer(
        &self,
        prepared: &Prepared,
        bearer: Option<&str>,
        client: &Client,
        now: DateTime<Utc>,
    ) -> Result<Option<Viewer>, Error> {
        let Some(bearer) = bearer.filter(|_| !prepared.ignores_bearer) else { return Ok(None) };
        match self.0.services.identity.authenticate(bearer, client.address, now).await {
            Ok(viewer) => Ok(Some(viewer)),
            Err(domain::Error::BadToken(_)) if prepared.tolerates_bearer => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn run(
        &self,
        prepared: Prepared,
        viewer: Option<Viewer>,
        client: Client,
        now: DateTime<Utc>,
    ) -> Answer {
        let Prepared { bounded, operation_name, mut variables, .. } = prepared;
        let (keys, is_alone) = match self.admit(
            &bounded,
            operation_name.as_deref(),
            &mut variables,
            viewer.as_ref(),
        ) {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        let scope = Arc::new(RequestScope::new(Arc::clone(&self.0.services), viewer, client, now));
        let loads = Loads::default();
        let request = request(bounded, operation_name, variables, &scope, &loads);
        let mut response = drive(Box::pin(self.0.schema.execute(request)), loads).await;
        scope.finish().await;
        keys.arrange(&mut response.data);
        let executed = has_run(&response) && !(is_alone && is_limited(&response));
        Answer { response, executed }
    }

    async fn watch(
        &self,
        prepared: &Prepared,
        viewer: Option<Viewer>,
        client: Client,
        now: DateTime<Utc>,
        watch: &Arc<Watch>,
    ) -> Vec<Answer> {
        let Prepared { bounded, operation_name, variables, .. } = prepared;
        let (name, mut variables) = (operation_name.clone(), variables.clone());
        let keys = match self.admit(bounded, name.as_deref(), &mut variables, viewer.as_ref()) {
            Ok((keys, _)) => keys,
            Err(refused) => return vec![refused],
        };
        let scope = Arc::new(RequestScope::new(Arc::clone(&self.0.services), viewer, client, now));
        let loads = Loads::default();
        let request = request(bounded.clone(), name, variables, &scope, &loads);
        let stream = self.0.schema.execute_stream(request.data(Arc::clone(watch)));
        let responses = drive(Box::pin(stream.collect::<Vec<_>>()), loads).await;
        scope.finish().await;
        let answers = responses.into_iter().map(|mut response| {
            keys.arrange(&mut response.data);
            Answer { executed: has_run(&response), response }
        });
        answers.collect()
    }

    /// Checks the whole document against what the viewer may; the order of the answer's keys, and whether it is of one
    /// root field.
    #[expect(clippy::result_large_err, reason = "made once a request and sent at once")]
    fn admit(
        &self,
        bounded: &Bounded,
        operation_name: Option<&str>,
        variables: &mut Variables,
        viewer: Option<&Viewer>,
    ) -> Result<(Keys, bool), Answer> {
        let own_ids: Vec<String> = viewer.and_then(Viewer::own_id).into_iter().collect();
        let caller = match viewer {
            None => authorize::Caller::Anonymous,
            Some(viewer) => {
                authorize::Caller::Known { permissions: viewer.permissions, own_ids: &own_ids }
            }
        };
        let chosen =
            bounded.choose(operation_name, variables).map_err(|refusal| refused_at(&refusal))?;
        let forbidden = self.0.shape.forbidden(chosen, caller);
        if !forbidden.is_empty() {
            let entries = forbidden.into_iter().map(entry).collect();
            return Err(Answer { response: Response::from_errors(entries), executed: false });
        }
        let roots = chosen.root_fields();
        let is_alone = roots.iter().filter(|name| **name != "__typename").count() == 1;
        Ok((Keys::of(chosen), is_alone))
    }
}

/// What async-graphql executes.
fn request(
    bounded: Bounded,
    operation_name: Option<String>,
    variables: Variables,
    scope: &Arc<RequestScope>,
    loads: &Loads,
) -> Request {
    let mut request = Request::new(String::new())
        .variables(variables)
        .data(Loaders::new(scope, loads))
        .data(Arc::clone(scope));
    request.operation_name = operation_name;
    request.set_parsed_query(bounded.into_document());
    request
}

/// The schema's text, as committed and as `sentryops schema` prints it.
pub fn sdl() -> String {
    schema::builder().finish().sdl()
}

fn refused_at(refusal: &Refusal) -> Answer {
    let code = match refusal.code {
        crate::document::rejection::Code::Validation => ErrorCode::Validation,
        crate::document::rejection::Code::QueryTooComplex => ErrorCode::QueryTooComplex,
    };
    let mut letters = refusal.message.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten().collect::<String>();
    let mut answer = refused(&Error::new(code, format!("{first}{}.", letters.as_str())));
    answer.response.errors[0].locations = refusal.position.into_iter().collect();
    answer
}

/// A forbidden path as an entry of the response.
fn entry(forbidden: Forbidden) -> ServerError {
    let error = match forbidden.need {
        Need::Authentication => Error::new(
            ErrorCode::Unauthenticated,
            format!("{} is for those signed in. {SIGN_IN}", forbidden.field),
        ),
        Need::Permission(permission) => Error::new(
            ErrorCode::Forbidden,
            format!(
                "{} takes the permission {permission}, which you do not have in this organization.",
                forbidden.field
            ),
        ),
    };
    let mut entry = error.into_graphql().into_server_error(forbidden.location);
    entry.path = forbidden.path.into_iter().map(PathSegment::Field).collect();
    entry
}
