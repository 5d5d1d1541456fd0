//! Search for the programs of Postgres and Redis on this machine.
//!
//! `PATH` is searched first, so that the operator can choose; then the folders in which distributions install several
//! versions of Postgres, newest first. An existing cluster needs the major version of Postgres that created it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Oldest major version of Postgres that the schema is tested on.
const OLDEST_MAJOR: u32 = 15;

/// Usual folders of programs, for a short `PATH` (cron, systemd).
const USUAL_FOLDERS: [&str; 5] =
    ["usr/local/bin", "usr/bin", "usr/local/sbin", "usr/sbin", "opt/homebrew/bin"];

/// Folders with several versions: parent folder, prefix of the version, folder of programs below it.
const VERSIONED_FOLDERS: [(&str, &str, &str); 6] = [
    ("usr/lib/postgresql", "", "bin"),          // Debian, Ubuntu
    ("usr", "pgsql-", "bin"),                   // Fedora, RHEL from postgresql.org
    ("usr/lib", "postgresql", "bin"),           // SUSE
    ("usr/libexec", "postgresql", ""),          // Alpine
    ("opt/homebrew/opt", "postgresql@", "bin"), // macOS, Apple silicon
    ("usr/local/opt", "postgresql@", "bin"),    // macOS, Intel
];

/// Programs of one Postgres version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Postgres {
    pub(super) major: u32,
    pub(super) server: PathBuf,
    pub(super) initdb: PathBuf,
}

/// Folders that are searched, in this order.
#[derive(Debug)]
pub(super) struct Search {
    folders: Vec<PathBuf>,
}

impl Search {
    /// Returns the folders of `PATH`, then the usual folders of the distributions.
    pub(super) fn of_this_machine() -> Self {
        Self::for_root(Path::new("/"), &env::var_os("PATH").unwrap_or_default())
    }

    fn for_root(root: &Path, path: &OsStr) -> Self {
        // Relative folders are skipped, because programs that root runs must not depend on the working directory.
        let mut folders: Vec<PathBuf> =
            env::split_paths(path).filter(|folder| folder.is_absolute()).collect();
        folders.extend(USUAL_FOLDERS.iter().map(|folder| root.join(folder)));
        let mut versions: Vec<(u32, PathBuf)> = VERSIONED_FOLDERS
            .iter()
            .flat_map(|(parent, prefix, programs)| {
                let entries = fs::read_dir(root.join(parent)).into_iter().flatten().flatten();
                entries.filter_map(move |entry| {
                    let major = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
                    Some((major, entry.path().join(programs)))
                })
            })
            .collect();
        versions.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
        folders.extend(versions.into_iter().map(|(_, folder)| folder));
        Self { folders }
    }

    /// Finds the Postgres programs. `cluster` is the major version of an existing cluster; `None` for a new cluster.
    ///
    /// # Errors
    /// If no suitable version is installed. The message names the package to install.
    pub(super) fn postgres(
        &self,
        cluster: Option<u32>,
        major_of: impl Fn(&Path) -> Option<u32>,
    ) -> Result<Postgres> {
        let mut rejected = Vec::new();
        for folder in &self.folders {
            let (postgres, initdb) = (folder.join("postgres"), folder.join("initdb"));
            if !postgres.is_file() || !initdb.is_file() {
                continue;
            }
            match major_of(&postgres) {
                Some(major)
                    if cluster.map_or(major >= OLDEST_MAJOR, |requested| requested == major) =>
                {
                    return Ok(Postgres { major, server: postgres, initdb });
                }
                Some(major) => rejected.push(format!("{major} in {}", folder.display())),
                None => rejected.push(format!("one in {} that does not run", folder.display())),
            }
        }
        let found = if rejected.is_empty() { "none".to_owned() } else { rejected.join(", ") };
        match cluster {
            Some(major) => bail!(
                "the data folder was created by PostgreSQL {major}, which is not installed (found: {found}). \
                 Install it: `apt install postgresql-{major}` (Debian), `dnf install postgresql{major}-server` (Fedora), \
                 `brew install postgresql@{major}` (macOS)"
            ),
            None => bail!(
                "PostgreSQL {OLDEST_MAJOR} or newer is not installed (found: {found}). \
                 Install it: `apt install postgresql` (Debian), `dnf install postgresql-server` (Fedora), \
                 `brew install postgresql@17` (macOS); or set DATABASE_URL to use an existing server"
            ),
        }
    }

    /// Finds the Redis or Valkey server.
    ///
    /// # Errors
    /// If neither is installed. The message names the package to install.
    pub(super) fn redis(&self) -> Result<PathBuf> {
        ["redis-server", "valkey-server"]
            .iter()
            .flat_map(|name| self.folders.iter().map(move |folder| folder.join(name)))
            .find(|program| program.is_file())
            .context(
                "neither redis-server nor valkey-server is installed. \
                 Install one: `apt install redis-server` (Debian), `dnf install valkey` (Fedora), \
                 `brew install redis` (macOS); or set REDIS_URL to use an existing server",
            )
    }
}

/// Parses the major version from `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
pub(super) fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let end = number.find(|character: char| !character.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `search` on the root folder of a simulated machine on which `programs` are installed.
    fn on_machine<T>(name: &str, programs: &[&str], search: impl FnOnce(&Path) -> T) -> T {
        let root = env::temp_dir().join(format!("sentryops-program-{}-{name}", std::process::id()));
        for program in programs {
            let program = root.join(program);
            fs::create_dir_all(program.parent().unwrap()).unwrap();
            fs::write(program, "").unwrap();
        }
        fs::create_dir_all(&root).unwrap();
        let found = search(&root);
        fs::remove_dir_all(&root).unwrap();
        found
    }

    fn by_path(program: &Path) -> Option<u32> {
        let digits = |part: &OsStr| part.to_str()?.rsplit(['-', '@']).next()?.parse().ok();
        program.iter().find_map(digits)
    }

    const MACHINE: [&str; 7] = [
        "usr/lib/postgresql/9/bin/postgres",
        "usr/lib/postgresql/15/bin/postgres",
        "usr/lib/postgresql/15/bin/initdb",
        "usr/pgsql-16/bin/postgres",
        "usr/pgsql-16/bin/initdb",
        "opt/homebrew/opt/postgresql@17/bin/postgres", // client package only, without initdb
        "usr/bin/valkey-server",
    ];

    #[test]
    fn the_newest_complete_postgres_is_taken_unless_a_cluster_asks_for_its_own() {
        on_machine("newest", &MACHINE, |root| {
            let search = Search::for_root(root, OsStr::new("relative:"));
            let check = |cluster, expected: &str| {
                let found = search.postgres(cluster, by_path).unwrap();
                assert_eq!(found.initdb, root.join(expected));
            };
            check(None, "usr/pgsql-16/bin/initdb");
            check(Some(16), "usr/pgsql-16/bin/initdb");
            check(Some(15), "usr/lib/postgresql/15/bin/initdb");
            assert_eq!(search.redis().unwrap(), root.join("usr/bin/valkey-server"));
        });
    }

    #[test]
    fn path_comes_before_the_folders_of_the_distribution() {
        let programs = [&MACHINE[..], &["mine-15/postgres", "mine-15/initdb"]].concat();
        on_machine("path", &programs, |root| {
            let search = Search::for_root(root, root.join("mine-15").as_os_str());
            let found = search.postgres(None, by_path).unwrap();
            assert_eq!(found.server, root.join("mine-15/postgres"));
        });
    }

    #[test]
    fn what_is_missing_is_named_with_its_packages() {
        on_machine("missing", &MACHINE[..1], |root| {
            let search = Search::for_root(root, OsStr::new(""));
            let none = search.postgres(None, by_path).unwrap_err().to_string();
            for words in ["apt install postgresql", "postgresql-server", "postgresql@17"] {
                assert!(none.contains(words), "{none}");
            }
            let other = search.postgres(Some(14), by_path).unwrap_err().to_string();
            assert!(other.contains("created by PostgreSQL 14"), "{other}");
            let redis = search.redis().unwrap_err().to_string();
            for words in ["apt install redis-server", "dnf install valkey", "brew install redis"] {
                assert!(redis.contains(words), "{redis}");
            }
        });
    }

    #[test]
    fn major_versions_are_read_from_what_postgres_says() {
        let check = |output: &str, expected| assert_eq!(parse_major(output), expected, "{output}");
        check("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15));
        check("postgres (PostgreSQL) 18beta1\n", Some(18));
        check("postgres (PostgreSQL) 17", Some(17));
        check("redis 7", None);
    }
}
