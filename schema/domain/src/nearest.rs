//! What was probably meant: the known name most like a wrong one.

/// The name most like it, whatever its case; none where nothing is alike.
pub(crate) fn nearest<'a>(
    asked: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let asked = folded(asked);
    let distance = |known: &'a str| (letters_between(&asked, &known.to_lowercase()), known);
    let (distance, name) = known.into_iter().map(distance).min()?;
    (distance * 3 <= asked.len()).then_some(name)
}

/// The letters that are compared: nobody meant more than these.
pub(crate) fn folded(asked: &str) -> Vec<char> {
    asked.chars().take(64).flat_map(char::to_lowercase).collect()
}

/// How many letters must be added, removed or changed to make one of the other.
pub(crate) fn letters_between(one: &[char], other: &str) -> usize {
    let mut row: Vec<usize> = (0..=one.len()).collect();
    for (line, letter) in other.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (place, asked) in one.iter().enumerate() {
            let changed = diagonal + usize::from(*asked != letter);
            diagonal = row[place + 1];
            row[place + 1] = changed.min(row[place] + 1).min(diagonal + 1);
        }
    }
    row[one.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_is_found_and_nothing_far_off() {
        let known = ["name", "location", "lifecycle_state"];
        for (asked, expected) in [
            ("Name", Some("name")),
            ("loction", Some("location")),
            ("lifecycle", None),
            ("lifecyclestate", Some("lifecycle_state")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(nearest(asked, known), expected, "{asked}");
        }
    }
}
