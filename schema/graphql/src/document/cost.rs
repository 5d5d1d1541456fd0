//! Cost analysis of the selected operation: limits on depth, fields, aliases, root fields, rows and introspection. Also
//! rejects mutations that must be the only root field of their document, such as `login`, but are not.
//!
//! Selections that `@skip` or `@include` exclude are not counted here; `expansion` has already limited the whole
//! document.
//!
//! Must stay true: an unknown field or type counts as a field and never lifts a limit.
//!
//! A `first` above `MAX_ROWS` or below 1 is counted as `MAX_ROWS` or 1; the resolver rejects a value above `MAX_ROWS`
//! or below zero, with the argument's name. The analysis uses only names of the GraphQL specification, of
//! Relay (`edges`, `nodes`) and of the arguments that bound a list or a walk (`first`, `last`, `depth`).
//! Rules for single fields of our schema are declared beside their resolvers (`policy`).
//!
//! Scalars do not count as objects but have two limits of their own. `MAX_WEIGHT` limits their weight, e.g. of a
//! thousand fields on each of ten thousand rows; a scalar that is computed, or that may be large, weighs more than a
//! short stored one. `MAX_ARGUMENT_BYTES` limits the size of arguments, because async-graphql copies a large variable
//! once per row (0.6 s for 256 KiB at 20 fields), and during validation once per argument of the document as sent,
//! those of directives and of excluded selections included. A count of a whole list, and a filter that reads every row,
//! add to the objects what they cost the database.
//!
//! Depth, fields, aliases and root fields are those of the document as sent; the other numbers are those of the merged
//! operation, in which no field is selected twice. Introspection is counted with fixed weights instead of the sizes of
//! the schema, so that the limit does not change with the schema; the introspection query of graphql-js weighs 225,000.

use async_graphql::{
    Pos, Positioned,
    parser::types::{Field as Selected, Selection, SelectionSet},
};

use crate::document::{
    error::{DocumentError, with_separators},
    index::{DEFAULT_PAGE_SIZE, Field, Kind, SchemaIndex, TypeId},
    operation::Operation,
    policy::Policy,
};

/// Maximum depth of nested fields.
pub(crate) const MAX_DEPTH: u32 = 12;
/// Maximum depth of nested fields in an introspection query; the query of graphql-js has 15.
pub(crate) const MAX_INTROSPECTION_DEPTH: u32 = 20;
/// Maximum depth of nested lists in an introspection query, counted below `types` or `__type`; `fields { args }` has
/// depth 2.
pub(crate) const MAX_INTROSPECTION_LISTS: u32 = 2;
/// Maximum weight of an introspection query.
pub(crate) const MAX_INTROSPECTION: u64 = 450_000;
/// Maximum number of fields after fragment expansion.
pub(crate) const MAX_FIELDS: u64 = 1_000;
/// Maximum number of aliases after fragment expansion.
pub(crate) const MAX_ALIASES: u64 = 30;
/// Maximum number of root fields.
pub(crate) const MAX_ROOT_FIELDS: u64 = 20;
/// Maximum number of objects in the response.
pub(crate) const MAX_OBJECTS: u64 = 10_000;
/// Maximum weight of the scalars in the response. A short stored scalar has weight 1.
pub(crate) const MAX_WEIGHT: u64 = 250_000;
/// Maximum size of all arguments in bytes. The arguments of a field count once per run of the field.
pub(crate) const MAX_ARGUMENT_BYTES: u64 = 1024 * 1024;
/// Number of objects that a count of a whole list counts as, if the list is a root field.
pub(crate) const COUNT_OBJECTS: u64 = 100;
/// Number of objects that a filter for text counts as: the filter reads every row of the organization.
pub(crate) const TEXT_FILTER_OBJECTS: u64 = 2_500;
/// Number of rows counted for a list that has no `first` or `last` argument and is no connection.
pub(crate) const UNPAGED_ROWS: i64 = 10;
/// Maximum number of rows counted for one list; the resolver rejects a larger `first`.
pub(crate) const MAX_ROWS: i64 = 1_000;

/// Measured cost of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cost {
    /// Depth of the most deeply nested field.
    pub(crate) depth: u32,
    /// Number of fields after fragment expansion.
    pub(crate) fields: u64,
    /// Number of aliases after fragment expansion.
    pub(crate) aliases: u64,
    /// Estimated number of objects in the response.
    pub(crate) objects: u64,
    /// Estimated weight of the scalars in the response.
    pub(crate) weight: u64,
    /// Size of the arguments in bytes. The arguments of a field count once per run of the field.
    pub(crate) arguments: u64,
    /// Weight of the introspection fields in the response.
    pub(crate) introspection: u64,
}

impl SchemaIndex {
    /// Measures the operation and returns its cost if it is within all limits. `merged` is the operation that will be
    /// executed in place of the one that was sent; `None` if that one is executed itself.
    ///
    /// # Errors
    /// Returns an error that names the first exceeded limit, the measured number and the field that costs most.
    pub(crate) fn cost(
        &self,
        sent: Operation<'_>,
        merged: Option<Operation<'_>>,
    ) -> Result<Cost, DocumentError> {
        let executed = merged.unwrap_or(sent);
        self.check_alone(sent)?;
        let (roots, position) = (sent.root_fields().len() as u64, sent.selections().pos);
        limit(position, roots, MAX_ROOT_FIELDS, "has", "root fields", "send several documents")?;
        let mut measured = self.measure(sent);
        if let Some(error) = measured.too_deep {
            return Err(error);
        }
        let Cost { depth, fields, aliases, .. } = measured.cost;
        limit(position, fields, MAX_FIELDS, "selects", "fields", "select fewer")?;
        limit(position, aliases, MAX_ALIASES, "has", "aliases", "send several documents")?;
        if let Some(merged) = merged {
            measured = self.measure(merged);
        }
        let sent_arguments = sent.sent_argument_bytes();
        let cost = Cost { depth, fields, aliases, ..measured.cost };
        limit(
            position,
            cost.introspection,
            MAX_INTROSPECTION,
            "introspects about",
            "values",
            "select fewer fields",
        )?;
        if cost.objects > MAX_OBJECTS {
            let (number, limit) = (with_separators(cost.objects), with_separators(MAX_OBJECTS));
            let message = format!(
                "this {} has a cost of {number}, the limit is {limit}; {} request fewer rows with `first`",
                executed.kind(),
                measured.most_expensive_objects.describe(),
            );
            return Err(DocumentError::too_complex(position, message));
        }
        let remedy = "pass large values only to root fields";
        limit(
            position,
            cost.arguments.max(sent_arguments),
            MAX_ARGUMENT_BYTES,
            "passes",
            "bytes of arguments",
            remedy,
        )?;
        if cost.weight > MAX_WEIGHT {
            let (number, limit) = (with_separators(cost.weight), with_separators(MAX_WEIGHT));
            let message = format!(
                "the values of this {} weigh {number}, the limit is {limit}; {} request fewer rows with `first`, or fewer fields",
                executed.kind(),
                measured.most_expensive_value.describe(),
            );
            return Err(DocumentError::too_complex(position, message));
        }
        Ok(cost)
    }

    fn measure<'a>(&'a self, operation: Operation<'a>) -> Measurer<'a> {
        let mut measurer = Measurer {
            index: self,
            operation,
            cost: Cost::default(),
            too_deep: None,
            most_expensive_objects: MostExpensive::default(),
            most_expensive_value: MostExpensive::default(),
        };
        let on = self.root(operation.kind());
        let frame = Frame { on, depth: 1, rows: 1, page: DEFAULT_PAGE_SIZE };
        measurer.set(operation.selections(), frame);
        measurer
    }
}

/// The field that adds most to a number.
#[derive(Default)]
struct MostExpensive<'a> {
    cost: u64,
    field: Option<(&'a str, &'a str)>,
}

impl<'a> MostExpensive<'a> {
    fn offer(&mut self, cost: u64, on: &'a str, field: &'a str) {
        if cost > self.cost {
            *self = Self { cost, field: Some((on, field)) };
        }
    }

    /// Returns the field and its cost as the middle part of a sentence.
    fn describe(&self) -> String {
        let Some((on, field)) = self.field else { return String::new() };
        format!("`{on}.{field}` costs most, {}:", with_separators(self.cost))
    }
}

fn limit(
    position: Pos,
    measured: u64,
    limit: u64,
    verb: &str,
    unit: &str,
    remedy: &str,
) -> Result<(), DocumentError> {
    if measured <= limit {
        return Ok(());
    }
    let (measured, limit) = (with_separators(measured), with_separators(limit));
    let message =
        format!("this operation {verb} {measured} {unit}, the limit is {limit}: {remedy}");
    Err(DocumentError::too_complex(position, message))
}

/// Context of the selection set that is being measured.
#[derive(Clone, Copy)]
struct Frame {
    /// Parent type of the selected fields; `None` if the type is not in the schema.
    on: Option<TypeId>,
    /// Depth of the fields in this selection set.
    depth: u32,
    /// Estimated number of objects of the parent type in the response.
    rows: u64,
    /// Number of rows requested from the field that returned the parent type.
    page: i64,
}

struct Measurer<'a> {
    index: &'a SchemaIndex,
    operation: Operation<'a>,
    cost: Cost,
    too_deep: Option<DocumentError>,
    most_expensive_objects: MostExpensive<'a>,
    most_expensive_value: MostExpensive<'a>,
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
        self.count(field, frame.depth, MAX_DEPTH);
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
            // `__typename`, or an unknown field, which validation will reject. Fields below it still count.
            self.cost.weight = self.cost.weight.saturating_add(frame.rows);
            let depth = frame.depth + 1;
            self.set(&selected.selection_set, Frame { on: None, depth, ..frame });
            return;
        };
        let (parent, returned) = (self.index.get(on), self.index.get(definition.returns));
        let mut objects = 0_u64;
        if returned.kind == Kind::Leaf {
            let weight = frame.rows.saturating_mul(definition.weight);
            self.cost.weight = self.cost.weight.saturating_add(weight);
            self.most_expensive_value.offer(weight, &parent.name, name);
            if name == "totalCount" && parent.is_connection {
                // Below a root field, the whole list of the organization is counted; elsewhere, the list of one owner.
                objects = if frame.depth == 2 { COUNT_OBJECTS } else { frame.rows };
            }
        }
        if definition.policies.contains(&Policy::TextFilter)
            && self.operation.has_key(selected, "filter", "text")
        {
            objects = TEXT_FILTER_OBJECTS;
        }
        let page = self.requested_rows(selected, definition);
        // `edges` and `nodes` return the page requested by the field above, if the parent type is a connection or they
        // have no page arguments of their own.
        let holds_page = parent.is_connection || definition.page.is_none();
        let is_page = holds_page && matches!(name, "edges" | "nodes");
        let factor = if returned.kind == Kind::Leaf || !definition.is_list {
            1
        } else if is_page {
            frame.page
        } else {
            page
        };
        let rows = frame.rows.saturating_mul(factor.clamp(1, MAX_ROWS).unsigned_abs());
        if returned.kind != Kind::Leaf {
            objects = objects.saturating_add(rows);
        }
        // A dependency walk may visit every asset, however few rows it returns. Its depth therefore adds to the cost:
        // depth 10 counts as 405 objects, depth 1 as none.
        if let Some(default_depth) = definition.walk {
            let requested = self.operation.integer(selected, "depth").unwrap_or(default_depth);
            let beyond = requested.saturating_sub(1);
            let weight = 5 * beyond.clamp(0, 10).pow(2).unsigned_abs();
            objects = objects.saturating_add(frame.rows.saturating_mul(weight));
        }
        self.cost.objects = self.cost.objects.saturating_add(objects);
        self.most_expensive_objects.offer(objects, &parent.name, name);
        let depth = frame.depth + 1;
        let on = Some(definition.returns);
        self.set(&selected.selection_set, Frame { on, depth, rows, page });
    }

    /// Returns the number of rows that a field requests with `first` or `last`, or the default.
    fn requested_rows(&self, selected: &Selected, definition: &Field) -> i64 {
        let Some(page) = definition.page else {
            let is_connection = self.index.get(definition.returns).is_connection;
            return if is_connection { DEFAULT_PAGE_SIZE } else { UNPAGED_ROWS };
        };
        let requested_rows = |argument| self.operation.integer(selected, argument);
        requested_rows("first").max(requested_rows("last")).unwrap_or(page)
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
            self.count(field, depth, MAX_INTROSPECTION_DEPTH);
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
            if lists > MAX_INTROSPECTION_LISTS {
                self.too_deep.get_or_insert_with(|| {
                    let message = format!(
                        "this introspection nests {lists} lists, the limit is {MAX_INTROSPECTION_LISTS}: query `__type(name:)`"
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
