use async_graphql::parser::parse_query;

use super::*;
use crate::document::error::Code;

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = source(text).expect_err("must be refused");
    assert!(error.message.contains(expected), "{}", error.message);
}

fn nested(open: &str, middle: &str, close: &str, depth: usize) -> String {
    format!("{}{middle}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn each_limit_holds_at_n_and_not_at_n_plus_1() {
    let sized = |bytes: usize| format!("{{a}}{}", " ".repeat(bytes - 3));
    assert_eq!(source(&sized(MAX_SOURCE_BYTES)), Ok(()));
    refused(&sized(MAX_SOURCE_BYTES + 1), "16,385 bytes, the limit is 16,384");

    let with_tokens = |tokens: usize| format!("{{{}}}", "a,".repeat(tokens - 2));
    assert_eq!(source(&with_tokens(MAX_TOKENS)), Ok(()));
    refused(
        &with_tokens(MAX_TOKENS + 1),
        "more than 2,000 tokens: token 2,001 is at line 1, column 4000",
    );

    assert_eq!(source(&nested("{a", "", "}", MAX_NESTING)), Ok(()));
    refused(
        &nested("{a\n", "", "}", MAX_NESTING + 1),
        "65 brackets deep at line 65, column 1, the limit is 64",
    );
    assert_eq!(source(&"{a(b:[1])}".repeat(100)), Ok(()), "closed brackets are not open");
}

#[test]
fn brackets_of_all_kinds_count_together() {
    let text = format!("{{a(b:{})}}", nested("[", "", "]", MAX_NESTING - 1));
    refused(&text, "65 brackets deep");
    refused(&format!("query($a:{}){{a}}", nested("[", "I", "]", MAX_NESTING)), "65 brackets");
    refused(&nested("{a(b:[{", "", "}])}", 17), "65 brackets");
}

#[test]
fn brackets_in_strings_and_comments_do_not_count() {
    let many = "{[(".repeat(100);
    for text in [
        format!("{{a(b:\"{many}\")}}"),
        format!("{{a(b:\"\\\"{many}\\\\\")}}"),
        format!("{{a(b:\"\"\"{many} \\\"\"\" \" \"\" \\ {many}\"\"\")}}"),
        format!("#{many} \" \"\"\"\n{{a}}"),
        format!("#{many}\r{{a}}"),
    ] {
        assert_eq!(source(&text), Ok(()), "{text}");
        assert!(parse_query(&text).is_ok(), "{text}");
    }
}

#[test]
fn nothing_hides_brackets_from_the_count() {
    let deep = nested("[", "", "]", 100);
    for text in [
        format!("{{a(b:\"\" c:{deep})}}"),
        format!("{{a(b:\"\"\"\"\"\" c:{deep})}}"),
        format!("{{a(b:\"\\\\\" c:{deep} d:\"\")}}"),
        format!("{{a(b:\"\"\"\\\\ \"\"\" c:{deep} d:\"\"\"\"\"\")}}"),
        format!("{{a # \"\n(c:{deep})}}"),
        format!("{{a # \"\"\"\r(c:{deep})}}"),
        format!("\u{feff}{{a(c:{deep})}}"),
        format!("{{a(c:1.5e+3{deep})}}"),
        format!("{{a(c:...{deep})}}"),
    ] {
        refused(&text, "brackets deep");
    }
}

#[test]
fn what_the_grammar_reads_in_two_ways_is_refused() {
    refused("{a(b:\"\"\"[[[[ \")}", "block string that begins at line 1, column 6");
    refused("{a(b:\"\"\" \\\"\"\")}", "block string");
    refused("{a(b:\"x\n\")}", "the string that begins at line 1, column 6 is not closed");
    refused("{a(b:\"x\\\n\")}", "the string");
    refused("{a(b:\"x", "the string");
    refused("{a(b:\"x\\", "the string");
    refused("é{a(b:\r\n  \"x", "line 2, column 3");
}

#[test]
fn control_characters_are_refused_everywhere() {
    for control in ["\0", "\u{1}", "\u{8}", "\u{b}", "\u{c}", "\u{1b}", "\u{7f}", "\u{85}"] {
        for text in [
            format!("{{a{control}}}"),
            format!("{{a(b:\"{control}\")}}"),
            format!("{{a(b:\"\\{control}\")}}"),
            format!("{{a(b:\"\"\"{control}\"\"\")}}"),
            format!("#{control}\n{{a}}"),
        ] {
            let error = source(&text).expect_err(&text);
            assert_eq!(error.code, Code::Validation);
            assert!(error.message.contains("a control character at line 1"));
        }
    }
    assert_eq!(source("\t{a(b:\"ä\u{a0}漢🙂\")}\r\n"), Ok(()));
}

#[test]
fn tokens_are_counted_as_the_parser_separates_them() {
    let count = |text: &str, tokens: usize| {
        assert_eq!(source(&text.repeat(MAX_TOKENS / tokens)), Ok(()), "{text}");
        refused(&text.repeat(MAX_TOKENS / tokens + 1), "tokens");
    };
    count("1-1 ", 2);
    count("-1.5e-3 ", 1);
    count("1.5.5 ", 3);
    count("...a", 2);
    count("\"a b\" ", 1);
    count("\"\"\"a\"\"\" ", 1);
    count("$a:b! ", 5);
    count("?", 1);
}

/// Parses on a small stack the deepest documents that the lexer accepts, in debug and release builds.
#[test]
fn the_deepest_accepted_document_leaves_most_of_a_thread_s_stack() {
    let inside = MAX_NESTING - 2;
    let documents = [
        nested("{a", "", "}", MAX_NESTING),
        format!("{}{{a}}{}", "{...on A".repeat(MAX_NESTING - 1), "}".repeat(MAX_NESTING - 1)),
        format!("{{a(b:{})}}", nested("[", "", "]", inside)),
        format!("{{a(b:{})}}", nested("{a:", "1", "}", inside)),
        format!("{{a @b(c:{})}}", nested("[{a:", "1", "}]", inside / 2)),
        format!("query($a:I={}){{a}}", nested("[{a:", "1", "}]", inside / 2)),
        format!("query($a:{}){{a}}", nested("[", "I", "]", MAX_NESTING - 1)),
        format!("query($a:{}){{a}}", nested("[", "I!", "]!", MAX_NESTING - 1)),
    ];
    for text in documents {
        assert_eq!(source(&text), Ok(()));
        let thread = std::thread::Builder::new().stack_size(1024 * 1024);
        let parsed = thread.spawn(move || parse_query(&text).map(drop)).unwrap().join();
        parsed.unwrap().unwrap();
    }
}

fn given(json: serde_json::Value) -> Variables {
    Variables::from_json(json)
}

#[test]
fn variables_nest_up_to_the_limit() {
    let deep = |depth: usize| {
        // The object of all variables is the first level.
        let text = format!("{{\"x\": {}}}", nested("[", "1", "]", depth - 1));
        given(serde_json::from_str(&text).unwrap())
    };
    assert_eq!(variables(&deep(MAX_VARIABLES_NESTING)), Ok(()));
    let error = variables(&deep(MAX_VARIABLES_NESTING + 1)).unwrap_err();
    assert_eq!(error.code, Code::QueryTooComplex);
    assert_eq!(error.message, "the variable x nests 33 deep, the limit is 32");
}

#[test]
fn variables_have_up_to_256_kib() {
    let sized = |bytes: usize| given(serde_json::json!({ "x": "a".repeat(bytes - 8) }));
    assert_eq!(variables(&sized(MAX_VARIABLES_BYTES)), Ok(()));
    let error = variables(&sized(MAX_VARIABLES_BYTES + 1)).unwrap_err();
    assert_eq!(error.message, "the variables have 262,145 bytes as JSON, the limit is 262,144");
}
