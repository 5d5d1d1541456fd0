//! A test client of the protocol `graphql-transport-ws`.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::server::Api;

/// Close code of a socket; `None` if the connection was lost.
pub type CloseCode = Option<u16>;

pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Opens a socket, with or without a bearer. Returns the close code if the server refuses.
    pub async fn open(api: &Api, bearer: Option<&str>) -> Result<Self, CloseCode> {
        Self::at(api.address, bearer).await
    }

    /// Opens a socket at an address; see [`Socket::open`].
    pub async fn at(to: SocketAddr, bearer: Option<&str>) -> Result<Self, CloseCode> {
        let mut request = format!("ws://{to}/graphql").into_client_request().unwrap();
        let protocol = HeaderValue::from_static("graphql-transport-ws");
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let stream = TcpStream::connect(to).await.unwrap();
        let mut socket = Self(client_async(request, stream).await.unwrap().0);
        let payload = bearer.map(|bearer| json!({ "Authorization": format!("Bearer {bearer}") }));
        socket.say(&json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(socket.next().await?["type"], "connection_ack");
        Ok(socket)
    }

    async fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    pub async fn subscribe(&mut self, id: &str, query: &str, variables: Value) {
        let payload = json!({ "query": query, "variables": variables });
        self.say(&json!({ "id": id, "type": "subscribe", "payload": payload })).await;
    }

    /// Returns the next message, or the close code of the socket.
    pub async fn next(&mut self) -> Result<Value, CloseCode> {
        self.next_within(Duration::from_secs(20)).await.expect("a message within twenty seconds")
    }

    /// Returns as [`Socket::next`] does, or `None` if nothing arrives in time.
    pub async fn next_within(&mut self, time: Duration) -> Option<Result<Value, CloseCode>> {
        let message = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Ok(serde_json::from_str(&text).unwrap());
                    }
                    Some(Ok(Message::Close(frame))) => {
                        return Err(frame.map(|frame| u16::from(frame.code)));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(None),
                }
            }
        };
        timeout(time, message).await.ok()
    }

    /// Closes the socket and waits for the server's close.
    pub async fn leave(mut self) {
        let _ = self.0.close(None).await; // The socket may be closed already.
        while let Some(Ok(_)) = self.0.next().await {}
    }
}
