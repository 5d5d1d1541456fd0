//! Temporary data folders, for tests and trials. If a run was killed, a later run removes the folder. Such a folder is
//! recognised by its lock, which no process holds.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use rustix::process::geteuid;
use tracing::info;

use super::clear;
use super::home::{Home, create_traversable};
use super::secret;

const PREFIX: &str = "sentryops-scratch-";
/// Minimum age for the removal of a folder, because a new folder may not be locked yet.
const MIN_AGE: Duration = Duration::from_mins(1);

/// Creates a new scratch folder with a random name.
pub(super) fn folder() -> Result<PathBuf> {
    let number = u64::from_ne_bytes(secret::random()?);
    let folder = env::temp_dir().join(format!("{PREFIX}{number:016x}"));
    create_traversable(&folder)?;
    Ok(folder)
}

/// Removes the temporary data folders of killed runs. A folder that cannot be removed is logged, and stays for the next
/// sweep.
pub(super) async fn sweep() {
    let entries = fs::read_dir(env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().as_bytes().starts_with(PREFIX.as_bytes())) {
        let is_old = |metadata: &fs::Metadata| {
            metadata
                .modified()
                .is_ok_and(|modified_at| modified_at.elapsed().is_ok_and(|age| age > MIN_AGE))
        };
        // The metadata of the entry is read without following links, because a link must not count as a folder.
        let is_ours = entry.metadata().is_ok_and(|metadata| {
            metadata.is_dir() && metadata.uid() == geteuid().as_raw() && is_old(&metadata)
        });
        if !is_ours {
            continue;
        }
        // Fails if another process holds the lock of the folder.
        let Ok(home) = Home::claim(&entry.path()) else { continue };
        let removed = match clear(&home).await {
            Ok(()) => home.remove().await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            info!("the scratch folder {} cannot be removed: {error:#}", entry.path().display());
        }
    }
}
