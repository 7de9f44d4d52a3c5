//! Whether a lake can be reached, for a person who asks. Nothing is written.

use std::path::PathBuf;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use tjern_readings::keys::LANDING;
use tjern_readings::sensor::SourceName;
use tjern_readings::store::{LakeUrl, Store, hint};

use super::credentials::Credentials;
use super::line::unbroken;

/// How long a person waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of it, without any secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// It answers; whether the source has anything in its landing zone.
    Reached {
        /// Something has landed there before.
        has_landed: bool,
    },
    /// It does not, or refuses.
    Failed {
        /// What it says.
        reason: String,
        /// What to do.
        hint: String,
    },
}

/// Lists what a source has in a lake's landing zone, as far as the first object.
pub(crate) async fn probe(lake: &LakeUrl, source: &SourceName, credentials_file: Option<PathBuf>) -> Probe {
    let mut credentials = Credentials::new(credentials_file);
    let access = match credentials.read(lake) {
        Ok(access) => access.with_timeout(PATIENCE / 2),
        Err(error) => return failed(&error.to_string(), None),
    };
    let missing = credentials.missing(lake);
    // It reads the files that are named, which may lie on a server that is gone: work that blocks.
    let opening = tokio::task::spawn_blocking({
        let lake = lake.clone();
        move || Store::open_with(&lake, &access).map_err(Box::new)
    });
    let store = match tokio::time::timeout(PATIENCE, opening).await {
        Ok(Ok(Ok(store))) => store,
        Ok(Ok(Err(error))) => return failed(&error.to_string(), missing),
        Ok(Err(error)) => return failed(&error.to_string(), missing),
        Err(_) => return failed(&format!("it could not be opened within {} s", PATIENCE.as_secs()), missing),
    };
    let folder = Path::from(format!("{LANDING}/{source}"));
    let objects = store.objects();
    let mut listed = objects.list(Some(&folder));
    match tokio::time::timeout(PATIENCE, unbroken(listed.try_next())).await {
        Ok(Ok(first)) => Probe::Reached { has_landed: first.is_some() },
        Ok(Err(error)) => failed(&error.to_string(), missing.or(hint(&error))),
        Err(_) => failed(&format!("no answer within {} s", PATIENCE.as_secs()), missing),
    }
}

/// Errors bring their own hint after `; hint: `, where they have one.
fn failed(text: &str, known: Option<&str>) -> Probe {
    let (reason, own) = text.split_once("; hint: ").unwrap_or((text, ""));
    let hint = match (known, own) {
        (Some(known), _) => known,
        (None, "") => "is the network up, and is the lake's URL right?",
        (None, own) => own,
    };
    Probe::Failed { reason: reason.lines().next().unwrap_or_default().to_owned(), hint: hint.to_owned() }
}
