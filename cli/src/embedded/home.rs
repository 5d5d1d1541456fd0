//! The claimed data folder, and the runtime folder that belongs to it.
//!
//! The claim is a lock on `<data>/lock`, which the kernel releases when we die. A folder has one instance, and any
//! service that runs on the folder while we hold the lock was left by an earlier run. A folder that the children may
//! not enter (below `/root`) is replaced by one below `/var/lib/sentryops`, named by a hash of its canonical path. An
//! existing cluster always takes precedence: an error is better than an empty database in its place.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::OFlags;
use rustix::process::geteuid;
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::account::{Account, open_folder, read};
use super::{cluster, runtime};

/// Parent of the data folders that replace those that the children may not enter.
const FALLBACK_PARENT: &str = "/var/lib/sentryops";
/// A claimed data folder. Dropping it releases the claim.
pub(super) struct Home {
    pub(super) data: PathBuf,
    pub(super) runtime: PathBuf,
    pub(super) account: Account,
    requested: PathBuf,
    _lock: File,
}

impl Home {
    /// Claims a data folder, creating it if necessary, and its runtime folder.
    pub(super) fn claim(data_dir: &Path) -> Result<Self> {
        create_traversable(data_dir)?;
        let requested = data_dir.canonicalize()?;
        let lock = lock(&requested)?;
        let mark = mark(&requested);
        let fallback = fallback(&mark);
        let account = Account::choose(&[cluster::path(&requested), cluster::path(&fallback)])?;
        let data = place(&requested, &fallback, &account)?;
        make_private(&data.join("log"))?;
        let runtime = runtime::make(&mark, &account)?;
        Ok(Self { data, runtime, account, requested, _lock: lock })
    }

    /// Returns the major version of Postgres that created the cluster; `None` if there is no cluster yet.
    pub(super) fn cluster_major(&self) -> Result<Option<u32>> {
        let path = cluster::path(&self.data).join("PG_VERSION");
        let Some(major) = read(&path)? else { return Ok(None) };
        let major = major.trim().parse();
        major.map(Some).with_context(|| format!("{} contains no version number", path.display()))
    }

    /// Removes the runtime folder, and releases the claim.
    pub(super) async fn leave(self) -> Result<()> {
        remove(&self.runtime).await
    }

    /// Removes the runtime folder and all data, and releases the claim.
    pub(super) async fn remove(self) -> Result<()> {
        remove(&self.runtime).await?;
        remove(&self.data).await?;
        remove(&self.requested).await
    }
}

impl Drop for Home {
    /// Removes the runtime folder if it is empty. One with content is still in use, or is cleared at the next start.
    fn drop(&mut self) {
        // An empty folder that remains does no harm.
        let _ = fs::remove_dir(&self.runtime);
    }
}

/// Removes a folder with its content, if it exists.
pub(super) async fn remove(folder: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Locks a data folder until the returned file is dropped.
pub(super) fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another sentryops is running on the data folder {}: stop it, or set another DATA_DIR for this one",
            data.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Returns the replacement of a data folder that the children may not enter.
pub(super) fn fallback(mark: &str) -> PathBuf {
    Path::new(FALLBACK_PARENT).join(mark)
}

/// Returns a name of 16 hexadecimal digits for a data folder, a hash of its path.
pub(super) fn mark(data: &Path) -> String {
    let digest = Sha256::digest(data.as_os_str().as_bytes());
    digest.iter().take(8).fold(String::new(), |mark, byte| format!("{mark}{byte:02x}"))
}

/// Chooses the folder of the data: the requested one, unless the children may not enter it.
fn place(requested: &Path, fallback: &Path, account: &Account) -> Result<PathBuf> {
    if !geteuid().is_root() {
        return Ok(requested.to_owned());
    }
    let (has_cluster, in_shelter) =
        (cluster::path(requested).exists(), cluster::path(fallback).exists());
    if has_cluster && in_shelter {
        warn!(
            "there is a database in {} and another in {}: the first is used",
            requested.display(),
            fallback.display()
        );
    }
    if in_shelter && !has_cluster {
        info!("the data of {} is stored in {}", requested.display(), fallback.display());
        return Ok(fallback.to_owned());
    }
    if account.can_enter(requested)? {
        return Ok(requested.to_owned());
    }
    if has_cluster {
        bail!(
            "user {} runs Postgres but cannot enter {}, which contains the database: \
             run chmod o+x on the folders above it",
            account.name,
            requested.display()
        );
    }
    create_traversable(fallback)?;
    warn!(
        requested = %requested.display(),
        data = %fallback.display(),
        "user {} cannot enter {}, so the data is stored in {}",
        account.name,
        requested.display(),
        fallback.display()
    );
    Ok(fallback.to_owned())
}

/// Creates a folder that other users may pass through (for the children of root) but not list. An existing folder stays
/// unchanged, because it may be `/root`.
pub(super) fn create_traversable(folder: &Path) -> Result<()> {
    let made = || -> io::Result<()> {
        if let Some(parent) = folder.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(folder) {
            // Set again, because the mode at creation was subject to the umask.
            Ok(()) if geteuid().is_root() => {
                open_folder(folder)?.set_permissions(Permissions::from_mode(0o711))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    };
    made().with_context(|| format!("cannot create the data folder {}", folder.display()))
}

fn make_private(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(folder)?;
            if !found.is_dir() || found.uid() != geteuid().as_raw() {
                bail!(
                    "{} is not a folder, or belongs to another user, so it is not used",
                    folder.display()
                );
            }
            Ok(())
        }
        made => made.with_context(|| format!("cannot create {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_free_again_when_the_lock_is_dropped() {
        let folder = std::env::temp_dir().join(format!("sentryops-home-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let first = lock(&folder).unwrap();
        let second = lock(&folder).unwrap_err().to_string();
        drop(first);
        let third = lock(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert!(second.contains(&folder.display().to_string()), "{second}");
        third.unwrap();
    }
}
