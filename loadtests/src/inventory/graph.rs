//! Dependencies of a generated inventory: tiered as in a data centre, or random.
//!
//! In the tiered shape, assets are divided into pods: groups of up to 5,000 assets without dependencies between groups.
//! A load balancer depends on applications, an application on databases and a host, a database on hosts, a host on
//! switches, and a switch on the pod's core switches. The failure of a switch therefore affects at most one pod. In the
//! random shape, every asset depends on three others, and a walk to depth ten reaches about half of the assets.

use std::{collections::HashSet, ops::Range};

use clap::ValueEnum;
use serde::Serialize;

use super::Inventory;
use crate::random::Random;

/// Maximum number of assets in a pod. The blast radius of a core switch is smaller than that.
pub(super) const MAX_POD_ASSETS: usize = 5_000;
/// Number of dependencies of an asset in the random shape.
const RANDOM_DEPENDENCIES: usize = 3;

/// Shape of the dependencies in an inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Tiers as in a data centre: load balancer → application → database → host → switch.
    Tiers,
    /// Random dependencies, three per asset.
    Random,
}

impl Shape {
    /// Returns the name of the shape, as used in organization slugs and reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tiers => "tiers",
            Self::Random => "random",
        }
    }
}

/// Tier of an asset. The assets of a tier depend only on tiers listed before it, or on core switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// A network switch; the core switches have no dependencies.
    Switch,
    /// A host machine, connected to switches.
    Host,
    /// A database, running on hosts.
    Database,
    /// An application, using databases and a host.
    Application,
    /// A load balancer in front of applications.
    LoadBalancer,
}

impl Tier {
    /// Returns the prefix of asset names in this tier.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Host => "host",
            Self::Database => "db",
            Self::Application => "app",
            Self::LoadBalancer => "lb",
        }
    }
}

impl Inventory {
    /// Returns the tier of an asset.
    pub(crate) fn tier(&self, number: usize) -> Tier {
        let pod = self.pod(number);
        match number {
            number if pod.switches.contains(&number) => Tier::Switch,
            number if pod.hosts.contains(&number) => Tier::Host,
            number if pod.databases.contains(&number) => Tier::Database,
            number if pod.applications.contains(&number) => Tier::Application,
            _ => Tier::LoadBalancer,
        }
    }

    /// Returns the dependencies of an asset with their kinds: distinct assets, never the asset itself.
    pub(super) fn targets(&self, number: usize) -> Vec<(usize, &'static str)> {
        let mut random = Random::at(self.seed ^ 2, number);
        let mut targets = Vec::new();
        let mut depend_on = |among: &Range<usize>, count: usize, kind: &'static str| {
            // The range may contain this asset, which must not depend on itself.
            let count = count.min(among.len() - usize::from(among.contains(&number)));
            for _ in 0..count {
                loop {
                    let target = among.start + random.below(among.len());
                    if target != number && !targets.iter().any(|(known, _)| *known == target) {
                        targets.push((target, kind));
                        break;
                    }
                }
            }
        };
        let pod = self.pod(number);
        let core = pod.core();
        match (self.shape, self.tier(number)) {
            (Shape::Random, _) => depend_on(&(0..self.assets), RANDOM_DEPENDENCIES, "uses"),
            (Shape::Tiers, Tier::Switch) if core.contains(&number) => {}
            (Shape::Tiers, Tier::Switch) => depend_on(&core, 2, "uplink"),
            (Shape::Tiers, Tier::Host) => depend_on(&pod.switches, 2, "network"),
            (Shape::Tiers, Tier::Database) => depend_on(&pod.hosts, 2, "runs_on"),
            (Shape::Tiers, Tier::Application) => {
                depend_on(&pod.databases, 2, "sql");
                depend_on(&pod.hosts, 1, "runs_on");
            }
            (Shape::Tiers, Tier::LoadBalancer) => depend_on(&pod.applications, 11, "routes_to"),
        }
        targets
    }

    /// Returns the core switches of all pods. In the tiered shape, nearly all other assets of a pod depend on its core
    /// switches, so no asset has a larger blast radius.
    pub(crate) fn core_switches(&self) -> Vec<usize> {
        let is_core = |number: &usize| self.pod(*number).core().contains(number);
        (0..self.assets).filter(is_core).collect()
    }

    /// Builds the reverse dependency graph in memory.
    pub(crate) fn graph(&self) -> Graph {
        let mut dependents = vec![Vec::new(); self.assets];
        for source in 0..self.assets {
            for (target, _) in self.targets(source) {
                dependents[target].push(source);
            }
        }
        Graph { dependents }
    }

    fn pod(&self, number: usize) -> Pod {
        // As few pods as possible, with sizes that differ by at most one asset.
        let pods = self.assets.div_ceil(MAX_POD_ASSETS);
        let at = number * pods / self.assets;
        let start = |pod: usize| (pod * self.assets).div_ceil(pods);
        Pod::of(start(at)..start(at + 1))
    }
}

/// Reverse dependency graph: the dependents of each asset.
pub(crate) struct Graph {
    dependents: Vec<Vec<usize>>,
}

impl Graph {
    /// Returns the assets that depend on `root` directly or indirectly, at most `depth` steps away, without `root`
    /// itself.
    pub(crate) fn reach(&self, root: usize, depth: usize) -> HashSet<usize> {
        let (mut seen, mut frontier) = (HashSet::from([root]), vec![root]);
        for _ in 0..depth {
            let next = frontier.iter().flat_map(|asset| &self.dependents[*asset]).copied();
            frontier = next.filter(|asset| seen.insert(*asset)).collect();
        }
        seen.remove(&root);
        seen
    }
}

/// A group of assets without dependencies outside the group: the range of asset numbers of each tier.
struct Pod {
    switches: Range<usize>,
    hosts: Range<usize>,
    databases: Range<usize>,
    applications: Range<usize>,
}

impl Pod {
    /// Divides assets into 1 % switches, 30 % hosts, 9 % databases, 55 % applications and 5 % load balancers, with
    /// about three dependencies per asset.
    fn of(assets: Range<usize>) -> Self {
        let hundredths = |percent: usize| (assets.len() * percent / 100).max(1);
        let switches = assets.start..assets.start + hundredths(1);
        let hosts = switches.end..switches.end + hundredths(30);
        let databases = hosts.end..hosts.end + hundredths(9);
        let applications = databases.end..assets.end.saturating_sub(hundredths(5));
        Self { switches, hosts, databases, applications }
    }

    /// Returns the core switches: the first two switches, or one if the pod has only one.
    fn core(&self) -> Range<usize> {
        self.switches.start..self.switches.end.min(self.switches.start + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(shape: Shape, assets: usize) -> Inventory {
        Inventory { shape, assets, seed: 7, at: chrono::DateTime::UNIX_EPOCH }
    }

    #[test]
    fn every_tier_is_there_even_in_the_smallest_inventory() {
        for assets in [5, 6, 99, 5_000, 5_001, 12_345] {
            let inventory = inventory(Shape::Tiers, assets);
            let tiers: Vec<_> = (0..assets).map(|number| inventory.tier(number)).collect();
            for tier in
                [Tier::Switch, Tier::Host, Tier::Database, Tier::Application, Tier::LoadBalancer]
            {
                assert!(tiers.contains(&tier), "{tier:?} of {assets}");
            }
        }
    }

    #[test]
    fn an_asset_needs_others_each_once_and_three_on_average() {
        for shape in [Shape::Tiers, Shape::Random] {
            let inventory = inventory(shape, 10_000);
            let mut edges = 0;
            for number in 0..inventory.assets {
                let targets = inventory.targets(number);
                let distinct: HashSet<_> = targets.iter().map(|(target, _)| *target).collect();
                assert!(
                    distinct.len() == targets.len() && !distinct.contains(&number),
                    "{number}: {targets:?}"
                );
                edges += targets.len();
            }
            assert!((29_000..=31_000).contains(&edges), "{shape:?}: {edges}");
        }
    }

    #[test]
    fn a_switch_of_tiers_reaches_a_pod_at_most() {
        let inventory = inventory(Shape::Tiers, 10_000);
        let graph = inventory.graph();
        let switches =
            (0..inventory.assets).filter(|number| inventory.tier(*number) == Tier::Switch);
        let reaches: Vec<_> = switches.map(|switch| graph.reach(switch, 10).len()).collect();
        assert_eq!(reaches.len(), 100);
        assert!(reaches.iter().all(|reach| (300..MAX_POD_ASSETS).contains(reach)), "{reaches:?}");
        let cores = inventory.core_switches();
        assert_eq!(cores.len(), 4);
        assert!(cores.iter().all(|core| graph.reach(*core, 10).len() > 4_000), "{reaches:?}");
    }

    #[test]
    fn at_random_ten_steps_reach_about_half_of_a_hundred_thousand() {
        let inventory = inventory(Shape::Random, 100_000);
        let graph = inventory.graph();
        let mut reaches: Vec<_> = (0..15).map(|root| graph.reach(root * 6_001, 10).len()).collect();
        reaches.sort_unstable();
        assert!((40_000..80_000).contains(&reaches[7]), "{reaches:?}");
    }
}
