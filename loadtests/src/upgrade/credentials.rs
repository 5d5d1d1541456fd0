//! Credentials and cursors that a user obtained from the older version: a password, the tokens of a session, an API
//! key, and cursors of lists.

use std::{net::SocketAddr, time::SystemTime};

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{client::Connection, measurement::Measurement, seed};

const LOGIN: &str = "mutation($email: String!, $password: String!) {
    login(email: $email, password: $password) { tokens { accessToken refreshToken } } }";
const REFRESH: &str = "mutation($token: String!) {
    refreshSession(refreshToken: $token) { accessToken refreshToken } }";
const CREATE_KEY: &str =
    "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret } }";
const VIEWER: &str = "{ viewer { permissions } }";
const PAGE: &str = "first: 2";

/// Lists that do not change while jobs are executed; `ARGS` is replaced by the page arguments.
const LISTS: [&str; 4] = [
    "users(ARGS)",
    "assets(orderBy: { field: CREATED_AT }, ARGS)",
    "assets(filter: { type: [HOST], lifecycleState: [ACTIVE, RETIRED] }, orderBy: { field: CREATED_AT }, ARGS)",
    "auditEntries(filter: { action: \"api_key.created\" }, ARGS)",
];

/// Credentials and cursors obtained from the older version.
pub(super) struct Credentials {
    email: String,
    password: String,
    access: String,
    refresh: String,
    key: String,
    /// For each list, a cursor and the nodes of the page after the cursor.
    pages: Vec<(&'static str, String, Value)>,
}

impl Credentials {
    /// Signs in to the older version and creates API keys.
    pub(super) async fn new(address: SocketAddr, email: String, password: String) -> Result<Self> {
        let mut connection = Connection::open(address).await?;
        let given = json!({ "email": email, "password": password });
        let login = connection.graphql(None, LOGIN, given).await?;
        let tokens = &login["login"]["tokens"];
        let (access, refresh) = (text(&tokens["accessToken"])?, text(&tokens["refreshToken"])?);
        let now: DateTime<Utc> = SystemTime::now().into();
        let mut keys = Vec::new();
        // Four keys, so that their audit entries fill two pages.
        for name in ["one", "two", "three", "four"] {
            let input = json!({
                "name": name,
                "permissions": ["ASSET_READ"],
                "expiresAt": (now + TimeDelta::days(30)).to_rfc3339(),
            });
            let given = json!({ "input": input });
            let made = connection.graphql(Some(&access), CREATE_KEY, given).await?;
            keys.push(text(&made["createApiKey"]["secret"])?);
        }
        let key = keys.swap_remove(0);
        Ok(Self { email, password, access, refresh, key, pages: Vec::new() })
    }

    /// Returns the access token of the session.
    pub(super) fn token(&self) -> &str {
        &self.access
    }

    /// Reads the first page of each list, and the page after its end cursor.
    pub(super) async fn take_cursors(&mut self, address: SocketAddr) -> Result<()> {
        for list in LISTS {
            let first = self.page(address, list, PAGE).await?;
            let cursor = text(&first["pageInfo"]["endCursor"])?;
            let next = self.page(address, list, &after(&cursor)).await?;
            self.pages.push((list, cursor, next["nodes"].clone()));
        }
        Ok(())
    }

    async fn page(&self, address: SocketAddr, list: &str, page: &str) -> Result<Value> {
        let list = list.replace("ARGS", page);
        let query = format!("{{ page: {list} {{ nodes {{ id }} pageInfo {{ endCursor }} }} }}");
        let mut connection = Connection::open(address).await?;
        Ok(connection.graphql(Some(&self.access), &query, Value::Null).await?["page"].take())
    }

    /// Uses every credential and cursor on the newer version, and adds the results as checks.
    pub(super) async fn check(
        &self,
        address: SocketAddr,
        measurement: &mut Measurement,
    ) -> Result<()> {
        let mut connection = Connection::open(address).await?;
        let by_token = connection.graphql(Some(&self.access), VIEWER, Value::Null).await;
        measurement.check(
            "access token of the older version: accepted",
            i64::from(by_token.is_ok()),
            1,
        );
        let by_key = connection
            .graphql(Some(&self.key), "{ assets(first: 1) { nodes { id } } }", Value::Null)
            .await;
        measurement.check("API key of the older version: accepted", i64::from(by_key.is_ok()), 1);
        let mut continued = 0;
        for (list, cursor, expected) in &self.pages {
            let next = self.page(address, list, &after(cursor)).await;
            continued += i64::from(next.is_ok_and(|page| page["nodes"] == *expected));
        }
        let lists = i64::try_from(self.pages.len())?;
        measurement.check(
            "cursors of the older version: lists continued with the same page",
            continued,
            lists,
        );
        let signed_in = seed::token(address, &self.email, &self.password).await;
        measurement.check(
            "password of the older version: sign-in succeeds",
            i64::from(signed_in.is_ok()),
            1,
        );
        let given = json!({ "token": self.refresh });
        let renewed = connection.graphql(None, REFRESH, given).await;
        measurement.check(
            "refresh token of the older version: session refreshed",
            i64::from(renewed.is_ok()),
            1,
        );
        Ok(())
    }
}

fn after(cursor: &str) -> String {
    format!("{PAGE}, after: \"{cursor}\"")
}

fn text(value: &Value) -> Result<String> {
    value
        .as_str()
        .map(ToOwned::to_owned)
        .with_context(|| format!("expected a string in the response, found {value}"))
}
