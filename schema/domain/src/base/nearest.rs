//! "Did you mean" suggestions: the valid name most similar to an unknown name.

use strsim::osa_distance;

/// Returns the name in `known` that is most similar to `input`, ignoring case, or `None` if no name is similar enough.
/// Of equally similar names, returns the first in alphabetical order.
pub fn nearest<'a>(input: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let input = folded(input);
    let distance = |known: &'a str| {
        let name = known.to_lowercase();
        let is_shorter =
            |shorter: &str, longer: &str| shorter.len() >= 3 && longer.starts_with(shorter);
        // "production" suggests "prod", and "staging-2" suggests "staging".
        let has_common_prefix = is_shorter(&name, &input) || is_shorter(&input, &name);
        (if has_common_prefix { 1 } else { osa_distance(&input, &name) }, known)
    };
    let (distance, name) = known.into_iter().map(distance).min()?;
    (distance * 3 <= input.chars().count()).then_some(name)
}

/// Returns the first 64 characters in lower case. Only these are compared, because no valid name is longer.
pub(crate) fn folded(input: &str) -> String {
    input.chars().take(64).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_is_found_and_nothing_far_off() {
        let known = ["name", "location", "lifecycle_state", "prod", "größe"];
        for (input, expected) in [
            ("Name", Some("name")),
            ("loction", Some("location")),
            ("lifecycle", Some("lifecycle_state")),
            ("naem", Some("name")),
            ("lifecyclestate", Some("lifecycle_state")),
            ("lifecyle_sttae", Some("lifecycle_state")),
            ("lcoation", Some("location")),
            ("xlocation", Some("location")),
            ("location_of_the_thing", Some("location")),
            ("loc", Some("location")),
            ("Production", Some("prod")),
            ("prdo", Some("prod")),
            ("dorp", None),
            ("anme", Some("name")),
            ("nmea", None),
            ("nam", Some("name")),
            ("na", None),
            ("GRÖSSE", Some("größe")),
            ("GRÖẞE", Some("größe")),
            ("grosse", None),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(nearest(input, known), expected, "{input}");
        }
    }

    #[test]
    fn of_names_equally_alike_the_first_by_alphabet_is_meant() {
        assert_eq!(nearest("rats", ["cats", "bats", "hats"]), Some("bats"));
    }
}
