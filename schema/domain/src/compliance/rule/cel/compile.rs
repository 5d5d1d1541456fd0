//! Compiles a type-checked expression to the expression that is evaluated. Names of facts are replaced by encoded
//! indexes, constant subexpressions are computed once (constant folding), and macros are expanded as CEL defines them.

use std::{collections::BTreeMap, sync::Arc};

use cel::{
    Context, Value,
    common::{
        ast::{
            CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, SourceInfo,
            operators,
        },
        types::{CelInt, CelList, CelString},
        value::Val,
    },
};
use chrono::{SubsecRound, TimeDelta};

use super::{
    keywords,
    position::{column_of, start_of},
};
use crate::{
    base::error::FieldError,
    compliance::rule::{
        env::ENV,
        key::FactKey,
        params::{ParamValue, Params},
        program::{Activation, Constants, encoding},
    },
};

/// Returns true if the string in `timestamp("…")` or `duration("…")` is invalid.
pub(super) fn is_invalid_literal(expr: &IdedExpr) -> bool {
    Value::resolve(expr, &Context::with_env(Arc::clone(&ENV))).is_err()
}

/// Compiles the expressions of one source.
pub(super) struct Compiler<'a> {
    pub(super) path: &'a str,
    pub(super) info: &'a SourceInfo,
    pub(super) params: &'a Params,
    pub(super) constants: Constants,
    /// Errors that constant folding found in the source.
    pub(super) faults: Vec<FieldError>,
    /// Number of enclosing `&&`, `||` and `?:`, which may skip an operand. A constant subexpression that fails is no
    /// error inside of them.
    guards: usize,
    /// Index in `constants` of each list parameter that was used, by name.
    lists: BTreeMap<String, usize>,
    /// Remaining size of constants: bytes of strings and items of lists.
    remaining_size: usize,
}

/// Maximum size of the constants of one source: bytes of strings and items of lists.
const MAX_CONSTANT_SIZE: usize = 1_000_000;

impl<'a> Compiler<'a> {
    pub(super) fn new(path: &'a str, info: &'a SourceInfo, params: &'a Params) -> Self {
        let (constants, faults) = (Constants::new(), Vec::new());
        Self {
            path,
            info,
            params,
            constants,
            faults,
            guards: 0,
            lists: BTreeMap::new(),
            remaining_size: MAX_CONSTANT_SIZE,
        }
    }

    pub(super) fn expr(&mut self, expr: &IdedExpr) -> IdedExpr {
        let compiled = match &expr.expr {
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(root) if root == keywords::PARAMS => self.param(&select.field),
                Expr::Ident(root) => Expr::Ident(match FactKey::of_field(root, &select.field) {
                    Some(key) => encoding::encode_fact(key),
                    None => unreachable!("the type checker rejects an unknown field"),
                }),
                _ => unreachable!("the type checker rejects a field of anything but a root"),
            },
            Expr::Ident(name) if name == keywords::NOW => Expr::Ident(encoding::NOW.to_string()),
            Expr::List(list) => {
                let elements: Vec<_> = list.elements.iter().map(|item| self.expr(item)).collect();
                self.folded(expr, Expr::List(ListExpr::new(elements)))
            }
            Expr::Call(call) => self.call(expr, call),
            other => other.clone(),
        };
        IdedExpr { id: expr.id, expr: compiled }
    }

    fn param(&mut self, name: &str) -> Expr {
        if let Some(position) = self.lists.get(name) {
            return Expr::Ident(encoding::encode_constant(*position));
        }
        let list = |items: Vec<Box<dyn Val>>| CelList::from(items);
        match self.params.get(name) {
            Some(ParamValue::Bool(value)) => Expr::Literal(LiteralValue::Boolean((*value).into())),
            Some(ParamValue::Int(number)) => Expr::Literal(LiteralValue::Int((*number).into())),
            Some(ParamValue::Double(number)) => {
                Expr::Literal(LiteralValue::Double((*number).into()))
            }
            Some(ParamValue::Text(text)) => {
                Expr::Literal(LiteralValue::String(text.clone().into()))
            }
            Some(ParamValue::Ints(numbers)) => {
                let items = numbers.iter().map(|number| Box::new(CelInt::from(*number)) as _);
                self.list(name, Box::new(list(items.collect())))
            }
            Some(ParamValue::Texts(texts)) => {
                let items = texts.iter().map(|text| Box::new(CelString::from(text.clone())) as _);
                self.list(name, Box::new(list(items.collect())))
            }
            None => unreachable!("the type checker rejects an undeclared parameter"),
        }
    }

    fn list(&mut self, name: &str, list: Box<dyn Val>) -> Expr {
        self.lists.insert(name.to_owned(), self.constants.len());
        self.constant(list)
    }

    fn constant(&mut self, value: Box<dyn Val>) -> Expr {
        self.constants.push(value);
        Expr::Ident(encoding::encode_constant(self.constants.len() - 1))
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr) -> Expr {
        if let (None, operators::HAS, [argument]) =
            (&call.target, call.func_name.as_str(), call.args.as_slice())
        {
            let Expr::Ident(read) = self.expr(argument).expr else {
                unreachable!(
                    "the type checker accepts only a fact in has(…), and a fact compiles to a name"
                )
            };
            return Expr::Ident(encoding::encode_presence(&read));
        }
        if let Some(target) = &call.target
            && keywords::MACROS.contains(&call.func_name.as_str())
            && let Expr::Ident(variable) = &call.args[0].expr
        {
            let range = self.expr(target);
            let parts: Vec<_> = call.args[1..].iter().map(|part| self.expr(part)).collect();
            let expanded = expand_macro(&call.func_name, range, variable, parts);
            return self.folded(expr, expanded);
        }
        let target = call.target.as_ref().map(|target| Box::new(self.expr(target)));
        let is_guard = |name: &str| {
            matches!(name, operators::LOGICAL_AND | operators::LOGICAL_OR | operators::CONDITIONAL)
        };
        let guards = usize::from(is_guard(&call.func_name));
        self.guards += guards;
        let mut args: Vec<_> = call.args.iter().map(|arg| self.expr(arg)).collect();
        self.guards -= guards;
        if call.func_name == operators::LOGICAL_NOT
            && let Some(negated) = args.pop()
        {
            // `x ? false : true` has the same value as `!x`, but saves the error that the evaluator prepares for an
            // operand that is not a bool.
            let literal = |value: bool| Expr::Literal(LiteralValue::Boolean(value.into()));
            return self.folded(
                expr,
                call_of(
                    operators::CONDITIONAL,
                    vec![negated, node(literal(false)), node(literal(true))],
                ),
            );
        }
        self.folded(expr, Expr::Call(CallExpr { func_name: call.func_name.clone(), target, args }))
    }

    /// Constant folding: returns the computed value if all operands are constants; otherwise the expression.
    fn folded(&mut self, source: &IdedExpr, compiled: Expr) -> Expr {
        if !is_constant(&compiled, &mut Vec::new()) {
            return compiled;
        }
        let folding = IdedExpr { id: source.id, expr: compiled };
        match Activation::of_constants(&self.constants).eval(&folding) {
            Ok(value) => {
                let Some(remaining_size) = self.remaining_size.checked_sub(size(&value)) else {
                    let message = format!(
                        "the constants have more than {MAX_CONSTANT_SIZE} characters and items together"
                    );
                    return self.report(source, &message);
                };
                self.remaining_size = remaining_size;
                self.store_constant(value)
            }
            Err(_) if self.guards > 0 => folding.expr,
            Err(error) => self.report(source, &format!("this always fails: {error}")),
        }
    }

    fn report(&mut self, source: &IdedExpr, message: &str) -> Expr {
        let position = column_of(&self.info.source, start_of(self.info, source));
        self.faults.push(FieldError::new(self.path, format!("{position}: {message}")));
        // Not a constant, so that the enclosing expression does not report a second error.
        Expr::Unspecified
    }

    /// Stores a computed value as a constant. Timestamps and durations are truncated to microseconds, as in facts.
    fn store_constant(&mut self, value: Value) -> Expr {
        let value = match value {
            Value::Bool(value) => return Expr::Literal(LiteralValue::Boolean(value.into())),
            Value::Int(number) => return Expr::Literal(LiteralValue::Int(number.into())),
            Value::Float(number) => return Expr::Literal(LiteralValue::Double(number.into())),
            Value::Timestamp(at) => Value::Timestamp(at.trunc_subsecs(6)),
            Value::Duration(span) => {
                Value::Duration(span.num_microseconds().map_or(span, TimeDelta::microseconds))
            }
            other => other,
        };
        let value = Box::<dyn Val>::try_from(value).expect("a computed CEL value is a CEL value");
        self.constant(value)
    }
}

/// Returns the size of a value: bytes of strings and items of lists.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::List(items) => items.iter().map(|item| 1 + size(item)).sum(),
        _ => 0,
    }
}

/// Returns true if the expression reads only constants and the variables of enclosing loops.
fn is_constant<'a>(expr: &'a Expr, loop_variables: &mut Vec<&'a str>) -> bool {
    match expr {
        Expr::Literal(_) => true,
        Expr::Ident(name) => encoding::is_constant(name) || loop_variables.contains(&name.as_str()),
        Expr::Call(call) => {
            are_constant(call.target.as_deref().into_iter().chain(&call.args), loop_variables)
        }
        Expr::List(list) => are_constant(&list.elements, loop_variables),
        Expr::Comprehension(comprehension) => {
            if !are_constant([&comprehension.iter_range, &comprehension.accu_init], loop_variables)
            {
                return false;
            }
            loop_variables.extend([comprehension.iter_var.as_str(), &comprehension.accu_var]);
            let are = are_constant(
                [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result],
                loop_variables,
            );
            loop_variables.truncate(loop_variables.len() - 2);
            are
        }
        _ => false,
    }
}

fn are_constant<'a>(
    parts: impl IntoIterator<Item = &'a IdedExpr>,
    loop_variables: &mut Vec<&'a str>,
) -> bool {
    parts.into_iter().all(|part| is_constant(&part.expr, loop_variables))
}

fn node(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn call_of(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

/// Name of the result variable of a loop. No source can contain this name, because `@` is not allowed in names.
const RESULT: &str = "@result";

/// Expands a macro to the loop that CEL defines, in the form that lets the evaluator stop the loop as soon as the
/// result is known.
fn expand_macro(name: &str, range: IdedExpr, variable: &str, mut parts: Vec<IdedExpr>) -> Expr {
    let result = || node(Expr::Ident(RESULT.to_owned()));
    let boolean = |value: bool| node(Expr::Literal(LiteralValue::Boolean(value.into())));
    let int = |number: i64| node(Expr::Literal(LiteralValue::Int(number.into())));
    let call = |name: &str, args: Vec<IdedExpr>| node(call_of(name, args));
    let list = |items: Vec<IdedExpr>| node(Expr::List(ListExpr::new(items)));
    let not_false = |condition: IdedExpr| call(operators::NOT_STRICTLY_FALSE, vec![condition]);
    let body = parts.pop().expect("the type checker rejects a macro without a body");
    let guard = parts.pop();
    let (start, condition, step, outcome) = match name {
        operators::ALL => (
            boolean(true),
            not_false(result()),
            call(operators::LOGICAL_AND, vec![result(), body]),
            result(),
        ),
        operators::EXISTS => (
            boolean(false),
            not_false(call(operators::CONDITIONAL, vec![result(), boolean(false), boolean(true)])),
            call(operators::LOGICAL_OR, vec![result(), body]),
            result(),
        ),
        operators::EXISTS_ONE => {
            let one_more = call(operators::ADD, vec![result(), int(1)]);
            (
                int(0),
                boolean(true),
                call(operators::CONDITIONAL, vec![body, one_more, result()]),
                call(operators::EQUALS, vec![result(), int(1)]),
            )
        }
        _ => {
            let is_filter = name == operators::FILTER;
            let item = node(Expr::Ident(variable.to_owned()));
            let (guard, item) = if is_filter { (Some(body), item) } else { (guard, body) };
            let longer = call(operators::ADD, vec![result(), list(vec![item])]);
            let step = match guard {
                Some(guard) => call(operators::CONDITIONAL, vec![guard, longer, result()]),
                None => longer,
            };
            (list(Vec::new()), boolean(true), step, result())
        }
    };
    Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: range,
        iter_var: variable.to_owned(),
        iter_var2: None,
        accu_var: RESULT.to_owned(),
        accu_init: start,
        loop_cond: condition,
        loop_step: step,
        result: outcome,
    }))
}
