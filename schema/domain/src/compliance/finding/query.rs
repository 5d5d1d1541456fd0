//! The filter of findings and its SQL.

use async_graphql::InputObject;

use super::FindingState;
use crate::{
    base::{
        entity::{AssetId, UserId},
        listing::Listing,
    },
    compliance::rule::Severity,
};

/// Filter for findings. A finding must match all given fields; an omitted field, except `state`, matches every finding.
#[derive(Debug, Clone, Default, PartialEq, Eq, InputObject)]
pub struct FindingFilter {
    /// States to include; default `OPEN` and `WAIVED`, the states of live findings. Live means: the asset still fails.
    pub state: Option<Vec<FindingState>>,
    /// Severities to include: those that the rules had at the last evaluation of the assets.
    pub severity: Option<Vec<Severity>>,
    /// Key of the rule, e.g. `disk-encryption`.
    pub rule: Option<String>,
    /// Id of the asset, beginning `ast_`.
    pub asset: Option<AssetId>,
    /// Id of the user who owns the asset.
    pub owner: Option<UserId>,
    /// True to include only findings that came back: the same rule failed on the same asset before, and that finding
    /// had ended (fixed or out of scope). False to include only first findings.
    pub reopened: Option<bool>,
}

/// The filter's values as SQL parameters.
pub(super) struct FilterValues<'a> {
    filter: &'a FindingFilter,
    states: Option<Vec<&'static str>>,
    weights: Option<Vec<i16>>,
}

impl<'a> FilterValues<'a> {
    pub(super) fn of(filter: &'a FindingFilter) -> Self {
        let weight = |severity: &Severity| i16::try_from(severity.weight()).unwrap_or(i16::MAX);
        let names =
            |states: &Vec<FindingState>| states.iter().map(|value| value.as_str()).collect();
        Self {
            filter,
            states: filter.state.as_ref().map(names),
            weights: filter.severity.as_ref().map(|all| all.iter().map(weight).collect()),
        }
    }

    pub(super) fn listing(&self) -> Listing<'_> {
        let mut listing = Listing::default();
        // This condition repeats the one on the states, so that the planner can use the partial index of live findings.
        match self.filter.state.as_deref() {
            None => listing.with_constant("ended_at IS NULL"),
            Some(states) if states.iter().all(|state| state.is_live()) => {
                listing.with_constant("ended_at IS NULL");
            }
            Some(_) => {}
        }
        if let Some(states) = &self.states {
            listing.filter("state = ANY(?)", states);
        }
        if let Some(weights) = &self.weights {
            listing.filter("weight = ANY(?)", weights);
        }
        match &self.filter.rule {
            None => {}
            // Postgres text cannot contain NUL and rejects it as a parameter. No key contains NUL, so the list is
            // empty.
            Some(key) if key.contains('\0') => listing.match_nothing(),
            Some(key) => listing.filter("rule_id IN (SELECT id FROM rule WHERE key = ?)", key),
        }
        if let Some(asset) = &self.filter.asset {
            listing.filter("asset_id = ?", asset);
        }
        if let Some(owner) = &self.filter.owner {
            listing.filter("asset_id IN (SELECT id FROM asset WHERE owner_id = ?)", owner);
        }
        if let Some(reopened) = &self.filter.reopened {
            listing.filter("(reopened > 0) = ?", reopened);
        }
        listing
    }
}
