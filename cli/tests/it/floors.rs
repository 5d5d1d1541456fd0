//! Allowed dependencies between crates: the table of floors, checked against Cargo's metadata.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Crates of the workspace, each with those that it may depend on. `jobs` may depend on the domain but need not.
const FLOORS: &[(&str, &[&str])] = &[
    ("migrations", &[]),
    ("domain", &[]),
    ("jobs", &["domain"]),
    ("graphql", &["domain", "jobs"]),
    ("workers", &["domain", "jobs"]),
    ("api", &["graphql", "jobs", "domain"]),
    ("cli", &["migrations", "domain", "jobs", "graphql", "workers", "api"]),
    ("loadtests", &[]),
];

#[test]
fn imports_point_down() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let floors: BTreeMap<_, BTreeSet<_>> =
        FLOORS.iter().map(|(name, below)| (*name, below.iter().copied().collect())).collect();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let allowed = floors.get(name).unwrap_or_else(|| panic!("{name} stands on no floor"));
        for dependency in &package.dependencies {
            let below = dependency.name.as_str();
            let is_ours = dependency.path.is_some();
            if !is_ours || dependency.kind == DependencyKind::Development {
                continue;
            }
            let features = &dependency.features;
            assert!(!features.iter().any(|name| name == "testing"), "{name} ships {below}'s tests");
            if (name, below) == ("domain", "migrations") {
                assert!(dependency.optional, "domain knows migrations without `testing`");
                let enables = |(_, parts): &(&String, &Vec<String>)| {
                    parts.iter().any(|part| part == "testing" || part.contains("migrations"))
                };
                let through: Vec<_> = package.features.iter().filter(enables).collect();
                assert!(matches!(&through[..], [(name, _)] if *name == "testing"), "{through:?}");
                continue;
            }
            assert!(allowed.contains(below), "{name} must not know {below}");
        }
    }
}

#[test]
fn every_floor_above_the_domain_builds_on_it() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let names: BTreeSet<_> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    for name in ["migrations", "domain", "jobs", "graphql", "workers", "api", "cli"] {
        assert!(names.contains(name), "{name} is gone: adapt the table of floors");
    }
}
