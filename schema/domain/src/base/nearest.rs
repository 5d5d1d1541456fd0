//! What was probably meant: the known name most like a wrong one.

use strsim::osa_distance;

/// The name most like it, whatever its case; none where nothing is alike.
pub fn nearest<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let asked = folded(asked);
    let distance = |known: &'a str| {
        let name = known.to_lowercase();
        let is_shorter = |one: &str, other: &str| one.len() >= 3 && other.starts_with(one);
        // "production" means "prod", and "staging-2" means "staging".
        let begins_alike = is_shorter(&name, &asked) || is_shorter(&asked, &name);
        (if begins_alike { 1 } else { osa_distance(&asked, &name) }, known)
    };
    let (distance, name) = known.into_iter().map(distance).min()?;
    (distance * 3 <= asked.chars().count()).then_some(name)
}

/// The letters that are compared: nobody meant more than these.
pub(crate) fn folded(asked: &str) -> String {
    asked.chars().take(64).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_is_found_and_nothing_far_off() {
        let known = ["name", "location", "lifecycle_state", "prod", "größe"];
        for (asked, expected) in [
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
            assert_eq!(nearest(asked, known), expected, "{asked}");
        }
    }

    #[test]
    fn of_names_equally_alike_the_first_by_alphabet_is_meant() {
        assert_eq!(nearest("rats", ["cats", "bats", "hats"]), Some("bats"));
    }
}
