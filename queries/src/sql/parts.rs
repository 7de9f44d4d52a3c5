//! How often the parts of a `WITH` are named, those counted that name each other: a part that each next
//! one names twice is planned twice as often with every line. It is told from the tokens, because the
//! planner would be at it for hours.

use std::collections::HashMap;

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;

/// What stands in one pair of parentheses.
#[derive(Default)]
struct Inside {
    /// The part of a `WITH` that it defines.
    defines: Option<String>,
    /// The word before it.
    before: Option<String>,
    /// How often parts are named in it, all told.
    named: usize,
}

/// How often parts are named in all.
pub(super) fn named(tokens: &[&Token]) -> usize {
    let mut parts: HashMap<String, usize> = HashMap::new();
    let (mut here, mut outside) = (Inside::default(), Vec::new());
    let (mut word_before, mut defined) = (None, None);
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::Word(word) if word.keyword == Keyword::AS => defined = word_before.take(),
            Token::Word(word) if matches!(word.keyword, Keyword::NOT | Keyword::MATERIALIZED) => {}
            Token::Word(word) => {
                let name = word.value.to_ascii_lowercase();
                // Before a point it only says whose column it is.
                if tokens.get(index + 1) != Some(&&Token::Period) {
                    here.named = here.named.saturating_add(parts.get(&name).copied().unwrap_or(0));
                }
                (word_before, defined) = (Some(name), None);
            }
            Token::LParen => {
                let inside = Inside { defines: defined.take(), before: word_before.take(), named: 0 };
                outside.push(std::mem::replace(&mut here, inside));
            }
            Token::RParen => {
                let closed = std::mem::replace(&mut here, outside.pop().unwrap_or_default());
                match closed.defines {
                    Some(name) => {
                        let part = parts.entry(name).or_default();
                        *part = (*part).max(closed.named.saturating_add(1));
                    }
                    None => here.named = here.named.saturating_add(closed.named),
                }
                (word_before, defined) = (closed.before, None);
            }
            _ => (word_before, defined) = (None, None),
        }
    }
    outside.iter().fold(here.named, |named, inside| named.saturating_add(inside.named))
}
