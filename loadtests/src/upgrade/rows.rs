//! Rows and secret files of a data folder. The rows are read as the superuser of the private Postgres, which bypasses
//! row security. The data folder contains the superuser's password and the path of the socket.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Config, NoTls};

/// Files with secrets, which must be generated only once; relative to the data folder.
const SECRETS: [&str; 3] = ["passwords", "secrets/jwt_keys", "secrets/encryption_keys"];

/// Row counts at a point in time, and the verdicts of each asset.
#[derive(Debug)]
pub(super) struct Rows {
    /// Time at which the rows were read, by the clock of Postgres.
    pub(super) until: DateTime<Utc>,
    pub(super) assets: i64,
    pub(super) postures: i64,
    pub(super) findings: i64,
    pub(super) migrations: i64,
    /// Number of assets that share their organization and external id with an earlier one.
    pub(super) duplicates: i64,
    pub(super) buried: i64,
    /// Stored verdict strings by asset id.
    verdicts: BTreeMap<String, String>,
}

impl Rows {
    /// Reads the counts and verdicts. With `until`, the counts of assets, postures and findings, and the verdicts,
    /// include only assets created up to this time. The other counts always include all rows.
    pub(super) async fn read(postgres: &Client, until: Option<&DateTime<Utc>>) -> Result<Self> {
        let counts = "SELECT clock_timestamp() AS now,
                (SELECT count(*) FROM asset WHERE created_at <= coalesce($1::timestamptz, 'infinity')) AS assets,
                (SELECT count(*) FROM finding JOIN asset ON asset.id = finding.asset_id
                 WHERE created_at <= coalesce($1::timestamptz, 'infinity')) AS findings,
                (SELECT count(*) FROM job WHERE state = 'BURIED') AS buried,
                (SELECT count(external_id) - count(DISTINCT (org_id, external_id)) FROM asset) AS duplicates";
        let row = postgres.query_one(counts, &[&until]).await.context("count rows")?;
        let verdicts = "SELECT asset.id::text AS asset, verdicts FROM posture JOIN asset ON asset.id = posture.asset_id
            WHERE created_at <= coalesce($1::timestamptz, 'infinity')";
        let rows = postgres.query(verdicts, &[&until]).await.context("read verdicts")?;
        let verdicts: BTreeMap<_, _> =
            rows.iter().map(|row| (row.get("asset"), row.get("verdicts"))).collect();
        Ok(Self {
            until: row.try_get("now")?,
            assets: row.try_get("assets")?,
            postures: i64::try_from(verdicts.len())?,
            findings: row.try_get("findings")?,
            migrations: Self::migrations(postgres).await?,
            duplicates: row.try_get("duplicates")?,
            buried: row.try_get("buried")?,
            verdicts,
        })
    }

    /// Returns the number of applied migrations.
    pub(super) async fn migrations(postgres: &Client) -> Result<i64> {
        let sql = "SELECT count(*) FROM schema_migration";
        Ok(postgres.query_one(sql, &[]).await.context("count migrations")?.try_get(0)?)
    }

    /// Returns the number of assets with verdicts whose verdicts in `after` differ or are missing.
    pub(super) fn count_changed_verdicts(&self, after: &Self) -> i64 {
        let same = |(asset, verdicts): &(&String, &String)| {
            after.verdicts.get(*asset).is_some_and(|now| now == *verdicts)
        };
        let changed = self.verdicts.iter().filter(|entry| !same(entry)).count();
        i64::try_from(changed).unwrap_or(i64::MAX)
    }
}

/// Connects to the private Postgres of a running `up` on this folder.
pub(super) async fn connect(folder: &Path) -> Result<Client> {
    let data = folder.join("data");
    let passwords = fs::read_to_string(data.join("passwords")).context("read the passwords")?;
    let password = passwords.lines().find_map(|line| line.strip_prefix("admin="));
    let postmaster = fs::read_to_string(data.join("postgres/postmaster.pid"))?;
    let socket = postmaster.lines().nth(4).context("postmaster.pid contains no socket folder")?;
    let mut config = Config::new();
    config.host_path(socket).user("postgres").dbname("sentryops");
    config.password(password.context("the passwords file has no superuser password")?);
    let (client, connection) = config.connect(NoTls).await.context("connect to Postgres")?;
    // The task ends when the client is dropped or Postgres closes the connection. After a close, the next query fails.
    tokio::spawn(connection);
    Ok(client)
}

/// Reads the path and the text of every secret file.
pub(super) fn secrets(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let read = |name: &&str| {
        let path = folder.join("data").join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok((path, text))
    };
    SECRETS.iter().map(read).collect()
}

/// Returns the number of secret files with a changed text.
pub(super) fn changed(before: &[(PathBuf, String)], folder: &Path) -> Result<i64> {
    let after = secrets(folder)?;
    Ok(i64::try_from(before.iter().zip(&after).filter(|(old, new)| old != new).count())?)
}
