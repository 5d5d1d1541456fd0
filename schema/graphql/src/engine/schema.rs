//! The schema: one table of all nouns, from which its roots and `node` are made. A new noun signs here, and nowhere else above its
//! wing.

use async_graphql::{Context, ID, MergedSubscription, Object, Schema, SchemaBuilder};
use domain::{
    access::directive::authenticated,
    base::entity::{self, Entity},
};

use crate::{
    compliance::run::RunSubscription,
    document::policy::{FieldPolicy, Policy},
    engine::register::nouns,
    fleet::job::JobSubscription,
    inventory::import::ImportSubscription,
    request::{
        error::{ErrorCode, Result},
        node::Identified,
    },
};

// The order is that of the fields in the SDL.
nouns! {
    /// People, programs and their rights.
    AccessQuery, AccessMutation {
        access::session {
            query SessionQuery; mutation SessionMutation; node Session; node Organization; policies POLICIES;
        }
        engine::schema { query NodeQuery; policies NODE_POLICIES; }
        access::user { query UserQuery; mutation UserMutation; node User; node Role; }
        access::api_key { query ApiKeyQuery; mutation ApiKeyMutation; node ApiKey; }
        access::audit { query AuditQueries; node AuditEntry; }
    }

    /// Assets, and what belongs to them.
    InventoryQuery, InventoryMutation {
        inventory::asset { query AssetQuery; mutation AssetMutation; node Asset; }
        inventory::tag { query TagQuery; mutation TagMutation; node Tag; }
        inventory::attribute { query AttributeQuery; }
        inventory::import { query ImportQuery; mutation ImportMutation; node ImportRun; }
        inventory::dependency { mutation DependencyMutation; node Dependency; }
        inventory::custody { mutation CustodyMutation; node Custody; }
    }

    /// Rules, and what follows from them.
    ComplianceQueries, ComplianceMutations {
        compliance::rule { query RuleQuery; mutation RuleMutation; node Rule; }
        compliance::run { query RunQuery; mutation RunMutation; node ComplianceRun; }
        compliance::finding { query FindingQuery; node Finding; }
        compliance::waiver { query WaiverQuery; mutation WaiverMutation; node Waiver; }
        compliance::score { query ScoreQuery; }
        compliance::drift { query DriftQuery; }
        compliance::forecast { query ForecastQuery; }
        compliance::report { query ReportQuery; }
    }

    /// Jobs, and who does them.
    FleetQuery, FleetMutation {
        fleet::job { query JobQuery; mutation JobMutation; node Job; }
        fleet::worker { query WorkerQuery; }
        fleet::schedule { query ScheduleQuery; mutation ScheduleMutation; node Schedule; }
    }
}

/// What can be watched.
// Few nouns, in an order that is not the table's. The line above is the SDL's, as those of the roots in `register` are.
#[derive(MergedSubscription, Default)]
pub(crate) struct Subscription(RunSubscription, ImportSubscription, JobSubscription);

/// The prefix of the ids of a view.
const fn prefix<V: Identified>() -> &'static str {
    <V::Entity as Entity>::PREFIX
}

/// The policy of `node`: below its own id the caller sees itself.
pub(crate) const NODE_POLICIES: &[FieldPolicy] =
    &[FieldPolicy { on: "Query", field: "node", policies: &[Policy::OneselfBy("id")] }];

/// The query on any row.
#[derive(Default)]
pub(crate) struct NodeQuery;

#[Object]
impl NodeQuery {
    /// Any row by its id; what does not exist or the caller may not read is null. For everybody signed in.
    #[graphql(directive = authenticated::apply())]
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id, such as ast_01j8xq4m9ke5trv3yx2f7nbc6d.")] id: ID,
    ) -> Result<Option<Node>> {
        let Some((prefix, uuid)) = entity::split(&id) else {
            return Err(domain::Error::invalid(
                "id",
                "not an id: ids look like ast_01j8xq4m9ke5trv3yx2f7nbc6d",
            )
            .into());
        };
        find_node(ctx, prefix, uuid).await
    }
}

/// The schema, before it is known whether it may be asked for.
pub(crate) fn builder() -> SchemaBuilder<Query, Mutation, Subscription> {
    // Depth, cost and the like are ours, measured before execution; see `cost`.
    Schema::build(Query::default(), Mutation::default(), Subscription::default())
        .register_output_type::<ErrorCode>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entities that `node` does not find, and why.
    const NOT_FOUND: &[(&str, &str)] =
        &[("rlv", "a version is shown by what names it: a rule, a finding")];

    #[test]
    fn every_entity_is_found_by_its_id_or_named_with_a_reason() {
        let mut known: Vec<_> = PREFIXES.to_vec();
        known.extend(NOT_FOUND.iter().map(|(prefix, _)| prefix));
        known.sort_unstable();
        let mut all: Vec<_> = domain::base::entity::prefixes().collect();
        all.sort_unstable();
        assert_eq!(known, all);
    }
}
