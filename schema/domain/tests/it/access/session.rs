//! Sessions: refresh tokens, limits, and the reasons that end them.

use chrono::TimeDelta;
use domain::{
    Db, Origin,
    access::{
        identity::{Identity, Tokens},
        session::{EndReason, Session, SessionPolicy},
    },
};

use crate::harness::{
    A_LOCK_IS_AWAITED, COST, HOME, PASSWORD, POLICY, TestOrg, assert_bad_token, assert_not_found,
    at, at_once, caller, identity, join, organization, until,
};

const DAY: i64 = 86_400;

async fn house_of_ada() -> (TestOrg, Tokens) {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    let tokens = test.tokens("ada@x.com", 0).await;
    (test, tokens)
}

#[tokio::test]
async fn a_refresh_token_trades_for_the_next_pair() {
    let (test, first) = house_of_ada().await;
    let second = test.refresh(&first.refresh_token, 60).await.unwrap();
    test.viewer(&second.access_token, 61).await.unwrap();
    assert_eq!(second.access_expires_at, at(60 + 30 * 60));
    test.refresh(&second.refresh_token, 120).await.unwrap();
    assert_eq!(test.audited("auth.refreshed").await, 2);
}

#[tokio::test]
async fn refreshing_does_not_lengthen_the_session() {
    let (test, first) = house_of_ada().await;
    let late = 14 * DAY - 60;
    let second = test.refresh(&first.refresh_token, late).await.unwrap();
    assert_eq!(second.refresh_expires_at, first.refresh_expires_at);
    assert_eq!(second.access_expires_at, first.refresh_expires_at, "no longer than the session");
    assert_bad_token(test.refresh(&second.refresh_token, 14 * DAY).await);
    assert_bad_token(test.viewer(&second.access_token, 14 * DAY).await);
}

#[tokio::test]
async fn of_fifty_who_present_a_token_one_succeeds_and_the_family_is_dead() {
    let (test, tokens) = house_of_ada().await;
    let many = Db::new(&test.db.url, 16, "many").unwrap();
    let many = identity(&many, COST, POLICY);
    let refreshes = (0..50).map(|_| {
        let (many, token) = (many.clone(), tokens.refresh_token.clone());
        async move { many.refresh(&token, &caller(HOME, at(0))).await }
    });
    let outcomes = at_once(refreshes).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    lost.into_iter().for_each(assert_bad_token);
    let won = won.into_iter().next().unwrap().unwrap();
    assert_bad_token(test.viewer(&won.access_token, 1).await);
    assert_bad_token(test.refresh(&won.refresh_token, 1).await);
    assert_eq!(test.audited("auth.refresh_reuse").await, 1);
}

#[tokio::test]
async fn using_a_token_again_ends_the_session_and_its_access_tokens() {
    let (test, first) = house_of_ada().await;
    let second = test.refresh(&first.refresh_token, 1).await.unwrap();
    test.viewer(&second.access_token, 2).await.unwrap();
    assert_bad_token(test.refresh(&first.refresh_token, 3).await);
    for access in [&first.access_token, &second.access_token] {
        assert_bad_token(test.viewer(access, 4).await);
    }
    assert_bad_token(test.refresh(&second.refresh_token, 4).await);
    assert_eq!(test.audited("auth.refresh_reuse by system").await, 1);
}

#[tokio::test]
async fn what_is_no_refresh_token_ends_nothing() {
    let (test, tokens) = house_of_ada().await;
    for text in ["", "x", &tokens.access_token, &"A".repeat(43)] {
        assert_bad_token(test.refresh(text, 1).await);
    }
    test.viewer(&tokens.access_token, 2).await.unwrap();
}

#[tokio::test]
async fn an_ended_session_refreshes_no_more() {
    let (test, tokens) = house_of_ada().await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    test.identity.logout(&viewer, &caller(HOME, at(1))).await.unwrap();
    assert_bad_token(test.refresh(&tokens.refresh_token, 2).await);
}

#[tokio::test]
async fn only_a_digest_of_a_refresh_token_is_stored() {
    let (test, tokens) = house_of_ada().await;
    let sql = "SELECT token_hash FROM refresh_token";
    let row = test.db.superuser().await.query_one(sql, &[]).await.unwrap();
    let stored: Vec<u8> = row.get("token_hash");
    assert_eq!(stored.len(), 32);
    assert_ne!(stored, tokens.refresh_token.as_bytes());
}

fn resting(test: &TestOrg) -> Identity {
    let policy = SessionPolicy { idle: Some(TimeDelta::hours(1)), ..POLICY };
    identity(&test.db, COST, policy)
}

#[tokio::test]
async fn a_session_that_rests_too_long_is_over() {
    let (test, tokens) = house_of_ada().await;
    let identity = resting(&test);
    let authenticate = |bearer, now| identity.authenticate(bearer, HOME, at(now));
    authenticate(&tokens.access_token, 1700).await.unwrap();
    let next = identity.refresh(&tokens.refresh_token, &caller(HOME, at(1800))).await.unwrap();
    assert_bad_token(identity.refresh(&next.refresh_token, &caller(HOME, at(1800 + 3601))).await);
    assert_eq!(test.audited("auth.refreshed").await, 1);
}

#[tokio::test]
async fn using_a_session_keeps_it_from_resting() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    let policy = SessionPolicy {
        idle: Some(TimeDelta::minutes(10)),
        access_lifetime: TimeDelta::hours(2),
        ..POLICY
    };
    let identity = identity(&test.db, COST, policy);
    let tokens = identity.login("ada@x.com", PASSWORD, &caller(HOME, at(0))).await.unwrap();
    for now in [590, 1180, 1770] {
        identity.authenticate(&tokens.access_token, HOME, at(now)).await.unwrap();
    }
    assert_bad_token(identity.authenticate(&tokens.access_token, HOME, at(1770 + 601)).await);
}

/// Signs in several times, and returns the numbers of the sign-ins whose sessions are still alive afterwards.
async fn surviving(roles: &[&str], sign_ins: i64) -> Vec<i64> {
    let test = TestOrg::new().await;
    test.person("ada@x.com", roles).await;
    let mut all = Vec::new();
    for now in 0..sign_ins {
        all.push(test.tokens("ada@x.com", now).await);
    }
    let mut good = Vec::new();
    for (now, tokens) in (0..).zip(&all) {
        if test.viewer(&tokens.access_token, sign_ins).await.is_ok() {
            good.push(now);
        }
    }
    let lost = all.len() - good.len();
    assert_eq!(test.audited("session.revoked").await, lost);
    good
}

#[tokio::test]
async fn the_eleventh_sign_in_ends_the_first() {
    assert_eq!(surviving(&["operator"], 10).await, (0..10).collect::<Vec<_>>());
    assert_eq!(surviving(&["operator"], 11).await, (1..11).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_fourth_sign_in_of_who_manages_users_ends_the_first() {
    assert_eq!(surviving(&["admin"], 4).await, [1, 2, 3]);
}

#[tokio::test]
async fn sign_ins_at_once_do_not_leave_each_other_uncounted() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["admin"]).await;
    let sign_ins = (0..8).map(|now| {
        let identity = test.identity.clone();
        async move { identity.login("ada@x.com", PASSWORD, &caller(HOME, at(now))).await }
    });
    for outcome in at_once(sign_ins).await {
        outcome.unwrap();
    }
    let sql = "SELECT count(*) AS live FROM session WHERE ended_at IS NULL";
    let row = test.db.superuser().await.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>("live"), 3);
}

#[tokio::test]
async fn signing_out_twice_is_signing_out() {
    let (test, tokens) = house_of_ada().await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    for now in [1, 2] {
        test.identity.logout(&viewer, &caller(HOME, at(now))).await.unwrap();
        assert_bad_token(test.viewer(&tokens.access_token, now).await);
    }
    assert_eq!(test.audited("auth.logout by user").await, 1);
}

#[tokio::test]
async fn one_switches_to_another_of_ones_organizations() {
    let (test, tokens) = house_of_ada().await;
    let other = organization(&test.db, "other").await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    join(&test.db, other, viewer.user().unwrap(), &["operator"]).await;
    let switched = test.identity.switch(&viewer, other, &caller(HOME, at(1))).await.unwrap();
    let there = test.viewer(&switched.access_token, 2).await.unwrap();
    assert_eq!((there.org, there.roles), (other, vec!["operator".to_owned()]));
    assert_bad_token(test.viewer(&tokens.access_token, 2).await);
    assert_eq!(switched.refresh_expires_at, tokens.refresh_expires_at);
    assert_eq!(test.audited("session.organization_switched by user").await, 1);
    test.refresh(&switched.refresh_token, 3).await.unwrap();
    assert_bad_token(test.refresh(&tokens.refresh_token, 4).await);
}

#[tokio::test]
async fn one_does_not_switch_to_where_one_is_no_active_member() {
    let (test, tokens) = house_of_ada().await;
    let (foreign, former) =
        (organization(&test.db, "foreign").await, organization(&test.db, "former").await);
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    join(&test.db, former, viewer.user().unwrap(), &["owner"]).await;
    let superuser = test.db.superuser().await;
    let sql = "UPDATE membership SET active = false WHERE org_id = $1";
    superuser.batch_execute("SET session_replication_role = replica").await.unwrap();
    superuser.execute(sql, &[&former.uuid()]).await.unwrap();
    for org in [foreign, former, domain::Id::new()] {
        assert_not_found(test.identity.switch(&viewer, org, &caller(HOME, at(1))).await);
    }
    test.viewer(&tokens.access_token, 2).await.unwrap();
    test.refresh(&tokens.refresh_token, 2).await.unwrap();
}

#[tokio::test]
async fn former_tokens_end_with_a_switch_even_to_where_one_is() {
    let (test, tokens) = house_of_ada().await;
    let other = organization(&test.db, "other").await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    join(&test.db, other, viewer.user().unwrap(), &["viewer"]).await;
    let switch = async |viewer: &domain::Viewer, org| {
        test.identity.switch(viewer, org, &caller(HOME, at(1))).await.unwrap().access_token
    };
    let same = switch(&viewer, test.org).await;
    assert_bad_token(test.viewer(&tokens.access_token, 2).await);
    let viewer = test.viewer(&same, 2).await.unwrap();
    let there = switch(&viewer, other).await;
    let there_viewer = test.viewer(&there, 2).await.unwrap();
    let back = switch(&there_viewer, test.org).await;
    for former in [&same, &there] {
        assert_bad_token(test.viewer(former, 2).await);
    }
    assert_eq!(test.viewer(&back, 2).await.unwrap().org, test.org);
}

#[tokio::test]
async fn sessions_that_ended_long_ago_are_deleted() {
    let (test, ended) = house_of_ada().await;
    let viewer = test.viewer(&ended.access_token, 0).await.unwrap();
    test.identity.logout(&viewer, &caller(HOME, at(0))).await.unwrap();
    let expired = test.tokens("ada@x.com", 0).await;
    let open = test.tokens("ada@x.com", 20 * DAY).await;
    let count = async || {
        let sql = "SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM refresh_token)";
        let row = test.db.superuser().await.query_one(sql, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    assert_eq!(count().await, (3, 3));
    for (before, deleted) in [(0, 0), (DAY, 1), (14 * DAY + 1, 1), (30 * DAY, 0)] {
        let tx = test.db.auth(Origin::system()).await.unwrap();
        assert_eq!(Session::delete_ended(&tx, at(before), 10).await.unwrap(), deleted, "{before}");
        tx.commit().await.unwrap();
    }
    assert_eq!(count().await, (1, 1));
    assert_bad_token(test.refresh(&expired.refresh_token, 20 * DAY).await);
    test.refresh(&open.refresh_token, 20 * DAY).await.unwrap();
}

#[tokio::test]
async fn a_request_and_a_sign_in_of_the_same_person_do_not_deadlock() {
    let (test, tokens) = house_of_ada().await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    let (user, session) = (viewer.user().unwrap(), viewer.session.unwrap());
    let signing_in = test.db.auth(Origin::system()).await.unwrap();
    let lock = "SELECT id FROM \"user\" WHERE id = $1 FOR UPDATE";
    signing_in.exec(lock, &[&user]).await.unwrap();
    let superuser = test.db.superuser().await;
    let (request, ()) = tokio::join!(test.viewer(&tokens.access_token, 100), async {
        until(&superuser, A_LOCK_IS_AWAITED).await;
        let session = Session::find(&signing_in, session, at(100)).await.unwrap().unwrap();
        session.end(&signing_in, EndReason::TooMany, at(100)).await.unwrap();
        signing_in.commit().await.unwrap();
    });
    request.unwrap();
    assert_bad_token(test.viewer(&tokens.access_token, 101).await);
}

#[tokio::test]
async fn a_refresh_and_a_switch_of_the_same_session_do_not_deadlock() {
    let (test, tokens) = house_of_ada().await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    let switching = test.db.auth(Origin::system()).await.unwrap();
    let session = Session::find(&switching, viewer.session.unwrap(), at(1)).await.unwrap().unwrap();
    let superuser = test.db.superuser().await;
    let (refreshed, ()) = tokio::join!(test.refresh(&tokens.refresh_token, 1), async {
        until(&superuser, A_LOCK_IS_AWAITED).await;
        session.reissue_refresh(&switching, at(1)).await.unwrap();
        switching.commit().await.unwrap();
    });
    assert_bad_token(refreshed);
}
