//! Execution of a prepared document: authentication, authorization, resolvers.
//!
//! Queries and mutations execute once; a subscription executes its query again after each change. Both pass the same
//! steps in the same order, and both are in this file.

use std::sync::Arc;

use async_graphql::{Request, Response, Variables};
use chrono::{DateTime, Utc};
use domain::Viewer;
use futures_util::{FutureExt, StreamExt};

use crate::{
    document::{authorize, expansion::ParsedDocument},
    engine::{
        Engine,
        early_end::{ended_early, within_limit},
        error_answer::{answer_to, entry},
        prepare::{OperationKind, Prepared},
    },
    request::{
        answer::{Answer, add_request_id, has_run, is_limited, refused},
        context::{Client, RequestScope},
        drive::{Loads, drive},
        error::Error,
        execution_slot::ExecutionSlot,
        loader::Loaders,
        pace::{MAX_MUTATION, MAX_QUERY},
        subscription_state::SubscriptionState,
    },
};

impl Engine {
    /// Authenticates the caller, checks the permissions for the whole document, and executes the document.
    #[expect(clippy::disallowed_methods, reason = "the outermost layer reads the clock")]
    pub async fn execute(
        &self,
        prepared: Prepared,
        bearer: Option<&str>,
        client: Client,
    ) -> Answer {
        let now = Utc::now();
        let request_id = client.request_id.clone();
        let mut answer = match self.counted_viewer(&prepared, bearer, &client, now).await {
            Ok(viewer) => self.run(prepared, viewer, client, now).await,
            Err(error) => refused(&error),
        };
        add_request_id(&mut answer.response, &request_id);
        answer
    }

    /// Executes the query of a subscription once, and returns the answers of this execution. Performs the same steps as
    /// [`Engine::execute`], but only borrows the document, which is executed again later.
    #[expect(clippy::disallowed_methods, reason = "the outermost layer reads the clock")]
    pub(crate) async fn execute_for_subscription(
        &self,
        prepared: &Prepared,
        bearer: Option<&str>,
        client: Client,
        state: &Arc<SubscriptionState>,
    ) -> Vec<Answer> {
        let now = Utc::now();
        let request_id = client.request_id.clone();
        let viewer = if state.is_first_execution() {
            self.counted_viewer(prepared, bearer, &client, now).await
        } else {
            self.viewer(prepared, bearer, &client, now).await
        };
        let mut answers = match viewer {
            Ok(viewer) => self.run_for_subscription(prepared, viewer, client, now, state).await,
            Err(error) => vec![refused(&error)],
        };
        for answer in &mut answers {
            add_request_id(&mut answer.response, &request_id);
        }
        answers
    }

    /// Authenticates the caller, and counts the request.
    async fn counted_viewer(
        &self,
        prepared: &Prepared,
        bearer: Option<&str>,
        client: &Client,
        now: DateTime<Utc>,
    ) -> Result<Option<Viewer>, Error> {
        let viewer = self.viewer(prepared, bearer, client, now).await?;
        self.services().count_caller(viewer.as_ref()).await?;
        Ok(viewer)
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
        let has_one_root = match self.check(&prepared, viewer.as_ref(), &client, now) {
            Ok(has_one_root) => has_one_root,
            Err(refused) => return refused,
        };
        if prepared.starts_jobs
            && let Err(error) = self.services().check_queues()
        {
            return refused(&error);
        }
        let _slots = match self.slots(viewer.as_ref()).await {
            Ok(slots) => slots,
            Err(error) => return refused(&error),
        };
        let scope = self.scope(viewer, client, now, prepared.operation);
        let loads = Loads::default();
        let Prepared { operation, document, merged, keys, operation_name, variables, .. } =
            prepared;
        let (schema, request) = match merged {
            Some(merged) => (
                &self.0.schema_without_validation,
                request(merged, None, variables, &scope, &loads),
            ),
            None => (&self.0.schema, request(document, operation_name, variables, &scope, &loads)),
        };
        let execution = Box::pin(schema.execute(request));
        let response = drive(execution, loads, &scope.pace).await;
        scope.finish_or_abandon(&response).await;
        let response = response.and_then(within_limit);
        match response {
            Ok(mut response) => {
                scope.count_refusals(&response, operation.root(), &keys);
                keys.sort(&mut response.data);
                let executed = has_run(&response) && !(has_one_root && is_limited(&response));
                Answer { response, executed }
            }
            Err(reason) => ended_early(reason, &scope.pace, operation, &keys),
        }
    }

    async fn run_for_subscription(
        &self,
        prepared: &Prepared,
        viewer: Option<Viewer>,
        client: Client,
        now: DateTime<Utc>,
        state: &Arc<SubscriptionState>,
    ) -> Vec<Answer> {
        if let Err(refused) = self.check(prepared, viewer.as_ref(), &client, now) {
            return vec![refused];
        }
        let _slots = match self.slots(viewer.as_ref()).await {
            Ok(slots) => slots,
            Err(error) => return vec![refused(&error)],
        };
        let scope = self.scope(viewer, client, now, prepared.operation);
        let loads = Loads::default();
        let variables = prepared.variables.clone();
        let (schema, request) = if let Some(merged) = &prepared.merged {
            (
                &self.0.schema_without_validation,
                request(merged.clone(), None, variables, &scope, &loads),
            )
        } else {
            let (document, name) = (prepared.document.clone(), prepared.operation_name.clone());
            (&self.0.schema, request(document, name, variables, &scope, &loads))
        };
        let stream = schema.execute_stream(request.data(Arc::clone(state)));
        let execution = Box::pin(stream.collect::<Vec<_>>());
        let responses = drive(execution, loads, &scope.pace).await;
        scope.finish_or_abandon(&responses).await;
        let responses = match responses {
            Ok(responses) => responses,
            Err(reason) => {
                return vec![ended_early(reason, &scope.pace, prepared.operation, &prepared.keys)];
            }
        };
        let answers = responses.into_iter().map(|response| match within_limit(response) {
            Ok(mut response) => {
                prepared.keys.sort(&mut response.data);
                Answer { executed: has_run(&response), response }
            }
            Err(reason) => ended_early(reason, &scope.pace, prepared.operation, &prepared.keys),
        });
        answers.collect()
    }

    fn scope(
        &self,
        viewer: Option<Viewer>,
        client: Client,
        now: DateTime<Utc>,
        operation: OperationKind,
    ) -> Arc<RequestScope> {
        let limit = match operation {
            OperationKind::Query | OperationKind::Subscription => MAX_QUERY,
            OperationKind::Mutation => MAX_MUTATION,
        };
        let (services, slots) = (Arc::clone(&self.0.services), self.0.slots.clone());
        Arc::new(RequestScope::new(services, slots, viewer, client, now, limit))
    }

    /// Waits for a slot of the caller; an anonymous caller reads no rows of an organization and needs none.
    async fn slots(&self, viewer: Option<&Viewer>) -> Result<Option<[ExecutionSlot; 2]>, Error> {
        match viewer {
            Some(viewer) => self.0.slots.of_execution(viewer).await.map(Some),
            None => Ok(None),
        }
    }

    /// Checks the permissions for the whole document, and validates it if a merged operation is executed in its place.
    /// Returns true if the operation has exactly one root field besides `__typename`.
    #[expect(clippy::result_large_err, reason = "created once per request and sent immediately")]
    fn check(
        &self,
        prepared: &Prepared,
        viewer: Option<&Viewer>,
        client: &Client,
        now: DateTime<Utc>,
    ) -> Result<bool, Answer> {
        let own_ids: Vec<String> = viewer.and_then(Viewer::own_id).into_iter().collect();
        let caller = match viewer {
            None => authorize::Caller::Anonymous,
            Some(viewer) => authorize::Caller::Authenticated {
                permissions: viewer.permissions,
                own_ids: &own_ids,
            },
        };
        let Prepared { document, merged, operation_name, variables, .. } = prepared;
        let sent = document
            .prepared_operation(operation_name.as_deref(), variables)
            .map_err(|error| answer_to(&error))?;
        let executed = merged.as_ref().and_then(|merged| merged.merged_operation(sent));
        let mut forbidden = self.0.index.forbidden(sent, caller);
        if forbidden.is_empty()
            && let Some(executed) = executed
        {
            forbidden = self.0.index.forbidden(executed, caller);
        }
        if !forbidden.is_empty() {
            if let Some(viewer) = viewer {
                self.services().count_forbidden(viewer, &forbidden, client, now);
            }
            let entries = forbidden.into_iter().map(entry).collect();
            return Err(Answer { response: Response::from_errors(entries), executed: false });
        }
        if executed.is_some() {
            self.validate(prepared)?;
        }
        debug_assert_eq!(merged.is_some(), executed.is_some(), "what is executed is checked");
        let roots = executed.unwrap_or(sent).root_fields();
        Ok(roots.iter().filter(|name| **name != "__typename").count() == 1)
    }

    /// Validates the document as sent, and executes nothing.
    #[expect(clippy::result_large_err, reason = "created once per request and sent immediately")]
    fn validate(&self, prepared: &Prepared) -> Result<(), Answer> {
        let mut request =
            Request::new(String::new()).variables(prepared.variables.clone()).only_introspection();
        request.operation_name.clone_from(&prepared.operation_name);
        request.set_parsed_query(prepared.document.clone().into_document());
        // No resolver runs, so the execution awaits nothing.
        let Some(response) = self.0.validator.execute(request).now_or_never() else {
            return Err(refused(&Error::internal()));
        };
        // A valid subscription gets an error without a location, because `execute` runs no subscriptions.
        if response.errors.iter().any(|error| !error.locations.is_empty()) {
            return Err(Answer { response, executed: false });
        }
        Ok(())
    }
}

/// Builds the request that async-graphql executes.
fn request(
    document: ParsedDocument,
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
    request.set_parsed_query(document.into_document());
    request
}
