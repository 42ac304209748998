//! The grammar: `||` binds less than `&&`, that less than `!`; values stand in single or double quotes, without escapes.

use std::collections::BTreeSet;

use thiserror::Error;

use super::Selector;

/// How deep parentheses may be nested.
pub const MAX_DEPTH: usize = 64;

/// Longest label key in bytes, as in Calico's grammar.
const MAX_KEY: usize = 512;

/// Text that is not a selector, and where it stops being one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("selector, character {at}: {problem}")]
pub struct SelectorError {
    /// The character at which it cannot go on, counted from 1.
    pub at: usize,
    /// What is wrong there.
    pub problem: SelectorProblem,
}

/// What is wrong at one place of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorProblem {
    /// No expression where one must stand.
    #[error("expected a label, has(), all(), global() or a parenthesis")]
    NoExpression,
    /// A label that nothing is said of.
    #[error(
        "expected ==, !=, in, not in, contains, starts with or ends with after the label {label:?}; to ask whether it exists, has({label})"
    )]
    NoOperator {
        /// The label.
        label: String,
    },
    /// A value without quotes, or none.
    #[error("expected a value in quotes")]
    NoValue,
    /// A quote that is never closed.
    #[error("this quote is never closed")]
    OpenQuote,
    /// `in` without a set.
    #[error("expected a set such as {{\"a\", \"b\"}}")]
    NoSet,
    /// A set that is never closed.
    #[error("expected , or }} in this set")]
    OpenSet,
    /// `has(`, `all(`, `global(` or a parenthesis that is never closed.
    #[error("expected )")]
    OpenParenthesis,
    /// `has()` of nothing.
    #[error("expected a label in has()")]
    NoLabel,
    /// A label longer than 512 bytes.
    #[error("a label is at most {MAX_KEY} characters long")]
    LongLabel,
    /// Something behind a whole expression.
    #[error("expected &&, || or the end")]
    Trailing,
    /// More parentheses in each other than anybody writes.
    #[error("more than {MAX_DEPTH} parentheses in each other")]
    TooDeep,
}

/// Reads a selector; the empty text is `all()`.
pub(super) fn parse(text: &str) -> Result<Selector, SelectorError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(Selector::All);
    }
    let selector = parser.alternatives()?;
    if parser.rest().is_empty() {
        Ok(selector)
    } else {
        Err(parser.error(SelectorProblem::Trailing))
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
    depth: usize,
}

/// Each method leaves no space before what comes next.
impl<'a> Parser<'a> {
    fn alternatives(&mut self) -> Result<Selector, SelectorError> {
        let mut parts = vec![self.conjunction()?];
        while self.take("||") {
            parts.push(self.conjunction()?);
        }
        Ok(alone_or(parts, Selector::Or))
    }

    fn conjunction(&mut self) -> Result<Selector, SelectorError> {
        let mut parts = vec![self.operation()?];
        while self.take("&&") {
            parts.push(self.operation()?);
        }
        Ok(alone_or(parts, Selector::And))
    }

    fn operation(&mut self) -> Result<Selector, SelectorError> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let selector = if self.take("(") {
            self.parenthesis()?
        } else {
            self.term()?
        };
        Ok(if negated {
            Selector::Not(Box::new(selector))
        } else {
            selector
        })
    }

    fn parenthesis(&mut self) -> Result<Selector, SelectorError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(SelectorProblem::TooDeep));
        }
        let inner = self.alternatives()?;
        self.close()?;
        self.depth -= 1;
        Ok(inner)
    }

    fn term(&mut self) -> Result<Selector, SelectorError> {
        for (function, selector) in [("all(", Selector::All), ("global(", Selector::Global)] {
            if self.take(function) {
                self.close()?;
                return Ok(selector);
            }
        }
        if self.take("has(") {
            let Some(label) = self.word()? else {
                return Err(self.error(SelectorProblem::NoLabel));
            };
            self.close()?;
            return Ok(Selector::Has(label.to_owned()));
        }
        match self.word()? {
            Some(label) => self.comparison(label.to_owned()),
            None => Err(self.error(SelectorProblem::NoExpression)),
        }
    }

    fn comparison(&mut self, label: String) -> Result<Selector, SelectorError> {
        if self.take("==") {
            return Ok(Selector::Equals(label, self.value()?));
        }
        if self.take("!=") {
            return Ok(not(Selector::Equals(label, self.value()?)));
        }
        let before = self.at;
        match self.word()? {
            Some("contains") => return Ok(Selector::Contains(label, self.value()?)),
            Some("startswith") => return Ok(Selector::StartsWith(label, self.value()?)),
            Some("endswith") => return Ok(Selector::EndsWith(label, self.value()?)),
            Some("in") => return Ok(Selector::In(label, self.set()?)),
            Some("notin") => return Ok(not(Selector::In(label, self.set()?))),
            Some("starts") if self.word()? == Some("with") => {
                return Ok(Selector::StartsWith(label, self.value()?));
            }
            Some("ends") if self.word()? == Some("with") => {
                return Ok(Selector::EndsWith(label, self.value()?));
            }
            Some("not") if self.word()? == Some("in") => {
                return Ok(not(Selector::In(label, self.set()?)));
            }
            _ => {}
        }
        self.at = before;
        Err(self.error(SelectorProblem::NoOperator {
            label: label.chars().take(64).collect(),
        }))
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        if !self.take("{") {
            return Err(self.error(SelectorProblem::NoSet));
        }
        let mut values = BTreeSet::new();
        while self.rest().starts_with(['"', '\'']) {
            values.insert(self.value()?);
            if !self.take(",") {
                break;
            }
        }
        if self.take("}") {
            Ok(values)
        } else {
            Err(self.error(SelectorProblem::OpenSet))
        }
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        let quote = match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => return Err(self.error(SelectorProblem::NoValue)),
        };
        let inner = &self.rest()[1..];
        let Some(length) = inner.find(quote) else {
            return Err(self.error(SelectorProblem::OpenQuote));
        };
        let value = inner[..length].to_owned();
        self.at += length + 2;
        self.skip_space();
        Ok(value)
    }

    /// The next run of characters that labels and operators are made of.
    fn word(&mut self) -> Result<Option<&'a str>, SelectorError> {
        let rest = self.rest();
        let length = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(byte))
            .count();
        if length > MAX_KEY {
            return Err(self.error(SelectorProblem::LongLabel));
        }
        self.at += length;
        self.skip_space();
        Ok((length > 0).then(|| &rest[..length]))
    }

    fn close(&mut self) -> Result<(), SelectorError> {
        if self.take(")") {
            Ok(())
        } else {
            Err(self.error(SelectorProblem::OpenParenthesis))
        }
    }

    fn take(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
            self.skip_space();
        }
        there
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, problem: SelectorProblem) -> SelectorError {
        SelectorError {
            at: self.text[..self.at].chars().count() + 1,
            problem,
        }
    }
}

fn not(selector: Selector) -> Selector {
    Selector::Not(Box::new(selector))
}

fn alone_or(mut parts: Vec<Selector>, join: fn(Vec<Selector>) -> Selector) -> Selector {
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        join(parts)
    }
}
