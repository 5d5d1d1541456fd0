//! Files of the Postgres cluster (the data directory of Postgres) below our data folder: paths, and the pid file.
//! (`initdb` creates the cluster.)

use std::path::{Path, PathBuf};
use std::process;

use anyhow::Result;

use super::account::{Account, read};

/// Returns the folder of the cluster below a data folder.
pub(super) fn path(data: &Path) -> PathBuf {
    data.join("postgres")
}

/// Returns the temporary folder in which a new cluster is created before it is renamed to [`path`].
pub(super) fn new_path(data: &Path) -> PathBuf {
    data.join("postgres.new")
}

/// Returns the path of `postmaster.pid`, in which Postgres records its pid.
pub(super) fn pid_file(data: &Path) -> PathBuf {
    path(data).join("postmaster.pid")
}

/// Rewrites a pid file that an earlier run left, because the old pid could prevent the start of Postgres.
pub(super) fn replace_pid(data: &Path, account: &Account) -> Result<()> {
    let path = pid_file(data);
    match read(&path)? {
        Some(recorded) => account.write(&path, with_pid(&recorded, process::id()).as_bytes()),
        None => Ok(()),
    }
}

/// Replaces the old pid in the pid file with our pid. An old pid that now belongs to an unrelated process would prevent
/// the start; Postgres ignores the pid of its own parent. Removing the file would be simpler, but Postgres uses the
/// other lines to check that no process of the old server is still writing.
fn with_pid(recorded: &str, our_pid: u32) -> String {
    let rest = recorded.split_once('\n').map_or("", |(_, rest)| rest);
    format!("{our_pid}\n{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disowned_pid_file_names_us_and_keeps_its_memory_key() {
        let check = |recorded: &str, expected: &str| assert_eq!(with_pid(recorded, 7), expected);
        check(
            "123\n/data\n1700\n5432\n/run\n\n 5432001 32769\n",
            "7\n/data\n1700\n5432\n/run\n\n 5432001 32769\n",
        );
        check("123", "7\n");
        check("", "7\n");
    }
}
