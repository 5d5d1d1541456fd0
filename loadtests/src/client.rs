//! HTTP/1.1 and GraphQL, as little as a client can be: requests are bytes made once, answers are read by their
//! `Content-Length`. By hand, because the client shares two cores with the server: whatever it takes, the server lacks.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// What of a file is in memory at a time.
const PIECE: usize = 256 * 1024;

/// A request for GraphQL, complete as bytes.
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

/// A keep-alive connection.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    /// The last answer, and nothing after it: we ask when it has been read.
    buffer: Vec<u8>,
}

/// One answer.
pub(crate) struct Answer<'a> {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The whole body.
    pub(crate) body: &'a [u8],
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.stream.write_all(request).await.context("send a request")?;
        self.answer().await
    }

    /// Sends a CSV file as the body of a request, piece by piece.
    pub(crate) async fn send_file(
        &mut self,
        path: &str,
        token: &str,
        file: &Path,
    ) -> Result<Answer<'_>> {
        let name = file.display();
        let file = File::open(file).await.with_context(|| format!("open {name}"))?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/csv\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            file.metadata().await?.len(),
        );
        self.stream.write_all(head.as_bytes()).await.context("send a request")?;
        let mut file = BufReader::with_capacity(PIECE, file);
        let sent = tokio::io::copy_buf(&mut file, &mut self.stream).await;
        // Who refuses a file does not read it to its end: the answer says why better than the broken pipe.
        let address = self.address;
        match (self.answer().await, sent) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Err(error)) => Err(error).with_context(|| format!("send {name} to {address}")),
            (Err(error), Ok(_)) => Err(error),
        }
    }

    /// Fetches a file and throws it away; how many bytes it has. The connection is over then: HTTP/1.0 sends a file whose
    /// length is not known in advance as it is, up to its end.
    pub(crate) async fn download(&mut self, path: &str, token: &str) -> Result<usize> {
        let head = format!(
            "GET {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n",
            self.address
        );
        self.stream.write_all(head.as_bytes()).await.context("send a request")?;
        self.buffer.clear();
        self.stream.read_to_end(&mut self.buffer).await.context("read an answer")?;
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n");
        let body = end.context("an answer without a head")? + 4;
        let is_whole = self.buffer.split(|byte| *byte == b' ').nth(1) == Some(b"200");
        ensure!(is_whole, "GET {path}: {}", String::from_utf8_lossy(&self.buffer));
        Ok(self.buffer.len() - body)
    }

    async fn answer(&mut self) -> Result<Answer<'_>> {
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
        ensure!(self.buffer.len() == head.length + head.content_length, "more than one answer");
        Ok(Answer { status: head.status, body: &self.buffer[head.length..] })
    }

    async fn fill(&mut self) -> Result<()> {
        let count = self.stream.read_buf(&mut self.buffer).await.context("read an answer")?;
        ensure!(count > 0, "the server closed the connection");
        Ok(())
    }

    /// Asks GraphQL once; the `data` of the answer.
    ///
    /// # Errors
    /// Whatever is not 200, whole and free of errors.
    pub(crate) async fn graphql(
        &mut self,
        token: Option<&str>,
        query: &str,
        variables: Value,
    ) -> Result<Value> {
        let request = request(self.address, token, query, &variables);
        let answer = timeout(PATIENCE, self.ask(&request)).await.context("no answer")??;
        data(&answer).with_context(|| format!("asked {query}"))
    }
}

/// The `data` of an answer that is 200 and free of errors.
pub(crate) fn data(answer: &Answer<'_>) -> Result<Value> {
    let Answer { status, body } = answer;
    let text = || String::from_utf8_lossy(body);
    ensure!(*status == 200, "HTTP {status}: {}", text());
    let mut answer: Value = serde_json::from_slice(body).with_context(|| text().into_owned())?;
    ensure!(answer.get("errors").is_none(), "{}", text());
    Ok(answer["data"].take())
}

struct Head {
    /// Bytes, with the empty line.
    length: usize,
    status: u16,
    content_length: usize,
}

impl Head {
    /// `None` as long as it is not complete.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = str::from_utf8(&bytes[..end]).context("an answer's head is text")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let content_length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let (Some(status), Some(content_length)) = (status, content_length) else {
            bail!("an answer without status or Content-Length: {text}");
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
        let check = |status, body: &str| data(&Answer { status, body: body.as_bytes() });
        assert_eq!(check(200, r#"{"data":{"a":1}}"#).unwrap(), json!({"a": 1}));
        assert!(check(200, r#"{"data":null,"errors":[]}"#).is_err());
        assert!(check(503, r#"{"data":{"a":1}}"#).is_err());
        assert!(check(200, "<html>").is_err());
    }
}
