//! Custom roles.

use domain::{
    Id, Result, Viewer,
    access::{
        permission::{BuiltinRole, Permission, PermissionSet},
        role::Role,
        user::User,
    },
    entity::RoleId,
};

use crate::harness::{
    A_LOCK_IS_AWAITED, HOME, TestOrg, assert_not_found, conflict, faults, forbidden, organization,
    until, viewer, viewer_with,
};

async fn save(test: &TestOrg, by: &Viewer, key: &str, permissions: &[Permission]) -> Result<Role> {
    let tx = test.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
    let role = Role::save(&tx, by, key, "Night shift", permissions).await?;
    tx.commit().await?;
    Ok(role)
}

async fn delete(test: &TestOrg, by: &Viewer, key: &str) -> Result<RoleId> {
    let tx = test.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
    let id = Role::delete(&tx, by, key).await?;
    tx.commit().await?;
    Ok(id)
}

async fn setup() -> (TestOrg, Viewer) {
    let test = TestOrg::new().await;
    let owner = test.person("owner@x.com", &["owner"]).await;
    let owner = viewer(test.org, owner, BuiltinRole::Owner);
    (test, owner)
}

#[tokio::test]
async fn a_role_is_made_changed_and_deleted() {
    let (test, owner) = setup().await;
    let made = save(&test, &owner, "night", &[Permission::CheckRun]).await.unwrap();
    let changed = save(&test, &owner, "night", &[Permission::IncidentWrite]).await.unwrap();
    assert_eq!((changed.id, changed.permissions), (made.id, vec![Permission::IncidentWrite]));
    assert_eq!(delete(&test, &owner, "night").await.unwrap(), made.id);
    assert_not_found(delete(&test, &owner, "night").await);
    for action in ["role.created", "role.updated", "role.deleted"] {
        assert_eq!(test.audited(&format!("{action} by user")).await, 1, "{action}");
    }
}

#[tokio::test]
async fn a_role_holds_at_most_what_its_maker_does() {
    let (test, owner) = setup().await;
    let clerk =
        [Permission::RoleManage, Permission::AssetRead].into_iter().collect::<PermissionSet>();
    let clerk = viewer_with(test.org, owner.user().unwrap(), clerk);
    forbidden(save(&test, &clerk, "night", &[Permission::AssetDelete]).await);
    save(&test, &owner, "strong", &[Permission::AssetDelete]).await.unwrap();
    forbidden(save(&test, &clerk, "strong", &[Permission::AssetRead]).await);
    forbidden(delete(&test, &clerk, "strong").await);
    save(&test, &clerk, "weak", &[Permission::AssetRead]).await.unwrap();
}

#[tokio::test]
async fn a_role_that_is_just_being_widened_is_compared_as_it_will_be() {
    let (test, owner) = setup().await;
    save(&test, &owner, "shift", &[Permission::AssetRead]).await.unwrap();
    let clerk =
        [Permission::RoleManage, Permission::AssetRead].into_iter().collect::<PermissionSet>();
    let clerk = viewer_with(test.org, owner.user().unwrap(), clerk);
    let widening = test.db.auth(owner.origin(HOME, "req-1".into())).await.unwrap();
    let both = [Permission::AssetRead, Permission::AssetDelete];
    Role::save(&widening, &owner, "shift", "Shift", &both).await.unwrap();
    let superuser = test.db.superuser().await;
    let (replaced, ()) =
        tokio::join!(save(&test, &clerk, "shift", &[Permission::AssetRead]), async {
            until(&superuser, A_LOCK_IS_AWAITED).await;
            widening.commit().await.unwrap();
        });
    assert!(forbidden(replaced).ends_with("you lack ASSET_DELETE"));
}

#[tokio::test]
async fn no_role_holds_what_concerns_the_installation() {
    let (test, owner) = setup().await;
    let all = Permission::ALL.iter().copied().collect();
    let fleet = viewer_with(test.org, owner.user().unwrap(), all);
    let refusal = faults(save(&test, &fleet, "night", &[Permission::FleetManage]).await);
    assert_eq!(
        refusal,
        [
            "permissions fleet permissions (FLEET_READ, FLEET_MANAGE) can be granted only with `sentryops admin grant`"
        ]
    );
}

#[tokio::test]
async fn the_built_in_roles_stay_as_they_are() {
    let (test, owner) = setup().await;
    for role in BuiltinRole::ALL {
        conflict(save(&test, &owner, role.key(), &[Permission::AssetRead]).await);
        conflict(delete(&test, &owner, role.key()).await);
    }
}

#[tokio::test]
async fn a_role_that_somebody_holds_is_not_deleted() {
    let (test, owner) = setup().await;
    save(&test, &owner, "night", &[Permission::CheckRun]).await.unwrap();
    let ada = test.person("ada@x.com", &["night"]).await;
    let sentence = "members still have this role: remove the role from all members first";
    assert_eq!(conflict(delete(&test, &owner, "night").await), sentence);
    let tx = test.db.auth(owner.origin(HOME, "req-1".into())).await.unwrap();
    User::set_roles(&tx, test.org, Some(&owner), ada, &["viewer".into()]).await.unwrap();
    tx.commit().await.unwrap();
    delete(&test, &owner, "night").await.unwrap();
}

#[tokio::test]
async fn a_key_is_plain() {
    let (test, owner) = setup().await;
    for key in ["", "-x", "Night", "a b", "ä", "a\0", &"x".repeat(64)] {
        assert_eq!(faults(save(&test, &owner, key, &[]).await).len(), 1, "{key}");
    }
    save(&test, &owner, &"x".repeat(63), &[]).await.unwrap();
}

#[tokio::test]
async fn a_role_of_another_organization_is_neither_seen_nor_deleted() {
    let (test, owner) = setup().await;
    save(&test, &owner, "night", &[Permission::CheckRun]).await.unwrap();
    let other = organization(&test.db, "other").await;
    let stranger = viewer(other, Id::new(), BuiltinRole::Owner);
    assert_not_found(delete(&test, &stranger, "night").await);
    let tx = test.db.read(other).await.unwrap();
    assert_eq!(Role::list(&tx, other).await.unwrap().len(), 4);
    assert!(Role::list(&tx, test.org).await.unwrap().is_empty());
}
