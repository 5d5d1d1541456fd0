//! Prints the import structure of the sources: `cargo run -p cli --example structure [CHECKOUT]`. The checkout may be
//! older.
//!
//! Sizes count every Rust file below `src`, including tests. `cli/tests/it/structure.rs` defines arrows, and the table
//! in `cli/tests/it/wings.rs` decides which of them point upward.
#![expect(clippy::print_stdout, reason = "the program prints its result")]
#![expect(unreachable_pub, reason = "the modules belong to the tests and are used here too")]

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context, ensure};

#[path = "../tests/it"]
mod it {
    pub mod structure;
    pub mod wings;
}
use it::{
    structure::{
        CRATES,
        arrow::{Arrow, arrows},
        circle::circles,
        source::{Texts, read},
    },
    wings::{Crossing, crossings, forbidden},
};

/// Number of lines above which a file counts as large.
const LARGE_LINES: usize = 450;

struct Crate {
    folder: &'static str,
    texts: Texts,
    arrows: Vec<Arrow>,
}

fn main() -> anyhow::Result<()> {
    let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let checkout = std::env::args_os().nth(1).map_or_else(here, PathBuf::from);
    let mut crates = Vec::new();
    // An older checkout may lack some of the crates.
    for folder in CRATES.iter().filter(|folder| checkout.join(folder).is_dir()) {
        let texts = read(&checkout.join(folder)).with_context(|| format!("reading {folder}"))?;
        let arrows = arrows(&texts);
        crates.push(Crate { folder, texts, arrows });
    }
    ensure!(!crates.is_empty(), "{} contains none of our crates", checkout.display());
    print_sizes(&crates);
    print_circles(&crates);
    print_wings(&crates);
    Ok(())
}

fn print_sizes(crates: &[Crate]) {
    println!(
        "{:18} {:>5} {:>6} {:>6} {:>4} {:>6} {:>9} {:>7}  largest file",
        "crate", "files", "lines", "median", ">450", "arrows", "in circle", "circles"
    );
    for Crate { folder, texts, arrows } in crates {
        print_row(folder, &sizes(folder, texts), arrows.len(), &circles(arrows));
    }
    let all: Vec<_> = crates.iter().flat_map(|one| sizes(one.folder, &one.texts)).collect();
    let arrows = crates.iter().map(|one| one.arrows.len()).sum();
    let circles: Vec<_> = crates.iter().flat_map(|one| circles(&one.arrows)).collect();
    print_row("total", &all, arrows, &circles);
}

/// Returns the number of lines and the path of each file.
fn sizes(folder: &str, texts: &Texts) -> Vec<(usize, String)> {
    let size =
        |(file, text): (&String, &String)| (text.lines().count(), format!("{folder}/{file}"));
    texts.iter().map(size).collect()
}

fn print_row(name: &str, sizes: &[(usize, String)], arrows: usize, circles: &[BTreeSet<&str>]) {
    let mut sorted: Vec<_> = sizes.iter().collect();
    sorted.sort();
    let median = sorted.get(sorted.len() / 2).map_or(0, |(lines, _)| *lines);
    let (largest, file) = sorted.last().map_or((0, ""), |(lines, file)| (*lines, file));
    let lines: usize = sizes.iter().map(|(lines, _)| lines).sum();
    let large = sizes.iter().filter(|(lines, _)| *lines > LARGE_LINES).count();
    let in_circle: usize = circles.iter().map(BTreeSet::len).sum();
    println!(
        "{name:18} {:5} {lines:6} {median:6} {large:4} {arrows:6} {in_circle:9} {:7}  {file} {largest}",
        sizes.len(),
        circles.len(),
    );
}

fn print_circles(crates: &[Crate]) {
    for Crate { folder, arrows, .. } in crates {
        for files in circles(arrows) {
            let names: Vec<_> = files.iter().map(|file| file.trim_end_matches(".rs")).collect();
            println!("\ncircle of {} in {folder}: {}", files.len(), names.join(", "));
        }
    }
}

fn print_wings(crates: &[Crate]) {
    for Crate { folder, arrows, .. } in crates {
        let crossings = crossings(folder, arrows);
        if crossings.is_empty() {
            continue;
        }
        let upward = crossings.iter().filter(|crossing| !crossing.is_allowed).count();
        println!("\nwings in {folder}: {} arrows, {upward} upward", crossings.len());
        for Crossing { from, to, is_allowed, arrows } in &crossings {
            let remark = if *is_allowed { "" } else { "  upward" };
            println!("  {from:10} -> {to:10} {:4}{remark}", arrows.len());
        }
        for line in forbidden(folder, arrows) {
            println!("  {line}");
        }
    }
}
