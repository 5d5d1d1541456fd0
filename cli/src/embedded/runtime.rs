//! The folder of the sockets. Socket paths end at 107 bytes (103 on macOS) and data folders are long, so it is short and
//! named by a mark, a hash of the data folder's path. Only the children's user and root may look into it; one that somebody
//! else has prepared in `/tmp` is refused.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::geteuid;

use super::account::Account;

/// The name of Postgres' socket, which it makes of its port: the longest in the folder.
pub(super) const POSTGRES_SOCKET: &str = ".s.PGSQL.5432";
/// The longest socket path of macOS; Linux has four more.
const SOCKET_PATH_BYTES: usize = 103;

/// The places for a runtime folder, best first.
fn places(mark: &str, uid: u32, session: Option<PathBuf>) -> Vec<PathBuf> {
    let best = match uid {
        // Not root's session folder: the children may not enter it.
        0 => Some(PathBuf::from("/run")),
        _ => session,
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let longest = Path::new(POSTGRES_SOCKET);
    best.into_iter()
        .map(|parent| parent.join(format!("sentryops-{mark}")))
        .chain([PathBuf::from(format!("/tmp/sentryops-{uid}-{mark}"))])
        .filter(|place| place.is_absolute())
        // `fred` does not decode a path in a URL, so it must be plain.
        .filter(|place| place.as_os_str().as_bytes().iter().all(plain))
        .filter(|place| place.join(longest).as_os_str().len() <= SOCKET_PATH_BYTES)
        .collect()
}

/// Makes the runtime folder of a data folder, or takes the one that is there.
pub(super) fn make(mark: &str, account: &Account) -> Result<PathBuf> {
    let session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mut why = None;
    for place in places(mark, geteuid().as_raw(), session) {
        match account.own_folder(&place).and_then(|()| account.can_enter(&place)) {
            Ok(true) => return Ok(place),
            Ok(false) => {
                why = Some(anyhow!("{} may not enter {}", account.name, place.display()));
            }
            Err(error) => why = Some(error),
        }
    }
    // `/tmp` is always among the places.
    Err(why.unwrap_or_else(|| anyhow!("no place")).context("make a folder for the sockets"))
}

/// Removes the sockets that an earlier run left.
pub(super) fn empty(runtime: &Path) -> Result<()> {
    for entry in fs::read_dir(runtime)? {
        let path = entry?.path();
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
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
