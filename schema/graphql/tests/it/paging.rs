//! Tests of paging through the API: both directions, totals only if selected, cursors valid for their own list only.

use serde_json::{Value, json};

use crate::{
    harness::{Team, TestApp, nothing},
    wire::Wire,
};

const PAGE: &str = "query($first: Int, $after: String, $last: Int, $before: String) {
    assets(orderBy: { field: NAME }, first: $first, after: $after, last: $last, before: $before) {
        nodes { name } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
}";

/// Creates one asset of the team for each letter of `names`.
async fn assets(app: &TestApp, team: &Team, names: &str) {
    for name in names.chars() {
        let create =
            "mutation($name: String!) { createAsset(input: { name: $name, type: HOST }) { id } }";
        app.ask(team["owner"].bearer.as_str(), create, json!({ "name": name })).await.data();
    }
}

/// Returns the names of a page, with `<` if rows precede it and `>` if rows follow, and its start and end cursor.
async fn page(app: &TestApp, team: &Team, arguments: Value) -> (String, Value, Value) {
    let reply = app.ask(team["owner"].bearer.as_str(), PAGE, arguments).await;
    let page = &reply.data()["assets"];
    let names = page["nodes"].as_array().unwrap().iter();
    let names: String = names.map(|node| node["name"].as_str().unwrap()).collect();
    let info = &page["pageInfo"];
    let sign = |is: &Value, sign: &'static str| if is == true { sign } else { "" };
    let shown = format!(
        "{}{names}{}",
        sign(&info["hasPreviousPage"], "<"),
        sign(&info["hasNextPage"], ">")
    );
    (shown, info["startCursor"].clone(), info["endCursor"].clone())
}

#[tokio::test]
async fn a_list_is_read_forwards() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    assets(&app, &team, "abcdefg").await;
    let (mut shown, mut after) = (Vec::new(), Value::Null);
    for _ in 0..3 {
        let (names, _, end) = page(&app, &team, json!({ "first": 3, "after": after })).await;
        shown.push(names);
        after = end;
    }
    assert_eq!(shown, ["abc>", "<def>", "<g"]);
}

#[tokio::test]
async fn a_list_is_read_backwards() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    assets(&app, &team, "abcdefg").await;
    let (mut shown, mut before) = (Vec::new(), Value::Null);
    for _ in 0..3 {
        let (names, start, _) = page(&app, &team, json!({ "last": 3, "before": before })).await;
        shown.push(names);
        before = start;
    }
    assert_eq!(shown, ["<efg", "<bcd>", "a>"]);
}

#[tokio::test]
async fn a_page_stands_between_two_cursors() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    assets(&app, &team, "abcdefg").await;
    let (_, _, a) = page(&app, &team, json!({ "first": 1 })).await;
    let (_, g, _) = page(&app, &team, json!({ "last": 1 })).await;
    let (shown, ..) = page(&app, &team, json!({ "first": 3, "after": a, "before": g })).await;
    assert_eq!(shown, "<bcd>");
    let (shown, ..) = page(&app, &team, json!({ "last": 3, "after": a, "before": g })).await;
    assert_eq!(shown, "<def>");
}

#[tokio::test]
async fn a_row_that_comes_or_goes_neither_repeats_nor_hides_another() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    assets(&app, &team, "bdfh").await;
    let (shown, _, after) = page(&app, &team, json!({ "first": 2 })).await;
    assert_eq!(shown, "bd>");
    assets(&app, &team, "aeg").await;
    app.execute_sql("DELETE FROM asset WHERE name = 'd'").await;
    let (shown, ..) = page(&app, &team, json!({ "first": 9, "after": after })).await;
    assert_eq!(shown, "<efgh");
}

#[tokio::test]
async fn equal_names_are_told_apart_by_their_ids() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    assets(&app, &team, "xxxxx").await;
    let mut seen = std::collections::BTreeSet::new();
    let mut after = Value::Null;
    let document = "query($after: String) { assets(orderBy: { field: NAME, direction: DESC }, first: 2, after: $after) { edges { cursor node { id } } } }";
    for _ in 0..3 {
        let reply =
            app.ask(team["owner"].bearer.as_str(), document, json!({ "after": after })).await;
        for edge in reply.data()["assets"]["edges"].as_array().unwrap() {
            assert!(seen.insert(edge["node"]["id"].as_str().unwrap().to_owned()));
            after = edge["cursor"].clone();
        }
    }
    assert_eq!(seen.len(), 5);
}

/// Reads every order to its end, because each order stores different values in its cursors.
#[tokio::test]
async fn every_order_is_read_to_its_end() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    assets(&app, &team, "cabd").await;
    let document = "query($order: AssetOrder!, $after: String) { assets(orderBy: $order, first: 1, after: $after) { nodes { name } pageInfo { endCursor } } }";
    for (field, direction, expected) in [
        ("NAME", "ASC", Some("abcd")),
        ("NAME", "DESC", Some("dcba")),
        ("CREATED_AT", "ASC", Some("cabd")),
        ("CREATED_AT", "DESC", Some("dbac")),
        ("UPDATED_AT", "ASC", Some("cabd")),
        ("UPDATED_AT", "DESC", Some("dbac")),
        ("CODE", "ASC", None),
        ("CODE", "DESC", None),
    ] {
        let (mut names, mut after) = (String::new(), Value::Null);
        for _ in 0..4 {
            let order =
                json!({ "order": { "field": field, "direction": direction }, "after": after });
            let reply = app.ask(team["owner"].bearer.as_str(), document, order).await;
            names += reply.data()["assets"]["nodes"][0]["name"].as_str().unwrap_or("-");
            after = reply.data()["assets"]["pageInfo"]["endCursor"].clone();
        }
        match expected {
            Some(expected) => assert_eq!(names, expected, "{field} {direction}"),
            None => assert!("abcd".chars().all(|name| names.contains(name)), "{field}: {names}"),
        }
    }
}

#[tokio::test]
async fn a_total_is_counted_only_where_it_is_selected() {
    let (app, wire) = Wire::app(2).await;
    let team = app.team("alfa").await;
    assets(&app, &team, "abc").await;
    let owner = team["owner"].bearer.as_str();
    wire.take();
    for list in ["assets", "users", "auditEntries"] {
        let document = format!("{{ {list}(first: 1) {{ nodes {{ id }} }} }}");
        app.ask(owner, &document, nothing()).await.data();
        assert_eq!(wire.take().count("count(*)"), 0, "{list}");
        let document = format!(
            "{{ {list}(first: 1) {{ ...F }} }} fragment F on {} {{ n: totalCount }}",
            match list {
                "assets" => "AssetConnection",
                "users" => "UserConnection",
                _ => "AuditEntryConnection",
            }
        );
        let reply = app.ask(owner, &document, nothing()).await;
        assert!(reply.data()[list]["n"].as_i64() >= Some(3), "{:#}", reply.json);
        assert_eq!(wire.take().count("count(*)"), 1, "{list}");
    }
}

#[tokio::test]
async fn a_total_counts_what_the_filter_lets_through() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    assets(&app, &team, "äbcäb").await;
    let document = "{ assets(filter: { text: \"Ä\" }, first: 1) { totalCount nodes { name } } }";
    let reply = app.ask(team["owner"].bearer.as_str(), document, nothing()).await;
    assert_eq!(reply.data()["assets"], json!({ "totalCount": 2, "nodes": [{ "name": "ä" }] }));
}

#[tokio::test]
async fn all_faults_of_a_page_s_arguments_are_told_at_once() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    let owner = team["owner"].bearer.as_str();
    for (arguments, faults) in [
        (json!({ "first": 0 }), vec!["first"]),
        (json!({ "first": 101 }), vec!["first"]),
        (json!({ "last": -1 }), vec!["last"]),
        (json!({ "first": 1, "last": 1 }), vec!["last"]),
        (
            json!({ "first": 0, "last": 101, "after": "x", "before": "" }),
            vec!["first", "last", "last", "after", "before"],
        ),
    ] {
        let reply = app.ask(owner, PAGE, arguments).await;
        assert_eq!((reply.code(), reply.faults()), ("VALIDATION", faults));
    }
}

#[tokio::test]
async fn a_cursor_that_was_tampered_with_is_refused() {
    let app = TestApp::new().await;
    let team = app.team("alfa").await;
    assets(&app, &team, "ab").await;
    let owner = team["owner"].bearer.as_str();
    let (_, _, cursor) = page(&app, &team, json!({ "first": 1 })).await;
    let cursor = cursor.as_str().unwrap();
    // The last letter is left out: some of its bits are padding and decode to no byte.
    for index in 0..cursor.len() - 1 {
        let mut letters = cursor.as_bytes().to_vec();
        letters[index] = if letters[index] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(letters).unwrap();
        for argument in ["after", "before"] {
            let reply = app.ask(owner, PAGE, json!({ argument: tampered })).await;
            assert_eq!(
                (reply.code(), reply.faults()),
                ("VALIDATION", vec![argument]),
                "{tampered}"
            );
        }
    }
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let app = TestApp::new().await;
    let (team, other) = (app.team("alfa").await, app.team("bravo").await);
    assets(&app, &team, "ab").await;
    assets(&app, &other, "ab").await;
    let (_, _, foreign) = page(&app, &other, json!({ "first": 1 })).await;
    let owner = team["owner"].bearer.as_str();
    let mut cursors = vec![("another organization's", foreign)];
    for (which, list) in [
        ("of members", "users(first: 1)"),
        ("of entries", "auditEntries(first: 1)"),
        ("of another order", "assets(first: 1)"),
        ("of another direction", "assets(first: 1, orderBy: { field: NAME, direction: DESC })"),
        (
            "of another filter",
            "assets(first: 1, orderBy: { field: NAME }, filter: { text: \"a\" })",
        ),
    ] {
        let document = format!("{{ list: {list} {{ pageInfo {{ endCursor }} }} }}");
        let reply = app.ask(owner, &document, nothing()).await;
        cursors.push((which, reply.data()["list"]["pageInfo"]["endCursor"].clone()));
    }
    for (which, cursor) in cursors {
        assert!(cursor.is_string(), "{which}");
        let reply = app.ask(owner, PAGE, json!({ "after": cursor })).await;
        assert_eq!((reply.code(), reply.faults()), ("VALIDATION", vec!["after"]), "{which}");
    }
}
