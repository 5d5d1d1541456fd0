//! Rules that one core evaluates per second: the sixteen built-in ones, over assets with all facts known, and over the
//! columns of their rows. `cargo bench -p domain --bench rule`.

use std::hint::black_box;

use chrono::{DateTime, TimeDelta, Utc};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use domain::{
    Id,
    compliance::rule::{Builtin, CompiledRule, Facts, FactsRow, Owner, Ruleset, Verdict},
    inventory::asset::{AssetType, Environment, LifecycleState},
};
use serde_json::json;

/// Number of assets that are evaluated in turn.
const ASSETS: i64 = 1_000;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).expect("within range")
}

/// The attributes of an asset; about half of its rules pass.
fn attributes(index: i64) -> String {
    let at = |days: i64| now() + TimeDelta::days(days);
    json!({
        "antivirus_installed": index % 2 == 0,
        "disk_encrypted": index % 3 == 0,
        "edr_installed": index % 5 != 0,
        "encryption_in_transit": true,
        "firewall_enabled": index % 7 != 0,
        "has_default_credentials": index % 11 == 0,
        "ip_addresses": ["10.0.0.1", "fe80::1"],
        "last_backup_at": at(-index % 14),
        "last_patched_at": at(-index % 60),
        "log_retention_days": index % 60,
        "logging_enabled": index % 2 == 1,
        "open_ports": [22, 80, 443, if index % 4 == 0 { 23 } else { 8080 }],
        "os_name": if index % 2 == 0 { "Ubuntu 24.04" } else { "Debian 11" },
        "password_max_age_days": index % 180,
        "tls_cert_expires_at": at(index % 90),
    })
    .to_string()
}

fn facts(index: i64, attributes: &str) -> Facts {
    Facts::of(&FactsRow {
        asset: Id::new(),
        asset_type: AssetType::Host,
        environment: Environment::Prod,
        lifecycle_state: LifecycleState::Active,
        name: "billing-db-1",
        code: "HST-4F7K2",
        external_id: None,
        location: Some("Rack 4"),
        description: None,
        owner: Some(Owner { user: Id::new(), mfa_enabled: index % 2 == 0, active: true }),
        tags: Vec::new(),
        attributes: attributes.as_bytes(),
    })
    .expect("the attributes are an object")
}

fn rule(criterion: &mut Criterion) {
    let texts: Vec<String> = (0..ASSETS).map(attributes).collect();
    let all: Vec<Facts> = (0..).zip(&texts).map(|(index, text)| facts(index, text)).collect();
    let rules: Vec<CompiledRule> = Builtin::all()
        .iter()
        .enumerate()
        .map(|(slot, builtin)| CompiledRule::new(builtin.rule(Id::new()), slot, Id::new()))
        .collect();
    let set = Ruleset::new(rules.clone());
    let evaluations =
        |rules: &[CompiledRule]| Throughput::Elements(all.len() as u64 * rules.len() as u64);

    let mut group = criterion.benchmark_group("rule");
    let judge_all = |rules: &[CompiledRule]| {
        let verdicts =
            all.iter().flat_map(|facts| rules.iter().map(move |rule| rule.verdict(facts, now())));
        verdicts.filter(|verdict| *verdict == Verdict::Pass).count()
    };
    group.throughput(evaluations(&rules));
    group.bench_function("evaluate", |bench| bench.iter(|| judge_all(black_box(&rules))));
    group.bench_function("evaluate_with_flips", |bench| {
        bench.iter(|| {
            let evaluated = all.iter().flat_map(|facts| {
                rules.iter().map(move |rule| rule.flip(facts, now(), rule.verdict(facts, now())))
            });
            evaluated.flatten().count()
        });
    });
    for ruled in &rules {
        let one = std::slice::from_ref(ruled);
        group.throughput(evaluations(one));
        group.bench_function(&ruled.rule.key, |bench| bench.iter(|| judge_all(black_box(one))));
    }
    group.throughput(Throughput::Elements(all.len() as u64));
    group.bench_function("read_facts", |bench| {
        bench.iter(|| {
            (0..).zip(&texts).map(|(index, text)| facts(index, text)).map(black_box).count()
        });
    });
    group.bench_function("hash_facts", |bench| {
        bench.iter(|| {
            all.iter().map(|facts| set.facts_hash(facts)).fold(0, |one, other| one ^ other)
        });
    });
    group.finish();
}

criterion_group!(benches, rule);
criterion_main!(benches);
