//! What a child says on its two outputs, in a file that we own and the child cannot reach by name. At a start the last
//! run's is kept as `.1`; while running, a file that outgrows its bound is cut to nothing (the child appends, so it goes on).
//! We gave up a pipe with a copying thread: a child must not stop because we are stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;
use tracing::warn;

const BOUND_BYTES: u64 = 16 * 1024 * 1024;
const TAIL_BYTES: u64 = 2048;

/// The log of one child.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) path: PathBuf,
    file: File,
}

impl Log {
    /// Begins `<folder>/<name>.log`.
    pub(super) fn begin(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("{name}.log"));
        match fs::rename(&path, folder.join(format!("{name}.log.1"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("keep the old {}", path.display()));
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
            .with_context(|| format!("write {}", path.display()))?;
        Ok(Self { path, file })
    }

    /// An output for the child.
    pub(super) fn output(&self) -> Result<Stdio> {
        Ok(self.file.try_clone()?.into())
    }

    /// Empties a log that has outgrown its bound.
    pub(super) fn bound(&self) {
        let too_long = self.file.metadata().is_ok_and(|log| log.len() > BOUND_BYTES);
        if too_long && let Err(error) = self.file.set_len(0) {
            warn!("{} cannot be shortened: {error}", self.path.display());
        }
    }

    /// The last lines, for an error message.
    pub(super) fn tail(&self) -> String {
        // A handle of its own: the offset is shared with the child's.
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
        let old = Log::begin(&folder, "x").unwrap();
        fs::write(&old.path, "old").unwrap();
        let new = Log::begin(&folder, "x").unwrap();
        let empty = new.tail();
        fs::write(&new.path, format!("{}end\n", "x".repeat(9000))).unwrap();
        let tail = new.tail();
        let kept = fs::read_to_string(folder.join("x.log.1")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(empty.ends_with("is empty)"));
        assert_eq!(kept, "old");
        assert!(tail.ends_with("xend") && tail.len() < 2300);
    }
}
