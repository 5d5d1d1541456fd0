//! Positions in a source text as line and column, both counted from 1.

use cel::common::ast::{Expr, IdedExpr, SourceInfo, operators};

use super::keywords;

/// Returns the line and column of the byte at this offset, as text.
pub(super) fn column_of(source: &str, at: usize) -> String {
    let before: String = source.bytes().take(at).map(char::from).collect();
    let line = before.matches('\n').count() + 1;
    let begins = before.rfind('\n').map_or(0, |end| end + 1);
    // Continuation bytes of UTF-8 are not columns.
    let column = source.as_bytes()[begins..at.min(source.len())]
        .iter()
        .filter(|byte| (**byte & 0xC0) != 0x80)
        .count()
        + 1;
    format!("line {line}, column {column}")
}

/// Returns the byte offset at which the expression begins.
pub(super) fn start_of(info: &SourceInfo, expr: &IdedExpr) -> usize {
    let mut expr = expr;
    loop {
        expr = match &expr.expr {
            Expr::Select(select) => &select.operand,
            Expr::Call(call) => match (&call.target, call.args.first()) {
                (Some(target), _) => target,
                (None, Some(first))
                    if keywords::is_operator(&call.func_name)
                        || call.func_name == operators::CONDITIONAL =>
                {
                    first
                }
                _ => break,
            },
            _ => break,
        };
    }
    let start = info.offset_for(expr.id).map_or(0, |(start, _)| start as usize);
    match &expr.expr {
        // The parser reports the position of the bracket; users expect the position of the function name.
        Expr::Call(call) => info
            .source
            .get(..start)
            .and_then(|before| before.rfind(&call.func_name))
            .unwrap_or(start),
        _ => start,
    }
}
