//! Preparation of a GraphQL document: allowlist, lexer, parser, limits and variables. This step needs neither the
//! caller nor the database.

use async_graphql::{
    ServerError, Variables,
    parser::{parse_query, types::OperationType},
};

use crate::{
    document::{expansion::ParsedDocument, key_order::KeyOrder, lexer, policy::Policy, root},
    engine::{Engine, error_answer::answer_to},
    request::{
        answer::{Answer, refused},
        error::{Error, ErrorCode},
    },
};

/// Kind of the operation that a document selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// An operation that reads data.
    Query,
    /// An operation that changes data.
    Mutation,
    /// An operation that pushes a response after every change.
    Subscription,
}

impl OperationKind {
    /// Returns the name of the root type.
    pub(super) const fn root(self) -> &'static str {
        match self {
            Self::Query => "Query",
            Self::Mutation => "Mutation",
            Self::Subscription => "Subscription",
        }
    }
}

/// A parsed document that is within all limits, ready to execute.
pub struct Prepared {
    /// Kind of the selected operation.
    pub operation: OperationKind,
    /// The document as sent.
    pub(super) document: ParsedDocument,
    /// The operation in which no field is selected twice; `None` if the document as sent is such an operation.
    pub(super) merged: Option<ParsedDocument>,
    pub(super) keys: KeyOrder,
    pub(super) operation_name: Option<String>,
    pub(super) variables: Variables,
    /// True if the document signs in or refreshes a session, so that its bearer token is ignored.
    pub(super) ignores_bearer: bool,
    /// True if the document only signs out, so that it runs even with a bearer token that is no longer valid.
    pub(super) tolerates_bearer: bool,
    /// True if the document starts jobs, so that it is refused while the job queues are full.
    pub(super) starts_jobs: bool,
}

impl Engine {
    /// Checks the allowlist, size, nesting and tokens, parses the document, selects the operation, and checks the
    /// operation's cost and variables. Does not access the database.
    ///
    /// # Errors
    /// Returns the answer to send.
    #[expect(clippy::result_large_err, reason = "created once per request and sent immediately")]
    pub fn prepare(
        &self,
        source: &str,
        operation_name: Option<&str>,
        mut variables: Variables,
    ) -> Result<Prepared, Answer> {
        self.check_allowed(source).map_err(|error| refused(&error))?;
        lexer::source(source).map_err(|error| answer_to(&error))?;
        lexer::variables(&variables).map_err(|error| answer_to(&error))?;
        let document = parse_query(source).map_err(|error| {
            let error = ServerError::from(error);
            let mut answer = refused(&Error::new(ErrorCode::Validation, error.message));
            answer.response.errors[0].locations = error.locations;
            answer
        })?;
        let document = ParsedDocument::of(document).map_err(|error| answer_to(&error))?;
        let operation = document
            .operation(operation_name, &mut variables)
            .map_err(|error| answer_to(&error))?;
        let (index, input_types) = (&self.0.index, &self.0.input_types);
        let keys = KeyOrder::of(operation);
        let merged = index.merge(operation, &keys).map_err(|error| answer_to(&error))?;
        let executed = merged.as_ref().and_then(|merged| merged.merged_operation(operation));
        root::check_root(operation)
            .and_then(|()| index.cost(operation, executed))
            .and_then(|_| input_types.check(operation.definition(), operation.variables()))
            .map_err(|error| answer_to(&error))?;
        if !self.0.settings.introspection && operation.introspects() {
            let message = "Introspection is disabled on this server: use the schema file of the release, or print the schema with `sentryops schema`.";
            return Err(refused(&Error::new(ErrorCode::Forbidden, message)));
        }
        let kind = match operation.kind() {
            OperationType::Query => OperationKind::Query,
            OperationType::Mutation => OperationKind::Mutation,
            OperationType::Subscription => OperationKind::Subscription,
        };
        let ignores_bearer = index.any_root(operation, Policy::IgnoresBearer);
        let tolerates_bearer = index.all_roots(operation, Policy::ToleratesBearer);
        let starts_jobs = index.any_root(operation, Policy::StartsJobs);
        Ok(Prepared {
            operation: kind,
            document,
            merged,
            keys,
            operation_name: operation_name.map(ToOwned::to_owned),
            variables,
            ignores_bearer,
            tolerates_bearer,
            starts_jobs,
        })
    }
}
