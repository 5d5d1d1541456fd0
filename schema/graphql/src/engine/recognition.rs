//! Rights over time: who is recognised once must stay somebody for as long as something is open.
//!
//! Operation: one look at the session's row per open connection, every [`Watching::recheck`] and at each hint that rights
//! changed in the organization; whatever runs on the connection is judged anew besides, each time it executes. Given up:
//! trusting hints alone (they may be lost) and one statement for all connections (a few hundred are no load).

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{Viewer, base::event::RIGHTS};
use futures_util::future::{BoxFuture, FutureExt, pending};
use jobs::event::{Pace, Topic};

use crate::{
    engine::Engine,
    request::{
        answer::{Answer, refused, sign},
        context::Client,
        permit::Lost,
    },
};

/// How what stays open keeps up with the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watching {
    /// How long lost rights may go unnoticed where no hint tells of them.
    pub recheck: Duration,
    /// Between two executions of a subscription, however many hints come.
    pub debounce: Duration,
    /// Without hints.
    pub pace: Pace,
}

impl Default for Watching {
    fn default() -> Self {
        Self {
            recheck: Duration::from_millis(750),
            debounce: Duration::from_millis(100),
            pace: Pace::default(),
        }
    }
}

/// Somebody who opened something that stays open.
pub struct Recognised {
    /// What they proved it with.
    pub bearer: Option<String>,
    /// The id of the user or API key, to count by; none for nobody in particular.
    pub holder: Option<String>,
    /// Ends when something must be closed because of them; for nobody, never.
    pub lost: BoxFuture<'static, Lost>,
}

impl Recognised {
    /// Nobody in particular, who has nothing to lose.
    pub fn nobody() -> Self {
        Self { bearer: None, holder: None, lost: pending().boxed() }
    }
}

impl Engine {
    /// Who stands behind a bearer, and the promise to say when that changes for the worse.
    ///
    /// # Errors
    /// The answer to send.
    #[expect(clippy::disallowed_methods, reason = "the edge at which a connection gets its time")]
    pub async fn recognise(&self, bearer: String, client: Client) -> Result<Recognised, Answer> {
        let services = self.services();
        let (identity, address) = (services.identity.clone(), client.address);
        let viewer = identity.authenticate(&bearer, address, Utc::now()).await;
        let viewer = viewer.map_err(|error| {
            let mut answer = refused(&error.into());
            sign(&mut answer.response, &client.request_id);
            answer
        })?;
        let mut hints = services.listener.subscribe(Topic::all(viewer.org, &[RIGHTS]));
        let recheck = self.watching().recheck;
        let (holder, token) = (viewer.own_id(), bearer.clone());
        let expires_at = identity.expires_at(&bearer, Utc::now());
        let lost = async move {
            let pace = Pace { listening: recheck, deaf: recheck };
            let expiry = until(expires_at, Utc::now());
            let mut expiry = std::pin::pin!(expiry);
            loop {
                tokio::select! {
                    () = &mut expiry => return Lost::Access,
                    () = hints.next(pace) => {}
                }
                match identity.authenticate(&token, address, Utc::now()).await {
                    Ok(current) if has_lost(&viewer, &current) => return Lost::Rights,
                    Err(domain::Error::BadToken(_)) => return Lost::Access,
                    // Nobody can say while the database is away; nothing can be read from it either.
                    Ok(_) | Err(_) => {}
                }
            }
        };
        Ok(Recognised { bearer: Some(bearer), holder, lost: lost.boxed() })
    }
}

fn has_lost(before: &Viewer, current: &Viewer) -> bool {
    !before.permissions.without(current.permissions).is_empty()
}

async fn until(at: Option<DateTime<Utc>>, now: DateTime<Utc>) {
    match at {
        Some(at) => tokio::time::sleep((at - now).to_std().unwrap_or_default()).await,
        None => pending().await,
    }
}
