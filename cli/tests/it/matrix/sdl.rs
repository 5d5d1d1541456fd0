//! Permissions that the served schema declares, parsed from its text to find rows missing from the table.

use std::collections::{BTreeMap, BTreeSet};

use super::table::Requires;

/// Types of a schema, and its declarations of permissions: `Asset`, `Query.assets`, `User.email`.
pub(super) struct Stated {
    pub(super) types: BTreeSet<String>,
    pub(super) statements: BTreeMap<String, (Requires, bool)>,
}

/// Parses the layout of the exporter: one definition per line, descriptions in separate blocks.
pub(super) fn read(sdl: &str) -> Stated {
    let (mut types, mut statements) = (BTreeSet::new(), BTreeMap::new());
    let (mut in_description, mut current, mut field) = (false, None::<String>, None::<String>);
    for line in sdl.lines() {
        if line.trim() == "\"\"\"" {
            in_description = !in_description;
            continue;
        }
        if in_description || line.trim().is_empty() {
            continue;
        }
        if let Some(rest) = line.strip_prefix("type ") {
            let name = rest.split(' ').next().unwrap().to_owned();
            if let Some(stated) = statement(rest) {
                statements.insert(name.clone(), stated);
            }
            types.insert(name.clone());
            current = Some(name);
        } else if line == "}" {
            current = None;
        } else if let (Some(on), Some(rest)) = (&current, line.strip_prefix('\t')) {
            if rest.starts_with('\t') {
                continue; // An argument, not a field.
            }
            if !rest.starts_with(')') {
                let end = rest.find(['(', ':']).unwrap();
                field = Some(format!("{on}.{}", &rest[..end]));
            }
            if rest.ends_with('(') {
                continue; // Its last line follows the arguments.
            }
            let name = field.take().unwrap();
            let is_root = matches!(on.as_str(), "Query" | "Mutation" | "Subscription");
            match statement(rest) {
                Some(stated) => drop(statements.insert(name, stated)),
                None if is_root => panic!("{name} states nothing"),
                None => {}
            }
        }
    }
    Stated { types, statements }
}

fn statement(text: &str) -> Option<(Requires, bool)> {
    let own = text.contains("@orOneself");
    if text.contains("@public") {
        return Some((Requires::Anonymous, own));
    }
    if text.contains("@authenticated") {
        return Some((Requires::SignedIn, own));
    }
    let (_, permission) = text.split_once("@requiresPermission(permission: ")?;
    let (permission, _) = permission.split_once(')').unwrap();
    Some((Requires::Take(permission.to_owned().leak()), own))
}
