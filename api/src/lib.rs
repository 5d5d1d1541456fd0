//! The HTTP edge: bytes from strangers in, one envelope out. Knows HTTP and [`graphql::Engine`]; no SQL, no rule.
//!
//! | file | what lives there |
//! |---|---|
//! | `config` | addresses, lists, limits with their defaults |
//! | `server` · `listener` · `connection` | routes and stop · who may connect, and how many · how long they may take |
//! | `edge` | around every request: id, address, deadline, panics, CORS, headers, one log line, metrics |
//! | `endpoint` · `body` · `params` · `accept` · `answer` | GraphQL over HTTP, in the order a request passes |
//! | `gateway` · `operation` | the seam to the engine, for all transports · one operation where answers are many |
//! | `socket` · `sse` | `graphql-transport-ws` on `/graphql` · Server-Sent Events on `/graphql/stream` |
//! | `upload` · `export` | files in and out: `/import/*`, `/export/*` |
//! | `bearer` · `client` · `cors` · `headers` · `media` · `refusal` | one small decision each |
//! | `playground` · `welcome` · `health` | files from the binary · `/`, security.txt · the private port |

mod accept;
mod answer;
mod bearer;
mod body;
mod client;
mod config;
mod connection;
mod cors;
mod edge;
mod endpoint;
mod export;
mod gateway;
mod headers;
mod health;
mod listener;
mod media;
mod operation;
mod params;
mod playground;
mod refusal;
mod report;
mod server;
mod socket;
mod sse;
mod upload;
mod welcome;

pub use config::{Config, Hsts, Limits, Sockets};
pub use cors::{InvalidOrigin, Origin};
pub use gateway::Gateway;
pub use health::{Health, Probe};
pub use server::Server;
