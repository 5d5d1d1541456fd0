//! The allowlist of GraphQL documents: runs every document, or only documents with a listed digest.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::{
    engine::Engine,
    request::error::{Error, ErrorCode},
};

/// The listed documents, and the handling of others.
#[derive(Debug, Clone, Default)]
pub enum Allowlist {
    /// Runs every document and checks nothing.
    #[default]
    Off,
    /// Runs every document, and logs each document with a digest (SHA-256, hex) that is not in the set.
    Log(HashSet<String>),
    /// Runs only documents with these digests (SHA-256, hex).
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
                "This server runs only documents on its allowlist, and this document is not on it.",
            ));
        }
        tracing::info!(document.sha256 = digest, "a document is not on the allowlist");
        Ok(())
    }
}
