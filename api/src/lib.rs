//! The HTTP edge: turns untrusted bytes into calls of [`graphql::Engine`], and the results into responses. All errors
//! have one envelope. The crate contains no SQL and no business rule.
//!
//! | file | contents |
//! |---|---|
//! | `config` | addresses, allowed origins, trusted proxies, limits with their defaults |
//! | `server` · `listener` · `connection` | routes, shutdown · connections per address · deadlines of a connection |
//! | `edge` | middleware for every request: id, address, deadline, panics, CORS, headers, log line, metrics |
//! | `endpoint` · `body` · `params` · `accept` · `answer` | GraphQL over HTTP, in the order a request passes |
//! | `gateway` · `operation` | the interface to the engine · one operation of a socket or stream |
//! | `socket` · `sse` | `graphql-transport-ws` on `/graphql` · Server-Sent Events on `/graphql/stream` |
//! | `upload` · `export` · `report` | file transfers: `/import/*`, `/export/*`, `/reports/compliance/*` |
//! | `bearer` · `client` · `cors` · `headers` · `media` · `request_error` | one aspect of HTTP each |
//! | `playground` · `welcome` · `health` | embedded playground · `/`, favicon, security.txt · the health listener |

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
mod report;
mod request_error;
mod server;
mod socket;
mod sse;
mod upload;
mod welcome;

pub use config::{Config, Hsts, Limits, SocketLimits};
pub use cors::{InvalidOrigin, Origin};
pub use gateway::Gateway;
pub use health::{Dependency, Health, Probe};
pub use server::Server;
