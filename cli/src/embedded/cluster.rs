//! Files of the Postgres cluster below the data folder: their paths, and the pid file. (`initdb` creates the cluster.)

use std::path::{Path, PathBuf};
use std::process;

use anyhow::Result;

use super::account::{Account, read};

/// Returns the folder of the cluster in a data folder.
pub(super) fn path(data: &Path) -> PathBuf {
    data.join("postgres")
}

/// Returns the folder in which a new cluster is created before the rename.
pub(super) fn aside(data: &Path) -> PathBuf {
    data.join("postgres.new")
}

/// Returns the path of `postmaster.pid`, in which Postgres records its pid.
pub(super) fn pid_file(data: &Path) -> PathBuf {
    path(data).join("postmaster.pid")
}

/// Rewrites a pid file that an earlier run left, so that it does not prevent the start of Postgres.
pub(super) fn replace_pid(data: &Path, account: &Account) -> Result<()> {
    let path = pid_file(data);
    match read(&path)? {
        Some(noted) => account.write(&path, with_pid(&noted, process::id()).as_bytes()),
        None => Ok(()),
    }
}

/// Returns the pid file with our pid in place of the old one. An old pid that an unrelated process now has would
/// prevent the start, but Postgres ignores the pid of its own parent. Removing the file would be simpler, but from its
/// other lines Postgres checks that no process of the old server still writes.
fn with_pid(noted: &str, we: u32) -> String {
    let rest = noted.split_once('\n').map_or("", |(_, rest)| rest);
    format!("{we}\n{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disowned_pid_file_names_us_and_keeps_its_memory_key() {
        let check = |noted: &str, expected: &str| assert_eq!(with_pid(noted, 7), expected);
        check(
            "123\n/data\n1700\n5432\n/run\n\n 5432001 32769\n",
            "7\n/data\n1700\n5432\n/run\n\n 5432001 32769\n",
        );
        check("123", "7\n");
        check("", "7\n");
    }
}
