//! The frames of one socket: opening, writing what waits, closing.

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{close::Close, outbox::Waiting};

/// Read and written at a time.
const BUFFER_BYTES: usize = 8 * 1024;

pub(super) type Sink<S> = SplitSink<WebSocketStream<S>, Message>;
pub(super) type Source<S> = SplitStream<WebSocketStream<S>>;

/// Our end of an upgraded connection.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    message_bytes: usize,
) -> (Sink<S>, Source<S>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(message_bytes))
        .max_frame_size(Some(message_bytes));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await.split()
}

/// Sends the close frame, and reads on until the client has answered it: closing a socket with unread bytes makes the
/// kernel reset it, and the client would lose the very frame that explains the end.
pub(super) async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    mut sink: Sink<S>,
    mut source: Source<S>,
    close: &Close,
) {
    if sink.send(Message::Close(Some(close.frame()))).await.is_err() {
        return;
    }
    while let Some(message) = source.next().await {
        if message.is_err() {
            break;
        }
    }
    // Frames that cannot be read any more are read as bytes.
    if let Ok(mut socket) = source.reunite(sink) {
        let mut bytes = [0; 1024];
        while socket.get_mut().read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    }
}

/// Writes what waits.
pub(super) async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut Sink<S>,
    mut waiting: Waiting,
) {
    while let Some(message) = waiting.next().await {
        let bytes = message.len();
        if sink.send(message).await.is_err() {
            return;
        }
        waiting.written(bytes);
    }
}
