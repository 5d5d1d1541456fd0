//! The user that runs the children (the processes of Postgres and Redis). If this process does not run as root, the
//! children run as the same user. If it runs as root, they run as the owner of an existing cluster, or else as
//! `postgres`, `sentryops` or `nobody`. No `unsafe` is needed, because std drops the supplementary groups when root
//! sets a uid.
//!
//! Another user could have prepared a folder in `/tmp`. Such a folder is checked and changed through one descriptor,
//! which does not follow links. The folder is rejected if it belongs to another user.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::fs::OFlags;
use rustix::process::{getegid, geteuid};

/// System users that may run the children of a root process, in order of preference.
const PREFERRED: [&str; 3] = ["postgres", "sentryops", "nobody"];

/// Maximum number of bytes read from a file; all files that this module reads are shorter.
const MAX_READ_BYTES: u64 = 64 * 1024;

/// User account that runs the children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// Chooses the account. The first existing folder of `clusters` is the cluster; none exists before the first start.
    pub(super) fn choose(clusters: &[PathBuf]) -> Result<Self> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let our_uid = geteuid().as_raw();
        let cluster =
            clusters.iter().find_map(|path| Some((path, fs::symlink_metadata(path).ok()?)));
        if let Some((path, cluster)) = &cluster {
            if !cluster.is_dir() {
                bail!(
                    "{} is not a folder; if it is a link, link the whole data folder instead",
                    path.display()
                );
            }
            if our_uid != 0 && cluster.uid() != our_uid {
                let owner = name_of(&passwd, cluster.uid());
                bail!(
                    "{} belongs to user {owner}: run sentryops as that user or as root",
                    path.display()
                );
            }
        }
        match cluster {
            _ if our_uid != 0 => {
                Ok(Self { name: name_of(&passwd, our_uid), uid: our_uid, gid: getegid().as_raw() })
            }
            Some((_, cluster)) if cluster.uid() != 0 => {
                let name = name_of(&passwd, cluster.uid());
                Ok(Self { name, uid: cluster.uid(), gid: cluster.gid() })
            }
            _ => preferred(&passwd).with_context(|| {
                format!(
                    "sentryops runs as root, Postgres refuses to, and none of the users {} exists: \
                     create one, for example with `useradd --system sentryops`",
                    PREFERRED.join(", "),
                )
            }),
        }
    }

    /// Configures a command to run as this user.
    pub(super) fn apply_to(&self, command: &mut Command) {
        if geteuid().is_root() {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Returns true if this user can enter a folder. Tests this with a child process, because mode bits do not include
    /// access control lists.
    pub(super) fn can_enter(&self, folder: &Path) -> Result<bool> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", ":"]).current_dir(folder).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.apply_to(&mut command);
        match command.status() {
            Ok(_) => Ok(true),
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::ACCESS.raw_os_error()) =>
            {
                Ok(false)
            }
            Err(error) => {
                Err(error).with_context(|| format!("cannot run a program as user {}", self.name))
            }
        }
    }

    /// Creates a folder that only this user (and root) can read, or gives an existing folder this owner and mode.
    ///
    /// # Errors
    /// If the path is a link, is not a folder, or belongs to another user.
    pub(super) fn create_private_folder(&self, folder: &Path) -> Result<()> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error)
                    .with_context(|| format!("cannot create the folder {}", folder.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let handle = open_folder(folder).with_context(|| {
            format!("cannot open {} as a folder (links are not followed)", folder.display())
        })?;
        let owner = handle.metadata()?.uid();
        if owner != self.uid && owner != geteuid().as_raw() {
            bail!(
                "{} belongs to user id {owner}, another user, so it is not used: remove it or change its owner",
                folder.display()
            );
        }
        self.take_ownership(&handle)?;
        handle.set_permissions(Permissions::from_mode(0o700))?;
        Ok(())
    }

    /// Writes a file that only this user can read, atomically.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        let file = create_temporary(path)?;
        self.take_ownership(&file.1)?;
        rename_into_place(file, path, content)
    }

    fn take_ownership(&self, handle: &File) -> io::Result<()> {
        if geteuid().is_root() { fchown(handle, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }
}

/// Writes a file with our own user as owner, atomically and with the given mode.
pub(super) fn write_own(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let file = create_temporary(path)?;
    file.1.set_permissions(Permissions::from_mode(mode))?;
    rename_into_place(file, path, content)
}

/// Opens a folder that another user may have prepared. A symbolic link is an error.
pub(super) fn open_folder(folder: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(folder)
}

/// Reads a small file that another user may have prepared. Returns `None` if the file does not exist.
///
/// # Errors
/// If the path is a symbolic link: we may run as root, and a child must not make us read other files. Also if reading
/// fails.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    // NONBLOCK, so that opening a named pipe does not block.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let read = || -> io::Result<Option<String>> {
        let file =
            match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
            {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                handle => handle?,
            };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut text = String::new();
        file.take(MAX_READ_BYTES).read_to_string(&mut text)?;
        Ok(Some(text))
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

fn create_temporary(path: &Path) -> Result<(PathBuf, File)> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary_path = path.with_file_name(name);
    match fs::remove_file(&temporary_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error)
                .with_context(|| format!("cannot remove {}", temporary_path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    // `create_new` does not follow links.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary_path)
        .with_context(|| format!("cannot write {}", temporary_path.display()))?;
    Ok((temporary_path, file))
}

fn rename_into_place(
    (temporary_path, mut file): (PathBuf, File),
    path: &Path,
    content: &[u8],
) -> Result<()> {
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary_path, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Parses lines of `/etc/passwd` into name, uid and gid. No name service is queried, because system users are local.
fn users(passwd: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((name, fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

fn preferred(passwd: &str) -> Option<Account> {
    PREFERRED.iter().find_map(|preferred| {
        let (name, uid, gid) = users(passwd).find(|(name, ..)| name == preferred)?;
        (uid != 0).then(|| Account { name: name.to_owned(), uid, gid })
    })
}

fn name_of(passwd: &str, uid: u32) -> String {
    users(passwd)
        .find(|(_, other, _)| *other == uid)
        .map_or_else(|| format!("#{uid}"), |(name, ..)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nbroken\nnobody:x:65534:65534::/:/bin/false\n";

    #[test]
    fn the_preferred_user_is_the_first_that_exists_and_is_not_root() {
        let check = |line: &str, expected: &str| {
            let found = preferred(&format!("{PASSWD}{line}\n")).map(|account| account.name);
            assert_eq!(found.as_deref(), Some(expected), "{line}");
        };
        check("", "nobody");
        check("sentryops:x:990:990::/:/bin/false", "sentryops");
        check("postgres:x:101:104::/:/bin/sh", "postgres");
        check("postgres:x:0:0::/:/bin/sh", "nobody");
        assert_eq!(preferred("root:x:0:0::/:/bin/sh"), None);
    }

    #[test]
    fn an_unknown_user_is_named_by_number() {
        assert_eq!(name_of(PASSWD, 0), "root");
        assert_eq!(name_of(PASSWD, 4711), "#4711");
    }

    #[test]
    fn a_link_in_place_of_a_private_folder_is_refused() {
        let account = Account::choose(&[]).unwrap();
        let base = std::env::temp_dir().join(format!("sentryops-account-{}", std::process::id()));
        fs::create_dir_all(base.join("target")).unwrap();
        std::os::unix::fs::symlink(base.join("target"), base.join("link")).unwrap();
        let refused = account.create_private_folder(&base.join("link"));
        let accepted = account.create_private_folder(&base.join("new"));
        let mode = fs::metadata(base.join("new")).map(|folder| folder.mode() & 0o777);
        fs::remove_dir_all(&base).unwrap();
        assert!(refused.is_err());
        accepted.unwrap();
        assert_eq!(mode.unwrap(), 0o700);
    }

    #[test]
    fn a_link_is_not_read() {
        let base = std::env::temp_dir().join(format!("sentryops-read-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", base.join("link")).unwrap();
        fs::write(base.join("file"), "text").unwrap();
        let read = ["link", "file", "missing"].map(|name| read(&base.join(name)));
        fs::remove_dir_all(&base).unwrap();
        assert!(read[0].is_err());
        assert_eq!(read[1].as_ref().unwrap().as_deref(), Some("text"));
        assert_eq!(read[2].as_ref().unwrap().as_deref(), None);
    }
}
