//! Type checks of expressions that evaluate a subexpression conditionally or repeatedly: `?:` and the macros.

use cel::common::ast::{Expr, IdedExpr, operators};

use super::{super::keywords, ITEM_STEPS, MAX_MACRO_NESTING, TypeChecker, TypedExpr};
use crate::compliance::rule::kind::{Kind, Type};

impl TypeChecker<'_> {
    pub(super) fn conditional(
        &mut self,
        expr: &IdedExpr,
        condition: &IdedExpr,
        one: &IdedExpr,
        other: &IdedExpr,
    ) -> TypedExpr {
        let decides = self.expect(condition, Kind::Bool, "the part before ?");
        let (one, other) = (self.of(one), self.of(other));
        let typed = TypedExpr {
            is: None,
            cost: decides.cost.saturating_add(one.cost.max(other.cost)).saturating_add(1),
            items: one.items.max(other.items),
            chars: one.chars.max(other.chars),
        };
        match (one.is, other.is) {
            (Some(one), Some(other)) if one.agrees(other) => {
                let is = if one == Type::List(Kind::Nothing) { other } else { one };
                TypedExpr { is: Some(is), ..typed }
            }
            (Some(one), Some(other)) => self.report(
                expr,
                format!("both sides of : must have the same type, not {one} and {other}"),
            ),
            _ => typed,
        }
    }

    pub(super) fn macro_call(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        target: &IdedExpr,
        variable: &IdedExpr,
        (guard, body): (Option<&IdedExpr>, &IdedExpr),
    ) -> TypedExpr {
        let range = self.of(target);
        let Expr::Ident(bound) = &variable.expr else {
            return self.report(
                variable,
                format!("the first argument of {name} must be a name for the item, such as {name}(item, …)"),
            );
        };
        if keywords::ROOTS.contains(&bound.as_str()) {
            return self
                .report(variable, format!("{bound} is reserved: give the item another name"));
        }
        let item = match range.is {
            None => TypedExpr { is: None, ..range },
            Some(Type::List(kind)) => {
                TypedExpr { is: Some(Type::One(kind)), cost: 1, items: 0, chars: range.chars }
            }
            Some(other) => {
                return self.report(target, format!("{name} needs a list, not {other}"));
            }
        };
        if self.macros >= MAX_MACRO_NESTING {
            return self.report(
                expr,
                format!(
                    "{name} is nested too deep, at most {MAX_MACRO_NESTING} macros may be nested"
                ),
            );
        }
        self.macros += 1;
        self.bound.push((bound.clone(), item));
        let mut steps = ITEM_STEPS;
        if let Some(guard) = guard {
            steps = steps.saturating_add(self.expect(guard, Kind::Bool, name).cost);
        }
        let body = if name == operators::MAP {
            self.of(body)
        } else {
            self.expect(body, Kind::Bool, name)
        };
        self.bound.pop();
        self.macros -= 1;
        steps = steps.saturating_add(body.cost);
        let cost = range.cost.saturating_add(range.items.saturating_mul(steps)).saturating_add(1);
        match (name, body.is) {
            (operators::FILTER, _) => TypedExpr { cost, ..range },
            (operators::MAP, None) => {
                TypedExpr { is: None, cost, items: range.items, chars: body.chars }
            }
            (operators::MAP, Some(Type::One(kind))) => TypedExpr {
                is: Some(Type::List(kind)),
                cost,
                items: range.items,
                chars: body.chars,
            },
            (operators::MAP, Some(Type::List(_))) => {
                self.report(expr, "lists of lists are not supported")
            }
            _ => TypedExpr::one(Kind::Bool, cost),
        }
    }
}
