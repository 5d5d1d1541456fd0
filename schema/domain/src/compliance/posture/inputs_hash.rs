//! Hash of all inputs of a posture except time: the facts that the rules read, and the waivers in effect.
//!
//! The hash is stored in the column `posture.facts_hash` and may be compared years later, so that an unchanged asset is
//! not written again. If the algorithm changes, the next evaluation rewrites every posture.

use crate::base::entity::WaiverId;

/// Returns the hash of an asset's facts (see `Ruleset::facts_hash`) combined with the waivers in effect, each with its
/// rule's slot.
pub(super) fn inputs_hash(
    facts_hash: i64,
    waivers: impl IntoIterator<Item = (usize, WaiverId)>,
) -> i64 {
    waivers.into_iter().fold(facts_hash, |hash, (slot, waiver)| hash ^ waiver_hash(slot, waiver))
}

/// Returns the contribution of one waiver. The contribution depends on the slot, so that the hash changes if two
/// waivers swap their rules.
fn waiver_hash(slot: usize, waiver: WaiverId) -> i64 {
    let (high, low) = waiver.uuid().as_u64_pair();
    (high ^ low).cast_signed().rotate_left(u32::try_from(slot % 64).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Id;

    const FACTS: i64 = 5_811_731_389_553_102_702;

    fn waiver(number: u128) -> WaiverId {
        Id::from(uuid::Uuid::from_u128(number))
    }

    fn check(waivers: &[(usize, WaiverId)], expected: i64) {
        assert_eq!(inputs_hash(FACTS, waivers.iter().copied()), expected, "{waivers:?}");
    }

    #[test]
    fn the_hash_is_the_one_that_is_stored() {
        let soon = waiver(0x0189_0A5D_AC96_774B_BCCE_B302_099A_8057);
        check(&[], FACTS);
        check(&[(0, soon)], -1_305_811_106_702_280_590);
        check(&[(3, soon)], -5_000_508_424_116_799_605);
        check(&[(67, soon)], -5_000_508_424_116_799_605);
        check(&[(5, soon), (3, soon)], 1_327_871_266_408_207_388);
    }

    #[test]
    fn another_waiver_or_another_rule_is_another_hash() {
        let (one, other) = (waiver(1), waiver(2));
        let hash = |waivers: [(usize, WaiverId); 2]| inputs_hash(FACTS, waivers);
        assert_eq!(hash([(0, one), (7, other)]), hash([(7, other), (0, one)]));
        assert_ne!(hash([(0, one), (7, other)]), hash([(0, other), (7, one)]));
        assert_ne!(hash([(0, one), (7, other)]), hash([(0, one), (8, other)]));
    }
}
