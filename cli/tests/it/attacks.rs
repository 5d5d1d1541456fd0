//! Hostile documents: each is rejected before anything runs, and the next request is answered.
//!
//! Times are printed and not asserted, because the build is a debug build.

use std::{fmt::Write, time::Instant};

use serde_json::json;

use crate::{
    client::Answer,
    server::{Api, TestDeployment, within},
    team::Team,
};

/// Attack: a name, and a function that returns a document of about a given size in bytes.
type Attack = (&'static str, fn(usize) -> String);

fn nested(open: &str, close: &str, bytes: usize) -> String {
    let depth = (bytes / (open.len() + close.len())).min(100_000);
    format!("{}{}", open.repeat(depth), close.repeat(depth))
}

fn repeated(bytes: usize, mut piece: impl FnMut(usize) -> String) -> String {
    let mut text = String::new();
    let mut index = 0;
    while text.len() + 40 < bytes {
        text += &piece(index);
        index += 1;
    }
    text
}

/// Returns fragments that each spread the next one twice: 2^19 fields in 598 bytes.
fn bomb() -> String {
    let mut text = "{...a}".to_owned();
    for verdict_code in b'a'..b't' {
        let (name, next) = (char::from(verdict_code), char::from(verdict_code + 1));
        let _ = write!(text, "fragment {name} on Query{{...{next}...{next}}}");
    }
    text += "fragment t on Query{__typename viewer{permissions}}";
    assert!((550..=800).contains(&text.len()), "{}", text.len());
    text
}

const ATTACKS: &[Attack] = &[
    ("lists", |n| format!("{{asset(id:{}){{id}}}}", nested("[", "]", n - 30))),
    ("open lists", |n| format!("{{asset(id:{}", "[".repeat((n - 30).min(100_000)))),
    ("objects", |n| format!("{{assets(filter:{}){{totalCount}}}}", nested("{a:", "}", n - 40))),
    ("selections", |n| format!("{{viewer{}}}", nested("{viewer", "}", n - 30))),
    ("inline fragments", |n| format!("{{{}}}", nested("...{", "}", n - 30))),
    ("types", |n| {
        format!("query($a:{}){{__typename}}", nested("[", "]", n - 40).replacen("[]", "[Int]", 1))
    }),
    ("default values", |n| format!("query($a:Int={}){{__typename}}", nested("[", "]", n - 40))),
    ("fragment bomb", |_| bomb()),
    ("fragment cycle", |_| "{...a}fragment a on Query{...b}fragment b on Query{...a}".into()),
    ("directives", |n| {
        format!("{{viewer{}{{permissions}}}}", repeated(n, |_| "@skip(if:false)".into()))
    }),
    ("directive names", |n| format!("{{__typename{}}}", repeated(n, |i| format!("@d{i}")))),
    ("aliases", |n| format!("{{{}}}", repeated(n, |i| format!("a{i}:__typename ")))),
    ("thousand aliases", |_| {
        format!(
            "{{{}}}",
            (0..1000).fold(String::new(), |all, i| all + &format!("a{i}:__typename "))
        )
    }),
    ("one field often", |n| format!("{{viewer{{{}}}}}", repeated(n, |_| "permissions ".into()))),
    ("arguments", |n| format!("{{assets({}){{totalCount}}}}", repeated(n, |i| format!("a{i}:1 ")))),
    ("variables", |n| format!("query({}){{__typename}}", repeated(n, |i| format!("$v{i}:Int ")))),
    ("operations", |n| repeated(n, |i| format!("query q{i}{{__typename}}"))),
    ("fragments", |n| {
        format!(
            "{{__typename}}{}",
            repeated(n, |i| format!("fragment f{i} on Query{{__typename}}"))
        )
    }),
    ("spreads", |_| {
        format!(
            "{{{}}}fragment f on Query{{{}}}",
            "...f ".repeat(400),
            "viewer{permissions}".repeat(80)
        )
    }),
    ("a long string", |n| format!("{{asset(code:\"{}\"){{id}}}}", "x".repeat(n - 40))),
    ("a long name", |n| format!("{{{}}}", "x".repeat(n - 40))),
    ("a long number", |n| format!("{{assets(first:{}){{totalCount}}}}", "9".repeat(n - 40))),
    ("comments", |n| format!("{}{{__typename}}", repeated(n, |_| "#\n".into()))),
    ("blanks", |n| format!("{{{}__typename}}", " ".repeat(n - 40))),
    ("quotes", |n| format!("{{asset(code:{}", "\"".repeat(n - 40))),
    ("block quotes", |n| format!("{{asset(code:\"\"\"{}", "\\\"\"\"".repeat((n - 40) / 4))),
    ("many rows", |_| {
        format!(
            "{{{}}}",
            (0..20).fold(String::new(), |all, i| all
                + &format!("a{i}:users(first:100){{nodes{{roles{{key}}}}}}"))
        )
    }),
    ("introspection rings", |_| {
        format!("{{__schema{{types{{{}name{}}}}}}}", "fields{type{".repeat(6), "}}".repeat(6))
    }),
    ("introspection aliases", |_| {
        format!(
            "{{{}}}",
            (0..20).fold(String::new(), |all, i| all + &format!("a{i}:__schema{{types{{...T}}}}"))
                + "}fragment T on __Type{name description fields{name description args{name description type{name}}} inputFields{name description} enumValues{name description}"
        )
    }),
    ("logins", |_| {
        format!(
            "mutation{{{}}}",
            (0..1000).fold(String::new(), |all, i| all
                + &format!("a{i}:login(email:\"a@b.c\",password:\"x\"){{mfaChallenge}}"))
        )
    }),
];

/// Attacks that are harmless below a certain size.
const HARMLESS_WHEN_SMALL: [&str; 3] = ["a long string", "comments", "blanks"];

fn assert_refused(name: &str, bytes: usize, answer: &Answer) {
    answer.assert_well_formed();
    if HARMLESS_WHEN_SMALL.contains(&name) && bytes <= 16 * 1024 {
        assert!(!answer.codes().contains(&"INTERNAL"), "{name}: {}", answer.text);
        return;
    }
    let codes = answer.codes();
    let is_refused = |code: &&str| ["VALIDATION", "QUERY_TOO_COMPLEX"].contains(code);
    assert!(!codes.is_empty() && codes.iter().all(is_refused), "{name}: {}", answer.text);
    assert!(answer.body.get("data").is_none(), "{name} ran: {}", answer.text);
    // An error may quote the rejected document, but nothing more.
    let most = 4096 + bytes;
    assert!(answer.text.len() < most, "{name}: the refusal has {} bytes", answer.text.len());
}

async fn assert_alive(api: &Api, team: &Team) {
    let client = &team.owner.client;
    let answer = client.at(api).execute("{ viewer { permissions } }").await;
    assert_eq!(answer.codes(), Vec::<&str>::new(), "{}", answer.text);
}

#[tokio::test]
async fn no_document_hurts() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api().await;
    let team = Team::new(&deployment, &api).await;
    let client = &team.owner.client;
    for (name, document) in ATTACKS {
        // Sizes that fit in a body, in an escaped request head, and below the limit of document size.
        let mut done = 0;
        for size in [1_000_000, 20_000, 15_000] {
            let document = document(size);
            if document.len() == std::mem::replace(&mut done, document.len()) {
                continue;
            }
            let body = json!({ "query": document }).to_string();
            if body.len() > 1 << 20 {
                continue;
            }
            let began = Instant::now();
            let request = client.post().header("content-type", "application/json").body(body);
            let posted = Answer::of(request).await;
            let post = began.elapsed();
            assert_refused(name, document.len(), &posted);
            eprintln!("{name:>22} {:>8} bytes  POST {post:>9.1?}", document.len());
            assert_alive(&api, &team).await;
            let request = client.get(&[("query", &document)]);
            let request_line = request.try_clone().unwrap().build().unwrap().url().as_str().len();
            if request_line > 60_000 {
                continue;
            }
            let began = Instant::now();
            let got = Answer::of(request).await;
            eprintln!("{name:>22} {:>8} bytes  GET  {:>9.1?}", document.len(), began.elapsed());
            assert_refused(name, document.len(), &got);
            assert_alive(&api, &team).await;
        }
    }
}

#[tokio::test]
async fn no_variables_hurt() {
    let (team, shared_server) = Team::on_shared_server().await;
    let client = &team.owner.client;
    let query = "query($f: AssetFilter) { assets(filter: $f) { totalCount } }";
    for (name, variables) in [
        ("lists", nested("[", "]", 1_000_000)),
        ("objects", nested("{\"a\":", "0}", 600_000).replace("0}", "}").replacen('}', "0}", 1)),
        ("open lists", "[".repeat(500_000)),
        ("a long string", format!("{{\"text\":\"{}\"}}", "x".repeat(900_000))),
        ("many keys", format!("{{{}\"z\":1}}", repeated(900_000, |i| format!("\"k{i}\":1,")))),
        ("a long number", format!("{{\"text\":{}}}", "9".repeat(900_000))),
    ] {
        let body = format!("{{\"query\":\"{query}\",\"variables\":{{\"f\":{variables}}}}}");
        let began = Instant::now();
        let request = client.post().header("content-type", "application/json").body(body);
        let answer = Answer::of(request).await;
        eprintln!("{name:>22} {:>8} bytes  variables {:>9.1?}", variables.len(), began.elapsed());
        answer.assert_well_formed();
        assert!(!answer.errors().is_empty(), "{name}: {}", answer.text);
        assert!(!answer.codes().contains(&"INTERNAL"), "{name}: {}", answer.text);
        assert!(answer.text.len() < 4096, "{name}: the refusal has {} bytes", answer.text.len());
        assert_alive(&shared_server.api, &team).await;
    }
}

#[tokio::test]
async fn many_at_once_do_not_keep_others_waiting() {
    let (team, shared_server) = Team::on_shared_server().await;
    let mut attackers = tokio::task::JoinSet::new();
    for index in 0..60 {
        let (_, document) = ATTACKS[index % ATTACKS.len()];
        let client = team.nobody.clone();
        attackers.spawn(async move { client.execute(&document(15_000)).await });
    }
    let patience = std::time::Duration::from_secs(10);
    within(patience, "an honest request is answered meanwhile", async || {
        assert_alive(&shared_server.api, &team).await;
        Some(())
    })
    .await;
    while let Some(answer) = attackers.join_next().await {
        assert!(!answer.unwrap().codes().contains(&"INTERNAL"));
    }
}
