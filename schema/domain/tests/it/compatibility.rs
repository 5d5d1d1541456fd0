//! Data of an earlier version still works: tokens, keys, passwords, and texts in columns.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Actor, Viewer,
    access::{
        identity::Identity,
        password::Hasher,
        permission::{BuiltinRole, Permission, PermissionSet},
        token::TokenKeys,
    },
    base::{page::PageRequest, run_state::RunState},
    compliance::{
        finding::{Finding, FindingFilter, FindingState},
        rule::{Rule, Severity},
        run::{Run, RunTrigger},
        waiver::Waiver,
    },
    entity,
    fleet::{
        job::{Job, JobFilter, JobState, Queue},
        schedule::{Schedule, ScheduleAction},
    },
    inventory::{
        asset::{
            Asset, AssetFilter, AssetOrder, AssetType, Environment, FactSource, LifecycleState,
        },
        dependency::{Criticality, Dependency},
        import::{EmptyCells, ImportFormat, ImportKind},
    },
    testing::{TestDb, earlier},
};

use crate::harness::{COST, HOME, POLICY, caller};

const ALL: PageRequest = PageRequest { size: 100, backward: false, after: None, before: None };

/// Restores the database of the earlier version, and returns it with a service that uses its key ring.
async fn restored() -> (TestDb, Identity) {
    let db = TestDb::new().await;
    earlier::restore(&db).await;
    let (kid, secret) = earlier::only_key(earlier::JWT_KEYS);
    let secret = URL_SAFE_NO_PAD.decode(secret).unwrap();
    let keys = TokenKeys::new([(kid, secret.as_slice())]);
    let hasher = Hasher::new(COST, 2).unwrap();
    let identity = Identity::new(db.db.clone(), hasher, keys, POLICY, TimeDelta::minutes(15));
    (db, identity)
}

fn later() -> DateTime<Utc> {
    earlier::signed_in_at() + TimeDelta::minutes(1)
}

fn assert_is_owner(viewer: &Viewer) {
    assert_eq!(viewer.org, earlier::organization());
    assert_eq!(viewer.roles, ["owner"]);
    assert_eq!(viewer.permissions, BuiltinRole::Owner.permissions());
}

#[tokio::test]
async fn an_access_token_of_before_still_names_its_session() {
    let (_db, identity) = restored().await;
    assert_is_owner(&identity.authenticate(earlier::ACCESS_TOKEN, HOME, later()).await.unwrap());
}

#[tokio::test]
async fn a_refresh_token_of_before_is_renewed() {
    let (_db, identity) = restored().await;
    let tokens = identity.refresh(earlier::REFRESH_TOKEN, &caller(HOME, later())).await.unwrap();
    assert_is_owner(&identity.authenticate(&tokens.access_token, HOME, later()).await.unwrap());
}

#[tokio::test]
async fn a_refresh_token_of_before_works_once() {
    let (_db, identity) = restored().await;
    let caller = caller(HOME, later());
    identity.refresh(earlier::REFRESH_TOKEN, &caller).await.unwrap();
    identity.refresh(earlier::REFRESH_TOKEN, &caller).await.unwrap_err();
}

#[tokio::test]
async fn a_password_hashed_before_signs_in() {
    let (_db, identity) = restored().await;
    let caller = caller(HOME, later());
    let tokens = identity.login(earlier::OWNER, earlier::PASSWORD, &caller).await.unwrap();
    assert_is_owner(&identity.authenticate(&tokens.access_token, HOME, later()).await.unwrap());
}

#[tokio::test]
async fn an_api_key_of_before_may_do_what_it_might() {
    let (_db, identity) = restored().await;
    let viewer = identity.authenticate(earlier::API_KEY, HOME, later()).await.unwrap();
    assert!(matches!(viewer.actor, Actor::ApiKey(_)), "{:?}", viewer.actor);
    let expected = [Permission::AssetRead, Permission::ComplianceRun];
    assert_eq!(viewer.permissions, expected.into_iter().collect());
}

#[tokio::test]
async fn every_row_of_before_is_read() {
    let (db, _) = restored().await;
    let tx = db.read(earlier::organization()).await.unwrap();
    let page = Asset::list(&tx, &AssetFilter::default(), AssetOrder::default(), &ALL).await;
    let assets = page.unwrap().rows;
    let every = FindingFilter { state: Some(FindingState::ALL.to_vec()), ..Default::default() };
    let counts = [
        ("assets", assets.len()),
        ("dependencies", Dependency::list(&tx, &ALL).await.unwrap().rows.len()),
        ("rules", Rule::list(&tx).await.unwrap().len()),
        ("runs", Run::list(&tx, &ALL).await.unwrap().rows.len()),
        ("waivers", Waiver::list(&tx, &ALL).await.unwrap().rows.len()),
        ("schedules", Schedule::list(&tx).await.unwrap().len()),
        ("findings", Finding::list(&tx, &every, &ALL).await.unwrap().rows.len()),
        ("jobs", Job::list(&tx, &JobFilter::default(), &ALL).await.unwrap().rows.len()),
    ];
    tx.commit().await.unwrap();
    let expected = [
        ("assets", 8),
        ("dependencies", 1),
        ("rules", 16),
        ("runs", 4),
        ("waivers", 2),
        ("schedules", 1),
        ("findings", 17),
        ("jobs", 17),
    ];
    assert_eq!(counts, expected);
}

#[test]
fn texts_of_states_are_those_of_before() {
    macro_rules! texts {
        ($($state:ty: $($text:literal)+;)+) => {
            [$((
                stringify!($state),
                <$state>::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>(),
                vec![$($text),+],
            )),+]
        };
    }
    // An additional text is a new state. A missing text could no longer be read from old rows.
    for (state, now, before) in texts! {
        AssetType: "HOST" "NETWORK_DEVICE" "SERVICE" "SOFTWARE_LICENSE" "CLOUD_RESOURCE";
        LifecycleState: "PROVISIONING" "ACTIVE" "MAINTENANCE" "RETIRED" "DISPOSED";
        Environment: "PROD" "STAGING" "DEV";
        FactSource: "DECLARED" "IMPORTED" "PROBED" "DERIVED";
        Criticality: "LOW" "MEDIUM" "HIGH" "CRITICAL";
        ImportKind: "ASSETS" "DEPENDENCIES";
        ImportFormat: "CSV" "JSON";
        EmptyCells: "KEEP" "CLEAR";
        RunState: "QUEUED" "RUNNING" "SUCCEEDED" "FAILED" "CANCELLED";
        RunTrigger: "MANUAL" "SCHEDULE";
        Severity: "LOW" "MEDIUM" "HIGH" "CRITICAL";
        FindingState: "OPEN" "WAIVED" "FIXED" "OUT_OF_SCOPE";
        Queue: "SCAN" "PROBE" "TRIAGE" "IMPORT" "NOTIFY" "UPKEEP";
        JobState: "WAITING" "SCHEDULED" "RUNNING" "SUCCEEDED" "BURIED" "CANCELLED" "DISCARDED";
        ScheduleAction: "COMPLIANCE_RUN";
    } {
        let missing: Vec<_> = before.iter().filter(|text| !now.contains(text)).collect();
        assert!(missing.is_empty(), "{state} has no {missing:?} any more: {now:?}");
    }
}

/// Unknown names are ignored when a role or a key is read, so removing a name would silently withdraw a permission.
#[test]
fn permissions_stored_before_are_all_known() {
    let stored = [
        "ASSET_READ",
        "ASSET_WRITE",
        "ASSET_DELETE",
        "ASSET_IMPORT",
        "COMPLIANCE_READ",
        "COMPLIANCE_RUN",
        "COMPLIANCE_WRITE",
        "WAIVER_GRANT",
        "SERVICE_READ",
        "SERVICE_WRITE",
        "CHECK_RUN",
        "INCIDENT_READ",
        "INCIDENT_WRITE",
        "TRIAGE_READ",
        "TRIAGE_RUN",
        "TRIAGE_REVIEW",
        "JOB_READ",
        "JOB_MANAGE",
        "SCHEDULE_WRITE",
        "BUDGET_READ",
        "AUDIT_READ",
        "USER_READ",
        "USER_MANAGE",
        "ROLE_MANAGE",
        "API_KEY_MANAGE",
        "SECRET_MANAGE",
        "ORGANIZATION_MANAGE",
        "FLEET_READ",
        "FLEET_MANAGE",
    ];
    let known: Vec<_> = PermissionSet::from_names(stored).iter().map(Permission::as_str).collect();
    let missing: Vec<_> = stored.iter().filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Ids occur in payloads, scripts and bookmarks.
#[test]
fn ids_written_before_are_read_as_what_they_were() {
    macro_rules! read {
        ($($id:ident $text:literal;)+) => {
            $(assert_eq!($text.parse::<entity::$id>().unwrap().to_string(), $text);)+
        };
    }
    read! {
        OrganizationId "org_01m8qjbx5zen8rhjvez7nqb4v0";
        UserId "usr_01m8qjbxzze0bbd97b5h8a9agy";
        SessionId "ses_01m8qje3w2e6krhh64bm0tw0nc";
        ApiKeyId "key_01m8qje3r8e778ccbqka107jfy";
        RunId "run_01m8qjc1nzedet4jysabqbseg8";
        ImportRunId "imp_01m8qjc1p2ej7vrx0skzbmyscf";
        AssetId "ast_01m8qjc0fre6xa9kzxrbkcmw08";
        FindingId "fnd_01m8qjc0jce5v920qpz5jna96t";
        WaiverId "wvr_01m8qjc11femw96w0xyzqrtw8t";
        CustodyId "cus_01m8qjc0jpebd85s3gcv4v4zkk";
        AuditEntryId "aud_01m8qjc0t7e5csm1ewwsgy7mty";
        JobId "job_01m8qjc1q5em783hce736bchsf";
        ScheduleId "sch_01m8qjc1ntednvnja7eq4dqk16";
    }
}
