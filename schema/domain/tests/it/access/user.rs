//! People: who may do what to whom.

use domain::{
    Id, Origin, Result, Viewer,
    access::{
        permission::{BuiltinRole, FLEET, Permission, PermissionSet},
        user::{UpdateUserInput, User},
    },
    base::page::PageRequest,
    entity::UserId,
};

use crate::harness::{
    HOME, PASSWORD, TestOrg, assert_bad_credentials, assert_bad_token, assert_not_found, at,
    caller, conflict, faults, forbidden, join, newcomer, organization, viewer, viewer_with,
};

async fn create(house: &TestOrg, by: &Viewer, email: &str, roles: &[&str]) -> Result<User> {
    let tx = house.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
    let input = newcomer(email, roles);
    let user = User::create(&tx, by.org, Some(by), &input, "$argon2id$x", at(1)).await?;
    tx.commit().await?;
    Ok(user)
}

async fn set_roles(house: &TestOrg, by: &Viewer, user: UserId, roles: &[&str]) -> Result<User> {
    let tx = house.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
    let roles: Vec<_> = roles.iter().map(ToString::to_string).collect();
    let user = User::set_roles(&tx, by.org, Some(by), user, &roles, at(1)).await?;
    tx.commit().await?;
    Ok(user)
}

async fn update(
    house: &TestOrg,
    by: &Viewer,
    user: UserId,
    input: UpdateUserInput,
) -> Result<User> {
    let hash = match &input.password {
        Some(password) => Some(house.identity.hash_new("input.password", password, &[]).await?),
        None => None,
    };
    let tx = house.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
    let user = User::update(&tx, by, user, &input, hash.as_deref(), at(1)).await?;
    tx.commit().await?;
    Ok(user)
}

async fn deactivate(house: &TestOrg, by: &Viewer, user: UserId) -> Result<User> {
    let tx = house.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
    let user = User::deactivate(&tx, by, user, at(1)).await?;
    tx.commit().await?;
    Ok(user)
}

fn new_name() -> UpdateUserInput {
    UpdateUserInput { name: Some("Somebody Else".into()), ..Default::default() }
}

fn new_password() -> UpdateUserInput {
    UpdateUserInput { password: Some("eleven quiet lanterns".into()), ..Default::default() }
}

/// A house, its owner and its admin.
async fn house() -> (TestOrg, Viewer, Viewer) {
    let house = TestOrg::new().await;
    let owner = house.person("owner@x.com", &["owner"]).await;
    let admin = house.person("admin@x.com", &["admin"]).await;
    let (owner, admin) = (
        viewer(house.org, owner, BuiltinRole::Owner),
        viewer(house.org, admin, BuiltinRole::Admin),
    );
    (house, owner, admin)
}

#[tokio::test]
async fn nobody_grants_what_they_lack() {
    let (house, _, admin) = house().await;
    let vera = house.person("vera@x.com", &["viewer"]).await;
    let refusal = forbidden(create(&house, &admin, "new@x.com", &["owner"]).await);
    assert!(refusal.ends_with("you do not have ROLE_MANAGE, ORGANIZATION_MANAGE"), "{refusal}");
    forbidden(set_roles(&house, &admin, vera, &["viewer", "owner"]).await);
    let clerk = [Permission::UserManage].into_iter().collect::<PermissionSet>();
    let clerk = viewer_with(house.org, Id::new(), clerk.union(BuiltinRole::Viewer.permissions()));
    forbidden(set_roles(&house, &clerk, vera, &["operator"]).await);
    set_roles(&house, &admin, vera, &["admin"]).await.unwrap();
}

#[tokio::test]
async fn nobody_takes_what_they_lack() {
    let (house, _, admin) = house().await;
    let second = house.person("second@x.com", &["owner"]).await;
    forbidden(set_roles(&house, &admin, second, &["viewer"]).await);
}

#[tokio::test]
async fn nobody_raises_themselves() {
    let (house, _, admin) = house().await;
    let myself = admin.user().unwrap();
    forbidden(set_roles(&house, &admin, myself, &["owner"]).await);
    forbidden(set_roles(&house, &admin, myself, &["admin", "owner"]).await);
}

#[tokio::test]
async fn an_admin_does_not_manage_an_owner() {
    let (house, owner, admin) = house().await;
    let owner = owner.user().unwrap();
    for input in [new_name(), new_password(), UpdateUserInput::default()] {
        forbidden(update(&house, &admin, owner, input).await);
    }
    forbidden(deactivate(&house, &admin, owner).await);
    house.tokens("owner@x.com", 2).await;
}

#[tokio::test]
async fn an_owner_does_not_manage_who_manages_the_installation() {
    let (house, owner, admin) = house().await;
    let operator = house.person("operator@x.com", &["viewer"]).await;
    let tx = house.db.auth(Origin::system()).await.unwrap();
    User::grant(&tx, house.org, operator, FLEET, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    for by in [&admin, &owner] {
        forbidden(update(&house, by, operator, new_password()).await);
        forbidden(deactivate(&house, by, operator).await);
    }
    let fleet = viewer_with(house.org, operator, owner.permissions.union(FLEET));
    update(&house, &fleet, operator, new_name()).await.unwrap();
}

#[tokio::test]
async fn ones_own_password_takes_the_current_one() {
    let (house, _, admin) = house().await;
    let refusal = faults(update(&house, &admin, admin.user().unwrap(), new_password()).await);
    assert_eq!(
        refusal,
        ["input.password is your own: use changePassword, which asks for the current one"]
    );
    update(&house, &admin, admin.user().unwrap(), new_name()).await.unwrap();
}

#[tokio::test]
async fn the_last_owner_stays() {
    let (house, owner, _) = house().await;
    let myself = owner.user().unwrap();
    let sentence =
        "an organization keeps at least one active owner: make somebody else owner first";
    assert_eq!(conflict(set_roles(&house, &owner, myself, &["admin"]).await), sentence);
    assert_eq!(conflict(deactivate(&house, &owner, myself).await), sentence);
    let second = house.person("second@x.com", &["owner"]).await;
    set_roles(&house, &owner, myself, &["admin"]).await.unwrap();
    let second = viewer(house.org, second, BuiltinRole::Owner);
    assert_eq!(conflict(deactivate(&house, &second, second.user().unwrap()).await), sentence);
}

#[tokio::test]
async fn an_inactive_owner_does_not_count() {
    let (house, owner, _) = house().await;
    let second = house.person("second@x.com", &["owner"]).await;
    deactivate(&house, &owner, second).await.unwrap();
    conflict(set_roles(&house, &owner, owner.user().unwrap(), &["admin"]).await);
}

#[tokio::test]
async fn of_two_owners_who_demote_each_other_at_once_one_fails() {
    let (house, first, _) = house().await;
    let second = house.person("second@x.com", &["owner"]).await;
    let second = viewer(house.org, second, BuiltinRole::Owner);
    let demote = async |by: &Viewer, whom: &Viewer| {
        let tx = house.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
        let (whom, roles) = (whom.user().unwrap(), ["viewer".to_owned()]);
        User::set_roles(&tx, house.org, Some(by), whom, &roles, at(1)).await.unwrap();
        tx
    };
    let (one, two) = (demote(&first, &second).await, demote(&second, &first).await);
    let (one, two) = tokio::join!(one.commit(), two.commit());
    let (won, lost) = if one.is_ok() { (one, two) } else { (two, one) };
    won.unwrap();
    conflict(lost);
}

#[tokio::test]
async fn an_organization_that_never_had_an_owner_can_be_left() {
    let house = TestOrg::new().await;
    let admin = house.person("admin@x.com", &["admin"]).await;
    let vera = house.person("vera@x.com", &["viewer"]).await;
    let admin = viewer(house.org, admin, BuiltinRole::Admin);
    deactivate(&house, &admin, vera).await.unwrap();
}

#[tokio::test]
async fn an_e_mail_is_one_person_however_it_is_written() {
    let (house, _, admin) = house().await;
    let ada = create(&house, &admin, "Ada@Example.com", &["viewer"]).await.unwrap();
    assert_eq!(ada.email, "ada@example.com");
    let sentence = "a user with this e-mail exists already";
    assert_eq!(conflict(create(&house, &admin, "ADA@example.COM", &["viewer"]).await), sentence);
    let bob = create(&house, &admin, "bob@example.com", &["viewer"]).await.unwrap();
    let taken = UpdateUserInput { email: Some(" ada@EXAMPLE.com".into()), ..Default::default() };
    assert_eq!(conflict(update(&house, &admin, bob.id, taken).await), sentence);
}

#[tokio::test]
async fn what_belongs_to_the_person_is_not_changed_by_one_of_two_organizations() {
    let (house, _, admin) = house().await;
    let other = organization(&house.db, "other").await;
    let shared = house.person("shared@x.com", &["viewer"]).await;
    join(&house.db, other, shared, &["viewer"]).await;
    let new_email = UpdateUserInput { email: Some("mine@x.com".into()), ..Default::default() };
    let superuser = house.db.superuser().await;
    for active in [true, false] {
        let sql = "UPDATE membership SET active = $2 WHERE org_id = $1";
        superuser.execute(sql, &[&other.uuid(), &active]).await.unwrap();
        for input in [new_name(), new_password(), new_email.clone()] {
            let refusal = conflict(update(&house, &admin, shared, input).await);
            assert!(refusal.starts_with("this person belongs to another organization too"));
        }
    }
    deactivate(&house, &admin, shared).await.unwrap();
    let back = UpdateUserInput { active: Some(true), ..Default::default() };
    assert!(update(&house, &admin, shared, back).await.unwrap().active);
}

#[tokio::test]
async fn deactivating_somebody_ends_their_sessions_here_only() {
    let (house, _, admin) = house().await;
    let other = organization(&house.db, "other").await;
    let shared = house.person("shared@x.com", &["viewer"]).await;
    let here = house.tokens("shared@x.com", 0).await;
    join(&house.db, other, shared, &["viewer"]).await;
    let there = house.tokens("shared@x.com", 0).await;
    let there = house.viewer(&there.access_token, 0).await.unwrap();
    let there = house.identity.switch(&there, other, &caller(HOME, at(0))).await.unwrap();
    deactivate(&house, &admin, shared).await.unwrap();
    assert_bad_token(house.viewer(&here.access_token, 1).await);
    house.viewer(&there.access_token, 1).await.unwrap();
}

#[tokio::test]
async fn an_unknown_role_says_which_there_are() {
    let (house, _, admin) = house().await;
    let tx = house.db.auth(Origin::system()).await.unwrap();
    let roles = ["viewer".to_owned(), "boss".to_owned()];
    let refusal =
        User::set_roles(&tx, house.org, Some(&admin), admin.user().unwrap(), &roles, at(1)).await;
    let Err(domain::Error::Invalid(faults)) = refusal else { panic!("accepted: {refusal:?}") };
    assert_eq!((faults.len(), faults[0].path.as_str()), (1, "roles.1"));
    assert_eq!(faults[0].suggestion.as_deref(), Some("viewer, operator, admin, owner"));
}

#[tokio::test]
async fn somebody_without_a_role_is_deactivated_instead() {
    let (house, _, admin) = house().await;
    assert_eq!(faults(set_roles(&house, &admin, admin.user().unwrap(), &[]).await).len(), 1);
}

#[tokio::test]
async fn a_new_person_with_all_faults_is_told_all_of_them_and_leaves_no_trace() {
    let (house, _, admin) = house().await;
    let tx = house.db.auth(Origin::system()).await.unwrap();
    let mut input = newcomer("nonsense", &["viewer"]);
    input.name = "a\u{202e}b".into();
    let refusal = User::create(&tx, house.org, Some(&admin), &input, "x", at(1)).await;
    assert_eq!(
        faults(refusal),
        ["input.name holds the control character U+202E", "input.email is not an e-mail address"]
    );
    drop(tx);
    forbidden(create(&house, &admin, "new@x.com", &["owner"]).await);
    create(&house, &admin, "new@x.com", &["viewer"]).await.unwrap();
}

#[tokio::test]
async fn a_reset_password_ends_all_sessions() {
    let (house, _, admin) = house().await;
    let ada = house.person("ada@x.com", &["operator"]).await;
    let tokens = house.tokens("ada@x.com", 0).await;
    update(&house, &admin, ada, new_password()).await.unwrap();
    assert_bad_token(house.viewer(&tokens.access_token, 2).await);
    assert_bad_credentials(house.identity.login("ada@x.com", PASSWORD, &caller(HOME, at(2))).await);
    let new = new_password().password.unwrap();
    house.identity.login("ada@x.com", &new, &caller(HOME, at(2))).await.unwrap();
    assert_eq!(house.audited("user.password_reset by user").await, 1);
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_recorded() {
    let (house, _, admin) = house().await;
    let ada = house.person("ada@x.com", &["operator"]).await;
    let before = house.audit().await.len();
    let same = UpdateUserInput {
        name: Some("ada".into()),
        email: Some("ADA@x.com".into()),
        active: Some(true),
        password: None,
    };
    update(&house, &admin, ada, same).await.unwrap();
    set_roles(&house, &admin, ada, &["operator"]).await.unwrap();
    assert_eq!(house.audit().await.len(), before);
}

#[tokio::test]
async fn members_are_listed_by_name_page_by_page() {
    let house = TestOrg::new().await;
    for name in ["carol", "alice", "bob"] {
        house.person(&format!("{name}@x.com"), &["viewer"]).await;
    }
    let tx = house.db.read(house.org).await.unwrap();
    let page = |after| PageRequest { size: 2, backward: false, after, before: None };
    let first = User::list(&tx, &page(None)).await.unwrap();
    let names = |users: &[User]| users.iter().map(|user| user.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&first.rows), first.has_next), (vec!["alice".into(), "bob".into()], true));
    let rest = User::list(&tx, &page(Some(first.rows[1].place()))).await.unwrap();
    assert_eq!((names(&rest.rows), rest.has_next), (vec!["carol".to_owned()], false));
    assert_eq!(User::count(&tx).await.unwrap(), 3);
}

#[tokio::test]
async fn a_person_of_another_organization_cannot_be_managed() {
    let (house, _, _) = house().await;
    let ada = house.person("ada@x.com", &["viewer"]).await;
    let other = organization(&house.db, "other").await;
    let stranger = viewer(other, Id::new(), BuiltinRole::Owner);
    assert_not_found(update(&house, &stranger, ada, new_name()).await);
    assert_not_found(set_roles(&house, &stranger, ada, &["viewer"]).await);
    assert_not_found(deactivate(&house, &stranger, ada).await);
    house.tokens("ada@x.com", 2).await;
}
