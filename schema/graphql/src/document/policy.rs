//! Properties of single fields that the document checks need but that no directive expresses.
//!
//! Chosen: lists in Rust, beside the resolvers of these fields. The schema index reads these lists together with the
//! SDL, and the server does not start if a listed field is not in the SDL. Given up: directives, which would appear in
//! the SDL and make internals of the server part of the API. Revisit when clients need to know one of the policies.

/// The policies of one field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldPolicy {
    /// Name of the field's parent type.
    pub(crate) on: &'static str,
    /// Name of the field in the schema.
    pub(crate) field: &'static str,
    /// Policies that apply to the field.
    pub(crate) policies: &'static [Policy],
}

/// A special rule of the document checks for one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The root field signs in or changes credentials, so it must be the only root field of its document.
    MustBeAlone,
    /// The root field signs in or refreshes a session, so a bearer token sent with it is ignored.
    IgnoresBearer,
    /// The root field only signs out, so it runs even if the bearer token is no longer valid.
    ToleratesBearer,
    /// The root field starts jobs, so it is refused while the job queues are full.
    StartsJobs,
    /// The field is null for an anonymous caller, so the fields below it do not run and require nothing.
    NullIfAnonymous,
    /// The field always returns the caller's own user or API key.
    ReturnsCaller,
    /// The field returns the caller's own user or API key if this argument is one of the caller's ids.
    ReturnsCallerIf(&'static str),
    /// The scalar is computed or large, so it counts as this many plain ones.
    Weight(u64),
    /// The list reads every row of the organization if the argument `filter` has a `text`.
    TextFilter,
}
