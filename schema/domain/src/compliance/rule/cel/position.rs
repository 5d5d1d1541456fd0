//! Where in a source something stands, as people count.

use cel::common::ast::{Expr, IdedExpr, SourceInfo, operators};

use super::keywords;

/// The position of this byte.
pub(super) fn column_of(source: &str, at: usize) -> String {
    let before: String = source.bytes().take(at).map(char::from).collect();
    let line = before.matches('\n').count() + 1;
    let begins = before.rfind('\n').map_or(0, |end| end + 1);
    // Continuation bytes of UTF-8 are no columns.
    let column = source.as_bytes()[begins..at.min(source.len())]
        .iter()
        .filter(|byte| (**byte & 0xC0) != 0x80)
        .count()
        + 1;
    format!("line {line}, column {column}")
}

/// The byte where the expression begins.
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
        // A call stands where its bracket does; people look for its name.
        Expr::Call(call) => info
            .source
            .get(..start)
            .and_then(|before| before.rfind(&call.func_name))
            .unwrap_or(start),
        _ => start,
    }
}
