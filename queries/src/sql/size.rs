//! How large an SQL text may be: so long, so many tokens, so deep.
//!
//! The parser and the planner walk much of a statement by recursion, and a stack that overflows ends
//! the process. So the text is measured before anybody builds a tree of it. What nests by parentheses
//! is the parser's own to refuse; what is left are chains: `1+1+…`, `a OR b OR …`, `… UNION ALL …`,
//! `FROM a, b, …`, each of whose links, the joints, makes the tree one level deeper.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::{SqlError, parts};
use crate::limits;

/// Refuses what is too large to be planned.
pub(super) fn check(sql: &str) -> Result<(), SqlError> {
    if sql.len() > limits::SQL_BYTES_MAX {
        return Err(SqlError::Text { max: limits::SQL_BYTES_MAX });
    }
    // What has no tokens is no SQL: the parser says so, and where.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let tokens: Vec<&Token> = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let mut sources = Sources::default();
    let joints = tokens.iter().filter(|token| sources.separates(token) || is_joint(token)).count();
    if tokens.len() > limits::SQL_TOKENS_MAX {
        return Err(SqlError::Tokens { max: limits::SQL_TOKENS_MAX });
    }
    if joints > limits::SQL_JOINTS_MAX {
        return Err(SqlError::Joints { max: limits::SQL_JOINTS_MAX });
    }
    if parts::named(&tokens) > limits::SQL_PARTS_MAX {
        return Err(SqlError::Parts { max: limits::SQL_PARTS_MAX });
    }
    Ok(())
}

/// Everything but what stands for itself, or only lists, or is counted by the parser.
fn is_joint(token: &Token) -> bool {
    match token {
        Token::Word(word) => is_joining(word.keyword),
        Token::EOF
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::Comma
        | Token::Period
        | Token::SemiColon
        | Token::LParen
        | Token::RParen => false,
        _ => true,
    }
}

fn is_joining(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::AND
            | Keyword::AT
            | Keyword::BETWEEN
            | Keyword::CASE
            | Keyword::COLLATE
            | Keyword::DIV
            | Keyword::EXCEPT
            | Keyword::EXISTS
            | Keyword::FROM
            | Keyword::ILIKE
            | Keyword::IN
            | Keyword::INTERSECT
            | Keyword::IS
            | Keyword::JOIN
            | Keyword::LATERAL
            | Keyword::LIKE
            | Keyword::MEMBER
            | Keyword::MINUS
            | Keyword::NOT
            | Keyword::NOTNULL
            | Keyword::OPERATOR
            | Keyword::OVERLAPS
            | Keyword::OR
            | Keyword::REGEXP
            | Keyword::RLIKE
            | Keyword::SELECT
            | Keyword::SIMILAR
            | Keyword::TABLE
            | Keyword::UNION
            | Keyword::VALUES
            | Keyword::XOR
    )
}

/// Knows, for each open parenthesis, whether the text stands in a list of sources (`FROM a, b`): a
/// comma there is a join.
#[derive(Default)]
struct Sources {
    here: bool,
    outside: Vec<bool>,
}

impl Sources {
    fn separates(&mut self, token: &Token) -> bool {
        match token {
            Token::LParen => self.outside.push(std::mem::take(&mut self.here)),
            Token::RParen => self.here = self.outside.pop().unwrap_or_default(),
            Token::Word(word) => match word.keyword {
                Keyword::FROM => self.here = true,
                Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::ORDER | Keyword::HAVING => {
                    self.here = false;
                }
                _ => {}
            },
            _ => {}
        }
        self.here && *token == Token::Comma
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    use crate::limits::Limits;
    use crate::sql::run_limited;
    use crate::workshop::Workshop;

    /// Chains of every kind that one may write: their beginning, a link (`#` its number, `@` the one's
    /// before) and their end.
    const CHAINS: [(&str, &str, &str); 16] = [
        ("SELECT 1", "+1", ""),
        ("SELECT 1", "||1", ""),
        ("SELECT 1 WHERE 1=1", " OR 1=2", ""),
        ("SELECT 1 WHERE true", " AND true", ""),
        ("SELECT 1", " UNION ALL SELECT 1", ""),
        ("SELECT 1", " UNION VALUES (1)", ""),
        ("SELECT 1", " EXCEPT SELECT 1", ""),
        ("SELECT 1", "::int", ""),
        ("SELECT 1", " IS NULL", ""),
        ("SELECT 1", "[1]", ""),
        ("SELECT named_struct('a', 1)", ".a", ""),
        ("SELECT a", ".a", ""),
        ("SELECT 1", " AT TIME ZONE 'UTC'", ""),
        ("SELECT 1 FROM (VALUES (1)) AS t", ", (VALUES (1)) AS t#", ""),
        ("SELECT 1 FROM (VALUES (1)) AS t", " CROSS JOIN (VALUES (1)) AS t#", ""),
        ("WITH t0 AS (SELECT 1)", ", t# AS (SELECT * FROM t@)", " SELECT * FROM t0"),
    ];

    fn chain((start, link, end): (&str, &str, &str), length: usize) -> String {
        let links = (1..=length).map(|n| link.replace('#', &n.to_string()).replace('@', &(n - 1).to_string()));
        format!("{start}{}{end}", links.collect::<String>())
    }

    /// A text of some kilobytes must not end the process: neither one just within the bounds, planned
    /// where the server plans, nor any longer one.
    #[tokio::test]
    async fn no_chain_overflows_the_stack() {
        let workshop = Workshop::start().expect("threads");
        for kind in CHAINS {
            let lengths: Vec<usize> = (1..=limits::SQL_TOKENS_MAX).collect();
            let longest = lengths.partition_point(|length| check(&chain(kind, *length)).is_ok());
            let ask = |length| {
                let sql = chain(kind, length);
                async move { run_limited(&SessionContext::new(), &sql, Limits::SQL).await }
            };
            // Some are no sense, and refused as such: it matters that somebody is there to say so.
            match workshop.answer(Limits::SQL, (), ask(longest)).await {
                Ok(_) | Err(SqlError::Plan(_) | SqlError::Syntax(_)) => {}
                Err(error) => panic!("{longest} of {kind:?}: {error}"),
            }
            for length in [longest + 1, 30_000] {
                let error = workshop.answer(Limits::SQL, (), ask(length)).await.expect_err("it is too long");
                let too_large =
                    matches!(error, SqlError::Text { .. } | SqlError::Tokens { .. } | SqlError::Joints { .. });
                assert!(too_large, "{length} of {kind:?}: {error}");
            }
        }
    }

    /// Twenty short lines name a million tables.
    #[tokio::test]
    async fn a_plan_that_doubles_with_each_line_is_refused() {
        let workshop = Workshop::start().expect("threads");
        let named_twice = [
            ", t# AS (SELECT 1 AS b FROM t@ x, t@ y)",
            ", T#(b) AS (SELECT 1 FROM t@ x, t@ y)",
            ", t# AS (SELECT (SELECT b FROM t@) + (SELECT b FROM t@) AS b)",
        ];
        for link in named_twice {
            let double = |before: &str, lines| {
                let start = format!("{before} WITH t0 AS (SELECT 1 AS b)");
                let sql = chain((&start, link, &format!(" SELECT b FROM t{lines}")), lines);
                async move { run_limited(&SessionContext::new(), &sql, Limits::SQL).await }
            };
            assert_eq!(workshop.answer(Limits::SQL, (), double("", 3)).await.expect("it is small").rows(), 1);
            for before in ["", "EXPLAIN", "EXPLAIN ANALYZE"] {
                let asked = workshop.answer(Limits::SQL, (), double(before, 20)).await;
                let error = asked.expect_err("it is large");
                assert!(matches!(error, SqlError::Parts { .. }), "{before} {link}: {error}");
            }
        }
    }

    #[test]
    fn long_lists_are_no_chains() {
        let list = (0..1500).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        check(&format!("SELECT * FROM readings WHERE seq IN ({list})")).expect("it is long, and flat");
        check(&format!("SELECT {list}")).expect("it is wide, and flat");
        let comment = format!("SELECT 1 -- {}", "+1".repeat(3000));
        check(&comment).expect("a comment is no SQL");
        let links = ", t# AS (SELECT t@.a, t@.b, t@.c, t@.d, t@.e FROM t@)";
        check(&chain(("WITH t0 AS (SELECT 1)", links, " SELECT * FROM t20"), 20)).expect("each names one other");
        let columns = (0..500).map(|n| format!("r.c{n}")).collect::<Vec<_>>().join(", ");
        check(&format!("SELECT {columns} FROM readings r")).expect("columns of a table");
        assert!(matches!(check(&format!("SELECT {list}, {list}")), Err(SqlError::Tokens { .. })));
        assert!(matches!(check(&"x".repeat(limits::SQL_BYTES_MAX + 1)), Err(SqlError::Text { .. })));
    }
}
