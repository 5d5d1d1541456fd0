//! The runtime folder, which holds the sockets. A socket path has at most 107 bytes (103 on macOS) and data folders can
//! be long, so the runtime folder is short and named by a hash of the data folder's path. Only the children's user and
//! root can read it. A folder that another user prepared in `/tmp` is refused.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::geteuid;

use super::account::Account;

/// File name of the Postgres socket, derived from its port; the longest name in the folder.
pub(super) const POSTGRES_SOCKET: &str = ".s.PGSQL.5432";
/// Maximum length of a socket path on macOS, in bytes; Linux allows four more.
const SOCKET_PATH_BYTES: usize = 103;

/// Returns the possible paths of the runtime folder, the best first.
fn places(mark: &str, uid: u32, session: Option<PathBuf>) -> Vec<PathBuf> {
    let best = match uid {
        // Root's session folder is unusable, because the children may not enter it.
        0 => Some(PathBuf::from("/run")),
        _ => session,
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let longest = Path::new(POSTGRES_SOCKET);
    best.into_iter()
        .map(|parent| parent.join(format!("sentryops-{mark}")))
        .chain([PathBuf::from(format!("/tmp/sentryops-{uid}-{mark}"))])
        .filter(|place| place.is_absolute())
        // `fred` does not decode the path of a URL, so it must need no escaping.
        .filter(|place| place.as_os_str().as_bytes().iter().all(plain))
        .filter(|place| place.join(longest).as_os_str().len() <= SOCKET_PATH_BYTES)
        .collect()
}

/// Creates the runtime folder of a data folder, or adopts the existing one.
pub(super) fn make(mark: &str, account: &Account) -> Result<PathBuf> {
    let session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mut why = None;
    for place in places(mark, geteuid().as_raw(), session) {
        match account.create_private_folder(&place).and_then(|()| account.can_enter(&place)) {
            Ok(true) => return Ok(place),
            Ok(false) => {
                why = Some(anyhow!("user {} cannot enter {}", account.name, place.display()));
            }
            Err(error) => why = Some(error),
        }
    }
    // `/tmp` is always among the places, so an error is always present.
    Err(why
        .unwrap_or_else(|| anyhow!("no usable place"))
        .context("cannot create a folder for the sockets"))
}

/// Removes the files in the runtime folder, left by an earlier run.
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
            assert_eq!(places("0123", uid, session.map(PathBuf::from)), expected);
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
        assert_eq!(places(&"f".repeat(16), u32::MAX, None).len(), 1);
    }
}
