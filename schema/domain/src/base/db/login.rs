//! Checks of the login in `DATABASE_URL`: the database roles that the login must be able to use, and the privileges
//! that it must not have.

use super::{Auth, Db, Fleet, Kind, Org};
use crate::base::error::Error;

/// Reason why the server refuses to run with the login in `DATABASE_URL`.
#[derive(Debug, thiserror::Error)]
pub enum LoginRefusal {
    /// The login could bypass row security and read every organization.
    #[error(
        "DATABASE_URL's login is {0}: row security would not apply to this login; use a login without special privileges and run `sentryops migrate roles`"
    )]
    TooStrong(&'static str),
    /// The login cannot switch to one of the roles.
    #[error("DATABASE_URL's login cannot switch to the role {0}: run `sentryops migrate roles`")]
    NotMember(&'static str),
    /// The login has the privileges of the roles even without switching to a role.
    #[error(
        "DATABASE_URL's login inherits the privileges of its roles: run `sentryops migrate roles` (ALTER ROLE … NOINHERIT)"
    )]
    Inherits,
    /// The login could not be checked.
    #[error("the login in DATABASE_URL could not be checked, because the database did not respond")]
    Unavailable(#[source] Error),
}

impl Db {
    /// Rejects a login to which row security does not apply: a login that is, or can become, a superuser, a role with
    /// BYPASSRLS or the owner of the tables. Also rejects a login that inherits the roles' privileges or cannot switch
    /// to one of the roles.
    pub async fn check_login(&self) -> Result<(), LoginRefusal> {
        let unavailable = |error: Error| LoginRefusal::Unavailable(error);
        let connection = self.pool.get().await.map_err(|error| unavailable(error.into()))?;
        let row = connection
            .query_one(
                // Before PostgreSQL 16, every member of a role can use SET ROLE. Since 16, each membership has a SET
                // option.
                "SELECT EXISTS (SELECT FROM pg_roles AS strong
                                WHERE strong.rolsuper AND pg_has_role(login.oid, strong.oid, 'MEMBER')) AS rolsuper,
                        EXISTS (SELECT FROM pg_roles AS strong
                                WHERE strong.rolbypassrls AND pg_has_role(login.oid, strong.oid, 'MEMBER')) AS rolbypassrls,
                        coalesce(pg_has_role(login.oid, to_regrole('sentryops_owner'), 'MEMBER'), false) AS is_owner,
                        coalesce(pg_has_role(login.oid, to_regrole('sentryops_app'), take), false) AS app,
                        coalesce(pg_has_role(login.oid, to_regrole('sentryops_auth'), take), false) AS auth,
                        coalesce(pg_has_role(login.oid, to_regrole('sentryops_fleet'), take), false) AS fleet,
                        EXISTS (SELECT FROM pg_roles AS ours
                                WHERE ours.rolname IN ('sentryops_app', 'sentryops_auth', 'sentryops_fleet')
                                  AND pg_has_role(login.oid, ours.oid, 'USAGE')) AS inherits
                 FROM pg_roles AS login, (SELECT CASE WHEN current_setting('server_version_num')::int >= 160000
                                                 THEN 'SET' ELSE 'MEMBER' END) AS version (take)
                 WHERE login.rolname = session_user",
                &[],
            )
            .await
            .map_err(|error| unavailable(Error::Postgres(error)))?;
        let is = |column: &str| row.try_get::<_, bool>(column).unwrap_or(false);
        if is("rolsuper") {
            return Err(LoginRefusal::TooStrong("a superuser"));
        }
        if is("rolbypassrls") {
            return Err(LoginRefusal::TooStrong("exempt from row security (BYPASSRLS)"));
        }
        if is("is_owner") {
            return Err(LoginRefusal::TooStrong("the owner of the tables"));
        }
        for (column, role) in [("app", Org::ROLE), ("auth", Auth::ROLE), ("fleet", Fleet::ROLE)] {
            if !is(column) {
                return Err(LoginRefusal::NotMember(role));
            }
        }
        if is("inherits") {
            return Err(LoginRefusal::Inherits);
        }
        Ok(())
    }
}
