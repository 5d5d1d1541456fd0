//! Which findings are asked for.

use async_graphql::InputObject;

use super::FindingState;
use crate::{
    base::{
        entity::{AssetId, UserId},
        listing::Listing,
    },
    compliance::rule::Severity,
};

/// Which findings to list; what is given must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, InputObject)]
pub struct FindingFilter {
    /// In one of these states; without it those that are `OPEN` or `WAIVED`.
    pub state: Option<Vec<FindingState>>,
    /// Of one of these severities.
    pub severity: Option<Vec<Severity>>,
    /// Of the rule of this key.
    pub rule: Option<String>,
    /// Of this asset.
    pub asset: Option<AssetId>,
    /// Of assets that this user answers for.
    pub owner: Option<UserId>,
    /// Whether the asset had broken the rule before.
    pub reopened: Option<bool>,
}

/// A filter's values in the form that a statement binds.
pub(super) struct FilterValues<'a> {
    filter: &'a FindingFilter,
    states: Option<Vec<&'static str>>,
    weights: Option<Vec<i16>>,
}

impl<'a> FilterValues<'a> {
    pub(super) fn of(filter: &'a FindingFilter) -> Self {
        let weight = |severity: &Severity| i16::try_from(severity.weight()).unwrap_or(i16::MAX);
        let names = |states: &Vec<FindingState>| states.iter().map(|one| one.as_str()).collect();
        Self {
            filter,
            states: filter.state.as_ref().map(names),
            weights: filter.severity.as_ref().map(|all| all.iter().map(weight).collect()),
        }
    }

    pub(super) fn listing(&self) -> Listing<'_> {
        let mut listing = Listing::default();
        // Said beside the states, so that the index of what is live serves.
        match self.filter.state.as_deref() {
            None => listing.holds("ended_at IS NULL"),
            Some(states) if states.iter().all(|state| state.is_live()) => {
                listing.holds("ended_at IS NULL");
            }
            Some(_) => {}
        }
        if let Some(states) = &self.states {
            listing.only("state = ANY(?)", states);
        }
        if let Some(weights) = &self.weights {
            listing.only("weight = ANY(?)", weights);
        }
        match &self.filter.rule {
            None => {}
            // Postgres has no such text, and refuses it as a parameter.
            Some(key) if key.contains('\0') => listing.none(),
            Some(key) => listing.only("rule_id IN (SELECT id FROM rule WHERE key = ?)", key),
        }
        if let Some(asset) = &self.filter.asset {
            listing.only("asset_id = ?", asset);
        }
        if let Some(owner) = &self.filter.owner {
            listing.only("asset_id IN (SELECT id FROM asset WHERE owner_id = ?)", owner);
        }
        if let Some(reopened) = &self.filter.reopened {
            listing.only("(reopened > 0) = ?", reopened);
        }
        listing
    }
}
