//! What the checks must know of single fields, and no directive says.
//!
//! Operation: lists in Rust, beside the resolvers of these fields, which the index reads together with the SDL; a field that is not in
//! the SDL keeps the server from starting. Given up: directives, which would show in the SDL and promise clients what is the
//! server's own matter. Choose again when a client has a use for one of them.

/// Policies of a field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldPolicy {
    /// The type that the field stands on.
    pub(crate) on: &'static str,
    /// The field's name in the schema.
    pub(crate) field: &'static str,
    /// All that holds for it.
    pub(crate) policies: &'static [Policy],
}

/// What the checks do differently for a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// A root field that proves or changes who somebody is: one a document, and nothing beside it.
    StandsAlone,
    /// A root field that signs in or refreshes: a bearer that is sent with it is not looked at.
    IgnoresBearer,
    /// A root field that only signs out: a bearer that is no longer good does not keep it from running.
    ToleratesBearer,
    /// The field is null for who is not signed in, so nothing below it runs and nothing below it is asked of them.
    NullForNobody,
    /// The field returns the caller itself.
    Oneself,
    /// The field returns the caller itself where this argument is one of the caller's own ids.
    OneselfBy(&'static str),
}
