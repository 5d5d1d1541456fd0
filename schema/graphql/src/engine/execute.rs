//! A prepared document is run: who asks, what they may select, execution.
//!
//! What runs once and what is watched pass the same steps in the same order, seen side by side here.

use std::sync::Arc;

use async_graphql::{Request, Response, Variables};
use chrono::{DateTime, Utc};
use domain::Viewer;
use futures_util::StreamExt;

use crate::{
    document::{authorize, expansion::ParsedDocument, key_order::Keys},
    engine::{
        Engine,
        document_error::{entry, refused_at},
        prepare::Prepared,
    },
    request::{
        answer::{Answer, has_run, is_limited, refused, sign},
        context::{Client, RequestScope},
        drive::{Loads, drive},
        error::Error,
        loader::Loaders,
        watch::Watch,
    },
};

impl Engine {
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
        let (keys, is_alone) =
            match self.admit(&document, operation_name.as_deref(), &mut variables, viewer.as_ref())
            {
                Ok(admitted) => admitted,
                Err(refused) => return refused,
            };
        let scope = Arc::new(RequestScope::new(Arc::clone(&self.0.services), viewer, client, now));
        let loads = Loads::default();
        let request = request(document, operation_name, variables, &scope, &loads);
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
        let Prepared { document, operation_name, variables, .. } = prepared;
        let (name, mut variables) = (operation_name.clone(), variables.clone());
        let keys = match self.admit(document, name.as_deref(), &mut variables, viewer.as_ref()) {
            Ok((keys, _)) => keys,
            Err(refused) => return vec![refused],
        };
        let scope = Arc::new(RequestScope::new(Arc::clone(&self.0.services), viewer, client, now));
        let loads = Loads::default();
        let request = request(document.clone(), name, variables, &scope, &loads);
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
        document: &ParsedDocument,
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
        let operation = document
            .operation(operation_name, variables)
            .map_err(|refusal| refused_at(&refusal))?;
        let forbidden = self.0.index.forbidden(operation, caller);
        if !forbidden.is_empty() {
            let entries = forbidden.into_iter().map(entry).collect();
            return Err(Answer { response: Response::from_errors(entries), executed: false });
        }
        let roots = operation.root_fields();
        let is_alone = roots.iter().filter(|name| **name != "__typename").count() == 1;
        Ok((Keys::of(operation), is_alone))
    }
}

/// What async-graphql executes.
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
