//! The thread that renews leases.

use std::{process, time::Duration};

use domain::Db;
use jobs::queue::{
    claims::ClaimRegistry,
    renewal::{LeaseConfig, renew_leases},
};
use tokio_util::sync::CancellationToken;

/// What a process exits with when a job cannot be stopped.
pub const EXIT_STUCK: u8 = 70;

/// The thread that renews leases. It also ends the process when a job that cannot be stopped keeps it from ending.
pub(super) struct LeaseRenewer {
    pub(super) registry: ClaimRegistry,
    pub(super) db: Db,
    pub(super) config: LeaseConfig,
    pub(super) stop: CancellationToken,
    pub(super) stuck: CancellationToken,
    /// Cancelled when the thread ends, for whatever reason.
    pub(super) gone: CancellationToken,
    /// How long a process that has to end may take to end by itself.
    pub(super) last_resort: Duration,
}

impl LeaseRenewer {
    pub(super) fn start(self) -> std::io::Result<std::thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("leases".to_owned()).spawn(move || {
            let _gone = self.gone.clone().drop_guard();
            runtime.block_on(async {
                let last_resort = async {
                    self.stuck.cancelled().await;
                    tokio::time::sleep(self.last_resort).await;
                    tracing::error!("ending this process: a job does not stop");
                    process::exit(EXIT_STUCK.into())
                };
                tokio::select! {
                    () = renew_leases(&self.registry, &self.db, self.config, &self.stop, &self.stuck) => {}
                    () = last_resort => {}
                }
            });
        })
    }
}
