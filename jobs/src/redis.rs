//! Redis connection that all modules of a process share.
//!
//! Chosen: one fred client that pipelines the commands of all callers. A command is sent at most once, times out after
//! the caller's timeout, and fails immediately while the connection is down. (fred's defaults are no timeout, three
//! attempts and an unbounded buffer.) Given up: hiding short reconnects from callers. fred notices a closed connection
//! but not an unresponsive one (its own check restarts with every write), and stops reconnecting after some errors.
//! `keep_connected` replaces the connection in both cases, until it succeeds.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, WithOptions};
use fred::error::ErrorKind;
use fred::interfaces::ClientLike;
use fred::types::config::{Config, Options, ReconnectPolicy, ServerConfig};
use fred::types::scripts::Script;
use fred::types::{Builder, CustomCommand, FromValue, Value};
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, Result};

/// Timeout of a command whose caller sets none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of commands that wait for the socket; further commands are rejected.
const BUFFER_COMMANDS: usize = 4096;
/// Number of seconds without any answer after which a connection counts as unresponsive.
const UNRESPONSIVE_SECS: u32 = 5;

/// Handle to the shared connection. Cloning is cheap; dropping the last clone closes the connection.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    _reconnect: Arc<AbortOnDropHandle<()>>,
}

impl Redis {
    /// Returns a handle immediately. A task of the current Tokio runtime connects, and reconnects indefinitely.
    /// `rediss://` requires an installed rustls provider.
    ///
    /// Accepts `redis[s]://[[user]:password@]host[:port][/database]`, `redis+unix://[[user]:password@local]/path` and
    /// `unix://[[user]:password@]/path`.
    ///
    /// # Errors
    /// [`Error::Url`] if the URL cannot be used, [`Error::Redis`] if the system's certificates cannot be read. No error
    /// if Redis is down.
    pub fn open(url: &str) -> Result<Self> {
        let client = Builder::from_config(config(url)?)
            .with_performance_config(|performance| {
                performance.default_command_timeout = DEFAULT_TIMEOUT;
            })
            .with_connection_config(|connection| {
                connection.connection_timeout = Duration::from_secs(2);
                connection.internal_command_timeout = DEFAULT_TIMEOUT;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = BUFFER_COMMANDS;
                connection.reconnect_on_auth_error = true;
            })
            .set_policy(ReconnectPolicy::new_exponential(0, 20, 1_000, 2))
            .build()
            .map_err(Error::Redis)?;
        let reconnect = AbortOnDropHandle::new(tokio::spawn(keep_connected(client.clone())));
        Ok(Self { client, _reconnect: Arc::new(reconnect) })
    }

    /// Sends a `PING` to Redis, for the readiness check.
    pub async fn ping(&self) -> Result<()> {
        with_timeout(&self.client, DEFAULT_TIMEOUT).ping(None).await.map_err(Error::Redis)
    }

    /// Publishes a message on a channel. Succeeds also if the channel has no subscribers.
    pub(crate) async fn publish(&self, channel: &str, message: String) -> Result<()> {
        let command = CustomCommand::new_static("PUBLISH", None, false);
        let arguments = vec![Value::from(channel), Value::from(message)];
        let listeners = with_timeout(&self.client, DEFAULT_TIMEOUT)
            .custom::<Value, _>(command, arguments)
            .await;
        listeners.map(drop).map_err(Error::Redis)
    }

    /// Waits up to `timeout` until Redis answers. Call it at start, so that Redis and not the local limiters decide the
    /// first requests.
    pub async fn ready(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.ping().await {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(10)).await,
                answer => return answer,
            }
        }
    }

    /// Runs a script by its hash (`EVALSHA`), or by its text (`EVAL`) if Redis has not cached the script.
    pub(crate) async fn run<R: FromValue>(
        &self,
        script: &Script,
        keys: Vec<String>,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<R> {
        let started_at = Instant::now();
        let hash: &str = script.sha1();
        match self.eval("EVALSHA", hash, keys.clone(), args.clone(), timeout).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                let text = script.lua().map_or("", |text| text);
                // fred treats zero as "no timeout".
                let rest = timeout.saturating_sub(started_at.elapsed());
                self.eval("EVAL", text, keys, args, rest.max(Duration::from_millis(1))).await
            }
            answer => answer,
        }
        .map_err(Error::Redis)?
        .convert()
        .map_err(Error::Redis)
    }

    // A custom command, because fred's own `evalsha` takes no options and would wait without a timeout.
    async fn eval(
        &self,
        command: &'static str,
        script: &str,
        keys: Vec<String>,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Value, fred::error::Error> {
        let mut arguments = Vec::with_capacity(2 + keys.len() + args.len());
        arguments.push(script.into());
        arguments.push(keys.len().to_string().into());
        arguments.extend(keys.into_iter().map(Value::from));
        arguments.extend(args);
        let command = CustomCommand::new_static(command, None, false);
        with_timeout(&self.client, timeout).custom(command, arguments).await
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("state", &self.client.state()).finish_non_exhaustive()
    }
}

/// Returns a client whose commands are sent at most once, time out after `timeout`, and fail immediately while the
/// connection is down.
fn with_timeout(client: &Client, timeout: Duration) -> WithOptions<Client> {
    client.with_options(&Options {
        timeout: Some(timeout),
        max_attempts: Some(1),
        fail_fast: true,
        ..Options::default()
    })
}

async fn keep_connected(client: Client) {
    loop {
        let connection = AbortOnDropHandle::new(client.connect());
        tokio::select! {
            // fred has stopped reconnecting. Callers with pending commands have received an error.
            _ended = connection => sleep(Duration::from_secs(1)).await,
            // Dropping the task drops the socket, even if a write to it is stuck.
            () = until_unresponsive(&client) => {}
        }
    }
}

/// Completes when a connection that looks healthy has not answered for [`UNRESPONSIVE_SECS`].
async fn until_unresponsive(client: &Client) {
    let mut unresponsive_secs = 0;
    while unresponsive_secs < UNRESPONSIVE_SECS {
        sleep(Duration::from_secs(1)).await;
        match with_timeout(client, DEFAULT_TIMEOUT).ping::<()>(None).await {
            Err(error) if *error.kind() == ErrorKind::Timeout => unresponsive_secs += 1,
            // Redis answered, or fred has noticed the disconnect and reconnects.
            Ok(()) | Err(_) => unresponsive_secs = 0,
        }
    }
}

/// Parses a Redis URL into the configuration of fred.
pub(crate) fn config(url: &str) -> Result<Config> {
    const FORMS: &str = "it must begin with redis://, rediss://, redis+unix:// or unix://";
    let (scheme, rest) = url.split_once("://").ok_or(Error::Url(FORMS))?;
    let url = match scheme {
        "redis" | "rediss" => url.to_owned(),
        "redis+unix" | "unix" => {
            let (authority, path) =
                rest.split_once('/').ok_or(Error::Url("a socket needs an absolute path"))?;
            // fred requires a host after credentials, and ignores it.
            let host = if authority.ends_with('@') { "local" } else { "" };
            format!("redis+unix://{authority}{host}/{path}")
        }
        _ => return Err(Error::Url(FORMS)),
    };
    let mut config = Config::from_url(&url).map_err(|error| match error.kind() {
        ErrorKind::Tls | ErrorKind::IO => Error::Redis(error),
        _ => Error::Url("it must have the form redis://[[user]:password@]host[:port][/database]"),
    })?;
    // Redis may be down at start. fred must then retry.
    config.fail_fast = false;
    if let ServerConfig::Unix { path } = &mut config.server {
        // fred does not decode the path of the URL, in which a space is written as %20.
        *path = percent_decoded(&path.to_string_lossy())
            .ok_or(Error::Url("its path has an invalid % escape"))?;
    }
    Ok(config)
}

/// Decodes a percent-encoded path. Returns `None` if a `%` is not followed by two hexadecimal digits, which the library
/// would leave unchanged, or if the path is not UTF-8.
fn percent_decoded(text: &str) -> Option<PathBuf> {
    let is_code = |rest: &str| {
        rest.get(..2).is_some_and(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let path = percent_decode_str(text).decode_utf8().ok()?;
    text.split('%').skip(1).all(is_code).then(|| PathBuf::from(path.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(url: &str) -> (String, Option<String>, Option<String>) {
        let config = config(url).unwrap();
        let ServerConfig::Unix { path } = config.server else { panic!("{url} is no socket") };
        (path.to_str().unwrap().to_owned(), config.username, config.password)
    }

    #[test]
    fn sockets_are_accepted_in_all_their_forms() {
        let some = |text: &str| Some(text.to_owned());
        for (url, path, username, password) in [
            ("unix:///run/redis.sock", "/run/redis.sock", None, None),
            ("redis+unix:///run/redis.sock", "/run/redis.sock", None, None),
            ("unix://:s3cret@/run/redis.sock", "/run/redis.sock", None, some("s3cret")),
            ("redis+unix://:s3cret@local/run/a.sock", "/run/a.sock", None, some("s3cret")),
            ("unix://ops:s%2Fc@local/run/a.sock", "/run/a.sock", some("ops"), some("s/c")),
            ("unix:///home/me/My Projects/a.sock", "/home/me/My Projects/a.sock", None, None),
            ("unix:///home/me/My%20Projects/a.sock", "/home/me/My Projects/a.sock", None, None),
            ("unix:///run/%c3%BC%25.sock", "/run/ü%.sock", None, None),
            ("unix:///run/a+b.sock", "/run/a+b.sock", None, None),
        ] {
            assert_eq!(socket(url), (path.to_owned(), username, password), "{url}");
        }
    }

    #[test]
    fn a_host_may_carry_port_and_database() {
        let config = config("redis://:s3cret@cache.internal:6380/3").unwrap();
        assert_eq!(config.server, ServerConfig::new_centralized("cache.internal", 6380));
        assert!(!config.uses_tls());
        assert_eq!((config.database, config.password), (Some(3), Some("s3cret".to_owned())));
    }

    #[test]
    fn a_bad_url_is_refused_without_being_repeated() {
        for url in [
            "",
            "localhost:6379",
            "http://:s3cret@host",
            "redis-cluster://:s3cret@host",
            "redis://:s3cret@",
            "redis://:s3cret@host:port",
            "unix://s3cret",
            "unix:///s3cret%zz",
            "unix:///s3cret%4",
            "unix:///s3cret%",
            "unix:///s3cret%%",
            "unix:///s3cret%C3",
        ] {
            let error = config(url).unwrap_err();
            assert!(matches!(error, Error::Url(_)), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{url}: {error:?}");
        }
    }
}
