//! The files of a Postgres cluster below the data folder: where they are, and the pid file. (`initdb` makes them.)

use std::path::{Path, PathBuf};
use std::process;

use anyhow::Result;

use super::account::{Account, read};

/// The cluster of a data folder.
pub(super) fn path(data: &Path) -> PathBuf {
    data.join("postgres")
}

/// Where a cluster is while it is made.
pub(super) fn aside(data: &Path) -> PathBuf {
    data.join("postgres.new")
}

/// Where Postgres notes its number.
pub(super) fn pid_file(data: &Path) -> PathBuf {
    path(data).join("postmaster.pid")
}

/// Makes a pid file that was left behind stop nobody.
pub(super) fn disown_pid_file(data: &Path, account: &Account) -> Result<()> {
    let path = pid_file(data);
    match read(&path)? {
        Some(noted) => account.write(&path, disowned(&noted, process::id()).as_bytes()),
        None => Ok(()),
    }
}

/// A pid file that no longer stops Postgres if its number has passed to an unrelated process: it names us instead, and
/// Postgres disregards its parent. Removing the file would be simpler, but its other lines are how Postgres makes sure that
/// no process of the old server still writes.
fn disowned(noted: &str, we: u32) -> String {
    let rest = noted.split_once('\n').map_or("", |(_, rest)| rest);
    format!("{we}\n{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disowned_pid_file_names_us_and_keeps_its_memory_key() {
        let check = |noted: &str, expected: &str| assert_eq!(disowned(noted, 7), expected);
        check(
            "123\n/data\n1700\n5432\n/run\n\n 5432001 32769\n",
            "7\n/data\n1700\n5432\n/run\n\n 5432001 32769\n",
        );
        check("123", "7\n");
        check("", "7\n");
    }
}
