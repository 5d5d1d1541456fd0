//! Arrows between the files of a crate, from the names in their code.

use std::collections::BTreeMap;

use super::{
    module::{Kind, Module, modules},
    resolve::{Target, resolve},
    source::Texts,
};

/// An arrow: one file names items of another.
#[derive(Debug)]
pub struct Arrow {
    pub from: String,
    pub to: String,
    /// First line of `from` that names an item of `to`.
    pub line: usize,
}

/// Returns all arrows of a crate; see [`super`] for the definition.
pub fn arrows(texts: &Texts) -> Vec<Arrow> {
    let modules = modules(texts);
    let mut lines: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (path, module) in &modules {
        for name in &module.names {
            let Some(target) = resolve(&modules, path, &name.path) else { continue };
            let is_glob = matches!(name.kind, Kind::Use { is_glob: true, .. });
            let named = match target {
                Target::Item(path) => &modules[&path],
                Target::Module(path) if is_glob => &modules[&path],
                Target::Module(_) => continue,
            };
            if is_arrow(module, named, name.kind) {
                let line = lines.entry((&module.file, &named.file)).or_insert(name.line);
                *line = name.line.min(*line);
            }
        }
    }
    let arrow = |((from, to), line): ((&str, &str), usize)| Arrow {
        from: from.to_owned(),
        to: to.to_owned(),
        line,
    };
    lines.into_iter().map(arrow).collect()
}

fn is_arrow(from: &Module, to: &Module, kind: Kind) -> bool {
    let is_root = from.home.is_empty();
    let is_own_folder = from.home.starts_with(&to.home);
    let shows_its_folder =
        matches!(kind, Kind::Use { is_reexport: true, .. }) && to.home.starts_with(&from.home);
    !is_root && !is_own_folder && !shows_its_folder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(files: &[(&str, &str)]) -> Vec<Arrow> {
        let owned = |(file, text): &(&str, &str)| (String::from(*file), String::from(*text));
        arrows(&files.iter().map(owned).collect())
    }

    /// Returns the arrows out of `asset.rs`, with `code` as its content, in a small crate.
    fn check(code: &str, expected: &[&str]) {
        let arrows = sample(&[
            (
                "lib.rs",
                "mod asset; mod id; mod rule; mod tag; pub use id::Id; pub use rule::cel as language;",
            ),
            ("asset.rs", code),
            ("asset/patch.rs", "pub struct Patch; pub struct Field;"),
            (
                "id.rs",
                "use uuid::Uuid; pub struct Id(Uuid); impl Id { pub fn new() {} } pub fn tag() {}",
            ),
            (
                "rule.rs",
                "mod key; pub mod cel; pub use key::{Key, KeyError as Error}; pub struct Rule;",
            ),
            ("rule/cel.rs", "pub enum Type { Text } pub fn compile() {}"),
            ("rule/key.rs", "pub struct Key; pub struct KeyError;"),
            (
                "tag.rs",
                "pub fn tag() {} pub use crate::id::*; pub mod inline { pub struct Inner; }",
            ),
        ]);
        let from_asset = arrows.iter().filter(|arrow| arrow.from == "asset.rs");
        let found: Vec<_> = from_asset.map(|arrow| arrow.to.as_str()).collect();
        assert_eq!(found, expected, "{code}");
    }

    #[test]
    fn names_lead_to_the_file_where_the_item_stands() {
        check("use crate::rule::Rule;", &["rule.rs"]);
        check(
            "use crate::{rule::{self, Rule, cel::{Type, compile}}, tag::tag};",
            &["rule.rs", "rule/cel.rs", "tag.rs"],
        );
        check("use super::tag::inline::Inner as Deep;", &["tag.rs"]);
        check("fn new() { crate::id::Id::new() }", &["id.rs"]);
        check("use crate::r#rule::Rule;", &["rule.rs"]);
        check("fn all() -> Vec<Option<super::rule::Rule>> {}", &["rule.rs"]);
        check("use serde::{Serialize, de::Error}; fn id() -> uuid::Uuid {}", &[]);
        check("use url::Url; use url; use asset::asset;", &[]);
    }

    #[test]
    fn reexports_are_followed() {
        check("use crate::Id;", &["id.rs"]);
        check("use crate::rule::{Key, Error};", &["rule/key.rs"]);
        check("use crate::tag::Id;", &["id.rs"]);
        check("fn of() { crate::language::compile() }", &["rule/cel.rs"]);
        check("use crate::tag::*; fn of(id: Id) {}", &["id.rs", "tag.rs"]);
        check("use crate::tag::*; fn of(id: Uuid) {}", &["tag.rs"]);
    }

    #[test]
    fn a_module_in_scope_is_no_arrow_and_what_is_named_in_it_is() {
        check("use crate::rule;", &[]);
        check("use crate::rule; fn of(key: rule::Key) {}", &["rule/key.rs"]);
        check(
            "use crate::rule::cel as language; fn of() { language::Type::Text }",
            &["rule/cel.rs"],
        );
        check("use crate::rule::{self}; fn of(key: rule::Key) {}", &["rule/key.rs"]);
        check("use crate::tag::{self, tag}; fn of() { tag() }", &["tag.rs"]);
    }

    #[test]
    fn a_folder_belongs_to_the_file_of_its_name() {
        check("mod patch; pub use patch::Patch; pub(crate) use self::patch::Field;", &[]);
        check("mod patch; use patch::Patch;", &["asset/patch.rs"]);
        check("mod patch; pub use patch::Patch; fn of(patch: Patch) {}", &["asset/patch.rs"]);
        check("mod patch; fn of(patch: u8) -> u8 { patch }", &[]);
        check("mod patch; use ::patch::Patch;", &[]);
        let up = sample(&[
            ("lib.rs", "mod asset; pub fn start() -> asset::Asset {}"),
            ("asset.rs", "mod patch; mod store; pub struct Asset;"),
            ("asset/patch.rs", "use super::Asset; use crate::{asset, start};"),
            ("asset/store.rs", "fn of() { super::patch::Patch }"),
        ]);
        assert!(
            matches!(&up[..], [Arrow { from, to, .. }] if from == "asset/store.rs" && to == "asset/patch.rs")
        );
    }

    #[test]
    fn a_name_may_be_a_module_and_a_function() {
        let arrows = sample(&[
            ("lib.rs", "mod job; mod push; mod worker; mod tag; pub use tag::push;"),
            ("job.rs", "use crate::push; fn of() { push() }"),
            ("push.rs", "pub struct Push;"),
            ("tag.rs", "pub fn push() {}"),
            ("worker.rs", "fn of() { crate::push::Push }"),
        ]);
        let found: Vec<_> = arrows.iter().map(|one| (&*one.from, &*one.to)).collect();
        assert_eq!(found, [("job.rs", "tag.rs"), ("worker.rs", "push.rs")]);
    }

    #[test]
    fn macros_and_attributes_are_read() {
        check(
            "fn of() { matches!(one, crate::rule::Rule | crate::Id { .. }) }",
            &["id.rs", "rule.rs"],
        );
        check(
            "use crate::rule::cel; fn of() { select! { _ = async { cel::compile() } => {} } }",
            &["rule/cel.rs"],
        );
        check("fn of() { html! { p crate::rule::Rule } }", &["rule.rs"]);
        check("#[graphql(directive = crate::tag::tag::apply(One))] struct Asset;", &["tag.rs"]);
        check("fn of() { info!(<u8 as One>::crate::rule::Rule, id: u8) }", &[]);
    }

    #[test]
    fn tests_are_not_read() {
        check("#[cfg(test)] mod tests { use crate::rule::Rule; }", &[]);
        check(
            "#[cfg(test)] use crate::rule::Rule; #[cfg(test)] fn of() { crate::tag::tag() }",
            &[],
        );
        check("#[cfg(all(test, unix))] mod patch; fn of() { patch::Patch }", &[]);
        check("impl Asset { #[cfg(test)] fn of() { crate::tag::tag() } }", &[]);
        check("#[cfg(feature = \"testing\")] use crate::rule::Rule;", &["rule.rs"]);
        check("#[cfg(any(test, unix))] use crate::rule::Rule;", &["rule.rs"]);
        check("#[cfg(not(test))] use crate::rule::Rule;", &["rule.rs"]);
        check("pub(in crate::rule) struct Asset;", &[]);
    }
}
