//! A temporary folder in the system's temporary folder, removed when dropped.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

/// A temporary folder, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Creates a folder with a new name.
    pub(crate) fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sentryops-loadtests-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        let folder = Self(path);
        // If this program runs as root, the private Postgres runs as another user, who must be able to traverse this
        // folder.
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o711))?;
        Ok(folder)
    }

    /// Returns the path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Errors are ignored, because only files in the system's temporary folder would remain.
        let _ = fs::remove_dir_all(&self.0);
    }
}
