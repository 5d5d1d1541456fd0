//! The 61 audits of npm `graphql-http`, by `node`: `GRAPHQL_HTTP=<folder with node_modules> cargo test -- --ignored audits`.

use tokio::process::Command;

use crate::scratch::Edge;

const AUDIT: &str = "
const { auditServer } = require('graphql-http');
auditServer({ url: process.argv[1] }).then((results) => {
  for (const { id, name, status, reason } of results)
    if (status !== 'ok') console.log(status, id, name, reason);
  console.log('ok', results.filter((result) => result.status === 'ok').length, 'of', results.length);
});";

#[tokio::test]
#[ignore = "needs node and the npm package graphql-http"]
async fn all_audits_of_graphql_http_pass() {
    let edge = Edge::new().await;
    let folder = std::env::var("GRAPHQL_HTTP").expect("GRAPHQL_HTTP names a folder");
    let url = format!("http://{}/graphql", edge.address);
    let node = Command::new("node").args(["-e", AUDIT, &url]).current_dir(folder).output();
    let output = node.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.trim(), "ok 61 of 61", "{}", String::from_utf8_lossy(&output.stderr));
}
