//! API keys of programs.

use std::net::IpAddr;

use chrono::TimeDelta;
use domain::{
    Actor, Id, Origin, Result, Viewer,
    access::{
        api_key::{ApiKey, NewApiKey},
        authorize,
        permission::{BuiltinRole, NOT_FOR_KEYS, Permission},
        user::User,
    },
    entity::ApiKeyId,
};

use crate::harness::{
    HOME, TestOrg, assert_bad_token, assert_not_found, at, faults, forbidden, organization, viewer,
};

fn new_key(permissions: &[Permission]) -> NewApiKey {
    NewApiKey {
        name: "nightly scan".into(),
        permissions: permissions.to_vec(),
        expires_at: at(0) + TimeDelta::days(30),
        allowed_cidrs: Vec::new(),
    }
}

/// Creates an organization and an admin who creates keys in it.
async fn setup() -> (TestOrg, Viewer) {
    let test = TestOrg::new().await;
    let root = test.person("root@x.com", &["admin"]).await;
    let root = viewer(test.org, root, BuiltinRole::Admin);
    (test, root)
}

async fn create(test: &TestOrg, maker: &Viewer, new: NewApiKey) -> Result<(ApiKey, String)> {
    let tx = test.db.auth(maker.origin(HOME, "req-1".into())).await.unwrap();
    let made = ApiKey::create(&tx, maker, new, at(0)).await?;
    tx.commit().await.unwrap();
    Ok(made)
}

async fn revoke(test: &TestOrg, viewer: &Viewer, id: ApiKeyId) -> Result<()> {
    let tx = test.db.auth(viewer.origin(HOME, "req-2".into())).await.unwrap();
    ApiKey::revoke(&tx, viewer, id, at(1)).await?;
    tx.commit().await
}

#[tokio::test]
async fn a_key_may_what_it_was_made_for_and_no_more() {
    let (test, root) = setup().await;
    let (key, full_key) =
        create(&test, &root, new_key(&[Permission::ComplianceRun])).await.unwrap();
    let program = test.viewer(&full_key, 1).await.unwrap();
    assert_eq!((program.actor, program.org), (Actor::ApiKey(key.id), test.org));
    assert_eq!(program.permissions.iter().collect::<Vec<_>>(), [Permission::ComplianceRun]);
    assert!(program.session.is_none());
    assert_eq!(test.audited("api_key.created by user").await, 1);
}

#[tokio::test]
async fn the_use_of_a_key_is_noted_to_the_minute() {
    let (test, root) = setup().await;
    let (_, full_key) = create(&test, &root, new_key(&[Permission::AssetRead])).await.unwrap();
    for (now, recorded) in [(10, 10), (60, 10), (71, 71)] {
        test.viewer(&full_key, now).await.unwrap();
        let tx = test.db.read(test.org).await.unwrap();
        assert_eq!(ApiKey::list(&tx).await.unwrap()[0].last_used_at, Some(at(recorded)));
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn an_expired_key_is_refused() {
    let (test, root) = setup().await;
    let (_, full_key) = create(&test, &root, new_key(&[Permission::AssetRead])).await.unwrap();
    test.viewer(&full_key, 30 * 86_400 - 1).await.unwrap();
    assert_bad_token(test.viewer(&full_key, 30 * 86_400).await);
}

#[tokio::test]
async fn a_revoked_key_is_refused_and_stays_revoked() {
    let (test, root) = setup().await;
    let (key, full_key) = create(&test, &root, new_key(&[Permission::AssetRead])).await.unwrap();
    test.viewer(&full_key, 0).await.unwrap();
    revoke(&test, &root, key.id).await.unwrap();
    assert_bad_token(test.viewer(&full_key, 2).await);
    revoke(&test, &root, key.id).await.unwrap();
    assert_eq!(test.audited("api_key.revoked by user").await, 1);
}

#[tokio::test]
async fn a_key_is_refused_from_where_it_may_not_be_used() {
    let (test, root) = setup().await;
    let new = NewApiKey {
        allowed_cidrs: vec!["10.0.0.0/8".into(), "2001:db8::/32".into(), "192.0.2.5".into()],
        ..new_key(&[Permission::AssetRead])
    };
    let (_, full_key) = create(&test, &root, new).await.unwrap();
    for (address, served) in [
        ("10.9.8.7", true),
        ("::ffff:10.9.8.7", true),
        ("2001:db8::1", true),
        ("192.0.2.5", true),
        ("192.0.2.6", false),
        ("11.0.0.1", false),
        ("2001:db9::1", false),
    ] {
        let address: IpAddr = address.parse().unwrap();
        let outcome = test.identity.authenticate(&full_key, address, at(1)).await;
        assert_eq!(outcome.is_ok(), served, "{address}");
    }
}

#[tokio::test]
async fn a_tampered_key_is_refused() {
    let (test, root) = setup().await;
    let (_, full_key) = create(&test, &root, new_key(&[Permission::AssetRead])).await.unwrap();
    let (_, other) = create(&test, &root, new_key(&[Permission::AssetRead])).await.unwrap();
    for index in 0..full_key.len() {
        let mut tampered = full_key.clone().into_bytes();
        tampered[index] = if tampered[index] == b'a' { b'b' } else { b'a' };
        assert_bad_token(test.viewer(std::str::from_utf8(&tampered).unwrap(), 1).await);
    }
    // A valid checksum does not make a wrong secret valid.
    let prefix = |full_key: &str| full_key.split('_').nth(1).unwrap().to_owned();
    let superuser = test.db.superuser().await;
    let sql = "UPDATE api_key SET secret_hash = '\\x00' WHERE prefix = $1";
    superuser.execute(sql, &[&prefix(&other)]).await.unwrap();
    assert_bad_token(test.viewer(&other, 1).await);
    test.viewer(&full_key, 1).await.unwrap();
}

#[tokio::test]
async fn nobody_makes_a_key_that_may_more_than_they() {
    let (test, root) = setup().await;
    let operator = Viewer { permissions: BuiltinRole::Operator.permissions(), ..root };
    let refusal = forbidden(create(&test, &operator, new_key(&[Permission::SecretManage])).await);
    assert!(refusal.ends_with("you lack SECRET_MANAGE"), "{refusal}");
}

#[tokio::test]
async fn no_key_manages_users_roles_keys_or_organizations() {
    let test = TestOrg::new().await;
    let owner = test.person("owner@x.com", &["owner"]).await;
    let owner = viewer(test.org, owner, BuiltinRole::Owner);
    for permission in NOT_FOR_KEYS.iter() {
        let new = new_key(&[Permission::AssetRead, permission]);
        let refusal = faults(create(&test, &owner, new).await);
        assert_eq!(refusal, [format!("input.permissions an API key cannot have {permission}")]);
    }
    // A row that has such a permission all the same, as before a migration.
    let (_, full_key) = create(&test, &owner, new_key(&[Permission::AssetRead])).await.unwrap();
    let superuser = test.db.superuser().await;
    superuser
        .batch_execute(
            "ALTER TABLE api_key DROP CONSTRAINT api_key_permissions_check;
             UPDATE api_key SET permissions = '{ASSET_READ,USER_MANAGE}'",
        )
        .await
        .unwrap();
    let program = test.viewer(&full_key, 1).await.unwrap();
    assert_eq!(program.permissions.iter().collect::<Vec<_>>(), [Permission::AssetRead]);
}

#[tokio::test]
async fn a_key_loses_what_its_maker_loses() {
    let (test, root) = setup().await;
    let new = new_key(&[Permission::AssetRead, Permission::AssetDelete]);
    let (key, full_key) = create(&test, &root, new).await.unwrap();
    let allowed = async || {
        let program = test.viewer(&full_key, 1).await.unwrap();
        let tx = test.db.auth(Origin::system()).await.unwrap();
        let actor = Actor::ApiKey(key.id);
        let may = authorize::may(&tx, test.org, actor, Permission::AssetDelete, at(1)).await;
        tx.commit().await.unwrap();
        (program.permissions.iter().collect::<Vec<_>>(), may.unwrap())
    };
    let all = vec![Permission::AssetRead, Permission::AssetDelete];
    assert_eq!(allowed().await, (all.clone(), true));
    let set_roles = async |role: &str| {
        let tx = test.db.auth(Origin::system()).await.unwrap();
        let (maker, roles) = (root.user().unwrap(), [role.to_owned()]);
        User::set_roles(&tx, test.org, None, maker, &roles).await.unwrap();
        tx.commit().await.unwrap();
    };
    set_roles("viewer").await;
    assert_eq!(allowed().await, (vec![Permission::AssetRead], false));
    set_roles("admin").await;
    assert_eq!(allowed().await, (all, true), "what the maker gets back, the key gets back");
}

#[tokio::test]
async fn a_key_makes_no_key() {
    let (test, root) = setup().await;
    let program = Viewer { actor: Actor::ApiKey(Id::new()), ..root };
    forbidden(create(&test, &program, new_key(&[Permission::AssetRead])).await);
}

#[tokio::test]
async fn all_that_is_wrong_with_a_new_key_is_said_at_once() {
    let (test, root) = setup().await;
    let new = NewApiKey {
        name: " ".into(),
        permissions: Vec::new(),
        expires_at: at(0) + TimeDelta::days(367),
        allowed_cidrs: vec!["10.0.0.0/8".into(), "10.0.0.0/40".into()],
    };
    let paths: Vec<_> = faults(create(&test, &root, new).await)
        .iter()
        .map(|fault| fault.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        paths,
        ["input.name", "input.permissions", "input.expiresAt", "input.allowedCidrs.1"]
    );
    let past = NewApiKey { expires_at: at(0), ..new_key(&[Permission::AssetRead]) };
    assert_eq!(faults(create(&test, &root, past).await).len(), 1);
}

#[tokio::test]
async fn the_secret_is_stored_as_a_digest_only() {
    let (test, root) = setup().await;
    let (key, full_key) = create(&test, &root, new_key(&[Permission::AssetRead])).await.unwrap();
    let secret = full_key.splitn(3, '_').nth(2).unwrap();
    let row = test
        .db
        .superuser()
        .await
        .query_one("SELECT secret_hash, api_key::text AS whole FROM api_key", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, Vec<u8>>("secret_hash"), domain::access::token::digest(&full_key));
    assert!(!row.get::<_, String>("whole").contains(&secret[..20]));
    assert!(full_key.starts_with(&format!("sok_{}_", key.prefix)));
}

#[tokio::test]
async fn a_key_of_another_organization_is_neither_seen_nor_revoked() {
    let (test, root) = setup().await;
    let (key, full_key) = create(&test, &root, new_key(&[Permission::AssetRead])).await.unwrap();
    let other = organization(&test.db, "other").await;
    let stranger = viewer(other, Id::new(), BuiltinRole::Owner);
    assert_not_found(revoke(&test, &stranger, key.id).await);
    let tx = test.db.read(other).await.unwrap();
    assert!(ApiKey::list(&tx).await.unwrap().is_empty());
    assert!(ApiKey::of_ids(&tx, &[key.id]).await.unwrap().is_empty());
    test.viewer(&full_key, 2).await.unwrap();
}
