//! Standard output and standard error of a child, in a file that we own and that the child cannot open by name.
//!
//! At a start, the previous log is renamed to `.1`. While the child runs, a log that exceeds its limit is truncated to
//! zero length; the file is open for appending, so the child continues at the start. Given up: a pipe with a copying
//! thread, because the child would block while this process is stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;
use tracing::warn;

const MAX_BYTES: u64 = 16 * 1024 * 1024;
const TAIL_BYTES: u64 = 2048;

/// Log file of one child.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) path: PathBuf,
    file: File,
}

impl Log {
    /// Creates `<folder>/<name>.log`, and renames the previous log to `<name>.log.1`.
    pub(super) fn create(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("{name}.log"));
        match fs::rename(&path, folder.join(format!("{name}.log.1"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot rename the old {}", path.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// Returns a handle of the file, for standard output or standard error of the child.
    pub(super) fn output(&self) -> Result<Stdio> {
        Ok(self.file.try_clone()?.into())
    }

    /// Truncates the log to zero length if it exceeds its limit.
    pub(super) fn truncate_if_long(&self) {
        let is_too_long = self.file.metadata().is_ok_and(|log| log.len() > MAX_BYTES);
        if is_too_long && let Err(error) = self.file.set_len(0) {
            warn!("cannot truncate the log {}: {error}", self.path.display());
        }
    }

    /// Returns the end of the log, up to 2 KiB, for an error message.
    pub(super) fn tail(&self) -> String {
        // A new handle, because `self.file` shares its offset with the child.
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        match read() {
            Ok(tail) if tail.is_empty() => format!("({} is empty)", self.path.display()),
            Ok(tail) => format!("the end of {}:\n{tail}", self.path.display()),
            Err(error) => format!("({} cannot be read: {error})", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_log_keeps_the_old_one_and_shows_only_its_own_end() {
        let folder = std::env::temp_dir().join(format!("sentryops-log-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let old = Log::create(&folder, "x").unwrap();
        fs::write(&old.path, "old").unwrap();
        let new = Log::create(&folder, "x").unwrap();
        let empty = new.tail();
        fs::write(&new.path, format!("{}end\n", "x".repeat(9000))).unwrap();
        let tail = new.tail();
        let stored = fs::read_to_string(folder.join("x.log.1")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(empty.ends_with("is empty)"));
        assert_eq!(stored, "old");
        assert!(tail.ends_with("xend") && tail.len() < 2300);
    }
}
