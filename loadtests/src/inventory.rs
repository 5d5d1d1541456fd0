//! Generated inventories of any size, as files to import: `assets.csv` and `dependencies.csv`. `inventory/graph`
//! generates the dependencies, and `inventory/row` the facts of an asset.
//!
//! Each row is computed from the seed and the row's number only. Rows are therefore not kept in memory, and a scenario
//! can compute the expected result for a million rows without reading the files. Times are relative to a given
//! timestamp.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use clap::Args;

mod graph;
mod row;

use crate::{
    random::{self, Random},
    report,
};
pub(crate) use graph::{Graph, Shape, Tier};

/// Arguments of the `inventory` subcommand.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Existing folder to which both files are written.
    folder: PathBuf,
    /// Number of assets, at least 5.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(5..))]
    rows: u32,
    /// Shape of the dependencies between the assets.
    #[arg(long, value_enum, default_value = "tiers")]
    shape: Shape,
    /// Seed of the random numbers; by default a new one for each run.
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let seed = random::seed(arguments.seed)?;
    let at: DateTime<Utc> = SystemTime::now().into();
    let Arguments { folder, rows, shape, .. } = arguments;
    let inventory = Inventory { shape: *shape, assets: usize::try_from(*rows)?, seed, at };
    let edges = inventory.write(folder)?.edges;
    let folder = folder.display();
    report::print(&format!(
        "wrote {rows} assets and {edges} dependencies to {folder}; seed {seed}\n"
    ))
}

/// Parameters of a generated inventory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inventory {
    /// Shape of the dependencies between the assets.
    pub(crate) shape: Shape,
    /// Number of assets; at least five, one of each tier.
    pub(crate) assets: usize,
    /// Seed of the inventory; equal seeds yield equal inventories.
    pub(crate) seed: u64,
    /// Timestamp to which the facts' times are relative.
    pub(crate) at: DateTime<Utc>,
}

/// Files of a written inventory.
#[derive(Debug)]
pub(crate) struct InventoryFiles {
    /// Path of the file `assets.csv`.
    pub(crate) assets: PathBuf,
    /// Path of the file `dependencies.csv`.
    pub(crate) dependencies: PathBuf,
    /// Number of dependencies, one per row.
    pub(crate) edges: usize,
}

impl Inventory {
    /// Writes both files to a folder, replacing earlier ones.
    pub(crate) fn write(&self, folder: &Path) -> Result<InventoryFiles> {
        let (assets, dependencies) = (folder.join("assets.csv"), folder.join("dependencies.csv"));
        let mut file = create(&assets)?;
        self.write_assets(&mut file).and_then(|()| file.flush()).context("write assets.csv")?;
        let mut file = create(&dependencies)?;
        let edges = self.write_dependencies(&mut file).context("write dependencies.csv")?;
        file.flush().context("write dependencies.csv")?;
        Ok(InventoryFiles { assets, dependencies, edges })
    }

    /// Returns the external id of an asset: `load:` followed by the asset's number with seven digits.
    pub(crate) fn external_id(number: usize) -> String {
        format!("load:{number:07}")
    }

    /// Returns the name of an asset. No other asset's name contains this name, so a text filter finds only this asset.
    pub(crate) fn name(&self, number: usize) -> String {
        format!("{}-{number:07}", self.tier(number).name())
    }

    fn write_assets(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut line = row::header();
        out.write_all(line.as_bytes())?;
        for number in 0..self.assets {
            line.clear();
            row::push(self, number, &mut line);
            out.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    fn write_dependencies(&self, out: &mut impl Write) -> std::io::Result<usize> {
        let mut edges = 0;
        writeln!(out, "source_external_id,target_external_id,kind,criticality")?;
        for number in 0..self.assets {
            for (target, kind) in self.targets(number) {
                let criticality =
                    Random::at(self.seed ^ 3, edges).one_of(&["low", "medium", "high", "critical"]);
                let (source, target) = (Self::external_id(number), Self::external_id(target));
                writeln!(out, "{source},{target},{kind},{criticality}")?;
                edges += 1;
            }
        }
        Ok(edges)
    }
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(shape: Shape, seed: u64) -> Inventory {
        let at = DateTime::from_timestamp(1_780_000_000, 0).unwrap();
        Inventory { shape, assets: 3_000, seed, at }
    }

    fn assets(inventory: &Inventory) -> String {
        let mut file = Vec::new();
        inventory.write_assets(&mut file).unwrap();
        String::from_utf8(file).unwrap()
    }

    /// Splits a CSV line into cells; cells must not contain line breaks.
    fn cells(line: &str) -> Vec<String> {
        let (mut cells, mut is_quoted) = (vec![String::new()], false);
        let mut characters = line.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '"' if is_quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                    cells.last_mut().unwrap().push('"');
                }
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => cells.push(String::new()),
                other => cells.last_mut().unwrap().push(other),
            }
        }
        assert!(!is_quoted, "{line}");
        cells
    }

    #[test]
    fn a_seed_gives_the_same_file_and_another_one_another() {
        let made = |seed| assets(&inventory(Shape::Tiers, seed));
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
    }

    #[test]
    fn every_row_has_a_cell_for_each_column_and_its_own_name() {
        let inventory = inventory(Shape::Random, 1);
        let text = assets(&inventory);
        let mut lines = text.lines().map(cells);
        let header = lines.next().unwrap();
        assert_eq!(header[..3], ["external_id", "name", "asset_type"]);
        let mut names = std::collections::HashSet::new();
        for (number, row) in lines.enumerate() {
            assert_eq!(row.len(), header.len(), "{row:?}");
            assert_eq!(
                (row[0].as_str(), row[1].as_str()),
                (Inventory::external_id(number).as_str(), inventory.name(number).as_str())
            );
            assert!(names.insert(row[1].clone()), "{row:?}");
        }
        assert_eq!(names.len(), inventory.assets);
    }

    #[test]
    fn ten_to_twenty_five_percent_of_the_facts_are_missing() {
        let text = assets(&inventory(Shape::Tiers, 1));
        let mut lines = text.lines().map(cells);
        let header = lines.next().unwrap();
        let facts: Vec<_> =
            (0..header.len()).filter(|at| header[*at].starts_with("attributes.")).collect();
        assert_eq!(facts.len(), 15);
        let mut missing = vec![0; header.len()];
        let mut rows = 0;
        for row in lines {
            rows += 1;
            for at in &facts {
                missing[*at] += usize::from(row[*at].is_empty());
            }
        }
        for at in facts {
            let percent = missing[at] * 100 / rows;
            assert!((10..=25).contains(&percent), "{}: {percent} %", header[at]);
        }
    }

    #[test]
    fn dependencies_name_assets_that_are_there() {
        let inventory = inventory(Shape::Tiers, 1);
        let mut file = Vec::new();
        let edges = inventory.write_dependencies(&mut file).unwrap();
        let text = String::from_utf8(file).unwrap();
        assert_eq!(text.lines().count(), edges + 1);
        let known: std::collections::HashSet<_> =
            (0..inventory.assets).map(Inventory::external_id).collect();
        for line in text.lines().skip(1) {
            let cells = cells(line);
            assert!(
                cells.len() == 4 && known.contains(&cells[0]) && known.contains(&cells[1]),
                "{line}"
            );
        }
    }
}
