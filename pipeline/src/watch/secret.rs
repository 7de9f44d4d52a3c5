//! A secret: from the environment or a file, never from the configuration's text, and never shown.

use std::fmt;
use std::path::{Path, PathBuf};

/// No secret is as long.
const BYTES_MAX: usize = 8 << 10;

/// A word that must not be shown. Its `Debug` hides it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why there is no secret. It never has the secret in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("cannot read the secret in `{path}`: {source}; hint: the user that runs this needs to read it")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody named one, and it is needed.
    #[error("{what}; hint: {hint}")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// What would be right.
        hint: &'static str,
    },
    /// It cannot be what it is for.
    #[error("{what}; hint: {hint}")]
    Unfit {
        /// What is wrong.
        what: &'static str,
        /// What would be right.
        hint: &'static str,
    },
    /// There is nothing in it, or several lines, or too much.
    #[error("{from} holds no secret: one line of text is expected")]
    Malformed {
        /// The file or the variable.
        from: String,
    },
}

impl Secret {
    /// The secret itself, for those who send it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Takes the secret of a variable where it is set, or else of the file where one is named.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn find(variable: &str, file: Option<&Path>) -> Result<Option<Self>, SecretError> {
        Self::choose(std::env::var(variable).ok(), variable, file)
    }

    /// A word of the configuration, which is handled as if it were a secret.
    ///
    /// # Errors
    /// [`SecretError::Malformed`].
    pub fn plain(word: &str) -> Result<Self, SecretError> {
        Self::of(word, "the configuration".to_owned())
    }

    fn choose(value: Option<String>, variable: &str, file: Option<&Path>) -> Result<Option<Self>, SecretError> {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            return Self::of(&value, format!("the variable {variable}")).map(Some);
        }
        let Some(path) = file else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
        Self::of(&text, format!("`{}`", path.display())).map(Some)
    }

    fn of(text: &str, from: String) -> Result<Self, SecretError> {
        let word = text.trim();
        let plain = !word.is_empty() && word.len() <= BYTES_MAX && !word.chars().any(char::is_control);
        if plain { Ok(Self(word.to_owned())) } else { Err(SecretError::Malformed { from }) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_stands_over_the_file_and_nothing_shows_either() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "from-the-file\n").expect("written");
        let find = |value: Option<&str>| Secret::choose(value.map(str::to_owned), "TJERN_X", Some(&path));
        assert_eq!(find(None).expect("read").expect("there").reveal(), "from-the-file");
        let secret = find(Some("from-the-environment")).expect("read").expect("there");
        assert_eq!((secret.reveal(), format!("{secret:?}").as_str()), ("from-the-environment", "***"));
        assert!(Secret::choose(None, "TJERN_X", None).expect("none").is_none());
        std::fs::write(&path, "a canary\nin two lines").expect("written");
        let error = find(None).expect_err("two lines");
        assert!(!error.to_string().contains("canary") && error.to_string().contains("one line"), "{error}");
    }
}
