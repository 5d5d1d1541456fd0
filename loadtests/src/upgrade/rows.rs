//! Rows and files of a folder, read past row security: as the superuser of its private Postgres, whose password and socket
//! are noted in the folder.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Config, NoTls};

/// Files that are made once, below the data folder.
const SECRETS: [&str; 3] = ["passwords", "secrets/jwt_keys", "secrets/encryption_keys"];

/// Counts at a moment, and the verdicts of each asset.
#[derive(Debug)]
pub(super) struct Rows {
    /// When these were read, by the clock of Postgres.
    pub(super) until: DateTime<Utc>,
    pub(super) assets: i64,
    pub(super) postures: i64,
    pub(super) findings: i64,
    pub(super) migrations: i64,
    /// Assets that share the organization and the name in the system they come from.
    pub(super) twice: i64,
    pub(super) buried: i64,
    /// By asset.
    verdicts: BTreeMap<String, String>,
}

impl Rows {
    /// Of assets made until then; of all without it.
    pub(super) async fn read(postgres: &Client, until: Option<&DateTime<Utc>>) -> Result<Self> {
        let counts = "SELECT clock_timestamp() AS now,
                (SELECT count(*) FROM asset WHERE created_at <= coalesce($1::timestamptz, 'infinity')) AS assets,
                (SELECT count(*) FROM finding JOIN asset ON asset.id = finding.asset_id
                 WHERE created_at <= coalesce($1::timestamptz, 'infinity')) AS findings,
                (SELECT count(*) FROM job WHERE state = 'BURIED') AS buried,
                (SELECT count(external_id) - count(DISTINCT (org_id, external_id)) FROM asset) AS twice";
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
            twice: row.try_get("twice")?,
            buried: row.try_get("buried")?,
            verdicts,
        })
    }

    /// How many migrations have been applied.
    pub(super) async fn migrations(postgres: &Client) -> Result<i64> {
        let sql = "SELECT count(*) FROM schema_migration";
        Ok(postgres.query_one(sql, &[]).await.context("count migrations")?.try_get(0)?)
    }

    /// Assets whose verdicts are others than here.
    pub(super) fn differing(&self, after: &Self) -> i64 {
        let same = |(asset, verdicts): &(&String, &String)| {
            after.verdicts.get(*asset).is_some_and(|now| now == *verdicts)
        };
        let differing = self.verdicts.iter().filter(|one| !same(one)).count();
        i64::try_from(differing).unwrap_or(i64::MAX)
    }
}

/// The private Postgres of a running `up` with this folder.
pub(super) async fn connect(folder: &Path) -> Result<Client> {
    let data = folder.join("data");
    let passwords = fs::read_to_string(data.join("passwords")).context("read the passwords")?;
    let password = passwords.lines().find_map(|line| line.strip_prefix("admin="));
    let noted = fs::read_to_string(data.join("postgres/postmaster.pid"))?;
    let socket = noted.lines().nth(4).context("postmaster.pid names no socket")?;
    let mut config = Config::new();
    config.host_path(socket).user("postgres").dbname("sentryops");
    config.password(password.context("there is no password of the superuser")?);
    let (client, connection) = config.connect(NoTls).await.context("connect to Postgres")?;
    // Ends with the client, or with Postgres, and then the next query says so.
    tokio::spawn(connection);
    Ok(client)
}

/// Every secret file with its text.
pub(super) fn secrets(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let read = |name: &&str| {
        let path = folder.join("data").join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok((path, text))
    };
    SECRETS.iter().map(read).collect()
}

/// How many of them have another text now.
pub(super) fn changed(before: &[(PathBuf, String)], folder: &Path) -> Result<i64> {
    let after = secrets(folder)?;
    Ok(i64::try_from(before.iter().zip(&after).filter(|(old, new)| old != new).count())?)
}
