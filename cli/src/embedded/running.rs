//! Access to the Postgres that another sentryops process runs, for commands that need the database briefly. The path of
//! its socket comes from Postgres' own pid file, because the other process may run as another user, or have another
//! runtime folder.

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

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Returns the URLs of the Postgres that another instance runs on this data folder; `None` if there is none. A server
/// that outlived its instance does not count: the next start stops it.
///
/// # Errors
/// If the data folder cannot be read.
pub(crate) async fn running(data_dir: &Path) -> Result<Option<DatabaseUrls>> {
    let Ok(requested) = data_dir.canonicalize() else { return Ok(None) };
    let fallback = home::fallback(&home::mark(&requested));
    let mut places = [requested.clone(), fallback].into_iter();
    let Some(data) = places.find(|place| cluster::path(place).exists()) else { return Ok(None) };
    let Some(runtime) = noted_runtime(&data)? else { return Ok(None) };
    let Some(secrets) = Secrets::find(&data)? else { return Ok(None) };
    match timeout(ANSWER_WITHIN, postgres::connect(&runtime, &secrets.admin)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => return Ok(None),
    }
    // The last check, because it briefly locks a folder that no process holds.
    let is_held = home::lock(&requested).is_err();
    Ok(is_held.then(|| DatabaseUrls::new(&runtime, &secrets)))
}

/// Returns the folder of the socket as the server recorded it, if the folder has the same owner as the cluster.
fn noted_runtime(data: &Path) -> Result<Option<PathBuf>> {
    let Some(noted) = read(&cluster::pid_file(data))? else { return Ok(None) };
    let Some(runtime) = runtime_in(&noted) else { return Ok(None) };
    let owner =
        fs::metadata(cluster::path(data)).context("cannot read the folder of the cluster")?.uid();
    let is_its_own =
        fs::symlink_metadata(&runtime).is_ok_and(|folder| folder.is_dir() && folder.uid() == owner);
    Ok(is_its_own.then_some(runtime))
}

/// Parses the folder of the socket from `postmaster.pid`, line 5.
fn runtime_in(noted: &str) -> Option<PathBuf> {
    noted.lines().nth(4).map(PathBuf::from).filter(|runtime| runtime.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_postgres_says() {
        let check = |noted: &str, expected: Option<&str>| {
            assert_eq!(runtime_in(noted), expected.map(PathBuf::from), "{noted}");
        };
        check("1\n/data\n1700\n5432\n/run/sentryops-1\n\n 5 6\n", Some("/run/sentryops-1"));
        check("1\n/data\n1700\n5432\n\n\n 5 6\n", None);
        check("1\n/data", None);
    }
}
