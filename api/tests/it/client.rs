//! Client address, request id and bearer as the engine receives them.

use crate::{
    harness::TestServer,
    wire::{exchange, post_with},
};

/// Returns `address request-id bearer` as the engine received them.
async fn whoami(server: &TestServer, headers: &str) -> (String, String, String) {
    let headers = format!("Content-Type: application/json\r\n{headers}");
    let reply = exchange(server.address, &post_with(&headers, br#"{"query":"{ whoami }"}"#)).await;
    let seen = reply.json()["data"]["whoami"].as_str().unwrap().to_owned();
    let (address, rest) = seen.split_once(' ').unwrap();
    let (id, bearer) = rest.split_once(' ').unwrap();
    assert_eq!(reply.header("x-request-id"), Some(id));
    (address.to_owned(), id.to_owned(), bearer.to_owned())
}

#[tokio::test]
async fn a_stranger_cannot_forge_address_or_request_id() {
    let server = TestServer::new().await;
    let forged = "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX-Request-Id: mine\r\n";
    let (address, id, _) = whoami(&server, forged).await;
    assert_eq!(address, "127.0.0.1");
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_the_request() {
    let server =
        TestServer::with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
            .await;
    let headers = "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nX-Request-Id: from-proxy_1\r\n";
    let (address, id, _) = whoami(&server, headers).await;
    assert_eq!((address.as_str(), id.as_str()), ("5.6.7.8", "from-proxy_1"));
}

#[tokio::test]
async fn a_bearer_that_cannot_be_read_is_passed_on_as_invalid() {
    let server = TestServer::new().await;
    for (header, expected) in [
        ("", "None"),
        ("Authorization: bearer abc\r\n", "Some(\"abc\")"),
        ("Authorization: Basic abc\r\n", "Some(\"\")"),
        ("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", "Some(\"\")"),
        ("Authorization: Bearer \u{e4}\r\n", "Some(\"\")"),
    ] {
        assert_eq!(whoami(&server, header).await.2, expected, "{header}");
    }
}
