//! Type checker: determines the type and the maximum cost of an expression, and reports all errors, not only the first.
//!
//! The checker is stricter than CEL: both sides of an operator must have the same type, so `"yes" == true` is rejected
//! instead of being always false. A subexpression with an error has no type and causes no further errors.

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
        key::FactKey,
        kind::{Kind, Type},
        params::{ParamValue, Params},
    },
};

mod branch;
mod operation;

/// Maximum number of items of a list fact, assumed for the cost.
const MAX_FACT_ITEMS: u64 = 1_000;
/// Maximum number of characters of a string fact, assumed for the cost: for all facts, and for `asset.description`.
const MAX_FACT_CHARS: (u64, u64) = (1_024, 4_096);
/// Maximum number of items in a list literal.
const MAX_LITERAL_ITEMS: usize = 256;
/// Maximum nesting depth of macros.
const MAX_MACRO_NESTING: usize = 2;
/// Maximum nesting depth of expressions.
pub(super) const MAX_DEPTH: usize = 64;
/// Number of characters that count as one step in comparisons.
const CHARS_A_STEP: u64 = 64;
/// Number of steps per item of a macro, in addition to the steps of its body.
const ITEM_STEPS: u64 = 4;

/// Type and cost of an expression.
#[derive(Debug, Clone, Copy)]
pub(super) struct TypedExpr {
    /// The type; `None` after an error.
    pub(super) is: Option<Type>,
    /// Maximum number of steps to evaluate the expression.
    pub(super) cost: u64,
    /// Maximum number of items, if the value is a list.
    items: u64,
    /// Maximum number of characters of the string, or of each item of the list.
    chars: u64,
}

impl TypedExpr {
    const INVALID: Self = Self { is: None, cost: 1, items: 0, chars: 0 };

    const fn one(kind: Kind, cost: u64) -> Self {
        Self { is: Some(Type::One(kind)), cost, items: 0, chars: 64 }
    }

    const fn text_steps(self) -> u64 {
        1 + self.chars / CHARS_A_STEP
    }

    /// Returns the number of steps to compare the complete value.
    const fn whole_steps(self) -> u64 {
        match self.is {
            Some(Type::List(_)) => 1 + self.items.saturating_mul(self.text_steps()),
            Some(Type::One(_)) | None => self.text_steps(),
        }
    }
}

/// Type checker of one expression.
pub(super) struct TypeChecker<'a> {
    pub(super) path: &'a str,
    pub(super) info: &'a SourceInfo,
    pub(super) params: &'a Params,
    pub(super) faults: Vec<FieldError>,
    pub(super) reads: BTreeSet<FactKey>,
    /// Variables of enclosing macros with their types.
    bound: Vec<(String, TypedExpr)>,
    macros: usize,
    depth: usize,
}

impl<'a> TypeChecker<'a> {
    pub(super) fn new(path: &'a str, info: &'a SourceInfo, params: &'a Params) -> Self {
        let (faults, reads) = (Vec::new(), BTreeSet::new());
        Self { path, info, params, faults, reads, bound: Vec::new(), macros: 0, depth: 0 }
    }

    fn report(&mut self, at: &IdedExpr, message: impl AsRef<str>) -> TypedExpr {
        self.report_with_suggestion(at, message, None)
    }

    fn report_with_suggestion(
        &mut self,
        at: &IdedExpr,
        message: impl AsRef<str>,
        suggestion: Option<String>,
    ) -> TypedExpr {
        let position = column_of(&self.info.source, start_of(self.info, at));
        let message = format!("{position}: {}", message.as_ref());
        self.faults.push(FieldError { suggestion, ..FieldError::new(self.path, message) });
        TypedExpr::INVALID
    }

    /// Checks the expression and returns its type and cost.
    pub(super) fn of(&mut self, expr: &IdedExpr) -> TypedExpr {
        if self.depth >= MAX_DEPTH {
            return self.report(
                expr,
                format!("the expression is nested more than {MAX_DEPTH} levels deep here: shorten it or split the rule"),
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
                    self.report(expr, "optional list items are not supported");
                }
                self.list(expr, &list.elements)
            }
            Expr::Map(_) => self.report(expr, "maps are not supported: use a list"),
            Expr::Struct(_) => self.report(expr, "messages are not supported"),
            Expr::Comprehension(_) | Expr::Unspecified => {
                self.report(expr, "this is not an expression")
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
                self.report(expr, "a string must not contain control characters")
            }
            LiteralValue::String(text) => {
                TypedExpr { chars: text.inner().len() as u64, ..TypedExpr::one(Kind::Text, 1) }
            }
            LiteralValue::UInt(_) => {
                self.report(expr, "unsigned numbers are not supported: remove the u")
            }
            LiteralValue::Bytes(_) => self.report(expr, "bytes are not supported: remove the b"),
            LiteralValue::Null => self.report(
                expr,
                "null is not supported: a rule that reads a missing value is not assessed; test for the value with has(…)",
            ),
        }
    }

    fn name(&mut self, expr: &IdedExpr, name: &str) -> TypedExpr {
        if let Some((_, typed)) = self.bound.iter().rev().find(|(bound, _)| bound == name) {
            return *typed;
        }
        match name {
            keywords::NOW => TypedExpr::one(Kind::Time, 1),
            keywords::ATTR | keywords::ASSET | keywords::OWNER | keywords::PARAMS => self.report(
                expr,
                format!(
                    "{name} is not a value: read one of its fields, such as {name}.{}",
                    self.example(name)
                ),
            ),
            _ => {
                let known = keywords::ROOTS
                    .into_iter()
                    .chain(self.bound.iter().map(|(bound, _)| bound.as_str()));
                let suggestion = nearest(name, known).map(str::to_owned).or_else(|| {
                    FactKey::of_field(keywords::ATTR, name).map(|key| key.name().to_owned())
                });
                let message = format!(
                    "{name} is not known: a rule can read attr, asset, owner, params and now"
                );
                self.report_with_suggestion(expr, message, suggestion)
            }
        }
    }

    fn example(&self, root: &str) -> String {
        match root {
            keywords::PARAMS => {
                self.params.nearest("").unwrap_or_else(|| "max_age_days".to_owned())
            }
            root => FactKey::fields(root).next().unwrap_or_default().to_owned(),
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
                return self.report(expr, message);
            }
        };
        match root {
            keywords::PARAMS => {
                if let Some(param) = self.params.get(&select.field) {
                    return of_param(param);
                }
                if self.params.is_invalid(&select.field) {
                    return TypedExpr::INVALID; // The default's error is reported already.
                }
                let suggestion = self.params.nearest(&select.field);
                let message = self.params.unknown(&select.field);
                self.report_with_suggestion(expr, message, suggestion)
            }
            keywords::ATTR | keywords::ASSET | keywords::OWNER => {
                match self.key(expr, root, &select.field) {
                    None => TypedExpr::INVALID,
                    Some(key) => {
                        let value_type = key.value_type();
                        let chars = match key {
                            FactKey::TAGS => CHARS_A_STEP,
                            FactKey::DESCRIPTION => MAX_FACT_CHARS.1,
                            _ => MAX_FACT_CHARS.0,
                        };
                        TypedExpr { is: Some(value_type), cost: 1, items: MAX_FACT_ITEMS, chars }
                    }
                }
            }
            keywords::NOW => self.report(
                expr,
                "now has no fields: compare it, such as now - attr.last_patched_at < days(30)",
            ),
            _ => self.name(&select.operand, root),
        }
    }

    /// Returns the key of a root's field, and adds the key to `reads`.
    fn key(&mut self, expr: &IdedExpr, root: &str, field: &str) -> Option<FactKey> {
        if let Some(key) = FactKey::of_field(root, field) {
            self.reads.insert(key);
            if key == Facts::os_supported_key() {
                let derived_from = ["os_name", "os_version"];
                self.reads
                    .extend(derived_from.iter().filter_map(|from| FactKey::of_field(root, from)));
            }
            return Some(key);
        }
        let (message, suggestion) = if root == keywords::ATTR {
            keywords::unknown_attribute(field)
        } else {
            let known: Vec<_> = FactKey::fields(root).collect();
            let suggestion =
                nearest(field, known.iter().copied()).map(|near| format!("{root}.{near}"));
            (format!("{root}.{field} is not known: {root} has {}", known.join(", ")), suggestion)
        };
        self.report_with_suggestion(expr, message, suggestion);
        None
    }

    fn list(&mut self, expr: &IdedExpr, items: &[IdedExpr]) -> TypedExpr {
        if items.len() > MAX_LITERAL_ITEMS {
            let message = format!(
                "the list has {} items, at most {MAX_LITERAL_ITEMS} are allowed",
                items.len()
            );
            return self.report(expr, message);
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
                    return self.report(item, "lists of lists are not supported");
                }
                Some(Type::One(of)) if kind == Kind::Nothing || kind == of => kind = of,
                Some(other) => {
                    let message = format!("a list of {} cannot contain {other}", Type::One(kind));
                    return self.report(item, message);
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
                    Some(other) => self.report(one, format!("- needs a number, not {other}")),
                }
            }
            (None, [condition, one, other]) if call.func_name == operators::CONDITIONAL => {
                self.conditional(expr, condition, one, other)
            }
            (None, [one]) if call.func_name == operators::HAS => self.has(one),
            (None, args) => self.function(expr, &call.func_name, args),
            (Some(target), args) => match (call.func_name.as_str(), args) {
                (
                    operators::ALL | operators::EXISTS | operators::EXISTS_ONE | operators::FILTER,
                    [name, body],
                ) => self.macro_call(expr, &call.func_name, target, name, (None, body)),
                (operators::MAP, [name, body]) => {
                    self.macro_call(expr, operators::MAP, target, name, (None, body))
                }
                (operators::MAP, [name, guard, body]) => {
                    self.macro_call(expr, operators::MAP, target, name, (Some(guard), body))
                }
                (name, args) => self.method(expr, name, target, args),
            },
        }
    }

    /// Checks the expression, and reports an error unless it has this type. `by` is the operator, for the message.
    fn expect(&mut self, expr: &IdedExpr, kind: Kind, by: &str) -> TypedExpr {
        let typed = self.of(expr);
        match typed.is {
            None => typed,
            Some(Type::One(is)) if is == kind => typed,
            Some(other) => {
                self.report(expr, format!("{by} needs {}, not {other}", Type::One(kind)));
                TypedExpr { is: None, ..typed }
            }
        }
    }

    fn has(&mut self, argument: &IdedExpr) -> TypedExpr {
        let Expr::Select(select) = &argument.expr else {
            return self.report(argument, "has(…) takes a field, such as has(attr.os_name)");
        };
        if matches!(&select.operand.expr, Expr::Ident(root) if root == keywords::PARAMS) {
            return self.report(
                argument,
                "has(…) tests facts of the asset: a parameter always has a value",
            );
        }
        self.field(argument, select);
        TypedExpr::one(Kind::Bool, 2)
    }
}

fn of_param(param: &ParamValue) -> TypedExpr {
    let (items, chars) = match param {
        ParamValue::Bool(_) | ParamValue::Int(_) | ParamValue::Double(_) => (0, 0),
        ParamValue::Text(text) => (0, text.len()),
        ParamValue::Ints(numbers) => (numbers.len(), 0),
        ParamValue::Texts(texts) => (texts.len(), texts.iter().map(String::len).max().unwrap_or(0)),
    };
    TypedExpr { is: Some(param.value_type()), cost: 1, items: items as u64, chars: chars as u64 }
}
