//! The keywords of conditions: what they read, and what they call.

use cel::common::ast::operators;

use crate::{
    base::{nearest::nearest, text::beginning},
    compliance::rule::key::Key,
    inventory::attribute::{self, Attribute},
};

pub(super) const ATTR: &str = "attr";
pub(super) const ASSET: &str = "asset";
pub(super) const OWNER: &str = "owner";
pub(super) const PARAMS: &str = "params";
pub(super) const NOW: &str = "now";

/// What a rule reads.
pub(super) const ROOTS: [&str; 5] = [ATTR, ASSET, OWNER, PARAMS, NOW];
/// What is called with one value.
pub(super) const FUNCTIONS: [&str; 9] =
    ["has", "size", "int", "double", "string", "timestamp", "duration", "days", "hours"];
/// What is called on a value.
pub(super) const METHODS: [&str; 4] = ["size", "contains", "startsWith", "endsWith"];
/// What goes over a list.
pub(super) const MACROS: [&str; 5] =
    [operators::ALL, operators::EXISTS, operators::EXISTS_ONE, operators::FILTER, operators::MAP];

/// Whether it stands between two values.
pub(super) fn is_operator(name: &str) -> bool {
    !sign(name).is_empty()
}

/// How an operator is written; empty for what is none.
pub(super) fn sign(name: &str) -> &'static str {
    match name {
        operators::LOGICAL_AND => "&&",
        operators::LOGICAL_OR => "||",
        operators::EQUALS => "==",
        operators::NOT_EQUALS => "!=",
        operators::LESS => "<",
        operators::LESS_EQUALS => "<=",
        operators::GREATER => ">",
        operators::GREATER_EQUALS => ">=",
        operators::ADD => "+",
        operators::SUBSTRACT => "-",
        operators::MULTIPLY => "*",
        operators::DIVIDE => "/",
        operators::MODULO => "%",
        operators::IN => "in",
        operators::INDEX => "[]",
        _ => "",
    }
}

/// Whether it orders two values.
pub(super) fn is_comparison(name: &str) -> bool {
    matches!(
        name,
        operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS
    )
}

/// That there is no such attribute, and what was probably meant.
pub(super) fn unknown_attribute(field: &str) -> (String, Option<String>) {
    let is_alias = |known: &&Attribute| known.aliases.iter().any(|alias| alias == field);
    if let Some(known) = Attribute::all().iter().find(is_alias) {
        let message =
            format!("attr.{field} is another name of attr.{}, under which it is kept", known.key);
        return (message, Some(format!("attr.{}", known.key)));
    }
    let message =
        format!("attr.{} is no attribute: the query attributes lists them", beginning(field));
    let meant = attribute::suggestion(field).and_then(|name| {
        attribute::find(&name, "").ok().map(|known| format!("attr.{}", known.key))
    });
    let elsewhere = || {
        let roots = [ASSET, OWNER];
        let key = roots.iter().find_map(|root| Key::of_field(root, field));
        key.map(|key| key.name().to_owned())
    };
    let near = || nearest(field, Key::fields(ASSET)).map(|near| format!("{ASSET}.{near}"));
    (message, elsewhere().or(meant).or_else(near))
}
