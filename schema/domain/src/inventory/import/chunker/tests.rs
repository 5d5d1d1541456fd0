//! Tests of the chunker. Property tests compare the chunks with the records of the `csv` crate, and the chunks of a
//! file in pieces with those of the whole file.
//!
//! Long, because of the tables of all ways in which a file can be malformed.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The result of reading a file.
struct ReadFile {
    columns: Vec<String>,
    delimiter: Option<u8>,
    chunks: Vec<Chunk>,
}

/// Returns the chunks of a file that arrives in these pieces.
fn read_file<'a>(
    format: ImportFormat,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<ReadFile, FileError> {
    let mut chunker = Chunker::new(format);
    let mut chunks = Vec::new();
    for piece in pieces {
        chunks.extend(chunker.push(piece)?);
    }
    chunks.extend(chunker.finish()?);
    let (columns, delimiter) =
        (chunker.header().map(<[_]>::to_vec).unwrap_or_default(), chunker.delimiter());
    Ok(ReadFile { columns, delimiter, chunks })
}

fn csv(text: impl AsRef<[u8]>) -> Result<ReadFile, FileError> {
    read_file(ImportFormat::Csv, [text.as_ref()])
}

fn json(text: impl AsRef<[u8]>) -> Result<ReadFile, FileError> {
    read_file(ImportFormat::Json, [text.as_ref()])
}

/// Formats each row as `number: row`, then each error as `number column: message`; a rejected file as its message.
fn lines(read_file: Result<ReadFile, FileError>) -> Vec<String> {
    let ReadFile { chunks, .. } = match read_file {
        Ok(read_file) => read_file,
        Err(fault) => return vec![fault.message],
    };
    let mut lines = Vec::new();
    for chunk in &chunks {
        let content = std::str::from_utf8(&chunk.content).unwrap();
        let rows: Vec<&str> = content.split_terminator('\n').collect();
        if chunk.numbers.len() == rows.len() {
            lines.extend(chunk.numbers.iter().zip(rows).map(|(n, row)| format!("{n}: {row}")));
        } else {
            lines.push(format!("{:?}: {content:?}", chunk.numbers));
        }
        lines.extend(chunk.faults.iter().map(|fault| {
            let column = fault.column.as_deref().unwrap_or("-");
            format!("{} {column}: {}", fault.row, fault.message)
        }));
    }
    lines
}

#[test]
fn rows_are_numbered_as_a_spreadsheet_shows_them() {
    assert_eq!(
        lines(csv("a,b\n1,2\n\n3,4\r\n\r\n5,6\r7,8")),
        ["2: 1,2", "4: 3,4", "6: 5,6", "7: 7,8"]
    );
    assert_eq!(lines(csv("\n\na,b\n1,2\n")), ["4: 1,2"]);
    let quoted = csv("a,b\n\"x\r\ny\",\"say \"\"hi\"\", you\"\nz,\n").unwrap();
    let [chunk] = &quoted.chunks[..] else { panic!("one chunk") };
    assert_eq!(chunk.content, b"\"x\r\ny\",\"say \"\"hi\"\", you\"\nz,\n");
    assert_eq!((chunk.rows, &chunk.numbers[..]), (2, &[2, 3][..]));
}

#[test]
fn the_header_says_the_columns_and_what_parts_them() {
    for (file, columns, delimiter) in [
        ("code, name ,type\n", vec!["code", "name", "type"], b','),
        ("\u{feff}code,name", vec!["code", "name"], b','),
        ("code;name\r\n", vec!["code", "name"], b';'),
        ("code\tna;me", vec!["code\tna", "me"], b';'),
        ("code\tname", vec!["code", "name"], b'\t'),
        ("name", vec!["name"], b','),
        ("code;\"custom. a, \"\"b\"\" \"\n", vec!["code", "custom. a, \"b\" "], b';'),
    ] {
        let read_file = csv(file).unwrap();
        let read: Vec<&str> = read_file.columns.iter().map(String::as_str).collect();
        assert_eq!((read, read_file.delimiter), (columns, Some(delimiter)), "{file:?}");
        assert_eq!(read_file.chunks, []);
    }
}

#[test]
fn what_is_no_csv_is_refused_as_a_whole() {
    for (file, message) in [
        (&b""[..], "is empty"),
        (b"\n \xef", "contains the byte 0xEF, which is not valid UTF-8 here, in the header"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\r\n\r\n", "is empty"),
        (b",,,\n1,2,3\n", "has a header without any column"),
        (b"\x1f\x8b\x08\x00\x00", "is compressed (gzip)"),
        (b"\x1f\x8b", "is compressed (gzip)"),
        (b"PK\x03\x04\x14", "is a zip archive or an Excel workbook"),
        (b"\xff\xfea\x00,\x00", "is in UTF-16 or UTF-32"),
        (b"\xfe\xff\x00a", "is in UTF-16"),
        (b"a\x00b\x00", "is in UTF-16 or UTF-32, or is not text"),
        (b"\x00\x00\xfe\xff", "is in UTF-16 or UTF-32, or is not text"),
        (b"[{\"name\": \"a\"}]", "looks like JSON, but the format is CSV"),
        (b"a,\"b\n1,2\n", "has a quote in the header that is never closed"),
        (b"code,\x00,c\n", "contains the control character U+0000, in the header"),
    ] {
        assert_eq!(lines(csv(file)), [message], "{file:?}");
    }
    let long = "x".repeat(MAX_ROW_BYTES + 1);
    assert_eq!(lines(csv(&long)), ["has a header of more than 262144 bytes"]);
}

#[test]
fn a_file_tells_what_sort_of_fault_it_has() {
    for (file, kind) in [
        (&b"\x1f\x8b\x08\x00\x00"[..], FileErrorKind::OtherMedia),
        (b"PK\x03\x04\x14", FileErrorKind::OtherMedia),
        (b"a\x00b\x00", FileErrorKind::OtherMedia),
        (b"", FileErrorKind::Malformed),
        (b",,\n", FileErrorKind::Malformed),
    ] {
        assert_eq!(csv(file).err().map(|fault| fault.kind), Some(kind), "{file:?}");
    }
    assert_eq!(FileError::too_large().kind, FileErrorKind::TooLarge);
}

#[test]
fn a_row_that_begins_with_a_byte_order_mark_is_told_wherever_it_stands() {
    let mark = "\u{feff}";
    let rows = format!("code,name\n{}{mark}\n{mark}code,name\nB,ok\n", "A,x\n".repeat(999));
    let lines = lines(csv(rows));
    let faults: Vec<&String> = lines.iter().filter(|line| line.contains(" -: ")).collect();
    let message = "begins with a byte order mark, as if another file had been appended here";
    assert_eq!(faults, [&format!("1001 -: {message}"), &format!("1002 -: {message}")]);
    assert_eq!(lines.last().unwrap(), faults[1]);
    assert!(lines.contains(&"1003: B,ok".to_owned()));
}

#[test]
fn a_row_that_cannot_be_read_is_left_out_and_the_rest_goes_on() {
    let file = b"code,name\nA,\xe9t\xe9\nB,ok\nC\x00,x\n,\"\xff\n\"\nD,ok\n";
    assert_eq!(
        lines(csv(file)),
        [
            "3: B,ok",
            "6: D,ok",
            "2 name: contains the byte 0xE9, which is not valid UTF-8 here",
            "4 code: contains the control character U+0000",
            "5 name: contains the byte 0xFF, which is not valid UTF-8 here",
        ]
    );
}

#[test]
fn a_cell_of_100_mb_is_one_fault_and_is_not_kept() {
    let mut chunker = Chunker::new(ImportFormat::Csv);
    chunker.push(b"code,name\nA,x\nB,\"").unwrap();
    let piece = vec![b'\n'; 1024 * 1024];
    for _ in 0..100 {
        assert_eq!(chunker.push(&piece).unwrap(), []);
        let Format::Csv(rows) = &chunker.format else { panic!("it is CSV") };
        assert!(rows.buffered_bytes() <= MAX_ROW_BYTES);
    }
    chunker.push(b"\"\nC,y\n").unwrap();
    let chunks = chunker.finish();
    let lines =
        lines(chunks.map(|chunks| ReadFile { columns: Vec::new(), delimiter: None, chunks }));
    assert_eq!(
        lines,
        ["2: A,x", "4: C,y", "3 name: has 104857604 bytes, at most 262144 are allowed in a row"]
    );
}

#[test]
fn a_row_may_be_as_large_as_the_limit_says() {
    let row = |bytes: usize| format!("a\n{}\nb\n", "x".repeat(bytes));
    assert!(csv(row(MAX_ROW_BYTES)).unwrap().chunks.iter().all(|chunk| chunk.faults.is_empty()));
    let faults = csv(row(MAX_ROW_BYTES + 1)).unwrap().chunks.remove(0).faults;
    assert_eq!(faults[0].message, "has 262145 bytes, at most 262144 are allowed in a row");
}

#[test]
fn a_quote_that_is_never_closed_is_said_where_it_was_opened() {
    let lines = lines(csv("a,b\n1,2\n3,\"4\n5,6\n7,8\n"));
    assert_eq!(lines[0], "2: 1,2");
    assert!(lines[1].starts_with("3 b: has a quote that is never closed: the "), "{lines:?}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn chunks_end_at_a_thousand_rows_or_a_mebibyte() {
    let rows = |read_file: Result<ReadFile, FileError>| -> Vec<i32> {
        read_file.unwrap().chunks.iter().map(|chunk| chunk.rows).collect()
    };
    let short = format!("a\n{}", "x\n".repeat(2_001));
    assert_eq!(rows(csv(short)), [1_000, 1_000, 1]);
    let faulty = [b"a\n".to_vec(), b"\xff\n".repeat(1_500)].concat();
    assert_eq!(rows(csv(faulty)), [1_000, 500]);
    let long = format!("a\n{}", format!("{}\n", "x".repeat(200 * 1024)).repeat(7));
    assert_eq!(rows(csv(long)), [5, 2]);
}

#[test]
fn a_file_over_512_mib_is_refused() {
    for format in [ImportFormat::Csv, ImportFormat::Json] {
        let mut chunker = Chunker::new(format);
        chunker.bytes = MAX_FILE_BYTES - 6;
        assert_eq!(chunker.push(b"      "), Ok(vec![]));
        assert_eq!(chunker.push(b" ").unwrap_err().message, "is larger than 512 MiB");
    }
}

#[test]
fn elements_stand_in_a_list_or_one_after_the_other() {
    for (file, expected) in [
        ("[]", &[][..]),
        (" \n[ {\"a\" : 1 } ,\r\n {\"b\":\n[1, 2]}]\n", &["1: {\"a\":1}", "2: {\"b\":[1,2]}"]),
        ("{\"a\":1}\n{\"b\":\"x y\"}\n", &["1: {\"a\":1}", "2: {\"b\":\"x y\"}"]),
        ("\u{feff}{\n  \"a\": \"}\\\"\"\n}{\"b\": {}}", &["1: {\"a\":\"}\\\"\"}", "2: {\"b\":{}}"]),
        ("{\"a\":[\n{\"b\":1},\n{\"b\":2}\n]}", &["1: {\"a\":[{\"b\":1},{\"b\":2}]}"]),
    ] {
        assert_eq!(lines(json(file)), expected, "{file}");
    }
}

#[test]
fn an_element_that_cannot_be_read_is_left_out_and_the_rest_goes_on() {
    let deep = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_ROW_BYTES));
    for (element, message) in [
        ("1", "is not an object"),
        ("\"x\"", "is not an object"),
        ("null", "is not an object"),
        ("[{}]", "is not an object"),
        ("{\"a\": 1 2}", "is not JSON: expected `,` or `}`"),
        ("{\"a\": 1\n2}", "is not JSON: expected `,` or `}`"),
        ("{'a': 1}", "is not JSON: key must be a string"),
        ("{\"a\": \"\\u0000\"}", "contains the control character U+0000"),
        ("{\"a\": \"\\x\"}", "is not JSON: invalid escape"),
        (&deep(33), "is nested deeper than 32 levels"),
        (&deep(200), "is nested deeper than 32 levels"),
        (&large, "has 262152 bytes, at most 262144 are allowed in a row"),
    ] {
        let expected =
            ["1: {\"a\":1}", "3: {\"b\":2}", &format!("2 -: {message}")].map(ToOwned::to_owned);
        let list = format!("[{{\"a\":1}},{element},{{\"b\":2}}]");
        assert_eq!(lines(json(&list)), expected, "{}", &list[..list.len().min(80)]);
    }
    assert_eq!(lines(json(deep(32))).len(), 1);
    assert!(lines(json(deep(32)))[0].starts_with("1: {"));
    let latin = b"{\"a\":\"\xe9\"}\n{\"a\":1}";
    let expected = ["2: {\"a\":1}", "1 -: contains the byte 0xE9, which is not valid UTF-8 here"];
    assert_eq!(lines(json(latin)), expected);
}

#[test]
fn without_a_list_a_broken_line_breaks_only_itself() {
    for (line, message) in [
        ("{\"a\": 1", "is never closed: the next line begins another object"),
        ("{\"a\": \"x", "has a text that is not closed on its line"),
        ("{\"a\": 1]}", "closes `{` with `]`"),
        ("nonsense {}", "is not an object: found `n` instead of `{`"),
        ("]", "is not an object: found `]` instead of `{`"),
    ] {
        let expected =
            ["1: {\"a\":1}", "3: {\"b\":2}", &format!("2 -: {message}")].map(ToOwned::to_owned);
        assert_eq!(lines(json(format!("{{\"a\":1}}\n{line}\n{{\"b\":2}}\n"))), expected, "{line}");
    }
    let expected = ["1: {\"a\":1}", "2 -: is never closed: the file ends inside this object"];
    assert_eq!(lines(json("{\"a\":1}\n{\"b\":[1,\n")), expected);
}

#[test]
fn what_is_no_json_is_refused_as_a_whole() {
    for (file, message) in [
        ("", "is empty"),
        (" \n", "is empty"),
        ("name,type\n", "is not JSON: found `n` instead of `[` or `{`"),
        ("\"a\"", "is not JSON: found `\\\"` instead of `[` or `{`"),
        ("[{\"a\":1}", "ends after 1 complete elements, and the list is never closed"),
        ("[{\"a\":1},", "ends after 1 complete elements, and the list is never closed"),
        ("[{\"a\":1},]", "has no element 2 before `]`"),
        ("[{\"a\":1} {\"b\":1}]", "has `{` after element 1 of the list"),
        ("[{\"a\":1}]{}", "continues with `{` after the end of the list"),
        ("[{\"a\":[1}]", "cannot be read further: element 1 closes `[` with `}`"),
        (
            "[{\"a\":\"x\n\"}]",
            "cannot be read further: element 1 has a text that is not closed on its line",
        ),
        ("{\"a\":1},{\"b\":2}", "has a comma after object 1, but no list"),
    ] {
        assert_eq!(lines(json(file)), [message], "{file}");
    }
}

/// Splits the file at these positions, each taken modulo the file's length.
fn pieces<'a>(file: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (file.len() + 1)).collect();
    cuts.extend([0, file.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &file[pair[0]..pair[1]]).collect()
}

/// Generates a random sequence of these byte strings.
fn noise(fragments: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(fragments), 0..60).prop_map(|parts| parts.concat())
}

const CSV_NOISE: &[&[u8]] = &[
    b"\"",
    b"\"\"",
    b",",
    b";",
    b"\t",
    b"\r",
    b"\n",
    b"\r\n",
    b"a",
    b" ",
    b"\xc3\xa4",
    b"\xff",
    b"\0",
    b"\xef\xbb\xbf",
];
const JSON_NOISE: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\n",
    b" ",
    b"1",
    b"{\"a\":1}",
    b"\"a\"",
    b"\xff",
    b"\\u0000",
];

proptest! {
    #[test]
    fn however_csv_is_split_the_chunks_are_the_same(
        noise in noise(CSV_NOISE), cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let file = [b"code,name\n".to_vec(), noise].concat();
        prop_assert_eq!(lines(read_file(ImportFormat::Csv, pieces(&file, &cuts))), lines(csv(&file)));
        let bytewise = lines(read_file(ImportFormat::Csv, file.chunks(1)));
        prop_assert_eq!(bytewise, lines(csv(&file)));
    }

    #[test]
    fn however_the_header_is_split_it_is_the_same(
        file in noise(CSV_NOISE), cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(lines(read_file(ImportFormat::Csv, pieces(&file, &cuts))), lines(csv(&file)));
    }

    #[test]
    fn however_json_is_split_the_chunks_are_the_same(
        noise in noise(JSON_NOISE), is_list in any::<bool>(), cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let file = if is_list { [b"[".to_vec(), noise, b"]".to_vec()].concat() } else { noise };
        prop_assert_eq!(lines(read_file(ImportFormat::Json, pieces(&file, &cuts))), lines(json(&file)));
    }

    #[test]
    fn the_rows_of_chunks_are_the_records_of_the_file(
        noise in noise(&[b"\"", b"\"\"", b",", b";", b"\r", b"\n", b"\r\n", b"a", b" ", b"\xc3\xa4"]),
    ) {
        let file = [b"code,name\n".to_vec(), noise].concat();
        let read_file = csv(&file).unwrap();
        let mut read = Vec::new();
        for chunk in &read_file.chunks {
            let rows = records(&chunk.content);
            prop_assert_eq!(rows.len(), chunk.numbers.len());
            read.extend(rows);
        }
        let is_whole = read_file.chunks.iter().all(|chunk| chunk.faults.is_empty());
        let mut expected = records(&file[b"code,name\n".len()..]);
        if !is_whole {
            expected.pop(); // The `csv` crate reads the rest of the file as the last record.
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn every_chunk_has_as_many_records_as_numbers(noise in noise(CSV_NOISE), blank in 990_usize..1_000) {
        let rows = b"a,b\n".repeat(blank);
        let file = [&b"code,name\n"[..], &rows, &noise, b"\n", &noise].concat();
        for chunk in csv(&file).unwrap().chunks {
            prop_assert_eq!(records(&chunk.content).len(), chunk.numbers.len());
        }
    }

    #[test]
    fn what_is_json_comes_out_as_it_went_in(
        values in prop::collection::vec(object(), 0..8), is_list in any::<bool>(), is_pretty in any::<bool>(),
    ) {
        let texts: Vec<String> = values.iter().map(|value| {
            if is_pretty { serde_json::to_string_pretty(value).unwrap() } else { value.to_string() }
        }).collect();
        let file = if is_list { format!("[{}]", texts.join(",\n")) } else { texts.join("\n") };
        prop_assume!(is_list || !values.is_empty());
        let read_file = json(&file).unwrap();
        let content: Vec<u8> = read_file.chunks.iter().flat_map(|chunk| chunk.content.clone()).collect();
        let lines: Vec<Value> = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap()).collect();
        prop_assert_eq!(lines, values);
    }
}

fn records(file: &[u8]) -> Vec<Vec<Vec<u8>>> {
    ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(file)
        .byte_records()
        .map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect())
        .collect()
}

fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~\n\t\u{e4}\u{1f600}]{0,8}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z{}\"]{0,3}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    });
    prop::collection::btree_map("[a-z\\[,]{1,4}", value, 0..4)
        .prop_map(|map| map.into_iter().collect::<Value>())
}
