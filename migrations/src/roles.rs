//! The database roles. `sentryops_owner` owns and migrates the schema. Transactions of the application's login assume
//! `sentryops_app`, `sentryops_auth` or `sentryops_fleet`. The login inherits no privileges and is never a member of
//! `sentryops_owner`.
//!
//! The SQL that creates the roles is executed, or printed if the connected login lacks privileges; both cases use the
//! same text. A separate query (`PROBLEMS`) lists the problems of the current roles, so checking a complete set-up
//! needs no privileges. Roles are never dropped, because they belong to the Postgres cluster, and other databases may
//! have granted privileges to them.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient};
use tracing::info;

use crate::error::Error;

/// Outcome of [`roles`], with the problems that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolesOutcome {
    /// The set-up was complete, and nothing was changed.
    Unchanged,
    /// The set-up had problems, which are now fixed.
    Fixed {
        /// Fixed problems, e.g. `role sentryops_app does not exist`.
        problems: Vec<String>,
    },
    /// The connected login lacks privileges, so nothing was changed. Print [`roles_sql`] for an administrator.
    NotPermitted {
        /// Problems that remain, e.g. `role sentryops_app does not exist`.
        problems: Vec<String>,
    },
}

const BODY: &str = include_str!("roles.sql");

/// SQLSTATEs of losing a race with another process, because all databases of a Postgres cluster share the roles. One
/// competitor always succeeds, so retries end.
const RACE_ERRORS: [SqlState; 4] = [
    SqlState::DUPLICATE_OBJECT,
    SqlState::UNIQUE_VIOLATION,
    SqlState::T_R_DEADLOCK_DETECTED,
    SqlState::INTERNAL_ERROR, // "tuple concurrently updated"
];
const ATTEMPTS: u32 = 20;

const PROBLEMS: &str = "
    WITH ours AS (
        SELECT * FROM pg_roles WHERE rolname IN ('sentryops_app', 'sentryops_auth', 'sentryops_fleet')
    ), membership AS (
        SELECT ours.rolname,
               -- Only PostgreSQL 16 and later have these two columns.
               COALESCE((to_jsonb(grants)->>'set_option')::boolean, true) AS may_set,
               COALESCE((to_jsonb(grants)->>'inherit_option')::boolean, false) AS inherits
        FROM ours
        JOIN pg_auth_members AS grants ON grants.roleid = ours.oid
        JOIN pg_roles AS member ON member.oid = grants.member AND member.rolname = $1
    ), owner AS (
        SELECT * FROM pg_roles WHERE rolname = 'sentryops_owner'
    )
    SELECT format('role %s does not exist', wanted) AS lack
    FROM unnest(ARRAY['sentryops_owner', 'sentryops_app', 'sentryops_auth', 'sentryops_fleet', $1]) AS wanted
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)
    UNION ALL
    SELECT format('role %s has more privileges than it should', rolname) FROM ours
    WHERE rolsuper OR rolreplication OR rolbypassrls OR rolcanlogin OR rolinherit OR rolcreatedb OR rolcreaterole
    UNION ALL
    SELECT format('%s inherits the rights of its roles', $1) FROM pg_roles WHERE rolname = $1 AND rolinherit
    UNION ALL
    SELECT format('%s is not a member of %s', $1, rolname) FROM ours
    WHERE rolname NOT IN (SELECT rolname FROM membership WHERE may_set)
    UNION ALL
    SELECT format('%s inherits the rights of %s', $1, rolname) FROM membership WHERE inherits
    UNION ALL
    SELECT format('sentryops_owner may not create in schema public of %s', current_database())
    FROM pg_namespace AS space LEFT JOIN owner ON true
    WHERE space.nspname = 'public'
      AND COALESCE(NOT pg_has_role(owner.oid, space.nspowner, 'USAGE'), true)
      AND (SELECT count(DISTINCT granted.privilege_type)
           FROM aclexplode(space.nspacl) AS granted
           WHERE granted.grantee = owner.oid AND granted.is_grantable
             AND granted.privilege_type IN ('CREATE', 'USAGE')) < 2
    UNION ALL
    SELECT format('PUBLIC may create in schema public of %s', current_database())
    FROM pg_namespace AS space WHERE space.nspname = 'public' AND EXISTS
        (SELECT FROM aclexplode(space.nspacl) AS granted
         WHERE granted.grantee = 0 AND granted.privilege_type = 'CREATE')
    UNION ALL
    -- A login that may create roles is expected to migrate too; other logins are not checked.
    SELECT format('%s may not act as sentryops_owner', session_user) FROM owner
    JOIN pg_roles AS us ON us.rolname = session_user
    WHERE us.rolcreaterole AND NOT us.rolsuper AND us.rolname <> $1
      AND NOT pg_has_role(us.oid, owner.oid,
          CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)";

/// Returns the SQL that creates the roles, and grants the three roles of the application to `login`. The SQL is
/// idempotent, works on Postgres 13 to 18, and must be run by an administrator, connected to the application's
/// database.
pub fn roles_sql(login: &str) -> String {
    format!(
        "-- The database roles of SentryOps. Run this as a database administrator, connected to its database.\n\
         -- Set the passwords yourself. To migrate without an administrator: ALTER ROLE sentryops_owner LOGIN;\n\
         SET sentryops.login = {};\n{BODY}",
        literal(login),
    )
}

/// Creates the roles with the SQL of [`roles_sql`], in one transaction. Needs no privileges if the set-up is complete.
/// Safe to run concurrently in several processes. Creates `login` without a password if the login does not exist.
///
/// # Errors
/// [`Error::Login`] if `login` bypasses row security, is a member of `sentryops_owner`, or has an invalid or reserved
/// name.
pub async fn roles(client: &mut Client, login: &str) -> Result<RolesOutcome, Error> {
    check_name(login)?;
    check_rights(client, login).await?;
    let failed = Error::postgres("creating the database roles");
    let mut attempt = 1;
    loop {
        let problems = problems(client, login).await.map_err(&failed)?;
        if problems.is_empty() {
            return Ok(RolesOutcome::Unchanged);
        }
        if is_connected_as(client, login).await.map_err(&failed)? {
            return Ok(RolesOutcome::NotPermitted { problems });
        }
        match fix(client, login).await {
            Ok(remaining) if remaining.is_empty() => {
                info!(lacked = problems.len(), "created the database roles for the login {login}");
                return Ok(RolesOutcome::Fixed { problems });
            }
            Ok(remaining) => return Ok(RolesOutcome::NotPermitted { problems: remaining }),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                return Ok(RolesOutcome::NotPermitted { problems });
            }
            Err(error)
                if attempt < ATTEMPTS
                    && error.code().is_some_and(|code| RACE_ERRORS.contains(code)) =>
            {
                attempt += 1;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Runs the SQL and returns the problems that remain; commits only if none remains. The check runs inside the
/// transaction, because Postgres only warns about a grant that the connected login is not allowed to make.
async fn fix(client: &mut Client, login: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let tx = client.transaction().await?;
    tx.batch_execute(&roles_sql(login)).await?;
    let remaining = problems(&tx, login).await?;
    if remaining.is_empty() {
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(remaining)
}

async fn problems(
    client: &impl GenericClient,
    login: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client.query(PROBLEMS, &[&login]).await?;
    Ok(rows.iter().map(|row| row.get("lack")).collect())
}

/// Sets the password of a login that [`roles`] has just created; the application connects with it.
///
/// # Errors
/// [`Error::Postgres`] if the connected login may not change the password.
pub async fn set_password(client: &Client, login: &str, password: &str) -> Result<(), Error> {
    let doing = "setting the password of the application's login";
    let failed = Error::postgres(doing);
    // DDL has no parameters, so the server quotes name and password with format().
    let sql = "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text) AS statement";
    let row = client.query_one(sql, &[&login, &password]).await.map_err(&failed)?;
    client.batch_execute(row.get("statement")).await.map_err(failed)
}

async fn is_connected_as(client: &Client, login: &str) -> Result<bool, tokio_postgres::Error> {
    let row = client.query_one("SELECT session_user = $1::text AS is_us", &[&login]).await?;
    Ok(row.get("is_us"))
}

fn check_name(login: &str) -> Result<(), Error> {
    let reason = match login {
        "sentryops_owner" | "sentryops_app" | "sentryops_auth" | "sentryops_fleet" => {
            "is a role that the application either assumes or must never have"
        }
        "" => "has no name",
        _ if login.contains('\0') => "has a NUL in its name",
        // Postgres would truncate the name, and another role may have the truncated name.
        _ if login.len() > 63 => "has a name of more than 63 bytes",
        _ => return Ok(()),
    };
    Err(Error::Login { login: login.to_owned(), reason })
}

async fn check_rights(client: &Client, login: &str) -> Result<(), Error> {
    let row = client
        .query_opt(
            "SELECT login.rolsuper, login.rolbypassrls,
                    COALESCE(pg_has_role(login.oid, owner.oid, 'MEMBER'), false) AS is_owner
             FROM pg_roles AS login
             LEFT JOIN pg_roles AS owner ON owner.rolname = 'sentryops_owner'
             WHERE login.rolname = $1::text",
            &[&login],
        )
        .await
        .map_err(Error::postgres("checking the login of the application"))?;
    let Some(row) = row else { return Ok(()) };
    let reason = if row.get("rolsuper") {
        "is a superuser, and row security does not apply to superusers"
    } else if row.get("rolbypassrls") {
        "bypasses row security"
    } else if row.get("is_owner") {
        "is a member of sentryops_owner"
    } else {
        return Ok(());
    };
    Err(Error::Login { login: login.to_owned(), reason })
}

/// Returns an SQL string literal that is safe for either setting of `standard_conforming_strings`.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_cannot_break_out_of_the_sql() {
        for (login, expected) in [
            ("ops", "'ops'"),
            ("o'; DROP", "'o''; DROP'"),
            (r"o\'", r"E'o\\'''"),
            ("$roles$", "'$roles$'"),
        ] {
            assert_eq!(literal(login), expected);
            assert_eq!(roles_sql(login).matches(login).count() > 0, !login.contains(['\'', '\\']));
        }
    }

    #[test]
    fn a_login_that_cannot_be_is_refused() {
        for login in ["", "a\0b", "sentryops_owner", "sentryops_fleet", &"x".repeat(64)] {
            assert!(check_name(login).is_err(), "{login:?}");
        }
        assert!(check_name(&"x".repeat(63)).is_ok());
    }
}
