//! Resolution of paths to the module that defines the item: along modules, imports, re-exports and globs.

use std::collections::BTreeSet;

use super::module::{Module, Modules};

/// Target that a path resolves to.
#[derive(Clone)]
pub enum Target {
    Module(Vec<String>),
    /// An item defined in this module.
    Item(Vec<String>),
}

/// Resolves `path` as written in `module`; `None` if it leaves the crate.
pub fn resolve(modules: &Modules, module: &[String], path: &[String]) -> Option<Target> {
    follow(modules, module, path, &mut Seen::new())
}

/// Names under resolution: module, name, and true for the last name of a path.
type Seen = BTreeSet<(Vec<String>, String, bool)>;

fn follow(
    modules: &Modules,
    module: &[String],
    path: &[String],
    seen: &mut Seen,
) -> Option<Target> {
    let mut here = module.to_vec();
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "crate" => here.clear(),
            "self" => {}
            "super" => drop(here.pop()),
            _ => break,
        }
        rest = after;
    }
    let is_relative = rest.len() == path.len();
    for (index, name) in rest.iter().enumerate() {
        let is_last = index + 1 == rest.len();
        match member(modules, &here, name, is_last, seen) {
            Some(Target::Module(path)) => here = path,
            Some(item) => return Some(item),
            None if is_relative && index == 0 => return None,
            // A variant, a method, or an item that a macro declares.
            None => return Some(Target::Item(here)),
        }
    }
    Some(Target::Module(here))
}

/// Resolves `name` in `module`. The last name of a path prefers an item; the names before it prefer a module.
fn member(
    modules: &Modules,
    module: &[String],
    name: &str,
    is_last: bool,
    seen: &mut Seen,
) -> Option<Target> {
    // `use url::Url` looks up `url`, which would look up itself again.
    if !seen.insert((module.to_vec(), name.to_owned(), is_last)) {
        return None;
    }
    let Module { items, imports, globs, .. } = modules.get(module)?;
    let mut found = Vec::new();
    if items.contains(name) {
        found.push(Target::Item(module.to_vec()));
    }
    let child = [module, &[name.to_owned()]].concat();
    if modules.contains_key(&child) {
        found.push(Target::Module(child));
    }
    for (_, path) in imports.iter().filter(|(alias, _)| alias == name) {
        found.extend(follow(modules, module, path, seen));
    }
    for path in globs {
        if let Some(Target::Module(path)) = follow(modules, module, path, seen) {
            found.extend(member(modules, &path, name, is_last, seen));
        }
    }
    let is_wanted = |target: &&Target| matches!(target, Target::Item(_)) == is_last;
    found.iter().find(is_wanted).or(found.first()).cloned()
}
