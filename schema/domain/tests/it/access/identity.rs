//! The viewer behind a bearer token, and changes of the user's own password.

use domain::{
    Id, Origin, Viewer,
    access::{
        identity::Tokens,
        permission::{BuiltinRole, Permission},
        role::Role,
        user::User,
    },
    entity::UserId,
};

use crate::harness::{
    HOME, PASSWORD, TestOrg, assert_bad_credentials, assert_bad_token, at, caller, faults,
    forbidden, viewer,
};

const NEW: &str = "eleven quiet lanterns";

struct Ada {
    test: TestOrg,
    id: UserId,
    /// The admin who manages the user.
    root: Viewer,
    tokens: Tokens,
}

async fn ada(role: &str) -> Ada {
    let test = TestOrg::new().await;
    let root = test.person("root@x.com", &["owner"]).await;
    let id = test.person("ada@x.com", &[role]).await;
    let tokens = test.tokens("ada@x.com", 0).await;
    let root = viewer(test.org, root, BuiltinRole::Owner);
    Ada { test, id, root, tokens }
}

#[tokio::test]
async fn deactivation_refuses_the_next_request() {
    let Ada { test, id: ada, root, tokens } = ada("operator").await;
    test.viewer(&tokens.access_token, 1).await.unwrap();
    let tx = test.db.auth(Origin::system()).await.unwrap();
    User::deactivate(&tx, &root, ada, at(2)).await.unwrap();
    tx.commit().await.unwrap();
    assert_bad_token(test.viewer(&tokens.access_token, 3).await);
    assert_bad_token(test.refresh(&tokens.refresh_token, 3).await);
    assert_bad_credentials(test.login("ada@x.com", HOME, 3).await);
    assert_eq!(test.audited("member.deactivated").await, 1);
    assert_eq!(test.audited("session.revoked").await, 1);
}

#[tokio::test]
async fn a_membership_that_ends_by_any_other_way_refuses_the_next_request_too() {
    let Ada { test, id: ada, tokens, .. } = ada("operator").await;
    let sql = "UPDATE membership SET active = false WHERE user_id = $1";
    test.db.superuser().await.execute(sql, &[&ada.uuid()]).await.unwrap();
    assert_bad_token(test.viewer(&tokens.access_token, 1).await);
    assert_bad_token(test.refresh(&tokens.refresh_token, 1).await);
}

#[tokio::test]
async fn a_change_of_roles_is_seen_by_the_next_request() {
    let Ada { test, id: ada, root, tokens } = ada("operator").await;
    let may = async |now| {
        test.viewer(&tokens.access_token, now).await.unwrap().may(Permission::AssetWrite)
    };
    assert!(may(1).await);
    let tx = test.db.auth(Origin::system()).await.unwrap();
    User::set_roles(&tx, test.org, Some(&root), ada, &["viewer".into()]).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!may(3).await);
    assert_eq!(test.audited("member.role_changed").await, 3, "two joined, one changed");
}

#[tokio::test]
async fn a_change_of_what_a_role_may_do_is_seen_by_the_next_request() {
    let Ada { test, id: ada, root, tokens } = ada("viewer").await;
    let save = async |permissions: &[Permission]| {
        let tx = test.db.auth(Origin::system()).await.unwrap();
        Role::save(&tx, &root, "night", "Night shift", permissions).await.unwrap();
        tx.commit().await.unwrap();
    };
    save(&[Permission::CheckRun]).await;
    let tx = test.db.auth(Origin::system()).await.unwrap();
    let roles = ["viewer".to_owned(), "night".to_owned()];
    User::set_roles(&tx, test.org, Some(&root), ada, &roles).await.unwrap();
    tx.commit().await.unwrap();
    let now = test.viewer(&tokens.access_token, 2).await.unwrap();
    assert_eq!(now.roles, roles);
    assert!(now.may(Permission::CheckRun) && now.may(Permission::AssetRead));
    save(&[Permission::IncidentWrite]).await;
    let now = test.viewer(&tokens.access_token, 3).await.unwrap();
    assert!(!now.may(Permission::CheckRun) && now.may(Permission::IncidentWrite));
}

#[tokio::test]
async fn what_the_installation_grants_is_had_beside_the_roles() {
    let Ada { test, id: ada, tokens, .. } = ada("viewer").await;
    let tx = test.db.auth(Origin::system()).await.unwrap();
    let granted = [Permission::FleetRead, Permission::AssetDelete].into_iter().collect();
    User::grant(&tx, test.org, ada, granted).await.unwrap();
    tx.commit().await.unwrap();
    let now = test.viewer(&tokens.access_token, 2).await.unwrap();
    assert!(now.may(Permission::FleetRead) && !now.may(Permission::AssetDelete));
    assert_eq!(test.audited("member.granted").await, 1);
}

#[tokio::test]
async fn only_an_access_token_is_a_bearer() {
    let Ada { test, tokens, .. } = ada("viewer").await;
    for bearer in [tokens.refresh_token.as_str(), "", "x.y.z", "sok_", "sok_x_y"] {
        assert_bad_token(test.viewer(bearer, 1).await);
    }
    let (signed, _) = tokens.access_token.rsplit_once('.').unwrap();
    assert_bad_token(test.viewer(signed, 1).await);
    assert_bad_token(test.viewer(&tokens.access_token, 30 * 60 + 6).await);
    test.viewer(&tokens.access_token, 30 * 60 + 5).await.unwrap();
}

#[tokio::test]
async fn being_refused_does_not_cost_a_connection() {
    let Ada { test, tokens, .. } = ada("viewer").await;
    let one = domain::Db::new(&test.db.url, 1, "one").unwrap();
    let identity = crate::harness::identity(&one, crate::harness::COST, crate::harness::POLICY);
    let viewer = identity.authenticate(&tokens.access_token, HOME, at(0)).await.unwrap();
    identity.logout(&viewer, &caller(HOME, at(0))).await.unwrap();
    let pid = async || {
        let tx = one.auth(Origin::system()).await.unwrap();
        let sql = "SELECT pg_backend_pid() AS pid";
        let row: tokio_postgres::Row = tx.one(sql, &[]).await.unwrap();
        tx.commit().await.unwrap();
        row.get::<_, i32>("pid")
    };
    let before = pid().await;
    for bearer in [tokens.access_token.as_str(), "sok_x_y"] {
        assert_bad_token(identity.authenticate(bearer, HOME, at(1)).await);
    }
    assert_eq!(pid().await, before);
}

#[tokio::test]
async fn a_changed_password_keeps_this_session_and_ends_the_others() {
    let Ada { test, tokens: here, .. } = ada("viewer").await;
    let there = test.tokens("ada@x.com", 1).await;
    let viewer = test.viewer(&here.access_token, 2).await.unwrap();
    let change = caller(HOME, at(3));
    let same = test.identity.change_password(&viewer, PASSWORD, PASSWORD, &change).await;
    assert_eq!(faults(same), ["new is the current password"]);
    test.identity.change_password(&viewer, PASSWORD, NEW, &change).await.unwrap();
    test.viewer(&here.access_token, 4).await.unwrap();
    assert_bad_token(test.viewer(&there.access_token, 4).await);
    assert_bad_token(test.refresh(&there.refresh_token, 4).await);
    test.refresh(&here.refresh_token, 4).await.unwrap();
    assert_bad_credentials(test.login("ada@x.com", HOME, 5).await);
    test.identity.login("ada@x.com", NEW, &change).await.unwrap();
    assert_eq!(test.audited("auth.password_changed by user").await, 1);
}

#[tokio::test]
async fn a_wrong_current_password_counts_as_a_failure() {
    let Ada { test, tokens, .. } = ada("viewer").await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    for now in 0..5 {
        let guess = test.change(&viewer, "a guess", NEW, now);
        assert_eq!(faults(guess.await), ["current is not the current password"]);
    }
    let right = test.change(&viewer, PASSWORD, NEW, 33);
    assert_eq!(faults(right.await), ["current is not the current password"]);
    assert_bad_credentials(test.login("ada@x.com", HOME, 33).await);
    let right = test.change(&viewer, PASSWORD, NEW, 34);
    right.await.unwrap();
}

#[tokio::test]
async fn strangers_who_fail_keep_nobody_from_changing_the_password_at_home() {
    let Ada { test, tokens, .. } = ada("viewer").await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    for _ in 0..5 {
        let stranger = caller(crate::harness::ELSEWHERE, at(0));
        test.identity.login("ada@x.com", "a guess", &stranger).await.unwrap_err();
    }
    let right = test.change(&viewer, PASSWORD, NEW, 1);
    right.await.unwrap();
}

#[tokio::test]
async fn a_new_password_has_to_be_a_good_one() {
    let Ada { test, tokens, .. } = ada("viewer").await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    let change = test.change(&viewer, PASSWORD, "acme", 1);
    assert_eq!(faults(change.await), ["new has 4 characters, at least 15 are needed"]);
    test.login("ada@x.com", HOME, 2).await.unwrap();
}

#[tokio::test]
async fn a_password_that_was_reset_meanwhile_is_not_overwritten() {
    let Ada { test, id: ada, tokens, .. } = ada("viewer").await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    let resetting = test.db.auth(Origin::system()).await.unwrap();
    User::reset_password(&resetting, ada, "$argon2id$reset", at(1)).await.unwrap();
    let superuser = test.db.superuser().await;
    let change = caller(HOME, at(1));
    let (changed, ()) =
        tokio::join!(test.identity.change_password(&viewer, PASSWORD, NEW, &change), async {
            crate::harness::until(&superuser, crate::harness::A_LOCK_IS_AWAITED).await;
            resetting.commit().await.unwrap();
        });
    assert_eq!(faults(changed), ["current is not the current password"]);
    assert_bad_token(test.viewer(&tokens.access_token, 2).await);
}

#[tokio::test]
async fn a_key_has_no_password_and_no_organization_to_switch() {
    let Ada { test, .. } = ada("viewer").await;
    let key = Viewer {
        actor: domain::Actor::ApiKey(Id::new()),
        ..viewer(test.org, Id::new(), BuiltinRole::Owner)
    };
    let change = test.change(&key, PASSWORD, NEW, 1);
    forbidden(change.await);
    forbidden(test.identity.switch(&key, test.org, &caller(HOME, at(1))).await);
    test.identity.logout(&key, &caller(HOME, at(1))).await.unwrap();
}
