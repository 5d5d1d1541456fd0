//! The subset of CEL for conditions. When a rule is saved, its names, types, size, cost and use of `now` are checked.
//!
//! | file | what lives there |
//! |---|---|
//! | `cel/lexer` | limits that are checked before the parser runs |
//! | `cel/types` | type and maximum cost of every subexpression |
//! | `cel/time` | use of `now` |
//! | `cel/compile` | compilation to an expression that the `cel` crate evaluates |
//! | `cel/keywords`, `cel/position` | the keywords, and positions in the source |
//!
//! The `cel` crate checks no types before an evaluation, and has no limits during an evaluation. A misspelt name would
//! be an error on every asset, and three nested loops could take a second per asset. Such a rule is therefore rejected
//! when it is saved, with position and reason.

use std::collections::{BTreeMap, BTreeSet};

use cel::common::ast::{IdedExpr, SourceInfo};

use super::{
    Definition,
    facts::Facts,
    key::FactKey,
    kind::{Kind, Type},
    params::Params,
    program::{CompiledTimedComparison, Program},
};
use crate::base::error::FieldError;

mod compile;
mod keywords;
mod lexer;
mod position;
mod time;
mod types;

use position::column_of;

/// Maximum number of steps per asset, for the condition and all evidence expressions of a rule together.
const MAX_COST: u64 = 100_000;
/// Maximum number of evidence expressions.
const MAX_EVIDENCE: usize = 16;

/// A rule's expressions, checked and compiled with its parameters.
#[derive(Debug)]
pub struct Compiled {
    pub(super) condition: Program,
    pub(super) evidence: BTreeMap<String, Program>,
    /// Facts that the expressions and `applies_to` read.
    pub(super) reads: BTreeSet<FactKey>,
    /// True if the condition has a comparison whose result changes with time. The derived fact `attr.os_supported`,
    /// which also changes with time, does not count.
    pub reads_now: bool,
    /// Maximum number of steps of the condition per asset.
    pub cost: u64,
    /// Maximum number of steps of one evaluation per asset: the condition, again around each time at which its verdict
    /// may change, and the evidence.
    pub total_cost: u64,
}

impl Compiled {
    /// Returns the names of the facts that the rule reads.
    pub fn reads(&self) -> impl Iterator<Item = &'static str> {
        self.reads.iter().map(|key| key.name())
    }

    /// Returns true if the rule reads `attr.os_supported`, whose derived value changes with time.
    pub(super) fn reads_os_supported(&self) -> bool {
        self.reads.contains(&Facts::os_supported_key())
    }
}

/// Checks the expressions of a definition, and compiles them with the effective parameters.
///
/// # Errors
/// All errors in the expressions, at `condition` and `evidence.<name>`.
pub fn compile(definition: &Definition, params: &Params) -> Result<Compiled, Vec<FieldError>> {
    let mut faults = Vec::new();
    let condition = source("condition", &definition.condition, params);
    let mut evidence = BTreeMap::new();
    let mut reads = BTreeSet::new();
    let mut evidence_cost: u64 = 0;
    if definition.evidence.len() > MAX_EVIDENCE {
        let message = format!(
            "has {} entries, at most {MAX_EVIDENCE} are allowed",
            definition.evidence.len()
        );
        faults.push(FieldError::new("evidence", message));
    } else {
        for (name, text) in &definition.evidence {
            let path = format!("evidence.{name}");
            match source(&path, text, params)
                .and_then(|source| source.compile_evidence(&path, params))
            {
                Ok(source) => {
                    evidence_cost = evidence_cost.saturating_add(source.cost);
                    reads.extend(source.reads);
                    evidence.insert(name.clone(), source.program);
                }
                Err(wrong) => faults.extend(wrong),
            }
        }
    }
    let condition = condition.and_then(|source| source.compile_condition(params));
    if let Ok(condition) = &condition
        && condition.cost.saturating_add(evidence_cost) > MAX_COST
    {
        let message = format!(
            "takes up to {evidence_cost} steps per asset and the condition {}, at most {MAX_COST} are allowed together",
            condition.cost
        );
        faults.push(FieldError::new("evidence", message));
    }
    match condition {
        Err(wrong) => {
            faults.splice(0..0, wrong);
            Err(faults)
        }
        Ok(_) if !faults.is_empty() => Err(faults),
        Ok(condition) => {
            reads.extend(condition.reads);
            reads.extend(definition.applies_to.reads());
            let reads_now = !condition.program.timed_comparisons.is_empty();
            let mut compiled = Compiled {
                condition: condition.program,
                evidence,
                reads,
                reads_now,
                cost: condition.cost,
                total_cost: 0,
            };
            let evaluations = 1 + compiled.max_evaluations_of_flip();
            compiled.total_cost =
                condition.cost.saturating_mul(evaluations).saturating_add(evidence_cost);
            Ok(compiled)
        }
    }
}

/// A parsed and type-checked source text.
struct Typed {
    expr: IdedExpr,
    info: SourceInfo,
    is: Type,
    cost: u64,
    reads: BTreeSet<FactKey>,
}

/// A compiled condition or evidence expression.
struct CompiledSource {
    program: Program,
    cost: u64,
    reads: BTreeSet<FactKey>,
}

/// Parses and type-checks the source text at this path of the input.
fn source(path: &str, text: &str, params: &Params) -> Result<Typed, Vec<FieldError>> {
    let fault = |message: String| vec![FieldError::new(path, message)];
    if let Some((at, bad)) = text.char_indices().find(|(_, character)| is_unsafe(*character)) {
        let position = column_of(text, at);
        return Err(fault(format!(
            "{position}: the expression contains the control character U+{:04X}",
            bad as u32
        )));
    }
    lexer::check_limits(text).map_err(|excess| {
        let position = column_of(text, excess.at);
        fault(format!("{position}: {}", excess.message))
    })?;
    // The parser does not expand macros, so that errors within a macro refer to the user's source text.
    let parser = cel::Env::default().with_optional_support(false).parser();
    let (expr, info) =
        parser.max_recursion_depth(96).parse_with_source_info(text).map_err(|errors| {
            let faults = errors.errors.iter().map(|error| {
                let (line, column) = (error.pos.0.max(1), error.pos.1.max(1));
                let message = error.msg.trim_start_matches("Syntax error: ");
                FieldError::new(path, format!("line {line}, column {column}: {message}"))
            });
            faults.take(3).collect::<Vec<_>>()
        })?;
    let mut checker = types::TypeChecker::new(path, &info, params);
    let typed = checker.of(&expr);
    let (faults, reads) = (checker.faults, checker.reads);
    let is = match typed.is {
        Some(is) if faults.is_empty() => is,
        _ => return Err(faults),
    };
    if typed.cost > MAX_COST {
        let message = format!(
            "takes up to {} steps per asset, at most {MAX_COST} are allowed: nested macros multiply the steps, and a list that the rule reads counts as 1000 items",
            typed.cost
        );
        return Err(fault(message));
    }
    Ok(Typed { expr, info, is, cost: typed.cost, reads })
}

/// Returns true for control characters other than line ends and tabs: they are invisible, and Postgres cannot store
/// NUL.
fn is_unsafe(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\r' | '\t')
}

impl Typed {
    /// Compiles the source as a condition.
    fn compile_condition(self, params: &Params) -> Result<CompiledSource, Vec<FieldError>> {
        let path = "condition";
        if self.is != Type::One(Kind::Bool) {
            let message = format!(
                "must be true or false, not {}: add a comparison, such as attr.cpu_cores >= 4",
                self.is
            );
            return Err(vec![FieldError::new(path, message)]);
        }
        let timed_comparisons = time::timed_comparisons(&self.expr, &self.info, path)?;
        let mut compiler = self.compiler(path, params);
        let expr = compiler.expr(&self.expr);
        let timed_comparisons = timed_comparisons
            .iter()
            .map(|comparison| CompiledTimedComparison {
                left: compiler.expr(comparison.left),
                right: compiler.expr(comparison.right),
                slope: comparison.slope,
            })
            .collect();
        let (constants, mut faults) = (compiler.constants, compiler.faults);
        faults.dedup();
        if !faults.is_empty() {
            return Err(faults);
        }
        let program = Program { expr, constants, timed_comparisons };
        Ok(CompiledSource { program, cost: self.cost, reads: self.reads })
    }

    /// Compiles the source as evidence, which may use `now` anywhere. A finding stores the evidence of the evaluation
    /// that last wrote the finding. Evidence is not updated when only time passes.
    fn compile_evidence(
        self,
        path: &str,
        params: &Params,
    ) -> Result<CompiledSource, Vec<FieldError>> {
        let mut compiler = self.compiler(path, params);
        let expr = compiler.expr(&self.expr);
        let (constants, faults) = (compiler.constants, compiler.faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let program = Program { expr, constants, timed_comparisons: Vec::new() };
        Ok(CompiledSource { program, cost: self.cost, reads: self.reads })
    }

    fn compiler<'a>(&'a self, path: &'a str, params: &'a Params) -> compile::Compiler<'a> {
        compile::Compiler::new(path, &self.info, params)
    }
}

#[cfg(test)]
mod tests;
