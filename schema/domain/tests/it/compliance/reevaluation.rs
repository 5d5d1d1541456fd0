//! After any changes, re-evaluated in any order, the stored postures equal a full evaluation.

use async_graphql::MaybeUndefined::{Null, Value as Given};
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    Tx,
    compliance::{
        range::AssetRange,
        rule::Rule,
        run::{Run, RunTrigger, Started},
        waiver::{Waiver, WaiverInput},
    },
    entity::{AssetId, TagId, UserId},
    inventory::{
        asset::{Asset, Environment, LifecycleState, UpdateAssetInput},
        import::{
            self, Chunk, EmptyCells, ImportFormat, ImportKind, ImportOrder, ImportRun, Opened,
            Table,
        },
        owners::Owners,
        tag::Tag,
    },
};
use serde_json::{Value, json};

use crate::{
    compliance::posture::{reevaluate_all, run, stored, with, write},
    harness::{TestOrg, at, host},
};

/// A pseudo-random number generator with a fixed sequence.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

/// Returns a random fact, or null to remove it.
fn fact(random: &mut Random, now: DateTime<Utc>) -> Value {
    let key = *random.of(&[
        "disk_encrypted",
        "edr_installed",
        "firewall_enabled",
        "os_supported",
        "password_max_age_days",
        "log_retention_days",
        "last_backup_at",
        "last_patched_at",
        "tls_cert_expires_at",
        "open_ports",
        "os_name",
        "model",
    ]);
    let day = i64::try_from(random.below(80)).unwrap() - 40;
    let value = match key {
        _ if random.below(6) == 0 => Value::Null,
        "password_max_age_days" | "log_retention_days" => json!(random.below(120)),
        "last_backup_at" | "last_patched_at" | "tls_cert_expires_at" => {
            json!(now + TimeDelta::days(day) + TimeDelta::milliseconds(day))
        }
        "open_ports" => json!([22, *random.of(&[80, 443, 445, 3389])]),
        "os_name" => json!(*random.of(&["Ubuntu 20.04", "Ubuntu 24.04", "Debian 12", "Plan 9"])),
        "model" => json!("a model"),
        _ => json!(random.below(2) == 0),
    };
    json!({ key: value })
}

#[tokio::test]
async fn what_is_followed_is_what_a_look_at_everything_finds() {
    let test = TestOrg::new().await;
    let owners =
        [test.person("a@x.com", &["viewer"]).await, test.person("b@x.com", &["viewer"]).await];
    test.db
        .superuser()
        .await
        .execute("UPDATE \"user\" SET mfa_enabled = email = 'a@x.com'", &[])
        .await
        .unwrap();
    let tx = write(&test).await;
    let tag = Tag::create(&tx, "dmz", None, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    let mut assets: Vec<AssetId> = Vec::new();
    for number in 0..20 {
        assets.push(test.asset(host(&format!("host {number}"))).await.id);
    }
    reevaluate_all(&test, at(0)).await;
    let mut random = Random(4711);
    let mut now = at(0);
    let mut begun: Option<(Run, Vec<AssetRange>)> = None;
    for edit in 0..1_000 {
        // A run stays open while assets change: its shard ends at a random time.
        if let Some((run, ranges)) = begun.take_if(|_| random.below(5) == 0) {
            for range in ranges {
                let tx = write(&test).await;
                let anew = Run::evaluate_shard(&tx, run.id, run.round, range, now).await.unwrap();
                if let Some(Started::New(run, ranges)) = anew {
                    begun = Some((*run, ranges));
                }
                tx.commit().await.unwrap();
            }
        } else if begun.is_none() && random.below(20) == 0 {
            let tx = write(&test).await;
            let started = Run::start(&tx, RunTrigger::Manual, None, None, now).await.unwrap();
            tx.commit().await.unwrap();
            begun = match started {
                Started::New(run, ranges) => Some((*run, ranges)),
                Started::Existing(_) => None,
            };
        }
        change(&test, &mut random, &mut assets, (&owners, tag.id), now).await;
        if random.below(4) == 0 {
            now += TimeDelta::minutes(i64::try_from(random.below(9_000)).unwrap());
        }
        if random.below(3) == 0 {
            reevaluate_all(&test, now).await;
        }
        if edit % 100 == 99 {
            reevaluate_all(&test, now).await;
            let followed = stored(&test).await;
            if let Some((open, _)) = begun.take() {
                let tx = write(&test).await;
                Run::cancel(&tx, open.id, now).await.unwrap();
                tx.commit().await.unwrap();
            }
            run(&test, None, now).await;
            let found = stored(&test).await;
            let differing: Vec<_> = followed
                .iter()
                .map(|(of, what)| (of, Some(what), found.get(of)))
                .chain(found.iter().map(|(of, what)| (of, followed.get(of), Some(what))))
                .filter(|(_, followed, found)| followed != found)
                .collect();
            assert!(differing.is_empty(), "after {edit} edits: {differing:#?}");
        }
    }
}

async fn change(
    test: &TestOrg,
    random: &mut Random,
    assets: &mut Vec<AssetId>,
    (owners, tag): (&[UserId], TagId),
    now: DateTime<Utc>,
) {
    let id = *random.of(assets);
    let tx = write(test).await;
    let mut patch = UpdateAssetInput::default();
    match random.below(20) {
        0 => patch.owner = Null,
        1 | 2 => patch.owner = Given(*random.of(owners)),
        3 => patch.environment = Given(*random.of(&[Environment::Prod, Environment::Dev])),
        4 => patch.tags = Given(if random.below(2) == 0 { vec![tag] } else { Vec::new() }),
        5 => {
            let new = with("new", fact(random, now));
            assets.push(Asset::create(&tx, &new, now).await.unwrap().id);
        }
        6 => {
            let asset = Asset::find(&tx, id).await.unwrap().unwrap();
            let next = asset.lifecycle_state.next();
            if !next.is_empty()
                && (asset.lifecycle_state == LifecycleState::Retired || random.below(3) == 0)
            {
                Asset::set_lifecycle(&tx, id, *random.of(next), now).await.unwrap();
            }
        }
        7 => {
            let rules = Rule::list(&tx).await.unwrap();
            let rule = random.of(&rules);
            let asset = (random.below(4) > 0).then_some(id);
            let expires_at = now + TimeDelta::hours(1 + i64::try_from(random.below(600)).unwrap());
            let input = WaiverInput { rule: rule.id, asset, reason: "for now".into(), expires_at };
            // An equal waiver may be active already, so a conflict is fine.
            let _ = Waiver::grant(&tx, &input, now).await;
        }
        8 => {
            let params = json!({ "max_age_days": 30 + random.below(3) * 30 });
            Rule::set_params(&tx, "password-max-age", Some(&params), None, now).await.unwrap();
        }
        9 => {
            let key = *random.of(&["has-owner", "disk-encryption"]);
            let is_on = Some(random.below(2) == 0);
            Rule::set_params(&tx, key, None, is_on, now).await.unwrap();
        }
        10 => {
            let waivers = Waiver::active(&tx, now).await.unwrap();
            if !waivers.is_empty() {
                Waiver::revoke(&tx, random.of(&waivers).id, now).await.unwrap();
            }
        }
        11 | 12 => import_facts(&tx, random, now).await,
        _ => patch.attributes = Given(fact(random, now)),
    }
    Asset::update(&tx, id, &patch, now).await.unwrap();
    tx.commit().await.unwrap();
}

/// Imports a file with some facts of some assets, and one new asset.
async fn import_facts(tx: &Tx, random: &mut Random, now: DateTime<Utc>) {
    let columns = "external_id name type environment attributes.disk_encrypted attributes.os_name \
                   attributes.password_max_age_days";
    let mut lines = Vec::new();
    for number in 0..=random.below(4) {
        // Some assets come again in a later file.
        let name = if number == 0 { random.below(1_000_000) } else { number };
        let encrypted = *random.of(&["true", "false", ""]);
        let os = *random.of(&["Ubuntu 20.04", "Debian 12", "Plan 9", ""]);
        let environment = *random.of(&["PROD", "DEV"]);
        let age = random.below(120);
        lines
            .push(format!("file-{name},imported {name},host,{environment},{encrypted},{os},{age}"));
    }
    let rows = i32::try_from(lines.len()).unwrap();
    let order = ImportOrder {
        kind: ImportKind::Assets,
        format: ImportFormat::Csv,
        dry_run: false,
        empty_cells: *random.of(&[EmptyCells::Keep, EmptyCells::Clear]),
        idempotency_key: None,
    };
    let Opened::New(run) = ImportRun::open(tx, &order, now).await.unwrap() else {
        panic!("there is no key")
    };
    let table = Table {
        kind: ImportKind::Assets,
        columns: columns.split(' ').map(str::to_owned).collect(),
        delimiter: b',',
    };
    let content = lines.join("\n") + "\n";
    let chunk = Chunk {
        rows,
        numbers: (2..2 + rows).collect(),
        content: content.into(),
        faults: Vec::new(),
    };
    ImportRun::add_chunk(tx, run.id, &table, &chunk).await.unwrap();
    ImportRun::mark_received(tx, run.id, now).await.unwrap();
    let begun = ImportRun::begin_chunk(tx, run.id, 0).await.unwrap().unwrap();
    let outcome = import::apply(tx, &begun, Owners::Included, now).await.unwrap();
    assert_eq!(outcome.faults.len(), 0, "{:?}", outcome.faults);
    ImportRun::close_chunk(tx, &begun, &outcome, now).await.unwrap();
}
