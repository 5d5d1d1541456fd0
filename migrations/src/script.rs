//! Finds line numbers in an SQL file for error messages. The file is sent to Postgres unchanged.
//!
//! Most errors of DDL ("already exists", a lock timeout) have no position. For these, the failed statement is found by
//! counting the completed statements. Not supported: `BEGIN ATOMIC` bodies, which need Postgres 14, while this crate
//! supports Postgres 13.

/// Returns the line (from 1) of a position in characters (from 1, as Postgres reports it).
pub(crate) fn line_of(sql: &str, character: u32) -> usize {
    let before = usize::try_from(character).unwrap_or(usize::MAX).saturating_sub(1);
    sql.chars().take(before).filter(|&c| c == '\n').count() + 1
}

/// Returns the line (from 1) of the statement that follows the first `done` statements; `None` if no statement follows.
pub(crate) fn line_after(sql: &str, done: usize) -> Option<usize> {
    let start = *starts(sql).get(done)?;
    Some(sql[..start].matches('\n').count() + 1)
}

/// Returns the byte offset of each statement. Comments and blanks before a statement are skipped.
fn starts(sql: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut is_between = true;
    let mut depth = 0_usize;
    let mut at = 0;
    while at < sql.len() {
        let rest = &sql[at..];
        match rest.as_bytes()[0] {
            b';' if depth == 0 => is_between = true,
            _ if is_blank(rest) => {}
            first => {
                if is_between {
                    starts.push(at);
                    is_between = false;
                }
                match first {
                    b'(' => depth += 1,
                    b')' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        at += token_length(rest);
    }
    starts
}

fn is_blank(rest: &str) -> bool {
    rest.starts_with(char::is_whitespace) || rest.starts_with("--") || rest.starts_with("/*")
}

/// Returns the length in bytes of the token at the start of `rest`, which must not be empty.
fn token_length(rest: &str) -> usize {
    if rest.starts_with("--") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return comment_length(rest);
    }
    match rest.chars().next() {
        Some(quote @ ('\'' | '"')) => quoted_length(rest, quote, None),
        Some('$') => dollar_quoted_length(rest),
        Some(c) if c.is_alphabetic() || c == '_' => word_length(rest),
        Some(c) => c.len_utf8(),
        None => 0,
    }
}

/// Returns the length of a name or keyword. For `E'…'` the length includes the string, in which backslashes escape.
fn word_length(rest: &str) -> usize {
    let is_inside = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let end = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
    if rest[..end].eq_ignore_ascii_case("e") && rest[end..].starts_with('\'') {
        return end + quoted_length(&rest[end..], '\'', Some('\\'));
    }
    end
}

/// Returns the length of a quoted token. A string with a doubled quote counts as two adjacent strings, which does not
/// change the positions of statements.
fn quoted_length(rest: &str, quote: char, escape: Option<char>) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if Some(c) == escape {
            chars.next();
        } else if c == quote {
            return at + quote.len_utf8();
        }
    }
    rest.len()
}

/// Returns the length of a dollar-quoted string `$tag$ … $tag$`, or 1 for a `$` that opens no such string (`$1`).
fn dollar_quoted_length(rest: &str) -> usize {
    let Some(end) = rest[1..].find('$').map(|at| at + 2) else { return 1 };
    let tag = &rest[1..end - 1];
    let is_tag = !tag.starts_with(|c: char| c.is_ascii_digit())
        && tag.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_tag {
        return 1;
    }
    rest[end..].find(&rest[..end]).map_or(rest.len(), |at| end + at + end)
}

/// Returns the length of a block comment; block comments nest.
fn comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, expected: &[usize]) {
        let lines: Vec<_> = (0..).map_while(|done| line_after(sql, done)).collect();
        assert_eq!(lines, expected, "{sql}");
    }

    #[test]
    fn statements_are_counted_as_postgres_does() {
        check("", &[]);
        check("-- only; a comment\n/* and; /* another; */ one; */\n", &[]);
        check("SELECT 1", &[1]);
        check("SELECT 1;;\n;\nSELECT 2;\n", &[1, 3]);
        check("-- a;\n\nCREATE TABLE a (\n  b int -- c;\n);\n\nDROP TABLE a;", &[3, 7]);
        check("SELECT 'a;''b;\n', \"c;\n\", E'\\';\n';\nSELECT 2", &[1, 5]);
        check("DO $$ BEGIN\n  NULL; END $$;\nDO $x$ $$ ; $$\n $x$;\nSELECT 1", &[1, 3, 5]);
        check("SELECT $1;\nSELECT a$b$c;\nSELECT 3", &[1, 2, 3]);
        check(
            "CREATE RULE r AS ON INSERT TO a DO (\nDELETE FROM b;\nDELETE FROM c);\nSELECT 'é'",
            &[1, 4],
        );
        check("SELECT 'never ends; \n", &[1]);
        check("SELECT $a$never; ends\n", &[1]);
    }

    #[test]
    fn positions_count_characters_and_not_bytes() {
        let sql = "-- éééé\nSELECT x";
        assert_eq!(line_of(sql, 1), 1);
        assert_eq!(line_of(sql, 9), 2);
        assert_eq!(line_of(sql, u32::MAX), 2);
    }
}
