//! Refusals in the audit trail: each is found in the organizations of the person, and a flood of them makes few entries.

use domain::{access::permission::Permission, access::refusal::Refusals};
use graphql::{CheckIntervals, Engine};
use serde_json::{Value, json};

use crate::harness::{self, PASSWORD, Reply, Team, TestApp, client, engine_of, nothing, services};

/// An app, and the refusals of its engine.
struct Refusing {
    app: TestApp,
    engine: Engine,
    refusals: Refusals,
}

impl Refusing {
    async fn new() -> Self {
        let app = TestApp::new().await;
        let services = services(app.test.db.clone()).await;
        let refusals = services.identity.refusals().clone();
        let engine = engine_of(services, CheckIntervals::default());
        Self { app, engine, refusals }
    }

    async fn ask(&self, bearer: Option<&str>, document: &str, variables: Value) -> Reply {
        harness::ask(&self.engine, bearer, document, variables, client("the-request")).await
    }

    /// Writes the counts, and returns the entries with this action, oldest first: the organization's slug and the details.
    async fn entries(&self, action: &str) -> Vec<(String, Value)> {
        self.refusals.write(&self.app.test.db).await.unwrap();
        let sql = "SELECT slug, coalesce(after, 'null') AS after FROM audit_entry JOIN organization ON organization.id = org_id
            WHERE action = $1 ORDER BY slug, audit_entry.id";
        let rows = self.app.test.superuser().await.query(sql, &[&action]).await.unwrap();
        rows.iter().map(|row| (row.get("slug"), row.get("after"))).collect()
    }

    /// Writes the counts, and returns the number of refusals of strangers by action.
    async fn strangers(&self) -> Vec<(String, i64)> {
        self.refusals.write(&self.app.test.db).await.unwrap();
        let sql =
            "SELECT action, sum((details ->> 'count')::bigint)::bigint AS count FROM audit_stranger
            WHERE details ->> 'network' = '192.0.2.7' GROUP BY action ORDER BY action";
        let rows = self.app.test.superuser().await.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get("action"), row.get("count"))).collect()
    }

    /// Makes a person of the team a member of another organization too.
    async fn join(&self, team: &Team, role: &str, other: &Team) {
        let sql = format!(
            "INSERT INTO membership (org_id, user_id, created_at) VALUES ('{}', '{}', now())",
            other.org.id.uuid(),
            team[role].id.uuid()
        );
        self.app.execute_sql(&sql).await;
    }
}

#[tokio::test]
async fn permissions_that_are_refused_are_counted_by_actor_and_field() {
    let here = Refusing::new().await;
    let team = here.app.team("alfa").await;
    let (_, key) = here.app.api_key(&team, "ci", &[Permission::AssetRead]).await;
    let users = "{ users { totalCount } }";
    for _ in 0..50 {
        let reply = here.ask(Some(&team["viewer"].bearer), users, nothing()).await;
        assert_eq!(reply.code(), "FORBIDDEN");
    }
    here.ask(Some(&team["operator"].bearer), users, nothing()).await.error();
    here.ask(Some(&key), "{ apiKeys { id } }", nothing()).await.error();
    let entries = here.entries("access.refused").await;
    let mut seen: Vec<_> = entries
        .iter()
        .map(|(_, after)| {
            (
                after["field"].as_str().unwrap(),
                after["permission"].as_str().unwrap(),
                after["count"].as_u64().unwrap(),
            )
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            ("Query.apiKeys", "API_KEY_MANAGE", 1),
            ("Query.users", "USER_READ", 1),
            ("Query.users", "USER_READ", 50)
        ]
    );
    assert_eq!(here.entries("access.refused").await.len(), 3, "nothing is written twice");
}

#[tokio::test]
async fn what_a_resolver_refuses_is_counted_by_its_field_whatever_its_alias() {
    let here = Refusing::new().await;
    let team = here.app.team("alfa").await;
    for alias in ["a", "b"] {
        let document = format!(
            "mutation {{ {alias}: setUserRoles(user: \"{}\", roles: [\"viewer\"]) {{ id }} }}",
            team["owner"].id
        );
        let reply = here.ask(Some(&team["admin"].bearer), &document, nothing()).await;
        assert_eq!(reply.code(), "FORBIDDEN", "{}", reply.text);
    }
    let entries = here.entries("access.refused").await;
    let [(_, after)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((&after["field"], &after["count"]), (&json!("Mutation.setUserRoles"), &json!(2)));
}

#[tokio::test]
async fn strangers_are_counted_by_their_network() {
    let here = Refusing::new().await;
    let team = here.app.team("alfa").await;
    let (_, key) = here.app.api_key(&team, "ci", &[Permission::AssetRead]).await;
    here.app.execute_sql("UPDATE api_key SET prefix = 'zzzzzzzz'").await;
    let login = "mutation { login(email: \"nobody@alfa.example\", password: \"x\") { tokens { accessToken } } }";
    let refresh = "mutation { refreshSession(refreshToken: \"unknown\") { accessToken } }";
    for _ in 0..3 {
        here.ask(None, login, nothing()).await.error();
        here.ask(None, refresh, nothing()).await.error();
        here.ask(Some(&key), "{ viewer { permissions } }", nothing()).await.error();
    }
    let expected = [("api_key.refused", 3), ("auth.login_failed", 3), ("auth.refresh_refused", 3)];
    assert_eq!(here.strangers().await, expected.map(|(action, count)| (action.to_owned(), count)));
}

#[tokio::test]
async fn a_refused_key_is_found_in_its_organization_with_the_reason() {
    let here = Refusing::new().await;
    let team = here.app.team("alfa").await;
    let (_, key) = here.app.api_key(&team, "ci", &[Permission::AssetRead]).await;
    for set in ["revoked_at = now()", "revoked_at = NULL, expires_at = now() - interval '1 day'"] {
        here.app.execute_sql(&format!("UPDATE api_key SET {set}")).await;
        for _ in 0..2 {
            here.ask(Some(&key), "{ viewer { permissions } }", nothing()).await.error();
        }
    }
    let entries = here.entries("api_key.refused").await;
    let mut seen: Vec<_> = entries
        .iter()
        .map(|(_, after)| (after["reason"].to_string(), after["count"].as_u64().unwrap()))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [("\"expired\"".to_owned(), 2), ("\"revoked\"".to_owned(), 2)]);
    assert!(here.strangers().await.is_empty());
}

#[tokio::test]
async fn refusals_of_a_person_are_found_in_each_of_their_organizations() {
    let here = Refusing::new().await;
    let (team, other) = (here.app.team("alfa").await, here.app.team("bravo").await);
    here.join(&team, "viewer", &other).await;
    let person = &team["viewer"];
    let login = "mutation($email: String!) { login(email: $email, password: \"wrong\") { tokens { accessToken } } }";
    here.ask(None, login, json!({ "email": person.email })).await.error();
    let change = "mutation { changePassword(current: \"wrong wrong wrong\", new: \"another pelican mosaic\") }";
    here.ask(Some(&person.bearer), change, nothing()).await.error();
    here.ask(Some(&person.bearer), "mutation { logout }", nothing()).await.data();
    let refresh =
        "mutation($token: String!) { refreshSession(refreshToken: $token) { accessToken } }";
    here.ask(None, refresh, json!({ "token": person.refresh })).await.error();
    for action in ["auth.login_failed", "auth.password_refused", "auth.refresh_refused"] {
        let slugs: Vec<_> = here.entries(action).await.into_iter().map(|(slug, _)| slug).collect();
        assert_eq!(slugs, ["alfa", "bravo"], "{action}");
    }
    assert!(here.strangers().await.is_empty());
    here.app.identity.login(&person.email, PASSWORD, &harness::caller()).await.unwrap();
}

#[tokio::test]
async fn a_download_that_is_only_checked_is_not_recorded() {
    let here = Refusing::new().await;
    let team = here.app.team("alfa").await;
    for download in [graphql::Download::Export, graphql::Download::Report] {
        let bearer = Some(team["viewer"].bearer.as_str());
        assert!(here.engine.check_download(download, bearer, client("x")).await.is_ok());
        let refused = here.engine.check_download(download, None, client("x")).await.err().unwrap();
        assert_eq!(Reply::from(refused).code(), "UNAUTHENTICATED");
    }
    for action in ["asset.exported", "compliance_report.printed", "finding.exported"] {
        assert!(here.entries(action).await.is_empty(), "{action}");
    }
}

#[tokio::test]
async fn reports_that_are_downloaded_are_recorded() {
    let here = Refusing::new().await;
    let team = here.app.team("alfa").await;
    let bearer = Some(team["viewer"].bearer.as_str());
    assert!(here.engine.print_report("latest", bearer, client("x")).await.is_ok());
    assert!(here.engine.report_file("latest", bearer, client("x")).await.is_ok());
    for action in ["compliance_report.printed", "finding.exported"] {
        assert_eq!(here.entries(action).await.len(), 1, "{action}");
    }
}

#[tokio::test]
async fn counts_that_cannot_be_written_are_kept() {
    let here = Refusing::new().await;
    let team = here.app.team("alfa").await;
    let revoke = "DO $$ BEGIN EXECUTE format('VERB EXECUTE ON FUNCTION %s TO_FROM sentryops_auth', 'audit_append'::regproc::regprocedure); END $$";
    let users = "{ users { totalCount } }";
    here.ask(Some(&team["viewer"].bearer), users, nothing()).await.error();
    here.app.execute_sql(&revoke.replace("VERB", "REVOKE").replace("TO_FROM", "FROM")).await;
    assert!(here.refusals.write(&here.app.test.db).await.is_err());
    here.ask(Some(&team["viewer"].bearer), users, nothing()).await.error();
    here.app.execute_sql(&revoke.replace("VERB", "GRANT").replace("TO_FROM", "TO")).await;
    let entries = here.entries("access.refused").await;
    let [(_, after)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(after["count"], 2);
}
