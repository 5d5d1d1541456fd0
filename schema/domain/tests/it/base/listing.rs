//! Lists of assets: filters, orders, and paging with cursors only.

use domain::{
    Origin,
    base::page::{CursorKeys, CursorScope, PageArgs, PageRequest},
    entity::AssetId,
    inventory::asset::{
        Asset, AssetFilter, AssetOrder, AssetOrderField, AssetType, CreateAssetInput, Environment,
        LifecycleState, OrderDirection,
    },
};

use crate::harness::{TestOrg, at, faults, host};

/// Returns the names of the assets that match the filter, sorted.
async fn names(test: &TestOrg, filter: AssetFilter) -> Vec<String> {
    let tx = test.db.read(test.org).await.unwrap();
    let all = PageRequest { size: 100, backward: false, after: None, before: None };
    let rows = Asset::list(&tx, &filter, AssetOrder::default(), &all).await.unwrap().rows;
    assert_eq!(Asset::count(&tx, &filter).await.unwrap(), i64::try_from(rows.len()).unwrap());
    let mut names: Vec<_> = rows.into_iter().map(|asset| asset.name).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn assets_are_filtered_by_what_they_are() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@x.com", &["viewer"]).await;
    test.asset(CreateAssetInput { owner: Some(ada), ..host("a") }).await;
    test.asset(CreateAssetInput { asset_type: AssetType::Service, ..host("b") }).await;
    test.asset(CreateAssetInput { environment: Some(Environment::Dev), ..host("c") }).await;
    let retired = CreateAssetInput { lifecycle_state: Some(LifecycleState::Retired), ..host("d") };
    test.asset(retired).await;
    let none = AssetFilter::default;
    assert_eq!(names(&test, none()).await, ["a", "b", "c", "d"]);
    let types = |types: &[AssetType]| AssetFilter { asset_type: Some(types.to_vec()), ..none() };
    assert_eq!(names(&test, types(&[AssetType::Service])).await, ["b"]);
    let two = types(&[AssetType::Service, AssetType::Host]);
    assert_eq!(names(&test, two).await, ["a", "b", "c", "d"]);
    assert!(names(&test, types(&[])).await.is_empty());
    let environment = Some(vec![Environment::Dev]);
    assert_eq!(names(&test, AssetFilter { environment, ..none() }).await, ["c"]);
    let lifecycle_state = Some(vec![LifecycleState::Retired, LifecycleState::Disposed]);
    let ended = AssetFilter { lifecycle_state, ..none() };
    assert_eq!(names(&test, ended.clone()).await, ["d"]);
    assert_eq!(names(&test, AssetFilter { owner: Some(ada), ..none() }).await, ["a"]);
    assert!(names(&test, AssetFilter { owner: Some(ada), ..ended }).await.is_empty());
}

#[tokio::test]
async fn the_text_filter_takes_every_character_for_itself() {
    let test = TestOrg::new().await;
    for name in ["50% off", "50 off", "a_b", "aXb", r"c:\temp", "c:temp", "O'Brien", "ÄRGER"] {
        test.asset(host(name)).await;
    }
    for (text, found) in [
        ("50%", vec!["50% off"]),
        ("%", vec!["50% off"]),
        ("a_b", vec!["a_b"]),
        ("_", vec!["a_b"]),
        (r":\t", vec![r"c:\temp"]),
        (r"\", vec![r"c:\temp"]),
        ("'", vec!["O'Brien"]),
        ("AXB", vec!["aXb"]),
        ("ärger", vec!["ÄRGER"]),
        ("nothing like it", vec![]),
    ] {
        let filter = AssetFilter { text: Some(text.into()), ..Default::default() };
        assert_eq!(names(&test, filter).await, found, "{text}");
    }
    let blank = AssetFilter { text: Some("  ".into()), ..Default::default() };
    assert_eq!(names(&test, blank).await.len(), 8);
    let by_code = AssetFilter { text: Some("hst-".into()), ..Default::default() };
    assert_eq!(names(&test, by_code).await.len(), 8);
    let tx = test.db.read(test.org).await.unwrap();
    for text in ["x".repeat(256), "a\0".into()] {
        let filter = AssetFilter { text: Some(text), ..Default::default() };
        assert_eq!(faults(Asset::count(&tx, &filter).await).len(), 1);
    }
}

/// Inserts 250 assets. Most share their name and time of change with others.
async fn crowd() -> TestOrg {
    let test = TestOrg::new().await;
    let sql = "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, created_at, updated_at)
        SELECT $1, gen_random_uuid(), 'HST-' || n,
               CASE WHEN n % 5 < 2 THEN 'same' WHEN n % 5 = 2 THEN 'Same' ELSE 'ä' || n % 7 END,
               'HOST', 'ACTIVE', 'PROD', $2, $2::timestamptz + n % 9 * interval '1.000001 s'
        FROM generate_series(1, 250) AS n";
    test.db.superuser().await.execute(sql, &[&test.org.uuid(), &at(0)]).await.unwrap();
    test
}

const FIELDS: [(AssetOrderField, &str); 4] = [
    (AssetOrderField::CreatedAt, "id"),
    (AssetOrderField::UpdatedAt, "updated_at"),
    (AssetOrderField::Name, "name"),
    (AssetOrderField::Code, "code"),
];

/// Walks through all pages of 33 rows in one direction, with cursors only, and returns the ids.
async fn walk(test: &TestOrg, order: AssetOrder, backward: bool) -> Vec<AssetId> {
    let keys = CursorKeys::derive([&[7_u8; 32][..]]);
    let scope = CursorScope::new(test.org, "assets", &order);
    let tx = test.db.read(test.org).await.unwrap();
    let mut args = PageArgs::default();
    if backward {
        args.last = Some(33);
    } else {
        args.first = Some(33);
    }
    let mut all = Vec::new();
    loop {
        let request = args.check(&keys, &scope).unwrap();
        let page = Asset::list(&tx, &AssetFilter::default(), order, &request).await.unwrap();
        assert_eq!(page.rows.len(), 33.min(250 - all.len()));
        let cursor = |asset: Option<&Asset>| Some(asset?.position(order).cursor(&keys, &scope));
        let ids = page.rows.iter().map(|asset| asset.id);
        if backward {
            all.splice(0..0, ids);
            args.before = cursor(page.rows.first());
            assert_eq!(page.has_next, all.len() > 33);
            if !page.has_previous {
                return all;
            }
        } else {
            all.extend(ids);
            args.after = cursor(page.rows.last());
            assert_eq!(page.has_previous, all.len() > 33);
            if !page.has_next {
                return all;
            }
        }
    }
}

#[tokio::test]
async fn every_order_pages_both_ways_without_repeats_or_gaps() {
    let test = crowd().await;
    let superuser = test.db.superuser().await;
    for (field, column) in FIELDS {
        for (direction, word) in [(OrderDirection::Asc, "ASC"), (OrderDirection::Desc, "DESC")] {
            let sql = format!("SELECT id FROM asset ORDER BY {column} {word}, id {word}");
            let rows = superuser.query(&sql, &[]).await.unwrap();
            let expected: Vec<AssetId> = rows.iter().map(|row| row.get("id")).collect();
            let order = AssetOrder { field, direction };
            assert_eq!(walk(&test, order, false).await, expected, "{column} {word}");
            assert_eq!(walk(&test, order, true).await, expected, "{column} {word} backwards");
        }
    }
}

#[tokio::test]
async fn a_page_between_two_cursors_is_what_lies_between() {
    let test = crowd().await;
    let order = AssetOrder { field: AssetOrderField::Name, direction: OrderDirection::Asc };
    let tx = test.db.read(test.org).await.unwrap();
    let list = async |after, before, backward| {
        let request = PageRequest { size: 20, backward, after, before };
        Asset::list(&tx, &AssetFilter::default(), order, &request).await.unwrap().rows
    };
    let all = list(None, None, false).await;
    let (from, to) = (Some(all[4].position(order)), Some(all[9].position(order)));
    assert_eq!(list(from.clone(), to.clone(), false).await, all[5..9]);
    assert_eq!(list(from, to, true).await, all[5..9]);
}

#[tokio::test]
async fn a_row_that_goes_away_does_not_hide_the_next() {
    let test = crowd().await;
    let order = AssetOrder { field: AssetOrderField::Name, direction: OrderDirection::Asc };
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let page = |size, after| PageRequest { size, backward: false, after, before: None };
    let all = AssetFilter::default();
    let rows = Asset::list(&tx, &all, order, &page(11, None)).await.unwrap().rows;
    tx.exec("DELETE FROM asset WHERE id = $1", &[&rows[9].id]).await.unwrap();
    let after = Some(rows[9].position(order));
    let next = Asset::list(&tx, &all, order, &page(1, after)).await.unwrap().rows;
    assert_eq!(next[0], rows[10]);
}

#[tokio::test]
async fn a_cursor_of_another_order_is_refused() {
    let test = TestOrg::new().await;
    let asset = test.asset(host("x")).await;
    let keys = CursorKeys::derive([&[7_u8; 32][..]]);
    let scope = |order: AssetOrder| CursorScope::new(test.org, "assets", &order);
    let by_name = AssetOrder { field: AssetOrderField::Name, direction: OrderDirection::Asc };
    let cursor = asset.position(by_name).cursor(&keys, &scope(by_name));
    let args = PageArgs { after: Some(cursor), ..Default::default() };
    args.check(&keys, &scope(by_name)).unwrap();
    for other in [AssetOrder { direction: OrderDirection::Desc, ..by_name }, AssetOrder::default()]
    {
        assert_eq!(faults(args.check(&keys, &scope(other))).len(), 1);
    }
}
