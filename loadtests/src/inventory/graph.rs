//! What needs what: tiers as a data centre has them, or anything anything.
//!
//! In tiers, a load balancer needs applications, they need databases and a host, databases need hosts, hosts need switches.
//! Nothing needs what is in another pod, so what a switch takes down is at most a pod. At random, every asset needs three
//! others: ten steps then reach about every second asset.

use std::{collections::HashSet, ops::Range};

use clap::ValueEnum;
use serde::Serialize;

use super::Inventory;
use crate::random::Random;

/// Assets of a pod at most: the reach of its core switches, and one more.
pub(super) const POD: usize = 5_000;
/// What an asset of the random shape needs.
const ANY: usize = 3;

/// How the assets of an inventory hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Load balancer → application → database → host → switch.
    Tiers,
    /// Anything needs anything.
    Random,
}

impl Shape {
    /// As names have it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Tiers => "tiers",
            Self::Random => "random",
        }
    }
}

/// What an asset is for; each needs some of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// A switch.
    Switch,
    /// A machine.
    Host,
    /// A database.
    Database,
    /// An application.
    Application,
    /// What stands in front of applications.
    LoadBalancer,
}

impl Tier {
    /// As names have it.
    pub(super) const fn word(self) -> &'static str {
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
    /// What an asset is for.
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

    /// What an asset needs, and as what. Each once, never itself.
    pub(super) fn targets(&self, number: usize) -> Vec<(usize, &'static str)> {
        let mut random = Random::at(self.seed ^ 2, number);
        let mut targets = Vec::new();
        let mut need = |among: &Range<usize>, count: usize, kind: &'static str| {
            // Itself may be among them, and is not needed.
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
            (Shape::Random, _) => need(&(0..self.assets), ANY, "uses"),
            (Shape::Tiers, Tier::Switch) if core.contains(&number) => {}
            (Shape::Tiers, Tier::Switch) => need(&core, 2, "uplink"),
            (Shape::Tiers, Tier::Host) => need(&pod.switches, 2, "network"),
            (Shape::Tiers, Tier::Database) => need(&pod.hosts, 2, "runs_on"),
            (Shape::Tiers, Tier::Application) => {
                need(&pod.databases, 2, "sql");
                need(&pod.hosts, 1, "runs_on");
            }
            (Shape::Tiers, Tier::LoadBalancer) => need(&pod.applications, 11, "routes_to"),
        }
        targets
    }

    /// The switches that all others of their pod need; in tiers nothing reaches further.
    pub(crate) fn core_switches(&self) -> Vec<usize> {
        let is_core = |number: &usize| self.pod(*number).core().contains(number);
        (0..self.assets).filter(is_core).collect()
    }

    /// All of it at once, for walks; some bytes an asset and edge.
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
        // As many as are needed, and all as large as each other but for one.
        let pods = self.assets.div_ceil(POD);
        let at = number * pods / self.assets;
        let start = |pod: usize| (pod * self.assets).div_ceil(pods);
        Pod::of(start(at)..start(at + 1))
    }
}

/// Who needs each asset.
pub(crate) struct Graph {
    dependents: Vec<Vec<usize>>,
}

impl Graph {
    /// What fails with an asset, so many steps away at most.
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

/// Assets that need only each other, by their tiers.
struct Pod {
    switches: Range<usize>,
    hosts: Range<usize>,
    databases: Range<usize>,
    applications: Range<usize>,
}

impl Pod {
    /// 1 % switches, 30 % hosts, 9 % databases, 55 % applications, 5 % load balancers; about three edges an asset.
    fn of(assets: Range<usize>) -> Self {
        let hundredths = |percent: usize| (assets.len() * percent / 100).max(1);
        let switches = assets.start..assets.start + hundredths(1);
        let hosts = switches.end..switches.end + hundredths(30);
        let databases = hosts.end..hosts.end + hundredths(9);
        let applications = databases.end..assets.end.saturating_sub(hundredths(5));
        Self { switches, hosts, databases, applications }
    }

    /// Two of the switches, where there are as many.
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
        assert!(reaches.iter().all(|reach| (300..POD).contains(reach)), "{reaches:?}");
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
