//! Keywords of conditions: the roots of names, functions, methods and macros.

use cel::common::ast::operators;

use crate::{
    base::{nearest::nearest, text::beginning},
    compliance::rule::key::FactKey,
    inventory::attribute::{self, Attribute},
};

pub(super) const ATTR: &str = "attr";
pub(super) const ASSET: &str = "asset";
pub(super) const OWNER: &str = "owner";
pub(super) const PARAMS: &str = "params";
pub(super) const NOW: &str = "now";

/// Roots: the names with which every name in a condition begins.
pub(super) const ROOTS: [&str; 5] = [ATTR, ASSET, OWNER, PARAMS, NOW];
/// Functions that take one argument, such as `size(x)`.
pub(super) const FUNCTIONS: [&str; 9] =
    ["has", "size", "int", "double", "string", "timestamp", "duration", "days", "hours"];
/// Methods of a value, such as `x.contains(y)`.
pub(super) const METHODS: [&str; 4] = ["size", "contains", "startsWith", "endsWith"];
/// Macros over a list, such as `x.all(item, condition)`.
pub(super) const MACROS: [&str; 5] =
    [operators::ALL, operators::EXISTS, operators::EXISTS_ONE, operators::FILTER, operators::MAP];

/// Returns true for a binary operator.
pub(super) fn is_operator(name: &str) -> bool {
    !sign(name).is_empty()
}

/// Returns the sign of an operator in a source text, such as `+`; empty for any other name.
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

/// Returns true for an operator that orders two values.
pub(super) fn is_comparison(name: &str) -> bool {
    matches!(
        name,
        operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS
    )
}

/// Returns the error message for an unknown attribute, and a suggestion.
pub(super) fn unknown_attribute(field: &str) -> (String, Option<String>) {
    let is_alias = |known: &&Attribute| known.aliases.iter().any(|alias| alias == field);
    if let Some(known) = Attribute::all().iter().find(is_alias) {
        let message = format!("attr.{field} is an alias: write attr.{}", known.key);
        return (message, Some(format!("attr.{}", known.key)));
    }
    let message = format!(
        "there is no attribute attr.{}: the query attributes lists all attributes",
        beginning(field)
    );
    let meant = attribute::suggestion(field).and_then(|name| {
        attribute::find(&name, "").ok().map(|known| format!("attr.{}", known.key))
    });
    let elsewhere = || {
        let roots = [ASSET, OWNER];
        let key = roots.iter().find_map(|root| FactKey::of_field(root, field));
        key.map(|key| key.name().to_owned())
    };
    let near = || nearest(field, FactKey::fields(ASSET)).map(|near| format!("{ASSET}.{near}"));
    (message, elsewhere().or(meant).or_else(near))
}
