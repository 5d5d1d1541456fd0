//! Test organizations and users, created with `sentryops admin`, and their sign-in.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use crate::{
    client::{Answer, Client, own_address},
    server::{Api, SharedServer, TestDeployment, shared_server},
};

pub const PASSWORD: &str = "nine-Quiet-otters-84-ford";

const LOGIN: &str =
    "mutation($email: String!, $password: String!) { login(email: $email, password: $password) {
    tokens { accessToken refreshToken } } }";

/// Returns a number that is unique in this run.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A signed-in user with tokens.
#[derive(Clone)]
pub struct Person {
    pub id: String,
    pub email: String,
    pub access: String,
    pub refresh: String,
    pub client: Client,
}

/// An organization with its signed-in owner.
pub struct Team {
    pub id: String,
    pub slug: String,
    pub address: IpAddr,
    pub owner: Person,
    /// Anonymous client with the team's address.
    pub nobody: Client,
}

impl Team {
    /// Creates a team on the shared server.
    pub async fn on_shared_server() -> (Self, &'static SharedServer) {
        let shared_server = shared_server().await;
        (Self::new(&shared_server.deployment, &shared_server.api).await, shared_server)
    }

    pub async fn new(deployment: &TestDeployment, api: &Api) -> Self {
        let (slug, address) = (format!("team-{}-{}", std::process::id(), unique()), own_address());
        let id = deployment.admin(&["create-organization", "--slug", &slug, "--name", &slug], "");
        let email = format!("owner@{slug}.test");
        let arguments = [
            "create-user",
            "--email",
            &email,
            "--name",
            "Owner",
            "--role",
            "owner",
            "--organization",
            &slug,
            "--password-stdin",
        ];
        let owner = deployment.admin(&arguments, PASSWORD);
        let nobody = Client::new(api, address);
        let owner = sign_in(&nobody, &owner, &email).await;
        Self { id, slug, address, owner, nobody }
    }

    /// Creates a member and signs in.
    pub async fn member(&self, role: &str) -> Person {
        let (id, email) = self.invite(role, "Member").await;
        sign_in(&self.nobody, &id, &email).await
    }

    /// Creates a member; returns the id and the e-mail address.
    pub async fn invite(&self, role: &str, name: &str) -> (String, String) {
        let email = format!("{role}-{}@{}.test", unique(), self.slug);
        let query = "mutation($input: CreateUserInput!) { createUser(input: $input) { id } }";
        let input = json!({ "email": email, "name": name, "password": PASSWORD, "roles": [role] });
        let data = self.owner.client.get_data(query, json!({ "input": input })).await;
        (word(&data["createUser"]["id"]), email)
    }

    /// Creates an API key; returns id and secret.
    pub async fn api_key(&self, name: &str, permissions: &[&str]) -> (String, String) {
        let query = "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret apiKey { id } } }";
        let expires_at = (chrono_now() + chrono::TimeDelta::days(30)).to_rfc3339();
        let input = json!({ "name": name, "permissions": permissions, "expiresAt": expires_at });
        let data = self.owner.client.get_data(query, json!({ "input": input })).await;
        (word(&data["createApiKey"]["apiKey"]["id"]), word(&data["createApiKey"]["secret"]))
    }

    /// Creates an asset and returns its id.
    pub async fn asset(&self, name: &str, state: &str) -> String {
        let query = "mutation($input: CreateAssetInput!) { createAsset(input: $input) { id } }";
        let input = json!({ "name": name, "type": "HOST", "lifecycleState": state });
        let data = self.owner.client.get_data(query, json!({ "input": input })).await;
        word(&data["createAsset"]["id"])
    }
}

pub async fn log_in(client: &Client, email: &str, password: &str) -> Answer {
    client.execute_with(LOGIN, json!({ "email": email, "password": password })).await
}

pub async fn sign_in(client: &Client, id: &str, email: &str) -> Person {
    let answer = log_in(client, email, PASSWORD).await;
    let tokens = &answer.body["data"]["login"]["tokens"];
    assert!(tokens.is_object(), "{}", answer.text);
    let access = word(&tokens["accessToken"]);
    Person {
        id: id.to_owned(),
        email: email.to_owned(),
        client: client.with(&access),
        access,
        refresh: word(&tokens["refreshToken"]),
    }
}

pub fn word(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "a test may read the clock")]
pub fn chrono_now() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}
