//! Wording of doc comments, counted in the sources. `cargo run -p cli --example words [CHECKOUT] [--list]` prints the
//! counts, for this checkout or an older one.
//!
//! A doc comment names its noun first, or the verb of a function, and says more than the signature does. Two counts
//! show where that is missing: comments that open with a pronoun or a question word ("Its id.", "What it may do."), and
//! comments of four words or fewer. Neither is wrong in itself, so a crate may have some of both.
//!
//! A **doc comment** is a block of `///` lines. It belongs to a public item if the next line of code begins with `pub`.
//! Lines are read, not parsed, so items inside macros count too. Given up: doc comments of enum variants and of trait
//! methods, which have no `pub`, are printed but not tested; the descriptions among them that reach the schema are
//! tested by `graphql --test it sdl`.

use std::path::Path;

use super::structure::source::read;

/// Number of words up to which a comment is short.
const SHORT_WORDS: usize = 4;

/// Pronouns and question words that say nothing about the item when a comment opens with them.
const OPENERS: &str = "it its they their them he him she her his this that these those what who whom whose where when how why \
    which whether whoever whatever something somebody someone everything everybody everyone nothing nobody none anything \
    anybody all each";

/// A block of `///` lines.
#[derive(Debug, PartialEq, Eq)]
pub struct DocComment {
    /// The number of its first line.
    pub line: usize,
    /// The text on one line.
    pub text: String,
    /// True if the next line of code begins with `pub`.
    pub is_public: bool,
}

impl DocComment {
    /// True if the first word is a pronoun or a question word.
    pub fn opens_with_pronoun(&self) -> bool {
        let first = self.text.split_whitespace().next().unwrap_or_default();
        let letters: String = first.chars().filter(|c| c.is_alphanumeric()).collect();
        OPENERS.split(' ').any(|word| word == letters.to_lowercase())
    }

    /// True if the comment has four words or fewer.
    pub fn is_short(&self) -> bool {
        self.text.split_whitespace().count() <= SHORT_WORDS
    }
}

/// Returns the doc comments of a source file, without empty ones.
pub fn doc_comments(source: &str) -> Vec<DocComment> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let length = lines[at..].iter().take_while(|line| is_doc(line)).count();
        if length == 0 {
            at += 1;
            continue;
        }
        let text: Vec<&str> = lines[at..at + length].iter().map(|line| line[3..].trim()).collect();
        let text = text.join(" ").trim().to_owned();
        let is_public = first_code(&lines[at + length..]).starts_with("pub");
        if !text.is_empty() {
            found.push(DocComment { line: at + 1, text, is_public });
        }
        at += length;
    }
    found
}

fn is_doc(line: &str) -> bool {
    line.starts_with("///") && !line.starts_with("////")
}

/// Returns the first line after the attributes.
fn first_code<'a>(lines: &[&'a str]) -> &'a str {
    let mut open = 0_usize;
    for line in lines {
        if open == 0 && !line.starts_with("#[") {
            return line;
        }
        open = (open + line.matches('[').count()).saturating_sub(line.matches(']').count());
    }
    ""
}

/// Counts of doc comments.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Doc comments.
    pub comments: usize,
    /// Those that open with a pronoun or a question word.
    pub pronouns: usize,
    /// Those of four words or fewer.
    pub short: usize,
}

impl Counts {
    /// Adds a comment.
    pub fn add(&mut self, comment: &DocComment) {
        self.comments += 1;
        self.pronouns += usize::from(comment.opens_with_pronoun());
        self.short += usize::from(comment.is_short());
    }
}

/// Returns the doc comments below a crate's source folder, each with its file.
///
/// # Errors
/// Fails if a file cannot be read.
pub fn of_folder(folder: &Path) -> std::io::Result<Vec<(String, DocComment)>> {
    let texts = read(folder)?;
    let of_file = |(file, text): (&String, &String)| {
        doc_comments(text).into_iter().map(|comment| (file.clone(), comment)).collect::<Vec<_>>()
    };
    Ok(texts.iter().flat_map(of_file).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structure::CRATES;

    /// Share of a crate's public doc comments, in percent, that each count stays below.
    const MAX_PERCENT: usize = 10;

    fn is_good(counts: Counts) -> bool {
        counts.pronouns.max(counts.short) * 100 < counts.comments.max(1) * MAX_PERCENT
    }

    #[test]
    fn doc_comments_of_public_items_name_the_noun_first() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for folder in CRATES {
            let mut counts = Counts::default();
            let mut offenders = Vec::new();
            for (file, comment) in of_folder(&root.join(folder)).unwrap() {
                if !comment.is_public {
                    continue;
                }
                counts.add(&comment);
                if comment.opens_with_pronoun() || comment.is_short() {
                    offenders.push(format!("{folder}/{file}:{}: {}", comment.line, comment.text));
                }
            }
            assert!(counts.comments > 0, "{folder} has no public doc comments");
            let offenders = offenders.join("\n");
            assert!(
                is_good(counts),
                "{folder}: {counts:?}, at most {MAX_PERCENT} % each:\n{offenders}"
            );
        }
    }

    #[test]
    fn a_comment_that_says_nothing_is_counted() {
        let source = "
            /// Its id.
            #[serde(
                rename = \"id\",
            )]
            pub id: Uuid,
            /// The asset's id, beginning `ast_`.
            pub(crate) id: Uuid,
            /// What it may do.
            Variant,
            //// Not a doc comment.
            ///
            pub fn silent() {}
        ";
        let comments = doc_comments(source);
        let seen: Vec<_> = comments
            .iter()
            .map(|one| (one.is_public, one.opens_with_pronoun(), one.is_short()))
            .collect();
        assert_eq!(seen, [(true, true, true), (true, false, false), (false, true, true)]);
        let mut counts = Counts::default();
        counts.add(&comments[0]);
        assert!(!is_good(counts), "one of one is too many");
    }
}
