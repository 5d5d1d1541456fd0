//! Tests of exports: contents of the files, visibility of owners, and audit entries.

use domain::{
    Error, Origin, Result,
    inventory::{
        asset::{Asset, AssetType, CreateAssetInput, LifecycleState},
        dependency::{Criticality, Dependency},
        export::Export,
        import::{ImportKind, check_columns},
        owners::Owners,
        tag::Tag,
    },
};
use serde_json::json;

use crate::harness::{TestOrg, at, host, host_with, organization};

/// Returns the records of a complete export, the header first.
async fn export(test: &TestOrg, kind: ImportKind, owners: Owners) -> Vec<Vec<String>> {
    let mut export = begin(test, kind, owners).await;
    let mut file = export.header();
    while let Some(page) = page(test, &mut export).await.unwrap() {
        file.extend(page);
    }
    let reader =
        csv::ReaderBuilder::new().has_headers(false).from_reader(file.as_slice()).into_records();
    reader.map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
}

async fn begin(test: &TestOrg, kind: ImportKind, owners: Owners) -> Export {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let export = Export::begin(&tx, kind, owners).await.unwrap();
    tx.commit().await.unwrap();
    export
}

async fn page(test: &TestOrg, export: &mut Export) -> Result<Option<Vec<u8>>> {
    export.page(&test.db.read(test.org).await.unwrap()).await
}

async fn add(test: &TestOrg, input: &CreateAssetInput) -> Asset {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let asset = Asset::create(&tx, input, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    asset
}

/// Inserts `count` assets without audit entries.
async fn many(test: &TestOrg, count: i32) {
    let sql = "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, created_at, updated_at)
        SELECT $1, gen_random_uuid(), 'X-' || n, 'host-' || n, 'HOST', 'ACTIVE', 'PROD', now(), now()
        FROM generate_series(1, $2::int) AS n";
    test.db.superuser().await.execute(sql, &[&test.org, &count]).await.unwrap();
}

#[tokio::test]
async fn an_asset_is_told_in_the_columns_that_import_it_again() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@x.com", &["viewer"]).await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let mut tags = Vec::new();
    for name in ["web", "DMZ"] {
        tags.push(Tag::create(&tx, name, None, at(0)).await.unwrap().id);
    }
    tx.commit().await.unwrap();
    let asset = add(
        &test,
        &CreateAssetInput {
            asset_type: AssetType::NetworkDevice,
            lifecycle_state: Some(LifecycleState::Maintenance),
            external_id: Some("=1+1".into()),
            location: Some("Rack \"4\", left".into()),
            description: Some("first\nsecond".into()),
            owner: Some(ada),
            tags: Some(tags),
            attributes: Some(json!({"open_ports": [22, 443], "disk_encrypted": true})),
            custom_fields: Some(json!({
                "text": "-5", "number": -5, "empty": "", "space": " \u{a0}", "a:json": "x", "list": ["a", 1],
            })),
            ..host("edge-1")
        },
    )
    .await;
    let blank = add(&test, &host("blank")).await;

    let records = export(&test, ImportKind::Assets, Owners::Included).await;
    let expected = [
        ("code", asset.code.as_str(), blank.code.as_str()),
        ("external_id", "'=1+1", ""),
        ("name", "edge-1", "blank"),
        ("asset_type", "network_device", "host"),
        ("environment", "prod", "prod"),
        ("lifecycle_state", "maintenance", "active"),
        ("location", "Rack \"4\", left", ""),
        ("description", "first\nsecond", ""),
        ("owner", "ada@x.com", ""),
        ("tags", "DMZ,web", ""),
        ("attributes.disk_encrypted", "true", ""),
        ("attributes.open_ports", "22 443", ""),
        ("custom.a:json:json", "\"x\"", ""),
        ("custom.empty:json", "\"\"", ""),
        ("custom.list:json", "[\"a\",1]", ""),
        ("custom.number:json", "'-5", ""),
        ("custom.space:json", "\" \u{a0}\"", ""),
        ("custom.text", "'-5", ""),
    ];
    let messages: Vec<(&str, &str, &str)> = (0..records[0].len())
        .map(|index| (&*records[0][index], &*records[1][index], &*records[2][index]))
        .collect();
    assert_eq!(messages, expected);
    assert_eq!(records.len(), 3);
}

#[tokio::test]
async fn a_dependency_is_told_by_codes_and_external_ids() {
    let test = TestOrg::new().await;
    let known = CreateAssetInput { external_id: Some("snipe-7".into()), ..host("a") };
    let (a, b) = (add(&test, &known).await, add(&test, &host("b")).await);
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let high = Some(Criticality::High);
    Dependency::add(&tx, a.id, b.id, Some("+runs on"), high, at(0)).await.unwrap();
    Dependency::add(&tx, b.id, a.id, None, None, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    let records = export(&test, ImportKind::Dependencies, Owners::Included).await;
    let header = "source_code source_external_id target_code target_external_id kind criticality";
    let expected = [
        header.split(' ').collect(),
        vec![a.code.as_str(), "snipe-7", b.code.as_str(), "", "'+runs on", "high"],
        vec![b.code.as_str(), "", a.code.as_str(), "snipe-7", "", ""],
    ];
    assert_eq!(records, expected);
}

#[tokio::test]
async fn an_inventory_without_assets_is_a_header() {
    let test = TestOrg::new().await;
    let records = export(&test, ImportKind::Assets, Owners::Included).await;
    let header = "code external_id name asset_type environment lifecycle_state location description owner tags";
    assert_eq!(records, [header.split(' ').map(str::to_owned).collect::<Vec<_>>()]);
}

#[tokio::test]
async fn every_asset_is_told_once_whatever_the_pages() {
    let test = TestOrg::new().await;
    for more in [999, 1, 1_001] {
        let before = export(&test, ImportKind::Assets, Owners::Included).await.len();
        let sql = "UPDATE asset SET code = 'Y' || code WHERE org_id = $1";
        test.db.superuser().await.execute(sql, &[&test.org]).await.unwrap();
        many(&test, more).await;
        let mut records = export(&test, ImportKind::Assets, Owners::Included).await;
        records.sort_unstable();
        records.dedup();
        assert_eq!(records.len(), before + usize::try_from(more).unwrap());
    }
}

#[tokio::test]
async fn an_export_that_lacks_a_column_fails() {
    let test = TestOrg::new().await;
    add(&test, &host("first")).await;
    let mut export = begin(&test, ImportKind::Assets, Owners::Included).await;
    let late = CreateAssetInput { custom_fields: Some(json!({"rack": "4"})), ..host("late") };
    add(&test, &late).await;
    let refused = page(&test, &mut export).await;
    let is_included = |reason: &str| reason.contains("custom.rack") && reason.contains("again");
    assert!(matches!(refused, Err(Error::Conflict(reason)) if is_included(&reason)));
}

#[tokio::test]
async fn owners_are_told_to_those_only_who_may_see_them() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@x.com", &["viewer"]).await;
    add(&test, &CreateAssetInput { owner: Some(ada), ..host("a") }).await;
    let records = export(&test, ImportKind::Assets, Owners::Omitted).await;
    assert!(!records.concat().iter().any(|cell| cell == "owner" || cell.contains('@')));
}

#[tokio::test]
async fn nothing_of_another_organization_goes_out() {
    let test = TestOrg::new().await;
    let mut other = TestOrg::new().await;
    other.org = organization(&other.db, "globex").await;
    add(&other, &host_with("theirs", json!({"os_name": "Debian 12"}))).await;
    let ours = TestOrg { org: organization(&other.db, "initech").await, ..other };
    let records = export(&ours, ImportKind::Assets, Owners::Included).await;
    assert_eq!(records, export(&test, ImportKind::Assets, Owners::Included).await);
}

#[tokio::test]
async fn who_exported_how_many_rows_is_noted_before_the_first_goes_out() {
    let test = TestOrg::new().await;
    many(&test, 3).await;
    begin(&test, ImportKind::Assets, Owners::Included).await;
    let sql = "SELECT action, entity_type, entity_id, after->>'rows' FROM audit_entry WHERE action = 'asset.exported'";
    let row = test.db.superuser().await.query_one(sql, &[]).await.unwrap();
    let recorded: (&str, &str, uuid::Uuid, &str) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(recorded, ("asset.exported", "organization", test.org.uuid(), "3"));
}

#[tokio::test]
async fn more_custom_fields_than_an_import_reads_are_refused_with_what_to_do() {
    let test = TestOrg::new().await;
    // Each asset has four custom fields of its own; 4,000 assets do not fit into one statement.
    let sql = "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, custom_fields, created_at, updated_at)
        SELECT $1, gen_random_uuid(), 'X-' || n, 'host-' || n, 'HOST', 'ACTIVE', 'PROD',
               (SELECT jsonb_object_agg('k' || (n * 4 + k), '') FROM generate_series(1, 4) AS k), now(), now()
        FROM generate_series(1, $2::int) AS n";
    let begun = async |count: i32| {
        test.db.superuser().await.execute("DELETE FROM asset", &[]).await.unwrap();
        test.db.superuser().await.execute(sql, &[&test.org, &count]).await.unwrap();
        let tx = test.db.write(test.org, Origin::system()).await.unwrap();
        Export::begin(&tx, ImportKind::Assets, Owners::Included).await
    };
    let header = String::from_utf8(begun(116).await.unwrap().header()).unwrap();
    let columns: Vec<String> = header.trim_end().split(',').map(str::to_owned).collect();
    assert_eq!(columns.len(), 10 + 4 * 116);
    check_columns(ImportKind::Assets, &columns, Owners::Included).unwrap();
    for count in [117, 4_000] {
        let Err(Error::Conflict(reason)) = begun(count).await else { panic!("there are too many") };
        assert!(
            reason.contains("more than 464") && reason.contains("emptyCells=clear"),
            "{reason}"
        );
    }
}
