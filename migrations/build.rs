//! Embeds `sql/`: writes the table of migrations that `src/migration.rs` includes, or fails the build.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

#[path = "src/listing.rs"]
mod listing;

fn main() {
    println!("cargo::rerun-if-changed=sql");
    println!("cargo::rerun-if-changed=src/listing.rs");
    if let Err(reason) = embed() {
        println!("cargo::error={reason}");
    }
}

fn embed() -> Result<(), String> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(|error| error.to_string())?;
    let folder = Path::new(&root).join("sql");
    let mut table = String::from("&[\n");
    for pair in listing::pairs(&files(&folder)?)? {
        let listing::Pair { version, name } = &pair;
        let [up, down] = [pair.up_file(), pair.down_file()]
            .map(|file| folder.join(file).to_string_lossy().into_owned());
        for path in [&up, &down] {
            let sql =
                fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
            listing::inspect(&sql).map_err(|reason| format!("{path}: {reason}"))?;
        }
        writeln!(
            table,
            "Migration {{ version: {version}, name: {name:?}, \
             up: include_str!({up:?}), down: include_str!({down:?}) }},",
        )
        .map_err(|error| error.to_string())?;
    }
    table.push(']');

    let out = env::var("OUT_DIR").map_err(|error| error.to_string())?;
    fs::write(Path::new(&out).join("migrations.rs"), table).map_err(|error| error.to_string())
}

/// Returns the names of the files in a folder, except hidden ones, which editors leave behind.
fn files(folder: &Path) -> Result<Vec<String>, String> {
    let unreadable = |error| format!("cannot list {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}
