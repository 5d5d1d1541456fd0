//! Revocation across replicas: the next request on the other replica is refused. A refresh token works once.

use std::time::Instant;

use serde_json::json;

use crate::{
    client::Client,
    server::{Api, TestDeployment},
    team::{Person, Team, log_in, sign_in, word},
};

const QUERY: &str = "{ viewer { permissions } }";

struct Pair {
    deployment: TestDeployment,
    a: Api,
    b: Api,
    team: Team,
}

impl Pair {
    async fn new() -> Self {
        let deployment = TestDeployment::new().await;
        let (a, b) = tokio::join!(deployment.api(), deployment.api());
        let team = Team::new(&deployment, &a).await;
        Self { deployment, a, b, team }
    }

    /// Creates another user, whose client is connected to replica B.
    async fn member(&self, role: &str) -> Person {
        let person = self.team.member(role).await;
        let client = person.client.at(&self.b);
        assert_eq!(client.execute(QUERY).await.codes(), Vec::<&str>::new());
        Person { client, ..person }
    }

    /// Sends a mutation of the owner to replica A.
    async fn on_a(&self, mutation: &str, id: &str) {
        let query = format!("mutation($id: ID!) {{ {mutation} }}");
        self.team.owner.client.at(&self.a).get_data(&query, json!({ "id": id })).await;
    }
}

async fn assert_gone(client: &Client) {
    let began = Instant::now();
    let answer = client.execute(QUERY).await;
    answer.assert_refused("UNAUTHENTICATED");
    assert!(answer.is_not_executed());
    eprintln!("refused {:?} after it was revoked elsewhere", began.elapsed());
}

#[tokio::test]
async fn what_is_taken_on_one_replica_is_refused_on_the_other_at_once() {
    let pair = Pair::new().await;

    let demoted = pair.member("admin").await;
    demoted.client.get_data("{ users { totalCount } }", json!({})).await;
    pair.on_a("setUserRoles(user: $id, roles: [\"viewer\"]) { id }", &demoted.id).await;
    demoted.client.execute("{ users { totalCount } }").await.assert_refused("FORBIDDEN");
    demoted.client.get_data("{ assets { totalCount } }", json!({})).await;

    let deactivated = pair.member("viewer").await;
    pair.on_a("deactivateUser(user: $id) { id }", &deactivated.id).await;
    assert_gone(&deactivated.client).await;
    let refresh =
        "mutation($token: String!) { refreshSession(refreshToken: $token) { accessToken } }";
    let token = json!({ "token": deactivated.refresh });
    pair.team.nobody.execute_with(refresh, token).await.assert_refused("UNAUTHENTICATED");
    let on_b = pair.team.nobody.at(&pair.b);
    let again = log_in(&on_b, &deactivated.email, crate::team::PASSWORD).await;
    again.assert_refused("UNAUTHENTICATED");

    let ended = pair.member("viewer").await;
    pair.on_a("revokeUserSessions(user: $id)", &ended.id).await;
    assert_gone(&ended.client).await;

    let (id, secret) = pair.team.api_key("Program", &["ASSET_READ"]).await;
    let program = pair.team.nobody.at(&pair.b).with(secret);
    program.get_data(QUERY, json!({})).await;
    pair.on_a("revokeApiKey(id: $id)", &id).await;
    assert_gone(&program).await;

    let locked_out = pair.member("viewer").await;
    let password = ["reset-password", "--email", &locked_out.email, "--password-stdin"];
    pair.deployment.admin(&password, "seven-Green-kites-19-loch");
    assert_gone(&locked_out.client).await;
}

#[tokio::test]
async fn one_ends_ones_own_sessions_and_nobody_elses() {
    let pair = Pair::new().await;
    let first = pair.member("viewer").await;
    let second = sign_in(&pair.team.nobody.at(&pair.b), &first.id, &first.email).await;
    let sessions = "{ viewer { sessions { id current } } }";
    let listed = first.client.get_data(sessions, json!({})).await;
    let listed = listed["viewer"]["sessions"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 2);
    let other = listed.iter().find(|session| session["current"] == false).unwrap();
    let revoke = "mutation($id: ID!) { revokeSession(id: $id) }";
    let stranger = pair.member("viewer").await;
    let answer = stranger.client.execute_with(revoke, json!({ "id": other["id"] })).await;
    answer.assert_refused("NOT_FOUND");
    second.client.get_data(QUERY, json!({})).await;
    first.client.at(&pair.a).get_data(revoke, json!({ "id": other["id"] })).await;
    assert_gone(&second.client).await;
    first.client.get_data(QUERY, json!({})).await;

    first.client.at(&pair.a).get_data("mutation { logout }", json!({})).await;
    assert_gone(&first.client).await;
    let again = first.client.get_data("mutation { logout }", json!({})).await;
    assert_eq!(again, json!({ "logout": true }));
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions() {
    let pair = Pair::new().await;
    let first = pair.member("viewer").await;
    let second = sign_in(&pair.team.nobody.at(&pair.b), &first.id, &first.email).await;
    let change = "mutation($current: String!, $new: String!) { changePassword(current: $current, new: $new) }";
    let new = "seven-Green-kites-19-loch";
    let wrong = json!({ "current": "wrong", "new": new });
    let first_on_a = first.client.at(&pair.a);
    first_on_a.execute_with(change, wrong).await.assert_refused("VALIDATION");
    let weak = json!({ "current": crate::team::PASSWORD, "new": "password123456789" });
    first_on_a.execute_with(change, weak).await.assert_refused("VALIDATION");
    second.client.get_data(QUERY, json!({})).await;
    let right = json!({ "current": crate::team::PASSWORD, "new": new });
    first_on_a.get_data(change, right).await;
    assert_gone(&second.client).await;
    first.client.get_data(QUERY, json!({})).await;
    let old = log_in(&pair.team.nobody, &first.email, crate::team::PASSWORD).await;
    old.assert_refused("UNAUTHENTICATED");
    assert_eq!(log_in(&pair.team.nobody, &first.email, new).await.codes(), Vec::<&str>::new());
}

#[tokio::test]
async fn of_fifty_refreshes_at_once_one_wins_and_the_theft_ends_the_session() {
    let pair = Pair::new().await;
    let person = pair.member("viewer").await;
    let refresh =
        "mutation($token: String!) { refreshSession(refreshToken: $token) { accessToken } }";
    let mut racers = tokio::task::JoinSet::new();
    for index in 0..50 {
        let client = pair.team.nobody.at(if index % 2 == 0 { &pair.a } else { &pair.b });
        let token = json!({ "token": person.refresh });
        racers.spawn(async move { client.execute_with(refresh, token).await });
    }
    let answers = racers.join_all().await;
    let (won, lost): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.codes().is_empty());
    assert_eq!(won.len(), 1);
    for answer in lost {
        answer.assert_refused("UNAUTHENTICATED");
    }
    // The token was reused, so the holder of the next pair may be the thief.
    let access = word(&won[0].body["data"]["refreshSession"]["accessToken"]);
    assert_gone(&pair.team.nobody.at(&pair.b).with(access)).await;
    assert_gone(&person.client).await;
}
