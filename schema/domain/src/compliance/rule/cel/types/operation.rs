//! Type checks of operators and functions: argument types, result type and cost.

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use super::{
    super::{compile::is_invalid_literal, keywords},
    TypeChecker, TypedExpr,
};
use crate::{
    base::nearest::nearest,
    compliance::rule::kind::{Kind, Type},
    inventory::asset::{AssetType, Environment, LifecycleState},
};

impl TypeChecker<'_> {
    pub(super) fn binary(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> TypedExpr {
        let sign = keywords::sign(name);
        if matches!(name, operators::LOGICAL_AND | operators::LOGICAL_OR) {
            let (one, other) =
                (self.expect(left, Kind::Bool, sign), self.expect(right, Kind::Bool, sign));
            return TypedExpr::one(
                Kind::Bool,
                one.cost.saturating_add(other.cost).saturating_add(1),
            );
        }
        let (one, other) = (self.of(left), self.of(right));
        let cost = one.cost.saturating_add(other.cost).saturating_add(1);
        let (Some(is), Some(by)) = (one.is, other.is) else {
            return TypedExpr { is: None, cost, ..one };
        };
        match name {
            operators::EQUALS | operators::NOT_EQUALS => {
                if !is.agrees(by) {
                    return self.type_mismatch(expr, sign, is, by);
                }
                self.check_state(left, right);
                self.check_state(right, left);
                TypedExpr::one(
                    Kind::Bool,
                    cost.saturating_add(one.whole_steps().min(other.whole_steps())),
                )
            }
            operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS => match (is, by) {
                (Type::One(is), Type::One(by)) if is == by && is != Kind::Bool => TypedExpr::one(
                    Kind::Bool,
                    cost.saturating_add(one.text_steps().min(other.text_steps())),
                ),
                (is, by) if is == by => self.report(
                    expr,
                    format!("{sign} compares numbers, strings, timestamps and durations, not {is}"),
                ),
                _ => self.type_mismatch(expr, sign, is, by),
            },
            operators::IN => match by {
                Type::List(kind) if is == Type::One(kind) || kind == Kind::Nothing => {
                    self.check_state(left, right);
                    TypedExpr::one(Kind::Bool, cost.saturating_add(other.whole_steps()))
                }
                Type::List(_) => self.report(expr, format!("a {by} cannot contain {is}")),
                Type::One(_) => {
                    self.report(right, format!("in needs a list on its right side, not {by}"))
                }
            },
            operators::INDEX => match (is, by) {
                (Type::List(_), _) if is_negative(right) => {
                    self.report(right, "list indexes start at 0: this always fails")
                }
                (Type::List(kind), Type::One(Kind::Int)) => {
                    TypedExpr { is: Some(Type::One(kind)), cost, ..one }
                }
                (Type::List(_), _) => {
                    self.report(right, format!("a list index must be int, not {by}"))
                }
                (Type::One(_), _) => self.report(left, format!("[…] needs a list, not {is}")),
            },
            _ => self.arithmetic(expr, name, one, (right, other), cost),
        }
    }

    fn arithmetic(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        one: TypedExpr,
        (right, other): (&IdedExpr, TypedExpr),
        cost: u64,
    ) -> TypedExpr {
        use Kind::{Double, Int, Span, Text, Time};
        let sign = keywords::sign(name);
        let (Some(is), Some(by)) = (one.is, other.is) else { return TypedExpr::INVALID };
        let kind = match (is, by) {
            (Type::List(_), Type::List(_)) if name == operators::ADD && is.agrees(by) => {
                let items = one.items.saturating_add(other.items);
                let is = if is == Type::List(Kind::Nothing) { by } else { is };
                let chars = one.chars.max(other.chars);
                let list = TypedExpr { is: Some(is), cost, items, chars };
                return TypedExpr { cost: cost.saturating_add(list.whole_steps()), ..list };
            }
            (Type::One(Text), Type::One(Text)) if name == operators::ADD => {
                let chars = one.chars.saturating_add(other.chars);
                let text = TypedExpr { chars, ..TypedExpr::one(Text, cost) };
                return TypedExpr { cost: cost.saturating_add(text.text_steps()), ..text };
            }
            (Type::One(is), Type::One(by)) => match (name, is, by) {
                (
                    operators::ADD
                    | operators::SUBSTRACT
                    | operators::MULTIPLY
                    | operators::DIVIDE
                    | operators::MODULO,
                    Int,
                    Int,
                ) => Int,
                (operators::MODULO, ..) => {
                    return self.report(
                        expr,
                        format!(
                            "% needs int on both sides, not {} and {}",
                            Type::One(is),
                            Type::One(by)
                        ),
                    );
                }
                (
                    operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE,
                    Double,
                    Double,
                ) => Double,
                (operators::ADD | operators::SUBSTRACT, Time, Span)
                | (operators::ADD, Span, Time) => Time,
                (operators::ADD | operators::SUBSTRACT, Span, Span)
                | (operators::SUBSTRACT, Time, Time) => Span,
                (_, Int, Double) | (_, Double, Int) => {
                    let message = format!(
                        "{sign} needs the same number type on both sides: write double(…) around the int"
                    );
                    return self.report(expr, message);
                }
                (operators::ADD | operators::SUBSTRACT, Time, Int)
                | (operators::ADD, Int, Time) => {
                    let message = format!(
                        "{sign} needs a duration next to a timestamp: write days(…) or hours(…) around the int"
                    );
                    return self.report(expr, message);
                }
                _ => return self.type_mismatch(expr, sign, Type::One(is), Type::One(by)),
            },
            _ => return self.type_mismatch(expr, sign, is, by),
        };
        // Division by a literal zero is always a mistake.
        if matches!(name, operators::DIVIDE | operators::MODULO) && is_zero(right) {
            return self.report(right, format!("the right side of {sign} is zero"));
        }
        TypedExpr::one(kind, cost)
    }

    fn type_mismatch(&mut self, expr: &IdedExpr, sign: &str, is: Type, by: Type) -> TypedExpr {
        let hint = match (is, by) {
            (Type::One(Kind::Int), Type::One(Kind::Double))
            | (Type::One(Kind::Double), Type::One(Kind::Int)) => ": write double(…) around the int",
            (Type::One(Kind::Time), Type::One(Kind::Text))
            | (Type::One(Kind::Text), Type::One(Kind::Time)) => {
                ": write timestamp(\"…\") around the string"
            }
            (Type::One(Kind::Span), Type::One(Kind::Int))
            | (Type::One(Kind::Int), Type::One(Kind::Span)) => {
                ": write days(…) or hours(…) around the int"
            }
            _ => "",
        };
        self.report(expr, format!("{sign} has {is} on one side and {by} on the other{hint}"))
    }

    /// Reports an error if an enum fact, such as `asset.type`, is compared with a string that is not one of its values.
    fn check_state(&mut self, state: &IdedExpr, with: &IdedExpr) {
        fn names<T: Copy>(all: &[T], name: fn(T) -> &'static str) -> Vec<&'static str> {
            all.iter().map(|state| name(*state)).collect()
        }
        let texts: Vec<&IdedExpr> = match &with.expr {
            Expr::List(list) => list.elements.iter().collect(),
            _ => vec![with],
        };
        let Expr::Select(select) = &state.expr else { return };
        if !matches!(&select.operand.expr, Expr::Ident(root) if root == keywords::ASSET) {
            return;
        }
        let known = match select.field.as_str() {
            "type" => names(AssetType::ALL, AssetType::as_str),
            "environment" => names(Environment::ALL, Environment::as_str),
            "lifecycle_state" => names(LifecycleState::ALL, LifecycleState::as_str),
            _ => return,
        };
        for text in texts {
            let Expr::Literal(LiteralValue::String(given)) = &text.expr else { continue };
            let given = given.inner();
            if !known.contains(&given) {
                let suggestion =
                    nearest(given, known.iter().copied()).map(|near| format!("{near:?}"));
                let message = format!(
                    "asset.{} is never {given:?}: it is one of {}",
                    select.field,
                    known.join(", ")
                );
                self.report_with_suggestion(text, message, suggestion);
            }
        }
    }

    pub(super) fn function(&mut self, expr: &IdedExpr, name: &str, args: &[IdedExpr]) -> TypedExpr {
        let [arg] = args else {
            for arg in args {
                self.of(arg);
            }
            return if keywords::FUNCTIONS.contains(&name) {
                self.report(expr, format!("{name}(…) takes one argument, not {}", args.len()))
            } else {
                self.unknown_function(expr, name)
            };
        };
        match name {
            "timestamp" | "duration" => self.time_literal(expr, name, arg),
            "days" | "hours" => {
                let typed = self.expect(arg, Kind::Int, name);
                TypedExpr::one(Kind::Span, 1 + typed.cost)
            }
            "size" => {
                let typed = self.of(arg);
                self.size(arg, typed)
            }
            "int" | "double" | "string" => {
                let typed = self.of(arg);
                let kind = match name {
                    "int" => Kind::Int,
                    "double" => Kind::Double,
                    _ => Kind::Text,
                };
                match (typed.is, kind) {
                    (None, _) => typed,
                    (Some(Type::One(Kind::Int | Kind::Double | Kind::Text)), _)
                    | (Some(Type::One(Kind::Bool)), Kind::Text) => TypedExpr {
                        chars: typed.chars.max(64),
                        ..TypedExpr::one(kind, typed.cost.saturating_add(typed.text_steps()))
                    },
                    (Some(other), _) => {
                        self.report(arg, format!("{name}(…) cannot convert {other}"))
                    }
                }
            }
            _ => {
                self.of(arg);
                self.unknown_function(expr, name)
            }
        }
    }

    /// Checks `timestamp("…")` and `duration("…")`, which need a string literal.
    fn time_literal(&mut self, expr: &IdedExpr, name: &str, arg: &IdedExpr) -> TypedExpr {
        let Expr::Literal(LiteralValue::String(_)) = &arg.expr else {
            let instead =
                if name == "duration" { "; days(…) and hours(…) take a number" } else { "" };
            return self.report(arg, format!("{name}(…) needs a string literal{instead}"));
        };
        if is_invalid_literal(expr) {
            let example = if name == "duration" { "\"36h\"" } else { "\"2026-01-31T00:00:00Z\"" };
            return self.report(arg, format!("this is not a valid {name}: write it as {example}"));
        }
        TypedExpr::one(if name == "duration" { Kind::Span } else { Kind::Time }, 1)
    }

    fn size(&mut self, at: &IdedExpr, typed: TypedExpr) -> TypedExpr {
        match typed.is {
            None => typed,
            Some(Type::List(_)) => TypedExpr::one(Kind::Int, typed.cost.saturating_add(1)),
            Some(Type::One(Kind::Text)) => {
                TypedExpr::one(Kind::Int, typed.cost.saturating_add(typed.text_steps()))
            }
            Some(other) => {
                self.report(at, format!("size(…) needs a string or a list, not {other}"))
            }
        }
    }

    pub(super) fn method(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        target: &IdedExpr,
        args: &[IdedExpr],
    ) -> TypedExpr {
        match (name, args) {
            ("size", []) => {
                let typed = self.of(target);
                self.size(target, typed)
            }
            ("contains" | "startsWith" | "endsWith", [arg]) => {
                let one = self.of(target);
                match one.is {
                    Some(Type::List(_)) if name == "contains" => {
                        return self
                            .report(expr, "contains needs a string: write … in … for a list");
                    }
                    None | Some(Type::One(Kind::Text)) => {}
                    Some(other) => {
                        return self.report(target, format!("{name} needs a string, not {other}"));
                    }
                }
                let other = self.expect(arg, Kind::Text, name);
                let cost = one.cost.saturating_add(other.cost).saturating_add(one.text_steps());
                TypedExpr::one(Kind::Bool, cost)
            }
            _ => {
                let is_macro = keywords::MACROS.contains(&name);
                if is_macro || keywords::METHODS.contains(&name) {
                    let message = format!("wrong number of arguments for {name}: {}", args.len());
                    return self.report(expr, message);
                }
                self.unknown_function(expr, name)
            }
        }
    }

    fn unknown_function(&mut self, expr: &IdedExpr, name: &str) -> TypedExpr {
        let name = name.trim_matches(|character| character == '_' || character == '@');
        let known =
            keywords::FUNCTIONS.iter().chain(&keywords::METHODS).chain(&keywords::MACROS).copied();
        let suggestion = nearest(name, known.clone()).map(str::to_owned);
        let message = if name == "matches" {
            "regular expressions are not supported: use contains, startsWith or endsWith".to_owned()
        } else {
            let mut known: Vec<_> = known.collect();
            known.dedup();
            format!("{name} is not known: use one of {}", known.join(", "))
        };
        self.report_with_suggestion(expr, message, suggestion)
    }
}

fn is_zero(expr: &IdedExpr) -> bool {
    matches!(&expr.expr, Expr::Literal(LiteralValue::Int(number)) if *number.inner() == 0)
}

fn is_negative(expr: &IdedExpr) -> bool {
    matches!(&expr.expr, Expr::Literal(LiteralValue::Int(number)) if *number.inner() < 0)
}
