//! Kinds of transactions. The type of a transaction states which of the three database roles it uses.
//!
//! Functions on an organization's rows take `&Tx`, which is `&Tx<Org>`. Functions on users, sessions and API keys, for
//! which no organization is known yet, take `&Tx<Auth>`. Functions on the jobs and schedules of all organizations take
//! `&Tx<Fleet>`. Functions for which the role does not matter take `&Tx<K>`. Read-only and read-write transactions have
//! the same type, because they share functions; Postgres rejects a write in a read-only one.
//!
//! A transaction of an organization carries the organization's id:
//!
//! ```
//! # use domain::{Db, Origin, Result, entity::OrganizationId, inventory::asset::Asset, entity::AssetId};
//! async fn of_an_organization(db: &Db, org: OrganizationId, id: AssetId) -> Result<OrganizationId> {
//!     let tx = db.read(org).await?;
//!     Asset::find(&tx, id).await?;
//!     Ok(tx.org())
//! }
//! ```
//!
//! An `Auth` transaction carries no organization, and the compiler rejects the attempt to read one:
//!
//! ```compile_fail,E0599
//! # use domain::{Db, Origin, Result, entity::OrganizationId};
//! async fn of_people(db: &Db) -> Result<OrganizationId> {
//!     let tx = db.auth(Origin::system()).await?;
//!     Ok(tx.org())
//! }
//! ```
//!
//! A `Fleet` transaction cannot read an organization's rows:
//!
//! ```compile_fail,E0308
//! # use domain::{Db, Result, entity::AssetId, inventory::asset::Asset};
//! async fn of_the_fleet(db: &Db, id: AssetId) -> Result<()> {
//!     let tx = db.fleet().await?;
//!     Asset::find(&tx, id).await.map(drop)
//! }
//! ```
//!
//! A transaction of an organization cannot look up credentials:
//!
//! ```compile_fail,E0308
//! # use domain::{Db, Result, access::user::User, entity::OrganizationId};
//! async fn of_an_organization(db: &Db, org: OrganizationId) -> Result<()> {
//!     let tx = db.read(org).await?;
//!     User::find_by_email(&tx, "ada@example.com").await.map(drop)
//! }
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::entity::OrganizationId;

/// The kind of a transaction: [`Org`], [`Auth`] or [`Fleet`].
pub trait Kind: sealed::Sealed + Sized + Send + Sync + 'static {
    /// The database role that the transaction switches to.
    const ROLE: &'static str;

    /// Returns the organization whose rows the transaction sees, or `None` if the transaction is not limited to one
    /// organization.
    fn org(&self) -> Option<OrganizationId> {
        None
    }
}

/// A transaction on one organization's rows.
#[derive(Debug)]
pub struct Org {
    id: OrganizationId,
    is_hook_requested: AtomicBool,
}

/// A transaction on users, memberships, sessions and API keys of all organizations.
#[derive(Debug)]
pub struct Auth;

/// A transaction across organizations: jobs, schedules, due checks, rollups.
#[derive(Debug)]
pub struct Fleet;

impl Org {
    pub(super) const fn new(id: OrganizationId) -> Self {
        Self { id, is_hook_requested: AtomicBool::new(false) }
    }

    pub(super) const fn id(&self) -> OrganizationId {
        self.id
    }

    pub(super) fn request_hook(&self) {
        self.is_hook_requested.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_hook_requested(&self) -> bool {
        self.is_hook_requested.load(Ordering::Relaxed)
    }
}

impl Kind for Org {
    const ROLE: &'static str = "sentryops_app";

    fn org(&self) -> Option<OrganizationId> {
        Some(self.id)
    }
}

impl Kind for Auth {
    const ROLE: &'static str = "sentryops_auth";
}

impl Kind for Fleet {
    const ROLE: &'static str = "sentryops_fleet";
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Org {}
    impl Sealed for super::Auth {}
    impl Sealed for super::Fleet {}
}
