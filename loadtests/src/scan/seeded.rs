//! Organizations filled by SQL, and the expected verdicts of every rule. SQL is used because up to a million assets
//! must exist before a measurement starts.
//!
//! A hash of the seed, the asset's number and the fact's index in the list of facts (the hash position) decides whether
//! the fact is missing, bad (fails the rule) or good (passes). The expected counts are computed from these hashes,
//! never from stored rows. 5 % of the facts are missing and 12 % are bad. Ages and expiry times are spread over weeks.
//! None of them changes a verdict within three hours, so that a second run in that time changes nothing.

use std::fmt::Write;

use anyhow::{Context, Result};
use tokio_postgres::types::ToSql;

use crate::deployment::{Deployment, Tenant};

/// Number of missing facts per ten thousand.
const MISSING: i32 = 500;
/// Number of missing or bad facts per ten thousand.
const BAD: i32 = 1_700;
/// Number of retired assets per ten thousand.
const RETIRED: i32 = 300;
/// Number of assets without an owner per ten thousand.
const OWNERLESS: i32 = 1_200;
/// Number of users who own assets.
const OWNERS: i32 = 50;
/// Number of owners without a second factor.
const WITHOUT_MFA: i32 = 6;
/// Hash positions of other properties than facts: retirement, having an owner, and the owner's number.
const RETIRED_POSITION: usize = 60;
const OWNED_POSITION: usize = 61;
const OWNER_POSITION: usize = 62;
/// Every hundredth asset is changed by [`Seeding::change`].
pub(super) const CHANGED_EVERY: i64 = 100;

/// A seeded fact: the attribute's key, the rule that reads the attribute, and SQL expressions for a failing and a
/// passing value. `{u}` in an expression is a pseudo-random fraction, 0 or more and less than 1.
struct Seeded {
    key: &'static str,
    rule: &'static str,
    bad: &'static str,
    good: &'static str,
}

const fn seeded(
    key: &'static str,
    rule: &'static str,
    bad: &'static str,
    good: &'static str,
) -> Seeded {
    Seeded { key, rule, bad, good }
}

/// Seeded facts. The index of a fact is its hash position. Edits and changes invert the first fact.
const FACTS: [Seeded; 14] = [
    seeded("disk_encrypted", "disk-encryption", "false", "true"),
    seeded("encryption_in_transit", "encryption-in-transit", "false", "true"),
    seeded("edr_installed", "edr-present", "false", "true"),
    seeded("antivirus_installed", "antivirus-present", "false", "true"),
    seeded("has_default_credentials", "no-default-credentials", "true", "false"),
    seeded("logging_enabled", "logging-enabled", "false", "true"),
    seeded("firewall_enabled", "firewall-enabled", "false", "true"),
    seeded(
        "password_max_age_days",
        "password-max-age",
        "(ARRAY[91, 180, 365])[1 + trunc({u} * 3)::int]",
        "(ARRAY[30, 60, 90])[1 + trunc({u} * 3)::int]",
    ),
    seeded(
        "log_retention_days",
        "log-retention",
        "(ARRAY[7, 14, 29])[1 + trunc({u} * 3)::int]",
        "(ARRAY[30, 90, 365])[1 + trunc({u} * 3)::int]",
    ),
    seeded(
        "open_ports",
        "no-high-risk-open-ports",
        "(ARRAY['[21, 22]', '[22, 23]', '[445, 3389]', '[22, 2323]']::jsonb[])[1 + trunc({u} * 4)::int]",
        "(ARRAY['[22, 443]', '[80, 443]', '[22, 5432]', '[]']::jsonb[])[1 + trunc({u} * 4)::int]",
    ),
    seeded(
        "os_name",
        "os-supported",
        "(ARRAY['Debian GNU/Linux 10 (buster)', 'Ubuntu 18.04.6 LTS'])[1 + trunc({u} * 2)::int]",
        "(ARRAY['Debian GNU/Linux 13 (trixie)', 'Ubuntu 24.04.1 LTS'])[1 + trunc({u} * 2)::int]",
    ),
    seeded(
        "last_backup_at",
        "backup-recency",
        "pg_temp.day(-7.1 - {u} * 10)",
        "pg_temp.day({u} * -6.8)",
    ),
    seeded(
        "last_patched_at",
        "patch-age",
        "pg_temp.day(-30.1 - {u} * 60)",
        "pg_temp.day({u} * -29.8)",
    ),
    seeded(
        "tls_cert_expires_at",
        "tls-cert-expiry",
        "pg_temp.day(29.9 - {u} * 40)",
        "pg_temp.day(30.2 + {u} * 180)",
    ),
];

/// Numbers of a rule's `PASS`, `FAIL` and `NOT_ASSESSED` verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdicts {
    pub(super) rule: String,
    pub(super) passed: i64,
    pub(super) failed: i64,
    pub(super) not_assessed: i64,
}

/// Parameters of the seeded data of an organization.
pub(super) struct Seeding<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) tenant: &'a Tenant,
    pub(super) assets: i64,
    pub(super) seed: u64,
}

impl Seeding<'_> {
    /// Fills an empty organization with owners and assets.
    pub(super) async fn fill(&self) -> Result<()> {
        let seed = self.seed();
        let facts = FACTS.iter().enumerate().fold(String::new(), |mut facts, (place, fact)| {
            let Seeded { key, bad, good, .. } = fact;
            let value = format!(
                "CASE WHEN pg_temp.roll({place}, number, {seed}) >= {BAD} THEN to_jsonb({good})
                      WHEN pg_temp.roll({place}, number, {seed}) >= {MISSING} THEN to_jsonb({bad}) END"
            );
            // The offset of 100 makes these hash positions different from those of the facts.
            let fraction = format!("(pg_temp.roll({}, number, {seed}) / 10000.0)", place + 100);
            let comma = if place == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(facts, "{comma}'{key}', {}", value.replace("{u}", &fraction));
            facts
        });
        let slug = &self.tenant.slug;
        let assets = self.assets;
        let make = format!(
            "CREATE OR REPLACE FUNCTION pg_temp.roll(place int, number bigint, seed bigint) RETURNS int LANGUAGE sql IMMUTABLE
             AS $$ SELECT (abs(hashint8extended(number * 256 + place, seed) % 10000))::int $$;
             CREATE OR REPLACE FUNCTION pg_temp.day(days numeric) RETURNS text LANGUAGE sql STABLE
             AS $$ SELECT to_char((now() + days * interval '1 day') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') $$;
             INSERT INTO \"user\" (id, email, name, mfa_enabled, created_at)
             SELECT gen_random_uuid(), 'owner-' || number || '@{slug}.example', 'Owner ' || number, number >= {WITHOUT_MFA}, now()
             FROM generate_series(0, {OWNERS} - 1) AS number;
             INSERT INTO membership (org_id, user_id, created_at)
             SELECT organization.id, \"user\".id, now() FROM organization, \"user\"
             WHERE slug = '{slug}' AND email LIKE 'owner-%@{slug}.example';
             WITH org AS (SELECT id FROM organization WHERE slug = '{slug}'),
             owners AS (SELECT array_agg(id ORDER BY split_part(split_part(email, '@', 1), '-', 2)::int) AS ids
                        FROM \"user\" WHERE email LIKE 'owner-%@{slug}.example'),
             -- Increasing ids, like those that the application generates.
             numbered AS (SELECT number, lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint + number / 4096), 12, '0') AS at,
                                 lpad(to_hex(number % 4096), 3, '0') AS place, md5(number || '{slug}') AS rest,
                                 jsonb_strip_nulls(jsonb_build_object({facts})) AS attributes
                          FROM generate_series(1::bigint, {assets}) AS number)
             INSERT INTO asset (org_id, id, code, external_id, name, type, lifecycle_state, environment, location, owner_id,
                                attributes, sources, created_at, updated_at)
             SELECT org.id, (at || '7' || place || '8' || substr(rest, 1, 15))::uuid, 'LOAD-' || number, 'load:' || number,
                    'load-' || number,
                    (ARRAY['HOST', 'HOST', 'HOST', 'NETWORK_DEVICE', 'SERVICE', 'CLOUD_RESOURCE'])[1 + number % 6],
                    CASE WHEN pg_temp.roll({RETIRED_POSITION}, number, {seed}) < {RETIRED} THEN 'RETIRED' ELSE 'ACTIVE' END,
                    (ARRAY['PROD', 'PROD', 'STAGING', 'DEV'])[1 + number % 4], 'fra1-r' || number % 400,
                    CASE WHEN pg_temp.roll({OWNED_POSITION}, number, {seed}) >= {OWNERLESS}
                         THEN owners.ids[1 + pg_temp.roll({OWNER_POSITION}, number, {seed}) % {OWNERS}] END,
                    attributes,
                    (SELECT jsonb_object_agg(key, jsonb_build_array('IMPORTED', floor(extract(epoch FROM now()) * 1000)::bigint))
                     FROM jsonb_object_keys(attributes) AS key),
                    now(), now()
             FROM numbered, org, owners"
        );
        self.deployment.postgres.batch_execute(&make).await.context("fill an organization")?;
        self.deployment.stores.vacuum().await
    }

    /// Inverts the first fact of every hundredth asset, if the asset has the fact. The SQL statement bypasses the
    /// detection of changes. Returns the numbers of findings that the next run opens and fixes if this is the first
    /// change; a second change reverses the first.
    pub(super) async fn change(&self) -> Result<(i64, i64)> {
        let slug: &(dyn ToSql + Sync) = &self.tenant.slug;
        let key = FACTS[0].key;
        let invert = format!(
            "UPDATE asset SET attributes = jsonb_set(attributes, '{{{key}}}', to_jsonb(attributes->>'{key}' = 'false')), updated_at = now()
             FROM organization WHERE organization.id = asset.org_id AND slug = $1 AND attributes ? '{key}'
               AND substring(external_id FROM '^load:([0-9]+)$')::bigint % {CHANGED_EVERY} = 0"
        );
        self.deployment.postgres.execute(&invert, &[slug]).await.context("change some assets")?;
        let seed = self.seed();
        let sql = format!(
            "SELECT count(*) FILTER (WHERE fact >= {BAD}), count(*) FILTER (WHERE fact >= {MISSING} AND fact < {BAD})
             FROM (SELECT pg_temp.roll(0, number, {seed}) AS fact, pg_temp.roll({RETIRED_POSITION}, number, {seed}) AS life
                   FROM generate_series({CHANGED_EVERY}::bigint, $1, {CHANGED_EVERY}::bigint) AS number) AS rolled
             WHERE life >= {RETIRED}"
        );
        let row = self.deployment.postgres.query_one(&sql, &[&self.assets]).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// Returns the expected number of assets in operation.
    pub(super) async fn in_operation(&self) -> Result<i64> {
        let sql = format!(
            "SELECT count(*) FROM generate_series(1::bigint, $1) AS number WHERE pg_temp.roll({RETIRED_POSITION}, number, {}) >= {RETIRED}",
            self.seed()
        );
        Ok(self.deployment.postgres.query_one(&sql, &[&self.assets]).await?.try_get(0)?)
    }

    /// Returns the expected numbers of verdicts of every rule before any change, sorted by rule.
    pub(super) async fn expected(&self) -> Result<Vec<Verdicts>> {
        let seed = self.seed();
        let facts = FACTS.iter().enumerate().map(|(place, Seeded { rule, .. })| {
            format!(
                "('{rule}'::text, sum((pg_temp.roll({place}, number, {seed}) >= {BAD})::int),
                  sum((pg_temp.roll({place}, number, {seed}) BETWEEN {MISSING} AND {BAD} - 1)::int))"
            )
        });
        let owned = format!("pg_temp.roll({OWNED_POSITION}, number, {seed}) >= {OWNERLESS}");
        let without_mfa =
            format!("pg_temp.roll({OWNER_POSITION}, number, {seed}) % {OWNERS} < {WITHOUT_MFA}");
        let facts = facts.collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT rule, passed, failed, total - passed - failed AS not_assessed
             FROM (SELECT count(*) AS total,
                          ARRAY[{facts},
                                ('has-owner'::text, sum(({owned})::int), sum((NOT {owned})::int)),
                                ('owner-mfa'::text, sum(({owned} AND NOT {without_mfa})::int), sum(({owned} AND {without_mfa})::int))] AS found
                   FROM generate_series(1::bigint, $1) AS number
                   WHERE pg_temp.roll({RETIRED_POSITION}, number, {seed}) >= {RETIRED}) AS counted,
                  UNNEST(found) AS one (rule text, passed bigint, failed bigint)
             ORDER BY rule COLLATE \"C\""
        );
        self.verdicts(&sql, &[&self.assets]).await
    }

    /// Returns the numbers of verdicts stored in the postures, sorted by rule.
    pub(super) async fn found(&self) -> Result<Vec<Verdicts>> {
        let sql = "SELECT rule.key AS rule, found.*
            FROM organization JOIN rule ON rule.org_id = organization.id CROSS JOIN LATERAL (
                SELECT count(*) FILTER (WHERE letter = 'P') AS passed, count(*) FILTER (WHERE letter = 'F') AS failed,
                       count(*) FILTER (WHERE letter = 'N') AS not_assessed
                FROM (SELECT substr(verdicts, slot + 1, 1) AS letter FROM posture WHERE posture.org_id = rule.org_id) AS of) AS found
            WHERE slug = $1 ORDER BY rule.key COLLATE \"C\"";
        self.verdicts(sql, &[&self.tenant.slug]).await
    }

    async fn verdicts(&self, sql: &str, given: &[&(dyn ToSql + Sync)]) -> Result<Vec<Verdicts>> {
        let rows =
            self.deployment.postgres.query(sql, given).await.with_context(|| sql.to_owned())?;
        let verdicts = rows.iter().map(|row| {
            Ok(Verdicts {
                rule: row.try_get("rule")?,
                passed: row.try_get("passed")?,
                failed: row.try_get("failed")?,
                not_assessed: row.try_get("not_assessed")?,
            })
        });
        verdicts.collect()
    }

    fn seed(&self) -> i64 {
        self.seed.cast_signed()
    }
}
