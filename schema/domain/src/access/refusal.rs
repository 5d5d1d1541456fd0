//! Refusals: permissions that a caller lacks, API keys that authenticate nobody, and what strangers try. They are counted,
//! and written to the audit trail once a second.
//!
//! Chosen: one entry per actor and field, or per network of strangers, with a count. A flood of refusals makes at most one
//! entry a second of each, and no count is lost while the process runs. Given up: the refusals of the last second, if the
//! process is killed. A refused sign-in of a member, a wrong current password and a refused refresh have an entry each,
//! in the transaction that counts them, because the rate of these is limited.

use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tokio_postgres::Row;

use crate::{
    access::{audit::Entry, login::network_of, permission::Permission, viewer::Viewer},
    base::{
        actor::{Actor, Origin},
        db::{Db, Fleet, FromRow, Tx},
        entity::{ApiKeyId, OrganizationId},
        error::Result,
    },
};

/// Interval between two writes.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum time for the last write at shutdown.
const LAST_WRITE: Duration = Duration::from_secs(5);
/// Maximum number of different refusals between two writes. Beyond it, refusals of strangers are counted together, and
/// those of an actor for all fields together.
const MAX_DIFFERENT: usize = 10_000;
/// Subject under which refusals beyond [`MAX_DIFFERENT`] are counted.
const OTHERS: &str = "others";

/// What is refused, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Refused {
    /// Organization of the actor; `None` for a stranger.
    org: Option<OrganizationId>,
    actor: Actor,
    action: &'static str,
    /// Field, reason or network.
    subject: String,
    permission: Option<Permission>,
}

#[derive(Debug, Clone)]
struct Tally {
    count: u64,
    since: DateTime<Utc>,
    /// Client of the last refusal.
    source_ip: Option<IpAddr>,
    request_id: Option<String>,
}

/// Counts of refusals that are not written yet. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<HashMap<Refused, Tally>>>);

impl Refusals {
    /// Counts a field or file that was refused to a caller, for lack of a permission or, without one, by its resolver.
    pub fn count_field(
        &self,
        viewer: &Viewer,
        field: &str,
        permission: Option<Permission>,
        origin: &Origin,
        now: DateTime<Utc>,
    ) {
        let refused = Refused {
            org: Some(viewer.org),
            actor: viewer.actor,
            action: "access.refused",
            subject: field.to_owned(),
            permission,
        };
        self.count(refused, now, origin.source_ip, origin.request_id.as_deref());
    }

    /// Counts an API key that authenticates nobody, although it exists.
    pub(crate) fn count_key(
        &self,
        (org, key): (OrganizationId, ApiKeyId),
        reason: &'static str,
        address: IpAddr,
        now: DateTime<Utc>,
    ) {
        let refused = Refused {
            org: Some(org),
            actor: Actor::ApiKey(key),
            action: "api_key.refused",
            subject: reason.to_owned(),
            permission: None,
        };
        self.count(refused, now, Some(address), None);
    }

    /// Counts an action that was refused to somebody who belongs to no organization.
    pub(crate) fn count_stranger(
        &self,
        action: &'static str,
        address: IpAddr,
        request_id: Option<&str>,
        now: DateTime<Utc>,
    ) {
        let subject = network_of(address);
        let refused =
            Refused { org: None, actor: Actor::System, action, subject, permission: None };
        self.count(refused, now, Some(address), request_id);
    }

    fn count(
        &self,
        refused: Refused,
        now: DateTime<Utc>,
        source_ip: Option<IpAddr>,
        request_id: Option<&str>,
    ) {
        let request_id = request_id.map(ToOwned::to_owned);
        self.add(refused, Tally { count: 1, since: now, source_ip, request_id });
    }

    fn add(&self, mut refused: Refused, tally: Tally) {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tallies.len() >= MAX_DIFFERENT && !tallies.contains_key(&refused) {
            refused = Refused { subject: OTHERS.to_owned(), permission: None, ..refused };
        }
        match tallies.entry(refused) {
            Slot::Vacant(slot) => {
                slot.insert(tally);
            }
            Slot::Occupied(mut slot) => {
                let known = slot.get_mut();
                known.count += tally.count;
                known.since = known.since.min(tally.since);
                known.source_ip = tally.source_ip.or(known.source_ip);
                known.request_id = tally.request_id.or(known.request_id.take());
            }
        }
    }

    /// Writes all counts to the audit trail.
    ///
    /// # Errors
    /// Any error of the database. Counts that were not written are kept.
    pub async fn write(&self, db: &Db) -> Result<()> {
        let tallies = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut unwritten = tallies.into_iter();
        while let Some((refused, tally)) = unwritten.next() {
            if let Err(error) = write(db, &refused, &tally).await {
                self.add(refused, tally);
                unwritten.for_each(|(refused, tally)| self.add(refused, tally));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes the counts every second until `stop` completes, and then once more. Counts that cannot be written then are
    /// logged.
    pub async fn run(self, db: Db, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if let Err(error) = self.write(&db).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "refusals could not be written to the audit trail: they are kept"
                );
            }
        }
        let written = tokio::time::timeout(LAST_WRITE, self.write(&db)).await;
        if !matches!(written, Ok(Ok(()))) {
            for (refused, tally) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
                tracing::error!(?refused, ?tally, "a refusal is lost to the audit trail");
            }
        }
    }
}

async fn write(db: &Db, refused: &Refused, tally: &Tally) -> Result<()> {
    let origin = Origin {
        actor: refused.actor,
        source_ip: tally.source_ip,
        request_id: tally.request_id.clone(),
    };
    let tx = db.auth(origin).await?;
    let mut details = Map::new();
    let name = match refused.org {
        None => "network",
        Some(_) if refused.action == "access.refused" => "field",
        Some(_) => "reason",
    };
    details.insert(name.to_owned(), json!(refused.subject));
    if let Some(permission) = refused.permission {
        details.insert("permission".to_owned(), json!(permission.as_str()));
    }
    details.insert("count".to_owned(), json!(tally.count));
    details.insert("since".to_owned(), json!(tally.since));
    let details = Value::Object(details);
    match (refused.org, refused.actor) {
        (Some(org), Actor::User(user)) => {
            Entry::noted(refused.action, user, details).record_in(&tx, org).await?;
        }
        (Some(org), Actor::ApiKey(key)) => {
            Entry::noted(refused.action, key, details).record_in(&tx, org).await?;
        }
        (None, _) | (_, Actor::System) => {
            let sql = "SELECT audit_append_stranger($1, $2, $3, $4)";
            let (source_ip, request_id) = (&tally.source_ip, &tally.request_id);
            tx.exec(sql, &[&refused.action, &details, source_ip, request_id]).await?;
        }
    }
    tx.commit().await
}

/// A refusal that belongs to no organization.
#[derive(Debug, Clone, PartialEq)]
pub struct Stranger {
    /// Time at which the refusals were written.
    pub at: DateTime<Utc>,
    /// What was refused, e.g. `auth.login_failed`.
    pub action: String,
    /// Network of the clients, number of refusals, and time of the first one.
    pub details: Value,
    /// Client address of the last refusal.
    pub source_ip: Option<String>,
    /// Id of the last refused request.
    pub request_id: Option<String>,
}

impl FromRow for Stranger {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            at: row.try_get("at")?,
            action: row.try_get("action")?,
            details: row.try_get("details")?,
            source_ip: row.try_get("source_ip")?,
            request_id: row.try_get("request_id")?,
        })
    }
}

impl Stranger {
    /// Returns up to `limit` refusals, newest first.
    pub async fn latest(tx: &Tx<Fleet>, limit: i64) -> Result<Vec<Self>> {
        let sql = "SELECT at, action, details, host(source_ip) AS source_ip, request_id FROM audit_stranger
                   ORDER BY id DESC LIMIT $1";
        tx.all(sql, &[&limit]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Id;

    fn viewer() -> Viewer {
        Viewer {
            actor: Actor::User(Id::new()),
            org: Id::new(),
            session: None,
            roles: Vec::new(),
            permissions: crate::access::permission::PermissionSet::EMPTY,
        }
    }

    #[test]
    fn beyond_the_limit_no_count_is_lost() {
        let (refusals, viewer) = (Refusals::default(), viewer());
        let now = DateTime::UNIX_EPOCH;
        for number in 0..2 * MAX_DIFFERENT {
            refusals.count_field(
                &viewer,
                &format!("Query.f{number}"),
                None,
                &Origin::system(),
                now,
            );
        }
        let tallies = refusals.0.lock().unwrap();
        assert_eq!(tallies.len(), MAX_DIFFERENT + 1);
        assert_eq!(
            tallies.values().map(|tally| tally.count).sum::<u64>(),
            2 * MAX_DIFFERENT as u64
        );
    }
}
