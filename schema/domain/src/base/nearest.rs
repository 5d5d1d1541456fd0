//! What was probably meant: the known name most like a wrong one.

/// The name most like it, whatever its case; none where nothing is alike.
pub fn nearest<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = folded(asked);
    let whole: String = letters.iter().collect();
    let distance = |known: &'a str| {
        let name = known.to_lowercase();
        let is_shorter = |one: &str, other: &str| one.len() >= 3 && other.starts_with(one);
        // "production" means "prod", and "staging-2" means "staging".
        let begins_alike = is_shorter(&name, &whole) || is_shorter(&whole, &name);
        (if begins_alike { 1 } else { letters_between(&letters, &name) }, known)
    };
    let (distance, name) = known.into_iter().map(distance).min()?;
    (distance * 3 <= letters.len()).then_some(name)
}

/// The letters that are compared: nobody meant more than these.
pub(crate) fn folded(asked: &str) -> Vec<char> {
    asked.chars().take(64).flat_map(char::to_lowercase).collect()
}

/// How many letters must be added, removed, changed or swapped with the next to make one of the other.
pub(crate) fn letters_between(one: &[char], other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=one.len()).collect();
    for (line, letter) in other.iter().enumerate() {
        let mut next = vec![line + 1];
        for (place, asked) in one.iter().enumerate() {
            let changed = row[place] + usize::from(asked != letter);
            let mut least = changed.min(row[place + 1] + 1).min(next[place] + 1);
            if place > 0 && line > 0 && one[place - 1] == *letter && *asked == other[line - 1] {
                least = least.min(before[place - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[one.len()]
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
