//! The login of `DATABASE_URL`: what it must and must not be able to do.

use super::{Auth, Db, Fleet, Kind, Org};
use crate::base::error::Error;

/// Why a login may not serve.
#[derive(Debug, thiserror::Error)]
pub enum LoginRefusal {
    /// It could read every organization.
    #[error(
        "DATABASE_URL's login is {0}: row security would not hold; use a plain login and `sentryops migrate roles`"
    )]
    TooStrong(&'static str),
    /// It cannot take the roles.
    #[error("DATABASE_URL's login may not take the role {0}: run `sentryops migrate roles`")]
    NotMember(&'static str),
    /// It has their rights without taking them.
    #[error(
        "DATABASE_URL's login inherits its roles' rights: run `sentryops migrate roles` (ALTER ROLE … NOINHERIT)"
    )]
    Inherits,
    /// The database did not answer.
    #[error("the database did not answer")]
    Unavailable(#[source] Error),
}

impl Db {
    /// Refuses a login that row security would not hold: that is, or may become, superuser, BYPASSRLS or the owner, or
    /// that inherits.
    pub async fn check_login(&self) -> Result<(), LoginRefusal> {
        let unavailable = |error: Error| LoginRefusal::Unavailable(error);
        let connection = self.pool.get().await.map_err(|error| unavailable(error.into()))?;
        let row = connection
            .query_one(
                // Before PostgreSQL 16 every member may take the role; since then the membership says so.
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
