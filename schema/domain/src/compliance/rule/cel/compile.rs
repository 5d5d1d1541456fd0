//! From a checked expression to what is evaluated: facts by number, thresholds and all that follows from them computed once,
//! macros unfolded as CEL defines them.

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
        key::Key,
        params::{Params, Threshold},
        program::{Constants, View, code},
    },
};

/// Whether `timestamp("…")` or `duration("…")` holds a text that is none.
pub(super) fn is_not_written(expr: &IdedExpr) -> bool {
    Value::resolve(expr, &Context::with_env(Arc::clone(&ENV))).is_err()
}

/// Compiles the expressions of one source.
pub(super) struct Compiler<'a> {
    pub(super) path: &'a str,
    pub(super) info: &'a SourceInfo,
    pub(super) params: &'a Params,
    pub(super) constants: Constants,
    /// What cannot be computed from constants alone.
    pub(super) faults: Vec<FieldError>,
    /// Within how many operators that may pass it by: what cannot be computed there need not be.
    guards: usize,
    /// Thresholds that are lists, by their places among the constants.
    lists: BTreeMap<String, usize>,
    /// Characters and items that its constants may still come to.
    room: usize,
}

/// Characters and items of the constants of one source.
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
            room: MAX_CONSTANT_SIZE,
        }
    }

    pub(super) fn expr(&mut self, expr: &IdedExpr) -> IdedExpr {
        let compiled = match &expr.expr {
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(root) if root == keywords::PARAMS => self.threshold(&select.field),
                Expr::Ident(root) => Expr::Ident(match Key::of_field(root, &select.field) {
                    Some(key) => code::of_key(key),
                    None => unreachable!("checker refuses a field that no fact has"),
                }),
                _ => unreachable!("checker refuses a field of what is no root"),
            },
            Expr::Ident(name) if name == keywords::NOW => Expr::Ident(code::NOW.to_string()),
            Expr::List(list) => {
                let elements: Vec<_> = list.elements.iter().map(|item| self.expr(item)).collect();
                self.folded(expr, Expr::List(ListExpr::new(elements)))
            }
            Expr::Call(call) => self.call(expr, call),
            other => other.clone(),
        };
        IdedExpr { id: expr.id, expr: compiled }
    }

    fn threshold(&mut self, name: &str) -> Expr {
        if let Some(position) = self.lists.get(name) {
            return Expr::Ident(code::of_constant(*position));
        }
        let list = |items: Vec<Box<dyn Val>>| CelList::from(items);
        match self.params.get(name) {
            Some(Threshold::Bool(value)) => Expr::Literal(LiteralValue::Boolean((*value).into())),
            Some(Threshold::Int(number)) => Expr::Literal(LiteralValue::Int((*number).into())),
            Some(Threshold::Double(number)) => {
                Expr::Literal(LiteralValue::Double((*number).into()))
            }
            Some(Threshold::Text(text)) => Expr::Literal(LiteralValue::String(text.clone().into())),
            Some(Threshold::Ints(numbers)) => {
                let items = numbers.iter().map(|number| Box::new(CelInt::from(*number)) as _);
                self.list(name, Box::new(list(items.collect())))
            }
            Some(Threshold::Texts(texts)) => {
                let items = texts.iter().map(|text| Box::new(CelString::from(text.clone())) as _);
                self.list(name, Box::new(list(items.collect())))
            }
            None => unreachable!("checker refuses a threshold that is not declared"),
        }
    }

    fn list(&mut self, name: &str, list: Box<dyn Val>) -> Expr {
        self.lists.insert(name.to_owned(), self.constants.len());
        self.constant(list)
    }

    fn constant(&mut self, value: Box<dyn Val>) -> Expr {
        self.constants.push(value);
        Expr::Ident(code::of_constant(self.constants.len() - 1))
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr) -> Expr {
        if let (None, operators::HAS, [asked]) =
            (&call.target, call.func_name.as_str(), call.args.as_slice())
        {
            let Expr::Ident(read) = self.expr(asked).expr else {
                unreachable!("checker lets has(…) ask for a fact only, and a fact is a name")
            };
            return Expr::Ident(code::asking(&read));
        }
        if let Some(target) = &call.target
            && keywords::MACROS.contains(&call.func_name.as_str())
            && let Expr::Ident(variable) = &call.args[0].expr
        {
            let range = self.expr(target);
            let parts: Vec<_> = call.args[1..].iter().map(|part| self.expr(part)).collect();
            let unfolded = unfolded(&call.func_name, range, variable, parts);
            return self.folded(expr, unfolded);
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
            // The same, without the error that CEL prepares for what is no bool.
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

    /// Its value where all parts of it are constants, else the expression.
    fn folded(&mut self, source: &IdedExpr, compiled: Expr) -> Expr {
        if !is_constant(&compiled, &mut Vec::new()) {
            return compiled;
        }
        let whole = IdedExpr { id: source.id, expr: compiled };
        match View::of_constants(&self.constants).value(&whole) {
            Ok(value) => {
                let Some(room) = self.room.checked_sub(size(&value)) else {
                    let why = format!(
                        "its constants come to more than {MAX_CONSTANT_SIZE} characters and items"
                    );
                    return self.refuse(source, &why);
                };
                self.room = room;
                self.kept(value)
            }
            Err(_) if self.guards > 0 => whole.expr,
            Err(trouble) => self.refuse(source, &format!("this cannot be computed: {trouble}")),
        }
    }

    fn refuse(&mut self, source: &IdedExpr, why: &str) -> Expr {
        let position = column_of(&self.info.source, start_of(self.info, source));
        self.faults.push(FieldError::new(self.path, format!("{position}: {why}")));
        // No constant, so that what it is a part of is not refused as well.
        Expr::Unspecified
    }

    /// A value that was computed; times to the microsecond, as everywhere.
    fn kept(&mut self, value: Value) -> Expr {
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
        let value = Box::<dyn Val>::try_from(value).expect("what CEL computed is a value of CEL");
        self.constant(value)
    }
}

/// Its characters and items.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::List(items) => items.iter().map(|item| 1 + size(item)).sum(),
        _ => 0,
    }
}

/// Whether it reads nothing but constants, and what the loops around it name.
fn is_constant<'a>(expr: &'a Expr, named: &mut Vec<&'a str>) -> bool {
    match expr {
        Expr::Literal(_) => true,
        Expr::Ident(name) => code::is_constant(name) || named.contains(&name.as_str()),
        Expr::Call(call) => {
            are_constant(call.target.as_deref().into_iter().chain(&call.args), named)
        }
        Expr::List(list) => are_constant(&list.elements, named),
        Expr::Comprehension(each) => {
            if !are_constant([&each.iter_range, &each.accu_init], named) {
                return false;
            }
            named.extend([each.iter_var.as_str(), &each.accu_var]);
            let are = are_constant([&each.loop_cond, &each.loop_step, &each.result], named);
            named.truncate(named.len() - 2);
            are
        }
        _ => false,
    }
}

fn are_constant<'a>(
    parts: impl IntoIterator<Item = &'a IdedExpr>,
    named: &mut Vec<&'a str>,
) -> bool {
    parts.into_iter().all(|part| is_constant(&part.expr, named))
}

fn node(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

fn call_of(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

/// A name that no source can write.
const RESULT: &str = "@result";

/// A macro as the loop that CEL defines it to be, in the shape that the evaluator knows to shorten.
fn unfolded(name: &str, range: IdedExpr, variable: &str, mut parts: Vec<IdedExpr>) -> Expr {
    let result = || node(Expr::Ident(RESULT.to_owned()));
    let boolean = |value: bool| node(Expr::Literal(LiteralValue::Boolean(value.into())));
    let int = |number: i64| node(Expr::Literal(LiteralValue::Int(number.into())));
    let call = |name: &str, args: Vec<IdedExpr>| node(call_of(name, args));
    let list = |items: Vec<IdedExpr>| node(Expr::List(ListExpr::new(items)));
    let not_false = |condition: IdedExpr| call(operators::NOT_STRICTLY_FALSE, vec![condition]);
    let body = parts.pop().expect("checker refuses a macro without a body");
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
