//! WebSocket framing of one connection: opens the stream, writes queued messages, closes the stream.

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

use super::{close::Close, outbox::OutboxReceiver};

/// Size of the read buffer and of the write buffer, in bytes.
const BUFFER_BYTES: usize = 8 * 1024;

pub(super) type Sink<S> = SplitSink<WebSocketStream<S>, Message>;
pub(super) type Source<S> = SplitStream<WebSocketStream<S>>;

/// Opens the server side of an upgraded connection. `message_bytes` is the maximum size of messages and frames from the
/// client.
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

/// Sends the close frame, and reads until the client has answered the frame. Closing a socket with unread bytes makes
/// the kernel send a TCP reset, and the client would lose the close frame with its reason.
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
    // After an invalid frame, the remaining input is read as plain bytes.
    if let Ok(mut socket) = source.reunite(sink) {
        let mut bytes = [0; 1024];
        while socket.get_mut().read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    }
}

/// Writes queued messages until the queue closes or writing fails.
pub(super) async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut Sink<S>,
    mut queue: OutboxReceiver,
) {
    while let Some(message) = queue.next().await {
        let bytes = message.len();
        if sink.send(message).await.is_err() {
            return;
        }
        queue.written(bytes);
    }
}
