//! Use of `now` in a condition. `now` is allowed only in comparisons that are linear in `now`. The time of the next
//! flip (a change of the verdict although no fact changes) can then be computed instead of searched for.

use cel::common::ast::{CallExpr, Expr, IdedExpr, SourceInfo, operators};

use super::{
    keywords,
    position::{column_of, start_of},
};
use crate::base::error::FieldError;

const NOW_NOT_ALLOWED: &str = "now is allowed only in a comparison (<, <=, >, >=), added to or subtracted from a side of it, such as \
    now - attr.last_patched_at < days(30), and not within a macro: otherwise the time of the next verdict cannot be computed";

/// A comparison whose result changes with time. `slope` is the rate at which (left − right) changes with `now`: 1 for
/// `now - x < y`, −1 for `x - now < y`, never 0.
pub(super) struct TimedComparison<'a> {
    pub(super) left: &'a IdedExpr,
    pub(super) right: &'a IdedExpr,
    pub(super) slope: i64,
}

/// Returns true if the expression reads `now`.
pub(super) fn reads_now(expr: &IdedExpr) -> bool {
    match &expr.expr {
        Expr::Ident(name) => name == keywords::NOW,
        Expr::Select(select) => reads_now(&select.operand),
        Expr::Call(call) => parts(call).any(reads_now),
        Expr::List(list) => list.elements.iter().any(reads_now),
        _ => false,
    }
}

fn parts(call: &CallExpr) -> impl Iterator<Item = &IdedExpr> {
    call.target.iter().map(AsRef::as_ref).chain(&call.args)
}

/// Returns the comparisons of a condition whose result changes with time.
pub(super) fn timed_comparisons<'a>(
    condition: &'a IdedExpr,
    info: &SourceInfo,
    path: &str,
) -> Result<Vec<TimedComparison<'a>>, Vec<FieldError>> {
    let (mut comparisons, mut rejected) = (Vec::new(), Vec::new());
    collect(condition, &mut comparisons, &mut rejected);
    if rejected.is_empty() {
        return Ok(comparisons);
    }
    let fault = |expr: &&IdedExpr| {
        let position = column_of(&info.source, start_of(info, expr));
        FieldError::new(path, format!("{position}: {NOW_NOT_ALLOWED}"))
    };
    Err(rejected.iter().map(fault).collect())
}

fn collect<'a>(
    expr: &'a IdedExpr,
    comparisons: &mut Vec<TimedComparison<'a>>,
    rejected: &mut Vec<&'a IdedExpr>,
) {
    if !reads_now(expr) {
        return;
    }
    match &expr.expr {
        Expr::Call(call) if keywords::is_comparison(&call.func_name) => {
            let [left, right] = call.args.as_slice() else { return rejected.push(expr) };
            match (slope(left), slope(right)) {
                (Some(left_slope), Some(right_slope)) => {
                    if left_slope != right_slope {
                        comparisons.push(TimedComparison {
                            left,
                            right,
                            slope: left_slope - right_slope,
                        });
                    }
                }
                _ => rejected.push(expr),
            }
        }
        // A macro that reads `now` in its body or list matches the last arm and is rejected.
        Expr::Call(call) if call.target.is_none() => {
            call.args.iter().for_each(|arg| collect(arg, comparisons, rejected));
        }
        Expr::List(list) => {
            list.elements.iter().for_each(|item| collect(item, comparisons, rejected));
        }
        _ => rejected.push(expr),
    }
}

/// Returns the slope of an expression: how often `now` is added minus how often `now` is subtracted. `None` if the
/// expression is not linear in `now`.
fn slope(expr: &IdedExpr) -> Option<i64> {
    if !reads_now(expr) {
        return Some(0);
    }
    match &expr.expr {
        Expr::Ident(_) => Some(1),
        Expr::Call(call) => {
            let [left, right] = call.args.as_slice() else { return None };
            match call.func_name.as_str() {
                operators::ADD => Some(slope(left)? + slope(right)?),
                operators::SUBSTRACT => Some(slope(left)? - slope(right)?),
                _ => None,
            }
        }
        _ => None,
    }
}
