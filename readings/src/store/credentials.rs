//! A file of credentials: lines of `NAME=value`, as shells and systemd write them, with the names of `object_store`.
//!
//! Invariant: what is told of a file is its path, the number of a line and names of variables, never a value.

mod pipe;

use std::io::{Error, ErrorKind};
use std::os::unix::fs::FileTypeExt;
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
    /// It is a pipe, and nobody writes to it.
    #[error(
        "the file of credentials does not answer: `{path}` is a pipe to which nobody wrote within {} s; hint: put a file in its place",
        pipe::PATIENCE.as_secs()
    )]
    Silent {
        /// The pipe.
        path: PathBuf,
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

/// The text of a file. A pipe is waited for a few seconds; a disk that does not answer holds the thread.
///
/// # Errors
/// [`CredentialsError::Unreadable`], [`CredentialsError::Silent`], [`CredentialsError::TooLarge`].
pub fn text_of(path: &Path) -> Result<String, CredentialsError> {
    let unreadable = |source| CredentialsError::Unreadable { path: path.to_owned(), source };
    let too_large = || CredentialsError::TooLarge { path: path.to_owned() };
    let file = std::fs::metadata(path).map_err(unreadable)?;
    if !file.file_type().is_fifo() {
        return if file.len() > FILE_BYTES_MAX {
            Err(too_large())
        } else {
            std::fs::read_to_string(path).map_err(unreadable)
        };
    }
    let bytes = pipe::bytes_of(path).map_err(unreadable)?;
    let bytes = bytes.ok_or_else(|| CredentialsError::Silent { path: path.to_owned() })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| unreadable(Error::new(ErrorKind::InvalidData, error.utf8_error())))
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Whoever read it waited for as long as his process lived.
    #[test]
    fn a_pipe_is_read_and_holds_nobody_who_finds_it_silent() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("credentials");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        let error = text_of(&pipe).expect_err("nobody writes to it").to_string();
        assert!(error.contains("does not answer") && error.contains("hint: put a file in its place"), "{error}");
        // Writing waits for who reads.
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::write(pipe, "AWS_REGION=x\n")
        });
        assert_eq!(text_of(&pipe).expect("read"), "AWS_REGION=x\n");
        writer.join().expect("no panic").expect("written");
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::write(pipe, vec![b'x'; FILE_BYTES_MAX as usize + 7])
        });
        assert!(matches!(text_of(&pipe), Err(CredentialsError::TooLarge { .. })));
        // What nobody read of it is the writer's to know.
        drop(writer.join().expect("no panic"));
    }
}
