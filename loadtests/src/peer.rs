//! Peers: other GraphQL servers that answer the same documents from the same rows; see `peers/server.mjs`.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    child::{self, Child},
    report::progress,
    stores::Stores,
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
const READY_WITHIN: Duration = Duration::from_mins(1);

/// How much the peer asks of Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What we ask: a role and an organization set in each transaction.
    Roles,
    /// As little as one can: no transactions, no row security.
    Plain,
}

impl Mode {
    /// As tables name the peer.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Roles => "mercurius",
            Self::Plain => "mercurius-plain",
        }
    }

    /// The address of Postgres that suits it.
    pub(crate) fn database(self, stores: &Stores) -> &str {
        match self {
            Self::Roles => &stores.database,
            Self::Plain => &stores.admin,
        }
    }
}

/// A peer that answers.
pub(crate) struct Peer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// A bearer token of its own for the session of our administrator.
    pub(crate) token: String,
    child: Child,
}

/// What it says when it listens.
#[derive(Deserialize)]
struct Greeting {
    address: SocketAddr,
    token: String,
}

/// Fetches what peers are made of, the first time.
pub(crate) fn install() -> Result<()> {
    if Path::new(FOLDER).join("node_modules/.package-lock.json").exists() {
        return Ok(());
    }
    progress("npm ci for the peers");
    let mut npm = Command::new("npm");
    // Its output is no part of the report.
    let status =
        npm.args(["ci", "--silent"]).current_dir(FOLDER).stdout(std::io::stderr()).status();
    let status = status.context("npm cannot be run: peers need Node 20 or newer")?;
    ensure!(status.success(), "npm ci failed in {FOLDER}");
    Ok(())
}

impl Peer {
    /// Starts one on this Postgres, after somebody has signed in there.
    pub(crate) async fn start(
        name: &str,
        mode: Mode,
        folder: &Path,
        database: &str,
    ) -> Result<Self> {
        let mut command = child::command(Path::new("node"));
        let mode = match mode {
            Mode::Roles => "roles",
            Mode::Plain => "plain",
        };
        command.args(["server.mjs", mode]).current_dir(FOLDER);
        // As many connections as ours has by default.
        command.env("NODE_ENV", "production").env("DATABASE_URL", database).env("POOL_SIZE", "16");
        let mut child = Child::spawn(name, folder, command)?;
        let began = Instant::now();
        while began.elapsed() < READY_WITHIN {
            if let Ok(Greeting { address, token }) = serde_json::from_str(&child.output()?) {
                return Ok(Self { address, token, child });
            }
            child.check()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("{name} did not listen in {} s:\n{}", READY_WITHIN.as_secs(), child.last_words())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Asks it to end.
    pub(crate) async fn stop(self) -> Result<()> {
        self.child.stop().await.map(drop)
    }
}
