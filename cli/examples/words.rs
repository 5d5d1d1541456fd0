//! Prints how doc comments are worded: `cargo run -p cli --example words [CHECKOUT] [--list]`. The checkout may be
//! older. `--list` prints each counted comment of a public item.
//!
//! `cli/tests/it/words.rs` defines what is counted and tests the shares.
#![expect(clippy::print_stdout, reason = "the program prints its result")]
#![expect(unreachable_pub, reason = "the modules belong to the tests and are used here too")]

use std::path::PathBuf;

use anyhow::Context;

#[path = "../tests/it"]
mod it {
    #[expect(dead_code, reason = "only the list of crates and the reader are used")]
    pub mod structure;
    pub mod words;
}
use it::{
    structure::CRATES,
    words::{Counts, of_folder},
};

fn main() -> anyhow::Result<()> {
    let (options, paths): (Vec<_>, Vec<_>) =
        std::env::args_os().skip(1).partition(|argument| argument == "--list");
    let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let checkout = paths.first().map_or_else(here, PathBuf::from);
    let mut totals = [Counts::default(); 2];
    print_head();
    for folder in CRATES.iter().filter(|folder| checkout.join(folder).is_dir()) {
        let comments =
            of_folder(&checkout.join(folder)).with_context(|| format!("reading {folder}"))?;
        let mut counts = [Counts::default(); 2];
        for (file, comment) in &comments {
            for counts in [&mut counts, &mut totals] {
                counts[usize::from(!comment.is_public)].add(comment);
            }
            let is_counted = comment.opens_with_pronoun() || comment.is_short();
            if !options.is_empty() && comment.is_public && is_counted {
                println!("{folder}/{file}:{}: {}", comment.line, comment.text);
            }
        }
        print_row(folder, counts);
    }
    print_row("total", totals);
    Ok(())
}

fn print_head() {
    println!(
        "{:18} {:>6} {:>9} {:>7}   {:>6} {:>9} {:>7}",
        "crate", "public", "pronoun %", "short %", "others", "pronoun %", "short %"
    );
}

fn print_row(name: &str, [public, others]: [Counts; 2]) {
    print!("{name:18}");
    for Counts { comments, pronouns, short } in [public, others] {
        let tenths = |count: usize| count * 1_000 / comments.max(1);
        let (pronouns, short) = (tenths(pronouns), tenths(short));
        print!(
            " {comments:6} {:>7}.{} {:>5}.{}  ",
            pronouns / 10,
            pronouns % 10,
            short / 10,
            short % 10
        );
    }
    println!();
}
