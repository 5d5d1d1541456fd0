//! A visit to the Postgres that another process of ours runs, for commands that need the database for a moment. Where its
//! socket is, Postgres itself notes: the other process may be another user's, or have another runtime folder.

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

/// Where the Postgres of another instance on this data folder is reached; `None` if none serves there. A server that has lost
/// its master does not count: the next start ends it.
///
/// # Errors
/// When we may not look into the data folder.
pub(crate) async fn running(data_dir: &Path) -> Result<Option<DatabaseUrls>> {
    let Ok(requested) = data_dir.canonicalize() else { return Ok(None) };
    let shelter = home::shelter(&home::mark(&requested));
    let mut places = [requested.clone(), shelter].into_iter();
    let Some(data) = places.find(|place| cluster::path(place).exists()) else { return Ok(None) };
    let Some(runtime) = noted_runtime(&data)? else { return Ok(None) };
    let Some(secrets) = Secrets::find(&data)? else { return Ok(None) };
    match timeout(ANSWER_WITHIN, postgres::connect(&runtime, &secrets.admin)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => return Ok(None),
    }
    // Tried last, since for a moment it claims a folder that nobody holds.
    let is_held = home::lock(&requested).is_err();
    Ok(is_held.then(|| DatabaseUrls::new(&runtime, &secrets)))
}

/// The folder of the socket as the server has noted it, if it is the server's.
fn noted_runtime(data: &Path) -> Result<Option<PathBuf>> {
    let Some(noted) = read(&cluster::pid_file(data))? else { return Ok(None) };
    let Some(runtime) = runtime_in(&noted) else { return Ok(None) };
    let owner = fs::metadata(cluster::path(data)).context("look at the cluster")?.uid();
    let is_its_own =
        fs::symlink_metadata(&runtime).is_ok_and(|folder| folder.is_dir() && folder.uid() == owner);
    Ok(is_its_own.then_some(runtime))
}

/// The fifth line of `postmaster.pid`.
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
