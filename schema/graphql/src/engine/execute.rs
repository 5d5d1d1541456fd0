//! Execution of a prepared document: authentication, authorization, resolvers.
//!
//! Queries and mutations execute once; a subscription executes its query again after each change. Both pass the same
//! steps in the same order, and both are in this file.

use std::sync::Arc;

use async_graphql::{Request, Response, Variables};
use chrono::{DateTime, Utc};
use domain::Viewer;
use futures_util::StreamExt;

use crate::{
    document::{authorize, expansion::ParsedDocument, key_order::KeyOrder},
    engine::{
        Engine,
        error_answer::{answer_to, entry},
        prepare::Prepared,
    },
    request::{
        answer::{Answer, add_request_id, has_run, is_limited, refused},
        context::{Client, RequestScope},
        drive::{Loads, drive},
        error::Error,
        loader::Loaders,
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
        let mut answer = match self.viewer(&prepared, bearer, &client, now).await {
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
        let mut answers = match self.viewer(prepared, bearer, &client, now).await {
            Ok(viewer) => self.run_for_subscription(prepared, viewer, client, now, state).await,
            Err(error) => vec![refused(&error)],
        };
        for answer in &mut answers {
            add_request_id(&mut answer.response, &request_id);
        }
        answers
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
        let Prepared { document, operation_name, mut variables, .. } = prepared;
        let (keys, has_one_root) = match self.check_permissions(
            &document,
            operation_name.as_deref(),
            &mut variables,
            viewer.as_ref(),
        ) {
            Ok(accepted) => accepted,
            Err(refused) => return refused,
        };
        let scope = Arc::new(RequestScope::new(Arc::clone(&self.0.services), viewer, client, now));
        let loads = Loads::default();
        let request = request(document, operation_name, variables, &scope, &loads);
        let mut response = drive(Box::pin(self.0.schema.execute(request)), loads).await;
        scope.finish().await;
        keys.sort(&mut response.data);
        let executed = has_run(&response) && !(has_one_root && is_limited(&response));
        Answer { response, executed }
    }

    async fn run_for_subscription(
        &self,
        prepared: &Prepared,
        viewer: Option<Viewer>,
        client: Client,
        now: DateTime<Utc>,
        state: &Arc<SubscriptionState>,
    ) -> Vec<Answer> {
        let Prepared { document, operation_name, variables, .. } = prepared;
        let (name, mut variables) = (operation_name.clone(), variables.clone());
        let keys = match self.check_permissions(
            document,
            name.as_deref(),
            &mut variables,
            viewer.as_ref(),
        ) {
            Ok((keys, _)) => keys,
            Err(refused) => return vec![refused],
        };
        let scope = Arc::new(RequestScope::new(Arc::clone(&self.0.services), viewer, client, now));
        let loads = Loads::default();
        let request = request(document.clone(), name, variables, &scope, &loads);
        let stream = self.0.schema.execute_stream(request.data(Arc::clone(state)));
        let responses = drive(Box::pin(stream.collect::<Vec<_>>()), loads).await;
        scope.finish().await;
        let answers = responses.into_iter().map(|mut response| {
            keys.sort(&mut response.data);
            Answer { executed: has_run(&response), response }
        });
        answers.collect()
    }

    /// Checks the permissions for the whole document. Returns the key order of the response, and true if the operation
    /// has exactly one root field besides `__typename`.
    #[expect(clippy::result_large_err, reason = "created once per request and sent immediately")]
    fn check_permissions(
        &self,
        document: &ParsedDocument,
        operation_name: Option<&str>,
        variables: &mut Variables,
        viewer: Option<&Viewer>,
    ) -> Result<(KeyOrder, bool), Answer> {
        let own_ids: Vec<String> = viewer.and_then(Viewer::own_id).into_iter().collect();
        let caller = match viewer {
            None => authorize::Caller::Anonymous,
            Some(viewer) => authorize::Caller::Authenticated {
                permissions: viewer.permissions,
                own_ids: &own_ids,
            },
        };
        let operation =
            document.operation(operation_name, variables).map_err(|error| answer_to(&error))?;
        let forbidden = self.0.index.forbidden(operation, caller);
        if !forbidden.is_empty() {
            let entries = forbidden.into_iter().map(entry).collect();
            return Err(Answer { response: Response::from_errors(entries), executed: false });
        }
        let roots = operation.root_fields();
        let has_one_root = roots.iter().filter(|name| **name != "__typename").count() == 1;
        Ok((KeyOrder::of(operation), has_one_root))
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
