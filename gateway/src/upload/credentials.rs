//! The lake's credentials: the environment, and a file of `NAME=value` lines that stands over it.
//!
//! The file is the one that the configuration names, or `lake` in systemd's credential store where it is there
//! (`LoadCredential=lake:…` in the unit). It is read again when the store refuses the credentials, and at
//! every failure by which it has changed, so that a rotation needs no restart.
//!
//! Invariant: what is told of a file is its path, the number of a line and names of variables, never a value.

use std::fmt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tjern_readings::store::credentials::{CredentialsError, text_of, variables};
use tjern_readings::store::{Access, LakeUrl};

/// The name of the credential in systemd's store.
const SYSTEMD_NAME: &str = "lake";

/// What a file of them says, and how it lies there.
#[derive(Clone)]
pub(super) struct Said {
    pub(super) text: String,
    mode: u32,
    is_pipe: bool,
}

impl Said {
    /// Reads it: work that blocks.
    pub(super) fn by(path: &Path) -> Result<Self, CredentialsError> {
        let text = text_of(path)?;
        let metadata = std::fs::metadata(path);
        let is_pipe = metadata.as_ref().is_ok_and(|metadata| metadata.file_type().is_fifo());
        Ok(Self { text, mode: metadata.map_or(0, |metadata| metadata.permissions().mode()), is_pipe })
    }

    fn hash(&self) -> u32 {
        crc32c::crc32c(self.text.as_bytes())
    }
}

/// Not its text.
impl fmt::Debug for Said {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Said").field("mode", &self.mode).field("is_pipe", &self.is_pipe).finish_non_exhaustive()
    }
}

/// Where the credentials come from, and what they were when they were last read.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    file: Option<PathBuf>,
    /// The file belongs to systemd, which sees to its permissions.
    is_systemds: bool,
    /// The environment's variables and the file's.
    access: Access,
    /// A hash of the file's text, if it could be read.
    read: Option<u32>,
    /// What it says can be read once.
    is_pipe: bool,
    warned: bool,
}

impl Credentials {
    /// The credentials of a configuration, not read yet.
    pub(super) fn new(configured: Option<PathBuf>) -> Self {
        Self::with_store(configured, std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from))
    }

    fn with_store(configured: Option<PathBuf>, systemds: Option<PathBuf>) -> Self {
        let credential = systemds.map(|folder| folder.join(SYSTEMD_NAME)).filter(|path| path.exists());
        Self {
            is_systemds: configured.is_none() && credential.is_some(),
            file: configured.or(credential),
            access: Access::from_environment(),
            read: None,
            is_pipe: false,
            warned: false,
        }
    }

    /// The file that is read, if there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads them anew: work that blocks.
    pub(super) fn read(&mut self, lake: &LakeUrl) -> Result<Access, CredentialsError> {
        let said = self.file().map(Said::by).transpose()?;
        self.take(said, lake)
    }

    /// What they are with what the file says now.
    pub(super) fn take(&mut self, said: Option<Said>, lake: &LakeUrl) -> Result<Access, CredentialsError> {
        let environment = Access::from_environment();
        self.access = match self.file.clone().zip(said) {
            Some((path, said)) => {
                (self.read, self.is_pipe) = (Some(said.hash()), said.is_pipe);
                self.warn_if_open(&path, said.mode);
                environment.with_variables(variables(&said.text, &path, lake)?)
            }
            None => environment,
        };
        Ok(self.access.clone())
    }

    /// The same for who only looks: of a file that says nothing, or is a pipe, the environment is left.
    pub(super) fn access_without_pipes(&self, lake: &LakeUrl) -> Access {
        let environment = Access::from_environment();
        let file = self.file().filter(|path| path.is_file());
        let said = file.and_then(|path| variables(&text_of(path).ok()?, path, lake).ok());
        environment.with_variables(said.unwrap_or_default())
    }

    /// The file in which another text may stand than was read: none that is a pipe.
    pub(super) fn may_have_changed(&self) -> Option<&Path> {
        self.file().filter(|_| !self.is_pipe)
    }

    /// Whether that is another text than was read.
    pub(super) fn is_other(&self, said: &Said) -> bool {
        self.read != Some(said.hash())
    }

    /// What is missing to reach a lake, where that is obvious.
    pub(super) fn missing(&self, lake: &LakeUrl) -> Option<&'static str> {
        self.access.missing(lake)
    }

    fn warn_if_open(&mut self, path: &Path, mode: u32) {
        if mode & 0o077 != 0 && !self.is_systemds && !self.warned {
            tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others may read the lake's credentials; hint: chmod 600");
            self.warned = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lake() -> LakeUrl {
        "s3://bucket/prefix".parse().expect("a lake")
    }

    fn written(folder: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = folder.path().join("lake");
        std::fs::write(&path, text).expect("written");
        path
    }

    #[test]
    fn lines_are_read_as_shells_and_systemd_write_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "# a key\n\nAWS_ACCESS_KEY_ID = one\nexport AWS_SECRET_ACCESS_KEY=\"canary-secret\"\r\n";
        let mut credentials = Credentials::with_store(Some(written(&folder, text)), None);
        let access = credentials.read(&lake()).expect("read");
        assert_eq!(access.missing(&lake()), None);
        let is_other = |credentials: &Credentials| {
            let file = credentials.may_have_changed().expect("no pipe");
            credentials.is_other(&Said::by(file).expect("read"))
        };
        assert!(!is_other(&credentials));
        written(&folder, "AWS_ACCESS_KEY_ID=other\n");
        assert!(is_other(&credentials));
    }

    #[test]
    fn systemds_store_is_looked_into_where_no_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Some(folder.path().to_owned());
        assert_eq!(Credentials::with_store(None, store.clone()).file, None);
        let path = written(&folder, "AWS_ACCESS_KEY_ID=one\n");
        let credentials = Credentials::with_store(None, store.clone());
        assert_eq!((credentials.file, credentials.is_systemds), (Some(path), true));
        let named = Credentials::with_store(Some("/etc/lake.env".into()), store);
        assert_eq!((named.file, named.is_systemds), (Some("/etc/lake.env".into()), false));
    }

    /// A secret pasted without its name must not stand in the log.
    #[test]
    fn a_wrong_line_is_told_by_its_number_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        for wrong in ["canary-secret", "canary-secret==", "CANARY_SECRET=x", "AWS CANARY-SECRET=x"] {
            let path = written(&folder, &format!("AWS_REGION=x\n{wrong}\n"));
            let error = Credentials::with_store(Some(path), None).read(&lake()).expect_err(wrong);
            let shown = format!("{error} {error:?}").to_lowercase();
            assert!(shown.contains("line 2") && !shown.contains("canary"), "{shown}");
        }
        let path = written(&folder, "AWS_SECRET_ACESS_KEY=canary-secret\n");
        let error = Credentials::with_store(Some(path), None).read(&lake()).expect_err("a wrong name").to_string();
        assert!(error.contains("aws_secret_acess_key") && !error.contains("canary"), "{error}");
    }
}
