//! A file of credentials: lines of `NAME=value`, as shells and systemd write them, with the names of `object_store`.
//!
//! Invariant: what is told of a file is its path, the number of a line and names of variables, never a value.

use std::path::{Path, PathBuf};

use super::access::PREFIXES;
use super::{Access, LakeUrl, knows};

/// A larger file holds something else.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a file of credentials is of no use. Its values are not in here.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("cannot read the credentials in `{path}`: {source}; hint: the user that runs this needs to read it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("`{path}` is no file of credentials: it has over {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line is no pair of a known kind.
    #[error(
        "line {line} of `{path}` is none of credentials; hint: a line is NAME=value, with a name that begins with AWS_, AZURE_ or GOOGLE_"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A name that the lake's store does not know.
    #[error(
        "line {line} of `{path}` names what this lake does not know: {name}; hint: the names are those of object_store, like AWS_ACCESS_KEY_ID"
    )]
    Name {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The name, in small letters.
        name: String,
    },
}

impl Access {
    /// What a file says, and nothing of the environment: what is kept apart is not reached by another's credentials.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn from_file(path: &Path, lake: &LakeUrl) -> Result<Self, CredentialsError> {
        Ok(Self::default().with_variables(variables(&text_of(path)?, path, lake)?))
    }
}

/// The variables in a file's text, names in small letters.
///
/// # Errors
/// [`CredentialsError::Line`], [`CredentialsError::Name`].
pub fn variables(text: &str, path: &Path, lake: &LakeUrl) -> Result<Vec<(String, String)>, CredentialsError> {
    let mut variables = Vec::new();
    for (line, pair) in lines(text) {
        let refused = || CredentialsError::Line { path: path.to_owned(), line };
        let (name, value) = pair.ok_or_else(refused)?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || !PREFIXES.iter().any(|known| name.starts_with(known)) {
            return Err(refused());
        }
        if !knows(lake, &name) {
            return Err(CredentialsError::Name { path: path.to_owned(), line, name });
        }
        variables.push((name, value));
    }
    Ok(variables)
}

/// The text of a file.
///
/// # Errors
/// [`CredentialsError::Unreadable`], [`CredentialsError::TooLarge`].
pub fn text_of(path: &Path) -> Result<String, CredentialsError> {
    let unreadable = |source| CredentialsError::Unreadable { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(CredentialsError::TooLarge { path: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// The lines that say something, with their numbers: a name in small letters and its value, or what is neither.
fn lines(text: &str) -> impl Iterator<Item = (usize, Option<(String, String)>)> + '_ {
    let told = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    told.map(|(index, line)| {
        let pair = line.strip_prefix("export ").unwrap_or(line).split_once('=');
        let pair = pair.map(|(name, value)| (name.trim().to_ascii_lowercase(), unquoted(value.trim()).to_owned()));
        (index + 1, pair)
    })
}

fn unquoted(value: &str) -> &str {
    let within = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(value)
}
