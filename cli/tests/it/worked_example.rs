//! The worked example of `ARCHITECTURE.md`: its blocks are applied to a copy of the sources, which must then compile,
//! up to the API. Its SQL gets a number and is listed as a migration, but not executed.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Files that Cargo needs to read the workspace.
const SOURCES: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "migrations",
    "schema",
    "jobs",
    "workers",
    "api",
    "cli",
    "loadtests",
];

/// A fenced block whose info string names a file: `diff` inserts lines, any other language creates the file.
struct Block {
    language: String,
    file: String,
    lines: Vec<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let body = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
        if let Some((language, file)) = info.split_once(' ') {
            blocks.push(Block {
                language: language.to_owned(),
                file: file.to_owned(),
                lines: body,
            });
        }
    }
    blocks
}

/// Returns the text with the block's `+` lines inserted after its one line of context.
fn inserted(text: &str, block: &Block) -> String {
    let (context, added) = block.lines.split_first().unwrap();
    let context = context.strip_prefix(' ').unwrap();
    let added: Vec<_> = added.iter().map(|line| line.strip_prefix('+').unwrap()).collect();
    assert_eq!(
        text.lines().filter(|line| *line == context).count(),
        1,
        "{}: the line that stands before the insertion, once: {context}",
        block.file
    );
    let mut lines: Vec<&str> = text.lines().collect();
    let place = lines.iter().position(|line| *line == context).unwrap() + 1;
    lines.splice(place..place, added);
    lines.join("\n") + "\n"
}

/// Writes a file only if its content differs, so that Cargo keeps what it compiled before.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap())?;
    fs::write(path, text)
}

/// Returns the files below a source folder, without installed or built files.
fn files(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.ends_with("node_modules") || path.ends_with("target") {
        return Ok(());
    }
    if !path.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    fs::read_dir(path)?.try_for_each(|entry| files(&entry?.path(), found))
}

/// Returns the number of the next migration.
fn next_migration(root: &Path) -> String {
    let names = fs::read_dir(root.join("migrations/sql")).unwrap();
    let number = |name: io::Result<fs::DirEntry>| {
        name.unwrap().file_name().to_string_lossy()[..4].parse::<u32>().unwrap()
    };
    format!("{:04}", names.map(number).max().unwrap() + 1)
}

#[test]
fn the_worked_example_compiles() {
    let root = fs::canonicalize(ROOT).unwrap();
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("worked-example");
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let blocks = blocks(&page.replace("NNNN", &next_migration(&root)));
    assert!(blocks.iter().any(|block| block.language == "diff"), "there is no example");
    let mut sources = Vec::new();
    for source in SOURCES {
        files(&root.join(source), &mut sources).unwrap();
    }
    let mut written = HashSet::new();
    for source in sources {
        let name = source.strip_prefix(&root).unwrap();
        let mut text = fs::read(&source).unwrap();
        for block in blocks.iter().filter(|block| Path::new(&block.file) == name) {
            assert_eq!(block.language, "diff", "{} is there already", block.file);
            text = inserted(&String::from_utf8(text).unwrap(), block).into_bytes();
        }
        write(&copy.join(name), &text).unwrap();
        written.insert(copy.join(name));
    }
    for block in blocks.iter().filter(|block| !root.join(&block.file).exists()) {
        assert_ne!(block.language, "diff", "{} is gone", block.file);
        write(&copy.join(&block.file), (block.lines.join("\n") + "\n").as_bytes()).unwrap();
        written.insert(copy.join(&block.file));
    }
    let mut found = Vec::new();
    files(&copy, &mut found).unwrap();
    for stale in found.iter().filter(|file| !written.contains(*file)) {
        fs::remove_file(stale).unwrap(); // Copied by an earlier run, and no longer in the sources.
    }
    let output = Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--offline", "--locked", "--package", "graphql"])
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn lines_are_inserted_behind_their_context_and_nowhere_else() {
    let lines = [" b", "+c", "+"].map(str::to_owned).to_vec();
    let block = Block { language: "diff".into(), file: "a.rs".into(), lines };
    assert_eq!(inserted("a\nb\nd\n", &block), "a\nb\nc\n\nd\n");
}
