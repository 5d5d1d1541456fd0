//! A minimal HTTP/1.1 and GraphQL client. A request is built once as bytes, and a response is read by its
//! `Content-Length`. Chosen over an HTTP library, because client and server share two cores: CPU time that the client
//! uses is not available to the server.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Buffer size of a file upload, in bytes.
const UPLOAD_BUFFER_BYTES: usize = 256 * 1024;

/// Returns the bytes of a complete GraphQL request; without `token` it has no `Authorization` header.
pub(crate) fn request(
    address: SocketAddr,
    token: Option<&str>,
    query: &str,
    variables: &Value,
) -> Vec<u8> {
    let mut body = json!({ "query": query });
    if !variables.is_null() {
        body["variables"] = variables.clone();
    }
    let body = body.to_string();
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    format!(
        "POST /graphql HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{body}",
        bearer.unwrap_or_default(),
        body.len(),
    )
    .into_bytes()
}

/// A keep-alive HTTP connection, with one request at a time.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    /// Bytes of the last response. They contain no other response, because the next request is sent only after a
    /// response has been read.
    buffer: Vec<u8>,
}

/// A response, borrowed from the connection's buffer.
pub(crate) struct Response<'a> {
    /// HTTP status code of the response.
    pub(crate) status: u16,
    /// Complete body of the response.
    pub(crate) body: &'a [u8],
}

impl Connection {
    /// Connects to the address, with `TCP_NODELAY` set.
    pub(crate) async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request and reads its response.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<Response<'_>> {
        self.stream.write_all(request).await.context("send a request")?;
        self.read_response().await
    }

    /// Streams a CSV file as the body of a `POST` request and reads the response.
    pub(crate) async fn send_file(
        &mut self,
        path: &str,
        token: &str,
        file: &Path,
    ) -> Result<Response<'_>> {
        let name = file.display();
        let file = File::open(file).await.with_context(|| format!("open {name}"))?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/csv\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            file.metadata().await?.len(),
        );
        self.stream.write_all(head.as_bytes()).await.context("send a request")?;
        let mut file = BufReader::with_capacity(UPLOAD_BUFFER_BYTES, file);
        let sent = tokio::io::copy_buf(&mut file, &mut self.stream).await;
        // A server that rejects a file does not read the whole file, so sending fails with a broken pipe. The response
        // then explains the failure better.
        let address = self.address;
        match (self.read_response().await, sent) {
            (Ok(response), _) => Ok(response),
            (Err(_), Err(error)) => Err(error).with_context(|| format!("send {name} to {address}")),
            (Err(error), Ok(_)) => Err(error),
        }
    }

    /// Downloads a file, discards the content and returns its size in bytes. The connection cannot be used afterwards:
    /// the request is HTTP/1.0, so that the server sends a file of unknown length without chunked encoding and closes
    /// the connection at the end.
    pub(crate) async fn download(&mut self, path: &str, token: &str) -> Result<usize> {
        let head = format!(
            "GET {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n",
            self.address
        );
        self.stream.write_all(head.as_bytes()).await.context("send a request")?;
        self.buffer.clear();
        self.stream.read_to_end(&mut self.buffer).await.context("read a response")?;
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n");
        let body = end.context("the response has no complete head")? + 4;
        let is_whole = self.buffer.split(|byte| *byte == b' ').nth(1) == Some(b"200");
        ensure!(is_whole, "GET {path}: {}", String::from_utf8_lossy(&self.buffer));
        Ok(self.buffer.len() - body)
    }

    async fn read_response(&mut self) -> Result<Response<'_>> {
        self.buffer.clear();
        let head = loop {
            self.fill().await?;
            if let Some(head) = Head::parse(&self.buffer)? {
                break head;
            }
        };
        while self.buffer.len() < head.length + head.content_length {
            self.fill().await?;
        }
        ensure!(
            self.buffer.len() == head.length + head.content_length,
            "the server sent more bytes than one response"
        );
        Ok(Response { status: head.status, body: &self.buffer[head.length..] })
    }

    async fn fill(&mut self) -> Result<()> {
        let count = self.stream.read_buf(&mut self.buffer).await.context("read a response")?;
        ensure!(count > 0, "the server closed the connection");
        Ok(())
    }

    /// Sends a GraphQL request and returns the `data` of its response.
    ///
    /// # Errors
    /// Fails if the response does not arrive within 30 s, has a status other than 200, or contains errors.
    pub(crate) async fn graphql(
        &mut self,
        token: Option<&str>,
        query: &str,
        variables: Value,
    ) -> Result<Value> {
        let request = request(self.address, token, query, &variables);
        let response = timeout(RESPONSE_TIMEOUT, self.send(&request))
            .await
            .context("the server did not respond in time")??;
        data(&response).with_context(|| format!("the GraphQL request {query} failed"))
    }
}

/// Returns the `data` of a response.
///
/// # Errors
/// Fails with the body if the status is not 200, or if the body is not JSON or contains `errors`.
pub(crate) fn data(response: &Response<'_>) -> Result<Value> {
    let Response { status, body } = response;
    let text = || String::from_utf8_lossy(body);
    ensure!(*status == 200, "HTTP {status}: {}", text());
    let mut response: Value = serde_json::from_slice(body).with_context(|| text().into_owned())?;
    ensure!(response.get("errors").is_none(), "{}", text());
    Ok(response["data"].take())
}

struct Head {
    /// Length of the head in bytes, including the empty line.
    length: usize,
    status: u16,
    content_length: usize,
}

impl Head {
    /// Parses a response head; returns `None` while it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = str::from_utf8(&bytes[..end]).context("the response head is not UTF-8")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let content_length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let (Some(status), Some(content_length)) = (status, content_length) else {
            bail!("the response head has no status or no Content-Length: {text}");
        };
        Ok(Some(Self { length: end + 4, status, content_length }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_complete() {
        let check = |bytes: &[u8], expected: Option<(usize, u16, usize)>| {
            let head = Head::parse(bytes).unwrap();
            assert_eq!(head.map(|head| (head.length, head.status, head.content_length)), expected);
        };
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", None);
        check(b"HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\n\r\n{}", Some((44, 200, 2)));
        check(b"HTTP/1.1 503 \r\nContent-Length:0\r\n\r\n", Some((35, 503, 0)));
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn errors_are_not_data() {
        let check = |status, body: &str| data(&Response { status, body: body.as_bytes() });
        assert_eq!(check(200, r#"{"data":{"a":1}}"#).unwrap(), json!({"a": 1}));
        assert!(check(200, r#"{"data":null,"errors":[]}"#).is_err());
        assert!(check(503, r#"{"data":{"a":1}}"#).is_err());
        assert!(check(200, "<html>").is_err());
    }
}
