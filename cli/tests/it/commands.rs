//! The other commands: output, refusals, exit codes.

mod introspected;
mod posture;

use std::process::{Command, Output};

use domain::testing::{admin_url, connect};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::{
    cancel::{lock, waiting},
    server::{BINARY, TestDeployment, command, run, shared_server, text, until},
    team::{PASSWORD, Team, log_in, unique},
    wire,
};

async fn definitions() -> [Vec<String>; 2] {
    let (team, _world) = Team::on_shared_server().await;
    let served = team.owner.client.get_data(introspected::QUERY, json!({})).await;
    let output = run(command(&["schema"]), "");
    assert!(output.status.success());
    [introspected::definitions(&served["__schema"]), introspected::printed(&text(&output.stdout))]
}

#[tokio::test]
async fn schema_prints_what_introspection_serves() {
    let [served, mut printed] = definitions().await;
    // No field returns `ErrorCode`, and introspection shows only types that are reachable from a field.
    printed.retain(|definition| !definition.contains("enum ErrorCode"));
    for (served, printed) in served.iter().zip(&printed) {
        assert_eq!(served, printed);
    }
    assert_eq!(served.len(), printed.len());
}

#[tokio::test]
async fn introspection_can_be_switched_off() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api_with(&[("GRAPHQL_INTROSPECTION", "false")]).await;
    let client = crate::client::Client::new(&api, crate::client::own_address());
    for query in ["{ __schema { types { name } } }", "{ __type(name: \"Asset\") { name } }"] {
        let answer = client.execute(query).await;
        answer.assert_well_formed();
        assert!(
            !answer.errors().is_empty() && !answer.text.contains("\"Asset\""),
            "{}",
            answer.text
        );
    }
    assert!(!client.execute("{ asets { totalCount } }").await.text.contains("assets"));
}

fn doctor(command: Command) -> (Option<i32>, String) {
    let output = run(command, "");
    (output.status.code(), text(&output.stdout))
}

#[tokio::test]
async fn doctor_tells_good_from_bad() {
    let deployment = TestDeployment::new().await;
    let (code, message) = doctor(deployment.command(&["doctor"]));
    assert_eq!(code, Some(0), "{message}");
    assert!(!message.contains("BAD") && message.contains("Redis answers"), "{message}");

    let mut behind = deployment.command(&["doctor"]);
    let fresh = Fresh::new().await;
    behind.env("DATABASE_URL", &fresh.app);
    let (code, message) = doctor(behind);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("BAD"), "{message}");

    let mut superuser = deployment.command(&["doctor"]);
    superuser.env("DATABASE_URL", admin_url());
    let (code, message) = doctor(superuser);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("BAD"), "{message}");

    let mut alone = deployment.command(&["doctor"]);
    alone
        .env("REDIS_URL", "redis://127.0.0.1:1")
        .env("DATABASE_URL", "postgres://a:b@127.0.0.1:1/c");
    let (code, message) = doctor(alone);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("BAD   Redis") && message.matches("BAD").count() >= 2, "{message}");
}

fn refused(output: &Output, words: &[&str]) {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[tokio::test]
async fn admin_says_what_it_refuses_and_does_nothing() {
    let deployment = TestDeployment::new().await;
    let slug = format!("admin-{}", unique());
    deployment.admin(&["create-organization", "--slug", &slug, "--name", "Team"], "");
    let admin = |arguments: &[&str], password: &str| {
        run(deployment.command(&[&["admin"], arguments].concat()), password)
    };
    let again = admin(&["create-organization", "--slug", &slug, "--name", "Again"], "");
    refused(&again, &["slug"]);
    refused(&admin(&["create-organization", "--slug", "A b", "--name", "X"], ""), &[]);
    let person = |email: &str, role: &str, slug: &str, password: &str| {
        let arguments = [
            "create-user",
            "--email",
            email,
            "--name",
            "P",
            "--role",
            role,
            "--organization",
            slug,
            "--password-stdin",
        ];
        admin(&arguments, password)
    };
    refused(&person("a@b.test", "viewer", "nowhere", PASSWORD), &["--organization", "nowhere"]);
    refused(&person("a@b.test", "emperor", &slug, PASSWORD), &["role"]);
    refused(&person("no e-mail", "viewer", &slug, PASSWORD), &["e-mail"]);
    let weak = person("a@b.test", "viewer", &slug, "password123456789");
    refused(&weak, &["password"]);
    assert!(!text(&weak.stderr).contains("password123456789"));
    refused(&person("a@b.test", "viewer", &slug, "short"), &["password"]);
    refused(&person("a@b.test", "viewer", &slug, ""), &["password"]);
    refused(
        &admin(&["reset-password", "--email", "a@b.test", "--password-stdin"], PASSWORD),
        &["--email"],
    );
    refused(
        &admin(
            &[
                "grant",
                "--email",
                "a@b.test",
                "--permission",
                "ASSET_READ",
                "--organization",
                &slug,
            ],
            "",
        ),
        &["FLEET_READ"],
    );
    let usage = admin(&["create-user", "--email", "a@b.test", "--name", "P"], "");
    assert_eq!(usage.status.code(), Some(2));
    let postgres = deployment.db.superuser().await;
    let count = async |table: &str| -> i64 {
        postgres.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
    };
    assert_eq!((count("organization").await, count("\"user\"").await), (1, 0));
    // The first user need not be an owner: `--role viewer` is accepted.
    assert!(person("a@b.test", "viewer", &slug, PASSWORD).status.success());
    assert_eq!(count("\"user\"").await, 1);
}

#[tokio::test]
async fn a_grant_for_the_installation_comes_from_the_command_line_only() {
    let (team, shared_server) = Team::on_shared_server().await;
    let permissions = "{ viewer { permissions } }";
    let has = async || {
        let seen = team.owner.client.get_data(permissions, json!({})).await;
        seen["viewer"]["permissions"].as_array().unwrap().contains(&json!("FLEET_READ"))
    };
    let role =
        "mutation { saveRole(key: \"fleet\", name: \"Fleet\", permissions: [FLEET_READ]) { id } }";
    assert!(!team.owner.client.execute(role).await.errors().is_empty());
    let key = "mutation($at: DateTime!) { createApiKey(input: { name: \"k\", permissions: [FLEET_READ], expiresAt: $at }) { secret } }";
    let at = (crate::team::chrono_now() + chrono::TimeDelta::days(1)).to_rfc3339();
    assert!(!team.owner.client.execute_with(key, json!({ "at": at })).await.errors().is_empty());
    assert!(!has().await);
    let grant = [
        "grant",
        "--email",
        &team.owner.email,
        "--organization",
        &team.slug,
        "--permission",
        "FLEET_READ",
    ];
    shared_server.deployment.admin(&grant, "");
    assert!(has().await);
    shared_server.deployment.admin(&grant[..5], "");
    assert!(!has().await);
}

#[tokio::test]
async fn a_password_is_made_where_none_is_given() {
    let (team, shared_server) = Team::on_shared_server().await;
    let email = format!("made@{}.test", team.slug);
    let arguments = [
        "create-user",
        "--email",
        &email,
        "--name",
        "Made",
        "--role",
        "viewer",
        "--organization",
        &team.slug,
    ];
    let printed = shared_server.deployment.admin(&arguments, "");
    let (_, password) = printed.split_once('\n').unwrap();
    assert_eq!(log_in(&team.nobody, &email, password).await.codes(), Vec::<&str>::new());
    let reset = shared_server.deployment.admin(&["reset-password", "--email", &email], "");
    log_in(&team.nobody, &email, password).await.assert_refused("UNAUTHENTICATED");
    assert_eq!(log_in(&team.nobody, &email, &reset).await.codes(), Vec::<&str>::new());
}

/// An empty database that belongs to the owner.
struct Fresh {
    owner: String,
    app: String,
}

impl Fresh {
    async fn new() -> Self {
        let name = format!("fresh_{}_{}", std::process::id(), unique());
        let at = |variable: &str| {
            let url = std::env::var(variable).unwrap();
            format!("{}/{name}", url.rsplit_once('/').unwrap().0)
        };
        let admin = connect(&admin_url()).await;
        admin
            .batch_execute(&format!("CREATE DATABASE {name} OWNER sentryops_owner"))
            .await
            .unwrap();
        Self { owner: at("DATABASE_OWNER_URL"), app: at("DATABASE_URL") }
    }

    fn migrate(&self, arguments: &[&str]) -> Output {
        let mut command = command(&[&["migrate"], arguments].concat());
        command.env("DATABASE_URL", &self.app).env("DATABASE_OWNER_URL", &self.owner);
        run(command, "")
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.migrate(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

#[tokio::test]
async fn migrations_go_up_and_down_and_up_again() {
    let fresh = Fresh::new().await;
    let versions = migrations::all().len();
    let count =
        |message: &str, word: &str| message.lines().filter(|line| line.contains(word)).count();
    assert_eq!(count(&fresh.done(&["status"]), "pending"), versions);
    assert_eq!(count(&fresh.done(&["up"]), "up  "), versions);
    assert_eq!(fresh.done(&["up"]), "");
    assert_eq!(count(&fresh.done(&["status"]), "applied"), versions);
    assert_eq!(count(&fresh.done(&["down", "--to", "0"]), "down  "), versions);
    let admin = connect(&fresh.owner).await;
    let sql = "SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
               WHERE nspname = 'public' AND relkind IN ('r', 'v', 'S', 'p') AND relname <> 'sentryops_migration'";
    let left: i64 = admin.query_one(sql, &[]).await.unwrap().get(0);
    let sql = "SELECT count(*) FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'public'";
    let functions: i64 = admin.query_one(sql, &[]).await.unwrap().get(0);
    assert!(left <= 1, "{left} relations are left");
    assert_eq!(functions, 0);
    assert_eq!(count(&fresh.done(&["up"]), "up  "), versions);
    refused(&fresh.migrate(&["down", "--to=-1"]), &[]);
    refused(&fresh.migrate(&["down", "--to", "9999"]), &[]);
    let mut without = command(&["migrate", "up"]);
    without.env("DATABASE_URL", &fresh.app);
    refused(&run(without, ""), &["DATABASE_OWNER_URL"]);
}

#[tokio::test]
async fn two_who_migrate_at_once_do_it_once() {
    let fresh = Fresh::new().await;
    let message: Vec<_> = std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| fresh.done(&["up"]))).collect();
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let applied = message.concat().lines().filter(|line| line.starts_with("up  ")).count();
    assert_eq!(applied, migrations::all().len(), "{message:?}");
}

#[tokio::test]
async fn a_terminated_api_answers_what_is_in_flight_and_exits_with_0() {
    let deployment = TestDeployment::new().await;
    let mut api = deployment.api().await;
    let team = Team::new(&deployment, &api).await;
    let watcher = deployment.db.superuser().await;
    let holder = lock(&deployment).await;
    let mut stream = wire::connect(&api).await;
    let body = br#"{"query":"{ assets { totalCount } }"}"#;
    stream.write_all(&wire::post(Some(&team.owner.access), body)).await.unwrap();
    until("the query waits", async || (waiting(&watcher).await > 0).then_some(())).await;
    api.terminate();
    let closed = async || tokio::net::TcpStream::connect(api.address).await.err();
    until("no new connection is taken", closed).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    let answer = wire::read(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"totalCount\":0"), "{answer}");
    let status = api.end().await;
    assert_eq!(status.code(), Some(0), "{}", api.log());
    assert_eq!(api.printed(), "");
}

#[tokio::test]
async fn an_api_that_finds_its_port_taken_says_so() {
    let shared_server = shared_server().await;
    let mut command = shared_server.deployment.command(&["api"]);
    command.env("LISTEN_ADDR", shared_server.api.address.to_string());
    let output = run(command, "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("LISTEN_ADDR"), "{}", text(&output.stderr));
}

#[test]
fn services_run_a_command_and_end_as_it_ends() {
    let services = |script: &str| {
        let mut command = Command::new(BINARY);
        command.args(["services", "--", "sh", "-c", script]).env_remove("TEST_ADMIN_URL");
        command.env_remove("DATABASE_URL").env_remove("DATABASE_OWNER_URL").env_remove("REDIS_URL");
        run(command, "")
    };
    let output =
        services("echo \"$DATABASE_URL $REDIS_URL\"; test -n \"$TEST_ADMIN_URL\" && exit 7");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let socket = printed.trim().rsplit_once("@local").unwrap().1;
    assert!(!std::path::Path::new(socket).parent().unwrap().exists(), "{socket} is left behind");
    assert_ne!(printed.split(' ').next(), std::env::var("DATABASE_URL").ok().as_deref());
}
