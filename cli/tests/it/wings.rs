//! Allowed imports between wings: the table of wings, checked against the sources. `floors` checks dependencies between
//! crates. This test sees one crate at a time, so a view of the inventory may call the domain's compliance.

use std::collections::BTreeMap;

use super::structure::arrow::Arrow;

/// Wings, each with the wings of the same crate that it may import.
const WINGS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("access", &["base"]),
    ("fleet", &["base", "access"]),
    ("inventory", &["base", "access", "fleet"]),
    ("compliance", &["base", "access", "fleet", "inventory"]),
    ("health", &["base", "access", "fleet", "inventory"]),
    ("triage", &["base", "access", "fleet", "inventory", "compliance", "health"]),
];

/// Rooms of a crate beside its wings. No other room is allowed at its top.
struct Rooms {
    folder: &'static str,
    /// Rooms that every wing may import, and that import no wing.
    below: &'static [&'static str],
    /// Rooms that may import every wing, and that only the crate's root imports.
    above: &'static [&'static str],
}

const CRATES: &[Rooms] = &[
    Rooms { folder: "schema/domain/src", below: &[], above: &["testing"] },
    Rooms { folder: "schema/graphql/src", below: &["request", "document"], above: &["engine"] },
    Rooms {
        folder: "jobs/src",
        below: &["error", "event", "job", "limit", "queue", "redis"],
        above: &[],
    },
    Rooms {
        folder: "workers/src",
        below: &["context", "dispatch", "handler", "maintenance"],
        above: &[],
    },
];

impl Rooms {
    fn has(&self, room: &str) -> bool {
        is_wing(room) || self.below.contains(&room) || self.above.contains(&room)
    }

    fn allows(&self, from: &str, to: &str) -> bool {
        if self.above.contains(&to) || self.below.contains(&from) && is_wing(to) {
            return false;
        }
        let may_import = |(wing, below): &(&str, &[&str])| *wing == from && below.contains(&to);
        !is_wing(from) || self.below.contains(&to) || WINGS.iter().any(may_import)
    }
}

fn is_wing(room: &str) -> bool {
    WINGS.iter().any(|(wing, _)| *wing == room)
}

/// Arrows from one room of a crate to another, with the verdict of the table.
pub struct Crossing<'arrows> {
    pub from: &'arrows str,
    pub to: &'arrows str,
    pub is_allowed: bool,
    pub arrows: Vec<&'arrows Arrow>,
}

/// Returns the crossings between the rooms of the crate at `folder`; empty if it has no wings.
pub fn crossings<'arrows>(folder: &str, arrows: &'arrows [Arrow]) -> Vec<Crossing<'arrows>> {
    let Some(rooms) = CRATES.iter().find(|rooms| rooms.folder == folder) else { return Vec::new() };
    let mut crossings: BTreeMap<(&str, &str), Vec<&Arrow>> = BTreeMap::new();
    for arrow in arrows {
        let (from, to) = (room(&arrow.from), room(&arrow.to));
        let is_beside_the_wings = rooms.below.contains(&from) && rooms.below.contains(&to);
        if from != to && rooms.has(from) && rooms.has(to) && !is_beside_the_wings {
            crossings.entry((from, to)).or_default().push(arrow);
        }
    }
    let crossing = |((from, to), arrows)| {
        let is_allowed = rooms.allows(from, to);
        Crossing { from, to, is_allowed, arrows }
    };
    crossings.into_iter().map(crossing).collect()
}

/// Returns a line for each arrow that the table forbids.
pub fn forbidden(folder: &str, arrows: &[Arrow]) -> Vec<String> {
    let lines = |Crossing { from, to, arrows, .. }: Crossing| {
        let line = |Arrow { from: file, to: other, line }: &Arrow| {
            format!("{folder}/{file}:{line} names {other}: {from} must not know {to}")
        };
        arrows.into_iter().map(line).collect::<Vec<_>>()
    };
    let crossings = crossings(folder, arrows).into_iter();
    crossings.filter(|crossing| !crossing.is_allowed).flat_map(lines).collect()
}

/// Returns the room of a file: `rule` for `rule.rs` and for `rule/cel.rs`.
fn room(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.trim_end_matches(".rs")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::{super::structure, *};
    use structure::{arrow::arrows, circle::circles, source};

    fn texts(folder: &str) -> source::Texts {
        source::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)).unwrap()
    }

    #[test]
    fn wings_import_down() {
        let forbidden = |rooms: &Rooms| forbidden(rooms.folder, &arrows(&texts(rooms.folder)));
        let all: Vec<_> = CRATES.iter().flat_map(forbidden).collect();
        assert!(all.is_empty(), "{}", all.join("\n"));
    }

    #[test]
    fn every_room_stands_in_the_table() {
        for rooms in CRATES {
            let texts = texts(rooms.folder);
            let found: BTreeSet<_> = texts.keys().map(|file| room(file)).collect();
            let is_unknown = |room: &&str| *room != "lib" && !rooms.has(room);
            let unknown: Vec<_> = found.iter().filter(|room| is_unknown(room)).collect();
            assert!(unknown.is_empty(), "{} has {unknown:?}, which no table knows", rooms.folder);
            let is_gone = |room: &&&str| !found.contains(**room);
            let gone: Vec<_> = rooms.below.iter().chain(rooms.above).filter(is_gone).collect();
            assert!(gone.is_empty(), "{} has no {gone:?}, which the table has", rooms.folder);
        }
    }

    #[test]
    fn no_file_of_the_domain_stands_in_a_circle() {
        let arrows = arrows(&texts("schema/domain/src"));
        let circles = circles(&arrows);
        assert!(circles.is_empty(), "{circles:#?}");
    }

    #[test]
    fn the_repository_has_three_circles_at_most() {
        let mut all = Vec::new();
        for folder in structure::CRATES {
            let arrows = arrows(&texts(folder));
            all.extend(circles(&arrows).iter().map(|files| format!("{folder}: {files:?}")));
        }
        assert!(all.len() <= 3, "{}", all.join("\n"));
    }

    #[test]
    fn an_upward_import_is_found() {
        let files = [
            ("lib.rs", "mod base; mod compliance; pub use compliance::rule::Rule;"),
            ("base.rs", "pub mod id;"),
            (
                "base/id.rs",
                "pub struct Id;\n\nfn of(rule: &crate::Rule) -> Id {}\nuse crate::Rule;",
            ),
            ("compliance.rs", "pub mod rule;"),
            ("compliance/rule.rs", "use crate::base::id::Id;\npub struct Rule(Id);"),
        ];
        let texts = files.map(|(file, text)| (file.to_owned(), text.to_owned())).into();
        let expected = "schema/domain/src/base/id.rs:3 names compliance/rule.rs: \
            base must not know compliance";
        assert_eq!(forbidden("schema/domain/src", &arrows(&texts)), [expected]);
    }

    /// Asserts whether a file of `from` may name one of `to`.
    fn check(folder: &str, from: &str, to: &str, expected: bool) {
        let arrow = Arrow { from: format!("{from}/one.rs"), to: format!("{to}.rs"), line: 1 };
        assert_eq!(forbidden(folder, &[arrow]).is_empty(), expected, "{folder}: {from} -> {to}");
    }

    #[test]
    fn the_table_is_read_as_it_stands() {
        for Rooms { folder, .. } in CRATES {
            check(folder, "compliance", "health", false);
            check(folder, "health", "compliance", false);
            check(folder, "triage", "health", true);
            check(folder, "inventory", "fleet", true);
            check(folder, "fleet", "inventory", false);
        }
        check("schema/domain/src", "testing", "triage", true);
        check("schema/domain/src", "base", "testing", false);
        check("schema/graphql/src", "access", "request", true);
        check("schema/graphql/src", "document", "access", false);
        check("schema/graphql/src", "engine", "document", true);
        check("schema/graphql/src", "engine", "compliance", true);
        check("schema/graphql/src", "request", "engine", false);
        check("schema/graphql/src", "triage", "engine", false);
        check("jobs/src", "compliance", "queue", true);
        check("jobs/src", "queue", "compliance", false);
        check("jobs/src", "limit", "redis", true);
    }
}
