//! IANA names of time zones (`Europe/Berlin`), and suggestions for misspelt ones.

use chrono_tz::{TZ_VARIANTS, Tz};
use strsim::osa_distance;

use crate::base::{error::FieldError, nearest::folded};

/// Parses the name of a time zone.
///
/// # Errors
/// A field error at `path` that suggests the most similar name.
pub(super) fn parse(name: &str, path: &str) -> Result<Tz, FieldError> {
    let name = name.trim();
    name.parse().map_err(|_| FieldError {
        suggestion: nearest(name).map(str::to_owned),
        ..FieldError::new(
            path,
            format!("{name:?} is not a time zone: give an IANA name, such as Europe/Berlin or UTC"),
        )
    })
}

/// Returns the most similar name. The given name may have the wrong case, spaces, no continent, or some wrong letters.
fn nearest(name: &str) -> Option<&'static str> {
    let folded_name = folded(&name.replace(' ', "_"));
    let distance = |known: &&'static str| {
        let lower_case = known.to_lowercase();
        let city = lower_case.rsplit('/').next().unwrap_or(&lower_case);
        osa_distance(&folded_name, &lower_case).min(osa_distance(&folded_name, city))
    };
    TZ_VARIANTS
        .iter()
        .map(|zone| zone.name())
        .map(|known| (distance(&known), known.len(), known))
        .min()
        .filter(|(distance, ..)| *distance * 3 <= folded_name.chars().count())
        .map(|(.., known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        for (name, suggestion) in [
            ("europe/berlin", Some("Europe/Berlin")),
            ("Berlin", Some("Europe/Berlin")),
            ("Europe/Belrin", Some("Europe/Berlin")),
            ("New York", Some("America/New_York")),
            ("America/NewYork", Some("America/New_York")),
            ("utc", Some("UTC")),
            ("Middle-earth/Hobbiton", None),
            ("", None),
        ] {
            let fault = parse(name, "input.timeZone").unwrap_err();
            assert_eq!(fault.suggestion.as_deref(), suggestion, "{name}");
        }
    }

    #[test]
    fn every_name_is_found_by_itself() {
        for zone in TZ_VARIANTS {
            assert_eq!(parse(zone.name(), "input.timeZone"), Ok(zone));
        }
    }
}
