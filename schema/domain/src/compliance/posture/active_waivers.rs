//! The waivers that hold, looked up by rule and asset.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::{
    base::{
        entity::{AssetId, WaiverId},
        id::Id,
    },
    compliance::{rule::CompiledRule, waiver::Waiver},
};

/// A waiver that holds, and until when.
pub(super) type Held = (WaiverId, DateTime<Utc>);

/// The waivers that hold, by rule and asset; the one that holds longest.
pub(super) struct Waivers(HashMap<(uuid::Uuid, Option<uuid::Uuid>), Held>);

impl Waivers {
    pub(super) fn new(waivers: &[Waiver]) -> Self {
        let mut longest = HashMap::with_capacity(waivers.len());
        for waiver in waivers {
            let of = (waiver.rule_id.uuid(), waiver.asset_id.map(Id::uuid));
            let kept = longest.entry(of).or_insert((waiver.id, waiver.expires_at));
            if kept.1 < waiver.expires_at {
                *kept = (waiver.id, waiver.expires_at);
            }
        }
        Self(longest)
    }

    pub(super) fn of(&self, rule: &CompiledRule, asset: AssetId) -> Option<Held> {
        if self.0.is_empty() {
            return None;
        }
        let rule = rule.rule.id.uuid();
        let own = self.0.get(&(rule, Some(asset.uuid())));
        let all = self.0.get(&(rule, None));
        own.into_iter().chain(all).max_by_key(|(_, until)| *until).copied()
    }
}
