//! Who may ask on the staff listener: bearer tokens from a file.
//!
//! One token a line, `token` or `name:token`; lines that begin with `#` and empty ones are passed. The
//! file is read once, when the server starts. Digests are compared, every one of them each time, so
//! that how long an answer takes says nothing about a token. Without a token nobody is let in.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Shorter tokens can be guessed; a warning says so.
const LENGTH_ADVISED: usize = 20;

/// The tokens of the staff listener.
#[derive(Clone, Default)]
pub struct Tokens(Vec<(String, [u8; 32])>);

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error(
        "cannot read the tokens `{path}`: {source}; hint: create it with one token a line, readable by this user only"
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line has no token.
    #[error("`{path}`, line {line}: there is no token; hint: write `token` or `name:token`, without spaces")]
    Line {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl Tokens {
    /// Nobody's.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Reads a file. One that others on this machine may read gets a warning.
    ///
    /// # Errors
    /// [`TokensError`].
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokensError::Unreadable { path: path.to_owned(), source })?;
        if readable_by_others(path) {
            tracing::warn!(path = %path.display(), "others on this machine can read the tokens; hint: chmod 600");
        }
        let tokens = Self::parse(&text).map_err(|line| TokensError::Line { path: path.to_owned(), line })?;
        if tokens.is_empty() {
            tracing::warn!(path = %path.display(), "there is no token in it: /api/sql refuses everybody");
        }
        Ok(tokens)
    }

    /// Reads a text; the error is the number of the wrong line.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut tokens = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, token) = line.split_once(':').map_or(("", line), |(name, token)| (name.trim(), token.trim()));
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(index + 1);
            }
            if token.len() < LENGTH_ADVISED {
                tracing::warn!(line = index + 1, "a token of less than {LENGTH_ADVISED} characters can be guessed");
            }
            let name = if name.is_empty() { format!("line {}", index + 1) } else { name.to_owned() };
            tokens.push((name, Sha256::digest(token).into()));
        }
        Ok(Self(tokens))
    }

    /// Whether nobody can be let in.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose token this is.
    #[must_use]
    pub fn owner(&self, token: &str) -> Option<&str> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut owner = None;
        for (name, known) in &self.0 {
            let same: Choice = known.ct_eq(&digest);
            if bool::from(same) {
                owner = Some(name.as_str());
            }
        }
        owner
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(unix)]
fn readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn readable_by_others(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lets_its_owner_in_and_nobody_else() {
        let tokens =
            Tokens::parse("# staff\nanalyst: 0123456789abcdef0123\n\nabcdefabcdefabcdefabcdef\n").expect("good");
        assert_eq!(tokens.owner("0123456789abcdef0123"), Some("analyst"));
        assert_eq!(tokens.owner("abcdefabcdefabcdefabcdef"), Some("line 4"));
        for token in ["", "analyst", "analyst: 0123456789abcdef0123", "0123456789abcdef012", "# staff"] {
            assert_eq!(tokens.owner(token), None, "{token}");
        }
        assert_eq!(Tokens::none().owner(""), None);
        assert!(!format!("{tokens:?}").contains("0123456789"));
    }

    #[test]
    fn a_line_without_a_token_is_an_error_and_not_an_open_door() {
        assert_eq!(Tokens::parse("good-token\nname:\n").expect_err("empty"), 2);
        assert_eq!(Tokens::parse("two words").expect_err("a space"), 1);
    }
}
