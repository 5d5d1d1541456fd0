//! Waivers: what may fail, until when, and who granted it.

use chrono::TimeDelta;
use domain::{
    Actor, Id, Origin, Result,
    base::page::PageRequest,
    compliance::{
        rule::Severity,
        waiver::{Waiver, WaiverInput, WaiverState},
    },
    entity::{AssetId, RuleId, WaiverId},
    testing::compliance::{RuleContent, RuleFixture},
};
use tokio_postgres::Row;

use crate::harness::{
    A_LOCK_IS_AWAITED, TestOrg, assert_not_found, at, conflict, faults, host, organization, until,
};

const ALL: PageRequest = PageRequest { size: 100, backward: false, after: None, before: None };

/// Returns an organization with a laptop and two rules.
async fn setup() -> (TestOrg, AssetId, [RuleId; 2]) {
    let test = TestOrg::new().await;
    let laptop = test.asset(host("laptop")).await.id;
    let content = RuleContent { condition: "attr.disk_encrypted", evidence: &[], controls: &[] };
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let disk = RuleFixture::insert(&tx, "disk", 0, Severity::High, content, at(0)).await.unwrap();
    let other = RuleFixture::insert(&tx, "other", 1, Severity::Low, content, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    (test, laptop, [disk.id, other.id])
}

fn input(rule: RuleId, asset: Option<AssetId>, until: i64) -> WaiverInput {
    WaiverInput { rule, asset, reason: " new disks come in May ".into(), expires_at: at(until) }
}

async fn grant(test: &TestOrg, input: &WaiverInput, now: i64) -> Result<Waiver> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let waiver = Waiver::grant(&tx, input, at(now)).await?;
    tx.commit().await?;
    Ok(waiver)
}

async fn revoke(test: &TestOrg, id: WaiverId, now: i64) -> Result<Waiver> {
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    let waiver = Waiver::revoke(&tx, id, at(now)).await?;
    tx.commit().await?;
    Ok(waiver)
}

/// Returns the ids of the active waivers.
async fn active(test: &TestOrg, now: i64) -> Vec<WaiverId> {
    let tx = test.db.read(test.org).await.unwrap();
    let waivers = Waiver::active(&tx, at(now)).await.unwrap();
    waivers.into_iter().map(|waiver| waiver.id).collect()
}

#[tokio::test]
async fn a_waiver_holds_until_its_time_is_over() {
    let (test, laptop, [disk, _]) = setup().await;
    let granted = grant(&test, &input(disk, Some(laptop), 60), 1).await.unwrap();
    assert_eq!((granted.rule_id, granted.asset_id), (disk, Some(laptop)));
    assert_eq!(granted.reason, "new disks come in May");
    assert_eq!((granted.granted_by, granted.granted_at), (Actor::System, at(1)));
    assert_eq!(granted.state(at(59)), WaiverState::Active);
    assert_eq!(granted.state(at(60)), WaiverState::Expired);
    assert_eq!(active(&test, 59).await, [granted.id]);
    assert!(active(&test, 60).await.is_empty());
    let tx = test.db.read(test.org).await.unwrap();
    assert_eq!(Waiver::get(&tx, granted.id).await.unwrap(), granted);
}

#[tokio::test]
async fn a_waiver_is_ended_before_its_time_once() {
    let (test, laptop, [disk, _]) = setup().await;
    let granted = grant(&test, &input(disk, Some(laptop), 60), 1).await.unwrap();
    let revoked = revoke(&test, granted.id, 9).await.unwrap();
    let expected =
        Waiver { revoked_by: Some(Actor::System), revoked_at: Some(at(9)), ..granted.clone() };
    assert_eq!((&revoked, revoked.state(at(9))), (&expected, WaiverState::Revoked));
    assert!(active(&test, 9).await.is_empty());
    let again = revoke(&test, granted.id, 10).await;
    assert_eq!(conflict(again), "the waiver has ended already: it is REVOKED");
    let expired = grant(&test, &input(disk, Some(laptop), 60), 11).await.unwrap();
    let late = revoke(&test, expired.id, 60).await;
    assert_eq!(conflict(late), "the waiver has ended already: it is EXPIRED");
    assert_not_found(revoke(&test, Id::new(), 60).await);
}

#[tokio::test]
async fn what_is_allowed_already_is_not_allowed_again() {
    let (test, laptop, [disk, other]) = setup().await;
    let first = grant(&test, &input(disk, Some(laptop), 60), 1).await.unwrap();
    assert_eq!(
        conflict(grant(&test, &input(disk, Some(laptop), 90), 2).await),
        format!(
            "the waiver {} already covers this rule and scope until 2027-01-15T08:01:00Z; revoke it before granting another",
            first.id
        )
    );
    for other in [input(disk, None, 60), input(other, Some(laptop), 60)] {
        grant(&test, &other, 2).await.unwrap();
        conflict(grant(&test, &other, 3).await);
    }
    revoke(&test, first.id, 4).await.unwrap();
    let second = grant(&test, &input(disk, Some(laptop), 60), 5).await.unwrap();
    let third = grant(&test, &input(disk, Some(laptop), 90), 60).await.unwrap();
    let tx = test.db.read(test.org).await.unwrap();
    let listed = Waiver::list(&tx, &ALL).await.unwrap().rows;
    assert_eq!((listed[0].id, listed[1].id, listed.len()), (third.id, second.id, 5));
    assert_eq!(Waiver::count(&tx).await.unwrap(), 5);
}

#[tokio::test]
async fn of_two_equal_grants_at_once_one_is_refused() {
    let (test, laptop, [disk, _]) = setup().await;
    let first = test.db.write(test.org, Origin::system()).await.unwrap();
    Waiver::grant(&first, &input(disk, Some(laptop), 60), at(1)).await.unwrap();
    let (db, org) = (test.db.db.clone(), test.org);
    let second = tokio::spawn(async move {
        let tx = db.write(org, Origin::system()).await.unwrap();
        Waiver::grant(&tx, &input(disk, Some(laptop), 90), at(2)).await
    });
    until(&test.db.superuser().await, A_LOCK_IS_AWAITED).await;
    first.commit().await.unwrap();
    assert!(conflict(second.await.unwrap()).ends_with("revoke it before granting another"));
}

#[tokio::test]
async fn a_waiver_without_end_reason_rule_or_asset_is_refused() {
    let (test, laptop, [disk, _]) = setup().await;
    let too_long = TimeDelta::days(366).num_seconds() + 2;
    for (until, message) in [
        (1, "is not in the future; a waiver must expire at a later time"),
        (-60, "is not in the future; a waiver must expire at a later time"),
        (
            too_long,
            "is more than 366 days ahead; give an earlier time and grant the waiver again when it expires",
        ),
    ] {
        let refused = faults(grant(&test, &input(disk, Some(laptop), until), 1).await);
        assert_eq!(refused, [format!("input.expiresAt {message}")]);
    }
    let silent = WaiverInput { reason: " ".into(), ..input(disk, None, 60) };
    assert_eq!(faults(grant(&test, &silent, 1).await), ["input.reason must not be empty"]);
    assert_not_found(grant(&test, &input(Id::new(), Some(laptop), 60), 1).await);
    assert_not_found(grant(&test, &input(disk, Some(Id::new()), 60), 1).await);
    assert!(active(&test, 1).await.is_empty());
}

#[tokio::test]
async fn whom_a_waiver_concerns_is_judged_anew_when_it_begins_and_ends() {
    let (test, laptop, [disk, _]) = setup().await;
    let one = grant(&test, &input(disk, Some(laptop), 60), 1).await.unwrap();
    grant(&test, &input(disk, None, 60), 2).await.unwrap();
    revoke(&test, one.id, 3).await.unwrap();
    let tx = test.db.read(test.org).await.unwrap();
    let due = "SELECT asset_id, reads FROM posture_due ORDER BY id";
    let due: Vec<Row> = tx.all(due, &[]).await.unwrap();
    let count_marked = |row: &Row| -> (Option<AssetId>, Option<Vec<String>>) {
        (row.get("asset_id"), row.get("reads"))
    };
    let due: Vec<_> = due.iter().map(count_marked).collect();
    let reads = Some(vec!["rule.disk".to_owned()]);
    let expected = [
        (Some(laptop), None), // The asset was created.
        (Some(laptop), reads.clone()),
        (None, None),
        (Some(laptop), reads),
    ];
    assert_eq!(due, expected);
    let recorded = test.audit().await;
    let ends = ["waiver.granted by system", "waiver.granted by system", "waiver.revoked by system"];
    assert!(recorded.ends_with(&ends.map(str::to_owned)), "{recorded:?}");
}

#[tokio::test]
async fn the_waivers_of_another_organization_are_not_there() {
    let (test, laptop, [disk, _]) = setup().await;
    let ours = grant(&test, &input(disk, Some(laptop), 60), 1).await.unwrap();
    let evil = organization(&test.db, "evil").await;
    let tx = test.db.write(evil, Origin::system()).await.unwrap();
    assert_eq!(Waiver::find(&tx, ours.id).await.unwrap(), None);
    assert!(Waiver::of_ids(&tx, &[ours.id]).await.unwrap().is_empty());
    assert!(Waiver::active(&tx, at(2)).await.unwrap().is_empty());
    assert!(Waiver::list(&tx, &ALL).await.unwrap().rows.is_empty());
    assert_not_found(Waiver::revoke(&tx, ours.id, at(2)).await);
    assert_not_found(Waiver::grant(&tx, &input(disk, None, 60), at(2)).await);
    assert_not_found(Waiver::grant(&tx, &input(disk, Some(laptop), 60), at(2)).await);
}
