//! Raw bytes that no HTTP client would send.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{client::own_address, server::Api};

/// Opens a connection from a source address of its own.
pub async fn connect(api: &Api) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(own_address(), 0)).unwrap();
    socket.connect(api.address).await.unwrap()
}

/// Sends the bytes of a request with `Connection: close`, and reads to the end; empty if the server only closed.
pub async fn exchange(api: &Api, bytes: &[u8]) -> String {
    let mut stream = connect(api).await;
    // The server may refuse and close before it has read the whole request.
    let _ = stream.write_all(bytes).await;
    read(&mut stream).await
}

pub async fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Returns the bytes of a POST with a JSON body.
pub fn post(bearer: Option<&str>, body: &[u8]) -> Vec<u8> {
    let bearer = bearer.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let mut request = format!(
        "POST /graphql HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n",
        bearer.unwrap_or_default(),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}
