use std::fmt::Write;

use async_graphql::{Variables, parser::parse_query};

use super::*;
use crate::document::{
    error::Code,
    expansion::ParsedDocument,
    index::tests::{POLICIES, SDL, index},
    key_order::KeyOrder,
    lexer,
};

fn cost_with(source: &str, json: &str) -> Result<Cost, DocumentError> {
    lexer::source(source)?;
    let document = ParsedDocument::of(parse_query(source).unwrap())?;
    let mut variables: Variables = serde_json::from_str(json).unwrap();
    let name = source.contains("query Main").then_some("Main");
    let (index, operation) = (index(), document.operation(name, &mut variables)?);
    let merged = index.merge(operation, &KeyOrder::of(operation))?;
    index.cost(operation, merged.as_ref().and_then(|merged| merged.merged_operation(operation)))
}

fn cost(source: &str) -> Result<Cost, DocumentError> {
    cost_with(source, "{}")
}

#[track_caller]
fn refused(source: &str, code: Code, expected: &str) {
    let error = cost(source).expect_err("must be refused");
    assert_eq!(error.code, code, "{}", error.message);
    assert!(error.message.contains(expected), "{}", error.message);
}

#[track_caller]
fn objects(source: &str, json: &str, expected: u64) {
    let cost = cost_with(source, json);
    assert_eq!(
        cost.map(|cost| cost.objects).map_err(|r| r.message),
        Ok(expected),
        "{source} {json}"
    );
}

#[test]
fn objects_count_and_lists_multiply() {
    for (source, expected) in [
        ("{viewer{__typename}}", 1),
        ("{ping}", 0),
        ("{asset{codes}}", 1),
        ("{asset{tags{name}}}", 11),
        ("{assets{totalCount}}", 1 + 100),
        ("{assets{totalCount a: totalCount totalCount}}", 1 + 200),
        ("{assets{nodes{id}}}", 51),
        ("{assets(first: 10){nodes{id}}}", 11),
        ("{assets(first: 10){edges{node{id} cursor} pageInfo{hasNextPage}}}", 22),
        ("{assets(last: 10){nodes{id}}}", 11),
        ("{assets(first: 10, last: 20){nodes{id}}}", 21),
        ("{assets(first: null){nodes{id}}}", 51),
        ("{assets(first: \"10\"){nodes{id}}}", 51),
        ("{actors{nodes{__typename}}}", 21),
        ("{asset{dependsOn{id}}}", 101),
        ("{asset{dependsOn(first: 3){id}}}", 4),
        ("{asset{dependsOn(first: 3, depth: 3){id}}}", 4 + 20),
        ("{assets(first: 10){nodes{dependsOn(first: 1, depth: 10){id}}}}", 1 + 10 + 10 + 10 * 405),
        ("{asset{history{id}}}", 21),
        // One asset, its blast radius, and the nodes of `first`.
        ("{asset{blastRadius{assets nodes{id}}}}", 102 + 405),
        ("{asset{blastRadius(first: 3){nodes{id tags{name}}}}}", 35 + 405),
        ("{assets(first: 10){nodes{blastRadius(first: 0){nodes{id}}}}}", 31 + 10 * 405),
        ("{asset{history(last: 2){id}}}", 3),
        ("{actors(first: 1, filter: {a: 1}){nodes{__typename}}}", 2),
        ("{actors(first: 1, filter: {text: null}){nodes{__typename}}}", 2),
        ("{actors(first: 1, filter: {text: \"x\"}){nodes{__typename}}}", 2_502),
        // One asset, a connection, ten findings, ten assets, ten connections, a hundred findings twice.
        (
            "{asset{findings(first: 10){edges{node{asset{findings(first: 10){edges{node{id}}}}}}}}}",
            242,
        ),
        ("{assets(first: 10){...F}} fragment F on AssetConnection{...{nodes{id}}}", 11),
        ("{assets(first: 10){... on AssetConnection{... on Node{nodes{id}}}}}", 11),
        ("{a: asset{id} b: asset{id} asset{id} asset{id}}", 3),
        ("{node(id: 1){... on Asset{tags{name}} ... on User{manager{name}}}}", 12),
        ("mutation{createAsset{tags{name}}}", 11),
        ("subscription{findings{asset{tags{name}}}}", 12),
        // The resolver rejects a `first` below zero or above the limit.
        ("{assets(first: -5){nodes{id}}}", 2),
        ("{assets(first: 0){nodes{id}}}", 2),
        ("{assets(first: 2147483647){nodes{id}}}", 1_001),
        ("{assets(first: 1e99){nodes{id}}}", 1_001),
        ("{assets(first: -1e99){nodes{id}}}", 2),
        // Unknown names, which validation rejects.
        ("{nothing{assets(first: 100){nodes{id}}}}", 0),
        ("{asset{... on Nothing{tags{name}}}}", 1),
        ("{...Nowhere}", 0),
        ("{ping{asset{id}}}", 0),
    ] {
        objects(source, "{}", expected);
    }
}

#[test]
fn variables_and_conditions_decide_what_counts() {
    let source =
        "query($n: Int = 5, $s: Boolean = false){assets(first: $n){nodes @skip(if: $s){id}}}";
    for (json, expected) in [
        ("{}", 6),
        (r#"{"n": 7}"#, 8),
        (r#"{"n": null}"#, 51),
        (r#"{"n": "7"}"#, 51),
        (r#"{"n": [7]}"#, 51),
        (r#"{"s": true}"#, 1),
        (r#"{"s": null}"#, 6),
        (r#"{"s": "true"}"#, 6),
    ] {
        objects(source, json, expected);
    }
    objects("query($n: Int){assets(first: $n){nodes{id}}}", "{}", 51);
    let whole = "query($f: Filter){actors(first: 1, filter: $f){nodes{__typename}}}";
    let text = "query($t: String){actors(first: 1, filter: {text: $t}){nodes{__typename}}}";
    for (source, json, expected) in [
        (whole, "{}", 2),
        (whole, r#"{"f": {"a": 1}}"#, 2),
        (whole, r#"{"f": {"text": null}}"#, 2),
        (whole, r#"{"f": {"text": "x"}}"#, 2_502),
        (text, r#"{"t": null}"#, 2),
        (text, r#"{"t": "x"}"#, 2_502),
    ] {
        objects(source, json, expected);
    }
    objects("query A{assets(first: 100){nodes{id}}} query Main{asset{id}}", "{}", 1);
}

#[test]
fn the_cost_limit_holds_at_n_and_not_at_n_plus_1() {
    // 1 + 99 + 99 × (1 + 99) = 10,000
    let at = "{assets(first: 99){nodes{findings(first: 99){edges{__typename}}}}}";
    assert_eq!(cost(at).unwrap().objects, MAX_OBJECTS);
    let over = at.replacen('{', "{asset{id} ", 1);
    refused(
        &over,
        Code::QueryTooComplex,
        "this query has a cost of 10,001, the limit is 10,000; `FindingConnection.edges` costs most, 9,801: request fewer rows with `first`",
    );
    let nested = "{asset{dependsOn(first:2147483647){dependsOn(first:2147483647){dependsOn(first:2147483647){dependsOn(first:2147483647){dependsOn(first:2147483647){dependsOn(first:2147483647){dependsOn(first:2147483647){id}}}}}}}}}";
    refused(nested, Code::QueryTooComplex, "18,446,744,073,709,551,615");
}

#[test]
fn the_values_of_a_response_weigh_only_up_to_a_limit() {
    let tags = |first: usize| {
        format!("{{assets(first: {first}){{nodes{{id tags{{a: name b: name name}}}}}}}}")
    };
    assert_eq!(cost(&tags(83)).unwrap().weight, 83 * (1 + 10 * 300));
    refused(
        &tags(84),
        Code::QueryTooComplex,
        "the values of this query weigh 252,084, the limit is 250,000; `Tag.name` costs most, 84,000: request fewer rows",
    );
    assert_eq!(cost("{ping}").unwrap().weight, 20, "a value of the type JSON");
}

#[test]
fn a_field_that_is_selected_twice_counts_once() {
    let once = cost("{assets{totalCount nodes{tags{name}}}}").unwrap();
    let twice = "{...F assets{nodes{...G tags{name}}} assets{...{totalCount nodes{id @skip(if: true)}}}}
        fragment F on Query{assets{totalCount nodes{...G}}} fragment G on Asset{tags{name} ... on Node{tags: tags{name}}}";
    let twice = cost(&twice.replace("... on Node{tags: tags{name}}", "...{tags{name}}")).unwrap();
    assert_eq!((twice.objects, twice.weight), (once.objects, once.weight));
    assert!(twice.fields > once.fields, "the limits of the document itself still apply");
}

#[test]
fn arguments_count_as_often_as_their_field_runs() {
    let read = |source: &str, json: &str| cost_with(source, json).map(|cost| cost.arguments);
    assert_eq!(read("{ping(filter: 12345678)}", "{}"), Ok(8));
    assert_eq!(
        read("{assets(first: 10){nodes{findings(first: 12345678){pageInfo{hasNextPage}}}}}", "{}"),
        Ok(82)
    );
    let nested =
        "query($s: String){assets(first: 10){nodes{findings(after: $s){pageInfo{hasNextPage}}}}}";
    assert_eq!(read(nested, r#"{"s": "x"}"#), Ok(22));
    let long = |bytes: usize| format!(r#"{{"s": "{}"}}"#, "x".repeat(bytes));
    // The literal `10` counts once; `$s` and the quoted string count ten times.
    let most = 1024 * 1024 / 10 - 4;
    assert_eq!(read(nested, &long(most)).unwrap(), 1_048_572);
    let error = read(nested, &long(most + 1)).unwrap_err();
    assert!(error.message.contains("passes 1,048,582 bytes of arguments, the limit is 1,048,576"));
    let wrapped = nested.replace("after: $s", "after: [{a: $s}]");
    assert!(read(&wrapped, &long(most)).is_err());
    assert!(read("query($s: String){ping(filter: $s)}", &long(250_000)).is_ok());
    let default = format!(
        "query($s: String = \"{}\"){{...F}} fragment F on Query{{{}}}",
        "x".repeat(9_000),
        (0..15).fold(String::new(), |all, index| format!("{all} a{index}: assets{{...G}}"))
    );
    let default = default
        + "fragment G on AssetConnection{nodes{findings(after: $s){pageInfo{hasNextPage}}}}";
    assert!(read(&default, "{}").is_err());
}

#[test]
fn each_other_limit_holds_at_n_and_not_at_n_plus_1() {
    let deep = |depth: usize| {
        format!(
            "{{asset{{{}id{}}}}}",
            "owner{manager{".repeat((depth - 2) / 2),
            "}}".repeat((depth - 2) / 2)
        )
    };
    assert_eq!(cost(&deep(12)).unwrap().depth, MAX_DEPTH);
    let deeper = deep(12).replace("id", "lastKey{id}");
    refused(&deeper, Code::QueryTooComplex, "13 deep, the limit is 12");
    let unknown = format!("{}{}", "{a".repeat(13), "}".repeat(13));
    refused(&unknown, Code::QueryTooComplex, "13 deep");
    let typename = format!("{}{}", "{__typename".repeat(13), "}".repeat(13));
    refused(&typename, Code::QueryTooComplex, "13 deep");

    let fields = |count: usize| format!("{{asset{{{}}}}}", "id ".repeat(count - 1));
    assert_eq!(cost(&fields(1_000)).unwrap().fields, MAX_FIELDS);
    refused(&fields(1_001), Code::QueryTooComplex, "selects 1,001 fields, the limit is 1,000");
    let spread = |times: usize| {
        format!(
            "{{asset{{{}}}}} fragment F on Asset{{{}}}",
            "...F ".repeat(times),
            "id ".repeat(111)
        )
    };
    assert_eq!(cost(&spread(9)).unwrap().fields, MAX_FIELDS);
    refused(&spread(10), Code::QueryTooComplex, "1,111 fields");

    let aliases = |count: usize| {
        let aliases = (0..count).fold(String::new(), |mut all, index| {
            write!(all, "a{index}: id ").unwrap();
            all
        });
        format!("{{asset{{{aliases}}}}}")
    };
    assert_eq!(cost(&aliases(30)).unwrap().aliases, MAX_ALIASES);
    refused(&aliases(31), Code::QueryTooComplex, "31 aliases, the limit is 30");
    let hidden = "{asset{...F ...F ...F ...F @skip(if: true)}} fragment F on Asset{".to_owned()
        + &"id: id ".repeat(10)
        + "}";
    assert_eq!(cost(&hidden).unwrap().aliases, MAX_ALIASES);
    refused(&hidden.replace("true", "false"), Code::QueryTooComplex, "40 aliases");

    assert!(cost(&format!("{{{}}}", "ping ".repeat(20))).is_ok());
    refused(&format!("{{{}}}", "ping ".repeat(21)), Code::QueryTooComplex, "21 root fields");
    let hidden = "{...F ...F ...F} fragment F on Query{".to_owned() + &"ping ".repeat(7) + "}";
    refused(&hidden, Code::QueryTooComplex, "21 root fields, the limit is 20");
}

#[test]
fn one_authentication_a_document_and_nothing_beside_it() {
    for allowed in [
        "mutation{login{accessToken}}",
        "mutation{a: login{accessToken} __typename}",
        "mutation{refreshSession{accessToken} changePassword @skip(if: true)}",
        "mutation{...F} fragment F on Mutation{switchOrganization{accessToken}}",
        "mutation{logout createAsset{id} saveSecret{name}}",
        "query{login changePassword}",
    ] {
        assert!(cost(allowed).is_ok(), "{allowed}");
    }
    for refused_source in [
        "mutation{login{accessToken} login{accessToken}}",
        "mutation{a: login{accessToken} b: login{accessToken}}",
        "mutation{login{accessToken} refreshSession{accessToken}}",
        "mutation{login{accessToken} logout}",
        "mutation{logout a: changePassword}",
        "mutation{...F ...F} fragment F on Mutation{login{accessToken}}",
        "mutation{...F changePassword} fragment F on Mutation{...G} fragment G on Mutation{login{accessToken}}",
        "mutation{... on Mutation{login{accessToken}} ...{createAsset{id}}}",
        "mutation{login{accessToken} changePassword @skip(if: false)}",
        "mutation($x: Boolean = true){login{accessToken} changePassword @include(if: $x)}",
        "mutation{login{accessToken} nothing}",
    ] {
        refused(refused_source, Code::Validation, "send it as the only root field");
    }
}

/// Introspection query of graphql-js 16, with nine levels of `ofType`.
const INTROSPECTION_QUERY: &str = "query IntrospectionQuery{__schema{description queryType{name kind} mutationType{name kind} subscriptionType{name kind} types{...FullType} directives{name description isRepeatable locations args(includeDeprecated: true){...InputValue}}}}
fragment FullType on __Type{kind name description specifiedByURL isOneOf fields(includeDeprecated: true){name description args(includeDeprecated: true){...InputValue} type{...TypeRef} isDeprecated deprecationReason} inputFields(includeDeprecated: true){...InputValue} interfaces{...TypeRef} enumValues(includeDeprecated: true){name description isDeprecated deprecationReason} possibleTypes{...TypeRef}}
fragment InputValue on __InputValue{name description type{...TypeRef} defaultValue isDeprecated deprecationReason}
fragment TypeRef on __Type{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name ofType{kind name}}}}}}}}}}";

#[test]
fn the_standard_introspection_passes_with_room_and_cycles_do_not() {
    let standard = cost(INTROSPECTION_QUERY).unwrap();
    assert!(standard.introspection * 2 <= MAX_INTROSPECTION, "{standard:?}");
    assert!(standard.depth <= MAX_INTROSPECTION_DEPTH - 4, "{standard:?}");
    assert_eq!(standard.objects, 0);

    let chain = |depth: usize| {
        format!("{{__type(name: \"A\"){}{}}}", "{ofType".repeat(depth - 1), "}".repeat(depth - 1))
    };
    assert!(cost(&chain(20)).is_ok());
    refused(&chain(21), Code::QueryTooComplex, "21 deep, the limit is 20");
    for cycle in [
        "{__schema{types{fields{type{fields{type{fields{name}}}}}}}}",
        "{__schema{types{possibleTypes{interfaces{possibleTypes{name}}}}}}",
        "{__schema{types{fields{args{type{inputFields{name}}}}}}}",
        "{__schema{types{...F}}} fragment F on __Type{fields{type{...G}}} fragment G on __Type{inputFields{...{type{enumValues{name}}}}}",
        "query($x: Boolean = true){__type(name: \"A\"){fields{args{type{fields @include(if: $x){name}}}}}}",
    ] {
        refused(cycle, Code::QueryTooComplex, "introspection nests 3 lists, the limit is 2");
    }
    let wide = format!("{{__schema{{types{{fields{{args{{{}}}}}}}}}}}", "name ".repeat(150));
    refused(&wide, Code::QueryTooComplex, "introspects about 4");
    assert!(cost("{__schema{types{fields{args{type{fields @skip(if: true){name}}}}}}}").is_ok());
    // Introspection fields below the root are invalid, but still counted.
    refused(
        &format!("{{asset{{__schema{{{}}}}}}}", "types{fields{args{type{args{name}}}}}"),
        Code::QueryTooComplex,
        "nests 3 lists",
    );
}

#[test]
fn a_connection_s_fragments_share_its_page() {
    let sdl = SDL.replace(
        "pageInfo: PageInfo! totalCount",
        "pageInfo: PageInfo! extra: [Asset!]! totalCount",
    );
    let index = SchemaIndex::read(&sdl, POLICIES).unwrap();
    let document =
        parse_query("{assets(first: 3){extra{id} nodes{id} ...{edges{cursor}}}}").unwrap();
    let document = ParsedDocument::of(document).unwrap();
    let mut variables = Variables::default();
    let cost = index.cost(document.operation(None, &mut variables).unwrap(), None).unwrap();
    assert_eq!(cost.objects, 1 + 10 + 3 + 3);
}
