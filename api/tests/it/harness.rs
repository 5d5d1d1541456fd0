//! A test server with an engine that hangs, panics or rejects requests on demand.
//!
//! The engine is a [`Gateway`] without limits or permissions. Limits and permissions of the real engine are covered by
//! the tests of its crate.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use api::{Config, Gateway, Limits, Server};
use async_graphql::{
    Context, ErrorExtensionValues, Name, Object, Request, Response, Schema, ServerError,
    Subscription, Variables,
    futures_util::{FutureExt, Stream, StreamExt, stream},
    parser::{parse_query, types::OperationType},
};
use bytes::Bytes;
use domain::{
    Id,
    inventory::import::{ImportFormat, ImportKind, ImportOrder},
};
use graphql::{
    AccessLoss, Answer, Client, ConnectedCaller, ErrorCode, OperationKind, Received, UploadAbort,
};
use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc},
    task::JoinHandle,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Event that the test engine reports.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Started,
    Dropped,
    /// An upload began, with its order as text; no piece has been requested yet.
    UploadStarted(String),
    /// A piece of an upload arrived, with its size in bytes.
    PieceReceived(usize),
    /// An upload was aborted, with the reason.
    UploadAbort(UploadAbort),
    /// A page of an export was produced.
    PageProduced,
}

/// Guard in a resolver or stream. Reports [`Event::Dropped`] when the engine's work is dropped.
struct DropReporter(mpsc::UnboundedSender<Event>);

impl Drop for DropReporter {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Dropped); // fails if the test has ended
    }
}

/// Panics. A separate function, because the macro of the resolver would warn about unreachable code.
fn panic_now() -> bool {
    panic!("postgres at src/secret.rs")
}

pub struct Query;

#[Object]
impl Query {
    async fn hello(&self) -> &str {
        "world"
    }

    async fn fails(&self) -> async_graphql::Result<Option<bool>> {
        Err("no".into())
    }

    async fn whoami(&self, ctx: &Context<'_>) -> String {
        let client = ctx.data_unchecked::<Client>();
        let bearer = ctx.data_unchecked::<Option<String>>();
        format!("{} {} {bearer:?}", client.address, client.request_id)
    }

    async fn panics(&self) -> bool {
        panic_now()
    }

    async fn hangs(&self, ctx: &Context<'_>) -> bool {
        let events = ctx.data_unchecked::<mpsc::UnboundedSender<Event>>();
        let _reporter = DropReporter(events.clone());
        events.send(Event::Started).unwrap();
        std::future::pending().await
    }

    async fn rests(&self, ctx: &Context<'_>, ms: u64) -> bool {
        ctx.data_unchecked::<mpsc::UnboundedSender<Event>>().send(Event::Started).unwrap();
        tokio::time::sleep(Duration::from_millis(ms)).await;
        true
    }
}

pub struct Mutation;

#[Object]
impl Mutation {
    async fn change(&self) -> bool {
        true
    }
}

pub struct Ticks;

#[Subscription]
impl Ticks {
    async fn ticks(&self) -> impl Stream<Item = u8> {
        stream::iter([1, 2])
    }

    /// Sends nothing, and reports when the stream is dropped.
    async fn silence(&self, ctx: &Context<'_>) -> impl Stream<Item = u8> + use<> {
        let events = ctx.data_unchecked::<mpsc::UnboundedSender<Event>>().clone();
        events.send(Event::Started).unwrap();
        let reporter = DropReporter(events);
        stream::pending().inspect(move |_: &u8| {
            let _ = &reporter;
        })
    }

    /// Sends `count` answers of `bytes` bytes, one per millisecond.
    async fn flood(&self, count: usize, bytes: usize) -> impl Stream<Item = String> {
        stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            "x".repeat(bytes)
        })
    }

    async fn panics(&self) -> impl Stream<Item = u8> {
        stream::iter([1]).map(|_| u8::from(panic_now()))
    }
}

/// Test engine with controllable failures.
#[derive(Clone)]
pub struct Engine {
    schema: Schema<Query, Mutation, Ticks>,
    events: mpsc::UnboundedSender<Event>,
    lost: broadcast::Sender<AccessLoss>,
    /// Number of operations that are still admitted.
    admissions: Arc<Mutex<usize>>,
}

fn refused(errors: Vec<ServerError>) -> Answer {
    Answer { response: Response::from_errors(errors), executed: false }
}

fn error(code: &str, retry_after_ms: Option<u64>) -> ServerError {
    let mut extensions = ErrorExtensionValues::default();
    extensions.set("code", code);
    if let Some(ms) = retry_after_ms {
        extensions.set("retryAfterMs", ms);
    }
    let mut error = ServerError::new("No.", None);
    error.extensions = Some(extensions);
    error
}

impl Gateway for Engine {
    type Prepared = Request;

    fn prepare(
        &self,
        source: &str,
        operation_name: Option<&str>,
        variables: Variables,
    ) -> Result<(OperationKind, Request), Answer> {
        let document = parse_query(source).map_err(|error| refused(vec![error.into()]))?;
        let operation = document
            .operations
            .iter()
            .find(|(name, _)| operation_name.is_none() || name.map(Name::as_str) == operation_name)
            .map(|(_, operation)| match operation.node.ty {
                OperationType::Query => OperationKind::Query,
                OperationType::Mutation => OperationKind::Mutation,
                OperationType::Subscription => OperationKind::Subscription,
            })
            .ok_or_else(|| refused(vec![error("VALIDATION", None)]))?;
        let mut request = Request::new(source).variables(variables);
        request.operation_name = operation_name.map(ToOwned::to_owned);
        Ok((operation, request))
    }

    async fn admit(&self, _: &Client) -> Result<(), Answer> {
        let mut admissions = self.admissions.lock().unwrap();
        if *admissions == 0 {
            return Err(refused(vec![error("RATE_LIMITED", Some(1200))]));
        }
        *admissions -= 1;
        Ok(())
    }

    async fn execute(&self, prepared: Request, bearer: Option<&str>, client: Client) -> Answer {
        if let Some(code) = bearer.and_then(|bearer| bearer.strip_prefix("refuse-")) {
            return refused(vec![error(code, (code == "RATE_LIMITED").then_some(1200))]);
        }
        let request =
            prepared.data(client).data(bearer.map(ToOwned::to_owned)).data(self.events.clone());
        let response = self.schema.execute(request).await;
        let executed =
            response.is_ok() || response.errors.iter().any(|error| !error.path.is_empty());
        Answer { response, executed }
    }

    fn subscribe(
        &self,
        prepared: Request,
        bearer: Option<String>,
        client: Client,
    ) -> impl Stream<Item = Answer> + Send + 'static {
        let request = prepared.data(client).data(bearer).data(self.events.clone());
        self.schema.execute_stream(request).map(|response| Answer {
            executed: response.is_ok()
                || response.errors.iter().any(|error| !error.path.is_empty()),
            response,
        })
    }

    /// Accepts every bearer token, and uses the token as the name of the holder. `refuse-CODE` is rejected with that
    /// code; `hang` never resolves.
    async fn authenticate_connection(
        &self,
        bearer: String,
        _: Client,
    ) -> Result<ConnectedCaller, Answer> {
        if let Some(code) = bearer.strip_prefix("refuse-") {
            return Err(refused(vec![error(code, None)]));
        }
        if bearer == "hang" {
            std::future::pending::<()>().await;
        }
        let mut lost = self.lost.subscribe();
        let lost = async move { lost.recv().await.unwrap_or(AccessLoss::Access) }.boxed();
        Ok(ConnectedCaller { holder: Some(bearer.clone()), bearer: Some(bearer), lost })
    }

    /// Counts each byte as a row. The token `forbid` is rejected with FORBIDDEN; `picky` is rejected after the first
    /// piece.
    async fn upload(
        &self,
        order: ImportOrder,
        bearer: Option<&str>,
        _: Client,
        pieces: impl Stream<Item = Result<Bytes, UploadAbort>> + Send,
    ) -> Result<Received, Answer> {
        match bearer {
            None => return Err(refused(vec![error("UNAUTHENTICATED", None)])),
            Some("forbid") => return Err(refused(vec![error("FORBIDDEN", None)])),
            Some(_) => {}
        }
        let _reporter = DropReporter(self.events.clone());
        let format = match order.format {
            ImportFormat::Csv => "csv",
            ImportFormat::Json => "json",
        };
        let order_text = format!(
            "{} {format} {} {} {:?}",
            order.kind.as_str(),
            order.dry_run,
            order.empty_cells.as_str(),
            order.idempotency_key
        );
        self.events.send(Event::UploadStarted(order_text)).unwrap();
        let mut pieces = std::pin::pin!(pieces);
        let mut bytes = 0;
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => {
                    bytes += piece.len();
                    self.events.send(Event::PieceReceived(piece.len())).unwrap();
                }
                Err(reason) => {
                    self.events.send(Event::UploadAbort(reason)).unwrap();
                    return Err(refused(vec![error("TIMEOUT", None)]));
                }
            }
            if bearer == Some("picky") {
                return Err(refused(vec![error("VALIDATION", None)]));
            }
        }
        Ok(Received { id: Id::default(), rows: i32::try_from(bytes).unwrap() })
    }

    /// Checks as the downloads do.
    async fn check_download(
        &self,
        _: graphql::Download,
        bearer: Option<&str>,
        _: Client,
    ) -> Result<(), Answer> {
        let bearer = bearer.ok_or_else(|| refused(vec![error("UNAUTHENTICATED", None)]))?;
        if bearer == "forbid" {
            return Err(refused(vec![error("FORBIDDEN", None)]));
        }
        Ok(())
    }

    /// Returns a page with the run as its title. The token `refuse-CODE` is rejected with that code.
    async fn print_report(
        &self,
        run: &str,
        bearer: Option<&str>,
        _: Client,
    ) -> Result<graphql::PrintedReport, Answer> {
        let bearer = bearer.ok_or_else(|| refused(vec![error("UNAUTHENTICATED", None)]))?;
        if let Some(code) = bearer.strip_prefix("refuse-") {
            return Err(refused(vec![error(code, None)]));
        }
        let html = format!("<!DOCTYPE html><title>{run}</title>");
        Ok(graphql::PrintedReport { html, style_sha256: "c3R5bGU=".to_owned() })
    }

    async fn report_file(
        &self,
        run: &str,
        bearer: Option<&str>,
        client: Client,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, graphql::Error>> + Send + use<> + 'static, Answer>
    {
        if let Some(code) = bearer.and_then(|bearer| bearer.strip_prefix("refuse-")) {
            return Err(refused(vec![error(code, None)]));
        }
        let header = format!("of {run}\r\n").into_bytes();
        let rows = self.export(ImportKind::Assets, bearer, client).await?;
        Ok(stream::iter([Ok(header)]).chain(rows))
    }

    /// Streams three pages. The token `fails` gets one page and an error; the token `endless` gets an endless stream.
    async fn export(
        &self,
        _: ImportKind,
        bearer: Option<&str>,
        _: Client,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, graphql::Error>> + Send + use<> + 'static, Answer>
    {
        let bearer = bearer.ok_or_else(|| refused(vec![error("UNAUTHENTICATED", None)]))?;
        if bearer == "forbid" {
            return Err(refused(vec![error("FORBIDDEN", None)]));
        }
        let (fails, pages) = (bearer == "fails", if bearer == "endless" { usize::MAX } else { 3 });
        let (reporter, events) = (DropReporter(self.events.clone()), self.events.clone());
        Ok(stream::iter(0..pages).map(move |page| {
            let _ = &reporter;
            let _ = events.send(Event::PageProduced); // fails if the test has ended
            if fails && page == 1 {
                return Err(graphql::Error::new(ErrorCode::Internal, "postgres at src/secret.rs"));
            }
            Ok(if pages == 3 {
                format!("page {page}\r\n").into_bytes()
            } else {
                vec![b'x'; 64 * 1024]
            })
        }))
    }
}

/// Running test server; stopped when dropped.
pub struct TestServer {
    pub address: SocketAddr,
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Sends the loss of access or permissions to all connected callers.
    pub lost: broadcast::Sender<AccessLoss>,
    /// Number of operations that are still admitted; no limit at first.
    pub admissions: Arc<Mutex<usize>>,
    pub stop: CancellationToken,
    pub ended: JoinHandle<std::io::Result<()>>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.ended.abort();
    }
}

impl TestServer {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let schema = Schema::build(Query, Mutation, Ticks).finish();
        let mut config = Config::default();
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let lost = broadcast::channel(16).0;
        let admissions = Arc::new(Mutex::new(usize::MAX));
        let engine = Engine {
            schema,
            events: sender,
            lost: lost.clone(),
            admissions: Arc::clone(&admissions),
        };
        let server = Server::new(config, engine);
        let ended = tokio::spawn(server.run(listener, stop.clone()));
        Self { address, events, lost, admissions, stop, ended }
    }

    /// Starts a server whose limits `change` has adjusted.
    pub async fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        Self::with(|config| change(&mut config.limits)).await
    }
}

/// Awaits a future, and fails the test after five seconds.
pub async fn within_5_s<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future).await.expect("within five seconds")
}
