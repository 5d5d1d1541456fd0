//! Reports: a printable page and a file.

use crate::{
    harness::TestServer,
    wire::{Reply, exchange, request},
};

async fn get(server: &TestServer, path: &str, bearer: &str) -> Reply {
    let headers = format!("Authorization: Bearer {bearer}\r\n");
    exchange(server.address, &request("GET", path, &headers)).await
}

#[tokio::test]
async fn a_page_may_use_its_own_style_and_nothing_else() {
    let server = TestServer::new().await;
    let reply = get(&server, "/reports/compliance/run_01j8.html", "ada").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(
        reply.header("content-security-policy"),
        Some(
            "default-src 'none'; style-src 'sha256-c3R5bGU='; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
    );
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.body, "<!DOCTYPE html><title>run_01j8</title>");
}

#[tokio::test]
async fn findings_come_as_an_attachment_page_by_page() {
    let server = TestServer::new().await;
    let reply = get(&server, "/reports/compliance/latest.csv", "ada").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    assert_eq!(reply.header("content-disposition"), Some("attachment; filename=\"findings.csv\""));
    assert!(reply.body.contains("of latest\r\n") && reply.body.contains("page 2\r\n"), "{reply:?}");
    assert!(reply.body.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn what_there_is_no_report_of_says_so_in_its_status() {
    let server = TestServer::new().await;
    for file in ["latest.html", "latest.csv"] {
        let path = format!("/reports/compliance/{file}");
        for (code, status) in
            [("UNAUTHENTICATED", 401), ("FORBIDDEN", 403), ("NOT_FOUND", 404), ("CONFLICT", 409)]
        {
            let reply = get(&server, &path, &format!("refuse-{code}")).await;
            assert_eq!((reply.status, reply.code().as_str()), (status, code), "{file}");
        }
        let reply = exchange(server.address, &request("GET", &path, "")).await;
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
        let reply = exchange(server.address, &request("POST", &path, "")).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
    }
    for file in ["latest", "latest.pdf", "", "a/b.html"] {
        let reply = get(&server, &format!("/reports/compliance/{file}"), "ada").await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "NOT_FOUND"), "{file}");
    }
}

#[tokio::test]
async fn head_answers_as_get_without_the_report() {
    let server = TestServer::new().await;
    for file in ["latest.html", "latest.csv"] {
        let path = format!("/reports/compliance/{file}");
        let whole = get(&server, &path, "ada").await;
        let bytes = request("HEAD", &path, "Authorization: Bearer ada\r\n");
        let head = exchange(server.address, &bytes).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{file}");
        assert_eq!(head.header("content-type"), whole.header("content-type"), "{file}");
    }
}
