//! The organization that the scenario `read` queries: the organization of the demo, to which assets and owners are
//! added over the API.

use std::{fs::File, io::Read, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{client::Connection, server::Server};

/// Name of the demo's organization.
pub(crate) const ORGANIZATION: &str = "Demo (example data)";
/// Number of assets after seeding, including those of the demo.
pub(crate) const ASSETS: usize = 1000;
/// Number of users who own the assets in turn. A page has as many rows, so the assets of a page have different owners.
pub(crate) const OWNERS: usize = 20;
/// Every 50th asset is named `edge-…`. These twenty assets are a full page of the query with a text filter, which must
/// therefore scan every row.
const EDGE_EVERY: usize = 50;

/// Mutation that signs in and returns the access token.
pub(crate) const LOGIN: &str = "mutation($email: String!, $password: String!) {
    login(email: $email, password: $password) { tokens { accessToken } } }";
const EXISTING: &str = "{ users(first: 100) { nodes { id } } assets(first: 1) { totalCount } }";
const CREATE_USER: &str = "mutation($input: CreateUserInput!) { createUser(input: $input) { id } }";
const CREATE_ASSET: &str =
    "mutation($input: CreateAssetInput!) { createAsset(input: $input) { id } }";

/// Signs in as the demo's administrator and returns the access token.
pub(crate) async fn sign_in(server: &Server) -> Result<String> {
    let (email, password) = server.administrator()?;
    token(server.address, &email, &password).await
}

/// Signs in with an e-mail and password, and returns the access token.
pub(crate) async fn token(address: SocketAddr, email: &str, password: &str) -> Result<String> {
    let mut connection = Connection::open(address).await?;
    let variables = json!({ "email": email, "password": password });
    let login = connection.graphql(None, LOGIN, variables).await.context("sign in")?;
    let token = login["login"]["tokens"]["accessToken"]
        .as_str()
        .context("the login response has no access token")?;
    Ok(token.to_owned())
}

/// Signs in, creates the missing users and assets, and returns the administrator's access token.
///
/// # Errors
/// Fails if the organization already has 50 assets or more, for example from an earlier seeding.
pub(crate) async fn seed_organization(server: &Server) -> Result<String> {
    let token = sign_in(server).await?;
    let token = token.as_str();
    let mut connection = Connection::open(server.address).await?;
    let known = connection.graphql(Some(token), EXISTING, Value::Null).await?;
    let users = known["users"]["nodes"].as_array().context("the response has no users")?;
    let mut owners: Vec<Value> = users.iter().map(|user| user["id"].clone()).collect();
    for number in owners.len()..OWNERS {
        let input = json!({
            "name": format!("Owner {number:02}"),
            "email": format!("owner-{number:02}@demo.example"),
            "password": random_password()?,
        });
        let made = connection.graphql(Some(token), CREATE_USER, json!({ "input": input })).await?;
        owners.push(made["createUser"]["id"].clone());
    }
    let total = known["assets"]["totalCount"].as_u64().context("the response has no totalCount")?;
    let total = usize::try_from(total)?;
    ensure!(
        total < EDGE_EVERY,
        "the organization already has {total} assets; seeding needs fewer than {EDGE_EVERY}"
    );
    for (number, owner) in (0..ASSETS - total).zip(owners.iter().cycle()) {
        let input = asset(number, owner);
        connection.graphql(Some(token), CREATE_ASSET, json!({ "input": input })).await?;
    }
    Ok(token.to_owned())
}

fn asset(number: usize, owner: &Value) -> Value {
    const KINDS: [(&str, &str); 5] = [
        ("web", "HOST"),
        ("db", "HOST"),
        ("switch", "NETWORK_DEVICE"),
        ("mail", "SERVICE"),
        ("bucket", "CLOUD_RESOURCE"),
    ];
    let (kind, asset_type) = KINDS[number % KINDS.len()];
    let kind = if number.is_multiple_of(EDGE_EVERY) { "edge" } else { kind };
    json!({
        "name": format!("{kind}-{number:04}"),
        "type": asset_type,
        "environment": (["PROD", "STAGING", "DEV"][number % 3]),
        "location": format!("fra1-r{:02}", number % 20),
        "description": "Made by the load tests",
        "owner": owner,
        "attributes": { "os_name": "Debian 12", "disk_encrypted": !number.is_multiple_of(7), "open_ports": [22, 443] },
    })
}

/// Returns a random password for users who never sign in.
pub(crate) fn random_password() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u128::from_ne_bytes(bytes).to_string())
}
