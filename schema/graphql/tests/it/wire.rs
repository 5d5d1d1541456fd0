//! A proxy between the pool and Postgres. Only there can statements be counted independently of the code that sends
//! them.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use domain::{Db, testing::TestDb};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream, UnixStream},
};
use tokio_postgres::config::Host;

use crate::harness::{TestApp, unlimited_quota};

/// First bytes of a connection that only cancels a statement of another connection.
const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();

/// A proxy in front of Postgres that records statements.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Mutex<Traffic>>);

/// Traffic since the last call of [`Wire::look`].
#[derive(Debug, Default, Clone)]
pub(crate) struct Traffic {
    /// Texts of the statements in the order of sending, one per round trip.
    pub(crate) statements: Vec<String>,
    /// Number of connections that the pool opened.
    pub(crate) connections: usize,
    /// Maximum number of transactions open at the same time.
    pub(crate) most_open: usize,
    open: usize,
}

impl Traffic {
    /// Returns the number of statements that contain this text.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.statements.iter().filter(|statement| statement.contains(text)).count()
    }
}

impl Wire {
    /// Creates an app whose engine has a pool of `connections` connections through the proxy.
    pub(crate) async fn app(connections: usize) -> (TestApp, Self) {
        let test = TestDb::new().await;
        let config: tokio_postgres::Config = test.url.parse().unwrap();
        let host = config.get_hosts()[0].clone();
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let password = std::str::from_utf8(config.get_password().unwrap()).unwrap();
        let url = format!(
            "postgresql://{}:{password}@{address}/{}?sslmode=disable",
            config.get_user().unwrap(),
            config.get_dbname().unwrap()
        );
        let wire = Self(Arc::default());
        tokio::spawn(wire.clone().serve(listener, host, port));
        let db = Db::new(&url, connections, "sentryops-test").unwrap();
        (TestApp::on(test, db, unlimited_quota()).await, wire)
    }

    /// Returns the traffic since the last call, and starts counting again.
    pub(crate) fn take(&self) -> Traffic {
        let mut seen = self.0.lock().unwrap();
        let rest = Traffic { open: seen.open, most_open: seen.open, ..Traffic::default() };
        std::mem::replace(&mut seen, rest)
    }

    async fn serve(self, listener: TcpListener, host: Host, port: u16) {
        while let Ok((client, _)) = listener.accept().await {
            client.set_nodelay(true).unwrap();
            let (wire, host) = (self.clone(), host.clone());
            tokio::spawn(async move {
                // The pool notices a broken connection.
                let _ = match host {
                    Host::Unix(folder) => {
                        let socket = folder.join(format!(".s.PGSQL.{port}"));
                        wire.connect(client, UnixStream::connect(socket).await).await
                    }
                    Host::Tcp(host) => {
                        wire.connect(client, TcpStream::connect((host, port)).await).await
                    }
                };
            });
        }
    }

    async fn connect<S: AsyncRead + AsyncWrite>(
        self,
        client: TcpStream,
        server: io::Result<S>,
    ) -> io::Result<()> {
        let (from_server, to_server) = tokio::io::split(server?);
        let (from_client, mut to_client) = client.into_split();
        let mut connection = Connection { wire: self, statements: HashMap::new(), is_open: false };
        tokio::select! {
            ended = connection.forward(from_client, to_server) => ended,
            ended = async { let mut from = from_server; copy(&mut from, &mut to_client).await } => ended.map(drop),
        }
    }
}

/// A connection through the proxy, with its prepared statements.
struct Connection {
    wire: Wire,
    statements: HashMap<Vec<u8>, String>,
    /// True while a transaction is open on the connection.
    is_open: bool,
}

impl Connection {
    async fn forward(
        &mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let greeting = message(&mut from).await?;
        to.write_u32(u32::try_from(greeting.len()).unwrap() + 4).await?;
        to.write_all(&greeting).await?;
        if greeting.starts_with(&CANCEL) {
            return copy(&mut from, &mut to).await.map(drop);
        }
        self.wire.0.lock().unwrap().connections += 1;
        let mut portal = Vec::new();
        loop {
            let kind = from.read_u8().await?;
            let body = message(&mut from).await?;
            let mut texts = body.split(|byte| *byte == 0);
            let mut text = || texts.next().unwrap_or_default().to_vec();
            match kind {
                b'Q' => self.sent(String::from_utf8_lossy(&text()).into_owned()),
                b'P' => {
                    let (name, sql) = (text(), text());
                    self.statements.insert(name, String::from_utf8_lossy(&sql).into_owned());
                }
                b'B' => {
                    text(); // The name of the portal; tokio-postgres uses the unnamed portal only.
                    portal = text();
                }
                b'E' => self.sent(self.statements.get(&portal).cloned().unwrap_or_default()),
                _ => {}
            }
            let mut whole = vec![kind];
            whole.extend_from_slice(&(u32::try_from(body.len()).unwrap() + 4).to_be_bytes());
            whole.extend_from_slice(&body);
            to.write_all(&whole).await?;
        }
    }

    fn sent(&mut self, statement: String) {
        let begins = statement.starts_with("BEGIN");
        let ends = statement.ends_with("COMMIT") || statement.ends_with("ROLLBACK");
        self.wire.0.lock().unwrap().statements.push(statement);
        if begins != ends {
            self.opened(begins);
        }
    }

    fn opened(&mut self, is_open: bool) {
        if is_open == self.is_open {
            return;
        }
        self.is_open = is_open;
        let mut seen = self.wire.0.lock().unwrap();
        seen.open = if is_open { seen.open + 1 } else { seen.open - 1 };
        seen.most_open = seen.most_open.max(seen.open);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.opened(false);
    }
}

/// Reads the length of a message and returns its body.
async fn message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await? as usize;
    let mut body = vec![0; length.checked_sub(4).ok_or(io::ErrorKind::InvalidData)?];
    from.read_exact(&mut body).await?;
    Ok(body)
}
