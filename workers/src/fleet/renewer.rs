//! The lease renewal thread of a worker process.

use std::{process, time::Duration};

use domain::Db;
use jobs::queue::{
    claims::ClaimRegistry,
    renewal::{LeaseConfig, renew_leases},
};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that exits because a job does not stop.
pub const EXIT_STUCK: u8 = 70;

/// Lease renewal on a separate thread. The thread also exits the process if a job that does not stop prevents a normal
/// exit.
pub(super) struct LeaseRenewer {
    pub(super) registry: ClaimRegistry,
    pub(super) db: Db,
    pub(super) config: LeaseConfig,
    pub(super) stop: CancellationToken,
    /// Cancelled by this thread when a job does not stop.
    pub(super) stuck: CancellationToken,
    /// Cancelled when the thread ends, for any reason.
    pub(super) renewer_exited: CancellationToken,
    /// Time that the process has to exit normally after `stuck` was cancelled. After that, this thread exits the
    /// process.
    pub(super) forced_exit_delay: Duration,
}

impl LeaseRenewer {
    pub(super) fn start(self) -> std::io::Result<std::thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("leases".to_owned()).spawn(move || {
            let _cancel_on_drop = self.renewer_exited.clone().drop_guard();
            runtime.block_on(async {
                let forced_exit = async {
                    self.stuck.cancelled().await;
                    tokio::time::sleep(self.forced_exit_delay).await;
                    tracing::error!("a job does not stop and blocks the shutdown: exiting this process");
                    process::exit(EXIT_STUCK.into())
                };
                tokio::select! {
                    () = renew_leases(&self.registry, &self.db, self.config, &self.stop, &self.stuck) => {}
                    () = forced_exit => {}
                }
            });
        })
    }
}
