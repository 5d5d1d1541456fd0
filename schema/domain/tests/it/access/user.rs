//! Users, and who may manage whom.

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

async fn create(test: &TestOrg, by: &Viewer, email: &str, roles: &[&str]) -> Result<User> {
    let tx = test.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
    let input = newcomer(email, roles);
    let user = User::create(&tx, by.org, Some(by), &input, "$argon2id$x", at(1)).await?;
    tx.commit().await?;
    Ok(user)
}

async fn set_roles(test: &TestOrg, by: &Viewer, user: UserId, roles: &[&str]) -> Result<User> {
    let tx = test.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
    let roles: Vec<_> = roles.iter().map(ToString::to_string).collect();
    let user = User::set_roles(&tx, by.org, Some(by), user, &roles).await?;
    tx.commit().await?;
    Ok(user)
}

async fn update(test: &TestOrg, by: &Viewer, user: UserId, input: UpdateUserInput) -> Result<User> {
    let hash = match &input.password {
        Some(password) => Some(test.identity.hash_new("input.password", password, &[]).await?),
        None => None,
    };
    let tx = test.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
    let user = User::update(&tx, by, user, &input, hash.as_deref(), at(1)).await?;
    tx.commit().await?;
    Ok(user)
}

async fn deactivate(test: &TestOrg, by: &Viewer, user: UserId) -> Result<User> {
    let tx = test.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
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

/// Creates an organization, and returns it with its owner and its admin.
async fn setup() -> (TestOrg, Viewer, Viewer) {
    let test = TestOrg::new().await;
    let owner = test.person("owner@x.com", &["owner"]).await;
    let admin = test.person("admin@x.com", &["admin"]).await;
    let (owner, admin) =
        (viewer(test.org, owner, BuiltinRole::Owner), viewer(test.org, admin, BuiltinRole::Admin));
    (test, owner, admin)
}

#[tokio::test]
async fn nobody_grants_what_they_lack() {
    let (test, _, admin) = setup().await;
    let vera = test.person("vera@x.com", &["viewer"]).await;
    let refusal = forbidden(create(&test, &admin, "new@x.com", &["owner"]).await);
    assert!(refusal.ends_with("you lack ROLE_MANAGE, ORGANIZATION_MANAGE"), "{refusal}");
    forbidden(set_roles(&test, &admin, vera, &["viewer", "owner"]).await);
    let clerk = [Permission::UserManage].into_iter().collect::<PermissionSet>();
    let clerk = viewer_with(test.org, Id::new(), clerk.union(BuiltinRole::Viewer.permissions()));
    forbidden(set_roles(&test, &clerk, vera, &["operator"]).await);
    set_roles(&test, &admin, vera, &["admin"]).await.unwrap();
}

#[tokio::test]
async fn nobody_takes_what_they_lack() {
    let (test, _, admin) = setup().await;
    let second = test.person("second@x.com", &["owner"]).await;
    forbidden(set_roles(&test, &admin, second, &["viewer"]).await);
}

#[tokio::test]
async fn nobody_raises_themselves() {
    let (test, _, admin) = setup().await;
    let myself = admin.user().unwrap();
    forbidden(set_roles(&test, &admin, myself, &["owner"]).await);
    forbidden(set_roles(&test, &admin, myself, &["admin", "owner"]).await);
}

#[tokio::test]
async fn an_admin_does_not_manage_an_owner() {
    let (test, owner, admin) = setup().await;
    let owner = owner.user().unwrap();
    for input in [new_name(), new_password(), UpdateUserInput::default()] {
        forbidden(update(&test, &admin, owner, input).await);
    }
    forbidden(deactivate(&test, &admin, owner).await);
    test.tokens("owner@x.com", 2).await;
}

#[tokio::test]
async fn an_owner_does_not_manage_who_manages_the_installation() {
    let (test, owner, admin) = setup().await;
    let operator = test.person("operator@x.com", &["viewer"]).await;
    let tx = test.db.auth(Origin::system()).await.unwrap();
    User::grant(&tx, test.org, operator, FLEET).await.unwrap();
    tx.commit().await.unwrap();
    for by in [&admin, &owner] {
        forbidden(update(&test, by, operator, new_password()).await);
        forbidden(deactivate(&test, by, operator).await);
    }
    let fleet = viewer_with(test.org, operator, owner.permissions.union(FLEET));
    update(&test, &fleet, operator, new_name()).await.unwrap();
}

#[tokio::test]
async fn ones_own_password_takes_the_current_one() {
    let (test, _, admin) = setup().await;
    let refusal = faults(update(&test, &admin, admin.user().unwrap(), new_password()).await);
    assert_eq!(
        refusal,
        [
            "input.password is your own password: use changePassword, which requires the current password"
        ]
    );
    update(&test, &admin, admin.user().unwrap(), new_name()).await.unwrap();
}

#[tokio::test]
async fn the_last_owner_stays() {
    let (test, owner, _) = setup().await;
    let myself = owner.user().unwrap();
    let sentence =
        "an organization needs at least one active owner: make another member an owner first";
    assert_eq!(conflict(set_roles(&test, &owner, myself, &["admin"]).await), sentence);
    assert_eq!(conflict(deactivate(&test, &owner, myself).await), sentence);
    let second = test.person("second@x.com", &["owner"]).await;
    set_roles(&test, &owner, myself, &["admin"]).await.unwrap();
    let second = viewer(test.org, second, BuiltinRole::Owner);
    assert_eq!(conflict(deactivate(&test, &second, second.user().unwrap()).await), sentence);
}

#[tokio::test]
async fn an_inactive_owner_does_not_count() {
    let (test, owner, _) = setup().await;
    let second = test.person("second@x.com", &["owner"]).await;
    deactivate(&test, &owner, second).await.unwrap();
    conflict(set_roles(&test, &owner, owner.user().unwrap(), &["admin"]).await);
}

#[tokio::test]
async fn of_two_owners_who_demote_each_other_at_once_one_fails() {
    let (test, first, _) = setup().await;
    let second = test.person("second@x.com", &["owner"]).await;
    let second = viewer(test.org, second, BuiltinRole::Owner);
    let demote = async |by: &Viewer, whom: &Viewer| {
        let tx = test.db.auth(by.origin(HOME, "req-1".into())).await.unwrap();
        let (whom, roles) = (whom.user().unwrap(), ["viewer".to_owned()]);
        User::set_roles(&tx, test.org, Some(by), whom, &roles).await.unwrap();
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
    let test = TestOrg::new().await;
    let admin = test.person("admin@x.com", &["admin"]).await;
    let vera = test.person("vera@x.com", &["viewer"]).await;
    let admin = viewer(test.org, admin, BuiltinRole::Admin);
    deactivate(&test, &admin, vera).await.unwrap();
}

#[tokio::test]
async fn an_e_mail_is_one_person_however_it_is_written() {
    let (test, _, admin) = setup().await;
    let ada = create(&test, &admin, "Ada@Example.com", &["viewer"]).await.unwrap();
    assert_eq!(ada.email, "ada@example.com");
    let sentence = "this user is already a member of the organization";
    assert_eq!(conflict(create(&test, &admin, "ADA@example.COM", &["viewer"]).await), sentence);
}

#[tokio::test]
async fn an_organization_changes_no_e_mail() {
    let (test, _, admin) = setup().await;
    create(&test, &admin, "ada@example.com", &["viewer"]).await.unwrap();
    let bob = create(&test, &admin, "bob@example.com", &["viewer"]).await.unwrap();
    for email in ["ada@example.com", "new@example.com", "bob@example.com"] {
        let input = UpdateUserInput { email: Some(email.into()), ..Default::default() };
        let refusal = faults(update(&test, &admin, bob.id, input).await);
        assert!(
            refusal[0].starts_with("input.email cannot be changed by an organization"),
            "{refusal:?}"
        );
    }
    // The operator can, and each organization of the user reads it in its trail.
    let tx = test.db.auth(Origin::system()).await.unwrap();
    User::set_email(&tx, bob.id, "robert@example.com").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(test.audited("user.updated").await, 1);
    let tx = test.db.auth(Origin::system()).await.unwrap();
    let taken = User::set_email(&tx, bob.id, "ada@example.com").await;
    assert_eq!(conflict(taken), "a user with this e-mail already exists");
}

#[tokio::test]
async fn what_belongs_to_the_person_is_not_changed_by_one_of_two_organizations() {
    let (test, _, admin) = setup().await;
    let other = organization(&test.db, "other").await;
    let shared = test.person("shared@x.com", &["viewer"]).await;
    join(&test.db, other, shared, &["viewer"]).await;
    let superuser = test.db.superuser().await;
    for active in [true, false] {
        let sql = "UPDATE membership SET active = $2 WHERE org_id = $1";
        superuser.execute(sql, &[&other.uuid(), &active]).await.unwrap();
        for input in [new_name(), new_password()] {
            let refusal = conflict(update(&test, &admin, shared, input).await);
            assert!(refusal.starts_with("this user is also a member of another organization"));
        }
    }
    deactivate(&test, &admin, shared).await.unwrap();
    let back = UpdateUserInput { active: Some(true), ..Default::default() };
    assert!(update(&test, &admin, shared, back).await.unwrap().active);
}

#[tokio::test]
async fn deactivating_somebody_ends_their_sessions_here_only() {
    let (test, _, admin) = setup().await;
    let other = organization(&test.db, "other").await;
    let shared = test.person("shared@x.com", &["viewer"]).await;
    let here = test.tokens("shared@x.com", 0).await;
    join(&test.db, other, shared, &["viewer"]).await;
    let there = test.tokens("shared@x.com", 0).await;
    let there = test.viewer(&there.access_token, 0).await.unwrap();
    let there = test.identity.switch(&there, other, &caller(HOME, at(0))).await.unwrap();
    deactivate(&test, &admin, shared).await.unwrap();
    assert_bad_token(test.viewer(&here.access_token, 1).await);
    test.viewer(&there.access_token, 1).await.unwrap();
}

#[tokio::test]
async fn an_unknown_role_says_which_there_are() {
    let (test, _, admin) = setup().await;
    let tx = test.db.auth(Origin::system()).await.unwrap();
    let roles = ["viewer".to_owned(), "boss".to_owned()];
    let refusal = User::set_roles(&tx, test.org, Some(&admin), admin.user().unwrap(), &roles).await;
    let Err(domain::Error::Invalid(faults)) = refusal else { panic!("accepted: {refusal:?}") };
    assert_eq!((faults.len(), faults[0].path.as_str()), (1, "roles.1"));
    assert_eq!(faults[0].suggestion.as_deref(), Some("viewer, operator, admin, owner"));
}

#[tokio::test]
async fn somebody_without_a_role_is_deactivated_instead() {
    let (test, _, admin) = setup().await;
    assert_eq!(faults(set_roles(&test, &admin, admin.user().unwrap(), &[]).await).len(), 1);
}

#[tokio::test]
async fn a_new_person_with_all_faults_is_told_all_of_them_and_leaves_no_trace() {
    let (test, _, admin) = setup().await;
    let tx = test.db.auth(Origin::system()).await.unwrap();
    let mut input = newcomer("nonsense", &["viewer"]);
    input.name = "a\u{202e}b".into();
    let refusal = User::create(&tx, test.org, Some(&admin), &input, "x", at(1)).await;
    assert_eq!(
        faults(refusal),
        [
            "input.name contains the control character U+202E",
            "input.email is not an e-mail address"
        ]
    );
    drop(tx);
    forbidden(create(&test, &admin, "new@x.com", &["owner"]).await);
    create(&test, &admin, "new@x.com", &["viewer"]).await.unwrap();
}

#[tokio::test]
async fn a_reset_password_ends_all_sessions() {
    let (test, _, admin) = setup().await;
    let ada = test.person("ada@x.com", &["operator"]).await;
    let tokens = test.tokens("ada@x.com", 0).await;
    update(&test, &admin, ada, new_password()).await.unwrap();
    assert_bad_token(test.viewer(&tokens.access_token, 2).await);
    assert_bad_credentials(test.identity.login("ada@x.com", PASSWORD, &caller(HOME, at(2))).await);
    let new = new_password().password.unwrap();
    test.identity.login("ada@x.com", &new, &caller(HOME, at(2))).await.unwrap();
    assert_eq!(test.audited("user.password_reset by user").await, 1);
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_recorded() {
    let (test, _, admin) = setup().await;
    let ada = test.person("ada@x.com", &["operator"]).await;
    let before = test.audit().await.len();
    let same = UpdateUserInput {
        name: Some("ada".into()),
        email: None,
        active: Some(true),
        password: None,
    };
    update(&test, &admin, ada, same).await.unwrap();
    set_roles(&test, &admin, ada, &["operator"]).await.unwrap();
    assert_eq!(test.audit().await.len(), before);
}

#[tokio::test]
async fn members_are_listed_by_name_page_by_page() {
    let test = TestOrg::new().await;
    for name in ["carol", "alice", "bob"] {
        test.person(&format!("{name}@x.com"), &["viewer"]).await;
    }
    let tx = test.db.read(test.org).await.unwrap();
    let page = |after| PageRequest { size: 2, backward: false, after, before: None };
    let first = User::list(&tx, &page(None)).await.unwrap();
    let names = |users: &[User]| users.iter().map(|user| user.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&first.rows), first.has_next), (vec!["alice".into(), "bob".into()], true));
    let rest = User::list(&tx, &page(Some(first.rows[1].position()))).await.unwrap();
    assert_eq!((names(&rest.rows), rest.has_next), (vec!["carol".to_owned()], false));
    assert_eq!(User::count(&tx).await.unwrap(), 3);
}

#[tokio::test]
async fn a_person_of_another_organization_cannot_be_managed() {
    let (test, _, _) = setup().await;
    let ada = test.person("ada@x.com", &["viewer"]).await;
    let other = organization(&test.db, "other").await;
    let stranger = viewer(other, Id::new(), BuiltinRole::Owner);
    assert_not_found(update(&test, &stranger, ada, new_name()).await);
    assert_not_found(set_roles(&test, &stranger, ada, &["viewer"]).await);
    assert_not_found(deactivate(&test, &stranger, ada).await);
    test.tokens("ada@x.com", 2).await;
}
