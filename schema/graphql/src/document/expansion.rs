//! Limits on the size of a document after fragment expansion, including selections that `@skip` or `@include` exclude.
//!
//! async-graphql expands fragments during validation, in every operation and below every `@skip`. Therefore the whole
//! document is measured here, not only the operation that will run. Each fragment is measured only once, because 598
//! bytes can expand to 8⁹ fields.
//!
//! Must stay true: all code walks a document through `ParsedDocument`, so every later walk is within these limits.

use std::collections::HashMap;

use async_graphql::{
    Name, Pos, Positioned, Variables,
    parser::types::{
        Directive, DocumentOperations, ExecutableDocument, FragmentDefinition, OperationDefinition,
        Selection, SelectionSet,
    },
};

use crate::document::{
    error::{DocumentError, with_separators},
    operation::Operation,
};

/// Maximum number of selections (fields, spreads and inline fragments) of all operations together, after fragment
/// expansion.
pub(crate) const MAX_SELECTIONS: u64 = 5_000;
/// Maximum depth of nested selection sets after fragment expansion; async-graphql has the same limit.
pub(crate) const MAX_NESTING: u32 = 32;
/// Maximum number of directives on one field, spread, fragment, variable or operation.
pub(crate) const MAX_DIRECTIVES: usize = 10;

/// A parsed document that has no fragment cycles and is within the limits after fragment expansion.
#[derive(Debug, Clone)]
pub(crate) struct ParsedDocument(ExecutableDocument);

impl ParsedDocument {
    /// Measures the document and returns it wrapped, if it is within the limits.
    ///
    /// # Errors
    /// Returns `VALIDATION` for a fragment cycle, `QUERY_TOO_COMPLEX` for too many selections, levels or directives.
    pub(crate) fn of(document: ExecutableDocument) -> Result<Self, DocumentError> {
        measure(&document)?;
        Ok(Self(document))
    }

    /// Wraps a merged operation, which is within the limits because the document it was made from is.
    pub(crate) fn of_operation(operation: Positioned<OperationDefinition>) -> Self {
        let operations = DocumentOperations::Single(operation);
        Self(ExecutableDocument { operations, fragments: HashMap::new() })
    }

    /// Returns the merged operation of this document, with the variables of the operation as sent.
    pub(crate) fn merged_operation<'a>(&'a self, sent: Operation<'a>) -> Option<Operation<'a>> {
        match &self.0.operations {
            DocumentOperations::Single(operation) => Some(sent.rewritten(&self.0, operation)),
            DocumentOperations::Multiple(_) => None,
        }
    }

    /// Returns the parsed document for execution.
    pub(crate) fn into_document(self) -> ExecutableDocument {
        self.0
    }

    /// Returns the operation that async-graphql will execute for this name, and writes the defaults of absent variables
    /// into `variables`. Execute the operation with the same `variables`, because async-graphql ignores defaults when
    /// it evaluates `@skip` and `@include`.
    pub(crate) fn operation<'a>(
        &'a self,
        operation_name: Option<&str>,
        variables: &'a mut Variables,
    ) -> Result<Operation<'a>, DocumentError> {
        let operation = self.definition(operation_name)?;
        Ok(Operation::new(&self.0, operation, variables))
    }

    /// As [`ParsedDocument::operation`], for variables into which the defaults have been written.
    pub(crate) fn prepared_operation<'a>(
        &'a self,
        operation_name: Option<&str>,
        variables: &'a Variables,
    ) -> Result<Operation<'a>, DocumentError> {
        let operation = self.definition(operation_name)?;
        Ok(Operation::with_defaults(&self.0, operation, variables))
    }

    fn definition(
        &self,
        operation_name: Option<&str>,
    ) -> Result<&Positioned<OperationDefinition>, DocumentError> {
        let operation = match (&self.0.operations, operation_name) {
            (DocumentOperations::Single(operation), None) => Some(operation),
            (DocumentOperations::Single(_), Some(_)) => None,
            (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name),
            (DocumentOperations::Multiple(operations), None) if operations.len() == 1 => {
                operations.values().next()
            }
            (DocumentOperations::Multiple(_), None) => {
                let message =
                    "the document has several operations: set `operationName` to one of them";
                return Err(DocumentError::invalid(None, message));
            }
        };
        operation.ok_or_else(|| {
            DocumentError::invalid(None, "the document has no operation with that name")
        })
    }
}

fn measure(document: &ExecutableDocument) -> Result<(), DocumentError> {
    let mut measurer = Measurer { fragments: &document.fragments, measured: HashMap::new() };
    // Maps have no fixed order. Sorted by position, the same document always gets the same error.
    let mut operations: Vec<_> =
        document.operations.iter().map(|(_, operation)| operation).collect();
    operations.sort_by_key(|operation| operation.pos);
    let mut selections = 0_u64;
    for operation in &operations {
        let size = measurer.operation(operation)?;
        selections = selections.saturating_add(size.selections);
    }
    let mut fragments: Vec<_> = document.fragments.iter().collect();
    fragments.sort_by_key(|(_, fragment)| fragment.pos);
    for (name, fragment) in fragments {
        measurer.fragment(name, fragment.pos, 1)?;
    }
    if selections > MAX_SELECTIONS {
        let position = operations.first().map(|operation| operation.pos);
        let (count, limit) = (with_separators(selections), with_separators(MAX_SELECTIONS));
        let message = format!(
            "this document has {count} selections after fragment expansion, the limit is {limit}"
        );
        return Err(DocumentError::too_complex(position, message));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    selections: u64,
    depth: u32,
}

impl Size {
    fn add(&mut self, below: Self) {
        self.selections = self.selections.saturating_add(below.selections).saturating_add(1);
        self.depth = self.depth.max(below.depth);
    }
}

struct Measurer<'a> {
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    /// Size of each fragment; `None` while the fragment is being measured. A spread of such a fragment is a cycle.
    measured: HashMap<&'a str, Option<Size>>,
}

impl<'a> Measurer<'a> {
    fn operation(
        &mut self,
        operation: &'a Positioned<OperationDefinition>,
    ) -> Result<Size, DocumentError> {
        directives(operation.pos, &operation.node.directives)?;
        for definition in &operation.node.variable_definitions {
            directives(definition.pos, &definition.node.directives)?;
        }
        self.set(&operation.node.selection_set, 1)
    }

    fn set(
        &mut self,
        set: &'a Positioned<SelectionSet>,
        level: u32,
    ) -> Result<Size, DocumentError> {
        if set.node.items.is_empty() {
            return Ok(Size::default());
        }
        nesting(set.pos, level)?;
        let mut size = Size::default();
        for item in &set.node.items {
            directives(item.pos, item.node.directives())?;
            size.add(match &item.node {
                Selection::Field(field) => self.set(&field.node.selection_set, level + 1)?,
                Selection::InlineFragment(inline) => {
                    self.set(&inline.node.selection_set, level + 1)?
                }
                Selection::FragmentSpread(spread) => {
                    self.fragment(&spread.node.fragment_name.node, spread.pos, level + 1)?
                }
            });
        }
        size.depth += 1;
        Ok(size)
    }

    /// Returns the size of a fragment; zero if the document does not define it, which validation reports later.
    fn fragment(
        &mut self,
        name: &'a str,
        position: Pos,
        level: u32,
    ) -> Result<Size, DocumentError> {
        match self.measured.get(name) {
            Some(Some(size)) => {
                nesting(position, level.saturating_add(size.depth).saturating_sub(1))?;
                return Ok(*size);
            }
            Some(None) => {
                let message = format!("the fragment `{name}` spreads itself");
                return Err(DocumentError::invalid(position, message));
            }
            None => {}
        }
        let Some(fragment) = self.fragments.get(name) else {
            return Ok(Size::default());
        };
        self.measured.insert(name, None);
        directives(fragment.pos, &fragment.node.directives)?;
        let size = self.set(&fragment.node.selection_set, level)?;
        self.measured.insert(name, Some(size));
        Ok(size)
    }
}

fn nesting(position: Pos, level: u32) -> Result<(), DocumentError> {
    if level > MAX_NESTING {
        let message = format!(
            "this document nests {level} selections deep after fragment expansion, the limit is {MAX_NESTING}"
        );
        return Err(DocumentError::too_complex(position, message));
    }
    Ok(())
}

fn directives(position: Pos, directives: &[Positioned<Directive>]) -> Result<(), DocumentError> {
    if directives.len() > MAX_DIRECTIVES {
        let message = format!(
            "one field, fragment, variable or operation has {} directives, the limit is {MAX_DIRECTIVES}",
            directives.len()
        );
        return Err(DocumentError::too_complex(position, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, time::Instant};

    use async_graphql::parser::parse_query;

    use super::*;
    use crate::document::error::Code;

    fn measured(source: &str) -> Result<ParsedDocument, DocumentError> {
        ParsedDocument::of(parse_query(source).unwrap())
    }

    #[track_caller]
    fn refused(source: &str, code: Code, expected: &str) {
        let error = measured(source).expect_err("must be refused");
        assert_eq!(error.code, code);
        assert!(error.message.contains(expected), "{}", error.message);
    }

    /// Builds a document of `levels` fragments, each of which spreads the next one `width` times.
    fn bomb(levels: usize, width: usize, head: &str) -> String {
        let mut source = head.to_owned();
        for level in 0..levels {
            let spreads = format!("...F{} ", level + 1).repeat(width);
            write!(source, "fragment F{level} on Query{{{spreads}}}").unwrap();
        }
        write!(source, "fragment F{levels} on Query{{a}}").unwrap();
        source
    }

    #[test]
    fn a_fragment_bomb_is_refused_at_once_wherever_it_hides() {
        for head in [
            "{...F0}",
            "{...F0 @skip(if: true)}",
            "query($x: Boolean!){... @include(if: $x){...F0}}",
            "query A{a} query B{...F0}",
            "{__typename{...F0}}",
        ] {
            let source = bomb(9, 8, head);
            assert!(source.len() < 800);
            let document = parse_query(&source).unwrap();
            let start = Instant::now();
            let error = ParsedDocument::of(document).unwrap_err();
            assert!(start.elapsed().as_millis() < 10, "{:?}", start.elapsed());
            assert!(error.message.contains("after fragment expansion"));
        }
        refused(&bomb(30, 40, "{...F0}"), Code::QueryTooComplex, "18,446,744,073,709,551,615");
        assert!(measured(&bomb(9, 8, "{a}")).is_ok(), "an unused bomb harms nobody");
    }

    #[test]
    fn each_limit_holds_at_n_and_not_at_n_plus_1() {
        let spread = |times: usize| {
            format!("{{{}}} fragment A on Q{{{}}}", "...A ".repeat(times), "a ".repeat(99))
        };
        assert!(measured(&spread(50)).is_ok());
        refused(&spread(51), Code::QueryTooComplex, "5,100 selections");
        let halves = spread(25).replacen('{', "query X{", 1)
            + &format!("query Y{{{} b}}", "...A ".repeat(25));
        refused(&halves, Code::QueryTooComplex, "5,001 selections");

        let deep = |depth: usize| format!("{}{}", "{a".repeat(depth), "}".repeat(depth));
        assert!(measured(&deep(32)).is_ok());
        refused(&deep(33), Code::QueryTooComplex, "33 selections deep");
        let chained = |depth: usize| {
            let half = depth - 16;
            format!(
                "{}{{...A}}{} fragment A on Q{}{}",
                "{a".repeat(15),
                "}".repeat(15),
                "{a".repeat(half),
                "}".repeat(half)
            )
        };
        assert!(measured(&chained(32)).is_ok());
        refused(&chained(33), Code::QueryTooComplex, "33 selections deep");
        let memoized = format!("fragment B on Q{{...A}} {}", chained(33));
        refused(&memoized, Code::QueryTooComplex, "33 selections deep");

        for template in [
            "{a D}",
            "{...A D} fragment A on Q{a}",
            "{... D{a}}",
            "{...A} fragment A on Q D{a}",
            "query D{a}",
            "query($x:I D){a}",
            "{a} fragment A on Q{a D}",
        ] {
            let with = |count: usize| template.replace('D', &"@d".repeat(count));
            assert!(measured(&with(MAX_DIRECTIVES)).is_ok(), "{template}");
            refused(&with(MAX_DIRECTIVES + 1), Code::QueryTooComplex, "11 directives");
        }
    }

    #[test]
    fn cycles_are_refused_even_if_unused() {
        for source in [
            "{...A} fragment A on Q{...A}",
            "{...A} fragment A on Q{a{...B}} fragment B on Q{...A}",
            "{a} fragment A on Q{a ... on Q{...B}} fragment B on Q{...A @skip(if: true)}",
        ] {
            refused(source, Code::Validation, "spreads itself");
        }
        assert!(measured("{...Nowhere}").is_ok());
        assert!(measured("{...A ...A} fragment A on Q{...B ...B} fragment B on Q{a}").is_ok());
    }

    #[test]
    fn a_chain_of_deep_fragments_is_refused_without_deep_recursion() {
        let mut source = "{...F0}".to_owned();
        for level in 0..300 {
            write!(source, "fragment F{level} on Q{{a{{...F{}}}}}", level + 1).unwrap();
        }
        let thread = std::thread::Builder::new().stack_size(256 * 1024);
        let document = parse_query(&source).unwrap();
        let error = thread.spawn(|| ParsedDocument::of(document).err()).unwrap().join().unwrap();
        assert!(error.unwrap().message.contains("selections deep"));
    }

    #[test]
    fn the_operation_is_chosen_as_async_graphql_chooses() {
        let operation = |source: &str, name: Option<&str>| {
            let (document, mut variables) = (measured(source).unwrap(), Variables::default());
            let operation = document.operation(name, &mut variables);
            operation.map(|operation| operation.root_fields().join(","))
        };
        assert_eq!(operation("{a}", None).unwrap(), "a");
        assert_eq!(operation("query A{a}", None).unwrap(), "a");
        assert_eq!(operation("query A{a} query B{b}", Some("B")).unwrap(), "b");
        assert!(operation("query A{a} query B{b}", None).is_err());
        assert!(operation("query A{a} query B{b}", Some("C")).is_err());
        assert!(operation("{a}", Some("")).is_err());
        assert!(operation("{a}", Some("A")).is_err());
    }
}
