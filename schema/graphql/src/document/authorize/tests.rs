//! Tests of the authorization check, as tables. Long, because every known way to bypass the check has a row.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use async_graphql::{Variables, parser::parse_query};
use domain::access::permission::BuiltinRole;

use super::*;
use crate::document::{
    expansion::ParsedDocument,
    index::tests::{POLICIES, SDL, index},
    lexer,
};

fn own() -> Vec<String> {
    vec!["usr_1".to_owned(), "key_1".to_owned()]
}

/// Returns one line per forbidden path: `path needs PERMISSION for Type.field`.
fn forbidden(source: &str, json: &str, caller: Caller<'_>) -> String {
    let document = ParsedDocument::of(parse_query(source).unwrap()).unwrap();
    let mut variables: Variables = serde_json::from_str(json).unwrap();
    let name = source.contains(" Main").then_some("Main");
    let operation = document.operation(name, &mut variables).unwrap();
    let mut lines = Vec::new();
    for forbidden in index().forbidden(operation, caller) {
        let need = match forbidden.need {
            Need::Authentication => "authentication",
            Need::Permission(permission) => permission.as_str(),
        };
        lines.push(format!("{} needs {need} for {}", forbidden.path.join("."), forbidden.field));
    }
    lines.join("\n")
}

#[track_caller]
fn may(permissions: &[Permission], source: &str, json: &str, expected: &[&str]) {
    let caller =
        Caller::Authenticated { permissions: PermissionSet::of(permissions), own_ids: &own() };
    assert_eq!(forbidden(source, json, caller), expected.join("\n"), "{source} {json}");
}

#[track_caller]
fn anybody_may(source: &str, expected: &[&str]) {
    assert_eq!(forbidden(source, "{}", Caller::Anonymous), expected.join("\n"), "{source}");
}

#[test]
fn who_is_not_signed_in_gets_what_is_public() {
    for public in [
        "{viewer{__typename}}",
        "{__typename __schema{types{name}} __type(name: \"Secret\"){name}}",
        "{health{up} ping}",
        "{viewer{actor{__typename}}}",
        "mutation{login{accessToken} refreshSession{accessToken} logout}",
        "{...F} fragment F on Query{...{health{... on Health{up}}}}",
    ] {
        anybody_may(public, &[]);
    }
    anybody_may("{node(id: 1){id}}", &["node needs authentication for Query.node"]);
    anybody_may("{h: health{a: asset{id}}}", &["h.a needs authentication for Health.asset"]);
    // `viewer` is null for an anonymous caller, so no field below it runs. The exception applies to this field only,
    // under any alias.
    for null in [
        "{viewer{organization{name} actor{... on User{name email} ... on ApiKey{id}}}}",
        "{...F} fragment F on Query{me: viewer{organization{name}}}",
    ] {
        anybody_may(null, &[]);
    }
    may(
        &[],
        "{viewer{actor{... on ApiKey{name}}}}",
        "{}",
        &["viewer.actor.name needs API_KEY_MANAGE for ApiKey.name"],
    );
    anybody_may("{viewer: node(id: 1){id}}", &["viewer needs authentication for Query.node"]);
    anybody_may(
        "{viewer{organization{name}} health{asset{id} viewer{organization{name}}}}",
        &["health.asset needs authentication for Health.asset"],
    );
    anybody_may(
        "mutation{changePassword}",
        &["changePassword needs authentication for Mutation.changePassword"],
    );
    anybody_may(
        "subscription{findings{id}}",
        &["findings needs authentication for Subscription.findings"],
    );
}

#[test]
fn statements_of_fields_and_types_add_up() {
    let read = [Permission::AssetRead];
    may(
        &read,
        "{assets{edges{node{id owner{name}} cursor} pageInfo{hasNextPage} totalCount}}",
        "{}",
        &[],
    );
    may(&[], "{assets{nodes{id}}}", "{}", &["assets needs ASSET_READ for Query.assets"]);
    may(
        &[],
        "{a: assets{nodes{f: findings{edges{node{id}}} s: secret{name} owner{email}}}}",
        "{}",
        &[
            "a needs ASSET_READ for Query.assets",
            "a.nodes.f needs COMPLIANCE_READ for Asset.findings",
            "a.nodes.s needs SECRET_MANAGE for Asset.secret",
            "a.nodes.owner.email needs USER_READ for User.email",
        ],
    );
    // A mutation's own permission does not include the permission to read its result.
    may(
        &[Permission::AssetWrite],
        "mutation{createAsset{id}}",
        "{}",
        &["createAsset needs ASSET_READ for Mutation.createAsset"],
    );
    may(
        &read,
        "mutation{createAsset{id}}",
        "{}",
        &["createAsset needs ASSET_WRITE for Mutation.createAsset"],
    );
    may(
        &[],
        "mutation{createAsset{id}}",
        "{}",
        &[
            "createAsset needs ASSET_READ for Mutation.createAsset",
            "createAsset needs ASSET_WRITE for Mutation.createAsset",
        ],
    );
    may(
        &[Permission::ComplianceRead],
        "subscription{findings{asset{id}}}",
        "{}",
        &["findings.asset needs ASSET_READ for Finding.asset"],
    );
    // Selecting only `__typename` still reveals that the object exists.
    may(
        &read,
        "{asset{secret{__typename}}}",
        "{}",
        &["asset.secret needs SECRET_MANAGE for Asset.secret"],
    );
}

#[test]
fn fragments_hide_nothing() {
    let line = ["secrets needs SECRET_MANAGE for Query.secrets"];
    for source in [
        "{secrets{name}}",
        "{...{secrets{name}}}",
        "{...{...{... on Query{secrets{name}}}}}",
        "{...F} fragment F on Query{...G} fragment G on Query{...{secrets{name}}}",
        "{ping ...F ...F} fragment F on Query{secrets{name}}",
        "{secrets{name} secrets{__typename} ... on Query{secrets{name}}}",
        "{secrets @include(if: true){name @skip(if: true)}}",
        "{...F @skip(if: false)} fragment F on Query @skip(if: true){secrets{name}}",
        "query Other{ping} query Main{secrets{name}}",
        "query Main @skip(if: true){secrets{name}}",
        "{ping ... on Query @include(if: true){secrets @skip(if: false) @other{name}}}",
    ] {
        may(&[], source, "{}", &line);
    }
    may(
        &[],
        "query Other{secrets{name}} query Main{ping} fragment F on Query{secrets{name}}",
        "{}",
        &[],
    );
    let alias = "{ping: secrets{name} viewer: secrets{name}}";
    may(
        &[],
        alias,
        "{}",
        &[
            "ping needs SECRET_MANAGE for Query.secrets",
            "viewer needs SECRET_MANAGE for Query.secrets",
        ],
    );
    // The same fragment is allowed at one spread and forbidden at another.
    may(
        &[Permission::AssetRead],
        "{viewer{actor{...F}} node(id: \"usr_2\"){...F}} fragment F on User{email}",
        "{}",
        &["node.email needs USER_READ for User.email"],
    );
    // Two fields with the same response key are checked separately, although their results are merged.
    may(
        &[],
        "{node(id: \"usr_1\"){...on User{email}} ... on Query{node(id: \"usr_2\"){...on User{email roles{key}}}}}",
        "{}",
        &["node.email needs USER_READ for User.email", "node.roles needs USER_READ for User.roles"],
    );
    may(
        &[],
        "{a: ping ... on Query{a: secrets{name}}}",
        "{}",
        &["a needs SECRET_MANAGE for Query.secrets"],
    );
}

#[test]
fn what_conditions_exclude_is_not_checked_and_nothing_else() {
    let line = ["secrets needs SECRET_MANAGE for Query.secrets"];
    let check = |condition: &str, json: &str, runs: bool| {
        let head = "query Main($x: Boolean, $y: Boolean = true, $n: Boolean! = false){ping ";
        for frame in [
            "secrets C{name}}",
            "... C{secrets{name}}}",
            "...F C} fragment F on Query{secrets{name}}",
        ] {
            let source = head.to_owned() + &frame.replace('C', condition);
            may(&[], &source, json, if runs { &line } else { &[] });
        }
    };
    check("@skip(if: true)", "{}", false);
    check("@include(if: false)", "{}", false);
    check("@skip(if: $x)", r#"{"x": true}"#, false);
    check("@skip(if: $x)", "{}", true);
    check("@skip(if: $x)", r#"{"x": null}"#, true);
    check("@skip(if: $x)", r#"{"x": "true"}"#, true);
    check("@skip(if: $x)", r#"{"x": 1}"#, true);
    check("@skip(if: $y)", "{}", false);
    check("@skip(if: $y)", r#"{"y": false}"#, true);
    check("@skip(if: $y)", r#"{"y": null}"#, true);
    check("@include(if: $n)", "{}", false);
    check("@include(if: $n)", r#"{"n": true}"#, true);
    check("@include(if: $y) @skip(if: $x)", "{}", true);
    check("@include(if: true) @skip(if: $y)", "{}", false);
    check("@skip(if: \"true\")", "{}", true);
    check("@skip(if: [true])", "{}", true);
    check("@skip(unless: true)", "{}", true);
    check("@skip(if: false, if: true)", "{}", true);
    check("@Skip(if: true)", "{}", true);
    check("@skip(if: $undefined)", "{}", true);
}

#[test]
fn interfaces_and_unions_are_checked_at_the_objects() {
    may(&[], "{node(id: 1){id __typename}}", "{}", &[]);
    may(
        &[],
        "{node(id: 1){id ... on Asset{__typename id n: name} ... on Finding{id} ... on User{name}}}",
        "{}",
        &[
            "node.id needs ASSET_READ for Asset.id",
            "node.n needs ASSET_READ for Asset.name",
            "node.id needs COMPLIANCE_READ for Finding.id",
        ],
    );
    // A type condition on another interface does not bypass the check.
    let both = [
        "node.name needs ASSET_READ for Named.name",
        "node.name needs API_KEY_MANAGE for Named.name",
    ];
    may(&[], "{node(id: 1){... on Named{name}}}", "{}", &both);
    may(
        &[],
        "{node(id: 1){... on Named{...{... on Node{... on Asset{... on Named{name}}}}}}}",
        "{}",
        &["node.name needs ASSET_READ for Asset.name"],
    );
    may(
        &[],
        "{named{...F}} fragment F on Node{... on Asset{...G}} fragment G on Node{id}",
        "{}",
        &["named.id needs ASSET_READ for Asset.id"],
    );
    may(&[], "{stated{name}}", "{}", &[]);
    may(&[], "{node(id: 1){... on Stated{name}}}", "{}", &[]);
    // An object type stays known below a condition on one of its interfaces, so the directives of the object's own
    // field apply.
    may(&[Permission::AssetRead], "{asset{... on Node{... on Named{id name}}}}", "{}", &[]);
    let index = SchemaIndex::read(
        &SDL.replacen("email: String!", "mail: String!", 1)
            .replacen(
                "interface Node { id: ID! }",
                "interface Node { id: ID! } interface Mailed { mail: String @authenticated }",
                1,
            )
            .replacen("User implements Node", "User implements Mailed & Node", 1),
        POLICIES,
    )
    .unwrap();
    let document =
        ParsedDocument::of(parse_query("{stated{... on User{... on Mailed{mail}}}}").unwrap())
            .unwrap();
    let mut variables = Variables::default();
    let operation = document.operation(None, &mut variables).unwrap();
    let caller = Caller::Authenticated { permissions: PermissionSet::EMPTY, own_ids: &[] };
    assert_eq!(index.forbidden(operation, caller)[0].field, "User.mail");
    // A selection below a condition that can never hold would not run. It is checked as if it applied to the type in
    // the condition.
    may(
        &[Permission::AssetRead],
        "{asset{... on Secret{name}}}",
        "{}",
        &["asset.name needs SECRET_MANAGE for Secret.name"],
    );
    may(
        &[],
        "{actors{nodes{... on User{name} ... on ApiKey{name owner{email}}}}}",
        "{}",
        &[
            "actors.nodes.name needs API_KEY_MANAGE for ApiKey.name",
            "actors.nodes.owner needs API_KEY_MANAGE for ApiKey.owner",
            "actors.nodes.owner.email needs USER_READ for User.email",
        ],
    );
}

#[test]
fn oneself_is_the_direct_object_only() {
    for source in [
        "{viewer{actor{... on User{email roles{key}}}}}",
        "{v: viewer{a: actor{...F}}} fragment F on User{...{email}}",
        "{node(id: \"usr_1\"){... on User{email}}}",
        "{n: node(id: \"key_1\"){... on Named{... on User{email}}}}",
        "query($id: ID!){node(id: $id){... on User{email}}}",
        "query($d: ID = \"usr_1\"){node(id: $d){... on User{email}}}",
    ] {
        may(&[], source, r#"{"id": "usr_1"}"#, &[]);
    }
    let line = ["node.email needs USER_READ for User.email"];
    for (source, json) in [
        ("{node(id: \"usr_2\"){... on User{email}}}", "{}"),
        ("{node(id: \"USR_1\"){... on User{email}}}", "{}"),
        ("{node(id: \" usr_1\"){... on User{email}}}", "{}"),
        ("{node(id: [\"usr_1\"]){... on User{email}}}", "{}"),
        ("{node(id: usr_1){... on User{email}}}", "{}"),
        ("{node(id: null){... on User{email}}}", "{}"),
        ("{node{... on User{email}}}", "{}"),
        ("{node(ID: \"usr_1\"){... on User{email}}}", "{}"),
        ("{node(id: \"usr_2\", id: \"usr_1\"){... on User{email}}}", "{}"),
        ("{node(id: \"usr_1\", id: \"usr_2\"){... on User{email}}}", "{}"),
        ("query($id: ID!){node(id: $id){... on User{email}}}", "{}"),
        ("query($id: ID!){node(id: $id){... on User{email}}}", r#"{"id": "usr_2"}"#),
        ("query($id: ID!){node(id: $id){... on User{email}}}", r#"{"id": ["usr_1"]}"#),
        ("query($id: ID = \"usr_1\"){node(id: $id){... on User{email}}}", r#"{"id": "usr_2"}"#),
        ("query($id: ID = \"usr_1\"){node(id: $id){... on User{email}}}", r#"{"id": null}"#),
    ] {
        may(&[], source, json, &line);
    }
    // Objects below the caller do not count as the caller, even if one of them is the caller again.
    may(
        &[],
        "{viewer{actor{... on User{manager{email} lastKey{id name owner{email}} roles{holders{email}}}}}}",
        "{}",
        &[
            "viewer.actor.manager.email needs USER_READ for User.email",
            "viewer.actor.lastKey needs API_KEY_MANAGE for User.lastKey",
            "viewer.actor.lastKey.owner.email needs USER_READ for User.email",
            "viewer.actor.roles.holders needs ROLE_MANAGE for Role.holders",
            "viewer.actor.roles.holders.email needs USER_READ for User.email",
        ],
    );
    // A policy applies to one type only, not to fields of the same name on other types.
    may(
        &[Permission::ComplianceRead],
        "subscription{findings{actor{... on User{email}}}}",
        "{}",
        &["findings.actor.email needs USER_READ for User.email"],
    );
    may(
        &[],
        "{actor: node(id: 1){... on User{email}} viewer: node(id: 1){... on User{email}}}",
        "{}",
        &[
            "actor.email needs USER_READ for User.email",
            "viewer.email needs USER_READ for User.email",
        ],
    );
    anybody_may(
        "{node(id: \"usr_1\"){... on User{email}}}",
        &["node needs authentication for Query.node"],
    );
}

#[test]
fn what_the_schema_does_not_know_is_left_to_validation() {
    for source in [
        "{nothing{secrets{name}}}",
        "{...Nowhere}",
        "{... on Nothing{secrets{name}}}",
        "{ping{secrets{name}}}",
        "{__typename{secrets{name}}}",
        "{viewer{actor{email}}}",
    ] {
        may(&[], source, "{}", &[]);
    }
}

#[test]
fn the_list_is_in_document_order_and_ends() {
    let aliases = (0..60).fold(String::new(), |mut all, index| {
        write!(all, "s{index}: secrets{{name}} ").unwrap();
        all
    });
    let listed = forbidden(
        &format!("{{...F}} fragment F on Query{{{aliases}}}"),
        "{}",
        Caller::Authenticated { permissions: PermissionSet::EMPTY, own_ids: &[] },
    );
    let paths: Vec<_> = listed.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let expected: Vec<_> = (0..MAX_FORBIDDEN_PATHS).map(|index| format!("s{index}")).collect();
    assert_eq!(paths, expected);
}

#[test]
fn locations_and_operation_kinds_are_kept() {
    let document =
        ParsedDocument::of(parse_query("{\n  ping\n  x: secrets { name }\n}").unwrap()).unwrap();
    let mut variables = Variables::default();
    let operation = document.operation(None, &mut variables).unwrap();
    let found = index().forbidden(operation, Caller::Anonymous);
    assert_eq!((found[0].location.line, found[0].location.column), (3, 3));
}

/// A small random number generator (xorshift) with the same sequence on every run.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

#[test]
fn no_mutation_of_a_document_panics_or_takes_long() {
    const SEEDS: [&str; 5] = [
        "query Main($a: Int = 3, $b: Boolean! = true, $c: [[ID!]!]){assets(first: $a){edges{node{id ...F @skip(if: $b)}}}} fragment F on Asset{tags{name} findings(first: 2){edges{node{actor{... on User{email}}}}}}",
        "{viewer{actor{... on User{name email roles{key}}}} node(id: \"usr_1\"){id ... on Named{name}} __schema{types{fields{args{name}}}}}",
        "mutation{a: login(email: \"x\\\"y\\u0041\"){accessToken} ...G} fragment G on Mutation{createAsset{id}} fragment H on Mutation{...G ...G}",
        "query A{ping(filter: {a: [1, 2.5e3, -1, null, true, RED, $v, \"\"\"block \\\"\"\" string\"\"\"]})} # comment {[(\nsubscription B{findings{id}}",
        "{...A ...A} fragment A on Query{...B ...B} fragment B on Query{...C ...C} fragment C on Query{health{up asset{dependsOn(first: 100){dependsOn{id}}}}}",
    ];
    const PIECES: [&str; 40] = [
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "\"",
        "\"\"\"",
        "\\",
        "#",
        "\n",
        ",",
        "...",
        "... on ",
        "$a",
        ":",
        "=",
        "!",
        "@skip(if: true)",
        "@include(if: $b)",
        "fragment A on Query{...A}",
        "query X{ping}",
        "{{{{{{{{",
        "[[[[[[[[",
        "first: 2147483647",
        "-",
        "1e9",
        "\u{feff}",
        "\0",
        "é",
        "...F",
        "...A",
        "mutation",
        "on",
        "User",
        "secrets{name}",
        "__typename",
        "node(id: 1)",
        "id",
        "&",
    ];
    let index = index();
    let mut rng = Rng(0x9E37_79B9_7F4A_7C15);
    let (mut parsed, mut within, mut slowest) = (0, 0, Duration::ZERO);
    for round in 0..4_000 {
        let mut source = SEEDS[round % SEEDS.len()].to_owned();
        for _ in 0..=rng.below(if round % 3 == 0 { 12 } else { 2 }) {
            let boundary = |source: &str, at: usize| {
                (0..=at).rev().find(|at| source.is_char_boundary(*at)).unwrap()
            };
            let from = boundary(&source, rng.below(source.len() + 1));
            let to = boundary(&source, (from + rng.below(24)).min(source.len())).max(from);
            match rng.below(4) {
                0 => source.replace_range(from..to, ""),
                1 => source.insert_str(from, PIECES[rng.below(PIECES.len())]),
                2 => {
                    let copy = source[from..to].to_owned();
                    let at = boundary(&source, rng.below(source.len() + 1));
                    source.insert_str(at, &copy.repeat(1 + rng.below(8)));
                }
                _ => {
                    source.insert_str(from, &PIECES[rng.below(PIECES.len())].repeat(rng.below(90)));
                }
            }
        }
        if lexer::source(&source).is_err() {
            continue;
        }
        let Ok(document) = parse_query(&source) else { continue };
        parsed += 1;
        let start = Instant::now();
        let Ok(document) = ParsedDocument::of(document) else { continue };
        let mut variables: Variables = serde_json::from_str(r#"{"a": 100}"#).unwrap();
        for name in [None, Some("Main"), Some("A"), Some("B")] {
            let Ok(operation) = document.operation(name, &mut variables) else { continue };
            let cost = index.cost(operation, None);
            let permissions = BuiltinRole::Viewer.permissions();
            let known =
                index.forbidden(operation, Caller::Authenticated { permissions, own_ids: &own() });
            let anonymous = index.forbidden(operation, Caller::Anonymous);
            assert!(known.len() <= MAX_FORBIDDEN_PATHS && anonymous.len() <= MAX_FORBIDDEN_PATHS);
            let everything = Caller::Authenticated {
                permissions: Permission::ALL.iter().copied().collect(),
                own_ids: &[],
            };
            assert_eq!(index.forbidden(operation, everything), []);
            within += usize::from(cost.is_ok());
        }
        slowest = slowest.max(start.elapsed());
    }
    assert!(parsed > 400 && within > 300, "{parsed} parsed, {within} within limits");
    // This is not a benchmark: an exponential walk would take minutes.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}
