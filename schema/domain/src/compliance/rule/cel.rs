//! What a condition may say, checked when it is written: names, types, size, cost, and how it reads the clock. (`cel/lexer`:
//! before the parser; `cel/types`: what each part is and costs; `cel/time`: where it reads the clock; `cel/compile`:
//! into what is evaluated; `cel/keywords`, `cel/position`: the keywords, and where they stand.)
//!
//! CEL itself has no types before it runs and no limits while it does: a wrong name would be an error on every asset, and three
//! nested loops a second on each. So what is refused here is refused once, to whoever wrote it, with the position and the reason.

use std::collections::{BTreeMap, BTreeSet};

use cel::common::ast::{IdedExpr, SourceInfo};

use super::{
    Definition,
    facts::Facts,
    key::Key,
    kind::{Kind, Type},
    params::Params,
    program::{CompiledComparison, Program},
};
use crate::base::error::FieldError;

mod compile;
mod keywords;
mod lexer;
mod position;
mod time;
mod types;

use position::column_of;

/// Steps of a condition and all evidence at worst.
const MAX_COST: u64 = 100_000;
/// Expressions of evidence at most.
const MAX_EVIDENCE: usize = 16;

/// A rule's expressions, checked and compiled with its thresholds.
#[derive(Debug)]
pub struct Compiled {
    pub(super) condition: Program,
    pub(super) evidence: BTreeMap<String, Program>,
    /// What it reads, as `attr.disk_encrypted`, `asset.environment`; what `applies_to` needs included.
    pub(super) reads: BTreeSet<Key>,
    /// Whether time alone may change a verdict, beside what is derived.
    pub reads_now: bool,
    /// Steps of its condition at worst.
    pub cost: u64,
}

impl Compiled {
    /// What it reads, by name.
    pub fn reads(&self) -> impl Iterator<Item = &'static str> {
        self.reads.iter().map(|key| key.name())
    }

    /// Whether a verdict may follow from the end of a system's support.
    pub(super) fn reads_support(&self) -> bool {
        self.reads.contains(&Facts::support())
    }
}

/// Checks a definition, and compiles it with the thresholds that count.
///
/// # Errors
/// All that is wrong, at `condition` and `evidence.<name>`.
pub fn compile(definition: &Definition, params: &Params) -> Result<Compiled, Vec<FieldError>> {
    let mut faults = Vec::new();
    let condition = source("condition", &definition.condition, params);
    let mut evidence = BTreeMap::new();
    let mut reads = BTreeSet::new();
    let mut compile_evidence: u64 = 0;
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
                    compile_evidence = compile_evidence.saturating_add(source.cost);
                    reads.extend(source.reads);
                    evidence.insert(name.clone(), source.program);
                }
                Err(wrong) => faults.extend(wrong),
            }
        }
    }
    let condition = condition.and_then(|source| source.compile_condition(params));
    if let Ok(condition) = &condition
        && condition.cost.saturating_add(compile_evidence) > MAX_COST
    {
        let message = format!(
            "takes up to {compile_evidence} steps on one asset and the condition {}, at most {MAX_COST} are allowed together",
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
            Ok(Compiled {
                condition: condition.program,
                evidence,
                reads,
                reads_now,
                cost: condition.cost,
            })
        }
    }
}

/// A parsed source whose types are known.
struct Typed {
    expr: IdedExpr,
    info: SourceInfo,
    is: Type,
    cost: u64,
    reads: BTreeSet<Key>,
}

/// A compiled source, of the condition or of evidence.
struct CompiledSource {
    program: Program,
    cost: u64,
    reads: BTreeSet<Key>,
}

/// Parses and types one source.
fn source(path: &str, text: &str, params: &Params) -> Result<Typed, Vec<FieldError>> {
    let fault = |message: String| vec![FieldError::new(path, message)];
    if let Some((at, bad)) = text.char_indices().find(|(_, character)| is_unsafe(*character)) {
        let position = column_of(text, at);
        return Err(fault(format!("{position}: holds the control character U+{:04X}", bad as u32)));
    }
    lexer::lexer(text).map_err(|excess| {
        let position = column_of(text, excess.at);
        fault(format!("{position}: {}", excess.message))
    })?;
    // Macros stay calls: what is wrong within one is said of what stands there.
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
            "takes up to {} steps on one asset, at most {MAX_COST} are allowed: macros multiply, and a list that is a fact has up to 1000 items",
            typed.cost
        );
        return Err(fault(message));
    }
    Ok(Typed { expr, info, is, cost: typed.cost, reads })
}

/// What Postgres cannot keep, or a reader not see.
fn is_unsafe(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\r' | '\t')
}

impl Typed {
    /// As a condition.
    fn compile_condition(self, params: &Params) -> Result<CompiledSource, Vec<FieldError>> {
        let path = "condition";
        if self.is != Type::One(Kind::Bool) {
            let message = format!("must be true or false, and is {}", self.is);
            return Err(vec![FieldError::new(path, message)]);
        }
        let timed_comparisons = time::timed_comparisons(&self.expr, &self.info, path)?;
        let mut compiler = self.compiler(path, params);
        let expr = compiler.expr(&self.expr);
        let timed_comparisons = timed_comparisons
            .iter()
            .map(|timed_comparisons| CompiledComparison {
                left: compiler.expr(timed_comparisons.left),
                right: compiler.expr(timed_comparisons.right),
                slope: timed_comparisons.slope,
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

    /// As evidence, which may read the clock as it likes: what a finding keeps of it is as of the look that last wrote it, and
    /// time alone does not renew it.
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
