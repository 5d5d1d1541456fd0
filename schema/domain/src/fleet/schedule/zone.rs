//! Names of time zones, as IANA has them (`Europe/Berlin`), and what was probably meant by others.

use chrono_tz::{TZ_VARIANTS, Tz};
use strsim::osa_distance;

use crate::base::{error::FieldError, nearest::folded};

/// The zone of that name.
///
/// # Errors
/// A fault that suggests the nearest name.
pub(super) fn parse(name: &str, path: &str) -> Result<Tz, FieldError> {
    let name = name.trim();
    name.parse().map_err(|_| FieldError {
        suggestion: nearest(name).map(str::to_owned),
        ..FieldError::new(
            path,
            format!("{name:?} is no time zone: give an IANA name, such as Europe/Berlin or UTC"),
        )
    })
}

/// The name most like it: whatever its case, with spaces, without the continent, or with some letters wrong.
fn nearest(name: &str) -> Option<&'static str> {
    let asked = folded(&name.replace(' ', "_"));
    let distance = |known: &&'static str| {
        let whole = known.to_lowercase();
        let city = whole.rsplit('/').next().unwrap_or(&whole);
        osa_distance(&asked, &whole).min(osa_distance(&asked, city))
    };
    TZ_VARIANTS
        .iter()
        .map(|zone| zone.name())
        .map(|known| (distance(&known), known.len(), known))
        .min()
        .filter(|(distance, ..)| *distance * 3 <= asked.chars().count())
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
