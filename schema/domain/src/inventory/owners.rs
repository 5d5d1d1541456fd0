//! Presence of owners' e-mail addresses in files of assets.

use crate::access::{permission::Permission, viewer::Viewer};

/// Presence of owners' e-mail addresses in an exported or imported file. A file without them leaves owners unchanged.
/// An address that is accepted or refused tells who is a member, so an import needs the same permission as an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// The caller has `USER_READ`, so the file may have the column `owner`.
    Included,
    /// The caller does not have `USER_READ`, so the file has no column `owner`.
    Omitted,
}

impl Owners {
    /// Permission to see who is a member.
    pub const PERMISSION: Permission = Permission::UserRead;

    /// Message for an owner in a file of a caller who may not see members. It is the same for every address.
    pub(crate) const REFUSED: &str =
        "needs the permission USER_READ, because it tells who is a member: leave it out";

    /// Returns the presence for a caller who has the permission, or has not.
    pub const fn allowed_if(may_read_users: bool) -> Self {
        if may_read_users { Self::Included } else { Self::Omitted }
    }

    /// Returns the presence in the files of this viewer.
    pub const fn of(viewer: &Viewer) -> Self {
        Self::allowed_if(viewer.may(Self::PERMISSION))
    }
}
