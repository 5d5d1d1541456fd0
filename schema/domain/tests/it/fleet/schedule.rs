//! Schedules: saving them, and that each occurrence is claimed once, however many workers poll and however often.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use domain::{
    Actor, Error, Id, Origin, Result, Viewer,
    access::permission::{BuiltinRole, Permission, PermissionSet},
    entity::{OrganizationId, ScheduleId, UserId},
    fleet::schedule::{Cron, Occurrence, Schedule, ScheduleAction, ScheduleInput},
};

use crate::harness::{
    TestOrg, assert_not_found, at, faults, forbidden, organization, person, viewer, viewer_with,
};

fn input(name: &str, cron: &str, time_zone: &str) -> ScheduleInput {
    ScheduleInput {
        name: name.into(),
        cron: cron.into(),
        time_zone: time_zone.into(),
        action: ScheduleAction::ComplianceRun,
        enabled: true,
    }
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

async fn save(
    test: &TestOrg,
    by: &Viewer,
    input: &ScheduleInput,
    now: DateTime<Utc>,
) -> Result<Schedule> {
    let origin = Origin { actor: by.actor, ..Origin::system() };
    let tx = test.db.write(by.org, origin).await.unwrap();
    let saved = Schedule::save(&tx, by, input, now).await;
    if saved.is_ok() {
        tx.commit().await.unwrap();
    }
    saved
}

async fn operator(test: &TestOrg, email: &str) -> Viewer {
    let user = test.person(email, &["operator"]).await;
    viewer(test.org, user, BuiltinRole::Operator)
}

/// Polls once as a worker would, and commits.
async fn claim(test: &TestOrg, now: DateTime<Utc>) -> Vec<Occurrence> {
    let tx = test.db.fleet().await.unwrap();
    let occurrences = Schedule::claim_due(&tx, now, 100).await.unwrap();
    tx.commit().await.unwrap();
    occurrences
}

async fn find(test: &TestOrg, id: ScheduleId) -> Schedule {
    Schedule::find(&test.db.read(test.org).await.unwrap(), id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_schedule_is_made_and_changed_by_its_name() {
    let test = TestOrg::new().await;
    let (ada, bob) = (operator(&test, "ada@x.com").await, operator(&test, "bob@x.com").await);
    let noon = utc("2026-06-01T12:00:00Z");
    let made = save(&test, &ada, &input(" nightly ", " 0  2 * * * ", "Europe/Berlin"), noon)
        .await
        .unwrap();
    assert_eq!((made.name.as_str(), made.cron.as_str()), ("nightly", "0 2 * * *"));
    assert_eq!((made.actor, made.last_run_at), (ada.actor, None));
    assert_eq!(made.next_tick, Some(utc("2026-06-02T00:00:00Z")));
    let jitter = made.next_run_at.unwrap() - made.next_tick.unwrap();
    assert!((TimeDelta::zero()..TimeDelta::minutes(1)).contains(&jitter));
    assert_eq!(find(&test, made.id).await, made);

    let again = save(
        &test,
        &ada,
        &input("nightly", "0 2 * * *", "Europe/Berlin"),
        noon + TimeDelta::hours(1),
    )
    .await;
    assert_eq!(again.unwrap(), made, "nothing differs");
    let changed = save(&test, &bob, &input("nightly", "0 3 * * *", "UTC"), noon).await.unwrap();
    assert_eq!(
        (changed.id, changed.actor, changed.created_at),
        (made.id, bob.actor, made.created_at)
    );
    assert_eq!(changed.next_tick, Some(utc("2026-06-02T03:00:00Z")));
    assert_eq!(
        changed.next_run_at.unwrap() - changed.next_tick.unwrap(),
        jitter,
        "always the same"
    );
    let off = ScheduleInput { enabled: false, ..input("nightly", "0 3 * * *", "UTC") };
    let off = save(&test, &bob, &off, noon).await.unwrap();
    assert_eq!((off.next_tick, off.next_run_at), (None, None));
    assert!(claim(&test, noon + TimeDelta::days(9)).await.is_empty());
    let on = save(&test, &bob, &input("nightly", "0 3 * * *", "UTC"), noon + TimeDelta::days(9))
        .await
        .unwrap();
    assert_eq!(
        on.next_tick,
        Some(utc("2026-06-11T03:00:00Z")),
        "what it missed while it was off is not done"
    );
    save(&test, &ada, &input("another", "0 0 1 * *", "UTC"), noon).await.unwrap();
    let listed = Schedule::list(&test.db.read(test.org).await.unwrap()).await.unwrap();
    assert_eq!(
        listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
        ["another", "nightly"]
    );
    let audited = test.audit().await;
    let audited: Vec<_> = audited.iter().filter(|entry| entry.starts_with("schedule")).collect();
    assert_eq!(
        audited,
        [
            "schedule.created by user",
            "schedule.updated by user",
            "schedule.updated by user",
            "schedule.updated by user",
            "schedule.created by user"
        ]
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_all_at_once() {
    let test = TestOrg::new().await;
    let ada = operator(&test, "ada@x.com").await;
    let wrong = save(&test, &ada, &input(" ", "0 24 * * *", "Europe/Belrin"), at(0)).await;
    let Err(Error::Invalid(found)) = &wrong else { panic!("{wrong:?}") };
    let paths: Vec<_> = found.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["input.name", "input.cron", "input.timeZone"]);
    assert_eq!(found[2].suggestion.as_deref(), Some("Europe/Berlin"));
    let never = save(&test, &ada, &input("never", "0 0 30 2 *", "UTC"), at(0)).await;
    assert_eq!(faults(never), ["input.cron never matches: no such day exists in the given months"]);
    let long = save(&test, &ada, &input("long", &"0,".repeat(200), "UTC"), at(0)).await;
    assert_eq!(faults(long), ["input.cron has more than 255 characters"]);
}

#[tokio::test]
async fn nobody_schedules_what_they_may_not_do() {
    let test = TestOrg::new().await;
    let user = test.person("ada@x.com", &["viewer"]).await;
    let clerk = viewer_with(test.org, user, PermissionSet::of(&[Permission::ScheduleWrite]));
    let refused = save(&test, &clerk, &input("nightly", "0 2 * * *", "UTC"), at(0)).await;
    assert_eq!(
        forbidden(refused),
        "scheduling COMPLIANCE_RUN requires COMPLIANCE_RUN, which you lack"
    );
}

#[tokio::test]
async fn what_is_deleted_comes_no_more() {
    let test = TestOrg::new().await;
    let ada = operator(&test, "ada@x.com").await;
    let made = save(&test, &ada, &input("nightly", "0 2 * * *", "UTC"), at(0)).await.unwrap();
    let other = organization(&test.db, "other").await;
    let foreign = test.db.write(other, Origin::system()).await.unwrap();
    assert_not_found(Schedule::delete(&foreign, made.id).await);
    assert!(Schedule::find(&foreign, made.id).await.unwrap().is_none());
    assert!(Schedule::list(&foreign).await.unwrap().is_empty());
    let tx = test.db.write(test.org, Origin::system()).await.unwrap();
    Schedule::delete(&tx, made.id).await.unwrap();
    assert_not_found(Schedule::delete(&tx, made.id).await);
    tx.commit().await.unwrap();
    assert!(claim(&test, at(10_000_000)).await.is_empty());
    assert_eq!(test.audited("schedule.deleted by system").await, 1);
}

#[tokio::test]
async fn a_tick_says_for_whom_it_comes_and_is_told_from_every_other() {
    let test = TestOrg::new().await;
    let ada = operator(&test, "ada@x.com").await;
    let made =
        save(&test, &ada, &input("nightly", "0 2 * * *", "UTC"), utc("2026-06-01T12:00:00Z"))
            .await
            .unwrap();
    let due = made.next_run_at.unwrap();
    assert!(claim(&test, due - TimeDelta::milliseconds(1)).await.is_empty());
    let [occurrence] = &claim(&test, due).await[..] else { panic!("not one") };
    assert_eq!(
        (occurrence.org, occurrence.schedule, occurrence.actor),
        (test.org, made.id, ada.actor)
    );
    assert_eq!(
        (occurrence.action, occurrence.at),
        (ScheduleAction::ComplianceRun, utc("2026-06-02T02:00:00Z"))
    );
    assert_eq!(occurrence.key(), format!("{}:2026-06-02T02:00:00Z", made.id));
    let after = find(&test, made.id).await;
    assert_eq!(
        (after.last_run_at, after.next_tick),
        (Some(due), Some(utc("2026-06-03T02:00:00Z")))
    );
    assert_eq!(after.updated_at, made.updated_at, "nobody saved it");
}

#[tokio::test]
async fn what_one_scheduler_is_taking_is_left_to_it_and_taken_over_from_a_dead_one() {
    let test = TestOrg::new().await;
    let ada = operator(&test, "ada@x.com").await;
    save(&test, &ada, &input("nightly", "0 2 * * *", "UTC"), at(0)).await.unwrap();
    let now = at(0) + TimeDelta::days(1);
    let first = test.db.fleet().await.unwrap();
    let claimed = Schedule::claim_due(&first, now, 100).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert!(claim(&test, now).await.is_empty());
    drop(first); // The worker was killed.
    let taken_over = async {
        loop {
            let occurrences = claim(&test, now).await;
            if !occurrences.is_empty() {
                break occurrences;
            }
        }
    };
    let taken_over = tokio::time::timeout(std::time::Duration::from_secs(5), taken_over).await;
    assert_eq!(taken_over.unwrap(), claimed);
    assert!(claim(&test, now).await.is_empty());
}

#[tokio::test]
async fn to_save_it_between_its_tick_and_its_run_loses_no_run() {
    let test = TestOrg::new().await;
    let (ada, bob) = (operator(&test, "ada@x.com").await, operator(&test, "bob@x.com").await);
    let noon = utc("2026-06-01T12:00:00Z");
    let made = save(&test, &ada, &input("nightly", "0 2 * * *", "UTC"), noon).await.unwrap();
    let between = made.next_run_at.unwrap() + TimeDelta::seconds(5);
    let saved = save(&test, &bob, &input("nightly", "0 2 * * *", "UTC"), between).await.unwrap();
    assert_eq!((saved.next_tick, saved.actor), (made.next_tick, bob.actor));
    assert_eq!(claim(&test, between).await.len(), 1);
}

#[tokio::test]
async fn what_this_version_cannot_read_stops_without_harm_to_others() {
    let test = TestOrg::new().await;
    let ada = operator(&test, "ada@x.com").await;
    let broken = save(&test, &ada, &input("broken", "0 2 * * *", "UTC"), at(0)).await.unwrap();
    save(&test, &ada, &input("sound", "0 2 * * *", "UTC"), at(0)).await.unwrap();
    let sql = "UPDATE schedule SET time_zone = 'Mars/Olympus_Mons' WHERE name = 'broken'";
    test.db.superuser().await.batch_execute(sql).await.unwrap();
    let now = at(0) + TimeDelta::days(1);
    assert_eq!(claim(&test, now).await.len(), 2, "its time had come");
    assert_eq!(claim(&test, now + TimeDelta::days(1)).await.len(), 1);
    assert_eq!(find(&test, broken.id).await.next_run_at, None);
}

#[tokio::test]
async fn time_is_that_of_postgres() {
    let test = TestOrg::new().await;
    let tx = test.db.fleet().await.unwrap();
    let now = tx.now().await.unwrap();
    assert_eq!(tx.now().await.unwrap(), now, "one time for a transaction");
    let row =
        test.db.superuser().await.query_one("SELECT clock_timestamp() AS at", &[]).await.unwrap();
    let age = row.get::<_, DateTime<Utc>>("at") - now;
    assert!((TimeDelta::zero()..TimeDelta::minutes(1)).contains(&age));
}

/// A schedule, whose occurrences the test computes itself.
struct ScheduleFixture {
    id: ScheduleId,
    cron: Cron,
    zone: Tz,
    jitter: TimeDelta,
    saved_at: DateTime<Utc>,
}

impl ScheduleFixture {
    async fn new(test: &TestOrg, cron: &str, zone: &str, now: DateTime<Utc>) -> Self {
        let org: OrganizationId =
            organization(&test.db, &format!("o{}", UserId::new().uuid().simple())).await;
        let user = person(&test.db, org, &format!("{org}@x.com"), &["operator"]).await;
        let by = viewer(org, user, BuiltinRole::Operator);
        let saved = save(test, &by, &input("s", cron, zone), now).await.unwrap();
        Self {
            id: saved.id,
            cron: Cron::parse(cron, "cron").unwrap(),
            zone: zone.parse().unwrap(),
            jitter: saved.next_run_at.unwrap() - saved.next_tick.unwrap(),
            saved_at: now,
        }
    }

    /// Returns the schedule's occurrences whose runs are due in that period.
    fn due(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let next = |occurrence: &DateTime<Utc>| self.cron.next(*occurrence, self.zone);
        let occurrences = std::iter::successors(
            self.cron.next((from - self.jitter).max(self.saved_at), self.zone),
            next,
        );
        occurrences.take_while(|occurrence| *occurrence + self.jitter <= until).collect()
    }
}

/// Two workers poll the same rows at the same time, over days with a clock change and an outage of six hours.
async fn simulate(start: &str) {
    let test = TestOrg::new().await;
    let start = utc(start);
    let mut followed = Vec::new();
    for (cron, zone) in [
        ("*/10 * * * *", "UTC"),
        ("30 * * * *", "Europe/Berlin"),
        ("30 2 * * *", "Europe/Berlin"),
        ("*/15 1-3 * * *", "Europe/Berlin"),
        ("0 2,3 * * *", "Europe/Berlin"),
        ("0 0 * * *", "Asia/Kathmandu"),
        ("0 12 * * 1", "America/New_York"),
    ] {
        followed.push(ScheduleFixture::new(&test, cron, zone, start).await);
    }
    let (down, up, end) =
        (start + TimeDelta::hours(30), start + TimeDelta::hours(36), start + TimeDelta::hours(54));
    let mut claimed: BTreeMap<ScheduleId, Vec<DateTime<Utc>>> = BTreeMap::new();
    let (mut now, mut step) = (start, 17);
    let mut last_before_down = start;
    while now < end {
        if now >= down && now < up {
            now = up;
        }
        // The two polls do not begin at the same moment.
        let late = now - TimeDelta::milliseconds(step * 131 % 3000);
        let (one, other) = tokio::join!(claim(&test, now), claim(&test, late));
        for occurrence in one.into_iter().chain(other) {
            claimed.entry(occurrence.schedule).or_default().push(occurrence.at);
        }
        if now < down {
            last_before_down = now;
        }
        step = step * 37 % 101;
        now += TimeDelta::seconds(40 + step);
    }
    let last = claim(&test, end).await;
    for occurrence in last {
        claimed.entry(occurrence.schedule).or_default().push(occurrence.at);
    }
    for one in &followed {
        let mut expected = one.due(start, last_before_down);
        // Ticks missed during the outage are made up for by one run, with the first of them.
        expected.extend(one.due(last_before_down, up).first());
        expected.extend(one.due(up, end));
        let found = claimed.remove(&one.id).unwrap_or_default();
        let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert_eq!((differs, found.len()), (None, expected.len()), "{:?} {}", one.cron, one.zone);
    }
}

#[tokio::test]
async fn each_tick_comes_once_while_clocks_are_put_forward() {
    simulate("2026-03-28T00:00:00Z").await;
}

#[tokio::test]
async fn each_tick_comes_once_while_clocks_are_put_back() {
    simulate("2026-10-24T00:00:00Z").await;
}

#[tokio::test]
async fn a_tick_a_minute_loses_none_to_its_spread() {
    let test = TestOrg::new().await;
    let start = utc("2026-06-01T00:00:00Z");
    let followed = ScheduleFixture::new(&test, "* * * * *", "UTC", start).await;
    let mut claimed = Vec::new();
    for step in 0..200 {
        let now = start + TimeDelta::milliseconds(step * 58_700);
        claimed.extend(claim(&test, now).await.into_iter().map(|occurrence| occurrence.at));
    }
    assert!(claimed == followed.due(start, start + TimeDelta::milliseconds(199 * 58_700)));
    assert!(claimed.len() > 190);
}

#[tokio::test]
async fn who_saved_it_is_remembered_whoever_it_was() {
    let test = TestOrg::new().await;
    let key = Actor::ApiKey(Id::new());
    let by = Viewer { actor: key, ..operator(&test, "ada@x.com").await };
    let made = save(&test, &by, &input("nightly", "0 2 * * *", "UTC"), at(0)).await.unwrap();
    assert_eq!(find(&test, made.id).await.actor, key);
}
