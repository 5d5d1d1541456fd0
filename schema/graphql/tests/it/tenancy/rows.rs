//! Checks of the stored rows, read by a superuser.

use std::collections::HashMap;

use tokio_postgres::SimpleQueryMessage;

use super::{Fuzz, MARKS};

use domain::entity;

impl Fuzz {
    pub(super) async fn rows(&self, sql: &str) -> Vec<String> {
        let messages = self.admin.simple_query(sql).await.unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        rows.collect()
    }

    /// Returns the count and a digest of all rows of an organization, per table.
    pub(super) async fn digest(&self, org: usize) -> Vec<String> {
        let org = self.teams[org].org.id.uuid();
        let mut digest = Vec::new();
        for (table, condition) in [
            ("organization", "id = $"),
            (
                "\"user\"",
                "id IN (SELECT user_id FROM membership WHERE org_id = $ AND state = 'ACTIVE')",
            ),
            ("membership", "org_id = $"),
            ("membership_role", "org_id = $"),
            ("role", "org_id = $"),
            ("session", "org_id = $"),
            ("refresh_token", "session_id IN (SELECT id FROM session WHERE org_id = $)"),
            ("api_key", "org_id = $"),
            ("audit_entry", "org_id = $"),
            ("asset", "org_id = $"),
            ("dependency", "org_id = $"),
            ("custody", "org_id = $"),
            ("tag", "org_id = $"),
            ("asset_tag", "org_id = $"),
            ("import_run", "org_id = $"),
            ("import_table", "org_id = $"),
            ("import_chunk", "org_id = $"),
            ("compliance_run", "org_id = $"),
            ("rule", "org_id = $"),
            ("rule_version", "org_id = $"),
            ("waiver", "org_id = $"),
            ("finding", "org_id = $"),
            ("posture", "org_id = $"),
            ("job", "org_id = $"),
            ("job_history", "org_id = $"),
            ("schedule", "org_id = $"),
        ] {
            let condition = condition.replace('$', &format!("'{org}'"));
            let sql = format!(
                "SELECT '{table} ' || count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM {table} AS t WHERE {condition}"
            );
            digest.extend(self.rows(&sql).await);
        }
        digest
    }

    /// Checks that no row carries the other organization's mark, actor or request id.
    pub(super) async fn check_rows(&self) {
        for (org, team) in self.teams.iter().enumerate() {
            let (uuid, own, foreign) = (team.org.id.uuid(), MARKS[org], MARKS[1 - org]);
            for (what, sql) in [
                (
                    "assets with a foreign text",
                    format!(
                        "SELECT t::text FROM asset AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'"
                    ),
                ),
                (
                    "rows with a foreign text",
                    format!(
                        "SELECT t::text FROM dependency AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'
                         UNION ALL SELECT t::text FROM custody AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'
                         UNION ALL SELECT t::text FROM tag AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'
                         UNION ALL SELECT t::text FROM import_run AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'
                         UNION ALL SELECT t::text FROM job AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'
                         UNION ALL SELECT t::text FROM job_history AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'
                         UNION ALL SELECT t::text FROM schedule AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'
                         UNION ALL SELECT t::text FROM waiver AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'
                         UNION ALL SELECT t::text FROM rule_version AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'
                         UNION ALL SELECT t::text FROM compliance_run AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'"
                    ),
                ),
                (
                    "foreign entries",
                    format!(
                        "SELECT t::text FROM audit_entry AS t WHERE org_id = '{uuid}' AND t::text ILIKE '%{foreign}%'"
                    ),
                ),
                (
                    "foreign roles and keys",
                    format!(
                        "SELECT name FROM role WHERE org_id = '{uuid}' AND name ILIKE '%{foreign}%' UNION ALL SELECT name FROM api_key WHERE org_id = '{uuid}' AND name ILIKE '%{foreign}%'"
                    ),
                ),
                (
                    "members with a foreign name",
                    format!(
                        "SELECT \"user\".name FROM membership JOIN \"user\" ON id = user_id WHERE org_id = '{uuid}' AND (\"user\".name ILIKE '%{foreign}%' OR email ILIKE '%{foreign}%')"
                    ),
                ),
                (
                    "entries of foreign requests",
                    format!(
                        "SELECT t::text FROM audit_entry AS t WHERE org_id = '{uuid}' AND request_id LIKE '{foreign}-%'"
                    ),
                ),
                (
                    "entries of foreign actors",
                    format!(
                        "SELECT t::text FROM audit_entry AS t WHERE org_id = '{uuid}' AND actor_id IS NOT NULL AND NOT EXISTS (SELECT FROM membership WHERE org_id = '{uuid}' AND user_id = actor_id) AND NOT EXISTS (SELECT FROM api_key WHERE org_id = '{uuid}' AND id = actor_id)"
                    ),
                ),
                (
                    "people of two organizations",
                    "SELECT user_id::text FROM membership GROUP BY user_id HAVING count(*) > 1"
                        .to_owned(),
                ),
            ] {
                for row in self.rows(&sql).await {
                    self.fault(format!("{own}: {what}: {row}"));
                }
            }
        }
    }

    /// Checks that every id in a response belongs to a row that the organization has, or had and recorded.
    pub(super) async fn check_seen_ids(&self) {
        let mut owners: HashMap<String, usize> = HashMap::new();
        for (org, team) in self.teams.iter().enumerate() {
            let uuid = team.org.id.uuid();
            let sql = format!(
                "SELECT id::text FROM asset WHERE org_id = '{uuid}' UNION SELECT id::text FROM role WHERE org_id = '{uuid}'
                 UNION SELECT id::text FROM api_key WHERE org_id = '{uuid}' UNION SELECT id::text FROM audit_entry WHERE org_id = '{uuid}'
                 UNION SELECT id::text FROM session WHERE org_id = '{uuid}' UNION SELECT '{uuid}'
                 UNION SELECT id::text FROM job WHERE org_id = '{uuid}' UNION SELECT id::text FROM job_history WHERE org_id = '{uuid}'
                 UNION SELECT id::text FROM schedule WHERE org_id = '{uuid}' UNION SELECT id::text FROM compliance_run WHERE org_id = '{uuid}'
                 UNION SELECT id::text FROM dependency WHERE org_id = '{uuid}' UNION SELECT id::text FROM custody WHERE org_id = '{uuid}'
                 UNION SELECT id::text FROM tag WHERE org_id = '{uuid}' UNION SELECT id::text FROM import_run WHERE org_id = '{uuid}'
                 UNION SELECT id::text FROM rule WHERE org_id = '{uuid}' UNION SELECT id::text FROM waiver WHERE org_id = '{uuid}'
                 UNION SELECT id::text FROM finding WHERE org_id = '{uuid}'
                 UNION SELECT id::text FROM gone WHERE org_id = '{uuid}'
                 UNION SELECT user_id::text FROM membership WHERE org_id = '{uuid}'
                 UNION SELECT entity_id::text FROM audit_entry WHERE org_id = '{uuid}'"
            );
            owners.extend(self.rows(&sql).await.into_iter().map(|row| (row, org)));
        }
        let shown = self.seen_ids.lock().unwrap().clone();
        for (text, org) in shown {
            let (_, uuid) = entity::split(&text).unwrap();
            if owners.get(&uuid.to_string()) != Some(&org) {
                self.fault(format!("{text} was shown to {} and is not theirs", MARKS[org]));
            }
        }
    }
}
