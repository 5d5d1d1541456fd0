//! Queue of outgoing messages of one socket. The queue is bounded in messages and in bytes, so that a client that does
//! not read costs little memory and never blocks an operation.
//!
//! The size of a message counts against the limit in bytes until the message is written.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// Sending half of the queue.
pub(super) struct Outbox {
    queue: mpsc::Sender<Message>,
    bytes: Arc<AtomicUsize>,
    max_bytes: usize,
}

/// Receiving half of the queue.
pub(super) struct OutboxReceiver {
    queue: mpsc::Receiver<Message>,
    bytes: Arc<AtomicUsize>,
}

/// Error of a full queue: the client reads too slowly.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Outbox {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> (Self, OutboxReceiver) {
        let (sender, receiver) = mpsc::channel(max_messages);
        let bytes = Arc::new(AtomicUsize::new(0));
        let outbox = Self { queue: sender, bytes: Arc::clone(&bytes), max_bytes };
        (outbox, OutboxReceiver { queue: receiver, bytes })
    }

    /// Queues a message. Never waits for space in the queue.
    ///
    /// # Errors
    /// [`Full`] if the message exceeds either limit, or if the receiving half was dropped.
    pub(super) fn push(&self, message: impl Into<Message>) -> Result<(), Full> {
        let message = message.into();
        let before = self.bytes.fetch_add(message.len(), Ordering::Relaxed);
        if before + message.len() > self.max_bytes {
            return Err(Full);
        }
        self.queue.try_send(message).map_err(|_| Full)
    }
}

impl OutboxReceiver {
    /// Waits for the next message to write; `None` once the queue is closed and empty.
    pub(super) async fn next(&mut self) -> Option<Message> {
        self.queue.recv().await
    }

    /// Records that `bytes` have been written and no longer count against the limit.
    pub(super) fn written(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_and_bytes_are_bounded_until_they_are_written() {
        let (outbox, _receiver) = Outbox::new(2, 10);
        assert_eq!(outbox.push("12345678"), Ok(()));
        assert_eq!(outbox.push("123"), Err(Full), "the first is not written yet");
        let (outbox, mut receiver) = Outbox::new(2, 10);
        assert_eq!(outbox.push("12345678"), Ok(()));
        let first = receiver.next().await.unwrap();
        receiver.written(first.len());
        assert_eq!(outbox.push("1234567890"), Ok(()), "what is written no longer counts");
        drop(receiver);
        assert_eq!(outbox.push(""), Err(Full), "nobody writes any more");
        let (outbox, _receiver) = Outbox::new(2, 10);
        assert_eq!(
            [outbox.push("1"), outbox.push("2"), outbox.push("3")],
            [Ok(()), Ok(()), Err(Full)]
        );
    }
}
