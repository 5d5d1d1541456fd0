//! Temporary data folders, for tests and trials. Those of runs that were killed are removed by a later run: nobody holds
//! their lock.

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
use super::home::{Home, make_passable};
use super::secret;

const PREFIX: &str = "sentryops-scratch-";
/// A folder this young may be about to be locked.
const YOUNG: Duration = Duration::from_mins(1);

/// A path for a new scratch folder.
pub(super) fn folder() -> Result<PathBuf> {
    let number = u64::from_ne_bytes(secret::random()?);
    let folder = env::temp_dir().join(format!("{PREFIX}{number:016x}"));
    make_passable(&folder)?;
    Ok(folder)
}

/// Removes the scratch folders of runs that were killed. What cannot be removed is left for the next sweep.
pub(super) async fn sweep() {
    let entries = fs::read_dir(env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().as_bytes().starts_with(PREFIX.as_bytes())) {
        let is_old = |found: &fs::Metadata| {
            found.modified().is_ok_and(|then| then.elapsed().is_ok_and(|age| age > YOUNG))
        };
        // Of the entry itself: a link is no folder.
        let ours = entry.metadata().is_ok_and(|found| {
            found.is_dir() && found.uid() == geteuid().as_raw() && is_old(&found)
        });
        if !ours {
            continue;
        }
        // A claim that fails is one that is still held.
        let Ok(home) = Home::claim(&entry.path()) else { continue };
        let removed = match clear(&home).await {
            Ok(()) => home.remove().await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            info!("{} is left as it is: {error:#}", entry.path().display());
        }
    }
}
