//! Access to the private Postgres of another sentryops process, for short commands.
//!
//! The path of the Postgres socket is read from the pid file of Postgres, because the other process may run as another
//! user or use another runtime folder.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::timeout;

use super::account::read;
use super::cluster;
use super::home;
use super::postgres::{self, DatabaseUrls};
use super::secret::Secrets;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the URLs of the Postgres that another sentryops process runs on this data folder; `None` if no such process
/// is running. An orphaned server does not count, because the next start stops it.
///
/// # Errors
/// If the data folder cannot be read.
pub(crate) async fn find_running(data_dir: &Path) -> Result<Option<DatabaseUrls>> {
    let Ok(requested) = data_dir.canonicalize() else { return Ok(None) };
    let fallback = home::fallback(&home::path_hash(&requested));
    let mut candidates = [requested.clone(), fallback].into_iter();
    let Some(data) = candidates.find(|candidate| cluster::path(candidate).exists()) else {
        return Ok(None);
    };
    let Some(runtime) = recorded_runtime(&data)? else { return Ok(None) };
    let Some(secrets) = Secrets::find(&data)? else { return Ok(None) };
    match timeout(CONNECT_TIMEOUT, postgres::connect(&runtime, &secrets.admin)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => return Ok(None),
    }
    // Must be the last check, because it briefly locks the folder if no other process holds the lock.
    let is_locked = home::lock(&requested).is_err();
    Ok(is_locked.then(|| DatabaseUrls::new(&runtime, &secrets)))
}

/// Returns the folder of the socket from the pid file of the server; `None` if the folder and the cluster have
/// different owners.
fn recorded_runtime(data: &Path) -> Result<Option<PathBuf>> {
    let Some(pid_file) = read(&cluster::pid_file(data))? else { return Ok(None) };
    let Some(runtime) = runtime_in(&pid_file) else { return Ok(None) };
    let owner =
        fs::metadata(cluster::path(data)).context("cannot read the folder of the cluster")?.uid();
    let has_same_owner =
        fs::symlink_metadata(&runtime).is_ok_and(|folder| folder.is_dir() && folder.uid() == owner);
    Ok(has_same_owner.then_some(runtime))
}

/// Parses the folder of the socket from `postmaster.pid`, line 5.
fn runtime_in(pid_file: &str) -> Option<PathBuf> {
    pid_file.lines().nth(4).map(PathBuf::from).filter(|runtime| runtime.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_postgres_says() {
        let check = |recorded: &str, expected: Option<&str>| {
            assert_eq!(runtime_in(recorded), expected.map(PathBuf::from), "{recorded}");
        };
        check("1\n/data\n1700\n5432\n/run/sentryops-1\n\n 5 6\n", Some("/run/sentryops-1"));
        check("1\n/data\n1700\n5432\n\n\n 5 6\n", None);
        check("1\n/data", None);
    }
}
