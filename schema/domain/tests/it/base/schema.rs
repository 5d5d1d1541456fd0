//! Rules for every table, checked in the catalogue, so that they apply to future migrations too.

use domain::testing::TestDb;

/// Returns the first column, a text, of all rows.
async fn texts(sql: &str) -> Vec<String> {
    let db = TestDb::new().await;
    let rows = db.superuser().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

const NONE: [&str; 0] = [];

#[tokio::test]
async fn every_table_has_row_security_forced() {
    // A partition is read through its table, whose policies then apply; direct access is not granted (see the grants).
    let open = "SELECT relname::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
          AND NOT (relrowsecurity AND relforcerowsecurity)";
    assert_eq!(texts(open).await, ["schema_migration"]);
}

#[tokio::test]
async fn no_view_looks_past_row_security() {
    let views = "SELECT relname::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm', 'f')
          AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)";
    assert_eq!(texts(views).await, NONE);
}

#[tokio::test]
async fn every_policy_holds_what_is_read_and_what_is_written() {
    // r and d check existing rows, a checks new ones; w and * check both.
    let half = "SELECT polrelid::regclass || '.' || polname FROM pg_policy
        WHERE (polcmd IN ('r', 'd', 'w', '*') AND polqual IS NULL)
           OR (polcmd IN ('a', 'w', '*') AND polwithcheck IS NULL)
           OR 0 = ANY (polroles) OR NOT polpermissive";
    assert_eq!(texts(half).await, NONE);
}

#[tokio::test]
async fn the_application_is_held_to_its_organization_wherever_there_is_one() {
    // Evaluated for each row instead of once per statement.
    let setting = "(NULLIF(current_setting(''app.org_id''::text,true),''''::text))::uuid";
    let own = format!("('(org_id={setting})', '(org_id=(SELECT{setting}AS\"nullif\"))')");
    let loose = format!(
        r"SELECT polrelid::regclass || '.' || polname FROM pg_policy
          JOIN pg_attribute ON attrelid = polrelid AND attname = 'org_id'
          WHERE 'sentryops_app'::regrole = ANY (polroles)
            AND (regexp_replace(pg_get_expr(polqual, polrelid), '\s', '', 'g') NOT IN {own}
                 OR regexp_replace(pg_get_expr(polwithcheck, polrelid), '\s', '', 'g') NOT IN {own})"
    );
    assert_eq!(texts(&loose).await, NONE);
}

#[tokio::test]
async fn keys_between_tenant_tables_carry_the_organization_on_both_sides() {
    let plain = "SELECT conname::text FROM pg_constraint
        JOIN pg_attribute AS ours ON ours.attrelid = conrelid AND ours.attname = 'org_id'
        JOIN pg_attribute AS theirs ON theirs.attrelid = confrelid AND theirs.attname = 'org_id'
        WHERE contype = 'f' AND NOT EXISTS (
            SELECT FROM unnest(conkey, confkey) AS pair(ours, theirs)
            WHERE pair.ours = ours.attnum AND pair.theirs = theirs.attnum)";
    assert_eq!(texts(plain).await, NONE);
    let all = "SELECT count(*)::text FROM pg_constraint
        WHERE contype = 'f' AND conname IN ('asset_owner_fkey', 'session_membership_fkey', 'api_key_created_by_fkey')";
    assert_eq!(texts(all).await, ["3"], "the question finds what it asks about");
}

#[tokio::test]
async fn states_are_no_database_enums() {
    let enums = "SELECT typname::text FROM pg_type WHERE typtype = 'e'";
    assert_eq!(texts(enums).await, NONE);
}

#[tokio::test]
async fn constraints_are_named_by_us() {
    // Violations are recognised by the constraint's name. A generated name would change with the columns.
    let generated = "SELECT conname::text FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'u') AND conname ~ '_(check|fkey|key)[0-9]+$'";
    assert_eq!(texts(generated).await, NONE);
}

#[tokio::test]
async fn the_grants_are_these() {
    let grants = "
        SELECT format('%-15s %-16s %s', grantee, relname, string_agg(privilege, ' ' ORDER BY privilege))
        FROM (
            SELECT relname, coalesce(nullif(acl.grantee, 0)::regrole::text, 'PUBLIC') AS grantee,
                   acl.privilege_type || CASE WHEN acl.is_grantable THEN '*' ELSE '' END AS privilege
            FROM pg_class, aclexplode(relacl) AS acl
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S') AND acl.grantee <> relowner
            UNION ALL
            SELECT relname, coalesce(nullif(acl.grantee, 0)::regrole::text, 'PUBLIC'),
                   acl.privilege_type || '(' || string_agg(attname, ',' ORDER BY attnum) || ')'
            FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl) AS acl
            WHERE relnamespace = 'public'::regnamespace
            GROUP BY relname, acl.grantee, acl.privilege_type
        ) AS granted
        GROUP BY grantee, relname ORDER BY grantee COLLATE \"C\", relname COLLATE \"C\"";
    let expected = "\
sentryops_app   api_key          SELECT(org_id,id,name,prefix,permissions,allowed_cidrs,created_by,created_at,expires_at,last_used_at,revoked_at)
sentryops_app   asset            DELETE INSERT SELECT UPDATE
sentryops_app   asset_tag        DELETE INSERT SELECT
sentryops_app   audit_entry      SELECT
sentryops_app   compliance_run   INSERT SELECT UPDATE
sentryops_app   custody          INSERT SELECT UPDATE
sentryops_app   dependency       DELETE INSERT SELECT UPDATE
sentryops_app   finding          DELETE INSERT SELECT UPDATE
sentryops_app   import_chunk     DELETE INSERT SELECT
sentryops_app   import_error     INSERT SELECT
sentryops_app   import_key       DELETE INSERT SELECT
sentryops_app   import_run       INSERT SELECT UPDATE
sentryops_app   import_table     DELETE INSERT SELECT
sentryops_app   job              DELETE INSERT SELECT UPDATE
sentryops_app   job_history      INSERT SELECT
sentryops_app   member           SELECT
sentryops_app   membership       SELECT(org_id,user_id,active,permissions,created_at,state,invited_at,invited_by,invited_name)
sentryops_app   membership_role  SELECT
sentryops_app   organization     SELECT
sentryops_app   posture          DELETE INSERT SELECT UPDATE
sentryops_app   posture_due      DELETE INSERT SELECT
sentryops_app   role             SELECT
sentryops_app   rule             INSERT SELECT UPDATE
sentryops_app   rule_version     INSERT SELECT
sentryops_app   schedule         DELETE INSERT SELECT UPDATE
sentryops_app   schema_migration SELECT
sentryops_app   session          SELECT
sentryops_app   tag              DELETE INSERT SELECT UPDATE
sentryops_app   user             SELECT(id,email,name,mfa_enabled,created_at,last_seen_at)
sentryops_app   waiver           INSERT SELECT UPDATE
sentryops_auth  api_key          INSERT SELECT UPDATE
sentryops_auth  login_guard      DELETE INSERT SELECT UPDATE
sentryops_auth  member           SELECT
sentryops_auth  membership       INSERT SELECT UPDATE
sentryops_auth  membership_role  DELETE INSERT SELECT UPDATE
sentryops_auth  organization     INSERT SELECT UPDATE
sentryops_auth  posture_due      INSERT
sentryops_auth  refresh_token    DELETE INSERT SELECT UPDATE
sentryops_auth  role             DELETE INSERT SELECT UPDATE
sentryops_auth  schema_migration SELECT
sentryops_auth  session          DELETE INSERT SELECT UPDATE
sentryops_auth  user             INSERT SELECT UPDATE
sentryops_fleet audit_stranger   SELECT
sentryops_fleet import_run       DELETE SELECT(org_id,id,finished_at)
sentryops_fleet job              DELETE INSERT SELECT UPDATE
sentryops_fleet job_history      INSERT SELECT
sentryops_fleet organization     SELECT
sentryops_fleet posture_due      SELECT
sentryops_fleet schedule         SELECT UPDATE
sentryops_fleet schema_migration SELECT
sentryops_fleet worker           DELETE INSERT SELECT UPDATE";
    assert_eq!(texts(grants).await.join("\n"), expected);
}

#[tokio::test]
async fn nobody_of_ours_alters_the_audit_trail() {
    let may = "SELECT rolname || ' ' || privilege FROM pg_roles, unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS privilege
        WHERE rolname IN ('sentryops_app', 'sentryops_auth', 'sentryops_fleet', 'sentryops_test')
          AND (has_table_privilege(oid, 'audit_entry', privilege)
               OR (privilege = 'UPDATE' AND has_any_column_privilege(oid, 'audit_entry', privilege)))";
    assert_eq!(texts(may).await, NONE);
}

#[tokio::test]
async fn the_application_reads_no_secret() {
    let readable = "SELECT attrelid::regclass || '.' || attname FROM pg_attribute
        JOIN pg_class ON pg_class.oid = attrelid AND relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        WHERE attnum > 0
          AND (attname IN ('password_hash', 'secret_hash') OR relname IN ('refresh_token', 'login_guard'))
          AND (has_column_privilege('sentryops_app', attrelid, attnum, 'SELECT')
               OR has_column_privilege('sentryops_fleet', attrelid, attnum, 'SELECT'))";
    assert_eq!(texts(readable).await, NONE);
}

#[tokio::test]
async fn the_login_may_nothing_by_itself() {
    let may = "SELECT relname::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
          AND has_any_column_privilege('sentryops_test', oid, 'SELECT, INSERT, UPDATE')";
    assert_eq!(texts(may).await, NONE);
}

#[tokio::test]
async fn functions_that_run_as_their_owner_are_few_and_closed() {
    // Partitions are tables, so the role that creates and drops them must own them. Entries of the audit trail are only
    // appended.
    let definer = "SELECT proname::text || ': ' || string_agg(rolname, ' ' ORDER BY rolname)
        FROM pg_proc, pg_roles WHERE pronamespace = 'public'::regnamespace AND prosecdef
          AND rolname IN ('sentryops_app', 'sentryops_auth', 'sentryops_fleet', 'sentryops_test')
          AND has_function_privilege(pg_roles.oid, pg_proc.oid, 'EXECUTE')
        GROUP BY proname ORDER BY proname";
    let expected = [
        "audit_append: sentryops_app sentryops_auth",
        "audit_append_stranger: sentryops_auth",
        "audit_delete_strangers: sentryops_fleet",
        "audit_rotate: sentryops_fleet",
        "job_history_rotate: sentryops_fleet",
    ];
    assert_eq!(texts(definer).await, expected);
    let open = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
          AND NOT EXISTS (SELECT FROM unnest(proconfig) AS set (one) WHERE one LIKE 'search_path=pg_catalog, %, pg_temp')";
    assert_eq!(texts(open).await, NONE, "one that may be led to other tables");
}
