//! Tests of the parsing of rows into values and errors.

use serde_json::json;

use super::*;

fn read_one(
    format: ImportFormat,
    empty: EmptyCells,
    header: &[&str],
    content: &str,
) -> Result<AssetRow, Vec<RowError>> {
    let table = Table {
        kind: ImportKind::Assets,
        columns: header.iter().map(|name| (*name).to_owned()).collect(),
        delimiter: b',',
    };
    let content = format!("{content}\n").into_bytes();
    let chunk = Chunk { rows: 1, numbers: vec![7], content, faults: Vec::new() };
    let mut rows = read(&table, format, empty, &chunk).unwrap();
    rows.remove(0).and_then(AssetRow::of)
}

fn cells(header: &[&str], content: &str) -> Result<AssetRow, Vec<RowError>> {
    read_one(ImportFormat::Csv, EmptyCells::Clear, header, content)
}

fn object(content: &str) -> Result<AssetRow, Vec<RowError>> {
    read_one(ImportFormat::Json, EmptyCells::Keep, &[], content)
}

/// Formats each error as `column: message`.
fn messages(read: Result<AssetRow, Vec<RowError>>) -> Vec<String> {
    let faults = read.expect_err("it says something wrong");
    faults
        .into_iter()
        .map(|fault| format!("{}: {}", fault.column.unwrap_or_default(), fault.message))
        .collect()
}

#[test]
fn an_empty_cell_takes_nothing_from_the_other_column_of_its_key() {
    for (header, content, stored) in [
        (["name", "custom.note", "custom.note:json"], "a,hi,", json!("hi")),
        (["name", "custom.note", "custom.note:json"], "a,,5", json!(5)),
        (["name", "custom.note:json", "custom.note"], "a,,hi", json!("hi")),
        (["name", "custom.note", "custom.note:json"], "a,,", json!(null)),
    ] {
        let row = cells(&header, content).unwrap();
        let expected = MaybeUndefined::Value(json!({ "note": stored }));
        assert_eq!(row.patch.custom_fields, expected, "{content}");
    }
    let both = messages(cells(&["name", "custom.note", "custom.note:json"], "a,hi,5"));
    assert_eq!(
        both,
        ["custom.note: is given twice, as a text and as JSON: fill in only one of the two"]
    );
}

#[test]
fn what_should_be_an_object_and_is_none_is_told() {
    for name in ["attributes", "customFields", "custom_fields", "custom"] {
        for value in ["\"x\"", "5", "[1]", "true", "null"] {
            let messages = messages(object(&format!("{{\"name\":\"a\",\"{name}\":{value}}}")));
            let [messages] = &messages[..] else { panic!("one fault: {messages:?}") };
            assert!(
                messages.starts_with(&format!("{name}: must be an object, such as")),
                "{messages}"
            );
        }
    }
}

#[test]
fn what_an_object_says_twice_is_told() {
    for (content, expected) in [
        // Keys are read in alphabetical order.
        (
            r#"{"asset_type":"host","type":"host"}"#,
            "type: sets the same field as the column \"asset_type\": keep only one of them",
        ),
        (
            r#"{"custom":{"a":1},"customFields":{"a":2}}"#,
            "custom.a:json: is given twice: keep only one of them",
        ),
        (
            r#"{"attributes":{"disk_encrypted":true,"disk_encryption":false}}"#,
            "attributes.disk_encryption: sets the same field as the column \"attributes.disk_encrypted\": keep only one of them",
        ),
        (
            r#"{"custom":{"a":1},"custom.a":"x"}"#,
            "custom.a: is given twice, as a text and as JSON: fill in only one of the two",
        ),
    ] {
        assert_eq!(messages(object(content)), [expected]);
    }
}

#[test]
fn what_is_wrong_is_told_in_few_words_however_long_it_is() {
    let long = "\u{1}é".repeat(60_000);
    let many: Vec<String> = (0..50_000).map(|number| format!("\"x{number}\":1")).collect();
    let text = json!(long);
    for content in [
        format!("{{\"type\":{text}}}"),
        format!("{{\"owner\":{text}}}"),
        format!("{{{text}:1}}"),
        format!("{{\"attributes\":{{{text}:1}}}}"),
        format!("{{\"custom\":{{{text}:1}}}}"),
        format!("{{{}}}", many.join(",")),
    ] {
        let mut faults = object(&content).expect_err("it says something wrong");
        assert!(faults.len() <= MAX_ROW_ERRORS, "{}", faults.len());
        let fault = faults.remove(0);
        let bytes = fault.message.len() + fault.column.map_or(0, |column| column.len());
        assert!(bytes < 2_000, "{bytes} of {}", &content[..20]);
    }
}

#[test]
fn an_owner_is_found_by_the_form_that_signs_in() {
    let row = cells(&["name", "owner"], "a, \u{ff21}da@Example.com").unwrap();
    assert_eq!(row.owner, MaybeUndefined::Value("ada@example.com".to_owned()));
    assert_eq!(
        messages(cells(&["name", "owner"], "a,ada")),
        ["owner: \"ada\" is not an e-mail address"]
    );
}

#[test]
fn rows_that_are_not_numbered_one_by_one_are_not_passed_over() {
    let columns = vec!["name".to_owned()];
    let table = Table { kind: ImportKind::Assets, columns, delimiter: b',' };
    for (format, content) in
        [(ImportFormat::Csv, "a\nb\n"), (ImportFormat::Json, "{\"name\":\"a\"}\n{}\n")]
    {
        for numbers in [vec![2], vec![2, 3, 4]] {
            let content = content.as_bytes().to_vec();
            let chunk = Chunk { rows: 2, numbers, content, faults: Vec::new() };
            let read = read(&table, format, EmptyCells::Keep, &chunk);
            assert!(matches!(read, Err(Error::Corrupt { table: "import_chunk", .. })));
        }
    }
}
