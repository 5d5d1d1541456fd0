//! What a database says has been applied to it: one row of `public.schema_migration` a version. Owned by
//! `sentryops_owner`, readable by the application's roles (readiness), and left in place after `down 0`.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Transaction};

use crate::error::Error;
use crate::migration::Migration;

/// One applied migration.
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

/// All records, oldest first; makes the table where it is missing. For the owner, under the lock.
pub(crate) async fn open(tx: &Transaction<'_>) -> Result<Vec<Record>, Error> {
    if let Some(records) = find(tx).await? {
        return Ok(records);
    }
    tx.batch_execute(CREATE).await.map_err(Error::postgres("creating schema_migration"))?;
    Ok(Vec::new())
}

/// All records, oldest first, or `None` without the table. Takes one of our roles in `tx` if the login itself may not
/// read: the application's login inherits nothing.
pub(crate) async fn find(tx: &Transaction<'_>) -> Result<Option<Vec<Record>>, Error> {
    let failed = Error::postgres("reading schema_migration");
    // Not to_regclass(): that fails where the login may not use the schema.
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
        take_a_role(tx).await?;
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

/// Takes the first role that the login is a member of. Taking none is no error here: the read says what is missing.
async fn take_a_role(tx: &Transaction<'_>) -> Result<(), Error> {
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
    .map_err(Error::postgres("taking a role to read schema_migration"))
}

/// Notes that a migration was applied, in the transaction that applied it.
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

/// Forgets a migration, in the transaction that took it back.
pub(crate) async fn delete(
    client: &Client,
    migration: &Migration,
) -> Result<(), tokio_postgres::Error> {
    client
        .execute("DELETE FROM public.schema_migration WHERE version = $1", &[&migration.version])
        .await
        .map(drop)
}
