//! Naming rules of the files in `sql/`: `NNNN_noun.up.sql` and `NNNN_noun.down.sql`, numbered from 0001 without gaps.
//! The functions are pure and used only by `build.rs`, so that an invalid file fails the build and never a deployment.

use std::collections::{BTreeMap, BTreeSet};

/// The up and down files of one migration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) version: i32,
    pub(crate) name: String,
}

impl Pair {
    pub(crate) fn up_file(&self) -> String {
        format!("{:04}_{}.up.sql", self.version, self.name)
    }

    pub(crate) fn down_file(&self) -> String {
        format!("{:04}_{}.down.sql", self.version, self.name)
    }
}

/// Returns the migrations in order. `files` are the names of all files in the folder `sql/`.
pub(crate) fn pairs(files: &[String]) -> Result<Vec<Pair>, String> {
    let mut names: BTreeMap<i32, BTreeSet<&str>> = BTreeMap::new();
    for file in files {
        let (version, name) = parse(file).ok_or_else(|| {
            format!("sql/{file} is not named NNNN_noun.up.sql or NNNN_noun.down.sql")
        })?;
        names.entry(version).or_default().insert(name);
    }
    let mut pairs = Vec::new();
    for (expected, (version, names)) in (1..).zip(names) {
        if version != expected {
            return Err(format!("sql/ has no migration {expected:04}, but {version:04}"));
        }
        let names: Vec<_> = names.into_iter().collect();
        let [name] = names[..] else {
            return Err(format!("sql/ has two migrations {version:04}: {}", names.join(", ")));
        };
        let pair = Pair { version, name: name.to_owned() };
        for file in [pair.up_file(), pair.down_file()] {
            if !files.contains(&file) {
                return Err(format!("sql/{file} is missing"));
            }
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

/// Rejects carriage returns, which would change the checksum, and statements that end the transaction of the runner.
pub(crate) fn inspect(sql: &str) -> Result<(), String> {
    if sql.contains('\r') {
        return Err("has carriage returns, which change its checksum".to_owned());
    }
    for (number, line) in (1..).zip(sql.lines()) {
        let line = line.trim().to_ascii_lowercase();
        if ["begin;", "commit;", "rollback;"].contains(&line.as_str()) {
            return Err(format!("line {number}: the runner opens and ends the transaction"));
        }
    }
    Ok(())
}

fn parse(file: &str) -> Option<(i32, &str)> {
    let stem = file.strip_suffix(".up.sql").or_else(|| file.strip_suffix(".down.sql"))?;
    let (digits, name) = stem.split_once('_')?;
    let is_number = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_noun = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if is_number && is_noun { Some((digits.parse().ok()?, name)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[&str], expected: Result<usize, &str>) {
        let files: Vec<String> = files.iter().map(|&file| file.to_owned()).collect();
        match (pairs(&files), expected) {
            (Ok(pairs), Ok(count)) => assert_eq!(pairs.len(), count, "{files:?}"),
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{files:?}: {reason}"),
            (got, _) => panic!("{files:?}: {got:?}"),
        }
    }

    #[test]
    fn only_complete_numbered_pairs_are_taken() {
        let one = ["0001_a.up.sql", "0001_a.down.sql"];
        check(&[], Ok(0));
        check(&one, Ok(1));
        check(&["0002_b.down.sql", one[0], "0002_b.up.sql", one[1]], Ok(2));
        check(&one[..1], Err("0001_a.down.sql is missing"));
        check(&one[1..], Err("0001_a.up.sql is missing"));
        check(&["0002_b.up.sql", "0002_b.down.sql"], Err("no migration 0001"));
        check(&["0000_b.up.sql", "0000_b.down.sql"], Err("no migration 0001"));
        check(&[one[0], "0001_b.down.sql"], Err("two migrations 0001"));
        for bad in ["1_a.up.sql", "0001-a.up.sql", "0001_A.up.sql", "0001_.up.sql", "0001_a.sql"] {
            check(&[bad], Err("is not named"));
        }
        check(&["+001_a.up.sql"], Err("is not named"));
    }

    #[test]
    fn a_file_may_not_end_the_transaction() {
        assert!(inspect("DO $$\nBEGIN\n  NULL;\nEND;\n$$;\n").is_ok());
        assert!(inspect("CREATE TABLE a ();\n  Commit;\n").unwrap_err().contains("line 2"));
        assert!(inspect("SELECT 1;\r\n").is_err());
    }
}
