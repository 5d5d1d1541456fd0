//! Tests of assets: patches and lifecycle states.
//!
//! Long, because each rule of an input has a test, and the property test at the end keeps its model beside it.

use std::collections::BTreeSet;

use async_graphql::MaybeUndefined::{Null, Undefined, Value as Given};
use domain::{
    Origin, Result,
    entity::{AssetId, TagId, UserId},
    inventory::{
        asset::{
            Asset, AssetFilter, AssetType, CreateAssetInput, Environment, LifecycleState,
            UpdateAssetInput,
        },
        tag::Tag,
    },
};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use crate::harness::{
    A_LOCK_IS_AWAITED, TestOrg, assert_not_found, at, conflict, faults, host, host_with, until,
};

async fn create(test: &TestOrg, input: &CreateAssetInput) -> Result<Asset> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let asset = Asset::create(&tx, input, at(0)).await?;
    tx.commit().await?;
    Ok(asset)
}

async fn update(test: &TestOrg, id: AssetId, patch: &UpdateAssetInput, now: i64) -> Result<Asset> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let asset = Asset::update(&tx, id, patch, at(now)).await?;
    tx.commit().await?;
    Ok(asset)
}

async fn set_lifecycle(test: &TestOrg, id: AssetId, to: LifecycleState) -> Result<Asset> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let asset = Asset::set_lifecycle(&tx, id, to, at(1)).await?;
    tx.commit().await?;
    Ok(asset)
}

async fn stored(test: &TestOrg, id: AssetId) -> Asset {
    let tx = test.db.read(test.org).await.unwrap();
    Asset::find(&tx, id).await.unwrap().unwrap()
}

fn custom_fields(changes: Value) -> UpdateAssetInput {
    UpdateAssetInput { custom_fields: Given(changes), ..Default::default() }
}

fn whole(owner: Option<UserId>) -> CreateAssetInput {
    CreateAssetInput {
        environment: Some(Environment::Staging),
        lifecycle_state: Some(LifecycleState::Provisioning),
        external_id: Some("snipe-7".into()),
        location: Some("Rack 4".into()),
        description: Some("first line\nsecond line".into()),
        owner,
        attributes: Some(json!({"os_name": "Debian 12", "open_ports": [22]})),
        ..host_with("billing-db-1", json!({"cost centre": "4711", "disk": {"size_gb": 10}}))
    }
}

#[tokio::test]
async fn what_is_created_is_what_is_stored() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@x.com", &["viewer"]).await;
    let asset = create(&test, &whole(Some(ada))).await.unwrap();
    assert_eq!(stored(&test, asset.id).await, asset);
    assert_eq!((asset.owner_id, asset.created_at, asset.updated_at), (Some(ada), at(0), at(0)));
    let tx = test.db.read(test.org).await.unwrap();
    let by_code = Asset::find_by_code(&tx, &asset.code.to_lowercase()).await.unwrap();
    assert_eq!(by_code, Some(asset));
    assert_eq!(Asset::find_by_code(&tx, "HST-\0").await.unwrap(), None);
}

#[tokio::test]
async fn every_type_environment_and_state_of_the_code_is_one_of_the_database() {
    let test = TestOrg::new().await;
    for asset_type in AssetType::ALL.iter().copied() {
        for environment in Environment::ALL.iter().copied() {
            for lifecycle_state in LifecycleState::ALL.iter().copied() {
                let input = CreateAssetInput {
                    asset_type,
                    environment: Some(environment),
                    lifecycle_state: Some(lifecycle_state),
                    ..host("x")
                };
                create(&test, &input).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_a_patch_does_not_give_stays() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@x.com", &["viewer"]).await;
    let before = create(&test, &whole(Some(ada))).await.unwrap();
    let patch = UpdateAssetInput { location: Given("Rack 5".into()), ..Default::default() };
    let after = update(&test, before.id, &patch, 9).await.unwrap();
    let expected = Asset { location: Some("Rack 5".into()), updated_at: at(9), ..before };
    assert_eq!(after, expected);
    assert_eq!(stored(&test, after.id).await, expected);
}

#[tokio::test]
async fn what_a_patch_gives_as_null_is_cleared() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@x.com", &["viewer"]).await;
    let before = create(&test, &whole(Some(ada))).await.unwrap();
    let patch = UpdateAssetInput {
        external_id: Null,
        location: Null,
        description: Given(" ".into()),
        owner: Null,
        attributes: Null,
        custom_fields: Null,
        ..Default::default()
    };
    let after = update(&test, before.id, &patch, 9).await.unwrap();
    assert_eq!((&after.external_id, &after.location, &after.description), (&None, &None, &None));
    assert_eq!(
        (after.owner_id, &after.attributes, &after.custom_fields),
        (None, &json!({}), &json!({}))
    );
    assert_eq!(stored(&test, after.id).await, after);
}

#[tokio::test]
async fn name_and_environment_cannot_be_cleared() {
    let test = TestOrg::new().await;
    let asset = test.asset(host("web-1")).await;
    let patch = UpdateAssetInput { name: Null, environment: Null, ..Default::default() };
    assert_eq!(
        faults(update(&test, asset.id, &patch, 1).await),
        ["input.name cannot be cleared", "input.environment cannot be cleared"]
    );
}

#[tokio::test]
async fn objects_merge_by_key_and_null_removes_one() {
    let test = TestOrg::new().await;
    let asset = test.asset(host_with("x", json!({"a": 1, "b": {"c": 1, "d": 2}, "n": null}))).await;
    assert_eq!(asset.custom_fields, json!({"a": 1, "b": {"c": 1, "d": 2}}));
    let patch = custom_fields(json!({"a": null, "b": {"c": 3}, "e": [null]}));
    let after = update(&test, asset.id, &patch, 1).await.unwrap();
    assert_eq!(
        after.custom_fields,
        json!({"b": {"c": 3}, "e": [null]}),
        "values are replaced whole"
    );
    assert_eq!(stored(&test, asset.id).await.custom_fields, after.custom_fields);
}

#[tokio::test]
async fn a_patch_that_changes_nothing_leaves_no_trace() {
    let test = TestOrg::new().await;
    let before = create(&test, &whole(None)).await.unwrap();
    let same = UpdateAssetInput {
        name: Given("  billing-db-1 ".into()),
        environment: Given(Environment::Staging),
        owner: Null,
        attributes: Given(json!({"os_name": " Debian 12 ", "open_ports": "22", "model": null})),
        ..Default::default()
    };
    for patch in [UpdateAssetInput::default(), same] {
        assert_eq!(update(&test, before.id, &patch, 9).await.unwrap(), before);
    }
    assert_eq!(set_lifecycle(&test, before.id, before.lifecycle_state).await.unwrap(), before);
    assert_eq!(test.audited("asset.").await, 1, "its creation");
}

#[tokio::test]
async fn numbers_come_back_as_they_were_given() {
    let test = TestOrg::new().await;
    let given = json!({
        "large": 1e16, "larger": 1e19, "huge": 1e300, "minus": -1e17, "unsigned": u64::MAX, "signed": i64::MIN,
        "zero": -0.0, "tenths": 0.1 + 0.2, "long": 1.234_567_890_123_456_7e-7, "whole": 1.0
    });
    let asset = test.asset(host_with("x", given.clone())).await;
    assert_eq!(stored(&test, asset.id).await.custom_fields, asset.custom_fields);
    let again = update(&test, asset.id, &custom_fields(given), 9).await.unwrap();
    assert_eq!(again.updated_at, at(0), "nothing changed");
}

#[tokio::test]
async fn a_life_moves_along_legal_transitions_only() {
    use LifecycleState::{Active, Disposed, Maintenance, Provisioning, Retired};
    let legal = [
        (Provisioning, Active),
        (Provisioning, Retired),
        (Active, Maintenance),
        (Active, Retired),
        (Maintenance, Active),
        (Maintenance, Retired),
        (Retired, Active),
        (Retired, Disposed),
    ];
    let test = TestOrg::new().await;
    for from in LifecycleState::ALL.iter().copied() {
        for to in LifecycleState::ALL.iter().copied().filter(|to| *to != from) {
            let asset =
                test.asset(CreateAssetInput { lifecycle_state: Some(from), ..host("x") }).await;
            let moved = set_lifecycle(&test, asset.id, to).await;
            if legal.contains(&(from, to)) {
                assert_eq!(moved.unwrap().lifecycle_state, to);
            } else {
                conflict(moved);
                assert_eq!(stored(&test, asset.id).await, asset);
            }
        }
    }
}

#[tokio::test]
async fn an_illegal_move_names_the_legal_ones() {
    let test = TestOrg::new().await;
    let asset = test.asset(host("x")).await;
    assert_eq!(
        conflict(set_lifecycle(&test, asset.id, LifecycleState::Disposed).await),
        "the asset is ACTIVE and cannot become DISPOSED: the legal next states are MAINTENANCE and RETIRED"
    );
}

#[tokio::test]
async fn only_what_is_at_the_end_of_its_life_is_deleted() {
    let test = TestOrg::new().await;
    for lifecycle_state in LifecycleState::ALL.iter().copied() {
        let asset = test
            .asset(CreateAssetInput { lifecycle_state: Some(lifecycle_state), ..host("x") })
            .await;
        let tx = test.db.write(test.org, Origin::system()).await.unwrap();
        let deleted = Asset::delete(&tx, asset.id, at(1)).await;
        if matches!(lifecycle_state, LifecycleState::Retired | LifecycleState::Disposed) {
            deleted.unwrap();
            assert_not_found(Asset::delete(&tx, asset.id, at(1)).await);
        } else {
            assert!(conflict(deleted).contains("with setAssetLifecycle first"));
        }
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn an_external_id_is_one_assets() {
    let test = TestOrg::new().await;
    let named = |id: &str| CreateAssetInput { external_id: Some(id.into()), ..host("x") };
    create(&test, &named("e-1")).await.unwrap();
    let other = create(&test, &named("e-2")).await.unwrap();
    let sentence = "another asset has this external id";
    assert_eq!(conflict(create(&test, &named(" e-1 ")).await), sentence);
    let patch = UpdateAssetInput { external_id: Given("e-1".into()), ..Default::default() };
    assert_eq!(conflict(update(&test, other.id, &patch, 1).await), sentence);
    create(&test, &host("without")).await.unwrap();
    create(&test, &host("without")).await.unwrap();
}

#[tokio::test]
async fn all_faults_are_said_at_once() {
    let test = TestOrg::new().await;
    let input = CreateAssetInput {
        external_id: Some("x".repeat(256)),
        location: Some("a\u{202e}b".into()),
        description: Some("a\0b".into()),
        attributes: Some(json!([1])),
        custom_fields: Some(json!({"k": {"deep": ["\0"]}, "": 1})),
        ..host(" ")
    };
    let expected = [
        "input.name must not be empty",
        "input.externalId has 256 characters, at most 255 are allowed",
        "input.location contains the control character U+202E",
        "input.description contains the control character U+0000",
        "input.attributes must be an object, such as {\"os_name\": \"Debian 12\"}",
        "input.customFields. the key must have 1 to 64 characters, no control characters and no spaces around it",
        "input.customFields.k contains the control character U+0000",
    ];
    assert_eq!(faults(create(&test, &input).await), expected);
    let asset = test.asset(host("x")).await;
    let patch = UpdateAssetInput {
        name: Given("a\nb".into()),
        external_id: Given("x\u{7}".into()),
        location: Undefined,
        attributes: Given(json!({"k\0": 1})),
        ..Default::default()
    };
    assert_eq!(faults(update(&test, asset.id, &patch, 1).await).len(), 3);
    assert_eq!(stored(&test, asset.id).await, asset);
}

#[tokio::test]
async fn texts_are_composed() {
    let test = TestOrg::new().await;
    let asset = test.asset(host(" Cafe\u{301} ")).await;
    assert_eq!(asset.name, "Caf\u{e9}");
    let tx = test.db.read(test.org).await.unwrap();
    let filter = AssetFilter { text: Some("cafe\u{301}".into()), ..Default::default() };
    assert_eq!(Asset::count(&tx, &filter).await.unwrap(), 1, "what is typed decomposed is found");
}

#[tokio::test]
async fn an_object_has_its_limits() {
    let test = TestOrg::new().await;
    let sized = |bytes: usize| json!({"k": "x".repeat(bytes - r#"{"k":""}"#.len())});
    let asset = create(&test, &host_with("x", sized(20_000))).await.unwrap();
    let over = faults(create(&test, &host_with("x", sized(20_001))).await);
    assert_eq!(
        over,
        ["input.customFields would have 20001 bytes as JSON, at most 20000 are allowed"]
    );
    let more = update(&test, asset.id, &custom_fields(json!({"l": 1})), 1).await;
    assert_eq!(faults(more).len(), 1, "what counts is what would be stored");
    let swapped = custom_fields(json!({"k": null, "l": 1}));
    update(&test, asset.id, &swapped, 1).await.unwrap();
}

#[tokio::test]
async fn what_is_nested_too_deep_to_be_read_again_is_refused() {
    let test = TestOrg::new().await;
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let asset = create(&test, &host_with("x", json!({"k": nested(31)}))).await.unwrap();
    assert_eq!(stored(&test, asset.id).await, asset);
    for depth in [32, 130, 1000] {
        let refusal = create(&test, &host_with("x", json!({"k": nested(depth)}))).await;
        assert_eq!(faults(refusal), ["input.customFields.k is nested deeper than 32 levels"]);
    }
}

#[tokio::test]
async fn two_updates_at_once_of_different_keys_both_survive() {
    let test = TestOrg::new().await;
    let asset = test.asset(host("x")).await;
    let first = test.db.write(test.org, Origin::system()).await.unwrap();
    Asset::update(&first, asset.id, &custom_fields(json!({"a": 1})), at(1)).await.unwrap();
    let superuser = test.db.superuser().await;
    let second = custom_fields(json!({"b": 2}));
    let (updated, ()) = tokio::join!(update(&test, asset.id, &second, 2), async {
        until(&superuser, A_LOCK_IS_AWAITED).await;
        first.commit().await.unwrap();
    });
    assert_eq!(updated.unwrap().custom_fields, json!({"a": 1, "b": 2}));
    let sql = "SELECT changed_paths FROM audit_entry WHERE action = 'asset.updated' ORDER BY id";
    let rows = superuser.query(sql, &[]).await.unwrap();
    let paths: Vec<Vec<String>> = rows.iter().map(|row| row.get("changed_paths")).collect();
    assert_eq!(paths, [["customFields.a"], ["customFields.b"]]);
}

const KEYS: [&str; 5] = ["os", "ram_gb", "a.b", "with space", "ä\"quoted"];

/// Generates any JSON value that a GraphQL request can contain.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-4_i8..4).prop_map(Value::from),
        // Up to fifteen digits: with more, serde_json rounds the last one without `float_roundtrip`.
        (any::<i32>(), -20_i32..10)
            .prop_map(|(digits, power)| json!(format!("{digits}e{power}").parse::<f64>().unwrap())),
        "[^\\u{0}]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(&KEYS[..]), inner, 0..3)
                .prop_map(|map| json!(map)),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Map<String, Value>> {
    let key = prop::sample::select(&KEYS[..]).prop_map(str::to_owned);
    prop::collection::btree_map(key, any_value(), 0..4).prop_map(|map| map.into_iter().collect())
}

/// Model of a patch: the object after merging the patch by key.
fn merged(current: &Map<String, Value>, patch: &Map<String, Value>) -> Map<String, Value> {
    let all: BTreeSet<&String> = current.keys().chain(patch.keys()).collect();
    let previous = all.into_iter().filter_map(|key| {
        let value = patch.get(key).or_else(|| current.get(key))?;
        (!value.is_null()).then(|| (key.clone(), value.clone()))
    });
    previous.collect()
}

/// Returns the keys of `customFields` that the paths name.
fn named(paths: &[String]) -> BTreeSet<&str> {
    let named = paths.iter().map(|path| {
        let below = path.strip_prefix("customFields.").expect("nothing else was changed");
        let is_of = |key: &&str| {
            let quoted = format!("{key:?}");
            let rest = below.strip_prefix(&quoted).or_else(|| below.strip_prefix(key));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        KEYS.into_iter().find(is_of).unwrap_or_else(|| panic!("no key is named by {path}"))
    });
    named.collect()
}

async fn patches_follow_the_model(test: &TestOrg, patches: &[Map<String, Value>]) {
    let mut model = Map::new();
    let asset = test.asset(host("x")).await;
    let mut recorded = 0_i64;
    for (number, patch) in (1..).zip(patches) {
        let next = merged(&model, patch);
        let change = custom_fields(Value::Object(patch.clone()));
        let after = update(test, asset.id, &change, number).await.unwrap();
        assert_eq!(after.custom_fields, stored(test, asset.id).await.custom_fields);
        let differing: BTreeSet<&str> =
            KEYS.into_iter().filter(|key| model.get(*key) != next.get(*key)).collect();
        let sql = "SELECT changed_paths FROM audit_entry WHERE entity_id = $1 AND action = 'asset.updated'
            ORDER BY id OFFSET $2";
        let superuser = test.db.superuser().await;
        let entry = superuser.query_opt(sql, &[&asset.id.uuid(), &recorded]).await.unwrap();
        recorded += i64::from(entry.is_some());
        let paths: Vec<String> = entry.map(|row| row.get("changed_paths")).unwrap_or_default();
        assert_eq!(named(&paths), differing, "{model:?} → {next:?}: {paths:?}");
        // The same patch again changes nothing.
        assert_eq!(update(test, asset.id, &change, 99).await.unwrap(), after);
        assert_eq!(after.custom_fields, canonical(&Value::Object(next.clone())));
        model = next;
    }
}

/// Returns the value with numbers as Postgres gives them back: a whole number has no exponent.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), canonical(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.abs() >= 1e16 => {
                format!("{float:.0}").parse().unwrap()
            }
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

#[test]
fn any_patches_merge_as_the_model_does_and_name_the_keys_that_differ() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = runtime.block_on(TestOrg::new());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) };
    TestRunner::new(config)
        .run(&prop::collection::vec(any_object(), 1..4), |patches| {
            runtime.block_on(patches_follow_the_model(&test, &patches));
            Ok(())
        })
        .unwrap();
    runtime.block_on(async move { drop(test) });
}

#[tokio::test]
async fn of_two_updates_of_the_tags_at_once_the_later_counts() {
    let test = TestOrg::new().await;
    let asset = test.asset(host("x")).await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let tag = Tag::create(&tx, "edge", None, at(0)).await.unwrap().id;
    tx.commit().await.unwrap();
    let tagged =
        |tags: &[TagId]| UpdateAssetInput { tags: Given(tags.to_vec()), ..Default::default() };
    let superuser = test.db.superuser().await;
    // First both transactions set the tag; then one removes it while the other sets it again.
    for first_tags in [&[tag][..], &[]] {
        let first = test.db.write(test.org, Origin::system()).await.unwrap();
        Asset::update(&first, asset.id, &tagged(first_tags), at(1)).await.unwrap();
        let second = tagged(&[tag]);
        let (updated, ()) = tokio::join!(update(&test, asset.id, &second, 2), async {
            until(&superuser, A_LOCK_IS_AWAITED).await;
            first.commit().await.unwrap();
        });
        updated.unwrap();
        let rows = superuser.query("SELECT FROM asset_tag", &[]).await.unwrap();
        assert_eq!(rows.len(), 1, "after {first_tags:?}");
    }
}
