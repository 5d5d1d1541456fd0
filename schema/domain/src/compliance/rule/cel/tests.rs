//! Tests of accepted conditions, and of rejected ones with position and reason.

use std::{thread, time::Instant};

use serde_json::json;

use super::*;

fn definition(condition: &str) -> Definition {
    Definition {
        title: "t".to_owned(),
        severity: crate::compliance::rule::Severity::Low,
        controls: Vec::new(),
        applies_to: crate::compliance::rule::AppliesTo::default(),
        params: json!({
            "days": 30, "share": 0.5, "on": true, "word": "a", "ports": [21, 23], "names": ["a"],
            "many": (0..256).collect::<Vec<_>>(),
        }),
        condition: condition.to_owned(),
        evidence: BTreeMap::new(),
        remediation: "r".to_owned(),
    }
}

fn compiled(condition: &str) -> Result<Compiled, Vec<FieldError>> {
    let definition = definition(condition);
    compile(&definition, &Params::declared(&definition.params).unwrap())
}

/// Returns the message of the first error.
fn refusal(condition: &str) -> String {
    match compiled(condition) {
        Ok(_) => panic!("{condition} is let through"),
        Err(faults) => {
            assert!(faults.iter().all(|fault| fault.path == "condition"), "{faults:?}");
            faults[0].message.clone()
        }
    }
}

#[test]
fn conditions_are_let_through() {
    for condition in [
        "params.days == 0 || attr.cpu_cores > 100 / (params.days - 30)",
        "params.days == 30 ? attr.disk_encrypted : 1 / (params.days - 30) > 0",
        "attr.disk_encrypted",
        "!attr.has_default_credentials",
        "attr.disk_encrypted == true && owner.mfa_enabled",
        "attr.password_max_age_days <= params.days",
        "double(attr.password_max_age_days) / 2.0 < params.share",
        "has(attr.os_name) ? attr.os_name.startsWith('Debian') : true",
        "asset.environment in ['PROD', 'STAGING'] || asset.type == 'HOST'",
        "attr.open_ports.all(p, !(p in params.ports))",
        "attr.open_ports.exists_one(p, p == 22)",
        "size(attr.open_ports.filter(p, p > 1024)) < 3 && size('abc') == 3",
        "attr.ip_addresses.map(a, size(a)).all(n, n > 3)",
        "attr.ip_addresses.map(a, a.contains(':'), size(a)) == [3]",
        "attr.ip_addresses[0].endsWith('.1')",
        "now - attr.last_patched_at < days(params.days)",
        "attr.tls_cert_expires_at - now >= hours(24) + duration('30m')",
        "now + days(params.days) <= attr.tls_cert_expires_at",
        "attr.last_backup_at > timestamp('2026-01-01T00:00:00Z')",
        "params.on && params.word == 'a' && params.names == []",
        "string(attr.cpu_cores) + 'x' == '4x' && int('4') == attr.cpu_cores && -attr.cpu_cores < 0",
        "'edge' in asset.tags // a comment with ( brackets",
        "attr.last_backup_at > attr.last_patched_at",
        "(now > attr.last_backup_at ? attr.disk_encrypted : false) || !(now < attr.last_patched_at)",
        "[attr.disk_encrypted, now > attr.last_backup_at] == [true, true]",
        r#"asset.name != "((((((((((((((((((((((((((((((((((((((((((((((((((""#,
        r#"asset.name != r"\" && true"#,
    ] {
        if let Err(faults) = compiled(condition) {
            panic!("{condition}: {faults:?}");
        }
    }
}

#[test]
fn each_refusal_says_where_and_why() {
    for (condition, position, why) in [
        ("", "line 1, column 1", "is empty"),
        ("attr.os_name == 'a\u{0}'", "line 1, column 19", "control character U+0000"),
        ("attr.os_name == '\\u0000'", "line 1, column 17", "control characters"),
        ("attr.open_ports[-1] == 1", "line 1, column 18", "this always fails"),
        ("attr.disk_encrypted &&", "line 1, column", ""),
        ("attr.disk_encrypted\n  && attr.disk_encypted", "line 2, column 6", "no attribute"),
        ("attr.disk_encryption", "line 1, column 1", "is an alias: write attr.disk_encrypted"),
        ("disk_encrypted", "line 1, column 1", "is not known"),
        ("asset.env == 'PROD'", "line 1, column 1", "asset has type, environment"),
        ("owner.email == 'a'", "line 1, column 1", "owner has id, mfa_enabled, active"),
        ("params.dayz > 1", "line 1, column 1", "no parameter"),
        ("attr", "line 1, column 1", "is not a value"),
        ("now.year > 1", "line 1, column 1", "now has no fields"),
        ("attr.os_name.length > 1", "line 1, column 1", "have fields"),
        ("'yes' == true", "line 1, column 1", "string on one side and bool on the other"),
        ("attr.cpu_cores == 1.0", "line 1, column 1", "double(…)"),
        ("attr.cpu_cores + 1.5 > 2.0", "line 1, column 1", "double(…)"),
        ("attr.last_patched_at > '2026-01-01'", "line 1, column 1", "timestamp("),
        ("now - attr.last_patched_at < 30", "line 1, column 1", "days(…)"),
        ("now - 30 < attr.last_patched_at", "line 1, column 1", "days(…)"),
        ("attr.cpu_cores", "", "must be true or false, not int"),
        ("attr.disk_encrypted < true", "line 1, column 1", "compares numbers"),
        ("attr.open_ports == 22", "line 1, column 1", "list of int on one side"),
        ("22 in attr.os_name", "line 1, column 7", "needs a list"),
        ("'a' in attr.open_ports", "line 1, column 1", "cannot contain"),
        ("attr.os_name && true", "line 1, column 1", "&& needs bool, not string"),
        ("!attr.os_name", "line 1, column 2", "! needs bool"),
        ("attr.disk_encrypted ? 1 : 'a'", "line 1, column 1", "the same type"),
        ("1 ? true : false", "line 1, column 1", "needs bool"),
        ("has(params.days)", "line 1, column 5", "always has a value"),
        ("has(now)", "line 1, column 5", "takes a field"),
        ("has(attr.disk_encypted)", "line 1, column 5", "no attribute"),
        ("attr.os_name.matches('a+')", "line 1, column 1", "regular expressions"),
        ("attr.os_name.split(',') == []", "line 1, column 1", "split is not known"),
        ("sise(attr.os_name) > 1", "line 1, column 1", "sise is not known"),
        ("type(1) == int", "line 1, column 1", "type is not known"),
        ("dyn(1) == 1", "line 1, column 1", "dyn is not known"),
        ("size(1) > 1", "line 1, column 6", "needs a string or a list"),
        ("timestamp(attr.os_name) < now", "line 1, column 11", "string literal"),
        ("timestamp('yesterday') < now", "line 1, column 11", "not a valid timestamp"),
        ("duration('1 week') < duration('1h')", "line 1, column 10", "not a valid duration"),
        ("days(200000) > hours(1)", "line 1, column 1", "292 years"),
        ("1 / 0 == 1", "line 1, column 5", "the right side of / is zero"),
        ("size([0, 1].map(x, 10 / x)) == 2", "line 1, column 6", "division by zero"),
        ("[1].exists(x, [0].exists(y, x / y == 1))", "line 1, column 1", "division by zero"),
        ("9223372036854775807 + 1 > 0", "line 1, column 1", "too large"),
        ("{'a': 1} == {'a': 1}", "line 1, column", "maps"),
        ("1u == 1u", "line 1, column 1", "unsigned"),
        ("b'a' == b'a'", "line 1, column 1", "bytes"),
        ("attr.os_name == null", "line 1, column 17", "null is not supported"),
        ("[1, 'a'] == []", "line 1, column 5", "cannot contain string"),
        ("[[1]] == []", "line 1, column 2", "lists of lists"),
        ("attr.os_name.all(x, true)", "line 1, column 1", "needs a list"),
        ("attr.open_ports.all(attr, true)", "line 1, column 21", "another name"),
        ("attr.open_ports.all(1, true)", "line 1, column 21", "a name for the item"),
        ("attr.open_ports.all(p)", "line 1, column 1", "wrong number of arguments for all: 1"),
        ("attr.open_ports.all(p, p)", "line 1, column 24", "needs bool"),
        ("attr.open_ports.exists(p, q == 1)", "line 1, column 27", "q is not known"),
        (
            "[1].all(a, [1].all(b, [1].all(c, a == b && b == c)))",
            "line 1, column 23",
            "nested too deep",
        ),
        ("attr.open_ports.all(p, attr.ip_addresses.all(a, a != string(p)))", "", "steps per asset"),
        ("attr.open_ports.all(p, params.many.all(q, p != q))", "", "steps per asset"),
        ("now == attr.last_patched_at", "line 1, column 1", "only in a comparison"),
        ("[1].all(x, now > attr.last_patched_at)", "line 1, column 1", "not within a macro"),
        (
            "string(attr.cpu_cores) < string(int('1')) || [now] == []",
            "line 1, column 47",
            "only in a comparison",
        ),
        (
            "(now > attr.last_patched_at ? days(1) : days(2)) < days(3)",
            "line 1, column 2",
            "only in a comparison",
        ),
        (
            "(now - attr.last_patched_at) - (now - attr.last_backup_at) == days(1)",
            "line 1, column",
            "only in a comparison",
        ),
        ("now > attr.last_patched_at ? now : attr.last_patched_at", "", "must be true or false"),
        ("asset.environment == 'prod'", "line 1, column 22", "is never \"prod\""),
        ("asset.type in ['HOST', 'SERVER']", "line 1, column 24", "is never \"SERVER\""),
        ("attr.?os_name == 'a'", "line 1, column", ""),
        ("Foo{a: 1} == 1", "line 1, column", ""),
        ("asset.name == 'é' && attr.x", "line 1, column 22", "no attribute"),
        ("asset.name == 'a", "line 1, column 15", "is not closed"),
    ] {
        let message = refusal(condition);
        assert!(
            message.starts_with(position),
            "{condition}: {message} does not begin with {position}"
        );
        assert!(message.contains(why), "{condition}: {message} does not say {why}");
    }
}

#[test]
fn constants_are_as_large_as_they_may_be() {
    let mut large = definition("size(params.texts + params.texts + params.texts) == 3");
    large.params = json!({ "texts": vec!["x".repeat(1_000); 250] });
    let faults = compile(&large, &Params::declared(&large.params).unwrap()).unwrap_err();
    assert!(faults[0].message.contains("constants have more than 1000000"), "{faults:?}");
}

#[test]
fn condition_and_evidence_have_one_budget() {
    let mut costly = definition("attr.open_ports.all(a, [1, 2, 3, 4, 5, 6].all(b, a != b))");
    let params = Params::declared(&costly.params).unwrap();
    assert!(compile(&costly, &params).is_ok());
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        costly.evidence.insert(name.to_owned(), costly.condition.clone());
    }
    let faults = compile(&costly, &params).unwrap_err();
    assert_eq!(faults[0].path, "evidence", "{faults:?}");
}

#[test]
fn what_was_probably_meant_is_suggested() {
    for (condition, suggestion) in [
        ("attr.disk_encypted", "attr.disk_encrypted"),
        ("attr.disk_encryption", "attr.disk_encrypted"),
        ("attr.environment == 'PROD'", "asset.environment"),
        ("asset.environmnt == 'PROD'", "asset.environment"),
        ("owner.mfa", "owner.mfa_enabled"),
        ("disk_encrypted", "attr.disk_encrypted"),
        ("atr.disk_encrypted", "attr"),
        ("params.day > 1", "days"),
        ("attr.os_name.startswith('a')", "startsWith"),
        ("asset.environment == 'production'", "\"PROD\""),
    ] {
        let faults = compiled(condition).unwrap_err();
        assert_eq!(faults[0].suggestion.as_deref(), Some(suggestion), "{condition}: {faults:?}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let faults = compiled("attr.a && attr.b || 1 == 'x'").unwrap_err();
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn evidence_is_checked_by_its_name_and_may_read_the_clock() {
    let mut rule = definition("attr.disk_encrypted");
    let params = Params::declared(&rule.params).unwrap();
    rule.evidence = [("age", "now - attr.last_patched_at"), ("bad", "attr.nothing")]
        .map(|(name, source)| (name.to_owned(), source.to_owned()))
        .into();
    let faults = compile(&rule, &params).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].path, "evidence.bad");
    rule.evidence.remove("bad");
    let compiled = compile(&rule, &params).unwrap();
    assert!(compiled.reads().any(|read| read == "attr.last_patched_at") && !compiled.reads_now);
}

#[test]
fn what_it_is_about_is_read_too() {
    let mut rule = definition("attr.os_supported && 'a' in asset.tags && has(owner.id)");
    rule.applies_to.environments = vec![crate::inventory::asset::Environment::Prod];
    let compiled = compile(&rule, &Params::declared(&rule.params).unwrap()).unwrap();
    let mut reads: Vec<_> = compiled.reads().collect();
    reads.sort_unstable();
    let expected = [
        "asset.environment",
        "asset.tags",
        "attr.os_name",
        "attr.os_supported",
        "attr.os_version",
        "owner.id",
    ];
    assert_eq!(reads, expected);
}

/// The default stack size of a test thread is also 2 MiB.
#[test]
fn no_source_overflows_the_stack_or_takes_long() {
    let repeated = |open: &str, middle: &str, close: &str| {
        let room = 4_090 - middle.len();
        let times = room / (open.len() + close.len()).max(1);
        let most = format!("{}{middle}{}", open.repeat(times), close.repeat(times));
        // The deepest sources that may be within the limits of the lexer.
        let fewer = [10, 24, 31, 62, 90, 180]
            .map(|times| format!("{}{middle}{}", open.repeat(times), close.repeat(times)));
        [vec![most], fewer.to_vec()].concat()
    };
    let sources: Vec<String> = [
        ("(", "true", ")"),
        ("(", "", ""),
        ("[", "1", "]"),
        ("[", "", ""),
        ("{", "", ""),
        ("!", "true", ""),
        ("-", "1", ""),
        ("- ", "1 == 1", ""),
        ("true?true:", "true", ""),
        ("true?", "true", ":true"),
        ("a.", "a", ""),
        ("1+", "1 == 1", ""),
        ("'a'+", "'a' == 'a'", ""),
        ("1==", "1", ""),
        ("true&&", "true", ""),
        ("true||", "true", ""),
        ("attr.disk_encrypted || ", "true", ""),
        ("size(", "'a'", ")"),
        ("[1].all(x,", "true", ")"),
        ("[1].map(x,", "1", ")"),
        ("a[", "0", "]"),
        ("1,", "1", ""),
        ("1 in ", "[1]", ""),
        ("'", "", ""),
        ("\"\"\"", "", ""),
        ("@", "", ""),
        ("a ", "", ""),
        (".", "", ""),
        ("1<", "2", ""),
        ("now+days(1)-", "now", ""),
        ("attr.cpu_cores+", "1 > 0", ""),
        ("attr.cpu_cores-(", "1", ")"),
    ]
    .into_iter()
    .flat_map(|(open, middle, close)| repeated(open, middle, close))
    .collect();
    let checked = thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(move || {
        let described = crate::compliance::rule::facts::tests::described(br#"{"cpu_cores": 4}"#);
        let facts = Facts::of(&described).unwrap();
        for source in sources {
            let started = Instant::now();
            if let Ok(compiled) = compiled(&source) {
                compiled.evaluate(&facts, chrono::DateTime::UNIX_EPOCH);
            }
            let taken = started.elapsed();
            assert!(taken.as_secs() < 3, "{taken:?}: {}…", &source[..source.len().min(80)]);
        }
    });
    checked.unwrap().join().unwrap();
}
