//! New passwords: one's own, changed by whoever knows the current one, and one that is set for somebody else.

use tokio_postgres::Row;

use crate::{
    access::{
        audit::Entry,
        identity::{Caller, Identity, account::Account, no_session},
        login::Guard,
        organization::Organization,
        password,
        user::User,
        viewer::Viewer,
    },
    base::error::{Error, Result},
};

impl Identity {
    /// Changes the viewer's own password and ends their other sessions.
    pub async fn change_password(
        &self,
        viewer: &Viewer,
        current: &str,
        new: &str,
        caller: &Caller,
    ) -> Result<()> {
        let (user, session) = viewer.user().zip(viewer.session).ok_or_else(no_session)?;
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        let row: Row = tx
            .one(
                "SELECT email, name, mfa_enabled, password_hash, password_changed_at FROM \"user\" WHERE id = $1",
                &[&user],
            )
            .await?;
        let account = Account {
            user,
            hash: row.try_get("password_hash")?,
            password_changed_at: row.try_get("password_changed_at")?,
        };
        let subject = self.subject(&tx, row.try_get("email")?, Some(&account), caller).await?;
        let locked =
            Guard::find(&tx, &subject).await?.is_some_and(|guard| guard.is_locked(caller.now));
        let organizations = Organization::of_user(&tx, user).await?;
        tx.commit().await?;

        let (email, name): (&str, &str) = (row.try_get("email")?, row.try_get("name")?);
        let mut context = vec![email, email.split('@').next().unwrap_or_default(), name];
        context.extend(
            organizations
                .iter()
                .flat_map(|organization| [organization.slug.as_str(), organization.name.as_str()]),
        );
        password::check("new", new, &context, row.try_get("mfa_enabled")?)
            .map_err(|fault| Error::Invalid(vec![fault]))?;
        let wrong = || Err(Error::invalid("current", "is not the current password"));
        let stored = account.hash.as_deref().filter(|_| !locked);
        if !self.hasher.verify(current, stored).await? {
            if !locked {
                let tx = self.db.auth(caller.origin(viewer.actor)).await?;
                Guard::fail(&tx, &subject, self.address_block, caller.now).await?;
                tx.commit().await?;
            }
            return wrong();
        }
        let hash = self.hasher.hash(new).await?;
        let tx = self.db.auth(caller.origin(viewer.actor)).await?;
        let unchanged: Option<Row> = tx
            .opt(
                "SELECT id FROM \"user\" WHERE id = $1 AND password_changed_at IS NOT DISTINCT FROM $2 FOR UPDATE",
                &[&user, &account.password_changed_at],
            )
            .await?;
        if unchanged.is_none() {
            tx.rollback().await?;
            return wrong(); // Any more: it was reset while we hashed.
        }
        User::set_password(&tx, user, &hash, Some(session), caller.now).await?;
        Entry::happened("auth.password_changed", user)
            .record_in(&tx, viewer.org, caller.now)
            .await?;
        tx.commit().await
    }

    /// Checks a password that is set for somebody, and hashes it.
    pub async fn hash_new(&self, path: &str, password: &str, context: &[&str]) -> Result<String> {
        password::check(path, password, context, false)
            .map_err(|fault| Error::Invalid(vec![fault]))?;
        self.hasher.hash(password).await
    }
}
