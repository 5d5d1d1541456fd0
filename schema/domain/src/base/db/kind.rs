//! The kinds of transactions: which of the three database roles a transaction takes, said in its type.
//!
//! A function on an organization's rows takes `&Tx`, which is `&Tx<Org>`; one on people before their organization is known takes
//! `&Tx<Auth>`; one on the work of all organizations takes `&Tx<Fleet>`. Where the role does not matter, `&Tx<K>`. Whether a
//! transaction may write is a property of its run time: readers and writers share their functions.
//!
//! An organization's transaction has one:
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
//! One over people has none, and cannot be taken for one that has:
//!
//! ```compile_fail,E0599
//! # use domain::{Db, Origin, Result, entity::OrganizationId};
//! async fn of_people(db: &Db) -> Result<OrganizationId> {
//!     let tx = db.auth(Origin::system()).await?;
//!     Ok(tx.org())
//! }
//! ```
//!
//! An organization's rows are not read in one of the fleet:
//!
//! ```compile_fail,E0308
//! # use domain::{Db, Result, entity::AssetId, inventory::asset::Asset};
//! async fn of_the_fleet(db: &Db, id: AssetId) -> Result<()> {
//!     let tx = db.fleet().await?;
//!     Asset::find(&tx, id).await.map(drop)
//! }
//! ```
//!
//! And passwords are not looked up in one of an organization:
//!
//! ```compile_fail,E0308
//! # use domain::{Db, Result, access::user::User, entity::OrganizationId};
//! async fn of_an_organization(db: &Db, org: OrganizationId) -> Result<()> {
//!     let tx = db.read(org).await?;
//!     User::find_by_email(&tx, "ada@example.com").await.map(drop)
//! }
//! ```

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
};

use super::Tx;
use crate::base::{entity::OrganizationId, error::Result};

/// A hook's work, in the transaction that it is of.
pub type Hooked<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// What a transaction is of: [`Org`], [`Auth`] or [`Fleet`].
pub trait Kind: sealed::Sealed + Sized + Send + Sync + 'static {
    /// The database role that it takes.
    const ROLE: &'static str;

    /// The organization whose rows it sees, where it has one.
    fn org(&self) -> Option<OrganizationId> {
        None
    }

    /// What has to be done in the transaction before its commit, if anything.
    fn before_commit(_: &Tx<Self>) -> Option<Hooked<'_>> {
        None
    }
}

/// One organization's rows.
#[derive(Debug)]
pub struct Org {
    id: OrganizationId,
    is_hooked: AtomicBool,
}

/// People, memberships, sessions, keys: before an organization is known.
#[derive(Debug)]
pub struct Auth;

/// Jobs, schedules, due checks, rollups: across organizations.
#[derive(Debug)]
pub struct Fleet;

impl Org {
    pub(super) const fn new(id: OrganizationId) -> Self {
        Self { id, is_hooked: AtomicBool::new(false) }
    }
}

impl Kind for Org {
    const ROLE: &'static str = "sentryops_app";

    fn org(&self) -> Option<OrganizationId> {
        Some(self.id)
    }

    fn before_commit(tx: &Tx<Self>) -> Option<Hooked<'_>> {
        let is_hooked = tx.kind.is_hooked.load(Ordering::Relaxed);
        tx.db.before_commit.as_ref().filter(|_| is_hooked).map(|hook| hook(tx))
    }
}

impl Kind for Auth {
    const ROLE: &'static str = "sentryops_auth";
}

impl Kind for Fleet {
    const ROLE: &'static str = "sentryops_fleet";
}

impl Tx<Org> {
    /// The organization whose rows this transaction sees and writes.
    pub const fn org(&self) -> OrganizationId {
        self.kind.id
    }

    /// Remembers that what it changed asks for the hook of [`Db::before_commit`](super::Db::before_commit).
    pub(crate) fn hook(&self) {
        self.kind.is_hooked.store(true, Ordering::Relaxed);
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Org {}
    impl Sealed for super::Auth {}
    impl Sealed for super::Fleet {}
}
