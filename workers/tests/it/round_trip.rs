//! What is exported imports again unchanged: here, where nothing changes, and elsewhere, where the same comes to be.

use domain::{
    asset::{Asset, AssetType, CreateAssetInput, Environment, LifecycleState},
    dependency::{Criticality, Dependency},
    export::{Export, Owners},
    import::{EmptyCells, ImportFormat, ImportKind, ImportOrder},
    tag::Tag,
};
use serde_json::json;

use crate::{
    import::{import, order},
    stage::{Stage, at},
};

async fn export(stage: &Stage, kind: ImportKind) -> String {
    let tx = stage.write().await;
    let mut export = Export::begin(&tx, kind, Owners::Withheld, at()).await.unwrap();
    let mut file = export.header();
    while let Some(page) = export.page(&tx).await.unwrap() {
        file.extend(page);
    }
    tx.commit().await.unwrap();
    String::from_utf8(file).unwrap()
}

/// The lines of a file in no particular order: ids are new elsewhere, and so is the order of the rows.
fn sorted(file: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = file.split("\r\n").collect();
    lines[1..].sort_unstable();
    lines
}

fn nasty(place: usize, text: &str, environment: Environment) -> CreateAssetInput {
    CreateAssetInput {
        name: format!("{text} {place}"),
        asset_type: AssetType::ALL[place % AssetType::ALL.len()],
        environment: Some(environment),
        lifecycle_state: Some(LifecycleState::Active),
        external_id: (place % 2 == 0).then(|| format!("{text}{place}")),
        location: Some(text.to_owned()),
        description: Some(format!("{text}\nsecond \"line\", {text}")),
        owner: None,
        tags: None,
        attributes: Some(json!({
            "os_name": text, "disk_encrypted": place % 2 == 0, "open_ports": [22, 443], "cpu_cores": place + 1,
            "ip_addresses": ["10.0.0.1", "::1"], "last_backup_at": "2026-05-31T18:00:00Z",
        })),
        custom_fields: Some(json!({
            "text": text, "empty": "", "spaces": "  ", "number": -5, "big": 1e300, "real": 0.1, "list": [text, null],
            "object": {"=a": text}, "no": false, "a:json": text, "tab": format!("\t{text}\r\n"), "a,\"b\"": text,
        })),
    }
}

/// Assets with whatever a cell could stumble over, and what needs what.
async fn fill(stage: &Stage) {
    let tx = stage.write().await;
    let mut tags = Vec::new();
    for name in ["=web", "DMZ", "it's"] {
        tags.push(Tag::create(&tx, name, None, at()).await.unwrap().id);
    }
    let texts = [
        "plain",
        "=1+1",
        "'=1",
        "''-5",
        "+",
        "@SUM(A1)",
        "a;b",
        "\"quoted\"",
        "'",
        "Zürich 😀",
        "null",
        "{}",
    ];
    let mut assets = Vec::new();
    for (place, text) in texts.into_iter().enumerate() {
        let environment = Environment::ALL[place % Environment::ALL.len()];
        let input = nasty(place, text, environment);
        let input = CreateAssetInput { tags: Some(tags[..place % 4].to_vec()), ..input };
        assets.push(Asset::create(&tx, &input, at()).await.unwrap().id);
    }
    let kinds = [None, Some("=runs on"), Some("a, b")];
    for (place, pair) in assets.windows(2).enumerate() {
        let criticality = (place % 2 == 0).then_some(Criticality::High);
        let kind = kinds[place % kinds.len()];
        Dependency::add(&tx, pair[0], pair[1], kind, criticality, at()).await.unwrap();
    }
    tx.commit().await.unwrap();
}

fn orders(empty_cells: EmptyCells) -> [ImportOrder; 2] {
    [ImportKind::Assets, ImportKind::Dependencies]
        .map(|kind| ImportOrder { empty_cells, ..order(kind, ImportFormat::Csv) })
}

#[tokio::test]
async fn what_is_exported_changes_nothing_when_it_comes_back() {
    let stage = Stage::new().await;
    stage.start();
    fill(&stage).await;
    for empty_cells in [EmptyCells::Keep, EmptyCells::Clear] {
        for order in orders(empty_cells) {
            let file = export(&stage, order.kind).await;
            let rows = if order.kind == ImportKind::Assets { 12 } else { 11 };
            assert_eq!(import(&stage, &order, &file).await, (0, 0, rows, 0), "{order:?}");
            assert_eq!(export(&stage, order.kind).await, file);
        }
    }
}

#[tokio::test]
async fn what_is_exported_comes_to_be_elsewhere() {
    let (here, elsewhere) = (Stage::new().await, Stage::new().await);
    elsewhere.start();
    fill(&here).await;
    for order in orders(EmptyCells::Keep) {
        let file = export(&here, order.kind).await;
        let (created, updated, unchanged, failed) = import(&elsewhere, &order, &file).await;
        let rows = if order.kind == ImportKind::Assets { 12 } else { 11 };
        assert_eq!((created, updated, unchanged, failed), (rows, 0, 0, 0));
        assert_eq!(sorted(&export(&elsewhere, order.kind).await), sorted(&file));
    }
}
