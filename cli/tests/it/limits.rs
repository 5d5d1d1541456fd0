//! Rate limits by account and by address, counted across all replicas through one Redis.

use std::time::Instant;

use crate::{
    client::{Answer, Client, own_address},
    server::{Api, TestDeployment},
    team::{PASSWORD, Team, log_in, unique},
};

const LIMIT: &[(&str, &str)] = &[("AUTH_LIMIT", "10/minute"), ("SESSION_MAX_PER_USER", "100")];
/// Seconds until the bucket regains one attempt.
const REFILL_SECONDS: u64 = 6;

async fn verified(deployment: &TestDeployment) -> usize {
    let sql =
        "SELECT count(*) FROM audit_entry WHERE action IN ('auth.login', 'auth.login_failed')";
    let count: i64 = deployment.db.superuser().await.query_one(sql, &[]).await.unwrap().get(0);
    usize::try_from(count).unwrap()
}

/// Returns the maximum number of admitted attempts: a full bucket, refills since then, and decisions without Redis. A
/// loaded machine may not hear from Redis within the limiter's timeout.
async fn most(since: Instant, replicas: &[&Api]) -> usize {
    let refilled = usize::try_from(since.elapsed().as_secs() / REFILL_SECONDS).unwrap();
    let mut alone = 0;
    for replica in replicas {
        alone += replica.counted("sentryops_limit_fallback_total").await;
    }
    10 + refilled + alone
}

#[tokio::test]
async fn a_burst_over_three_replicas_is_verified_ten_times() {
    let deployment = TestDeployment::new().await;
    let plain = deployment.api().await;
    let (a, b, c) = tokio::join!(
        deployment.api_with(LIMIT),
        deployment.api_with(LIMIT),
        deployment.api_with(LIMIT)
    );
    let replicas = [&a, &b, &c];
    let team = Team::new(&deployment, &plain).await;
    let (_, email) = team.invite("viewer", "Target").await;
    let before = verified(&deployment).await;
    let address = own_address();
    let began = Instant::now();
    let mut burst = tokio::task::JoinSet::new();
    for index in 0..60 {
        let client = Client::new(replicas[index % 3], address);
        let email = email.clone();
        burst.spawn(async move { log_in(&client, &email, PASSWORD).await });
    }
    let (let_in, refused): (Vec<_>, Vec<_>) =
        burst.join_all().await.into_iter().partition(|answer| answer.codes().is_empty());
    let most = most(began, &replicas).await;
    eprintln!("{} of 60 were verified, at most {most} might", let_in.len());
    assert!((10..=most).contains(&let_in.len()), "{} of at most {most}", let_in.len());
    assert_eq!(verified(&deployment).await - before, let_in.len());
    for answer in &refused {
        answer.assert_refused("RATE_LIMITED");
        let extensions = &answer.body["errors"][0]["extensions"];
        assert!(extensions["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{}", answer.text);
    }
    // Another account from another address is not affected.
    let (_, other) = team.invite("viewer", "Other").await;
    let answer = log_in(&Client::new(&a, own_address()), &other, PASSWORD).await;
    assert_eq!(answer.codes(), Vec::<&str>::new(), "{}", answer.text);
}

const ATTEMPTS: usize = 14;

/// Signs in with these e-mails and forwarded hops until the limit refuses. Returns the number of admitted attempts and
/// the last response.
async fn let_in(
    api: &Api,
    email: impl Fn() -> String,
    forwarded: impl Fn(usize) -> Option<String>,
) -> (usize, Answer) {
    let client = Client::new(api, own_address());
    let mut count = 0;
    let mut last = None;
    for index in 0..ATTEMPTS {
        let query = format!(
            "mutation {{ login(email: \"{}\", password: \"wrong\") {{ mfaChallenge }} }}",
            email()
        );
        let mut request = client.post().header("accept", "application/graphql-response+json");
        if let Some(hops) = forwarded(index) {
            request = request.header("x-forwarded-for", hops);
        }
        let answer = Answer::of(request.json(&serde_json::json!({ "query": query }))).await;
        let is_refused = answer.codes() == ["RATE_LIMITED"];
        assert!(is_refused || answer.codes() == ["UNAUTHENTICATED"], "{}", answer.text);
        count += usize::from(!is_refused);
        last = Some(answer);
        if is_refused {
            break;
        }
    }
    (count, last.unwrap())
}

fn stranger() -> String {
    format!("stranger-{}-{}@limits.test", std::process::id(), unique())
}

#[tokio::test]
async fn the_account_is_counted_whatever_the_address_and_the_address_whatever_the_account() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api_with(&[LIMIT, &[("TRUSTED_PROXIES", "127.0.0.0/8")]].concat()).await;
    let run = std::process::id() % 250;
    let began = Instant::now();
    let email = stranger();
    let from_everywhere = |index| Some(format!("100.64.{run}.{index}"));
    let (count, _) = let_in(&api, || email.clone(), from_everywhere).await;
    assert!((10..=most(began, &[&api]).await).contains(&count), "{count}");
    let (count, _) = let_in(&api, stranger, |_| None).await;
    assert!((10..=most(began, &[&api]).await).contains(&count), "{count}");
}

#[tokio::test]
async fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
    let deployment = TestDeployment::new().await;
    let trusting = [LIMIT, &[("TRUSTED_PROXIES", "127.0.0.0/8")]].concat();
    let (plain, behind) = tokio::join!(deployment.api_with(LIMIT), deployment.api_with(&trusting));
    let run = std::process::id() % 250;
    let began = Instant::now();
    let spoofed = |index: usize| Some(format!("198.51.{run}.{index}"));
    let (count, _) = let_in(&plain, stranger, spoofed).await;
    assert!((10..=most(began, &[&plain]).await).contains(&count), "{count}");
    let client_each = |index: usize| Some(format!("203.0.{run}.{index}"));
    assert_eq!(let_in(&behind, stranger, client_each).await.0, ATTEMPTS);
    let began = Instant::now();
    let one_client = |index: usize| Some(format!("192.0.2.{index}, 198.18.{run}.7"));
    let (count, _) = let_in(&behind, stranger, one_client).await;
    assert!((10..=most(began, &[&behind]).await).contains(&count), "{count}");
}

#[tokio::test]
async fn who_is_refused_learns_from_the_head_when_to_come_back() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api_with(LIMIT).await;
    let (_, answer) = let_in(&api, stranger, |_| None).await;
    answer.assert_refused("RATE_LIMITED");
    assert_eq!(answer.status, 429, "{}", answer.text);
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=REFILL_SECONDS).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn an_address_that_fails_thirty_times_is_refused_for_a_while_and_others_are_not() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api().await;
    let team = Team::new(&deployment, &api).await;
    let (_, email) = team.invite("viewer", "Target").await;
    let client = Client::new(&api, own_address());
    for _ in 0..30 {
        let stranger = format!("nobody-{}@limits.test", unique());
        log_in(&client, &stranger, "wrong").await.assert_refused("UNAUTHENTICATED");
    }
    log_in(&client, &email, PASSWORD).await.assert_refused("RATE_LIMITED");
    let elsewhere = Client::new(&api, own_address());
    assert_eq!(log_in(&elsewhere, &email, PASSWORD).await.codes(), Vec::<&str>::new());
}
