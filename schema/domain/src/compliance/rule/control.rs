//! Titles and families of framework controls. The table contains the MODERATE baseline of NIST SP 800-53 r5, which is
//! in the public domain. Controls of other frameworks have a code only, because the text of the CIS benchmarks must not
//! be redistributed.

use std::{collections::HashMap, sync::LazyLock};

use async_graphql::SimpleObject;

use super::ControlRef;
use crate::access::{directive::requires, permission::Permission};

const TABLE: &str = include_str!("nist-800-53-moderate.csv");

/// Name of the framework that the table covers.
const NIST: &str = "NIST";

/// A requirement of a compliance framework that rules check, e.g. `SC-28` of the framework `NIST`. Requires
/// `COMPLIANCE_READ`.
#[derive(Debug, Clone, PartialEq, Eq, SimpleObject)]
#[graphql(directive = requires::apply(Permission::ComplianceRead))]
pub struct Control {
    /// Name of the framework, e.g. `NIST` (SP 800-53) or `CIS`.
    pub framework: String,
    /// The control's code in the framework, e.g. `SC-28`.
    pub code: String,
    /// Title of the control; null if SentryOps does not know the control.
    pub title: Option<String>,
    /// Family of the control, e.g. `System and Communications Protection`; null if SentryOps does not know the control.
    pub family: Option<String>,
}

#[derive(Debug)]
struct Row {
    family: String,
    title: String,
}

/// Rows by code in the spelling of the table, e.g. `sc-28` or `ac-2.1`.
static NAMES: LazyLock<HashMap<String, Row>> = LazyLock::new(|| {
    let mut rows = csv::Reader::from_reader(TABLE.as_bytes());
    rows.deserialize()
        .map(|row| {
            let (code, family, title) = row.expect("the tests read every row of the table");
            (code, Row { family, title })
        })
        .collect()
});

impl Control {
    /// Returns the control, with title and family if the table contains the control.
    pub fn of(control: &ControlRef) -> Self {
        // Enhancements are often written AC-2(1) instead of AC-2.1.
        let code = control.code.to_lowercase().replace('(', ".").replace(')', "");
        let named = (control.framework == NIST).then(|| NAMES.get(&code)).flatten();
        Self {
            framework: control.framework.clone(),
            code: control.code.clone(),
            title: named.map(|row| row.title.clone()),
            family: named.map(|row| row.family.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_is_known_and_nothing_else() {
        let named = |framework: &str, code: &str| {
            let (framework, code) = (framework.to_owned(), code.to_owned());
            let control = Control::of(&ControlRef { framework, code });
            control.title.zip(control.family)
        };
        let pair = |title: &str, family: &str| Some((title.to_owned(), family.to_owned()));
        assert_eq!(NAMES.len(), TABLE.lines().count() - 1);
        assert_eq!(
            named("NIST", "SC-28"),
            pair("Protection of Information at Rest", "System and Communications Protection")
        );
        assert_eq!(named("NIST", "AC-2(1)"), named("NIST", "ac-2.1"));
        assert!(named("NIST", "AC-2(1)").is_some());
        assert_eq!(named("NIST", "ZZ-1"), None);
        assert_eq!(named("CIS", "3.6"), None);
    }
}
