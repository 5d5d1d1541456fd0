//! How large a document is once its fragments are spread, whatever its variables exclude.
//!
//! async-graphql expands fragments during validation, in every operation and below every `@skip`: so everything is
//! measured here, not only what will run. Each fragment is measured once (598 bytes can spread to 8⁹ fields).
//! Must stay true: `ParsedDocument` is the only way to walk a document, so every walk behind it ends soon and is shallow.

use std::collections::HashMap;

use async_graphql::{
    Name, Pos, Positioned, Variables,
    parser::types::{
        Directive, DocumentOperations, ExecutableDocument, FragmentDefinition, OperationDefinition,
        Selection, SelectionSet,
    },
};

use crate::document::{
    error::{DocumentError, grouped},
    operation::Operation,
};

/// Fields, spreads and inline fragments of all operations together, fragments spread.
pub(crate) const SELECTIONS: u64 = 5_000;
/// Selection sets within each other, fragments spread; async-graphql's own limit.
pub(crate) const NESTING: u32 = 32;
/// Directives at one field, spread, fragment, variable or operation.
pub(crate) const DIRECTIVES: usize = 10;

/// A parsed document without fragment cycles, whose expansion is small enough to be walked.
#[derive(Debug, Clone)]
pub(crate) struct ParsedDocument(ExecutableDocument);

impl ParsedDocument {
    /// Measures the document.
    ///
    /// # Errors
    /// A fragment cycle is `VALIDATION`, too many selections, levels or directives `QUERY_TOO_COMPLEX`.
    pub(crate) fn of(document: ExecutableDocument) -> Result<Self, DocumentError> {
        measure(&document)?;
        Ok(Self(document))
    }

    /// The document, e.g. to be executed.
    pub(crate) fn into_document(self) -> ExecutableDocument {
        self.0
    }

    /// The operation that async-graphql will execute for this name, with its variables, into which the operation's
    /// defaults are filled: execute with these very variables, because async-graphql does not look at defaults when
    /// it evaluates `@skip` and `@include`.
    pub(crate) fn operation<'a>(
        &'a self,
        operation_name: Option<&str>,
        variables: &'a mut Variables,
    ) -> Result<Operation<'a>, DocumentError> {
        let operation = match (&self.0.operations, operation_name) {
            (DocumentOperations::Single(operation), None) => Some(operation),
            (DocumentOperations::Single(_), Some(_)) => None,
            (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name),
            (DocumentOperations::Multiple(operations), None) if operations.len() == 1 => {
                operations.values().next()
            }
            (DocumentOperations::Multiple(_), None) => {
                let message = "the document has several operations: say which by `operationName`";
                return Err(DocumentError::invalid(None, message));
            }
        };
        let Some(operation) = operation else {
            return Err(DocumentError::invalid(None, "the document has no operation of that name"));
        };
        Ok(Operation::new(&self.0, operation, variables))
    }
}

fn measure(document: &ExecutableDocument) -> Result<(), DocumentError> {
    let mut measurer = Measurer { fragments: &document.fragments, measured: HashMap::new() };
    // Maps have no order: walk by position, so that the same document is always refused alike.
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
    if selections > SELECTIONS {
        let position = operations.first().map(|operation| operation.pos);
        let (count, limit) = (grouped(selections), grouped(SELECTIONS));
        let message = format!(
            "this document has {count} selections once its fragments are spread, the limit is {limit}"
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
    /// `None` while the fragment is being measured: whoever meets that has found a cycle.
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

    /// The size of a fragment, which is nothing if there is none of that name: validation says so later.
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
    if level > NESTING {
        let message = format!(
            "this document nests {level} selections deep once its fragments are spread, the limit is {NESTING}"
        );
        return Err(DocumentError::too_complex(position, message));
    }
    Ok(())
}

fn directives(position: Pos, directives: &[Positioned<Directive>]) -> Result<(), DocumentError> {
    if directives.len() > DIRECTIVES {
        let message = format!(
            "{} directives stand at one place, the limit is {DIRECTIVES}",
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
        let refusal = measured(source).expect_err("must be refused");
        assert_eq!(refusal.code, code);
        assert!(refusal.message.contains(expected), "{}", refusal.message);
    }

    /// `levels` fragments, each of which spreads the next `width` times.
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
            let refusal = ParsedDocument::of(document).unwrap_err();
            assert!(start.elapsed().as_millis() < 10, "{:?}", start.elapsed());
            assert!(refusal.message.contains("once its fragments are spread"));
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

        for place in [
            "{a D}",
            "{...A D} fragment A on Q{a}",
            "{... D{a}}",
            "{...A} fragment A on Q D{a}",
            "query D{a}",
            "query($x:I D){a}",
            "{a} fragment A on Q{a D}",
        ] {
            let with = |count: usize| place.replace('D', &"@d".repeat(count));
            assert!(measured(&with(DIRECTIVES)).is_ok(), "{place}");
            refused(&with(DIRECTIVES + 1), Code::QueryTooComplex, "11 directives");
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
        let refusal = thread.spawn(|| ParsedDocument::of(document).err()).unwrap().join().unwrap();
        assert!(refusal.unwrap().message.contains("selections deep"));
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
