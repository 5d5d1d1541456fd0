//! Membership of one account in several organizations: nobody gains a right in an organization that did not mean them,
//! and no organization learns which e-mails have accounts.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, Person, Reply, Team, TestApp, nothing};

/// Password that the inviting organization gives to the person.
const GIVEN: &str = "seventeen violet herons";
const NEW: &str = "nobody else knows this one";
const CREATE: &str = "mutation($email: String!, $password: String!) {
    createUser(input: { email: $email, name: \"C. F. Officer\", password: $password, roles: [\"admin\"] }) {
        id name email active mfaEnabled createdAt lastSeenAt roles { key } } }";
const ACCEPT: &str = "mutation($org: ID!, $password: String!, $given: String!, $new: String) {
    acceptInvitation(organization: $org, password: $password, invitationPassword: $given, newPassword: $new) {
        organizations { slug } } }";
const SWITCH: &str =
    "mutation($org: ID!) { switchOrganization(organization: $org) { accessToken } }";
const LOGIN: &str = "mutation($email: String!, $password: String!) { login(email: $email, password: $password) { tokens { accessToken } } }";

async fn create(app: &TestApp, team: &Team, email: &str, password: &str) -> Reply {
    let variables = json!({ "email": email, "password": password });
    app.ask(team["admin"].bearer.as_str(), CREATE, variables).await
}

async fn login(app: &TestApp, email: &str, password: &str) -> Reply {
    app.ask(None, LOGIN, json!({ "email": email, "password": password })).await
}

/// Signs in and returns the access token.
async fn token(app: &TestApp, email: &str, password: &str) -> String {
    let reply = login(app, email, password).await;
    reply.data()["login"]["tokens"]["accessToken"].as_str().unwrap().to_owned()
}

/// Replaces the values that differ between any two users: ids and times.
fn without_ids(mut value: Value) -> Value {
    fn clear(value: &mut Value) {
        match value {
            Value::Object(entries) => {
                for (key, value) in entries {
                    if matches!(
                        key.as_str(),
                        "id" | "at" | "createdAt" | "email" | "entityId" | "cursor"
                    ) {
                        *value = json!("…");
                    }
                    clear(value);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(clear),
            _ => {}
        }
    }
    clear(&mut value);
    value
}

#[tokio::test]
async fn whoever_makes_an_account_first_gains_nothing_elsewhere() {
    let app = TestApp::new().await;
    let (alfa, bravo, charlie) =
        (app.team("alfa").await, app.team("bravo").await, app.team("charlie").await);
    let email = "cfo@corp.example";
    create(&app, &alfa, email, PASSWORD).await.data();
    let before = token(&app, email, PASSWORD).await; // Opened before the others invite.
    for team in [&bravo, &charlie] {
        create(&app, team, email, GIVEN).await.data();
    }
    let later = token(&app, email, PASSWORD).await;
    for bearer in [&before, &later] {
        for team in [&bravo, &charlie] {
            let org = team.org.id.to_string();
            let switch = app.ask(bearer.as_str(), SWITCH, json!({ "org": org })).await;
            assert_eq!(switch.code(), "NOT_FOUND");
            for given in [PASSWORD, "", NEW] {
                let variables =
                    json!({ "org": org, "password": PASSWORD, "given": given, "new": NEW });
                let accept = app.ask(bearer.as_str(), ACCEPT, variables).await;
                assert_eq!(accept.code(), "VALIDATION", "the maker does not know what {org} gave");
            }
        }
        let seen = app
            .ask(bearer.as_str(), "{ viewer { organizations { slug } permissions } }", nothing())
            .await;
        assert_eq!(seen.data()["viewer"]["organizations"], json!([{ "slug": "alfa" }]));
    }
    assert_eq!(
        login(&app, email, GIVEN).await.code(),
        "UNAUTHENTICATED",
        "the password is not the account's"
    );
    // The maker's own reset changes nothing.
    let id =
        app.ask(before.as_str(), "{ viewer { actor { ... on User { id } } } }", nothing()).await;
    let id = id.data()["viewer"]["actor"]["id"].clone();
    let reset = "mutation($id: ID!, $password: String) { updateUser(id: $id, input: { password: $password }) { id } }";
    let variables = json!({ "id": id, "password": NEW });
    app.ask(alfa["admin"].bearer.as_str(), reset, variables).await.data();
    let reset = token(&app, email, NEW).await;
    let switch = app.ask(reset.as_str(), SWITCH, json!({ "org": bravo.org.id.to_string() })).await;
    assert_eq!(switch.code(), "NOT_FOUND");
    let rows = app.test.superuser().await;
    let count: i64 = rows
        .query_one("SELECT count(*) FROM membership JOIN \"user\" ON id = user_id WHERE email = $1 AND active", &[&email])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 1);
}

#[tokio::test]
async fn an_invited_person_joins_with_both_passwords() {
    let app = TestApp::new().await;
    let (alfa, bravo) = (app.team("alfa").await, app.team("bravo").await);
    let person = &alfa["viewer"];
    create(&app, &bravo, &person.email, GIVEN).await.data();
    let other_session = token(&app, &person.email, PASSWORD).await;
    let bearer = person.bearer.as_str();
    let invitations = app
        .ask(bearer, "{ viewer { invitations { organization { slug } invitedBy at } } }", nothing())
        .await;
    let invitation = &invitations.data()["viewer"]["invitations"][0];
    assert_eq!(invitation["organization"]["slug"], "bravo");
    assert_eq!(invitation["invitedBy"], "bravo admin");

    let org = bravo.org.id.to_string();
    let given = |password: &str, given: &str, new: Option<&str>| json!({ "org": org, "password": password, "given": given, "new": new });
    let missing = app.ask(bearer, ACCEPT, given(PASSWORD, GIVEN, None)).await;
    assert_eq!(missing.faults(), ["newPassword"], "an organization set the password");
    let weak = app.ask(bearer, ACCEPT, given(PASSWORD, GIVEN, Some("short"))).await;
    assert_eq!(weak.faults(), ["newPassword"]);
    for known in [PASSWORD, GIVEN] {
        let reply = app.ask(bearer, ACCEPT, given(PASSWORD, GIVEN, Some(known))).await;
        assert_eq!(reply.faults(), ["newPassword"], "an organization knows it");
    }
    let wrong = app.ask(bearer, ACCEPT, given("wrong wrong wrong", GIVEN, Some(NEW))).await;
    assert_eq!(wrong.faults(), ["password"]);
    let accepted = app.ask(bearer, ACCEPT, given(PASSWORD, GIVEN, Some(NEW))).await;
    assert_eq!(
        accepted.data()["acceptInvitation"]["organizations"],
        json!([{ "slug": "alfa" }, { "slug": "bravo" }])
    );
    let ended = app.ask(other_session.as_str(), "{ viewer { permissions } }", nothing()).await;
    assert_eq!(ended.code(), "UNAUTHENTICATED", "the other sessions end");
    let switch = app.ask(bearer, SWITCH, json!({ "org": org })).await;
    let there = switch.data()["switchOrganization"]["accessToken"].as_str().unwrap().to_owned();
    let users = app.ask(there.as_str(), "{ users(first: 1) { nodes { id } } }", nothing()).await;
    users.data();
    assert_eq!(login(&app, &person.email, PASSWORD).await.code(), "UNAUTHENTICATED");
    token(&app, &person.email, NEW).await;
    let again = app.ask(there.as_str(), ACCEPT, given(NEW, GIVEN, None)).await;
    assert_eq!(again.code(), "NOT_FOUND");
}

#[tokio::test]
async fn an_invitation_can_be_declined_withdrawn_and_renewed() {
    let app = TestApp::new().await;
    let (alfa, bravo) = (app.team("alfa").await, app.team("bravo").await);
    let person = &alfa["viewer"];
    let made = create(&app, &bravo, &person.email, GIVEN).await;
    let (id, org) = (made.data()["createUser"]["id"].clone(), bravo.org.id.to_string());
    let open = async || {
        let reply =
            app.ask(person.bearer.as_str(), "{ viewer { invitations { at } } }", nothing()).await;
        reply.data()["viewer"]["invitations"].as_array().unwrap().len()
    };
    let decline = "mutation($org: ID!) { declineInvitation(organization: $org) }";
    app.ask(person.bearer.as_str(), decline, json!({ "org": org })).await.data();
    let again = app.ask(person.bearer.as_str(), decline, json!({ "org": org })).await;
    assert_eq!((again.code(), open().await), ("NOT_FOUND", 0));
    let admin = bravo["admin"].bearer.as_str();
    let renew = "mutation($id: ID!) { updateUser(id: $id, input: { active: true }) { active } }";
    app.ask(admin, renew, json!({ "id": id })).await.data();
    assert_eq!(open().await, 1);
    let withdraw = "mutation($id: ID!) { deactivateUser(user: $id) { active } }";
    let withdrawn = app.ask(admin, withdraw, json!({ "id": id })).await;
    assert_eq!((&withdrawn.data()["deactivateUser"]["active"], open().await), (&json!(false), 0));
}

/// Creates a user with an e-mail that has an account, or not, and returns everything that the inviter can read.
async fn seen_by_inviter(app: &TestApp, team: &Team, email: &str) -> Vec<Value> {
    let admin: &Person = &team["admin"];
    let made = create(app, team, email, GIVEN).await;
    let id = made.data()["createUser"]["id"].clone();
    let mut seen = vec![made.json.clone()];
    let twice = create(app, team, email, GIVEN).await;
    assert_eq!(twice.code(), "CONFLICT");
    seen.push(twice.json);
    for document in [
        "mutation($id: ID!) { updateUser(id: $id, input: { name: \"Another Name\" }) { name active lastSeenAt } }",
        "mutation($id: ID!) { updateUser(id: $id, input: { password: \"a password that is long\" }) { name active } }",
        "mutation($id: ID!) { updateUser(id: $id, input: { email: \"new@x.example\" }) { email } }",
        "mutation($id: ID!) { setUserRoles(user: $id, roles: [\"viewer\"]) { name roles { key } } }",
        "query($id: ID!) { node(id: $id) { ... on User { name email active mfaEnabled lastSeenAt createdAt roles { key } } } }",
        "mutation($id: ID!) { createAsset(input: { name: \"laptop\", type: HOST, owner: $id }) { owner { name } } }",
        "mutation($id: ID!) { revokeUserSessions(user: $id) }",
        "mutation($id: ID!) { deactivateUser(user: $id) { active } }",
        "mutation($id: ID!) { updateUser(id: $id, input: { active: true }) { active } }",
    ] {
        seen.push(app.ask(admin.bearer.as_str(), document, json!({ "id": id })).await.json);
    }
    let trail = "query($id: ID) { auditEntries(filter: { entityId: $id }) { nodes { action changedPaths before after } } }";
    seen.push(app.ask(team["owner"].bearer.as_str(), trail, json!({ "id": id })).await.json);
    seen.into_iter().map(without_ids).collect()
}

#[tokio::test]
async fn the_inviter_cannot_tell_an_account_from_a_new_one() {
    let app = TestApp::new().await;
    let (alfa, bravo) = (app.team("alfa").await, app.team("bravo").await);
    let known = seen_by_inviter(&app, &bravo, &alfa["operator"].email).await;
    let unknown = seen_by_inviter(&app, &bravo, "nobody@nowhere.example").await;
    for (known, unknown) in known.iter().zip(&unknown) {
        let normal = |value: &Value| {
            value
                .to_string()
                .replace(&alfa["operator"].email, "…")
                .replace("nobody@nowhere.example", "…")
        };
        assert_eq!(normal(known), normal(unknown));
    }
    // Ids tell no age: those of new users have any time since the installation was set up.
    let ids = app.test.superuser().await;
    let sql = "SELECT id FROM \"user\" WHERE email = 'nobody@nowhere.example'";
    let id: uuid::Uuid = ids.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(id.get_version_num(), 7);
}
