//! Source files of a crate, with their texts.

use std::{collections::BTreeMap, fs, io, path::Path};

/// Texts by file path below `src`, such as `rule/cel.rs`.
pub type Texts = BTreeMap<String, String>;

/// Reads all Rust files below `folder`.
pub fn read(folder: &Path) -> io::Result<Texts> {
    let mut texts = Texts::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            let below = read(&path)?.into_iter();
            texts.extend(below.map(|(file, text)| (format!("{name}/{file}"), text)));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(texts)
}
