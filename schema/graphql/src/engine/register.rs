//! The macro for the table in `schema`. It generates the root types and the lookup of `node` from one row per file.
//!
//! A row is `module::file { query Q; mutation M; node N; policies P; }`. Every entry is optional, `node` can be
//! repeated, and all named items are defined in this file. The rows of a module form a group with its own merged
//! object, because a merged root nests one future per object and the compiler limits the nesting.

/// Generates the root types, the interface `Node` and its lookup from a table of files.
macro_rules! object_types {
    ($(
        $(#[$doc:meta])*
        $queries:ident, $mutations:ident {
            $($module:ident :: $file:ident {
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
            pub(crate) struct $queries($($(crate::$module::$file::$query,)?)+);

            $(#[$doc])*
            #[derive(async_graphql::MergedObject, Default)]
            pub(crate) struct $mutations($($(crate::$module::$file::$mutation,)?)+);
        )+

        /// Root fields that read data.
        #[derive(async_graphql::MergedObject, Default)]
        pub(crate) struct Query($($queries,)+);

        /// Root fields that change data.
        #[derive(async_graphql::MergedObject, Default)]
        pub(crate) struct Mutation($($mutations,)+);

        /// Policies of all fields that have policies, one list per file.
        pub(super) const POLICIES: &[&[crate::document::policy::FieldPolicy]] =
            &[$($($(crate::$module::$file::$policies,)?)+)+];

        /// An object with a globally unique id.
        #[derive(async_graphql::Interface)]
        #[graphql(field(
            name = "id",
            method = "node_id",
            ty = "async_graphql::ID",
            desc = "The object's id: a prefix that names the type, and a UUIDv7."
        ))]
        pub(crate) enum Node {
            $($($($node(crate::$module::$file::$node),)*)+)+
        }

        /// Prefixes of the ids that [`find_node`] can look up.
        #[cfg(test)]
        const PREFIXES: &[&str] = &[$($($(prefix::<crate::$module::$file::$node>(),)*)+)+];

        /// Returns the row with this id; `None` if it does not exist or the caller is not allowed to read it.
        async fn find_node(
            ctx: &async_graphql::Context<'_>,
            prefix: &str,
            uuid: uuid::Uuid,
        ) -> crate::request::error::Result<Option<Node>> {
            $($($(
                if prefix == self::prefix::<crate::$module::$file::$node>() {
                    let found = crate::request::node::find::<crate::$module::$file::$node>(ctx, uuid);
                    return Ok(found.await?.map(Node::$node));
                }
            )*)+)+
            Ok(None)
        }
    };
}

pub(super) use object_types;
