//! The type and the worst cost of an expression, and what is wrong with it: every part of it, not just the first.
//!
//! Strict, where CEL is not: both sides of an operator are of one type, so that `"yes" == true` is refused here and not false
//! for ever. A part that was refused has no type, and refuses nothing else.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};

use super::{
    keywords,
    position::{column_of, start_of},
};
use crate::{
    base::{error::FieldError, nearest::nearest},
    compliance::rule::{
        facts::Facts,
        key::Key,
        kind::{Kind, Type},
        params::{Params, Threshold},
    },
};

mod branch;
mod operation;

/// Items of a list that is a fact, at most.
const MAX_FACT_ITEMS: u64 = 1_000;
/// Characters of a text that is a fact, at most; of a description.
const MAX_FACT_CHARS: (u64, u64) = (1_024, 4_096);
/// Items of a list that is written in a source, at most.
const MAX_LITERAL_ITEMS: usize = 256;
/// Macros within each other.
const MAX_MACRO_NESTING: usize = 2;
/// Expressions within each other.
pub(super) const MAX_DEPTH: usize = 64;
/// Characters that are compared in one step.
const CHARS_A_STEP: u64 = 64;
/// Steps that a macro takes for each item beside what it evaluates.
const ITEM_STEPS: u64 = 4;

/// What is known of an expression.
#[derive(Debug, Clone, Copy)]
pub(super) struct TypedExpr {
    /// None where it was refused.
    pub(super) is: Option<Type>,
    /// Steps at worst.
    pub(super) cost: u64,
    /// Items at worst, where it is a list.
    items: u64,
    /// Characters at worst, of it or of each item, where it is text.
    chars: u64,
}

impl TypedExpr {
    const REFUSED: Self = Self { is: None, cost: 1, items: 0, chars: 0 };

    const fn one(kind: Kind, cost: u64) -> Self {
        Self { is: Some(Type::One(kind)), cost, items: 0, chars: 64 }
    }

    const fn text_steps(self) -> u64 {
        1 + self.chars / CHARS_A_STEP
    }

    /// Steps to compare all of it.
    const fn whole_steps(self) -> u64 {
        match self.is {
            Some(Type::List(_)) => 1 + self.items.saturating_mul(self.text_steps()),
            Some(Type::One(_)) | None => self.text_steps(),
        }
    }
}

/// Goes over one expression.
pub(super) struct TypeChecker<'a> {
    pub(super) path: &'a str,
    pub(super) info: &'a SourceInfo,
    pub(super) params: &'a Params,
    pub(super) faults: Vec<FieldError>,
    pub(super) reads: BTreeSet<Key>,
    /// Names that macros bind, with what they are.
    bound: Vec<(String, TypedExpr)>,
    macros: usize,
    depth: usize,
}

impl<'a> TypeChecker<'a> {
    pub(super) fn new(path: &'a str, info: &'a SourceInfo, params: &'a Params) -> Self {
        let (faults, reads) = (Vec::new(), BTreeSet::new());
        Self { path, info, params, faults, reads, bound: Vec::new(), macros: 0, depth: 0 }
    }

    fn refuse(&mut self, at: &IdedExpr, message: impl AsRef<str>) -> TypedExpr {
        self.refuse_for(at, message, None)
    }

    fn refuse_for(
        &mut self,
        at: &IdedExpr,
        message: impl AsRef<str>,
        suggestion: Option<String>,
    ) -> TypedExpr {
        let position = column_of(&self.info.source, start_of(self.info, at));
        let message = format!("{position}: {}", message.as_ref());
        self.faults.push(FieldError { suggestion, ..FieldError::new(self.path, message) });
        TypedExpr::REFUSED
    }

    /// What the expression is.
    pub(super) fn of(&mut self, expr: &IdedExpr) -> TypedExpr {
        if self.depth >= MAX_DEPTH {
            return self.refuse(
                expr,
                format!("expressions nest deeper than {MAX_DEPTH} here: write it in smaller parts"),
            );
        }
        self.depth += 1;
        let typed = match &expr.expr {
            Expr::Literal(literal) => self.literal(expr, literal),
            Expr::Ident(name) => self.name(expr, name),
            Expr::Select(select) => self.field(expr, select),
            Expr::Call(call) => self.call(expr, call),
            Expr::List(list) => {
                if !list.optional_indices.is_empty() {
                    self.refuse(expr, "optional items are not supported");
                }
                self.list(expr, &list.elements)
            }
            Expr::Map(_) => self.refuse(expr, "maps are not supported"),
            Expr::Struct(_) => self.refuse(expr, "messages are not supported"),
            Expr::Comprehension(_) | Expr::Unspecified => {
                self.refuse(expr, "this is no expression")
            }
        };
        self.depth -= 1;
        typed
    }

    fn literal(&mut self, expr: &IdedExpr, literal: &LiteralValue) -> TypedExpr {
        match literal {
            LiteralValue::Boolean(_) => TypedExpr::one(Kind::Bool, 1),
            LiteralValue::Int(_) => TypedExpr::one(Kind::Int, 1),
            LiteralValue::Double(_) => TypedExpr::one(Kind::Double, 1),
            LiteralValue::String(text) if text.inner().chars().any(char::is_control) => {
                self.refuse(expr, "a text must not hold control characters")
            }
            LiteralValue::String(text) => {
                TypedExpr { chars: text.inner().len() as u64, ..TypedExpr::one(Kind::Text, 1) }
            }
            LiteralValue::UInt(_) => {
                self.refuse(expr, "unsigned numbers are not supported: leave out the u")
            }
            LiteralValue::Bytes(_) => self.refuse(expr, "bytes are not supported: leave out the b"),
            LiteralValue::Null => self.refuse(
                expr,
                "null is not supported: what is missing makes a rule not assessed, and has(…) asks for it",
            ),
        }
    }

    fn name(&mut self, expr: &IdedExpr, name: &str) -> TypedExpr {
        if let Some((_, typed)) = self.bound.iter().rev().find(|(bound, _)| bound == name) {
            return *typed;
        }
        match name {
            keywords::NOW => TypedExpr::one(Kind::Time, 1),
            keywords::ATTR | keywords::ASSET | keywords::OWNER | keywords::PARAMS => self.refuse(
                expr,
                format!(
                    "{name} is no value: read one of its fields, such as {name}.{}",
                    self.example(name)
                ),
            ),
            _ => {
                let known = keywords::ROOTS
                    .into_iter()
                    .chain(self.bound.iter().map(|(bound, _)| bound.as_str()));
                let suggestion = nearest(name, known).map(str::to_owned).or_else(|| {
                    Key::of_field(keywords::ATTR, name).map(|key| key.name().to_owned())
                });
                let message =
                    format!("{name} is not known: a rule reads attr, asset, owner, params and now");
                self.refuse_for(expr, message, suggestion)
            }
        }
    }

    fn example(&self, root: &str) -> String {
        match root {
            keywords::PARAMS => {
                self.params.nearest("").unwrap_or_else(|| "max_age_days".to_owned())
            }
            root => Key::fields(root).next().unwrap_or_default().to_owned(),
        }
    }

    fn field(&mut self, expr: &IdedExpr, select: &SelectExpr) -> TypedExpr {
        let root = match &select.operand.expr {
            Expr::Ident(root) if !self.bound.iter().any(|(bound, _)| bound == root) => {
                root.as_str()
            }
            _ => {
                self.of(&select.operand);
                let message = "only attr, asset, owner and params have fields";
                return self.refuse(expr, message);
            }
        };
        match root {
            keywords::PARAMS => {
                if let Some(threshold) = self.params.get(&select.field) {
                    return of_threshold(threshold);
                }
                if self.params.is_refused(&select.field) {
                    return TypedExpr::REFUSED; // That was said.
                }
                let suggestion = self.params.nearest(&select.field);
                let message = self.params.unknown(&select.field);
                self.refuse_for(expr, message, suggestion)
            }
            keywords::ATTR | keywords::ASSET | keywords::OWNER => {
                match self.key(expr, root, &select.field) {
                    None => TypedExpr::REFUSED,
                    Some(key) => {
                        let holds = key.holds();
                        let chars = match key {
                            Key::TAGS => CHARS_A_STEP,
                            Key::DESCRIPTION => MAX_FACT_CHARS.1,
                            _ => MAX_FACT_CHARS.0,
                        };
                        TypedExpr { is: Some(holds), cost: 1, items: MAX_FACT_ITEMS, chars }
                    }
                }
            }
            keywords::NOW => self.refuse(expr, "now has no fields"),
            _ => self.name(&select.operand, root),
        }
    }

    /// The key that a field of a root is, noted as read.
    fn key(&mut self, expr: &IdedExpr, root: &str, field: &str) -> Option<Key> {
        if let Some(key) = Key::of_field(root, field) {
            self.reads.insert(key);
            if key == Facts::support() {
                let derived_from = ["os_name", "os_version"];
                self.reads.extend(derived_from.iter().filter_map(|from| Key::of_field(root, from)));
            }
            return Some(key);
        }
        let (message, suggestion) = if root == keywords::ATTR {
            keywords::unknown_attribute(field)
        } else {
            let known: Vec<_> = Key::fields(root).collect();
            let suggestion =
                nearest(field, known.iter().copied()).map(|near| format!("{root}.{near}"));
            (format!("{root}.{field} is not known: {root} has {}", known.join(", ")), suggestion)
        };
        self.refuse_for(expr, message, suggestion);
        None
    }

    fn list(&mut self, expr: &IdedExpr, items: &[IdedExpr]) -> TypedExpr {
        if items.len() > MAX_LITERAL_ITEMS {
            let message =
                format!("a list of {} items, at most {MAX_LITERAL_ITEMS} are allowed", items.len());
            return self.refuse(expr, message);
        }
        let typed: Vec<TypedExpr> = items.iter().map(|item| self.of(item)).collect();
        let list = TypedExpr {
            is: Some(Type::List(Kind::Nothing)),
            cost: typed.iter().fold(1, |cost, item| item.cost.saturating_add(cost)),
            items: items.len() as u64,
            chars: typed.iter().map(|item| item.chars).max().unwrap_or(0),
        };
        let mut kind = Kind::Nothing;
        for (item, typed) in items.iter().zip(&typed) {
            match typed.is {
                None => return TypedExpr { is: None, ..list },
                Some(Type::List(_)) => {
                    return self.refuse(item, "lists of lists are not supported");
                }
                Some(Type::One(of)) if kind == Kind::Nothing || kind == of => kind = of,
                Some(other) => {
                    let message = format!("a list of {} cannot hold {other}", Type::One(kind));
                    return self.refuse(item, message);
                }
            }
        }
        TypedExpr { is: Some(Type::List(kind)), ..list }
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr) -> TypedExpr {
        match (&call.target, call.args.as_slice()) {
            (None, [one, other]) if keywords::is_operator(&call.func_name) => {
                self.binary(expr, &call.func_name, one, other)
            }
            (None, [one]) if call.func_name == operators::LOGICAL_NOT => {
                let typed = self.expect(one, Kind::Bool, "!");
                TypedExpr::one(Kind::Bool, 1 + typed.cost)
            }
            (None, [one]) if call.func_name == operators::NEGATE => {
                let typed = self.of(one);
                match typed.is {
                    Some(Type::One(Kind::Int | Kind::Double)) | None => typed,
                    Some(other) => self.refuse(one, format!("- needs a number, not {other}")),
                }
            }
            (None, [condition, one, other]) if call.func_name == operators::CONDITIONAL => {
                self.either(expr, condition, one, other)
            }
            (None, [one]) if call.func_name == operators::HAS => self.has(one),
            (None, args) => self.function(expr, &call.func_name, args),
            (Some(target), args) => match (call.func_name.as_str(), args) {
                (
                    operators::ALL | operators::EXISTS | operators::EXISTS_ONE | operators::FILTER,
                    [name, body],
                ) => self.each(expr, &call.func_name, target, name, (None, body)),
                (operators::MAP, [name, body]) => {
                    self.each(expr, operators::MAP, target, name, (None, body))
                }
                (operators::MAP, [name, guard, body]) => {
                    self.each(expr, operators::MAP, target, name, (Some(guard), body))
                }
                (name, args) => self.method(expr, name, target, args),
            },
        }
    }

    /// That the expression is one of this kind, for what stands before it.
    fn expect(&mut self, expr: &IdedExpr, kind: Kind, by: &str) -> TypedExpr {
        let typed = self.of(expr);
        match typed.is {
            None => typed,
            Some(Type::One(is)) if is == kind => typed,
            Some(other) => {
                self.refuse(expr, format!("{by} needs {}, not {other}", Type::One(kind)));
                TypedExpr { is: None, ..typed }
            }
        }
    }

    fn has(&mut self, asked: &IdedExpr) -> TypedExpr {
        let Expr::Select(select) = &asked.expr else {
            return self.refuse(asked, "has(…) takes a field, such as has(attr.os_name)");
        };
        if matches!(&select.operand.expr, Expr::Ident(root) if root == keywords::PARAMS) {
            return self
                .refuse(asked, "has(…) asks for facts: what params declares is always there");
        }
        self.field(asked, select);
        TypedExpr::one(Kind::Bool, 2)
    }
}

fn of_threshold(threshold: &Threshold) -> TypedExpr {
    let (items, chars) = match threshold {
        Threshold::Bool(_) | Threshold::Int(_) | Threshold::Double(_) => (0, 0),
        Threshold::Text(text) => (0, text.len()),
        Threshold::Ints(numbers) => (numbers.len(), 0),
        Threshold::Texts(texts) => (texts.len(), texts.iter().map(String::len).max().unwrap_or(0)),
    };
    TypedExpr { is: Some(threshold.holds()), cost: 1, items: items as u64, chars: chars as u64 }
}
