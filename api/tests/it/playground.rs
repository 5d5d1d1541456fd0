//! Embedded playground files, and the small public routes around them.

use crate::{
    harness::TestServer,
    wire::{exchange, request},
};

#[tokio::test]
async fn files_have_type_length_and_a_strict_policy_for_get_and_head() {
    let server = TestServer::new().await;
    for (path, content_type) in [
        ("/playground", "text/html; charset=utf-8"),
        ("/playground/", "text/html; charset=utf-8"),
        ("/playground/index.html", "text/html; charset=utf-8"),
        ("/playground/playground.js", "text/javascript; charset=utf-8"),
        ("/playground/playground.css", "text/css; charset=utf-8"),
        ("/playground/favicon.svg", "image/svg+xml"),
    ] {
        let get = exchange(server.address, &request("GET", path, "")).await;
        let head = exchange(server.address, &request("HEAD", path, "")).await;
        for reply in [&get, &head] {
            assert_eq!(reply.status, 200, "{path}");
            assert_eq!(reply.header("content-type"), Some(content_type), "{path}");
            assert_eq!(reply.header("cache-control"), Some("no-cache"));
            let csp = reply.header("content-security-policy").unwrap();
            assert!(csp.contains("script-src 'self'") && !csp.contains("unsafe"), "{csp}");
        }
        let length = Some(get.body.len().to_string());
        assert_eq!(head.header("content-length").map(ToOwned::to_owned), length, "{path}");
        assert_eq!(head.body, "", "{path}");
    }
}

#[tokio::test]
async fn a_known_file_is_304() {
    let server = TestServer::new().await;
    let path = "/playground/playground.css";
    let first = exchange(server.address, &request("GET", path, "")).await;
    let etag = first.header("etag").unwrap();
    for known in [etag.to_owned(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        let headers = format!("If-None-Match: {known}\r\n");
        let reply = exchange(server.address, &request("GET", path, &headers)).await;
        assert_eq!((reply.status, reply.body.as_str()), (304, ""));
        assert_eq!(reply.header("etag"), Some(etag));
    }
    let reply =
        exchange(server.address, &request("GET", path, "If-None-Match: \"other\"\r\n")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn nothing_else_is_served() {
    let server = TestServer::new().await;
    for path in [
        "/playground/nothing.js",
        "/playground/../Cargo.toml",
        "/playground/..%2f..%2fCargo.toml",
        "/playground/%2e%2e/src/lib.rs",
        "/playground//etc/passwd",
        "/playgroundx",
    ] {
        let reply = exchange(server.address, &request("GET", path, "")).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "NOT_FOUND"), "{path}");
    }
    let reply = exchange(server.address, &request("POST", "/playground", "")).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn switched_off_it_is_not_there() {
    let server = TestServer::with(|config| config.playground = false).await;
    for path in ["/playground", "/playground/playground.js"] {
        let reply = exchange(server.address, &request("GET", path, "")).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "NOT_FOUND"));
    }
    let reply = exchange(server.address, &request("GET", "/", "Accept: text/html\r\n")).await;
    assert_eq!(reply.body, r#"{"graphql":"/graphql","name":"SentryOps"}"#);
    assert_eq!(exchange(server.address, &request("GET", "/favicon.ico", "")).await.status, 204);
}

#[tokio::test]
async fn people_are_sent_to_the_playground_and_programs_told_the_endpoint() {
    let server = TestServer::new().await;
    let browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let reply = exchange(server.address, &request("GET", "/", browser)).await;
    assert_eq!((reply.status, reply.header("location")), (303, Some("/playground")));
    let reply = exchange(server.address, &request("GET", "/", "Accept: */*\r\n")).await;
    assert_eq!(reply.json()["graphql"], "/graphql");
    let reply = exchange(server.address, &request("GET", "/favicon.ico", "")).await;
    assert_eq!(reply.header("location"), Some("/playground/favicon.svg"));
}

#[tokio::test]
async fn security_txt_names_the_contact() {
    let server = TestServer::new().await;
    let reply = exchange(server.address, &request("GET", "/.well-known/security.txt", "")).await;
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(reply.body.starts_with("Contact: mailto:security@sentryops.example\nExpires: "));
}
