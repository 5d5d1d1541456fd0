//! Imports, run by worker processes.
//!
//! This file is long because it covers both kinds of files, and each way in which a run can end.

use domain::{
    Actor,
    base::{page::PageRequest, run_state::RunState},
    entity::ImportRunId,
    inventory::{
        asset::{Asset, AssetFilter, AssetOrder, FactSource},
        import::{
            Chunk, EmptyCells, ImportError, ImportFormat, ImportKind, ImportOrder, ImportRun,
            Opened, RowError, Table, chunker::Chunker,
        },
    },
};
use jobs::inventory::import::{push_abandonment_check, push_first_chunk};
use serde_json::json;

use crate::harness::{TestFleet, at, eventually};

const ALL: PageRequest = PageRequest { size: 100, backward: false, after: None, before: None };

pub(crate) fn order(kind: ImportKind, format: ImportFormat) -> ImportOrder {
    ImportOrder {
        kind,
        format,
        dry_run: false,
        empty_cells: EmptyCells::Keep,
        idempotency_key: None,
    }
}

/// Uploads a file, as the upload endpoint does.
async fn send(fleet: &TestFleet, order: &ImportOrder, file: &str) -> ImportRunId {
    send_as(fleet, Actor::System, order, file).await
}

pub(super) async fn send_as(
    fleet: &TestFleet,
    actor: Actor,
    order: &ImportOrder,
    file: &str,
) -> ImportRunId {
    let tx = fleet.write_as(actor).await;
    let Opened::New(run) = ImportRun::open(&tx, order, at()).await.unwrap() else {
        panic!("the key is new")
    };
    push_abandonment_check(&tx, run.id, at()).await.unwrap();
    let mut chunker = Chunker::new(order.format);
    let mut chunks = chunker.push(file.as_bytes()).unwrap();
    chunks.extend(chunker.finish().unwrap());
    let table = Table {
        kind: order.kind,
        columns: chunker.header().map(<[String]>::to_vec).unwrap_or_default(),
        delimiter: chunker.delimiter().unwrap_or(b','),
    };
    for chunk in &chunks {
        ImportRun::add_chunk(&tx, run.id, &table, chunk).await.unwrap();
    }
    let run = ImportRun::mark_received(&tx, run.id, at()).await.unwrap();
    push_first_chunk(&tx, &run).await.unwrap();
    tx.commit().await.unwrap();
    run.id
}

pub(super) async fn ended(fleet: &TestFleet, id: ImportRunId) -> ImportRun {
    let read = async || {
        let tx = fleet.db.read(fleet.org).await.unwrap();
        let run = ImportRun::get(&tx, id).await.unwrap();
        tx.commit().await.unwrap();
        run
    };
    eventually(async || read().await.state.has_ended()).await;
    read().await
}

/// Imports a file and waits until the run ends. Returns the numbers of created, updated, unchanged and failed rows.
pub(crate) async fn import(
    fleet: &TestFleet,
    order: &ImportOrder,
    file: &str,
) -> (i32, i32, i32, i32) {
    let id = send(fleet, order, file).await;
    let run = ended(fleet, id).await;
    assert_eq!((run.state, run.error.as_deref()), (RunState::Succeeded, None));
    assert_eq!(run.done, run.rows);
    (run.created, run.updated, run.unchanged, run.failed)
}

async fn assets(fleet: &TestFleet) -> Vec<Asset> {
    let tx = fleet.db.read(fleet.org).await.unwrap();
    let page = Asset::list(&tx, &AssetFilter::default(), AssetOrder::default(), &ALL).await;
    let mut assets = page.unwrap().rows;
    tx.commit().await.unwrap();
    assets.sort_by(|one, other| one.name.cmp(&other.name));
    assets
}

/// Returns the errors of a run: row, column, message and suggestion.
pub(super) async fn errors(fleet: &TestFleet, run: ImportRunId) -> Vec<String> {
    let tx = fleet.db.read(fleet.org).await.unwrap();
    let page = ImportError::list(&tx, run, &ALL).await.unwrap();
    tx.commit().await.unwrap();
    let messages = page.rows.into_iter().map(|error| {
        let column = error.column.unwrap_or_default();
        let suggestion = error.suggestion.map(|text| format!(" ({text}?)")).unwrap_or_default();
        format!("{} {column}: {}{suggestion}", error.row, error.message)
    });
    messages.collect()
}

const CSV: ImportFormat = ImportFormat::Csv;

#[tokio::test]
async fn a_file_is_imported_and_the_same_file_again_changes_nothing() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let file = "external_id,name,asset_type,environment,tags,attributes.os_name,attributes.open_ports,custom.serial\n\
                n:1,web-1,host,prod,\"vm,edge\",Ubuntu Linux 20.04,443 22,007\n\
                n:2,sw-1,network_device,staging,,,,\n";
    let order = order(ImportKind::Assets, CSV);
    assert_eq!(import(&fleet, &order, file).await, (2, 0, 0, 0));
    let imported = assets(&fleet).await;
    assert_eq!(
        imported[1].attributes,
        json!({"os_name": "Ubuntu Linux 20.04", "open_ports": [22, 443]})
    );
    assert_eq!(imported[1].custom_fields, json!({"serial": "007"}));
    let facts: Vec<_> = imported[1]
        .facts(at())
        .into_iter()
        .map(|fact| (fact.key, fact.value, fact.source))
        .collect();
    assert_eq!(
        facts,
        [
            ("open_ports".to_owned(), json!([22, 443]), FactSource::Imported),
            ("os_name".to_owned(), json!("Ubuntu Linux 20.04"), FactSource::Imported),
            ("os_supported".to_owned(), json!(false), FactSource::Derived),
        ]
    );
    assert_eq!(import(&fleet, &order, file).await, (0, 0, 2, 0));
    assert_eq!(assets(&fleet).await, imported);
    assert_eq!(fleet.audited("asset.created").await, 2);
    assert_eq!(fleet.audited("asset.updated").await, 0);
}

#[tokio::test]
async fn what_is_wrong_is_told_by_row_and_column_and_the_rest_is_imported() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let file = "external_id,name,type,environment,owner,attributes.disk_encrypted,attributes.open_ports\n\
                n:1,web-1,host,prod,,yes,22\n\
                n:2,web-2,hots,prod,,maybe,22\n\
                n:1,web-3,host,prod,,,\n\
                n:4,web-4,host,prod,nobody@x.com,,\n\
                n:5,,host,prod,,,\n\
                n:6,web-6,host,prod,,perhaps,70000\n\
                n:7,web-7,host,prod,,,,too,many\n\
                n:8,web-8,host,production,,,\n";
    let id = send(&fleet, &order(ImportKind::Assets, CSV), file).await;
    let run = ended(&fleet, id).await;
    assert_eq!((run.rows, run.created, run.failed), (8, 1, 7));
    assert_eq!(
        errors(&fleet, id).await,
        [
            "3 asset_type: \"hots\" is not one of host, network_device, service, software_license, cloud_resource (host?)",
            "4 external_id: this asset is already in row 2, and only that row is imported",
            "5 owner: no member has the e-mail address \"nobody@x.com\"",
            "6 name: is missing: no asset matches this row, and a new asset needs a name",
            "7 attributes.disk_encrypted: must be true or false (also accepted: yes, no, on, off, enabled, disabled, 1, 0), not \"perhaps\"",
            "7 attributes.open_ports: must be between 0 and 65535, not 70000",
            "8 : has 9 cells, but the header has 7: put a text that contains a comma in double quotes",
            "9 environment: \"production\" is not one of prod, staging, dev (prod?)",
        ]
    );
    assert_eq!(assets(&fleet).await.len(), 1);
}

#[tokio::test]
async fn a_dry_run_says_what_would_come_and_changes_nothing() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let kept = order(ImportKind::Assets, CSV);
    import(&fleet, &kept, "external_id,name,type,tags\nn:1,web-1,host,vm\nn:2,web-2,host,vm\n")
        .await;
    let before = assets(&fleet).await;
    let dry = ImportOrder { dry_run: true, ..kept };
    let file = "external_id,name,type,tags\nn:1,web-1,host,vm\nn:2,other,host,new\nn:3,web-3,host,new\nn:3,web-3,host,\n";
    assert_eq!(import(&fleet, &dry, file).await, (1, 1, 1, 1));
    assert_eq!(assets(&fleet).await, before);
    assert_eq!(fleet.audited("asset.updated").await, 0);
    assert_eq!(fleet.audited("tag.created").await, 1);
}

#[tokio::test]
async fn an_empty_cell_keeps_or_clears_as_ordered() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let keep = order(ImportKind::Assets, CSV);
    import(
        &fleet,
        &keep,
        "external_id,name,type,location,attributes.model\nn:1,web-1,host,B12,R740\n",
    )
    .await;
    let file = "external_id,location,attributes.model\nn:1,,\n";
    assert_eq!(import(&fleet, &keep, file).await, (0, 0, 1, 0));
    let clear = ImportOrder { empty_cells: EmptyCells::Clear, ..keep };
    assert_eq!(import(&fleet, &clear, file).await, (0, 1, 0, 0));
    let asset = &assets(&fleet).await[0];
    assert_eq!((&asset.location, &asset.attributes), (&None, &json!({})));
}

#[tokio::test]
async fn json_says_the_same_as_csv_and_null_clears() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let json = order(ImportKind::Assets, ImportFormat::Json);
    let file = r#"[{"externalId": "n:1", "name": "web-1", "type": "HOST", "tags": ["vm"], "attributes": {"os_eol": true},
                    "customFields": {"seats": 5}}, {"external_id": "n:2", "name": "web-2"}, 7]"#;
    assert_eq!(import(&fleet, &json, file).await, (1, 0, 0, 2));
    let asset = &assets(&fleet).await[0];
    assert_eq!(asset.attributes, json!({"os_supported": false}));
    assert_eq!(asset.custom_fields, json!({"seats": 5}));
    let file = r#"{"externalId": "n:1", "attributes": {"os_supported": null}, "customFields": {"seats": null}}"#;
    assert_eq!(import(&fleet, &json, file).await, (0, 1, 0, 0));
    let asset = &assets(&fleet).await[0];
    assert_eq!((&asset.attributes, &asset.custom_fields), (&json!({}), &json!({})));
}

#[tokio::test]
async fn a_short_code_finds_its_asset_and_a_new_one_is_kept() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let order = order(ImportKind::Assets, CSV);
    let file = "code,name,type\nhst-label,web-1,host\n";
    assert_eq!(import(&fleet, &order, file).await, (1, 0, 0, 0));
    assert_eq!(assets(&fleet).await[0].code, "HST-LABEL");
    let file = "code,external_id,name\nHST-LABEL,n:1,web-one\n";
    assert_eq!(import(&fleet, &order, file).await, (0, 1, 0, 0));
    let asset = &assets(&fleet).await[0];
    assert_eq!((asset.name.as_str(), asset.external_id.as_deref()), ("web-one", Some("n:1")));
    import(&fleet, &order, "external_id,name,type\nn:2,web-2,host\n").await;
    let id = send(&fleet, &order, "code,external_id\nHST-LABEL,n:2\n").await;
    assert_eq!(ended(&fleet, id).await.failed, 1);
    assert_eq!(
        errors(&fleet, id).await,
        [
            "2 code: HST-LABEL is the code of another asset than the one with this external id: correct the code or the external id"
        ]
    );
}

#[tokio::test]
async fn many_chunks_are_imported_in_the_order_of_the_file() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let rows: Vec<_> = (0..2_500).map(|row| format!("n:{row},host {row},host\n")).collect();
    let file = format!("external_id,name,type\n{}n:7,again,host\n", rows.concat());
    let id = send(&fleet, &order(ImportKind::Assets, CSV), &file).await;
    let run = ended(&fleet, id).await;
    assert_eq!((run.rows, run.created, run.failed), (2_501, 2_500, 1));
    assert_eq!(
        errors(&fleet, id).await,
        ["2502 external_id: this asset is already in row 9, and only that row is imported"]
    );
    assert_eq!(fleet.audited("asset.created").await, 2_500);
}

#[tokio::test]
async fn a_worker_that_is_killed_in_mid_import_makes_nothing_twice() {
    let fleet = TestFleet::new().await;
    let rows = (0..4_000).map(|row| format!("n:{},h,host\n", row - i32::from(row % 10 == 9)));
    let file = format!("external_id,name,type\n{}", rows.collect::<Vec<_>>().concat());
    let id = send(&fleet, &order(ImportKind::Assets, CSV), &file).await;
    for killed in 0..3 {
        fleet.start();
        let busy = format!(
            "SELECT FROM import_run WHERE state NOT IN ('QUEUED', 'RUNNING') OR chunks_done > {killed} OR EXISTS
                 (SELECT FROM job WHERE kind = 'import.chunk' AND state = 'RUNNING')"
        );
        eventually(async || fleet.count(&busy).await == 1).await;
        fleet.kill_first();
    }
    fleet.start();
    let run = ended(&fleet, id).await;
    assert_eq!((run.state, run.error), (RunState::Succeeded, None));
    let counts = [run.rows, run.done, run.created, run.updated, run.unchanged, run.failed];
    assert_eq!(counts, [4_000, 4_000, 3_600, 0, 0, 400]);
    assert_eq!(fleet.count("SELECT FROM asset").await, 3_600);
    assert_eq!(fleet.audited("asset.created").await, 3_600);
    assert_eq!(fleet.audited("import_run.finished").await, 1);
    assert_eq!(fleet.count("SELECT FROM import_error").await, 400);
}

#[tokio::test]
async fn what_an_ended_run_needed_is_swept_away() {
    let fleet = TestFleet::new().await;
    fleet.start();
    import(&fleet, &order(ImportKind::Assets, CSV), "external_id,name,type\nn:1,web-1,host\n")
        .await;
    let superuser = fleet.db.superuser().await;
    eventually(async || {
        let sql = "SELECT (SELECT count(*) FROM import_key) + (SELECT count(*) FROM import_chunk)";
        superuser.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

async fn opened(fleet: &TestFleet, order: &ImportOrder) -> domain::Result<Opened> {
    let tx = fleet.write().await;
    let opened = ImportRun::open(&tx, order, at()).await?;
    tx.commit().await?;
    Ok(opened)
}

fn new(opened: Opened) -> ImportRun {
    let Opened::New(run) = opened else { panic!("the key is new") };
    run
}

#[tokio::test]
async fn a_header_is_kept_once_however_many_chunks_there_are() {
    let fleet = TestFleet::new().await;
    let rows: Vec<_> = (0..2_500).map(|row| format!("host {row},host\n")).collect();
    let file = format!("name,type\n{}", rows.concat());
    send(&fleet, &order(ImportKind::Assets, CSV), &file).await;
    assert_eq!(fleet.count("SELECT FROM import_chunk").await, 3);
    assert_eq!(fleet.count("SELECT FROM import_table WHERE columns = '{name,type}'").await, 1);
}

#[tokio::test]
async fn a_key_stands_for_one_order_that_has_come_whole() {
    let fleet = TestFleet::new().await;
    let nightly = ImportOrder {
        idempotency_key: Some("nightly".into()),
        dry_run: true,
        ..order(ImportKind::Assets, CSV)
    };
    let run = new(opened(&fleet, &nightly).await.unwrap());
    let refused = async |order: &ImportOrder| opened(&fleet, order).await.unwrap_err().to_string();
    assert!(refused(&nightly).await.contains("still in progress"));
    let tx = fleet.write().await;
    ImportRun::mark_received(&tx, run.id, at()).await.unwrap();
    tx.commit().await.unwrap();
    let Opened::Existing(before) = opened(&fleet, &nightly).await.unwrap() else {
        panic!("started twice")
    };
    assert_eq!(before.id, run.id);
    for other in [
        ImportOrder { dry_run: false, ..nightly.clone() },
        ImportOrder { kind: ImportKind::Dependencies, ..nightly.clone() },
        ImportOrder { format: ImportFormat::Json, ..nightly.clone() },
        ImportOrder { empty_cells: EmptyCells::Clear, ..nightly.clone() },
    ] {
        assert!(refused(&other).await.contains("another import"), "{other:?}");
    }
}

#[tokio::test]
async fn of_uploads_at_once_no_more_are_under_way_than_may_be() {
    let fleet = TestFleet::new().await;
    let order = order(ImportKind::Assets, CSV);
    let opening = (0..8).map(|_| opened(&fleet, &order));
    let opened = futures_util::future::join_all(opening).await;
    assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 5);
    assert_eq!(fleet.count("SELECT FROM import_run").await, 5);
}

#[tokio::test]
async fn a_header_alone_is_recorded_as_an_import_that_ended() {
    let fleet = TestFleet::new().await;
    let id = send(&fleet, &order(ImportKind::Assets, CSV), "name,type\n").await;
    assert_eq!(ended(&fleet, id).await.state, RunState::Succeeded);
    let finished = "SELECT FROM audit_entry WHERE action = 'import_run.finished' AND before->>'state' = 'QUEUED'";
    assert_eq!(fleet.count(finished).await, 1);
}

#[tokio::test]
async fn a_run_whose_rows_have_all_come_does_not_break_off() {
    let fleet = TestFleet::new().await;
    let order = order(ImportKind::Assets, CSV);
    let whole = send(&fleet, &order, "name,type\nweb-1,host\n").await;
    let coming = new(opened(&fleet, &order).await.unwrap()).id;
    let tx = fleet.write().await;
    let left = ImportRun::fail_upload(&tx, whole, "the client left", at()).await.unwrap().unwrap();
    assert_eq!((left.id, left.rows, left.state), (whole, 1, RunState::Queued));
    assert_eq!(ImportRun::fail_upload(&tx, coming, "the client left", at()).await.unwrap(), None);
    tx.commit().await.unwrap();
    assert_eq!(ended(&fleet, coming).await.state, RunState::Failed);
}

#[tokio::test]
async fn what_is_kept_of_an_error_is_bounded() {
    let fleet = TestFleet::new().await;
    let tx = fleet.write().await;
    let run = new(ImportRun::open(&tx, &order(ImportKind::Assets, CSV), at()).await.unwrap());
    let long = "ä".repeat(5_000);
    let fault = RowError {
        row: 2,
        column: Some(long.clone()),
        message: long.clone(),
        suggestion: Some(long),
    };
    let chunk = Chunk { rows: 1, faults: vec![fault], ..Chunk::default() };
    let table = Table { kind: ImportKind::Assets, columns: Vec::new(), delimiter: b',' };
    ImportRun::add_chunk(&tx, run.id, &table, &chunk).await.unwrap();
    tx.commit().await.unwrap();
    let kept = "SELECT FROM import_error WHERE length(\"column\" || message || suggestion) = 3000";
    assert_eq!(fleet.count(kept).await, 1);
}

#[tokio::test]
async fn an_import_that_ended_long_ago_is_forgotten_with_its_errors() {
    let fleet = TestFleet::new().await;
    fleet.start();
    let order = order(ImportKind::Assets, CSV);
    let file = "external_id,name,type\nn:1,web-1,host\nn:1,web-1,host\n";
    let (old, young) = (send(&fleet, &order, file).await, send(&fleet, &order, file).await);
    ended(&fleet, old).await;
    ended(&fleet, young).await;
    // The database's clock decides which runs are old. It differs from the clock of the tests.
    let age = |id: ImportRunId, days| {
        format!(
            "UPDATE import_run SET finished_at = now() - interval '{days} days' WHERE id = '{}';",
            id.uuid()
        )
    };
    fleet.run_sql(&(age(old, 31) + &age(young, 29))).await;
    fleet.start(); // A new process deletes old history immediately.
    eventually(async || fleet.count("SELECT FROM import_run").await == 1).await;
    let left = format!("SELECT FROM import_error WHERE run_id = '{}'", young.uuid());
    assert_eq!(fleet.count(&left).await, 1);
    assert_eq!(fleet.count("SELECT FROM import_error").await, 1);
}

async fn edges(fleet: &TestFleet) -> Vec<String> {
    let superuser = fleet.db.superuser().await;
    let sql = "SELECT source.name || ' needs ' || target.name || coalesce(' ' || kind, '') || coalesce(' ' || criticality, '')
        FROM dependency JOIN asset AS source ON source.id = source_id JOIN asset AS target ON target.id = target_id ORDER BY 1";
    superuser.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn three_hosts(fleet: &TestFleet) {
    let file = "external_id,code,name,type\nn:1,HST-1,a,host\nn:2,,b,host\nn:3,,c,host\n";
    import(fleet, &order(ImportKind::Assets, CSV), file).await;
}

#[tokio::test]
async fn dependencies_are_added_said_anew_and_unchanged() {
    let fleet = TestFleet::new().await;
    fleet.start();
    three_hosts(&fleet).await;
    let order = order(ImportKind::Dependencies, CSV);
    let file = "source_external_id,target_external_id,target_code,kind,criticality\n\
                n:2,n:1,,runs_on,high\nn:3,,hst-1,uplink,\n";
    assert_eq!(import(&fleet, &order, file).await, (2, 0, 0, 0));
    assert_eq!(edges(&fleet).await, ["b needs a runs_on HIGH", "c needs a uplink"]);
    assert_eq!(import(&fleet, &order, file).await, (0, 0, 2, 0));
    let file = "source_external_id,target_external_id,kind\nn:2,n:1,hosts\nn:1,n:2,\n";
    assert_eq!(import(&fleet, &order, file).await, (1, 1, 0, 0));
    assert_eq!(edges(&fleet).await, ["a needs b", "b needs a hosts HIGH", "c needs a uplink"]);
    assert_eq!(fleet.audited("asset.dependency_changed").await, 1);
}

#[tokio::test]
async fn wrong_dependencies_are_told_and_the_others_imported() {
    let fleet = TestFleet::new().await;
    fleet.start();
    three_hosts(&fleet).await;
    let file = "source_external_id,source_code,target_external_id,kind,criticality\n\
                n:1,,n:1,,\nn:1,,n:9,,\nn:1,,n:2,,hgih\n,,n:2,,\nn:2,HST-1,n:3,,\nn:1,,n:3,,\nn:1,,n:3,,\n";
    let id = send(&fleet, &order(ImportKind::Dependencies, CSV), file).await;
    let run = ended(&fleet, id).await;
    assert_eq!((run.created, run.failed), (1, 6));
    assert_eq!(
        errors(&fleet, id).await,
        [
            "2 target_external_id: is the source itself: an asset cannot depend on itself",
            "3 target_external_id: there is no asset with the external id \"n:9\"",
            "4 criticality: \"hgih\" is not one of low, medium, high, critical (high?)",
            "5 source_external_id: is missing: fill in source_external_id or source_code",
            "6 source_external_id: is the external id of another asset than the one with source_code: correct one of the two",
            "8 : this dependency is already in row 7, and only that row is imported",
        ]
    );
}
