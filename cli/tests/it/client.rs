//! GraphQL client for the tests: requests and their responses.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};

use crate::{server::Api, socket::Socket};

/// Values of `extensions.code`, from the API contract.
pub const CODES: [&str; 13] = [
    "UNAUTHENTICATED",
    "FORBIDDEN",
    "NOT_FOUND",
    "VALIDATION",
    "CONFLICT",
    "RATE_LIMITED",
    "QUERY_TOO_COMPLEX",
    "BUDGET_EXHAUSTED",
    "BUDGET_UNAVAILABLE",
    "AI_DISABLED",
    "DEPENDENCY_UNAVAILABLE",
    "TIMEOUT",
    "INTERNAL",
];

/// Returns a loopback address that no other test uses, because rate limits and blocks apply per address.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // The second octet depends on the process id, because the limits in Redis outlive one run of the tests.
    let run = u8::try_from(std::process::id() % 200 + 1).unwrap();
    Ipv4Addr::new(127, run, high, low.max(1)).into()
}

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    bearer: Option<String>,
}

impl Client {
    pub fn http(from: IpAddr) -> reqwest::Client {
        reqwest::Client::builder()
            .local_address(from)
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap()
    }

    /// Returns an anonymous client with a source address.
    pub fn new(api: &Api, from: IpAddr) -> Self {
        Self { http: Self::http(from), url: api.url(), bearer: None }
    }

    pub fn with(&self, bearer: impl Into<String>) -> Self {
        Self { bearer: Some(bearer.into()), ..self.clone() }
    }

    /// Returns a client of the same caller for another replica.
    pub fn at(&self, api: &Api) -> Self {
        Self { url: api.url(), ..self.clone() }
    }

    /// Opens a WebSocket for the same caller.
    pub async fn socket(&self) -> Socket {
        let address = self.url.strip_prefix("http://").and_then(|url| url.strip_suffix("/graphql"));
        Socket::at(address.unwrap().parse().unwrap(), self.bearer.as_deref()).await.unwrap()
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.bearer {
            Some(bearer) => request.header("authorization", format!("Bearer {bearer}")),
            None => request,
        }
    }

    pub fn post(&self) -> RequestBuilder {
        self.signed(self.http.post(&self.url))
    }

    pub fn get(&self, parameters: &[(&str, &str)]) -> RequestBuilder {
        let url = url::Url::parse_with_params(&self.url, parameters).unwrap();
        self.signed(self.http.get(url))
    }

    pub async fn execute(&self, query: &str) -> Answer {
        self.execute_with(query, json!({})).await
    }

    pub async fn execute_with(&self, query: &str, variables: Value) -> Answer {
        let body = json!({ "query": query, "variables": variables });
        Answer::of(self.post().json(&body)).await
    }

    /// Sends a query that must succeed, and returns `data`. Panics with the response otherwise.
    pub async fn get_data(&self, query: &str, variables: Value) -> Value {
        let answer = self.execute_with(query, variables).await;
        assert_eq!(answer.codes(), Vec::<&str>::new(), "{query}: {}", answer.text);
        answer.body["data"].clone()
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, headers, text, body }
    }

    pub fn errors(&self) -> &[Value] {
        self.body["errors"].as_array().map_or(&[], Vec::as_slice)
    }

    pub fn codes(&self) -> Vec<&str> {
        self.errors()
            .iter()
            .map(|error| error["extensions"]["code"].as_str().unwrap_or("none"))
            .collect()
    }

    /// Returns the paths of the errors, e.g. `node.email`.
    pub fn paths(&self) -> Vec<String> {
        let path = |error: &Value| {
            let segments = error["path"].as_array().into_iter().flatten();
            segments
                .map(|segment| segment.as_str().map_or(segment.to_string(), ToOwned::to_owned))
                .collect::<Vec<_>>()
                .join(".")
        };
        self.errors().iter().map(path).collect()
    }

    pub fn message(&self) -> &str {
        self.body["errors"][0]["message"].as_str().unwrap_or_default()
    }

    /// Returns true if the request was rejected before execution.
    pub fn is_not_executed(&self) -> bool {
        !self.errors().is_empty() && self.body.get("data").is_none()
    }

    /// Asserts that every error has a message, the request id and a code of the contract.
    #[track_caller]
    pub fn assert_well_formed(&self) {
        let header = self.headers.get("x-request-id").map(|id| id.to_str().unwrap());
        assert!(header.is_some_and(|id| !id.is_empty()), "{self:?}");
        assert!(self.body.is_object(), "{self:?}");
        for error in self.errors() {
            let extensions = &error["extensions"];
            assert!(CODES.contains(&extensions["code"].as_str().unwrap_or("none")), "{self:?}");
            assert_eq!(extensions["requestId"].as_str(), header, "{self:?}");
            assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
    }

    /// Asserts that the only error has this code.
    #[track_caller]
    pub fn assert_refused(&self, code: &str) {
        self.assert_well_formed();
        assert_eq!(self.codes(), [code], "{}", self.text);
    }
}
