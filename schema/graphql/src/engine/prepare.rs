//! A document's way to being run: allowed, lexed, parsed, measured. Nothing here touches the database.

use async_graphql::{
    ServerError, Variables,
    parser::{parse_query, types::OperationType},
};

use crate::{
    document::{expansion::ParsedDocument, lexer, policy::Policy, root},
    engine::{Engine, document_error::refused_at},
    request::{
        answer::{Answer, refused},
        error::{Error, ErrorCode},
    },
};

/// What kind of operation a document asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
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
    pub operation: OperationKind,
    pub(super) document: ParsedDocument,
    pub(super) operation_name: Option<String>,
    pub(super) variables: Variables,
    /// It signs in or refreshes, so what stands in its bearer is not looked at.
    pub(super) ignores_bearer: bool,
    /// It only signs out, which a bearer that is no longer good does not keep it from.
    pub(super) tolerates_bearer: bool,
}

impl Engine {
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
        let document = ParsedDocument::of(document).map_err(|refusal| refused_at(&refusal))?;
        let operation = document
            .operation(operation_name, &mut variables)
            .map_err(|refusal| refused_at(&refusal))?;
        let (index, input_types) = (&self.0.index, &self.0.input_types);
        root::check_root(operation)
            .and_then(|()| index.cost(operation))
            .and_then(|_| input_types.check(operation.definition(), operation.variables()))
            .map_err(|refusal| refused_at(&refusal))?;
        let is_introspection = |root: &&str| matches!(*root, "__schema" | "__type");
        if !self.0.settings.introspection && operation.root_fields().iter().any(is_introspection) {
            let message = "Introspection is off here: the schema comes with the release, or from `sentryops schema`.";
            return Err(refused(&Error::new(ErrorCode::Forbidden, message)));
        }
        let kind = match operation.kind() {
            OperationType::Query => OperationKind::Query,
            OperationType::Mutation => OperationKind::Mutation,
            OperationType::Subscription => OperationKind::Subscription,
        };
        let ignores_bearer = index.any_root(operation, Policy::IgnoresBearer);
        let tolerates_bearer = index.all_roots(operation, Policy::ToleratesBearer);
        Ok(Prepared {
            operation: kind,
            document,
            operation_name: operation_name.map(ToOwned::to_owned),
            variables,
            ignores_bearer,
            tolerates_bearer,
        })
    }
}
