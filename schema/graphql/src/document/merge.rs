//! Merging of fields: a field that a document selects several times for one object is executed once, as `CollectFields`
//! of the specification requires.
//!
//! Chosen: the operation is rewritten before execution, because async-graphql 7.2.1 resolves a field as often as the
//! document selects it. The document as sent is validated first; only the rewritten operation is executed, and only if
//! the document repeats a response key. Given up: one resolution of a field that is selected both on an interface or
//! union and on one of its types; such a field resolves twice, and `cost` counts it twice. Revisit when async-graphql
//! collects fields itself.
//!
//! Must stay true: the rewritten operation selects exactly the fields that the sent one selects, and no excluded ones.

use async_graphql::{
    Name, Positioned,
    indexmap::{IndexMap, map::Entry},
    parser::types::{
        Field, InlineFragment, OperationDefinition, Selection, SelectionSet, TypeCondition,
    },
};

use crate::document::{
    error::DocumentError,
    expansion::ParsedDocument,
    index::{Kind, SchemaIndex, TypeId},
    key_order::KeyOrder,
    operation::Operation,
};

impl SchemaIndex {
    /// Rewrites the operation so that it selects no field twice. Fragments become parts of the operation. Returns `None`
    /// if `keys`, the operation's response keys, do not repeat, or if the operation introspects the schema: validation
    /// without execution would answer an introspection, and introspection has a weight of its own.
    ///
    /// # Errors
    /// `VALIDATION` if fields of one object have the same response key and different meanings; async-graphql 7.2.1
    /// recognises only some of them.
    pub(crate) fn merge(
        &self,
        operation: Operation<'_>,
        keys: &KeyOrder,
    ) -> Result<Option<ParsedDocument>, DocumentError> {
        if !keys.has_repeated_keys() || operation.introspects() {
            return Ok(None);
        }
        let merger = Merger { index: self, operation };
        let set = operation.selections();
        let items = merger.merged(self.root(operation.kind()), &[set])?;
        let definition = operation.definition();
        let definition = OperationDefinition {
            ty: definition.ty,
            variable_definitions: definition.variable_definitions.clone(),
            directives: definition.directives.clone(),
            selection_set: Positioned::new(SelectionSet { items }, set.pos),
        };
        Ok(Some(ParsedDocument::of_operation(Positioned::new(definition, set.pos))))
    }
}

/// A field of the rewritten operation, with the selection sets of all fields that it replaces.
struct MergedField<'a> {
    field: &'a Positioned<Field>,
    sets: Vec<&'a Positioned<SelectionSet>>,
}

impl<'a> MergedField<'a> {
    /// Returns true if the fields have the same meaning: name and arguments.
    fn is_same_as(&self, other: &'a Field) -> bool {
        let field = &self.field.node;
        field.name.node == other.name.node
            && field.arguments.len() == other.arguments.len()
            && field.arguments.iter().all(|(name, value)| {
                other.get_argument(&name.node).is_some_and(|given| given.node == value.node)
            })
    }
}

/// Fields that run under the same type conditions, by response key.
type Fields<'a> = IndexMap<&'a str, MergedField<'a>>;

/// Fields by the type conditions that an object must meet in addition to the type of the selection set.
type Groups<'a> = IndexMap<Vec<&'a str>, (Option<TypeId>, Fields<'a>)>;

struct Merger<'a> {
    index: &'a SchemaIndex,
    operation: Operation<'a>,
}

impl<'a> Merger<'a> {
    /// Returns the selections that replace these selection sets of one object or list.
    fn merged(
        &self,
        on: Option<TypeId>,
        sets: &[&'a Positioned<SelectionSet>],
    ) -> Result<Vec<Positioned<Selection>>, DocumentError> {
        let mut groups = Groups::new();
        for set in sets {
            self.collect(on, &[], set, &mut groups)?;
        }
        self.check_conflicts(&groups)?;
        let mut selections = Vec::new();
        for (conditions, (on, fields)) in groups {
            let fields = fields.into_values().map(|merged| self.field(on, &merged));
            selections.extend(under(&conditions, fields.collect::<Result<_, _>>()?));
        }
        Ok(selections)
    }

    /// Checks that fields with one response key have the same meaning in all groups that can hold for one object.
    fn check_conflicts(&self, groups: &Groups<'a>) -> Result<(), DocumentError> {
        let is_object =
            |on: Option<TypeId>| on.filter(|on| self.index.get(*on).kind == Kind::Object);
        let mut groups: Vec<_> = groups.values().collect();
        while let Some((on, fields)) = groups.pop() {
            for (other, others) in &groups {
                if is_object(*on).zip(is_object(*other)).is_some_and(|(one, other)| one != other) {
                    continue; // No object has both types.
                }
                for (key, field) in fields {
                    match others.get(key) {
                        Some(other) if !other.is_same_as(&field.field.node) => {
                            return Err(conflict(field.field));
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn collect(
        &self,
        on: Option<TypeId>,
        conditions: &[&'a str],
        set: &'a Positioned<SelectionSet>,
        groups: &mut Groups<'a>,
    ) -> Result<(), DocumentError> {
        for item in &set.node.items {
            if self.operation.excludes(item.node.directives()) {
                continue;
            }
            let (condition, set) = match &item.node {
                Selection::Field(field) => {
                    let conditions = conditions.to_vec();
                    let (_, fields) =
                        groups.entry(conditions).or_insert_with(|| (on, Fields::new()));
                    add(fields, field)?;
                    continue;
                }
                Selection::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref();
                    (condition.map(|condition| &condition.node), &inline.node.selection_set)
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    let Some(fragment) = self.operation.fragment(name) else { continue };
                    (Some(&fragment.type_condition.node), &fragment.selection_set)
                }
            };
            let Some(condition) = condition else {
                self.collect(on, conditions, set, groups)?;
                continue;
            };
            if let Some((on, conditions)) = self.narrowed(on, conditions, &condition.on.node) {
                self.collect(on, &conditions, set, groups)?;
            }
        }
        Ok(())
    }

    /// Adds a type condition. Returns the type and the conditions of the selections below; `None` if they hold for no
    /// object. Validation compares a condition only with the type around it, so a document may contain such selections.
    fn narrowed(
        &self,
        on: Option<TypeId>,
        conditions: &[&'a str],
        added: &'a str,
    ) -> Option<(Option<TypeId>, Vec<&'a str>)> {
        let unchanged = (on, conditions.to_vec());
        let Some(around) = on.map(|on| self.index.get(on)) else { return Some(unchanged) };
        if around.kind == Kind::Object || &*around.name == added {
            return around.is_a(added).then_some(unchanged);
        }
        let narrowed = self.index.narrowed(on, added);
        match narrowed.map(|on| self.index.get(on)).filter(|on| on.kind == Kind::Object) {
            // An object type implies the conditions around it, or contradicts one of them.
            Some(object) => {
                let is_possible = conditions.iter().all(|outer| object.is_a(outer));
                is_possible.then(|| (narrowed, vec![added]))
            }
            None => Some((narrowed, [conditions, &[added]].concat())),
        }
    }

    fn field(
        &self,
        on: Option<TypeId>,
        merged: &MergedField<'a>,
    ) -> Result<Positioned<Selection>, DocumentError> {
        let Field { alias, name, arguments, .. } = &merged.field.node;
        let definition = on.and_then(|on| self.index.get(on).field(&name.node));
        let items = self.merged(definition.map(|definition| definition.returns), &merged.sets)?;
        let position = merged.field.node.selection_set.pos;
        let field = Field {
            alias: alias.clone(),
            name: name.clone(),
            arguments: arguments.clone(),
            directives: Vec::new(), // `@skip` and `@include` are evaluated, and the schema has no other one for fields.
            selection_set: Positioned::new(SelectionSet { items }, position),
        };
        let position = merged.field.pos;
        Ok(Positioned::new(Selection::Field(Positioned::new(field, position)), position))
    }
}

fn add<'a>(fields: &mut Fields<'a>, field: &'a Positioned<Field>) -> Result<(), DocumentError> {
    let set = &field.node.selection_set;
    match fields.entry(field.node.response_key().node.as_str()) {
        Entry::Occupied(mut merged) if merged.get().is_same_as(&field.node) => {
            merged.get_mut().sets.push(set);
        }
        Entry::Occupied(_) => return Err(conflict(field)),
        Entry::Vacant(entry) => {
            entry.insert(MergedField { field, sets: vec![set] });
        }
    }
    Ok(())
}

fn conflict(field: &Positioned<Field>) -> DocumentError {
    let key = &field.node.response_key().node;
    let message = format!(
        "the key `{key}` is selected with different fields or arguments: give one of them an alias"
    );
    DocumentError::invalid(field.pos, message)
}

/// Wraps selections in inline fragments with these type conditions, the first one outermost.
fn under(
    conditions: &[&str],
    selections: Vec<Positioned<Selection>>,
) -> Vec<Positioned<Selection>> {
    conditions.iter().rfold(selections, |items, condition| {
        let Some(position) = items.first().map(|item| item.pos) else { return items };
        let on = Positioned::new(Name::new(condition), position);
        let fragment = InlineFragment {
            type_condition: Some(Positioned::new(TypeCondition { on }, position)),
            directives: Vec::new(),
            selection_set: Positioned::new(SelectionSet { items }, position),
        };
        let fragment = Selection::InlineFragment(Positioned::new(fragment, position));
        vec![Positioned::new(fragment, position)]
    })
}
