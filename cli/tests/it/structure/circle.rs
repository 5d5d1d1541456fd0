//! Circles of files, in which each file reaches every other along the arrows.

use std::collections::{BTreeMap, BTreeSet};

use super::arrow::Arrow;

/// Returns the circles of a crate, the largest first: strongly connected components of at least two files.
pub fn circles(arrows: &[Arrow]) -> Vec<BTreeSet<&str>> {
    let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        below.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        below.keys().map(|file| (*file, reach(&below, file))).collect();
    let mut found = BTreeSet::new();
    for (file, others) in &reached {
        let comes_back = |other: &&str| reached.get(other).is_some_and(|back| back.contains(file));
        let circle: BTreeSet<_> = others.iter().copied().filter(comes_back).collect();
        found.extend((circle.len() > 1).then_some(circle));
    }
    let mut circles: Vec<_> = found.into_iter().collect();
    circles.sort_by_key(|files| std::cmp::Reverse(files.len()));
    circles
}

/// Returns every file that `file` reaches in one or more steps.
fn reach<'names>(
    below: &BTreeMap<&'names str, BTreeSet<&'names str>>,
    file: &str,
) -> BTreeSet<&'names str> {
    let mut reached = BTreeSet::new();
    let mut next = vec![file];
    while let Some(file) = next.pop() {
        for other in below.get(file).into_iter().flatten() {
            if reached.insert(*other) {
                next.push(other);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arrows: &[(&str, &str)], expected: &[&[&str]]) {
        let arrow = |(from, to): &(&str, &str)| Arrow {
            from: String::from(*from),
            to: String::from(*to),
            line: 1,
        };
        let arrows: Vec<_> = arrows.iter().map(arrow).collect();
        let expected: Vec<BTreeSet<_>> =
            expected.iter().map(|files| files.iter().copied().collect()).collect();
        assert_eq!(circles(&arrows), expected);
    }

    #[test]
    fn whoever_comes_back_to_itself_stands_in_a_circle() {
        check(&[("asset", "tag"), ("asset", "id"), ("tag", "id")], &[]);
        check(&[("asset", "tag"), ("tag", "asset"), ("rule", "asset")], &[&["asset", "tag"]]);
        check(
            &[("asset", "tag"), ("tag", "rule"), ("rule", "asset"), ("tag", "id"), ("run", "tag")],
            &[&["asset", "rule", "tag"]],
        );
    }

    #[test]
    fn circles_that_touch_in_one_direction_stay_two() {
        check(
            &[
                ("asset", "tag"),
                ("tag", "asset"),
                ("tag", "run"),
                ("run", "job"),
                ("job", "id"),
                ("id", "run"),
            ],
            &[&["id", "job", "run"], &["asset", "tag"]],
        );
    }
}
