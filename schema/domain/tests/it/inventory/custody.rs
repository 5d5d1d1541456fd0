//! Tests of custody: check-out, check-in, and the records of both.

use domain::{
    Actor, Id, Origin, Result,
    access::audit::{AuditEntry, AuditQuery},
    base::page::PageRequest,
    entity::{AssetId, UserId},
    inventory::{
        asset::{Asset, LifecycleState},
        change::Change,
        custody::Custody,
    },
};

use crate::harness::{
    A_LOCK_IS_AWAITED, TestOrg, assert_not_found, at, conflict, faults, host, organization, until,
};

const ALL: PageRequest = PageRequest { size: 100, backward: false, after: None, before: None };

/// Returns an organization with a laptop, and the members Ada and Bob.
async fn setup() -> (TestOrg, AssetId, [UserId; 2]) {
    let test = TestOrg::new().await;
    let people =
        [test.person("ada@x.com", &["viewer"]).await, test.person("bob@x.com", &["viewer"]).await];
    let laptop = test.asset(host("laptop")).await.id;
    (test, laptop, people)
}

fn by(user: UserId) -> Origin {
    Origin { actor: Actor::User(user), source_ip: None, request_id: None }
}

async fn check_out(
    test: &TestOrg,
    asset: AssetId,
    holder: UserId,
    notes: Option<&str>,
    now: i64,
) -> Result<Custody> {
    let tx = test.db.write(test.org, by(holder)).await.unwrap();
    let custody = Custody::check_out(&tx, asset, holder, notes, at(now)).await?;
    tx.commit().await?;
    Ok(custody)
}

async fn check_in(
    test: &TestOrg,
    asset: AssetId,
    notes: Option<&str>,
    now: i64,
) -> Result<Custody> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let custody = Custody::check_in(&tx, asset, notes, at(now)).await?;
    tx.commit().await?;
    Ok(custody)
}

#[tokio::test]
async fn what_is_checked_out_is_held_until_it_is_checked_in() {
    let (test, laptop, [ada, _]) = setup().await;
    let out = check_out(&test, laptop, ada, Some(" with its charger "), 1).await.unwrap();
    assert_eq!((out.asset_id, out.holder_id), (laptop, ada));
    assert_eq!(out.notes.as_deref(), Some("with its charger"));
    assert_eq!((out.checked_out_at, out.checked_out_by), (at(1), Actor::User(ada)));
    assert_eq!((&out.return_notes, out.checked_in_at, out.checked_in_by), (&None, None, None));
    let tx = test.db.read(test.org).await.unwrap();
    assert_eq!(Custody::find(&tx, out.id).await.unwrap().as_ref(), Some(&out));
    assert_eq!(Custody::open_of(&tx, &[laptop]).await.unwrap(), std::slice::from_ref(&out));
    tx.commit().await.unwrap();
    let back = check_in(&test, laptop, Some("scratched"), 9).await.unwrap();
    let expected = Custody {
        return_notes: Some("scratched".into()),
        checked_in_at: Some(at(9)),
        checked_in_by: Some(Actor::System),
        ..out
    };
    assert_eq!(back, expected);
    let tx = test.db.read(test.org).await.unwrap();
    assert!(Custody::open_of(&tx, &[laptop]).await.unwrap().is_empty());
    assert_eq!(Custody::find(&tx, back.id).await.unwrap(), Some(back));
}

#[tokio::test]
async fn a_second_check_out_says_who_has_it_since_when() {
    let (test, laptop, [ada, bob]) = setup().await;
    check_out(&test, laptop, ada, None, 1).await.unwrap();
    for holder in [ada, bob] {
        assert_eq!(
            conflict(check_out(&test, laptop, holder, None, 2).await),
            "the asset has been checked out to ada since 2027-01-15T08:00:01Z: check the asset in first"
        );
    }
    check_in(&test, laptop, None, 3).await.unwrap();
    check_out(&test, laptop, bob, None, 4).await.unwrap();
}

#[tokio::test]
async fn of_two_check_outs_at_once_one_is_told_who_was_first() {
    let (test, laptop, [ada, bob]) = setup().await;
    let first = test.db.write(test.org, by(ada)).await.unwrap();
    Custody::check_out(&first, laptop, ada, None, at(1)).await.unwrap();
    let (db, org) = (test.db.db.clone(), test.org);
    let second = tokio::spawn(async move {
        let tx = db.write(org, by(bob)).await.unwrap();
        Custody::check_out(&tx, laptop, bob, None, at(2)).await
    });
    until(&test.db.superuser().await, A_LOCK_IS_AWAITED).await;
    first.commit().await.unwrap();
    assert_eq!(
        conflict(second.await.unwrap()),
        "the asset has been checked out to ada since 2027-01-15T08:00:01Z: check the asset in first"
    );
    let tx = test.db.read(test.org).await.unwrap();
    assert_eq!(Custody::open_of(&tx, &[laptop]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_two_check_outs_at_once_the_second_succeeds_if_the_first_is_given_up() {
    let (test, laptop, [ada, bob]) = setup().await;
    let first = test.db.write(test.org, by(ada)).await.unwrap();
    Custody::check_out(&first, laptop, ada, None, at(1)).await.unwrap();
    let (db, org) = (test.db.db.clone(), test.org);
    let second = tokio::spawn(async move {
        let tx = db.write(org, by(bob)).await.unwrap();
        let custody = Custody::check_out(&tx, laptop, bob, None, at(2)).await?;
        tx.commit().await?;
        Ok::<_, domain::Error>(custody)
    });
    until(&test.db.superuser().await, A_LOCK_IS_AWAITED).await;
    first.rollback().await.unwrap();
    assert_eq!(second.await.unwrap().unwrap().holder_id, bob);
}

#[tokio::test]
async fn what_nobody_holds_is_not_checked_in() {
    let (test, laptop, [ada, _]) = setup().await;
    let sentence = "the asset is not checked out";
    assert_eq!(conflict(check_in(&test, laptop, None, 1).await), sentence);
    check_out(&test, laptop, ada, None, 2).await.unwrap();
    check_in(&test, laptop, None, 3).await.unwrap();
    assert_eq!(conflict(check_in(&test, laptop, None, 4).await), sentence);
}

#[tokio::test]
async fn bad_input_is_refused() {
    let (test, laptop, [ada, _]) = setup().await;
    let long = "x".repeat(4097);
    let too_long = ["notes has 4097 characters, at most 4096 are allowed"];
    assert_eq!(faults(check_out(&test, laptop, ada, Some(&long), 1).await), too_long);
    assert_eq!(faults(check_in(&test, laptop, Some(&long), 1).await), too_long);
    assert_not_found(check_out(&test, Id::new(), ada, None, 1).await);
    assert_not_found(check_in(&test, Id::new(), None, 1).await);
    let sentence = "the holder is not a member of this organization";
    assert_eq!(conflict(check_out(&test, laptop, Id::new(), None, 1).await), sentence);
    let evil = organization(&test.db, "evil").await;
    let stranger = crate::harness::person(&test.db, evil, "eve@x.com", &["viewer"]).await;
    assert_eq!(conflict(check_out(&test, laptop, stranger, None, 1).await), sentence);
}

#[tokio::test]
async fn the_history_is_newest_first_and_paged() {
    let (test, laptop, [ada, bob]) = setup().await;
    let other = test.asset(host("phone")).await.id;
    for now in 0..5 {
        let holder = if now % 2 == 0 { ada } else { bob };
        check_out(&test, laptop, holder, None, now * 10).await.unwrap();
        check_in(&test, laptop, None, now * 10 + 5).await.unwrap();
    }
    check_out(&test, other, ada, None, 100).await.unwrap();
    let tx = test.db.read(test.org).await.unwrap();
    let first = PageRequest { size: 2, ..ALL };
    let mut pages = Custody::of_assets(&tx, &[laptop, other], &first).await.unwrap();
    let (laptops, others) = (pages.remove(&laptop).unwrap(), pages.remove(&other).unwrap());
    let times = |page: &domain::base::page::Page<Custody>| {
        page.rows.iter().map(|row| row.checked_out_at).collect::<Vec<_>>()
    };
    assert_eq!((times(&laptops), laptops.has_next), (vec![at(40), at(30)], true));
    assert_eq!((times(&others), others.has_next), (vec![at(100)], false));
    let rest = PageRequest { size: 9, after: Some(laptops.rows[1].position()), ..ALL };
    let rest = Custody::of_assets(&tx, &[laptop], &rest).await.unwrap().remove(&laptop).unwrap();
    assert_eq!(
        (times(&rest), rest.has_next, rest.has_previous),
        (vec![at(20), at(10), at(0)], false, true)
    );
    let counts = Custody::count_of_assets(&tx, &[laptop, other]).await.unwrap();
    assert_eq!((counts[&laptop], counts[&other]), (5, 1));
}

#[tokio::test]
async fn custody_stands_in_the_assets_changes() {
    let (test, laptop, [ada, bob]) = setup().await;
    check_out(&test, laptop, ada, Some("for travel"), 1).await.unwrap();
    check_in(&test, laptop, Some("scratched"), 2).await.unwrap();
    check_out(&test, laptop, bob, None, 3).await.unwrap();
    let tx = test.db.read(test.org).await.unwrap();
    let page = Change::of_assets(&tx, &[laptop], &ALL).await.unwrap().remove(&laptop).unwrap();
    let messages: Vec<_> = page
        .rows
        .iter()
        .map(|change| (change.action.as_str(), change.actor, change.paths.join(" ")))
        .collect();
    let [out_again, back, out, created] = &messages[..] else { panic!("{messages:?}") };
    let paths = |paths: &str| paths.to_owned();
    assert_eq!(*out_again, ("asset.checked_out", Actor::User(bob), paths("custody.holder")));
    let all = paths("custody.holder custody.notes custody.returnNotes");
    assert_eq!(*back, ("asset.checked_in", Actor::System, all));
    let both = paths("custody.holder custody.notes");
    assert_eq!(*out, ("asset.checked_out", Actor::User(ada), both));
    assert_eq!(created.0, "asset.created");
}

#[tokio::test]
async fn changes_are_paged_for_each_asset_by_itself() {
    let (test, laptop, [ada, _]) = setup().await;
    let phone = test.asset(host("phone")).await.id;
    check_out(&test, laptop, ada, None, 1).await.unwrap();
    let tx = test.db.read(test.org).await.unwrap();
    let first = PageRequest { size: 1, ..ALL };
    let pages = Change::of_assets(&tx, &[laptop, phone], &first).await.unwrap();
    assert_eq!(
        (pages[&laptop].rows[0].action.as_str(), pages[&laptop].has_next),
        ("asset.checked_out", true)
    );
    assert_eq!(
        (pages[&phone].rows[0].action.as_str(), pages[&phone].has_next),
        ("asset.created", false)
    );
    let counts = Change::count_of_assets(&tx, &[laptop, phone, Id::new()]).await.unwrap();
    assert_eq!((counts[&laptop], counts[&phone], counts.len()), (2, 1, 2));
    let rest = PageRequest { after: Some(pages[&laptop].rows[0].position()), ..ALL };
    let rest = Change::of_assets(&tx, &[laptop], &rest).await.unwrap().remove(&laptop).unwrap();
    assert_eq!((rest.rows.len(), rest.rows[0].action.as_str()), (1, "asset.created"));
}

#[tokio::test]
async fn custody_goes_with_its_asset() {
    let (test, laptop, [ada, _]) = setup().await;
    let custody = check_out(&test, laptop, ada, None, 1).await.unwrap();
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    Asset::set_lifecycle(&tx, laptop, LifecycleState::Retired, at(2)).await.unwrap();
    Asset::delete(&tx, laptop, at(3)).await.unwrap();
    tx.commit().await.unwrap();
    let tx = test.db.read(test.org).await.unwrap();
    assert_eq!(Custody::find(&tx, custody.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_foreign_organization_sees_and_touches_nothing() {
    let (test, laptop, [ada, _]) = setup().await;
    let custody = check_out(&test, laptop, ada, None, 1).await.unwrap();
    let evil = organization(&test.db, "evil").await;
    let tx = test.db.write(evil, Origin::system()).await.unwrap();
    assert_eq!(Custody::find(&tx, custody.id).await.unwrap(), None);
    assert!(Custody::open_of(&tx, &[laptop]).await.unwrap().is_empty());
    let pages = Custody::of_assets(&tx, &[laptop], &ALL).await.unwrap();
    assert!(pages[&laptop].rows.is_empty());
    assert!(Custody::count_of_assets(&tx, &[laptop]).await.unwrap().is_empty());
    assert!(Change::of_assets(&tx, &[laptop], &ALL).await.unwrap()[&laptop].rows.is_empty());
    assert!(Change::count_of_assets(&tx, &[laptop]).await.unwrap().is_empty());
    assert_not_found(Custody::check_in(&tx, laptop, None, at(2)).await);
    assert_not_found(Custody::check_out(&tx, laptop, ada, None, at(2)).await);
}

#[tokio::test]
async fn an_asset_that_goes_is_taken_back_first() {
    let (test, laptop, [ada, _]) = setup().await;
    check_out(&test, laptop, ada, Some("for the road"), 1).await.unwrap();
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    Asset::set_lifecycle(&tx, laptop, LifecycleState::Retired, at(2)).await.unwrap();
    Asset::delete(&tx, laptop, at(3)).await.unwrap();
    let query = AuditQuery { action: Some("asset.checked_in".into()), ..Default::default() };
    let entries = AuditEntry::list(&tx, &query, &ALL).await.unwrap().rows;
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(entry.entity_id, laptop.uuid());
    assert_eq!(entry.changed_paths, ["custody.holder", "custody.notes"]);
}
