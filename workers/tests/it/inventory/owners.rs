//! Owners in imported files, which tell who is a member.

use domain::{
    Actor, Origin,
    access::user::{CreateUserInput, User},
    base::run_state::RunState,
    inventory::import::{ImportFormat, ImportKind, ImportOrder},
};
use serde_json::json;

use crate::{
    harness::{TestFleet, at},
    inventory::import::{ended, errors, order, send_as},
};

/// Creates a member with this role.
async fn member(fleet: &TestFleet, role: &str) -> Actor {
    let input = CreateUserInput {
        email: format!("{role}@acme.example"),
        name: role.to_owned(),
        password: "not used".to_owned(),
        roles: vec![role.to_owned()],
    };
    let tx = fleet.db.auth(Origin::system()).await.unwrap();
    let user = User::create(&tx, fleet.org, None, &input, "not a hash", at()).await.unwrap();
    tx.commit().await.unwrap();
    Actor::User(user.id)
}

#[tokio::test]
async fn an_importer_who_may_not_see_users_learns_of_no_address_whose_it_is() {
    let fleet = TestFleet::new().await;
    let admin = member(&fleet, "admin").await;
    let operator = member(&fleet, "operator").await;
    fleet.start();
    let rows = ["admin@acme.example", "nobody@acme.example"].map(
        |owner| json!({ "external_id": owner, "name": "web", "type": "HOST", "owner": owner }),
    );
    let file = json!(rows).to_string();
    for dry_run in [true, false] {
        let order = ImportOrder { dry_run, ..order(ImportKind::Assets, ImportFormat::Json) };
        let run = ended(&fleet, send_as(&fleet, operator, &order, &file).await).await;
        assert_eq!((run.state, run.created, run.failed), (RunState::Succeeded, 0, 2));
        let refused =
            "owner: needs the permission USER_READ, because it tells who is a member: leave it out";
        assert_eq!(errors(&fleet, run.id).await, [1, 2].map(|row| format!("{row} {refused}")));
        let order = ImportOrder { dry_run: true, ..order };
        let run = ended(&fleet, send_as(&fleet, admin, &order, &file).await).await;
        assert_eq!((run.created, run.failed), (1, 1));
    }
}
