//! Which documents run at all: all of them, or those that a list names by their digests.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::{
    engine::Engine,
    request::error::{Error, ErrorCode},
};

/// Which documents run.
#[derive(Debug, Clone, Default)]
pub enum Allowlist {
    /// All.
    #[default]
    Off,
    /// All, and those with other digests (SHA-256, hex) are logged.
    Log(HashSet<String>),
    /// Those with these digests.
    Enforce(HashSet<String>),
}

impl Engine {
    pub(super) fn check_allowed(&self, source: &str) -> Result<(), Error> {
        let (known, enforced) = match &self.0.settings.allowlist {
            Allowlist::Off => return Ok(()),
            Allowlist::Log(known) => (known, false),
            Allowlist::Enforce(known) => (known, true),
        };
        let digest = format!("{:x}", Sha256::digest(source));
        if known.contains(&digest) {
            return Ok(());
        }
        if enforced {
            return Err(Error::new(
                ErrorCode::Forbidden,
                "This server runs only documents that it was told of.",
            ));
        }
        tracing::info!(document.sha256 = digest, "a document that is not on the list");
        Ok(())
    }
}
