//! A document's way to being run: allowed, lexed, parsed, measured. Nothing here touches the database.

use async_graphql::{
    ServerError, Variables,
    parser::{parse_query, types::OperationType},
};

use crate::{
    document::{expansion::Bounded, lexer, policy::Policy, root},
    engine::{Engine, refusal::refused_at},
    request::{
        answer::{Answer, refused},
        error::{Error, ErrorCode},
    },
};

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
    pub(super) bounded: Bounded,
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
}
