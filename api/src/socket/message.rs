//! Messages of `graphql-transport-ws`: parses client messages strictly, and builds server messages.

use graphql::Answer;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};

use super::close::Close;
use crate::params::{Params, RawParams};

/// Maximum length of an operation id in bytes. Known clients use shorter ids, and each id occupies memory.
const MAX_ID_BYTES: usize = 256;

/// Message that a client may send.
pub(super) enum Incoming {
    /// `connection_init` with its payload; an absent payload is empty.
    Init(Map<String, Value>),
    /// `ping` with its optional payload.
    Ping(Option<Value>),
    /// `pong`; its payload is ignored.
    Pong,
    /// `subscribe`: starts an operation of any kind.
    Subscribe { id: String, params: Params },
    /// `complete`: the client cancels the operation.
    Complete { id: String },
}

#[derive(Deserialize)]
struct Head {
    r#type: String,
    id: Option<Value>,
    #[expect(
        dead_code,
        reason = "parsed later, by message type; declared so that a duplicate key is an error"
    )]
    payload: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WithPayload {
    payload: Option<Value>,
}

#[derive(Deserialize)]
struct Subscribe {
    payload: RawParams,
}

impl Incoming {
    /// Parses one message.
    ///
    /// # Errors
    /// 4400 for any text that is not a message of the protocol.
    pub(super) fn parse(text: &str) -> Result<Self, Close> {
        let head: Head = serde_json::from_str(text)
            .map_err(|_| Close::invalid("Invalid message: not one JSON object with a `type`"))?;
        let payload = || {
            serde_json::from_str::<WithPayload>(text)
                .map(|message| message.payload)
                .map_err(|_| Close::invalid("Invalid message: `payload` cannot be read"))
        };
        let id = |id: Option<Value>| match id {
            Some(Value::String(id)) if !id.is_empty() && id.len() <= MAX_ID_BYTES => Ok(id),
            _ => Err(Close::invalid("Invalid message: `id` must be a string of 1 to 256 bytes")),
        };
        match head.r#type.as_str() {
            "connection_init" => match payload()? {
                Some(Value::Object(payload)) => Ok(Self::Init(payload)),
                None | Some(Value::Null) => Ok(Self::Init(Map::new())),
                Some(_) => Err(Close::invalid("Invalid message: `payload` must be an object")),
            },
            "ping" => Ok(Self::Ping(payload()?)),
            "pong" => Ok(Self::Pong),
            "complete" => Ok(Self::Complete { id: id(head.id)? }),
            "subscribe" => {
                let id = id(head.id)?;
                let message: Subscribe = serde_json::from_str(text).map_err(|_| {
                    Close::invalid("Invalid message: `payload` must be an object with `query`")
                })?;
                let params = message
                    .payload
                    .check()
                    .map_err(|error| Close::invalid(format!("Invalid message: {error}")))?;
                Ok(Self::Subscribe { id, params })
            }
            _ => Err(Close::invalid("Invalid message: unknown `type`")),
        }
    }
}

/// Builds a `connection_ack` message without a payload.
pub(super) fn ack() -> String {
    json!({ "type": "connection_ack" }).to_string()
}

/// Builds a `pong` message with the payload of the ping.
pub(super) fn pong(payload: Option<Value>) -> String {
    match payload {
        Some(payload) => json!({ "type": "pong", "payload": payload }).to_string(),
        None => json!({ "type": "pong" }).to_string(),
    }
}

/// Builds a `next` message with an answer, or an `error` message for an answer with `executed: false`.
pub(super) fn answer(id: &str, answer: &Answer) -> serde_json::Result<String> {
    #[derive(serde::Serialize)]
    struct Outgoing<'a, T> {
        id: &'a str,
        r#type: &'static str,
        payload: T,
    }
    if answer.executed {
        serde_json::to_string(&Outgoing { id, r#type: "next", payload: &answer.response })
    } else {
        serde_json::to_string(&Outgoing { id, r#type: "error", payload: &answer.response.errors })
    }
}

/// Builds a `complete` message: the operation has ended.
pub(super) fn complete(id: &str) -> String {
    json!({ "id": id, "type": "complete" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_is_refused_with_4400() {
        for text in [
            "",
            "x",
            "7",
            "[]",
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"start","id":"1","payload":{"query":"{a}"}}"#,
            r#"{"type":"ping"} x"#,
            r#"{"type":"ping","type":"pong"}"#,
            r#"{"type":"connection_init","payload":[]}"#,
            r#"{"type":"connection_init","payload":"x"}"#,
            r#"{"type":"subscribe","payload":{"query":"{a}"}}"#,
            r#"{"type":"subscribe","id":"","payload":{"query":"{a}"}}"#,
            r#"{"type":"subscribe","id":1,"payload":{"query":"{a}"}}"#,
            r#"{"type":"subscribe","id":"1"}"#,
            r#"{"type":"subscribe","id":"1","payload":{}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":7}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"{a}","variables":[]}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"{a}","query":"{b}"}}"#,
            r#"{"type":"subscribe","id":"1","payload":{"query":"{a}"},"payload":{"query":"{b}"}}"#,
            r#"{"type":"complete"}"#,
        ] {
            let Err(close) = Incoming::parse(text) else { panic!("{text} was read") };
            assert_eq!(close.code, 4400, "{text}");
        }
    }

    #[test]
    fn messages_are_read() {
        let parse = |text| Incoming::parse(text).ok().unwrap();
        assert!(
            matches!(parse(r#"{"type":"connection_init"}"#), Incoming::Init(map) if map.is_empty())
        );
        let init = parse(r#"{"type":"connection_init","payload":{"Authorization":"Bearer x"}}"#);
        assert!(matches!(init, Incoming::Init(map) if map.len() == 1));
        assert!(matches!(parse(r#"{"type":"ping"}"#), Incoming::Ping(None)));
        assert!(matches!(parse(r#"{"type":"pong","payload":{}}"#), Incoming::Pong));
        let subscribe = parse(
            r#"{"id":"a","type":"subscribe","payload":{"query":"{a}","operationName":null,"variables":{"x":1},"extensions":{}}}"#,
        );
        assert!(
            matches!(subscribe, Incoming::Subscribe { id, params } if id == "a" && params.variables.len() == 1)
        );
    }
}
