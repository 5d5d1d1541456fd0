//! Tests of uploads and exports as the HTTP layer calls them: each end of an upload, and the permissions of an export.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_graphql::futures_util::{StreamExt, stream};
use bytes::Bytes;
use domain::{
    Id, Origin,
    access::permission::Permission,
    base::run_state::RunState,
    entity::ImportRunId,
    inventory::{
        asset::{Asset, AssetType, CreateAssetInput},
        import::{EmptyCells, ImportFormat, ImportKind, ImportOrder, ImportRun},
    },
};
use graphql::{AccessLoss, Received, UploadAbort};
use serde_json::json;

use crate::harness::{Reply, Team, TestApp, client, now};

const FILE: &[&str] = &["code,na", "me,asset_type\nA-1,web", "-1,host\n", "A-2,web-2,host"];

fn order(kind: ImportKind, format: ImportFormat) -> ImportOrder {
    let empty_cells = EmptyCells::Keep;
    ImportOrder { kind, format, dry_run: false, empty_cells, idempotency_key: None }
}

fn assets() -> ImportOrder {
    order(ImportKind::Assets, ImportFormat::Csv)
}

type Piece = Result<Bytes, UploadAbort>;

fn pieces(texts: &[&str]) -> Vec<Piece> {
    texts.iter().map(|text| Ok(Bytes::from((*text).to_owned()))).collect()
}

/// Uploads these pieces as the team's operator.
async fn upload(
    app: &TestApp,
    team: &Team,
    order: ImportOrder,
    pieces: Vec<Piece>,
) -> Result<Received, Reply> {
    let bearer = team["operator"].bearer.as_str();
    let received = app.engine.upload(order, Some(bearer), client("up"), stream::iter(pieces));
    received.await.map_err(Reply::from)
}

async fn run(app: &TestApp, team: &Team, id: ImportRunId) -> ImportRun {
    let tx = app.test.read(team.org.id).await.unwrap();
    ImportRun::get(&tx, id).await.unwrap()
}

/// Returns the only import run.
async fn only_run(app: &TestApp, team: &Team) -> ImportRun {
    let row = app.test.superuser().await.query_one("SELECT id FROM import_run", &[]).await;
    run(app, team, Id::from(row.unwrap().get::<_, uuid::Uuid>("id"))).await
}

async fn count(app: &TestApp, what: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {what}");
    app.test.superuser().await.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_whole_file_waits_in_chunks_for_its_first_job() {
    let app = TestApp::with_connections(1).await;
    let team = app.team("acme").await;
    let received = upload(&app, &team, assets(), pieces(FILE)).await.unwrap();
    let run = run(&app, &team, received.id).await;
    assert_eq!((received.rows, run.rows, run.state), (2, 2, RunState::Queued));
    assert!(run.received_at.is_some());
    let content = "import_chunk JOIN import_table USING (org_id, run_id, kind)
        WHERE content = 'A-1,web-1,host\nA-2,web-2,host\n'::bytea AND columns = '{code,name,asset_type}' AND numbers = '{2,3}' AND delimiter = ','";
    assert_eq!(count(&app, content).await, 1);
    assert_eq!(count(&app, "job WHERE kind = 'import.chunk'").await, 1);
    assert_eq!(count(&app, "asset").await, 0);
}

#[tokio::test]
async fn many_rows_are_many_chunks() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    let rows: Vec<_> = (0..2_500).map(|row| format!("{{\"name\": \"n-{row}\"}}\n")).collect();
    let rows = rows.concat();
    let order = order(ImportKind::Assets, ImportFormat::Json);
    let received = upload(&app, &team, order, pieces(&[&rows])).await.unwrap();
    assert_eq!((received.rows, count(&app, "import_chunk").await), (2_500, 3));
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_kept_as_errors() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    let file = vec![Ok(Bytes::from_static(b"name\n\xff\nok\n"))];
    let received = upload(&app, &team, assets(), file).await.unwrap();
    assert_eq!(received.rows, 2);
    let fault =
        "import_error WHERE \"row\" = 2 AND \"column\" = 'name' AND suggestion LIKE '%UTF-8%'";
    assert_eq!(count(&app, fault).await, 1);
}

#[tokio::test]
async fn nothing_is_asked_of_who_may_not() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    let (_, key) = app.api_key(&team, "reader", &[Permission::AssetRead]).await;
    let asked = AtomicUsize::new(0);
    for (bearer, code) in [
        (None, "UNAUTHENTICATED"),
        (Some("nonsense"), "UNAUTHENTICATED"),
        (Some(&*team["viewer"].bearer), "FORBIDDEN"),
        (Some(&*key), "FORBIDDEN"),
    ] {
        let pieces = stream::poll_fn(|_| {
            asked.fetch_add(1, Ordering::Relaxed);
            std::task::Poll::Ready(None::<Piece>)
        });
        let refused = app.engine.upload(assets(), bearer, client("up"), pieces).await;
        let refused = Reply::from(refused.unwrap_err());
        assert_eq!(refused.code(), code);
        assert_eq!(refused.error()["extensions"]["requestId"], "up");
    }
    assert_eq!((asked.into_inner(), count(&app, "import_run").await), (0, 0));
}

#[tokio::test]
async fn a_file_that_is_none_starts_nothing() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    for (file, fault) in [
        (&b""[..], "file"),
        (b"\x1f\x8b\x08\x00", "file"),
        (b"\xff\xfea\x00", "file"),
        (b"name,enviroment\nx,prod\n", "enviroment"),
        (b"name,", ""),
        (b"location\nx\n", "header"),
    ] {
        let file = vec![Ok(Bytes::from_static(file))];
        let refused = upload(&app, &team, assets(), file).await.unwrap_err();
        assert_eq!((refused.code(), refused.faults()), ("VALIDATION", vec![fault]));
    }
    assert_eq!(count(&app, "import_run").await, 0);
}

#[tokio::test]
async fn an_upload_that_breaks_off_fails_with_how_much_had_come() {
    for (broken, code, reason) in [
        (UploadAbort::Disconnected, "VALIDATION", "the client disconnected"),
        (UploadAbort::TooSlow, "TIMEOUT", "the client sent data too slowly"),
        (UploadAbort::ShuttingDown, "DEPENDENCY_UNAVAILABLE", "the server shut down"),
        (
            UploadAbort::AccessLost(AccessLoss::Access),
            "UNAUTHENTICATED",
            "the caller's session or API key is no longer valid",
        ),
        (
            UploadAbort::AccessLost(AccessLoss::Permission),
            "FORBIDDEN",
            "the caller's permissions changed",
        ),
    ] {
        let app = TestApp::new().await;
        let team = app.team("acme").await;
        let rows = "x\n".repeat(1_001);
        let mut sent = pieces(&["name\n", &rows]);
        sent.push(Err(broken));
        let refused = upload(&app, &team, assets(), sent).await.unwrap_err();
        assert_eq!(refused.code(), code);
        let run = only_run(&app, &team).await;
        let expected = format!(
            "the upload ended after 2,007 bytes with 1,000 stored rows, and nothing was imported: {reason}"
        );
        assert_eq!((run.state, run.error.as_deref()), (RunState::Failed, Some(&*expected)));
        let is_swept_now =
            "job WHERE kind = 'import.sweep' AND run_at <= now() + interval '1 minute'";
        assert_eq!(count(&app, is_swept_now).await, 1);
        assert_eq!(count(&app, "job WHERE kind = 'import.chunk'").await, 0);
    }
}

#[tokio::test]
async fn a_request_that_is_dropped_fails_its_run() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    let bearer = team["operator"].bearer.clone();
    let engine = app.engine.clone();
    let (reached, came) = tokio::sync::oneshot::channel();
    let reached = stream::once(async {
        reached.send(()).unwrap();
        std::future::pending::<Piece>().await
    });
    let sent = stream::iter(pieces(&["name\nx\n"])).chain(reached);
    let upload = tokio::spawn(async move {
        engine.upload(assets(), Some(&bearer), client("up"), sent).await.map(drop)
    });
    came.await.unwrap();
    upload.abort();
    let ended = async { while only_run(&app, &team).await.state != RunState::Failed {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.unwrap();
    assert!(only_run(&app, &team).await.error.unwrap().ends_with("the client disconnected"));
}

#[tokio::test]
async fn a_file_that_breaks_in_the_middle_fails_its_run_and_says_where() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    let order = order(ImportKind::Assets, ImportFormat::Json);
    let sent = pieces(&["[{\"name\":\"a\"},", "{\"name\":[}]"]);
    let refused = upload(&app, &team, order, sent).await.unwrap_err();
    assert_eq!((refused.code(), refused.faults()), ("VALIDATION", vec!["file"]));
    let run = only_run(&app, &team).await;
    let reason = run.error.unwrap();
    assert!(run.state == RunState::Failed && reason.contains("element 2"), "{reason}");
}

#[tokio::test]
async fn the_same_key_is_the_same_upload_unless_it_broke_off() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    let keyed = || ImportOrder { idempotency_key: Some("nightly".into()), ..assets() };
    let mut broken = pieces(&["name\nx\n"]);
    broken.push(Err(UploadAbort::Disconnected));
    upload(&app, &team, keyed(), broken).await.unwrap_err();
    let first = upload(&app, &team, keyed(), pieces(FILE)).await.unwrap();
    let again = upload(&app, &team, keyed(), pieces(&["name\nother\n"])).await.unwrap();
    assert_eq!((&again, again.rows), (&first, 2));
    assert_eq!(count(&app, "import_run").await, 2);
}

#[tokio::test]
async fn a_run_that_is_cancelled_takes_no_more_rows() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    let rows = "x\n".repeat(1_000);
    let (engine, bearer) = (app.engine.clone(), team["operator"].bearer.clone());
    let (sender, coming) = tokio::sync::mpsc::channel::<Piece>(1);
    let sent = stream::unfold(coming, async |mut sent| Some((sent.recv().await?, sent)));
    let upload = tokio::spawn(async move {
        let received = engine.upload(assets(), Some(&bearer), client("up"), sent).await;
        received.map_err(Reply::from)
    });
    for text in ["name\n", &rows, "x\n"] {
        sender.send(Ok(Bytes::from(text.to_owned()))).await.unwrap();
    }
    let begun = async { while count(&app, "import_chunk").await == 0 {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), begun).await.unwrap();
    let id = only_run(&app, &team).await.id;
    let tx = app.test.write(team.org.id, Origin::system()).await.unwrap();
    ImportRun::cancel(&tx, id, now()).await.unwrap();
    tx.commit().await.unwrap();
    sender.send(Ok(Bytes::from(rows.clone()))).await.unwrap();
    drop(sender);
    let refused = upload.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), "CONFLICT");
    assert_eq!(run(&app, &team, id).await.state, RunState::Cancelled);
}

/// Exports a file and returns it as text.
async fn export(app: &TestApp, bearer: &str, kind: ImportKind) -> Result<String, Reply> {
    let pages = app.engine.export(kind, Some(bearer), client("down")).await;
    let pages: Vec<_> = pages.map_err(Reply::from)?.collect().await;
    let file: Vec<u8> = pages.into_iter().flat_map(|page| page.unwrap()).collect();
    Ok(String::from_utf8(file).unwrap())
}

async fn owned(app: &TestApp, team: &Team, name: &str) -> Asset {
    let input = CreateAssetInput {
        name: name.into(),
        asset_type: AssetType::Host,
        environment: None,
        lifecycle_state: None,
        external_id: None,
        location: None,
        description: None,
        owner: Some(team["admin"].id),
        tags: None,
        attributes: None,
        custom_fields: None,
    };
    let tx = app.test.write(team.org.id, Origin::system()).await.unwrap();
    let asset = Asset::create(&tx, &input, now()).await.unwrap();
    tx.commit().await.unwrap();
    asset
}

#[tokio::test]
async fn a_file_tells_owners_to_those_who_may_see_users() {
    let app = TestApp::with_connections(1).await;
    let team = app.team("acme").await;
    let Asset { code, .. } = owned(&app, &team, "web-1").await;
    let line = |owner: &str| format!("{code},,web-1,host,prod,active,,,{owner}\r\n");
    let messages = export(&app, &team["admin"].bearer, ImportKind::Assets).await.unwrap();
    assert!(
        messages.contains(",owner,") && messages.ends_with(&line("admin@acme.example,")),
        "{messages}"
    );
    let withheld = export(&app, &team["viewer"].bearer, ImportKind::Assets).await.unwrap();
    assert!(!withheld.contains("owner") && withheld.ends_with(&line("")), "{withheld}");
    let who = format!(
        "audit_entry WHERE action = 'asset.exported' AND after = '{{\"rows\": 1}}' AND request_id = 'down'
         AND actor_id IN ('{}', '{}')",
        team["admin"].id.uuid(),
        team["viewer"].id.uuid()
    );
    assert_eq!(count(&app, &who).await, 2);
}

#[tokio::test]
async fn a_file_goes_to_those_only_who_may_read() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    let (_, key) = app.api_key(&team, "importer", &[Permission::AssetImport]).await;
    for kind in [ImportKind::Assets, ImportKind::Dependencies] {
        assert_eq!(export(&app, &key, kind).await.unwrap_err().code(), "FORBIDDEN");
        assert_eq!(export(&app, "x", kind).await.unwrap_err().code(), "UNAUTHENTICATED");
    }
    assert_eq!(count(&app, "audit_entry WHERE action LIKE '%.exported'").await, 0);
}

#[tokio::test]
async fn an_export_that_fails_says_so_instead_of_ending() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    let sql = "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, created_at, updated_at)
        SELECT id, gen_random_uuid(), 'X-' || n, 'x', 'HOST', 'ACTIVE', 'PROD', now(), now()
        FROM organization, generate_series(1, 1500) AS n";
    app.execute_sql(sql).await;
    let bearer = &team["viewer"].bearer;
    let pages = app.engine.export(ImportKind::Assets, Some(bearer), client("down")).await;
    let mut pages = pages.map_err(Reply::from).unwrap().boxed();
    assert!(pages.next().await.unwrap().is_ok());
    app.execute_sql("ALTER TABLE asset RENAME TO lost").await;
    assert!(pages.next().await.unwrap().is_err());
    assert!(pages.next().await.is_none());
}

#[tokio::test]
async fn owners_in_a_file_take_the_right_to_see_users_before_a_row_is_read() {
    let app = TestApp::new().await;
    let team = app.team("acme").await;
    let import = "mutation($content: String!) { importAssets(input: { format: CSV, content: $content, dryRun: true }) { id } }";
    let mut refusals = Vec::new();
    for email in [team["admin"].email.as_str(), "stranger@acme.example", ""] {
        let file = format!("code,name,asset_type,owner\nA-1,web-1,host,{email}\n");
        let refused = app.ask(&*team["operator"].bearer, import, json!({ "content": file })).await;
        assert_eq!(refused.faults(), ["input.content.owner"]);
        assert!(refused.text.contains("USER_READ"), "{}", refused.text);
        refusals.push(refused.json);
        let refused = upload(&app, &team, assets(), pieces(&[&file])).await.unwrap_err();
        assert_eq!(refused.faults(), ["owner"]);
        refusals.push(refused.json);
    }
    assert!(refusals.iter().step_by(2).all(|one| *one == refusals[0]), "{refusals:#?}");
    assert!(refusals.iter().skip(1).step_by(2).all(|one| *one == refusals[1]), "{refusals:#?}");
    assert_eq!(count(&app, "import_run").await, 0);
    let file = format!("code,name,asset_type,owner\nA-1,web-1,host,{}\n", team["admin"].email);
    app.ask(&*team["admin"].bearer, import, json!({ "content": file })).await.data();
}
