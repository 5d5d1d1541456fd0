//! Tests of tags, and of their removal from assets.

use async_graphql::MaybeUndefined;
use domain::{
    Error, Origin,
    access::audit::{AuditEntry, AuditQuery},
    base::page::PageRequest,
    entity::TagId,
    inventory::{
        asset::{Asset, UpdateAssetInput},
        tag::Tag,
    },
};
use serde_json::json;

use crate::harness::{TestOrg, at, host};

/// Returns a new organization with one tag.
async fn tagged_house(name: &str) -> (TestOrg, TagId) {
    let test = TestOrg::new().await;
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let tag = Tag::create(&tx, name, None, at(0)).await.unwrap().id;
    tx.commit().await.unwrap();
    (test, tag)
}

#[tokio::test]
async fn a_tag_that_goes_stands_in_the_history_of_each_asset() {
    let (test, edge) = tagged_house("edge").await;
    let (web, other) = (test.asset(host("web")).await, test.asset(host("other")).await);
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let vm = Tag::create(&tx, "vm", None, at(1)).await.unwrap().id;
    let patch =
        UpdateAssetInput { tags: MaybeUndefined::Value(vec![edge, vm]), ..Default::default() };
    Asset::update(&tx, web.id, &patch, at(1)).await.unwrap();
    Tag::delete(&tx, edge, at(2)).await.unwrap();
    let query = AuditQuery { entity_id: Some(web.id.uuid()), ..Default::default() };
    let page = PageRequest { size: 1, backward: false, after: None, before: None };
    let entry = AuditEntry::list(&tx, &query, &page).await.unwrap().rows.remove(0);
    assert_eq!(entry.action, "asset.updated");
    assert_eq!(entry.changed_paths, ["tags"]);
    assert_eq!(entry.before, Some(json!({ "tags": ["edge", "vm"] })));
    assert_eq!(entry.after, Some(json!({ "tags": ["vm"] })));
    assert_eq!(Asset::find(&tx, web.id).await.unwrap().unwrap().updated_at, at(2));
    assert_eq!(Asset::find(&tx, other.id).await.unwrap().unwrap(), other);
    assert_eq!(Tag::of_assets(&tx, &[web.id]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_tag_of_too_many_assets_stays() {
    let (test, tag) = tagged_house("everywhere").await;
    let template = test.asset(host("web")).await.id.uuid();
    let (org, tag_id) = (test.org.uuid(), tag.uuid());
    let many = format!(
        "INSERT INTO asset (org_id, id, code, name, type, lifecycle_state, environment, created_at, updated_at)
         SELECT org_id, gen_random_uuid(), 'X-' || n, name, type, lifecycle_state, environment, created_at, updated_at
         FROM asset, generate_series(1, 10000) AS n WHERE id = '{template}';
         INSERT INTO asset_tag SELECT org_id, id, '{tag_id}' FROM asset WHERE org_id = '{org}'"
    );
    test.db.superuser().await.batch_execute(&many).await.unwrap();
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let refused = Tag::delete(&tx, tag, at(1)).await.unwrap_err();
    assert!(matches!(&refused, Error::Conflict(reason) if reason.contains("10000")), "{refused}");
    tx.exec("DELETE FROM asset_tag WHERE asset_id = $1", &[&template]).await.unwrap();
    Tag::delete(&tx, tag, at(2)).await.unwrap();
    assert_eq!(Tag::find(&tx, tag).await.unwrap(), None);
}
