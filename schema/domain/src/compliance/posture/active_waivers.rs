//! The active waivers of an organization, by rule and asset.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::{
    base::{
        entity::{AssetId, WaiverId},
        id::Id,
    },
    compliance::{rule::CompiledRule, waiver::Waiver},
};

/// An active waiver and the time at which it expires.
pub(super) type ActiveWaiver = (WaiverId, DateTime<Utc>);

/// The active waivers by rule and asset. Of several waivers of the same rule and asset, only the one that expires last
/// is included.
pub(super) struct ActiveWaivers(HashMap<(uuid::Uuid, Option<uuid::Uuid>), ActiveWaiver>);

impl ActiveWaivers {
    pub(super) fn new(waivers: &[Waiver]) -> Self {
        let mut longest = HashMap::with_capacity(waivers.len());
        for waiver in waivers {
            let of = (waiver.rule_id.uuid(), waiver.asset_id.map(Id::uuid));
            let stored = longest.entry(of).or_insert((waiver.id, waiver.expires_at));
            if stored.1 < waiver.expires_at {
                *stored = (waiver.id, waiver.expires_at);
            }
        }
        Self(longest)
    }

    pub(super) fn of(&self, rule: &CompiledRule, asset: AssetId) -> Option<ActiveWaiver> {
        if self.0.is_empty() {
            return None;
        }
        let rule = rule.rule.id.uuid();
        let own = self.0.get(&(rule, Some(asset.uuid())));
        let all = self.0.get(&(rule, None));
        own.into_iter().chain(all).max_by_key(|(_, until)| *until).copied()
    }
}
