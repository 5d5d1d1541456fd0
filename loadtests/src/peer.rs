//! Peers: other GraphQL servers that execute the same queries on the same rows. See `peers/server.mjs`.

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

/// Mode in which a peer accesses Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A role and an organization set in each transaction, as sentryops does.
    Roles,
    /// As little as possible: as a superuser, without transactions and row security.
    Plain,
}

impl Mode {
    /// Returns the peer's name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Roles => "mercurius",
            Self::Plain => "mercurius-plain",
        }
    }

    /// Returns the address of Postgres for this mode: the application's login, or the superuser's for [`Self::Plain`].
    pub(crate) fn database(self, stores: &Stores) -> &str {
        match self {
            Self::Roles => &stores.database,
            Self::Plain => &stores.admin,
        }
    }
}

/// A peer process that is ready for requests.
pub(crate) struct Peer {
    /// Address on which the peer listens.
    pub(crate) address: SocketAddr,
    /// Bearer token that the peer has created for the administrator's session.
    pub(crate) token: String,
    child: Child,
}

/// The JSON line that a peer prints once it listens.
#[derive(Deserialize)]
struct Greeting {
    address: SocketAddr,
    token: String,
}

/// Installs the peers' npm packages unless they are installed already.
pub(crate) fn install() -> Result<()> {
    if Path::new(FOLDER).join("node_modules/.package-lock.json").exists() {
        return Ok(());
    }
    progress("installing the peers' npm packages (npm ci)");
    let mut npm = Command::new("npm");
    // Standard output is reserved for the report.
    let status =
        npm.args(["ci", "--silent"]).current_dir(FOLDER).stdout(std::io::stderr()).status();
    let status = status.context("cannot run npm: peers need Node 20 or newer")?;
    ensure!(status.success(), "npm ci failed in {FOLDER}");
    Ok(())
}

impl Peer {
    /// Starts a peer that connects to the Postgres at `database`. The peer uses the newest session in the database, so
    /// a user must have signed in before.
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
        // The pool size is the default pool size of sentryops.
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
        bail!(
            "{name} did not listen within {} s; its log ends with:\n{}",
            READY_WITHIN.as_secs(),
            child.log_tail()
        )
    }

    /// Returns the process id of the peer.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Stops the peer with SIGTERM and waits until it has exited.
    pub(crate) async fn stop(self) -> Result<()> {
        self.child.stop().await.map(drop)
    }
}
