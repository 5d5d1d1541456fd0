//! What an actor may do now, whatever it might do when it asked.

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

async fn may(house: &TestOrg, actor: Actor, permission: Permission, now: i64) -> bool {
    let tx = house.db.auth(Origin::system()).await.unwrap();
    let may = authorize::may(&tx, house.org, actor, permission, at(now)).await.unwrap();
    tx.commit().await.unwrap();
    may
}

#[tokio::test]
async fn a_member_may_what_their_roles_grant_now() {
    let house = TestOrg::new().await;
    let owner = house.person("ada@x.com", &["owner"]).await;
    let user = house.person("bob@x.com", &["operator"]).await;
    let bob = Actor::User(user);
    assert!(may(&house, bob, Permission::ComplianceRun, 0).await);
    assert!(!may(&house, bob, Permission::JobManage, 0).await);
    let by = signed_in(house.org, owner, BuiltinRole::Owner);
    let tx = house.db.auth(Origin::system()).await.unwrap();
    Role::save(&tx, &by, "runner", "Runner", &[Permission::ComplianceRun], at(0)).await.unwrap();
    User::set_roles(&tx, house.org, Some(&by), user, &["runner".into()], at(1)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(may(&house, bob, Permission::ComplianceRun, 1).await, "by a custom role");
    assert!(!may(&house, bob, Permission::CheckRun, 1).await, "demoted");
    let tx = house.db.auth(Origin::system()).await.unwrap();
    User::deactivate(&tx, &by, user, at(2)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!may(&house, bob, Permission::ComplianceRun, 2).await, "deactivated");
}

#[tokio::test]
async fn what_the_installation_granted_is_had_and_other_organizations_count_for_nothing() {
    let house = TestOrg::new().await;
    let other = organization(&house.db, "other").await;
    let user = house.person("ada@x.com", &["viewer"]).await;
    join(&house.db, other, user, &["owner"]).await;
    let actor = Actor::User(user);
    assert!(!may(&house, actor, Permission::ComplianceRun, 0).await);
    assert!(!may(&house, actor, Permission::FleetRead, 0).await);
    let grant = "UPDATE membership SET permissions = '{FLEET_READ,COMPLIANCE_RUN}'";
    house.db.superuser().await.batch_execute(grant).await.unwrap();
    assert!(may(&house, actor, Permission::FleetRead, 0).await);
    assert!(!may(&house, actor, Permission::ComplianceRun, 0).await, "no grant of that kind");
}

#[tokio::test]
async fn a_key_may_what_its_scope_says_while_it_and_its_maker_last() {
    let house = TestOrg::new().await;
    let owner = house.person("ada@x.com", &["owner"]).await;
    let maker = house.person("bob@x.com", &["admin"]).await;
    let by = signed_in(house.org, maker, BuiltinRole::Admin);
    let tx = house.db.auth(Origin::system()).await.unwrap();
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
        assert!(may(&house, Actor::ApiKey(*key), run, 0).await);
        assert!(!may(&house, Actor::ApiKey(*key), Permission::AssetRead, 0).await);
    }
    assert!(!may(&house, Actor::ApiKey(keys[1]), run, 3600).await, "expired");
    let tx = house.db.auth(Origin::system()).await.unwrap();
    ApiKey::revoke(&tx, &by, keys[0], at(1)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!may(&house, Actor::ApiKey(keys[0]), run, 2).await, "revoked");
    let tx = house.db.auth(Origin::system()).await.unwrap();
    User::deactivate(&tx, &signed_in(house.org, owner, BuiltinRole::Owner), maker, at(3))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert!(!may(&house, Actor::ApiKey(keys[2]), run, 4).await, "its maker is deactivated");
}

#[tokio::test]
async fn the_system_may_and_the_unknown_may_not() {
    let house = TestOrg::new().await;
    for permission in Permission::ALL {
        assert!(may(&house, Actor::System, *permission, 0).await);
        assert!(!may(&house, Actor::User(Id::new()), *permission, 0).await);
        assert!(!may(&house, Actor::ApiKey(Id::new()), *permission, 0).await);
    }
}
