//! The applied migrations of a database: one row of `public.schema_migration` per version. The table is owned by
//! `sentryops_owner` and readable by the roles of the application, for the readiness probe. The table remains after
//! `down 0`.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Transaction};

use crate::error::Error;
use crate::migration::Migration;

/// Row of `schema_migration`: an applied migration.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) version: i32,
    pub(crate) name: String,
    pub(crate) checksum: Vec<u8>,
    pub(crate) applied_at: DateTime<Utc>,
}

const CREATE: &str = "
    CREATE TABLE public.schema_migration (
        version      integer     PRIMARY KEY,
        name         text        NOT NULL,
        checksum     bytea       NOT NULL,
        applied_at   timestamptz NOT NULL DEFAULT now(),
        execution_ms bigint      NOT NULL
    );
    COMMENT ON TABLE public.schema_migration IS 'Migrations applied by `sentryops migrate`; do not edit.';
    REVOKE ALL ON public.schema_migration FROM PUBLIC;
    GRANT SELECT ON public.schema_migration TO sentryops_app, sentryops_auth, sentryops_fleet;";

/// Returns all records, oldest first. Creates the table if it does not exist. Requires the role of the owner and the
/// migration lock.
pub(crate) async fn find_or_create(tx: &Transaction<'_>) -> Result<Vec<Record>, Error> {
    if let Some(records) = find(tx).await? {
        return Ok(records);
    }
    tx.batch_execute(CREATE).await.map_err(Error::postgres("creating schema_migration"))?;
    Ok(Vec::new())
}

/// Returns all records, oldest first, or `None` if the table does not exist. If the login is not allowed to read the
/// table, assumes a SentryOps role in `tx`, because the application's login inherits no privileges.
pub(crate) async fn find(tx: &Transaction<'_>) -> Result<Option<Vec<Record>>, Error> {
    let failed = Error::postgres("reading schema_migration");
    // Not to_regclass(), which fails if the login lacks USAGE on the schema.
    let table = tx
        .query_opt(
            "SELECT has_schema_privilege(space.oid, 'USAGE')
                AND has_table_privilege(entry.oid, 'SELECT') AS is_readable
             FROM pg_class AS entry
             JOIN pg_namespace AS space ON space.oid = entry.relnamespace
             WHERE space.nspname = 'public' AND entry.relname = 'schema_migration'",
            &[],
        )
        .await
        .map_err(&failed)?;
    let Some(table) = table else { return Ok(None) };
    if !table.get::<_, bool>("is_readable") {
        assume_role(tx).await?;
    }
    let rows = tx
        .query(
            "SELECT version, name, checksum, applied_at FROM public.schema_migration ORDER BY version",
            &[],
        )
        .await
        .map_err(&failed)?;
    let records = rows.iter().map(|row| Record {
        version: row.get("version"),
        name: row.get("name"),
        checksum: row.get("checksum"),
        applied_at: row.get("applied_at"),
    });
    Ok(Some(records.collect()))
}

/// Assumes the first SentryOps role that the login is a member of. Without a role, the next read fails with the error
/// of Postgres.
async fn assume_role(tx: &Transaction<'_>) -> Result<(), Error> {
    tx.execute(
        "SELECT set_config('role', ours.rolname, true)
         FROM pg_roles AS ours
         WHERE ours.rolname IN ('sentryops_app', 'sentryops_auth', 'sentryops_fleet', 'sentryops_owner')
           AND pg_has_role(session_user, ours.oid, 'MEMBER')
         ORDER BY ours.rolname
         LIMIT 1",
        &[],
    )
    .await
    .map(drop)
    .map_err(Error::postgres("assuming a role to read schema_migration"))
}

/// Inserts the record of a migration, in the transaction that applied it.
pub(crate) async fn insert(
    client: &Client,
    migration: &Migration,
    execution_ms: i64,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute(
            "INSERT INTO public.schema_migration (version, name, checksum, execution_ms)
             VALUES ($1, $2, $3, $4)",
            &[&migration.version, &migration.name, &migration.checksum(), &execution_ms],
        )
        .await
        .map(drop)
}

/// Deletes the record of a migration, in the transaction that reverted it.
pub(crate) async fn delete(
    client: &Client,
    migration: &Migration,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute("DELETE FROM public.schema_migration WHERE version = $1", &[&migration.version])
        .await
        .map(drop)
}
