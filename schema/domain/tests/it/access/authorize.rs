//! Authorization when an action runs, whatever was permitted when it was requested.

use chrono::TimeDelta;
use domain::{
    Actor, Id, Origin,
    access::{
        api_key::{ApiKey, NewApiKey},
        authorize,
        permission::{BuiltinRole, Permission},
        role::Role,
        user::User,
    },
};

use crate::harness::{TestOrg, at, join, organization, viewer as signed_in};

async fn may(test: &TestOrg, actor: Actor, permission: Permission, now: i64) -> bool {
    let tx = test.db.auth(Origin::system()).await.unwrap();
    let may = authorize::may(&tx, test.org, actor, permission, at(now)).await.unwrap();
    tx.commit().await.unwrap();
    may
}

#[tokio::test]
async fn a_member_may_what_their_roles_grant_now() {
    let test = TestOrg::new().await;
    let owner = test.person("ada@x.com", &["owner"]).await;
    let user = test.person("bob@x.com", &["operator"]).await;
    let bob = Actor::User(user);
    assert!(may(&test, bob, Permission::ComplianceRun, 0).await);
    assert!(!may(&test, bob, Permission::JobManage, 0).await);
    let by = signed_in(test.org, owner, BuiltinRole::Owner);
    let tx = test.db.auth(Origin::system()).await.unwrap();
    Role::save(&tx, &by, "runner", "Runner", &[Permission::ComplianceRun]).await.unwrap();
    User::set_roles(&tx, test.org, Some(&by), user, &["runner".into()]).await.unwrap();
    tx.commit().await.unwrap();
    assert!(may(&test, bob, Permission::ComplianceRun, 1).await, "by a custom role");
    assert!(!may(&test, bob, Permission::CheckRun, 1).await, "demoted");
    let tx = test.db.auth(Origin::system()).await.unwrap();
    User::deactivate(&tx, &by, user, at(2)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!may(&test, bob, Permission::ComplianceRun, 2).await, "deactivated");
}

#[tokio::test]
async fn what_the_installation_granted_is_had_and_other_organizations_count_for_nothing() {
    let test = TestOrg::new().await;
    let other = organization(&test.db, "other").await;
    let user = test.person("ada@x.com", &["viewer"]).await;
    join(&test.db, other, user, &["owner"]).await;
    let actor = Actor::User(user);
    assert!(!may(&test, actor, Permission::ComplianceRun, 0).await);
    assert!(!may(&test, actor, Permission::FleetRead, 0).await);
    let grant = "UPDATE membership SET permissions = '{FLEET_READ,COMPLIANCE_RUN}'";
    test.db.superuser().await.batch_execute(grant).await.unwrap();
    assert!(may(&test, actor, Permission::FleetRead, 0).await);
    assert!(!may(&test, actor, Permission::ComplianceRun, 0).await, "no grant of that kind");
}

#[tokio::test]
async fn a_key_may_what_its_scope_says_while_it_and_its_maker_last() {
    let test = TestOrg::new().await;
    let owner = test.person("ada@x.com", &["owner"]).await;
    let maker = test.person("bob@x.com", &["admin"]).await;
    let by = signed_in(test.org, maker, BuiltinRole::Admin);
    let tx = test.db.auth(Origin::system()).await.unwrap();
    let mut keys = Vec::new();
    for name in ["revoked", "expiring", "orphaned"] {
        let new = NewApiKey {
            name: name.into(),
            permissions: vec![Permission::ComplianceRun],
            expires_at: at(0) + TimeDelta::hours(1),
            allowed_cidrs: vec!["10.0.0.0/8".into()],
        };
        keys.push(ApiKey::create(&tx, &by, new, at(0)).await.unwrap().0.id);
    }
    tx.commit().await.unwrap();
    let run = Permission::ComplianceRun;
    for key in &keys {
        assert!(may(&test, Actor::ApiKey(*key), run, 0).await);
        assert!(!may(&test, Actor::ApiKey(*key), Permission::AssetRead, 0).await);
    }
    assert!(!may(&test, Actor::ApiKey(keys[1]), run, 3600).await, "expired");
    let tx = test.db.auth(Origin::system()).await.unwrap();
    ApiKey::revoke(&tx, &by, keys[0], at(1)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!may(&test, Actor::ApiKey(keys[0]), run, 2).await, "revoked");
    let tx = test.db.auth(Origin::system()).await.unwrap();
    User::deactivate(&tx, &signed_in(test.org, owner, BuiltinRole::Owner), maker, at(3))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert!(!may(&test, Actor::ApiKey(keys[2]), run, 4).await, "its maker is deactivated");
}

#[tokio::test]
async fn the_system_may_and_the_unknown_may_not() {
    let test = TestOrg::new().await;
    for permission in Permission::ALL {
        assert!(may(&test, Actor::System, *permission, 0).await);
        assert!(!may(&test, Actor::User(Id::new()), *permission, 0).await);
        assert!(!may(&test, Actor::ApiKey(Id::new()), *permission, 0).await);
    }
}
