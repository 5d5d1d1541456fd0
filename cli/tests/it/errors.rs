//! Two thousand damaged requests: none causes an internal error, none reveals our implementation.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    server::TestDeployment,
    team::Team,
};

const REQUESTS: usize = 2_000;

/// Xorshift generator, seeded so that every run sends the same requests.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// Fragments inserted into documents and values.
const FRAGMENTS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ":",
    "!",
    "$",
    "@",
    "...",
    "|",
    "&",
    "=",
    "\\",
    "\"",
    "\"\"\"",
    "#",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "2147483648",
    "99999999999999999999",
    "on",
    "fragment",
    "query",
    "mutation",
    "subscription",
    "__typename",
    "__schema",
    "Asset",
    "\\u0000",
    "\\ud800",
    "\u{202e}",
    "\u{1f980}",
    "é",
    "'",
    "';--",
    "%",
    "{{7*7}}",
    "../..",
    "\u{0}",
    "first",
    "after",
    "node",
    "HOST",
    " ",
    "",
];

fn seeds(team: &Team, asset: &str) -> Vec<Value> {
    let create = "mutation($input: CreateAssetInput!) { createAsset(input: $input) { id name attributes owner { name } } }";
    let update = "mutation($id: ID!, $input: UpdateAssetInput!) { updateAsset(id: $id, input: $input) { id updatedAt } }";
    let list = "query($first: Int, $after: String, $filter: AssetFilter, $order: AssetOrder) {
        assets(first: $first, after: $after, filter: $filter, orderBy: $order) { totalCount pageInfo { endCursor hasNextPage } edges { cursor node { ...A } } } }
        fragment A on Asset { id code name type lifecycleState environment location attributes customFields owner { id name email } }";
    vec![
        json!({ "query": list, "variables": { "first": 5, "after": null, "filter": { "type": ["HOST"], "text": "a", "owner": team.owner.id }, "order": { "field": "NAME", "direction": "DESC" } } }),
        json!({ "query": create, "variables": { "input": { "name": "A", "type": "HOST", "externalId": "x", "attributes": { "os_name": "linux", "open_ports": [1, "2"] }, "customFields": { "k": { "v": true } }, "owner": team.owner.id } } }),
        json!({ "query": update, "variables": { "id": asset, "input": { "name": "B", "location": null, "attributes": { "os_name": null }, "description": "d" } } }),
        json!({ "query": "query($id: ID!) { node(id: $id) { __typename id ... on Asset { name } ... on User { email roles { key permissions } } } viewer { actor { ... on User { id } } organization { slug } sessions { id current sourceIp } } }", "variables": { "id": asset } }),
        json!({ "query": "query($f: AuditFilter) { auditEntries(first: 3, filter: $f) { nodes { id at action entityId changedPaths before after actor { __typename ... on User { name } } } } }", "variables": { "f": { "entityType": "asset", "entityId": asset, "actorId": team.owner.id, "action": "asset.created" } } }),
        json!({ "query": "{ users(first: 2) { nodes { id name email roles { key } } } roles { key name builtin } apiKeys { name prefix allowedCidrs createdBy { name } } }" }),
        json!({ "query": "mutation($s: LifecycleState!, $id: ID!) { setAssetLifecycle(id: $id, state: $s) { lifecycleState } }", "variables": { "id": asset, "s": "MAINTENANCE" } }),
        json!({ "query": "mutation($p: [Permission!]!) { saveRole(key: \"k\", name: \"n\", permissions: $p) { id } }", "variables": { "p": ["ASSET_READ"] } }),
        json!({ "query": "mutation($i: CreateApiKeyInput!) { createApiKey(input: $i) { apiKey { id } } }", "variables": { "i": { "name": "k", "permissions": ["ASSET_READ"], "expiresAt": "2027-01-01T00:00:00Z", "allowedCidrs": ["10.0.0.0/8"] } } }),
        json!({ "query": "query Named { __type(name: \"Asset\") { name fields { name args { name } } } }", "operationName": "Named", "extensions": {} }),
    ]
}

/// Damages a text: truncates, doubles, swaps or inserts parts.
fn damaged(text: &str, rng: &mut Rng) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for _ in 0..=rng.below(3) {
        let at = rng.below(letters.len() + 1);
        let end = (at + 1 + rng.below(8)).min(letters.len());
        match rng.below(4) {
            0 => drop(letters.drain(at.min(end)..end)),
            1 => {
                let again: Vec<_> = letters[at.min(end)..end].to_vec();
                letters.splice(at..at, again);
            }
            2 if letters.len() > 1 => {
                let (a, b) = (rng.below(letters.len()), rng.below(letters.len()));
                letters.swap(a, b);
            }
            _ => drop(letters.splice(at..at, rng.pick(FRAGMENTS).chars())),
        }
    }
    letters.into_iter().collect()
}

/// Replaces one value at a random depth.
fn swap_one(value: &mut Value, rng: &mut Rng) {
    match value {
        Value::Object(fields) if !fields.is_empty() && rng.below(4) > 0 => {
            let index = rng.below(fields.len());
            swap_one(fields.values_mut().nth(index).unwrap(), rng);
        }
        Value::Array(items) if !items.is_empty() && rng.below(4) > 0 => {
            let index = rng.below(items.len());
            swap_one(&mut items[index], rng);
        }
        Value::String(text) if rng.below(2) == 0 => *text = damaged(text, rng),
        other => {
            *other = match rng.below(8) {
                0 => Value::Null,
                1 => json!(-1),
                2 => json!(1e300),
                3 => json!(rng.pick(FRAGMENTS)),
                4 => json!([]),
                5 => json!({ "a": [{}] }),
                6 => json!("x".repeat(300)),
                _ => json!(true),
            };
        }
    }
}

fn request(seeds: &[Value], rng: &mut Rng) -> Vec<u8> {
    let mut body = seeds[rng.below(seeds.len())].clone();
    match rng.below(10) {
        0 | 1 => damaged(&body.to_string(), rng).into_bytes(),
        2 => {
            let mut bytes = body.to_string().into_bytes();
            let at = rng.below(bytes.len());
            bytes[at] = u8::try_from(rng.below(256)).unwrap();
            bytes
        }
        3..=5 if body.get("variables").is_some() => {
            swap_one(&mut body["variables"], rng);
            body.to_string().into_bytes()
        }
        _ => {
            body["query"] = damaged(body["query"].as_str().unwrap(), rng).into();
            body.to_string().into_bytes()
        }
    }
}

/// Asserts that the response reveals no internals, unless the request contained them.
fn assert_says_nothing(sent: &[u8], answer: &Answer) {
    let (lower, sent) = (answer.text.to_lowercase(), String::from_utf8_lossy(sent).to_lowercase());
    for word in [
        "panicked",
        "postgres",
        "src/",
        ".rs:",
        "tokio",
        "sqlstate",
        "relation \"",
        "stack backtrace",
    ] {
        assert!(!lower.contains(word), "{word}: {sent} {}", answer.text);
    }
    // Wording of serde; our own messages have a comma after the line number.
    let is_serde = lower.match_indices("at line ").any(|(at, _)| {
        let rest = lower[at + 8..].trim_start_matches(|code: char| code.is_ascii_digit());
        rest.starts_with(" column")
    });
    assert!(!is_serde, "{sent} {}", answer.text);
    assert!(!answer.text.contains("SELECT "), "{sent} {}", answer.text);
}

#[tokio::test]
async fn two_thousand_damaged_requests_meet_no_defect() {
    let deployment = TestDeployment::new().await;
    let api = deployment.api().await;
    let team = Team::new(&deployment, &api).await;
    let asset = team.asset("Seed", "ACTIVE").await;
    let seeds = Arc::new(seeds(&team, &asset));
    for (index, seed) in seeds.iter().enumerate() {
        let answer = Answer::of(team.owner.client.post().json(seed)).await;
        assert_eq!(answer.codes(), Vec::<&str>::new(), "seed {index}: {}", answer.text);
    }
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4_u64 {
        let (client, seeds): (Client, _) = (team.owner.client.clone(), Arc::clone(&seeds));
        workers.spawn(async move {
            let mut rng = Rng(0x9e37_79b9_7f4a_7c15 ^ (worker + 1));
            let mut refused = 0;
            for _ in 0..REQUESTS / 4 {
                let body = request(&seeds, &mut rng);
                let post = client.post().header("content-type", "application/json");
                let answer = Answer::of(post.body(body.clone())).await;
                answer.assert_well_formed();
                let sent = String::from_utf8_lossy(&body);
                assert!(!answer.codes().contains(&"INTERNAL"), "{sent} {}", answer.text);
                assert!(answer.status < 500, "{sent} {}", answer.text);
                assert_says_nothing(&body, &answer);
                refused += usize::from(!answer.errors().is_empty());
            }
            refused
        });
    }
    let refused: usize = workers.join_all().await.into_iter().sum();
    eprintln!("{refused} of {REQUESTS} damaged requests were refused");
    assert!(refused > REQUESTS / 2, "{refused}: the damage does no harm");
    let answer = team.owner.client.execute("{ viewer { permissions } }").await;
    assert_eq!(answer.codes(), Vec::<&str>::new(), "{}", answer.text);
    let log = api.log();
    let defects: Vec<_> = log.lines().filter(|line| line.contains("\"ERROR\"")).collect();
    assert_eq!(defects, Vec::<&str>::new());
}
