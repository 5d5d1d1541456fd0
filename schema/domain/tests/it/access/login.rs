//! Sign-in, and the lockout after failures.

use std::{collections::BTreeSet, net::IpAddr};

use chrono::TimeDelta;
use domain::{
    Db, Error, Origin,
    access::{
        identity::{Identity, Tokens},
        login::{LockoutCounter, Subject},
        password::{Cost, Hasher},
        token::TokenKeys,
        user::User,
    },
};

use crate::harness::{
    A_LOCK_IS_AWAITED, COST, ELSEWHERE, HOME, PASSWORD, POLICY, TestOrg, assert_bad_credentials,
    at, at_once, caller, identity, person, until,
};

/// Tries to sign in with a wrong password.
async fn fail(test: &TestOrg, email: &str, from: IpAddr, now: i64) -> domain::Result<Tokens> {
    test.identity.login(email, "not the password", &caller(from, at(now))).await
}

async fn set_hash(test: &TestOrg, email: &str, hash: Option<&str>) {
    let sql = "UPDATE \"user\" SET password_hash = $2 WHERE email = $1";
    test.db.superuser().await.execute(sql, &[&email, &hash]).await.unwrap();
}

async fn hash_of(test: &TestOrg, email: &str) -> String {
    let sql = "SELECT password_hash FROM \"user\" WHERE email = $1";
    test.db.superuser().await.query_one(sql, &[&email]).await.unwrap().get("password_hash")
}

#[tokio::test]
async fn the_right_password_opens_a_session_however_the_e_mail_is_written() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@example.com", &["operator"]).await;
    let tokens = test.tokens(" Ada@EXAMPLE.com ", 0).await;
    assert_eq!(tokens.access_expires_at, at(30 * 60));
    assert_eq!(tokens.refresh_expires_at, at(14 * 86_400));
    let viewer = test.viewer(&tokens.access_token, 1).await.unwrap();
    assert_eq!(
        (viewer.user(), viewer.org, viewer.roles),
        (Some(ada), test.org, vec!["operator".into()])
    );
    assert_eq!(test.audited("auth.login by user").await, 1);
}

#[tokio::test]
async fn whatever_is_wrong_is_said_in_the_same_words() {
    let test = TestOrg::new().await;
    for name in ["wrong", "locked", "inactive", "without", "corrupt"] {
        test.person(&format!("{name}@x.com"), &["viewer"]).await;
    }
    for _ in 0..5 {
        fail(&test, "locked@x.com", ELSEWHERE, 0).await.unwrap_err();
    }
    let superuser = test.db.superuser().await;
    superuser
        .batch_execute(
            "UPDATE membership SET active = false
             WHERE user_id = (SELECT id FROM \"user\" WHERE email = 'inactive@x.com')",
        )
        .await
        .unwrap();
    set_hash(&test, "without@x.com", None).await;
    set_hash(&test, "corrupt@x.com", Some("$argon2id$v=19$m=64,t=1,p=1$nonsense")).await;

    let mut answers = BTreeSet::new();
    answers.insert(format!("{:?}", fail(&test, "wrong@x.com", HOME, 1).await));
    for name in [
        "unknown@x.com",
        "locked@x.com",
        "inactive@x.com",
        "without@x.com",
        "corrupt@x.com",
        "",
        "no e-mail",
        "\0",
    ] {
        answers.insert(format!("{:?}", test.login(name, HOME, 1).await));
    }
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), ["Err(BadCredentials)"]);
    assert_eq!(Error::BadCredentials.to_string(), "Invalid email or password.");
}

#[tokio::test]
async fn a_failure_is_in_the_audit_trail_of_an_account_that_exists() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    fail(&test, "ada@x.com", HOME, 0).await.unwrap_err();
    fail(&test, "nobody@x.com", HOME, 0).await.unwrap_err();
    assert_eq!(test.audited("auth.login_failed by system").await, 1);
}

#[tokio::test]
async fn the_fifth_failure_locks_for_thirty_seconds_and_each_further_one_twice_as_long() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    for now in 0..5 {
        fail(&test, "ada@x.com", ELSEWHERE, now).await.unwrap_err();
    }
    assert_bad_credentials(test.login("ada@x.com", ELSEWHERE, 33).await);
    fail(&test, "ada@x.com", ELSEWHERE, 40).await.unwrap_err();
    assert_bad_credentials(test.login("ada@x.com", ELSEWHERE, 99).await);
    fail(&test, "ada@x.com", ELSEWHERE, 100).await.unwrap_err();
    assert_bad_credentials(test.login("ada@x.com", ELSEWHERE, 219).await);
    test.login("ada@x.com", ELSEWHERE, 220).await.unwrap();
}

#[tokio::test]
async fn a_success_forgets_the_failures_before_it() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    for now in 0..3 {
        for _ in 0..4 {
            fail(&test, "ada@x.com", ELSEWHERE, now).await.unwrap_err();
        }
        test.login("ada@x.com", ELSEWHERE, now).await.unwrap();
    }
}

#[tokio::test]
async fn a_lock_is_in_postgres_and_holds_on_every_replica() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    for _ in 0..5 {
        fail(&test, "ada@x.com", ELSEWHERE, 0).await.unwrap_err();
    }
    let replica = identity(&test.db, COST, POLICY);
    assert_bad_credentials(replica.login("ada@x.com", PASSWORD, &caller(ELSEWHERE, at(29))).await);
    replica.login("ada@x.com", PASSWORD, &caller(ELSEWHERE, at(30))).await.unwrap();
}

#[tokio::test]
async fn a_stranger_cannot_lock_somebody_out_at_home() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    test.tokens("ada@x.com", 0).await;
    for _ in 0..5 {
        fail(&test, "ada@x.com", ELSEWHERE, 1).await.unwrap_err();
    }
    assert_bad_credentials(test.login("ada@x.com", ELSEWHERE, 2).await);
    test.login("ada@x.com", HOME, 2).await.unwrap();
}

#[tokio::test]
async fn a_reset_password_unlocks_the_account_at_home_too() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@x.com", &["viewer"]).await;
    test.tokens("ada@x.com", 0).await;
    for from in [HOME, ELSEWHERE] {
        for _ in 0..5 {
            fail(&test, "ada@x.com", from, 1).await.unwrap_err();
        }
        assert_bad_credentials(test.login("ada@x.com", from, 2).await);
    }
    let hash = hash_of(&test, "ada@x.com").await;
    let tx = test.db.auth(Origin::system()).await.unwrap();
    User::reset_password(&tx, ada, &hash, at(3)).await.unwrap();
    tx.commit().await.unwrap();
    test.login("ada@x.com", HOME, 4).await.unwrap();
    test.login("ada@x.com", ELSEWHERE, 4).await.unwrap();
}

#[tokio::test]
async fn the_thirtieth_failure_blocks_an_address_and_no_other() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    for attempt in 0..30 {
        assert_bad_credentials(fail(&test, &format!("{attempt}@x.com"), ELSEWHERE, 0).await);
    }
    let refusal = test.login("ada@x.com", ELSEWHERE, 300).await.unwrap_err();
    assert!(
        matches!(refusal, Error::Busy { retry_after } if retry_after.as_secs() == 600),
        "{refusal:?}"
    );
    test.login("ada@x.com", HOME, 300).await.unwrap();
    test.login("ada@x.com", ELSEWHERE, 900).await.unwrap();
}

#[tokio::test]
async fn failures_at_once_are_all_counted() {
    let test = TestOrg::new().await;
    let fail = async |db: Db| {
        let tx = db.auth(Origin::system()).await.unwrap();
        let subject = Subject::Account { email: "ada@x.com".into(), known: None };
        LockoutCounter::fail(&tx, &subject, POLICY.access_lifetime, at(0)).await.unwrap();
        tx.commit().await.unwrap();
    };
    at_once((0..20).map(|_| fail(test.db.db.clone()))).await;
    let sql = "SELECT failures, consecutive FROM login_guard";
    let row = test.db.superuser().await.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>("failures"), row.get::<_, i32>("consecutive")), (20, 20));
}

#[tokio::test]
async fn failures_and_successes_at_once_get_in_nobodys_way() {
    let test = TestOrg::new().await;
    let turn = async |turn: i64, db: Db| {
        let tx = db.auth(Origin::system()).await.unwrap();
        let subject = Subject::Account { email: "ada@x.com".into(), known: None };
        if turn % 2 == 0 {
            LockoutCounter::fail(&tx, &subject, POLICY.access_lifetime, at(turn)).await.unwrap();
        } else {
            LockoutCounter::clear(&tx, &subject).await.unwrap();
        }
        tx.commit().await.unwrap();
    };
    at_once((0..200).map(|number| turn(number, test.db.db.clone()))).await;
}

#[tokio::test]
async fn a_guess_on_its_way_when_the_account_is_locked_comes_too_late() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    for _ in 0..4 {
        fail(&test, "ada@x.com", ELSEWHERE, 0).await.unwrap_err();
    }
    let subject = Subject::Account { email: "ada@x.com".into(), known: None };
    let fifth = test.db.auth(Origin::system()).await.unwrap();
    LockoutCounter::fail(&fifth, &subject, POLICY.access_lifetime, at(0)).await.unwrap();
    let superuser = test.db.superuser().await;
    let (guess, ()) = tokio::join!(test.login("ada@x.com", ELSEWHERE, 1), async {
        until(&superuser, A_LOCK_IS_AWAITED).await;
        fifth.commit().await.unwrap();
    });
    assert_bad_credentials(guess);
}

#[tokio::test]
async fn a_sign_in_on_its_way_when_the_password_changes_comes_too_late() {
    let test = TestOrg::new().await;
    let ada = test.person("ada@x.com", &["viewer"]).await;
    let changing = test.db.auth(Origin::system()).await.unwrap();
    User::reset_password(&changing, ada, "$argon2id$other", at(1)).await.unwrap();
    let superuser = test.db.superuser().await;
    let (old, ()) = tokio::join!(test.login("ada@x.com", HOME, 1), async {
        until(&superuser, A_LOCK_IS_AWAITED).await;
        changing.commit().await.unwrap();
    });
    assert_bad_credentials(old);
}

#[tokio::test]
async fn a_hash_cheaper_than_todays_is_replaced_on_sign_in() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    let costlier = identity(&test.db, Cost { passes: 2, ..COST }, POLICY);
    costlier.login("ada@x.com", PASSWORD, &caller(HOME, at(0))).await.unwrap();
    let rehashed = hash_of(&test, "ada@x.com").await;
    assert!(rehashed.starts_with("$argon2id$v=19$m=64,t=2,p=1$"), "{rehashed}");
    costlier.login("ada@x.com", PASSWORD, &caller(HOME, at(1))).await.unwrap();
    assert_eq!(hash_of(&test, "ada@x.com").await, rehashed, "once is enough");
}

#[tokio::test]
async fn two_sign_ins_that_both_replace_the_hash_both_succeed() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    let costlier = identity(&test.db, Cost { passes: 2, ..COST }, POLICY);
    let attempts = (0..4).map(|now| {
        let costlier = costlier.clone();
        async move { costlier.login("ada@x.com", PASSWORD, &caller(HOME, at(now))).await }
    });
    for outcome in at_once(attempts).await {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn a_sign_in_computes_as_many_hashes_whether_there_is_an_account_or_not() {
    let test = TestOrg::new().await;
    test.person("ada@x.com", &["viewer"]).await;
    let hasher = Hasher::new(COST, 4).unwrap();
    let keys = TokenKeys::new([("k1", [7; 32].as_slice())]);
    let block = TimeDelta::minutes(15);
    let identity = Identity::new(test.db.db.clone(), hasher.clone(), keys, POLICY, block);
    let mut computed = Vec::new();
    for email in ["ada@x.com", "nobody@x.com", "no e-mail", ""] {
        let before = hasher.computed();
        let refused = identity.login(email, "wrong horse", &caller(ELSEWHERE, at(0))).await;
        assert_bad_credentials(refused);
        computed.push(hasher.computed() - before);
    }
    assert_eq!(computed, [1, 1, 1, 1]);
}

#[tokio::test]
async fn quiet_counters_are_deleted_and_locks_stay() {
    let test = TestOrg::new().await;
    let fail = async |email: &str, times: i64, first: i64| {
        let subject = Subject::Account { email: email.into(), known: None };
        for turn in 0..times {
            let tx = test.db.auth(Origin::system()).await.unwrap();
            let now = at(first + turn * 1_000);
            LockoutCounter::fail(&tx, &subject, POLICY.access_lifetime, now).await.unwrap();
            tx.commit().await.unwrap();
        }
    };
    fail("quiet@x.com", 1, 0).await;
    fail("locked@x.com", 100, 0).await;
    fail("busy@x.com", 1, 200_000).await;
    let tx = test.db.auth(Origin::system()).await.unwrap();
    assert_eq!(LockoutCounter::delete_quiet(&tx, at(150_000), 10).await.unwrap(), 1);
    for (email, is_kept) in [("quiet@x.com", false), ("locked@x.com", true), ("busy@x.com", true)] {
        let subject = Subject::Account { email: email.into(), known: None };
        let found = LockoutCounter::find(&tx, &subject).await.unwrap();
        assert_eq!(found.is_some(), is_kept, "{email}");
    }
}

#[tokio::test]
async fn one_signs_in_where_one_was_last() {
    let test = TestOrg::new().await;
    let other = crate::harness::organization(&test.db, "other").await;
    let ada = test.person("ada@x.com", &["viewer"]).await;
    crate::harness::join(&test.db, other, ada, &["admin"]).await;
    person(&test.db, other, "unrelated@x.com", &["viewer"]).await;
    let tokens = test.tokens("ada@x.com", 0).await;
    let viewer = test.viewer(&tokens.access_token, 0).await.unwrap();
    let (elsewhere, here) = if viewer.org == other { (test.org, other) } else { (other, test.org) };
    test.identity.switch(&viewer, elsewhere, &caller(HOME, at(1))).await.unwrap();
    let again = test.tokens("ada@x.com", 2).await;
    let again = test.viewer(&again.access_token, 2).await.unwrap();
    assert_eq!(again.org, elsewhere);
    assert_ne!(again.org, here);
}
