//! Raw requests and replies, without a client library that would correct either.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::harness::within_5_s;

/// HTTP reply as it was received.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        let text = match self.header("transfer-encoding") {
            Some("chunked") => self.unchunked(),
            _ => self.body.clone(),
        };
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn unchunked(&self) -> String {
        let (mut text, mut rest) = (String::new(), self.body.as_str());
        while let Some((length, chunk)) = rest.split_once("\r\n") {
            let length = usize::from_str_radix(length, 16).unwrap();
            text.push_str(&chunk[..length]);
            rest = chunk[length..].strip_prefix("\r\n").unwrap();
        }
        text
    }

    /// Returns the code of the error envelope; panics if the body is not one.
    pub fn code(&self) -> String {
        let envelope = self.json();
        assert!(envelope.get("data").is_none(), "{self:?}");
        let error = &envelope["errors"][0];
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        let extensions = &error["extensions"];
        assert_eq!(extensions["requestId"].as_str(), self.header("x-request-id"), "{self:?}");
        extensions["code"].as_str().unwrap_or_else(|| panic!("no code: {self:?}")).to_owned()
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) =
            text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole head in {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers, body: body.to_owned() }
    }
}

pub async fn connect(to: SocketAddr) -> TcpStream {
    TcpStream::connect(to).await.unwrap()
}

/// Connects from another loopback address; all of 127/8 belongs to this machine.
pub async fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::from(from), 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends bytes and reads until the server closes.
pub async fn exchange(to: SocketAddr, bytes: &[u8]) -> Reply {
    let mut stream = connect(to).await;
    stream.write_all(bytes).await.unwrap();
    last(stream).await
}

/// Returns the reply after which the server closes.
pub async fn last(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    // The server may reset after the reply instead of reading the rest of the request.
    let _ = within_5_s(stream.read_to_end(&mut bytes)).await;
    Reply::parse(&bytes)
}

/// Returns the next reply on a connection that stays open.
pub async fn next(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = within_5_s(stream.read(&mut chunk)).await.unwrap();
        bytes.extend_from_slice(&chunk[..read]);
        let whole = String::from_utf8_lossy(&bytes).contains("\r\n\r\n") && {
            let reply = Reply::parse(&bytes);
            let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
            reply.body.len() >= length
        };
        if whole {
            return Reply::parse(&bytes);
        }
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
    }
}

/// Builds a request without a body; `headers` are lines, each with CRLF.
pub fn request(method: &str, path: &str, headers: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: sentryops\r\nConnection: close\r\n{headers}\r\n")
        .into_bytes()
}

/// Builds a POST of `body` to the endpoint with additional headers.
pub fn post_with(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = request("POST", "/graphql", &format!("Content-Length: {length}\r\n{headers}"));
    bytes.extend_from_slice(body);
    bytes
}

/// Builds a POST of JSON to the endpoint.
pub fn post(body: &str) -> Vec<u8> {
    post_with("Content-Type: application/json\r\n", body.as_bytes())
}

/// Builds a POST of JSON on a connection that stays open.
pub fn post_and_stay(body: &str) -> Vec<u8> {
    String::from_utf8(post(body)).unwrap().replace("Connection: close\r\n", "").into_bytes()
}
