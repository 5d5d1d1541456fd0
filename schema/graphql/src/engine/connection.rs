//! Permission checks of open connections (WebSocket, SSE, file transfers). A connection is closed when its caller loses
//! access or a permission.
//!
//! Chosen: each open connection authenticates its token again every [`CheckIntervals::recheck`], and also on each
//! hint (notification without content) that permissions in the organization may have changed. Documents on the
//! connection are also authorized at every execution. Given up: relying on hints alone, because hints can be lost; and
//! one statement for all connections, because a few hundred connections cause no noticeable load.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{Viewer, base::event::PERMISSIONS_CHANGED};
use futures_util::future::{BoxFuture, FutureExt, pending};
use jobs::event::{PollInterval, Topic};

use crate::{
    engine::Engine,
    request::{
        answer::Answer,
        context::Client,
        permit::{AccessLoss, failed},
    },
};

/// Intervals at which open connections check their permissions and subscriptions poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckIntervals {
    /// Interval between two checks of a connection's permissions if no hint arrives. A loss of permissions is detected
    /// at the latest after this time.
    pub recheck: Duration,
    /// Minimum time between two executions of a subscription, even if hints arrive sooner.
    pub debounce: Duration,
    /// Intervals at which a subscription executes again if no hint arrives.
    pub poll: PollInterval,
}

impl Default for CheckIntervals {
    fn default() -> Self {
        Self {
            recheck: Duration::from_millis(750),
            debounce: Duration::from_millis(100),
            poll: PollInterval::default(),
        }
    }
}

/// The caller of a connection that stays open.
pub struct ConnectedCaller {
    /// Bearer token of the caller; `None` for an anonymous caller.
    pub bearer: Option<String>,
    /// Id of the user or API key, for limits on the number of connections; `None` for an anonymous caller.
    pub holder: Option<String>,
    /// Future that completes when the connection must be closed, because the caller has lost access or a permission.
    /// Never completes for an anonymous caller.
    pub lost: BoxFuture<'static, AccessLoss>,
}

impl ConnectedCaller {
    /// Returns an anonymous caller, who has no access to lose.
    pub fn anonymous() -> Self {
        Self { bearer: None, holder: None, lost: pending().boxed() }
    }
}

impl Engine {
    /// Counts an operation of the client's address, before anything else is done for it. Uses no database.
    ///
    /// # Errors
    /// Returns the answer to send if the address has sent too many operations.
    pub async fn admit(&self, client: &Client) -> Result<(), Answer> {
        self.services().count_address(client).await.map_err(|error| failed(&error, client))
    }

    /// Authenticates a bearer token. Returns the caller, with a future that completes when the caller loses access or a
    /// permission.
    ///
    /// # Errors
    /// Returns the answer to send if the token is rejected.
    #[expect(clippy::disallowed_methods, reason = "the outermost layer reads the clock")]
    pub async fn authenticate_connection(
        &self,
        bearer: String,
        client: Client,
    ) -> Result<ConnectedCaller, Answer> {
        let services = self.services();
        let (identity, address) = (services.identity.clone(), client.address);
        let viewer = identity.authenticate(&bearer, address, Utc::now()).await;
        let viewer = viewer.map_err(|error| failed(&error.into(), &client))?;
        let mut hints = services.listener.subscribe(Topic::all(viewer.org, &[PERMISSIONS_CHANGED]));
        let recheck = self.intervals().recheck;
        let (holder, token) = (viewer.own_id(), bearer.clone());
        let expires_at = identity.expires_at(&bearer, Utc::now());
        let lost = async move {
            let interval = PollInterval { listening: recheck, not_listening: recheck };
            let expiry = wait_until(expires_at, Utc::now());
            let mut expiry = std::pin::pin!(expiry);
            loop {
                tokio::select! {
                    () = &mut expiry => return AccessLoss::Access,
                    () = hints.next(interval) => {}
                }
                match identity.authenticate(&token, address, Utc::now()).await {
                    Ok(current) if has_lost_permission(&viewer, &current) => {
                        return AccessLoss::Permission;
                    }
                    Err(domain::Error::BadToken(_)) => return AccessLoss::Access,
                    // Either no permission was lost, or the database is unavailable. While the database is unavailable,
                    // permissions are unknown, but the connection can read no row either.
                    Ok(_) | Err(_) => {}
                }
            }
        };
        Ok(ConnectedCaller { bearer: Some(bearer), holder, lost: lost.boxed() })
    }
}

fn has_lost_permission(before: &Viewer, current: &Viewer) -> bool {
    !before.permissions.without(current.permissions).is_empty()
}

async fn wait_until(at: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    match at {
        Some(at) => tokio::time::sleep((at - now).to_std().unwrap_or_default()).await,
        None => pending().await,
    }
}
