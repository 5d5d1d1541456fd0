//! The macro that the table of nouns in `schema` is written for: it makes of the rows the roots, and what `node` finds.
//!
//! A row is `wing::file { query Q; mutation M; node N; policies P; }`, of which each part may be missing and `node` may stand several
//! times; what it names lies in that file. The objects of a wing form a group, because a root nests a future for each object that it is made of,
//! and the compiler follows only so many.

/// The roots and the nodes, from a table of nouns.
macro_rules! nouns {
    ($(
        $(#[$doc:meta])*
        $queries:ident, $mutations:ident {
            $($wing:ident :: $noun:ident {
                $(query $query:ident;)?
                $(mutation $mutation:ident;)?
                $(node $node:ident;)*
                $(policies $policies:ident;)?
            })+
        }
    )+) => {
        $(
            $(#[$doc])*
            #[derive(async_graphql::MergedObject, Default)]
            pub(crate) struct $queries($($(crate::$wing::$noun::$query,)?)+);

            $(#[$doc])*
            #[derive(async_graphql::MergedObject, Default)]
            pub(crate) struct $mutations($($(crate::$wing::$noun::$mutation,)?)+);
        )+

        /// What can be read.
        #[derive(async_graphql::MergedObject, Default)]
        pub(crate) struct Query($($queries,)+);

        /// What can be done.
        #[derive(async_graphql::MergedObject, Default)]
        pub(crate) struct Mutation($($mutations,)+);

        /// Policies of all fields that have any.
        pub(super) const POLICIES: &[&[crate::document::policy::FieldPolicy]] =
            &[$($($(crate::$wing::$noun::$policies,)?)+)+];

        /// Every type with an id.
        #[derive(async_graphql::Interface)]
        #[graphql(field(
            name = "id",
            method = "node_id",
            ty = "async_graphql::ID",
            desc = "The id: a prefix that says the type, and a UUIDv7."
        ))]
        pub(crate) enum Node {
            $($($($node(crate::$wing::$noun::$node),)*)+)+
        }

        /// The prefixes of the ids that [`find_node`] knows.
        #[cfg(test)]
        const PREFIXES: &[&str] = &[$($($(prefix::<crate::$wing::$noun::$node>(),)*)+)+];

        /// The row of an id, if the caller may read it.
        async fn find_node(
            ctx: &async_graphql::Context<'_>,
            prefix: &str,
            uuid: uuid::Uuid,
        ) -> crate::request::error::Result<Option<Node>> {
            $($($(
                if prefix == self::prefix::<crate::$wing::$noun::$node>() {
                    let found = crate::request::node::find::<crate::$wing::$noun::$node>(ctx, uuid);
                    return Ok(found.await?.map(Node::$node));
                }
            )*)+)+
            Ok(None)
        }
    };
}

pub(super) use nouns;
