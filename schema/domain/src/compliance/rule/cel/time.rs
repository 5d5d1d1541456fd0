//! Where a condition reads the clock: only in comparisons that are linear in it, so that the instant at which time alone changes
//! a verdict can be computed and need not be searched for.

use cel::common::ast::{CallExpr, Expr, IdedExpr, SourceInfo, operators};

use super::{
    keywords,
    position::{column_of, start_of},
};
use crate::base::error::FieldError;

const REFUSED: &str = "now may stand only in a comparison (<, <=, >, >=) to whose sides it is added, or from which it is taken \
    away, such as now - attr.last_patched_at < days(30), and not within a macro: else nobody can tell when the verdict changes";

/// A comparison that time moves: how its two sides are found in the condition, and by how much their difference grows while
/// the clock advances by one.
pub(super) struct TimedComparison<'a> {
    pub(super) left: &'a IdedExpr,
    pub(super) right: &'a IdedExpr,
    pub(super) slope: i64,
}

/// Whether the expression reads the clock.
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

/// The comparisons of a condition that time moves.
pub(super) fn timed_comparisons<'a>(
    condition: &'a IdedExpr,
    info: &SourceInfo,
    path: &str,
) -> Result<Vec<TimedComparison<'a>>, Vec<FieldError>> {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    collect(condition, &mut found, &mut refused);
    if refused.is_empty() {
        return Ok(found);
    }
    let fault = |expr: &&IdedExpr| {
        let position = column_of(&info.source, start_of(info, expr));
        FieldError::new(path, format!("{position}: {REFUSED}"))
    };
    Err(refused.iter().map(fault).collect())
}

fn collect<'a>(
    expr: &'a IdedExpr,
    found: &mut Vec<TimedComparison<'a>>,
    refused: &mut Vec<&'a IdedExpr>,
) {
    if !reads_now(expr) {
        return;
    }
    match &expr.expr {
        Expr::Call(call) if keywords::is_comparison(&call.func_name) => {
            let [left, right] = call.args.as_slice() else { return refused.push(expr) };
            match (slope(left), slope(right)) {
                (Some(one), Some(other)) => {
                    if one != other {
                        found.push(TimedComparison { left, right, slope: one - other });
                    }
                }
                _ => refused.push(expr),
            }
        }
        // A macro that reads the clock does so within or in its list.
        Expr::Call(call) if call.target.is_none() => {
            call.args.iter().for_each(|arg| collect(arg, found, refused));
        }
        Expr::List(list) => list.elements.iter().for_each(|item| collect(item, found, refused)),
        _ => refused.push(expr),
    }
}

/// How often the expression holds the clock; none where it is not linear in it.
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
