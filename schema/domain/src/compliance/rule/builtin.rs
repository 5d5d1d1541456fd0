//! The sixteen builtin rules: YAML files in `builtin/`, parsed once per process.
//!
//! Every change of a file must raise the `version` in the file. An organization's row of a rule is updated only if the
//! file has a higher version than the row.

use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Definition, Rule,
    cel::{Compiled, compile},
    params::Params,
};
use crate::base::{
    entity::{OrganizationId, RuleId},
    id::Id,
};

/// A rule that ships with SentryOps.
#[derive(Debug)]
pub struct Builtin {
    /// The rule's key, e.g. `disk-encryption`.
    pub key: String,
    /// Version number of the rule, from the file.
    pub version: i32,
    /// Content of the rule, parsed from the file.
    pub definition: Definition,
    pub(super) params: Params,
    pub(super) compiled: Arc<Compiled>,
}

const FILES: [&str; 16] = [
    include_str!("builtin/disk-encryption.yaml"),
    include_str!("builtin/encryption-in-transit.yaml"),
    include_str!("builtin/edr-present.yaml"),
    include_str!("builtin/antivirus-present.yaml"),
    include_str!("builtin/owner-mfa.yaml"),
    include_str!("builtin/no-default-credentials.yaml"),
    include_str!("builtin/password-max-age.yaml"),
    include_str!("builtin/has-owner.yaml"),
    include_str!("builtin/logging-enabled.yaml"),
    include_str!("builtin/log-retention.yaml"),
    include_str!("builtin/backup-recency.yaml"),
    include_str!("builtin/firewall-enabled.yaml"),
    include_str!("builtin/no-high-risk-open-ports.yaml"),
    include_str!("builtin/tls-cert-expiry.yaml"),
    include_str!("builtin/patch-age.yaml"),
    include_str!("builtin/os-supported.yaml"),
];

/// Format of a file: the fields of a definition, plus key and version.
#[derive(Deserialize)]
struct File {
    key: String,
    version: i32,
    #[serde(flatten)]
    definition: Definition,
}

static ALL: LazyLock<Vec<Builtin>> = LazyLock::new(|| {
    let read = |text: &&str| {
        let File { key, version, mut definition } =
            serde_norway::from_str(text).expect("the tests read every file");
        let params = Params::declared(&definition.params).expect("the tests check every file");
        definition.params = params.to_value(); // The format in which `rule_version` stores parameters.
        let compiled = compile(&definition, &params).expect("the tests check every file");
        Builtin { key, version, definition, params, compiled: Arc::new(compiled) }
    };
    FILES.iter().map(read).collect()
});

impl Builtin {
    /// Returns all builtin rules in the order in which the API lists them.
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// Returns the builtin rule with this key, or `None`.
    pub fn of_key(key: &str) -> Option<&'static Self> {
        ALL.iter().find(|builtin| builtin.key == key)
    }

    /// Returns the rule's id, derived from the ids of organization and rule key. The id is therefore the same before
    /// and after the row is written.
    pub fn id(&self, org: OrganizationId) -> RuleId {
        let hash = Sha256::digest(format!("sentryops rule {} {}", org.uuid(), self.key));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        // Sets the UUID version for custom formats (8) and the standard variant.
        bytes[6] = bytes[6] & 0x0F | 0x80;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        Id::from(Uuid::from_bytes(bytes))
    }

    /// Returns the rule with default parameters, enabled.
    pub fn rule(&self, org: OrganizationId) -> Rule {
        Rule {
            id: self.id(org),
            key: self.key.clone(),
            version: self.version,
            builtin: true,
            enabled: true,
            definition: self.definition.clone(),
            params: self.params.to_value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::compliance::rule::control::Control;

    #[test]
    fn the_sixteen_are_whole_and_weigh_78() {
        let keys: HashSet<_> = ALL.iter().map(|builtin| &builtin.key).collect();
        assert_eq!((ALL.len(), keys.len()), (16, 16));
        let weight: i32 = ALL.iter().map(|builtin| builtin.definition.severity.weight()).sum();
        assert_eq!(weight, 78);
        for builtin in ALL.iter() {
            let controls = &builtin.definition.controls;
            let nist: Vec<_> = controls.iter().filter(|one| one.framework == "NIST").collect();
            assert_eq!(nist.len(), 1, "{}", builtin.key);
            assert!(Control::of(nist[0]).title.is_some(), "{}: {nist:?}", builtin.key);
            assert!(!builtin.definition.evidence.is_empty());
        }
    }

    #[test]
    fn each_reads_what_it_is_about() {
        for (key, reads) in [
            ("has-owner", vec!["owner.id"]),
            ("owner-mfa", vec!["owner.mfa_enabled"]),
            ("os-supported", vec!["attr.os_name", "attr.os_supported", "attr.os_version"]),
            ("patch-age", vec!["attr.last_patched_at"]),
        ] {
            let mut found: Vec<_> = Builtin::of_key(key).unwrap().compiled.reads().collect();
            found.sort_unstable();
            assert_eq!(found, reads);
        }
        let by_time: Vec<_> =
            ALL.iter().filter(|one| one.compiled.reads_now).map(|one| one.key.as_str()).collect();
        assert_eq!(by_time, ["backup-recency", "tls-cert-expiry", "patch-age"]);
    }
}
