//! Forged and stale bearers, and operations that ignore the bearer.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    client::Client,
    server::{TestDeployment, TestKeyRing},
    team::{PASSWORD, Team, chrono_now, log_in, sign_in, word},
};

const QUERY: &str = "{ viewer { actor { ... on User { id } } } }";

fn hmac(key: &[u8; 32], message: &str) -> Vec<u8> {
    let padded = |pad: u8| -> Vec<u8> {
        let key = key.iter().copied().chain([0; 32]);
        key.map(|byte| byte ^ pad).collect()
    };
    let inner = Sha256::digest([padded(0x36), message.as_bytes().to_vec()].concat());
    Sha256::digest([padded(0x5c), inner.to_vec()].concat()).to_vec()
}

/// Returns a copy of a real token with changed fields (null removes one), signed with a given key.
pub fn forged(real: &str, key: &[u8; 32], header: &Value, claims: &Value) -> String {
    let mut parts = real.split('.').take(2).map(|part| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    });
    let (mut new_header, mut new_claims) = (parts.next().unwrap(), parts.next().unwrap());
    for (target, changes) in [(&mut new_header, header), (&mut new_claims, claims)] {
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                target.as_object_mut().unwrap().remove(name);
            } else {
                target[name] = value.clone();
            }
        }
    }
    let [header, claims] =
        [new_header, new_claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let message = format!("{header}.{claims}");
    let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac(key, &message));
    format!("{message}.{signature}")
}

#[tokio::test]
async fn a_bearer_that_is_not_a_live_access_token_of_ours_is_refused() {
    let (team, shared_server) = Team::on_shared_server().await;
    let (other, _world) = Team::on_shared_server().await;
    let (real, key) = (team.owner.access.as_str(), &shared_server.deployment.jwt.secret);
    let now = chrono_now().timestamp();
    let none = json!({});
    let same = forged(real, key, &none, &none);
    let answer = team.nobody.with(same).execute(QUERY).await;
    assert_eq!(
        answer.body["data"]["viewer"]["actor"]["id"],
        team.owner.id.as_str(),
        "{}",
        answer.text
    );

    let signed = |header: Value, claims: Value| forged(real, key, &header, &claims);
    let mut bearers = vec![
        signed(none.clone(), json!({ "exp": now - 6 })),
        signed(none.clone(), json!({ "nbf": now + 60 })),
        signed(none.clone(), json!({ "exp": null })),
        signed(none.clone(), json!({ "exp": "soon" })),
        signed(none.clone(), json!({ "exp": i64::MAX, "nbf": i64::MAX })),
        signed(none.clone(), json!({ "aud": "another-api" })),
        signed(none.clone(), json!({ "iss": "another" })),
        signed(none.clone(), json!({ "sid": null })),
        signed(none.clone(), json!({ "sid": team.owner.id })),
        signed(none.clone(), json!({ "org": other.id })),
        signed(none.clone(), json!({ "sub": other.owner.id })),
        signed(json!({ "alg": "none" }), none.clone()),
        signed(json!({ "alg": "HS512" }), none.clone()),
        signed(json!({ "alg": "RS256" }), none.clone()),
        signed(json!({ "typ": "JWT" }), none.clone()),
        signed(json!({ "typ": null }), none.clone()),
        signed(json!({ "kid": "other" }), none.clone()),
        signed(json!({ "kid": null }), none.clone()),
        signed(json!({ "kid": "../../dev/null" }), none.clone()),
        signed(json!({ "crit": ["exp"] }), none.clone()),
        forged(real, &TestKeyRing::new("jwt").secret, &none, &none),
        forged(real, &shared_server.deployment.encryption.secret, &none, &none),
        forged(real, &[0; 32], &none, &none),
        signed(none.clone(), json!({ "padding": "x".repeat(5000) })),
        team.owner.refresh.clone(),
        "sok_unknown_key".into(),
        format!("{real}x"),
        real[..real.len() - 1].into(),
        format!("{}.", real.rsplit_once('.').unwrap().0),
        real.split('.').next().unwrap().into(),
        "..".into(),
        "null".into(),
    ];
    let without_signature = signed(json!({ "alg": "none" }), none.clone());
    bearers.push(format!("{}.", without_signature.rsplit_once('.').unwrap().0));
    for bearer in bearers {
        let answer = team.nobody.with(&bearer).execute(QUERY).await;
        answer.assert_refused("UNAUTHENTICATED");
        assert!(answer.is_not_executed(), "{bearer}");
        let accept = "application/graphql-response+json";
        let body = json!({ "query": QUERY });
        let request = team.nobody.with(&bearer).post().header("accept", accept).json(&body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{bearer}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
}

#[tokio::test]
async fn a_role_in_a_token_gives_nothing() {
    let (team, shared_server) = Team::on_shared_server().await;
    let viewer = team.member("viewer").await;
    let claims =
        json!({ "role": "owner", "roles": ["owner"], "permissions": ["AUDIT_READ"], "scope": "*" });
    let bearer = forged(&viewer.access, &shared_server.deployment.jwt.secret, &json!({}), &claims);
    let answer = team.nobody.with(bearer).execute("{ auditEntries { nodes { id } } }").await;
    answer.assert_refused("FORBIDDEN");
}

#[tokio::test]
async fn signing_in_and_refreshing_look_at_no_bearer_and_signing_out_minds_none() {
    let (team, shared_server) = Team::on_shared_server().await;
    let person = team.member("viewer").await;
    let expired = json!({ "exp": chrono_now().timestamp() - 3600 });
    let expired =
        forged(&person.access, &shared_server.deployment.jwt.secret, &json!({}), &expired);
    for stale in [expired.as_str(), "garbage", "a.b.c", "sok_gone_for_ever"] {
        let client = team.nobody.with(stale);
        client.execute(QUERY).await.assert_refused("UNAUTHENTICATED");
        let again = sign_in(&client, &person.id, &person.email).await;
        let refresh =
            "mutation($token: String!) { refreshSession(refreshToken: $token) { accessToken } }";
        let fresh = client.get_data(refresh, json!({ "token": again.refresh })).await;
        let fresh = team.nobody.with(word(&fresh["refreshSession"]["accessToken"]));
        assert_eq!(fresh.execute(QUERY).await.codes(), Vec::<&str>::new());
        let out = client.get_data("mutation { logout }", json!({})).await;
        assert_eq!(out, json!({ "logout": true }));
        assert_eq!(
            fresh.execute(QUERY).await.codes(),
            Vec::<&str>::new(),
            "it ended another's session"
        );
    }
    // In combination with any other field, a stale bearer is refused.
    let mixed =
        team.nobody.with("garbage").execute("mutation { logout revokeSession(id: \"x\") }").await;
    mixed.assert_refused("UNAUTHENTICATED");
}

#[tokio::test]
async fn a_failed_sign_in_says_the_same_whatever_was_wrong() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api().await;
    let team = Team::new(&deployment, &api).await;
    let (_, inactive) = team.invite("viewer", "Inactive").await;
    let (id, locked) = team.invite("viewer", "Locked").await;
    let users = "{ users { nodes { id email } } }";
    let users = team.owner.client.get_data(users, json!({})).await;
    let nodes = users["users"]["nodes"].as_array().unwrap();
    let leaver = nodes.iter().find(|user| user["email"] == inactive.as_str()).unwrap();
    let deactivate = "mutation($id: ID!) { deactivateUser(user: $id) { id } }";
    team.owner.client.get_data(deactivate, json!({ "id": leaver["id"] })).await;
    for _ in 0..5 {
        log_in(&team.nobody, &locked, "wrong").await;
    }
    let unknown = format!("nobody@{}.test", team.slug);
    let mut output = Vec::new();
    for (email, password) in [
        (unknown.as_str(), PASSWORD),
        (&team.owner.email, "wrong"),
        (&inactive, PASSWORD),
        (&locked, PASSWORD),
        ("no e-mail at all", PASSWORD),
        ("", ""),
        (&team.owner.email, "x".repeat(100_000).as_str()),
    ] {
        let answer = log_in(&team.nobody, email, password).await;
        answer.assert_refused("UNAUTHENTICATED");
        let id = answer.body["errors"][0]["extensions"]["requestId"].as_str().unwrap();
        output.push((answer.status, answer.text.replace(id, "")));
    }
    output.dedup();
    assert_eq!(output.len(), 1, "{output:?}");
    assert!(output[0].1.contains("Invalid email or password."), "{output:?}");
    assert!(!id.is_empty());
}

#[tokio::test]
async fn an_api_key_serves_where_and_while_it_may() {
    let (team, _world) = Team::on_shared_server().await;
    let (id, secret) = team.api_key("Program", &["ASSET_READ"]).await;
    let key = team.nobody.with(&secret);
    let permissions = "{ viewer { permissions } }";
    let seen = key.get_data(permissions, json!({})).await;
    assert_eq!(seen["viewer"]["permissions"], json!(["ASSET_READ"]));
    for wrong in [format!("{secret}x"), secret.to_uppercase(), secret[..secret.len() - 1].into()] {
        team.nobody.with(wrong).execute(permissions).await.assert_refused("UNAUTHENTICATED");
    }
    let elsewhere = "mutation($at: DateTime!) { createApiKey(input: { name: \"Elsewhere\", permissions: [ASSET_READ], expiresAt: $at, allowedCidrs: [\"10.0.0.0/8\"] }) { secret } }";
    let at = (chrono_now() + chrono::TimeDelta::days(1)).to_rfc3339();
    let made = team.owner.client.get_data(elsewhere, json!({ "at": at })).await;
    let client: Client = team.nobody.with(word(&made["createApiKey"]["secret"]));
    client.execute(permissions).await.assert_refused("UNAUTHENTICATED");
    let revoke = "mutation($id: ID!) { revokeApiKey(id: $id) }";
    team.owner.client.get_data(revoke, json!({ "id": id })).await;
    key.execute(permissions).await.assert_refused("UNAUTHENTICATED");
}
