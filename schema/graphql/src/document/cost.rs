//! What the operation operation may ask for: depth, fields, aliases, root fields, rows, introspection, one authentication.
//!
//! What `@skip` and `@include` exclude is not counted here; `expansion` has document the document as a whole before.
//! Must stay true: nothing that the schema does not know makes anything unbounded or free of the field count.
//! `first` beyond `ROWS` or below zero is the resolver's to refuse, with the argument's name; it counts within 1..=`ROWS`.
//! Names that are looked at are the specification's, Relay's (`edges`, `nodes`) and those of arguments that bound a field (`first`,
//! `last`, `depth`); what holds for single fields of ours is declared at them (`policy`).
//! Scalars are free, but not without end: `values` bounds what a thousand repeated fields on ten thousand rows would take,
//! `arguments` what copying a large variable once a row would (async-graphql took 0.6 s for 256 KiB at 20 fields).
//! Introspection has weights instead of the schema's true sizes, so that the limit does not move with the schema;
//! the query of graphql-js weighs 225,000.

use async_graphql::{
    Pos, Positioned,
    parser::types::{Field as Selected, Selection, SelectionSet},
};

use crate::document::{
    error::{DocumentError, grouped},
    index::{Field, Kind, PAGE, SchemaIndex, TypeId},
    operation::Operation,
};

/// Fields within each other.
pub(crate) const DEPTH: u32 = 12;
/// Fields within each other in an introspection; the query of graphql-js has 15.
pub(crate) const INTROSPECTION_DEPTH: u32 = 20;
/// Lists within each other in an introspection, below `types` or `__type`: `fields { args }`.
pub(crate) const INTROSPECTION_LISTS: u32 = 2;
/// What an introspection may answer, by weights.
pub(crate) const INTROSPECTION: u64 = 450_000;
/// Fields after fragments are spread.
pub(crate) const FIELDS: u64 = 1_000;
/// Aliases after fragments are spread.
pub(crate) const ALIASES: u64 = 30;
/// Fields at the root.
pub(crate) const ROOTS: u64 = 20;
/// Objects that the answer may hold.
pub(crate) const COST: u64 = 10_000;
/// Scalars that the answer may hold, repeated ones included.
pub(crate) const VALUES: u64 = 250_000;
/// Bytes of arguments that execution may copy, each as often as its field runs.
pub(crate) const ARGUMENTS: u64 = 1024 * 1024;
/// What a list without `first` and `last` counts.
pub(crate) const UNBOUNDED: i64 = 10;
/// The most rows that one list counts: more is refused by its resolver.
pub(crate) const ROWS: i64 = 1_000;

/// What an operation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cost {
    /// Fields within each other.
    pub(crate) depth: u32,
    /// Fields after fragments are spread.
    pub(crate) fields: u64,
    /// Aliases after fragments are spread.
    pub(crate) aliases: u64,
    /// Objects in the answer.
    pub(crate) objects: u64,
    /// Scalars in the answer.
    pub(crate) values: u64,
    /// Bytes of arguments, each as often as its field runs.
    pub(crate) arguments: u64,
    /// Objects and scalars of introspection in the answer, by weights.
    pub(crate) introspection: u64,
}

impl SchemaIndex {
    /// What the operation asks for, if it is within all limits.
    ///
    /// # Errors
    /// The first limit that it exceeds, with the measured number.
    pub(crate) fn cost(&self, operation: Operation<'_>) -> Result<Cost, DocumentError> {
        self.one_authentication(operation)?;
        let (roots, position) = (operation.root_fields().len() as u64, operation.selections().pos);
        limit(position, roots, ROOTS, "has", "root fields", "send several documents")?;
        let mut walk = Measurer { index: self, operation, cost: Cost::default(), too_deep: None };
        let root = self.root(operation.kind());
        walk.set(operation.selections(), Frame { on: root, depth: 1, rows: 1, page: PAGE });
        if let Some(refusal) = walk.too_deep {
            return Err(refusal);
        }
        let cost = walk.cost;
        limit(position, cost.fields, FIELDS, "selects", "fields", "select fewer")?;
        limit(position, cost.aliases, ALIASES, "has", "aliases", "send several documents")?;
        limit(
            position,
            cost.introspection,
            INTROSPECTION,
            "introspects about",
            "values",
            "ask for fewer fields",
        )?;
        if cost.objects > COST {
            let (measured, limit) = (grouped(cost.objects), grouped(COST));
            let message = format!(
                "this {} costs {measured}, the limit is {limit}: ask for fewer rows with `first`",
                operation.kind()
            );
            return Err(DocumentError::too_complex(position, message));
        }
        let hint = "send large values at the root, once";
        limit(position, cost.arguments, ARGUMENTS, "reads", "bytes of arguments", hint)?;
        let hint = "ask for fewer rows with `first`, or for fewer fields";
        limit(position, cost.values, VALUES, "answers about", "values", hint)?;
        Ok(cost)
    }
}

fn limit(
    position: Pos,
    measured: u64,
    limit: u64,
    verb: &str,
    what: &str,
    hint: &str,
) -> Result<(), DocumentError> {
    if measured <= limit {
        return Ok(());
    }
    let (measured, limit) = (grouped(measured), grouped(limit));
    let message = format!("this operation {verb} {measured} {what}, the limit is {limit}: {hint}");
    Err(DocumentError::too_complex(position, message))
}

/// Where a selection set stands.
#[derive(Clone, Copy)]
struct Frame {
    /// The type that is selected on, if the schema knows it.
    on: Option<TypeId>,
    /// The depth of the fields in the set.
    depth: u32,
    /// How many objects of the type the answer may hold here.
    rows: u64,
    /// The rows that the field of what is selected on was asked for.
    page: i64,
}

struct Measurer<'a> {
    index: &'a SchemaIndex,
    operation: Operation<'a>,
    cost: Cost,
    too_deep: Option<DocumentError>,
}

impl<'a> Measurer<'a> {
    fn set(&mut self, set: &'a Positioned<SelectionSet>, frame: Frame) {
        for item in &set.node.items {
            if self.operation.excludes(item.node.directives()) {
                continue;
            }
            match &item.node {
                Selection::Field(field) => self.field(field, frame),
                Selection::InlineFragment(inline) => {
                    let on = match &inline.node.type_condition {
                        Some(condition) => self.index.narrowed(frame.on, &condition.node.on.node),
                        None => frame.on,
                    };
                    self.set(&inline.node.selection_set, Frame { on, ..frame });
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = self.operation.fragment(name) {
                        let condition = &fragment.type_condition.node.on.node;
                        let on = self.index.narrowed(frame.on, condition);
                        self.set(&fragment.selection_set, Frame { on, ..frame });
                    }
                }
            }
        }
    }

    fn field(&mut self, field: &'a Positioned<Selected>, frame: Frame) {
        self.count(field, frame.depth, DEPTH);
        let selected = &field.node;
        let name = selected.name.node.as_str();
        if !selected.arguments.is_empty() {
            let bytes = self.operation.argument_bytes(selected).saturating_mul(frame.rows);
            self.cost.arguments = self.cost.arguments.saturating_add(bytes);
        }
        if matches!(name, "__schema" | "__type") {
            self.cost.introspection = self.cost.introspection.saturating_add(frame.rows);
            self.introspection(&selected.selection_set, frame.depth + 1, frame.rows, 0);
            return;
        }
        let known = frame.on.and_then(|on| Some((on, self.index.get(on).field(name)?)));
        let Some((on, definition)) = known else {
            // `__typename`, or what validation will refuse: whatever is below still counts as fields.
            self.cost.values = self.cost.values.saturating_add(frame.rows);
            let depth = frame.depth + 1;
            self.set(&selected.selection_set, Frame { on: None, depth, ..frame });
            return;
        };
        let returned = self.index.get(definition.returns);
        if returned.kind == Kind::Leaf {
            self.cost.values = self.cost.values.saturating_add(frame.rows);
        }
        let page = self.asked(selected, definition);
        // Whatever holds the rows that its own field was asked for, connection or not.
        let holds_page = self.index.get(on).is_connection || definition.page.is_none();
        let is_page = holds_page && matches!(name, "edges" | "nodes");
        let factor = if returned.kind == Kind::Leaf || !definition.is_list {
            1
        } else if is_page {
            frame.page
        } else {
            page
        };
        let rows = frame.rows.saturating_mul(factor.clamp(1, ROWS).unsigned_abs());
        if returned.kind != Kind::Leaf {
            self.cost.objects = self.cost.objects.saturating_add(rows);
        }
        // A walk may reach all that there is, however few of it are shown, so it counts by its depth: ten deep as 405 objects, a
        // neighbour as itself alone.
        if let Some(unasked) = definition.walk {
            let beyond = self.operation.integer(selected, "depth").unwrap_or(unasked) - 1;
            let weight = 5 * beyond.clamp(0, 10).pow(2).unsigned_abs();
            self.cost.objects = self.cost.objects.saturating_add(frame.rows.saturating_mul(weight));
        }
        let depth = frame.depth + 1;
        let on = Some(definition.returns);
        self.set(&selected.selection_set, Frame { on, depth, rows, page });
    }

    /// The rows that a field is asked for, or gives unasked.
    fn asked(&self, selected: &Selected, definition: &Field) -> i64 {
        let Some(page) = definition.page else {
            let is_connection = self.index.get(definition.returns).is_connection;
            return if is_connection { PAGE } else { UNBOUNDED };
        };
        let asked = |argument| self.operation.integer(selected, argument);
        asked("first").max(asked("last")).unwrap_or(page)
    }

    fn introspection(
        &mut self,
        set: &'a Positioned<SelectionSet>,
        depth: u32,
        rows: u64,
        lists: u32,
    ) {
        for item in &set.node.items {
            if self.operation.excludes(item.node.directives()) {
                continue;
            }
            let (field, below) = match &item.node {
                Selection::Field(field) => (Some(field), &field.node.selection_set),
                Selection::InlineFragment(inline) => (None, &inline.node.selection_set),
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    let Some(fragment) = self.operation.fragment(name) else { continue };
                    (None, &fragment.selection_set)
                }
            };
            let Some(field) = field else {
                self.introspection(below, depth, rows, lists);
                continue;
            };
            self.count(field, depth, INTROSPECTION_DEPTH);
            let (weight, is_list) = match field.node.name.node.as_str() {
                "types" => (100, 0),
                "directives" => (10, 0),
                "fields" | "inputFields" | "enumValues" | "possibleTypes" => (10, 1),
                "args" | "interfaces" => (3, 1),
                _ => (1, 0),
            };
            let rows = rows.saturating_mul(weight);
            self.cost.introspection = self.cost.introspection.saturating_add(rows);
            let lists = lists + is_list;
            if lists > INTROSPECTION_LISTS {
                self.too_deep.get_or_insert_with(|| {
                    let message = format!(
                        "this introspection nests {lists} lists, the limit is {INTROSPECTION_LISTS}: ask by `__type(name:)`"
                    );
                    DocumentError::too_complex(field.pos, message)
                });
            }
            self.introspection(below, depth + 1, rows, lists);
        }
    }

    fn count(&mut self, field: &Positioned<Selected>, depth: u32, limit: u32) {
        self.cost.fields = self.cost.fields.saturating_add(1);
        if field.node.alias.is_some() {
            self.cost.aliases = self.cost.aliases.saturating_add(1);
        }
        self.cost.depth = self.cost.depth.max(depth);
        if depth > limit {
            self.too_deep.get_or_insert_with(|| {
                let message = format!("this operation is {depth} deep, the limit is {limit}");
                DocumentError::too_complex(field.pos, message)
            });
        }
    }
}

#[cfg(test)]
mod tests;
