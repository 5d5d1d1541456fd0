//! Round trips: an exported file changes nothing in its own organization, and recreates the inventory in another.

use std::collections::BTreeSet;

use domain::{
    Origin,
    entity::OrganizationId,
    inventory::{
        asset::{Asset, AssetType, CreateAssetInput, Environment, LifecycleState},
        dependency::{Criticality, Dependency},
        export::Export,
        import::{
            self, EmptyCells, ImportFormat, ImportKind, ImportOrder, ImportRun, Opened, Table,
            check_columns, chunker::Chunker,
        },
        owners::Owners,
        tag::Tag,
    },
};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use crate::harness::{TestOrg, at, organization};

type Edge = (prop::sample::Index, prop::sample::Index, Option<String>, Option<Criticality>);

async fn exported(test: &TestOrg, org: OrganizationId, kind: ImportKind) -> Vec<u8> {
    let tx = test.db.write(org, Origin::system()).await.unwrap();
    let mut export = Export::begin(&tx, kind, Owners::Omitted).await.unwrap();
    let mut file = export.header();
    while let Some(page) = export.page(&tx).await.unwrap() {
        file.extend(page);
    }
    tx.commit().await.unwrap();
    file
}

/// Imports a file. Returns the number of rows created, updated and unchanged, and the errors.
async fn imported(
    test: &TestOrg,
    org: OrganizationId,
    kind: ImportKind,
    empty_cells: EmptyCells,
    file: &[u8],
) -> (i32, i32, i32, Vec<String>) {
    let order = ImportOrder {
        kind,
        format: ImportFormat::Csv,
        dry_run: false,
        empty_cells,
        idempotency_key: None,
    };
    let tx = test.db.write(org, Origin::system()).await.unwrap();
    let Opened::New(run) = ImportRun::open(&tx, &order, at(1)).await.unwrap() else {
        panic!("there is no key")
    };
    let mut chunker = Chunker::new(ImportFormat::Csv);
    let mut chunks = chunker.push(file).unwrap();
    chunks.extend(chunker.finish().unwrap());
    let (columns, delimiter) = (chunker.header().unwrap().to_vec(), chunker.delimiter().unwrap());
    check_columns(kind, &columns, Owners::Included).unwrap();
    let table = Table { kind, columns, delimiter };
    for chunk in &chunks {
        assert_eq!(chunk.faults, []);
        ImportRun::add_chunk(&tx, run.id, &table, chunk).await.unwrap();
    }
    ImportRun::mark_received(&tx, run.id, at(1)).await.unwrap();
    let mut faults = Vec::new();
    for index in 0..i32::try_from(chunks.len()).unwrap() {
        let begun = ImportRun::begin_chunk(&tx, run.id, index).await.unwrap().unwrap();
        let outcome = import::apply(&tx, &begun, Owners::Included, at(1)).await.unwrap();
        faults.extend(outcome.faults.iter().map(|fault| format!("{fault:?}")));
        ImportRun::close_chunk(&tx, &begun, &outcome, at(1)).await.unwrap();
    }
    let run = ImportRun::get(&tx, run.id).await.unwrap();
    tx.commit().await.unwrap();
    (run.created, run.updated, run.unchanged, faults)
}

/// Generates texts with characters that are special in a file.
fn text(size: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9 ]",
        2 => "[\"',;=+@-]",
        1 => Just("é".to_owned()),
        1 => Just("日本".to_owned()),
        1 => Just("🦀".to_owned()),
        1 => Just("'=".to_owned()),
    ];
    prop::collection::vec(piece, size).prop_map(|pieces| pieces.concat())
}

fn lines() -> impl Strategy<Value = String> {
    prop::collection::vec(text(0..6), 1..4).prop_flat_map(|lines| {
        prop::sample::select(vec!["\n", "\r\n", "\t"]).prop_map(move |end| lines.join(end))
    })
}

fn filled(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    text.prop_filter("it says something", |text| !text.trim().is_empty())
}

fn custom_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => lines().prop_map(Value::from),
        1 => any::<i32>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(json!("")),
        1 => Just(json!("  ")),
        1 => Just(json!([1, {"=a": "=1+1", "b": null}])),
        1 => prop::sample::select(vec![1e300, 0.1, -0.5]).prop_map(Value::from),
        1 => Just(json!({})),
    ]
}

fn attributes() -> impl Strategy<Value = Value> {
    let ports = prop::collection::vec(any::<u16>(), 0..4).prop_map(|ports| json!(ports));
    let known = (
        prop::option::of(any::<bool>()),
        prop::option::of(ports),
        prop::option::of(filled(text(1..8))),
        prop::option::of(700_000_000_i64..4_000_000_000),
        prop::option::of(prop::collection::vec(filled("[a-z0-9:.\\[]{1,6}"), 0..3)),
    );
    known.prop_map(|(encrypted, ports, os_name, patched, addresses)| {
        let mut all = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            all.extend(value.map(|value| (key.to_owned(), value)));
        };
        put("disk_encrypted", encrypted.map(Value::from));
        put("open_ports", ports);
        put("os_name", os_name.map(Value::from));
        put("last_patched_at", patched.map(Value::from));
        put("ip_addresses", addresses.map(Value::from));
        Value::Object(all)
    })
}

fn asset() -> impl Strategy<Value = (CreateAssetInput, BTreeSet<String>)> {
    let key = prop_oneof![
        Just("serial".to_owned()),
        Just("a:json".to_owned()),
        Just("=key".to_owned()),
        Just("a,\"b\"".to_owned()),
        Just("Größe".to_owned()),
        Just("=a, \"b\"; c".to_owned()),
    ];
    let tag =
        prop::sample::select(vec!["vm", "Edge", "=tag", "größe", "a b"]).prop_map(str::to_owned);
    (
        filled(text(1..10)),
        prop::sample::select(AssetType::ALL),
        prop::sample::select(Environment::ALL),
        prop::sample::select(LifecycleState::ALL),
        prop::option::of(filled(text(0..8))),
        prop::option::of(filled(lines())),
        attributes(),
        prop::collection::btree_map(key, custom_value(), 0..4),
        prop::collection::btree_set(tag, 0..3),
    )
        .prop_map(
            |(
                name,
                asset_type,
                environment,
                state,
                location,
                description,
                attributes,
                custom,
                tags,
            )| {
                let input = CreateAssetInput {
                    name,
                    asset_type,
                    environment: Some(environment),
                    lifecycle_state: Some(state),
                    external_id: None,
                    location,
                    description,
                    owner: None,
                    tags: None,
                    attributes: Some(attributes),
                    custom_fields: Some(custom.into_iter().collect::<Map<_, _>>().into()),
                };
                (input, tags)
            },
        )
}

fn edges() -> impl Strategy<Value = Vec<Edge>> {
    let kind = prop::option::of(filled(text(1..5)));
    let criticality = prop::option::of(prop::sample::select(Criticality::ALL));
    prop::collection::vec(
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), kind, criticality),
        0..6,
    )
}

async fn comes_back(
    test: &TestOrg,
    number: usize,
    assets: &[(CreateAssetInput, BTreeSet<String>)],
    edges: &[Edge],
) {
    let here = organization(&test.db, &format!("here-{number}")).await;
    let there = organization(&test.db, &format!("there-{number}")).await;
    let tx = test.db.write(here, Origin::system()).await.unwrap();
    let mut ids = Vec::new();
    let mut tags = std::collections::BTreeMap::new();
    for (index, (input, names)) in assets.iter().enumerate() {
        let mut carried = Vec::new();
        for name in names {
            if !tags.contains_key(name) {
                tags.insert(name, Tag::create(&tx, name, None, at(0)).await.unwrap().id);
            }
            carried.push(tags[name]);
        }
        // Every other asset has an external id.
        let external_id = (index % 2 == 0).then(|| format!("=\"{index}\", x"));
        let input = CreateAssetInput { tags: Some(carried), external_id, ..input.clone() };
        ids.push(Asset::create(&tx, &input, at(0)).await.unwrap().id);
    }
    let mut drawn = BTreeSet::new();
    for (source, target, kind, criticality) in edges {
        let (source, target) = (*source.get(&ids), *target.get(&ids));
        if source != target && drawn.insert((source, target)) {
            let kind = kind.as_deref();
            Dependency::add(&tx, source, target, kind, *criticality, at(0)).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
    for (kind, count) in [(ImportKind::Assets, ids.len()), (ImportKind::Dependencies, drawn.len())]
    {
        let count = i32::try_from(count).unwrap();
        let file = exported(test, here, kind).await;
        let shown = String::from_utf8_lossy(&file);
        for empty in [EmptyCells::Keep, EmptyCells::Clear] {
            let again = imported(test, here, kind, empty, &file).await;
            assert_eq!(again, (0, 0, count, vec![]), "unchanged where it is, {empty:?}: {shown}");
        }
        let elsewhere = imported(test, there, kind, EmptyCells::Keep, &file).await;
        assert_eq!(elsewhere, (count, 0, 0, vec![]), "new elsewhere: {shown}");
        let back = exported(test, there, kind).await;
        assert_eq!(String::from_utf8_lossy(&back), shown, "the same from there");
    }
}

#[test]
fn what_is_exported_imports_unchanged_and_elsewhere_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = runtime.block_on(TestOrg::new());
    let number = std::cell::Cell::new(0);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) };
    TestRunner::new(config)
        .run(&(prop::collection::vec(asset(), 1..7), edges()), |(assets, edges)| {
            number.set(number.get() + 1);
            runtime.block_on(comes_back(&test, number.get(), &assets, &edges));
            Ok(())
        })
        .unwrap();
    runtime.block_on(async move { drop(test) });
}
