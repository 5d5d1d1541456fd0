//! The connection to Redis that a process shares.
//!
//! Chosen: one fred client, pipelining all callers; a command is sent at most once, waits no longer
//! than its caller said, and fails at once while the connection is down (fred's defaults: no timeout,
//! three sends, an endless buffer). Given up: riding out a short reconnect unnoticed.
//! fred notices a closed connection but not a mute one (its own check restarts with every write), and
//! gives up on some errors: `keep_connected` replaces the connection in both cases, for ever.

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

/// How long a command waits that states no patience of its own.
const PATIENCE: Duration = Duration::from_secs(1);
/// Commands that may queue in front of the socket; more are refused.
const BUFFER_COMMANDS: usize = 4096;
/// Seconds in a row without any answer after which a connection counts as dead.
const MUTE_SECS: u32 = 5;

/// A shared handle to Redis; cloning it is cheap, dropping the last one closes the connection.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    _keeper: Arc<AbortOnDropHandle<()>>,
}

impl Redis {
    /// Opens a handle and returns at once: the connection is made, and made again for ever, by a
    /// task of the current Tokio runtime. `rediss://` wants a rustls provider installed.
    ///
    /// Accepts `redis[s]://[[user]:password@]host[:port][/database]`,
    /// `redis+unix://[[user]:password@local]/path` and `unix://[[user]:password@]/path`.
    ///
    /// # Errors
    /// [`Error::Url`] if the URL cannot be used, [`Error::Redis`] if the system's certificates cannot
    /// be read. Never because Redis is down.
    pub fn open(url: &str) -> Result<Self> {
        let client = Builder::from_config(config(url)?)
            .with_performance_config(|performance| performance.default_command_timeout = PATIENCE)
            .with_connection_config(|connection| {
                connection.connection_timeout = Duration::from_secs(2);
                connection.internal_command_timeout = PATIENCE;
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = BUFFER_COMMANDS;
                connection.reconnect_on_auth_error = true;
            })
            .set_policy(ReconnectPolicy::new_exponential(0, 20, 1_000, 2))
            .build()
            .map_err(Error::Redis)?;
        let keeper = AbortOnDropHandle::new(tokio::spawn(keep_connected(client.clone())));
        Ok(Self { client, _keeper: Arc::new(keeper) })
    }

    /// Asks Redis for a sign of life, for readiness.
    pub async fn ping(&self) -> Result<()> {
        patient(&self.client, PATIENCE).ping(None).await.map_err(Error::Redis)
    }

    /// Tells a channel's listeners, if there are any.
    pub(crate) async fn publish(&self, channel: &str, message: String) -> Result<()> {
        let command = CustomCommand::new_static("PUBLISH", None, false);
        let words = vec![Value::from(channel), Value::from(message)];
        let listeners = patient(&self.client, PATIENCE).custom::<Value, _>(command, words).await;
        listeners.map(drop).map_err(Error::Redis)
    }

    /// Waits until Redis answers, but no longer than `patience`: at start, so that the first requests
    /// are not decided without it.
    pub async fn ready(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            match self.ping().await {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(10)).await,
                answer => return answer,
            }
        }
    }

    /// Runs a script by its hash, or by its text when Redis does not know it (any more).
    pub(crate) async fn run<R: FromValue>(
        &self,
        script: &Script,
        keys: Vec<String>,
        args: Vec<Value>,
        patience: Duration,
    ) -> Result<R> {
        let started_at = Instant::now();
        let hash: &str = script.sha1();
        match self.eval("EVALSHA", hash, keys.clone(), args.clone(), patience).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                let text = script.lua().map_or("", |text| text);
                // fred takes zero for "no timeout".
                let rest = patience.saturating_sub(started_at.elapsed());
                self.eval("EVAL", text, keys, args, rest.max(Duration::from_millis(1))).await
            }
            answer => answer,
        }
        .map_err(Error::Redis)?
        .convert()
        .map_err(Error::Redis)
    }

    // As a custom command, for fred's own `evalsha` has no options: it would wait without a deadline.
    async fn eval(
        &self,
        command: &'static str,
        script: &str,
        keys: Vec<String>,
        args: Vec<Value>,
        patience: Duration,
    ) -> Result<Value, fred::error::Error> {
        let mut words = Vec::with_capacity(2 + keys.len() + args.len());
        words.push(script.into());
        words.push(keys.len().to_string().into());
        words.extend(keys.into_iter().map(Value::from));
        words.extend(args);
        let command = CustomCommand::new_static(command, None, false);
        patient(&self.client, patience).custom(command, words).await
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("state", &self.client.state()).finish_non_exhaustive()
    }
}

/// Sent at most once, answered within `patience` or failed, failed at once while disconnected.
fn patient(client: &Client, patience: Duration) -> WithOptions<Client> {
    client.with_options(&Options {
        timeout: Some(patience),
        max_attempts: Some(1),
        fail_fast: true,
        ..Options::default()
    })
}

async fn keep_connected(client: Client) {
    loop {
        let connection = AbortOnDropHandle::new(client.connect());
        tokio::select! {
            // fred has given up: what it was about has been answered to its callers.
            _ended = connection => sleep(Duration::from_secs(1)).await,
            // Dropping the task drops a socket that it may be stuck in writing to.
            () = muteness(&client) => {}
        }
    }
}

/// Returns when a connection that looks healthy has not answered for [`MUTE_SECS`].
async fn muteness(client: &Client) {
    let mut mute_secs = 0;
    while mute_secs < MUTE_SECS {
        sleep(Duration::from_secs(1)).await;
        match patient(client, PATIENCE).ping::<()>(None).await {
            Err(error) if *error.kind() == ErrorKind::Timeout => mute_secs += 1,
            // Answered; or fred knows that it is disconnected and is reconnecting by itself.
            Ok(()) | Err(_) => mute_secs = 0,
        }
    }
}

/// What fred needs to know of a URL.
pub(crate) fn config(url: &str) -> Result<Config> {
    const FORMS: &str = "it must begin with redis://, rediss://, redis+unix:// or unix://";
    let (scheme, rest) = url.split_once("://").ok_or(Error::Url(FORMS))?;
    let url = match scheme {
        "redis" | "rediss" => url.to_owned(),
        "redis+unix" | "unix" => {
            let (authority, path) =
                rest.split_once('/').ok_or(Error::Url("a socket needs an absolute path"))?;
            // fred wants a host behind credentials, and ignores it.
            let host = if authority.ends_with('@') { "local" } else { "" };
            format!("redis+unix://{authority}{host}/{path}")
        }
        _ => return Err(Error::Url(FORMS)),
    };
    let mut config = Config::from_url(&url).map_err(|error| match error.kind() {
        ErrorKind::Tls | ErrorKind::IO => Error::Redis(error),
        _ => Error::Url("it must read redis://[[user]:password@]host[:port][/database]"),
    })?;
    // Redis may be down when we start: then fred shall go on trying.
    config.fail_fast = false;
    if let ServerConfig::Unix { path } = &mut config.server {
        // fred leaves the path as it stands in the URL, where a space reads %20.
        *path = percent_decoded(&path.to_string_lossy())
            .ok_or(Error::Url("its path has a broken % sequence"))?;
    }
    Ok(config)
}

/// The path as it was before it was put into a URL; `None` where a `%` is followed by anything but two hexadecimal digits,
/// which the library would leave as it stands, or where it is not UTF-8.
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
