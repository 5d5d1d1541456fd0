//! The data folder, locked by this process, and its runtime folder.
//!
//! The lock is a file lock on `<data>/lock`, which the kernel releases when this process ends. A data folder has at
//! most one sentryops process. Any service that runs on the folder while we hold the lock was left by an earlier run.
//! If the children cannot enter the requested folder (below `/root`), the data is stored in a fallback folder below
//! `/var/lib/sentryops`, named by a hash of the canonical path of the requested folder. A folder with an existing
//! cluster always takes precedence, because an error is better than an empty new database.

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

/// Parent of the fallback folders, which replace data folders that the children cannot enter.
const FALLBACK_PARENT: &str = "/var/lib/sentryops";

/// A locked data folder with its runtime folder. Dropping the value releases the lock.
pub(super) struct Home {
    pub(super) data: PathBuf,
    pub(super) runtime: PathBuf,
    pub(super) account: Account,
    requested: PathBuf,
    _lock: File,
}

impl Home {
    /// Locks a data folder. Creates the data folder if necessary, and its runtime folder.
    pub(super) fn claim(data_dir: &Path) -> Result<Self> {
        create_traversable(data_dir)?;
        let requested = data_dir.canonicalize()?;
        let lock = lock(&requested)?;
        let path_hash = path_hash(&requested);
        let fallback = fallback(&path_hash);
        let account = Account::choose(&[cluster::path(&requested), cluster::path(&fallback)])?;
        let data = choose_folder(&requested, &fallback, &account)?;
        create_private(&data.join("log"))?;
        let runtime = runtime::create(&path_hash, &account)?;
        Ok(Self { data, runtime, account, requested, _lock: lock })
    }

    /// Returns the major version of Postgres that created the cluster; `None` if there is no cluster yet.
    pub(super) fn cluster_major(&self) -> Result<Option<u32>> {
        let path = cluster::path(&self.data).join("PG_VERSION");
        let Some(major) = read(&path)? else { return Ok(None) };
        let major = major.trim().parse();
        major.map(Some).with_context(|| format!("{} contains no version number", path.display()))
    }

    /// Removes the runtime folder, and releases the lock.
    pub(super) async fn release(self) -> Result<()> {
        remove(&self.runtime).await
    }

    /// Removes the runtime folder and all data, and releases the lock.
    pub(super) async fn remove(self) -> Result<()> {
        remove(&self.runtime).await?;
        remove(&self.data).await?;
        remove(&self.requested).await
    }
}

impl Drop for Home {
    /// Removes the runtime folder if it is empty. A runtime folder with files is in use, or is cleared at the next
    /// start.
    fn drop(&mut self) {
        // An error is ignored, because a remaining folder does no harm.
        let _ = fs::remove_dir(&self.runtime);
    }
}

/// Removes a folder with its content. A folder that does not exist is no error.
pub(super) async fn remove(folder: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Locks a data folder; dropping the returned file releases the lock.
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

/// Returns the fallback folder for a data folder that the children cannot enter.
pub(super) fn fallback(path_hash: &str) -> PathBuf {
    Path::new(FALLBACK_PARENT).join(path_hash)
}

/// Returns a hash of the path of a data folder, as 16 hexadecimal digits.
pub(super) fn path_hash(data: &Path) -> String {
    let digest = Sha256::digest(data.as_os_str().as_bytes());
    digest.iter().take(8).fold(String::new(), |path_hash, byte| format!("{path_hash}{byte:02x}"))
}

/// Returns the requested folder, or the fallback folder if the children cannot enter the requested folder.
fn choose_folder(requested: &Path, fallback: &Path, account: &Account) -> Result<PathBuf> {
    if !geteuid().is_root() {
        return Ok(requested.to_owned());
    }
    let (has_cluster, in_fallback) =
        (cluster::path(requested).exists(), cluster::path(fallback).exists());
    if has_cluster && in_fallback {
        warn!(
            "there is a database in {} and another in {}: the first is used",
            requested.display(),
            fallback.display()
        );
    }
    if in_fallback && !has_cluster {
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

/// Creates a folder that other users can enter but not list, so that the children of root reach the data below it. An
/// existing folder stays unchanged, because it may be `/root`.
pub(super) fn create_traversable(folder: &Path) -> Result<()> {
    let created = || -> io::Result<()> {
        if let Some(parent) = folder.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(folder) {
            // The mode is set separately, because the umask limits the mode at creation.
            Ok(()) if geteuid().is_root() => {
                open_folder(folder)?.set_permissions(Permissions::from_mode(0o711))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            created => created,
        }
    };
    created().with_context(|| format!("cannot create the data folder {}", folder.display()))
}

fn create_private(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(folder)?;
            if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
                bail!(
                    "{} is not a folder, or belongs to another user, so it is not used",
                    folder.display()
                );
            }
            Ok(())
        }
        created => created.with_context(|| format!("cannot create {}", folder.display())),
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
