//! Acceptance of an invitation: membership of the viewer's account in a further organization.
//!
//! Acceptance requires two passwords: that of the account, so that a stolen session joins nothing, and the one that
//! the inviting organization gave, so that whoever made the account for another organization joins nothing. A wrong
//! password of either kind counts as a failed sign-in.

use crate::{
    access::{
        audit::Entry,
        identity::{Identity, RequestInfo, new_password::is_unchanged, no_session},
        password,
        session::{EndReason, Session},
        user::{User, credentials::SetBy},
        viewer::Viewer,
    },
    base::{
        entity::OrganizationId,
        error::{Error, Result},
    },
};

/// Passwords that accept an invitation.
#[derive(Clone, Copy)]
pub struct Acceptance<'a> {
    /// The current password of the account.
    pub current: &'a str,
    /// The password that the inviting organization gave.
    pub invitation: &'a str,
    /// A new password for the account; required if the owner never chose the current one.
    pub new: Option<&'a str>,
}

impl std::fmt::Debug for Acceptance<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptance").finish_non_exhaustive()
    }
}

impl Identity {
    /// Accepts the invitation to an organization, and ends the account's other sessions.
    ///
    /// # Errors
    /// `Forbidden` for an API key, `NotFound` if there is no open invitation, `Invalid` if a password is wrong, too weak
    /// or missing.
    pub async fn accept_invitation(
        &self,
        viewer: &Viewer,
        org: OrganizationId,
        given: Acceptance<'_>,
        caller: &RequestInfo,
    ) -> Result<()> {
        let (user, session) = viewer.user().zip(viewer.session).ok_or_else(no_session)?;
        let (person, lock) = self.find_person(viewer, user, caller).await?;
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        let invitation = User::invitation_hash(&tx, org, user).await?;
        tx.commit().await?;
        let invitation = invitation.ok_or_else(|| Error::not_found("invitation", org))?;
        match given.new {
            Some(new) => {
                person.check("newPassword", new)?;
                // Whoever knows one of them would know the new one.
                if password::is_same(new, given.current) || password::is_same(new, given.invitation)
                {
                    return Err(Error::invalid(
                        "newPassword",
                        "must be one that nobody else gave you",
                    ));
                }
            }
            None if person.has_own_password => {}
            None => {
                return Err(Error::invalid(
                    "newPassword",
                    "is required, because you have not chosen your current password yourself",
                ));
            }
        }
        let hash = lock.hash_of(&person.account);
        let is_owner = self.hasher.verify(given.current, hash).await?;
        let is_meant = self
            .hasher
            .verify(
                given.invitation,
                Some(&invitation).filter(|_| !lock.is_locked).map(String::as_str),
            )
            .await?;
        if !is_owner || !is_meant {
            self.count_wrong_password(viewer, &person, &lock, caller).await?;
            return Err(Error::invalid(
                "password",
                "is not the current password, or invitationPassword is not the one that the organization gave",
            ));
        }
        let new = match given.new {
            Some(new) => Some(self.hasher.hash(new).await?),
            None => None,
        };
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        if !is_unchanged(&tx, &person.account).await? {
            tx.rollback().await?;
            return Err(Error::invalid("password", "has been reset meanwhile: sign in again"));
        }
        User::accept_invitation(&tx, org, user).await?;
        if let Some(hash) = new {
            User::set_password(&tx, user, &hash, SetBy::Owner(session), caller.now).await?;
            Entry::without_values("auth.password_changed", user).record_in(&tx, viewer.org).await?;
        }
        for other in Session::of_user(&tx, user, caller.now).await? {
            if other.id != session {
                other.end(&tx, EndReason::Revoked, caller.now).await?;
            }
        }
        tx.commit().await
    }
}
