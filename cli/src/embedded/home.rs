//! The data folder, claimed, and the runtime folder that belongs to it.
//!
//! The claim is a lock on `<data>/lock`, which the kernel frees when we die: one instance a folder, and whatever else runs
//! on the folder while we hold it is a leftover. A folder that the children may not enter (below `/root`) is replaced by one
//! below `/var/lib/sentryops`, named by a hash of its canonical path. A cluster once made is always found first: better an
//! error than an empty database in its place.

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

/// Where data goes whose folder the children may not enter.
const SHELTER: &str = "/var/lib/sentryops";
/// A claimed data folder. Dropping it gives up the claim.
pub(super) struct Home {
    pub(super) data: PathBuf,
    pub(super) runtime: PathBuf,
    pub(super) account: Account,
    requested: PathBuf,
    _lock: File,
}

impl Home {
    /// Claims a data folder, making it if need be, and its runtime folder.
    pub(super) fn claim(data_dir: &Path) -> Result<Self> {
        make_passable(data_dir)?;
        let requested = data_dir.canonicalize()?;
        let lock = lock(&requested)?;
        let mark = mark(&requested);
        let shelter = shelter(&mark);
        let account = Account::choose(&[cluster::path(&requested), cluster::path(&shelter)])?;
        let data = place(&requested, &shelter, &account)?;
        make_private(&data.join("log"))?;
        let runtime = runtime::make(&mark, &account)?;
        Ok(Self { data, runtime, account, requested, _lock: lock })
    }

    /// The Postgres that made the cluster; `None` where there is none yet.
    pub(super) fn cluster_major(&self) -> Result<Option<u32>> {
        let path = cluster::path(&self.data).join("PG_VERSION");
        let Some(major) = read(&path)? else { return Ok(None) };
        let major = major.trim().parse();
        major.map(Some).with_context(|| format!("{} names no version", path.display()))
    }

    /// Removes what lives only as long as the services.
    pub(super) async fn leave(self) -> Result<()> {
        remove(&self.runtime).await
    }

    /// Removes everything, the data too.
    pub(super) async fn remove(self) -> Result<()> {
        remove(&self.runtime).await?;
        remove(&self.data).await?;
        remove(&self.requested).await
    }
}

impl Drop for Home {
    /// Takes back a runtime folder that was never used; one that is not empty is still needed, or found at the next start.
    fn drop(&mut self) {
        // Nobody misses an empty folder that stays.
        let _ = fs::remove_dir(&self.runtime);
    }
}

/// Removes a folder and what is in it, if it is there.
pub(super) async fn remove(folder: &Path) -> Result<()> {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Claims a folder until the answer is dropped.
pub(super) fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&path)
        .with_context(|| format!("write {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another sentryops already runs on the data folder {}: stop it, or give this one another DATA_DIR",
            data.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

/// Where the data of a folder goes that the children may not enter.
pub(super) fn shelter(mark: &str) -> PathBuf {
    Path::new(SHELTER).join(mark)
}

/// Names a data folder in 16 letters.
pub(super) fn mark(data: &Path) -> String {
    let digest = Sha256::digest(data.as_os_str().as_bytes());
    digest.iter().take(8).fold(String::new(), |mark, byte| format!("{mark}{byte:02x}"))
}

/// Where the data goes: the requested folder, unless the children may not enter it.
fn place(requested: &Path, shelter: &Path, account: &Account) -> Result<PathBuf> {
    if !geteuid().is_root() {
        return Ok(requested.to_owned());
    }
    let (has_cluster, in_shelter) =
        (cluster::path(requested).exists(), cluster::path(shelter).exists());
    if has_cluster && in_shelter {
        warn!(
            "there is a database below {} and another below {}: the first is used",
            requested.display(),
            shelter.display()
        );
    }
    if in_shelter && !has_cluster {
        info!("the data of {} is in {}", requested.display(), shelter.display());
        return Ok(shelter.to_owned());
    }
    if account.can_enter(requested)? {
        return Ok(requested.to_owned());
    }
    if has_cluster {
        bail!(
            "user {} runs Postgres but may not enter {}, where the database is: \
             make the folders above it passable (chmod o+x)",
            account.name,
            requested.display()
        );
    }
    make_passable(shelter)?;
    warn!(
        requested = %requested.display(),
        data = %shelter.display(),
        "user {} may not enter {}, so the data goes to {}",
        account.name,
        requested.display(),
        shelter.display()
    );
    Ok(shelter.to_owned())
}

/// Makes a folder that others may pass through (for the children of root), but not look into. One that exists stays as it is:
/// it may be `/root`.
pub(super) fn make_passable(folder: &Path) -> Result<()> {
    let made = || -> io::Result<()> {
        if let Some(parent) = folder.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(folder) {
            // Said again, since making it was subject to the umask.
            Ok(()) if geteuid().is_root() => {
                open_folder(folder)?.set_permissions(Permissions::from_mode(0o711))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    };
    made().with_context(|| format!("make the data folder {}", folder.display()))
}

fn make_private(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(folder)?;
            if !found.is_dir() || found.uid() != geteuid().as_raw() {
                bail!("{} is not a folder of ours", folder.display());
            }
            Ok(())
        }
        made => made.with_context(|| format!("make {}", folder.display())),
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
