//! The runtime folder, which contains the Unix sockets.
//!
//! A socket path has at most 107 bytes (103 on macOS), and paths of data folders can be longer. Therefore the runtime
//! folder has a short path, with a hash of the path of the data folder. Only root and the user of the children can read
//! the runtime folder. A folder that another user prepared in `/tmp` is rejected.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::geteuid;

use super::account::Account;

/// File name of the Postgres socket, which contains the port; the longest file name in the runtime folder.
pub(super) const POSTGRES_SOCKET: &str = ".s.PGSQL.5432";
/// Maximum length of a socket path in bytes on macOS; Linux allows four bytes more.
const SOCKET_PATH_BYTES: usize = 103;

/// Returns the candidate paths of the runtime folder, in order of preference.
fn candidates(path_hash: &str, uid: u32, session: Option<PathBuf>) -> Vec<PathBuf> {
    let preferred = match uid {
        // The session folder of root is unusable, because the children cannot enter it.
        0 => Some(PathBuf::from("/run")),
        _ => session,
    };
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let longest = Path::new(POSTGRES_SOCKET);
    preferred
        .into_iter()
        .map(|parent| parent.join(format!("sentryops-{path_hash}")))
        .chain([PathBuf::from(format!("/tmp/sentryops-{uid}-{path_hash}"))])
        .filter(|candidate| candidate.is_absolute())
        // `fred` does not decode the path of a URL, so the path must need no escaping.
        .filter(|candidate| candidate.as_os_str().as_bytes().iter().all(is_plain))
        .filter(|candidate| candidate.join(longest).as_os_str().len() <= SOCKET_PATH_BYTES)
        .collect()
}

/// Creates the runtime folder of a data folder, or reuses an existing runtime folder.
pub(super) fn create(path_hash: &str, account: &Account) -> Result<PathBuf> {
    let session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mut last_error = None;
    for candidate in candidates(path_hash, geteuid().as_raw(), session) {
        match account.create_private_folder(&candidate).and_then(|()| account.can_enter(&candidate))
        {
            Ok(true) => return Ok(candidate),
            Ok(false) => {
                last_error =
                    Some(anyhow!("user {} cannot enter {}", account.name, candidate.display()));
            }
            Err(error) => last_error = Some(error),
        }
    }
    // `/tmp` is always one of the candidates, so the loop has always set an error.
    Err(last_error
        .unwrap_or_else(|| anyhow!("no candidate path is usable"))
        .context("cannot create a folder for the sockets"))
}

/// Removes the files that an earlier run left in the runtime folder.
pub(super) fn empty(runtime: &Path) -> Result<()> {
    for entry in fs::read_dir(runtime)? {
        let path = entry?.path();
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_folder_is_short_plain_and_absolute() {
        let check = |uid, session: Option<&str>, expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(candidates("0123", uid, session.map(PathBuf::from)), expected);
        };
        let tmp = "/tmp/sentryops-1000-0123";
        check(0, Some("/run/user/0"), &["/run/sentryops-0123", "/tmp/sentryops-0-0123"]);
        check(1000, None, &[tmp]);
        check(1000, Some("/run/user/1000"), &["/run/user/1000/sentryops-0123", tmp]);
        check(1000, Some("relative"), &[tmp]);
        check(1000, Some("/with space"), &[tmp]);
        check(1000, Some(&format!("/{}", "long".repeat(30))), &[tmp]);
    }

    #[test]
    fn the_longest_name_of_a_runtime_folder_fits_a_socket() {
        assert_eq!(candidates(&"f".repeat(16), u32::MAX, None).len(), 1);
    }
}
