//! Releases of open datasets that hold erased readings, or such as are public no more: withdrawn, and made anew.
//!
//! One dataset after the other. A release that is not the newest goes at once. In place of the newest a new one comes first, so
//! that `latest.json` names it and never a withdrawn one; where there is nothing left to publish, or no new one can be made, or
//! the dataset is published no longer, `latest.json` goes. Then `withdrawn.json` is created in the release's folder, which anybody
//! may read: it says that the release was withdrawn and of what it was, and neither why nor whose readings those were. Then its
//! files go.
//!
//! What cannot be read, or does not go, keeps no other release published: it is told, and by its key it is looked at again.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::{self, OPEN, WITHDRAWN};

use super::known::Erasures;
use super::record::FORMAT;
use super::unseen::{self, Reasons};
use super::{EraseError, EraseSettings, Found};
use crate::bounds::Bounds;
use crate::jobs::record::Moment;
use crate::publish::{PublishError, PublishOutcome, newest_release, publish_within};

/// What a release says that was withdrawn since readings in it were erased.
pub(super) const ERASED: &str = "readings in it were erased";

/// A release that has to go.
#[derive(Debug)]
pub(crate) struct Tainted {
    dataset: String,
    version: String,
    /// Its files, without what says that it was withdrawn.
    files: Vec<Path>,
    rows: Option<usize>,
}

/// What was withdrawn, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Withdrawn {
    /// How many releases.
    pub(crate) releases: usize,
    /// Those that were made in their place.
    pub(crate) made: Vec<String>,
    /// Datasets of which none could be made, and why.
    pub(crate) unmade: Reasons,
    /// Files that nobody can read as what they are called: what is in them is not known, and looking again finds the same.
    pub(crate) unreadable: Reasons,
    /// What the store did not hand out or remove, and why.
    pub(crate) stays: Reasons,
}

/// Which releases are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
    All,
    /// Those of these files, and of a dataset whose `latest.json` is one of them; and what lies there and was not named.
    Of(&'a Reasons),
}

/// The files of each release, by dataset and version.
type Releases = BTreeMap<String, BTreeMap<String, Vec<Path>>>;

impl Which<'_> {
    fn means(self, dataset: &str, version: &str, files: &[Path], newest: Option<&str>) -> bool {
        let Self::Of(keys) = self else { return true };
        let is_meant = |key: &Path| keys.contains_key(key.as_ref());
        // Nobody has named it yet, or ever will.
        let is_unnamed = newest.is_none_or(|newest| version > newest);
        is_unnamed || is_meant(&keys::latest_release(dataset)) || files.iter().any(is_meant)
    }
}

async fn list(lake: &Lake) -> Result<Releases, LakeError> {
    let mut releases = Releases::new();
    let mut metas = lake.objects().list(Some(&Path::from(OPEN)));
    while let Some(meta) = metas.try_next().await.map_err(|source| LakeError::store(OPEN, source))? {
        let parts: Vec<String> = meta.location.parts().map(|part| part.as_ref().to_owned()).collect();
        if let [_, dataset, version, _] = parts.as_slice() {
            let dataset = releases.entry(dataset.clone()).or_default();
            dataset.entry(version.clone()).or_default().push(meta.location);
        }
    }
    Ok(releases)
}

fn is_note(key: &Path) -> bool {
    key.filename() == Some(WITHDRAWN)
}

/// The releases that hold erased readings, and those whose withdrawal broke off; and what could not be looked at.
pub(crate) async fn find(lake: &Lake, erasures: &Erasures) -> Result<(Vec<Tainted>, Reasons), LakeError> {
    let (mut found, mut unseen) = (Vec::new(), Withdrawn::default());
    for (dataset, versions) in list(lake).await? {
        for (version, files) in versions {
            found.extend(look(lake, &dataset, &version, files, erasures, &mut unseen).await);
        }
    }
    let Withdrawn { mut unreadable, stays, .. } = unseen;
    unreadable.extend(stays);
    Ok((found, unreadable))
}

/// Whether a release has to go. What of it cannot be looked at is noted in `withdrawn`.
async fn look(
    lake: &Lake,
    dataset: &str,
    version: &str,
    mut files: Vec<Path>,
    erasures: &Erasures,
    withdrawn: &mut Withdrawn,
) -> Option<Tainted> {
    let is_withdrawn = files.iter().any(is_note);
    files.retain(|key| !is_note(key));
    let mut rows = 0;
    for key in files.iter().filter(|_| !is_withdrawn) {
        match count(lake, key, erasures).await {
            Ok(found) => rows = rows.max(found),
            Err(Unread::Damaged(why)) => _ = withdrawn.unreadable.insert(key.to_string(), why),
            Err(Unread::Store(error)) => {
                _ = withdrawn.stays.insert(key.to_string(), format!("it cannot be looked at: {error}"));
            }
        }
    }
    let goes = if is_withdrawn { !files.is_empty() } else { rows > 0 };
    let (dataset, version) = (dataset.to_owned(), version.to_owned());
    goes.then_some(Tainted { dataset, version, files, rows: (!is_withdrawn).then_some(rows) })
}

/// Why nobody knows what is in a file.
enum Unread {
    Damaged(String),
    Store(Error),
}

/// How many erased readings a file of a release has.
async fn count(lake: &Lake, key: &Path, erasures: &Erasures) -> Result<usize, Unread> {
    let ending = key.extension().unwrap_or_default();
    if !matches!(ending, "parquet" | "csv") {
        return Ok(0);
    }
    let bytes = match lake.objects().get(key).await {
        Ok(found) => found.bytes().await.map_err(Unread::Store)?,
        Err(Error::NotFound { .. }) => return Ok(0),
        Err(source) => return Err(Unread::Store(source)),
    };
    let counted = if ending == "csv" { in_csv(&bytes, erasures) } else { in_parquet(bytes, erasures) };
    counted
        .map_err(|what| Unread::Damaged(format!("it cannot be read: {what}; hint: look at it, and remove it by hand")))
}

fn in_parquet(bytes: Bytes, erasures: &Erasures) -> Result<usize, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
    let mut rows = 0;
    for batch in reader.map_err(|error| text(&error))? {
        let batch: RecordBatch = batch.map_err(|error| text(&error))?;
        rows += erasures.count(&batch);
    }
    Ok(rows)
}

fn in_csv(bytes: &[u8], erasures: &Erasures) -> Result<usize, String> {
    let mut reader = csv::Reader::from_reader(bytes);
    let names = reader.headers().map_err(|error| error.to_string())?;
    let place =
        |wanted: &str| names.iter().position(|name| name == wanted).ok_or(format!("it has no column `{wanted}`"));
    let (sensor, time) = (place("sensor")?, place("time")?);
    let mut rows = 0;
    for line in reader.records() {
        let line = line.map_err(|error| error.to_string())?;
        let moment: jiff::Timestamp =
            line.get(time).unwrap_or_default().parse().map_err(|error: jiff::Error| format!("its times: {error}"))?;
        rows += usize::from(erasures.covers(line.get(sensor).unwrap_or_default(), moment.as_microsecond()));
    }
    Ok(rows)
}

/// Withdraws the releases that hold such readings, and makes their datasets anew.
///
/// # Errors
/// [`LakeError`], where it is not known which releases there are. What fails of one of them stands in what is returned.
pub(crate) async fn withdraw(
    lake: &Lake,
    settings: &EraseSettings,
    erasures: &Erasures,
    which: Which<'_>,
    why: &str,
) -> Result<Withdrawn, LakeError> {
    let mut withdrawn = Withdrawn::default();
    for (dataset, versions) in list(lake).await? {
        let mut work = OfDataset { lake, settings, dataset: &dataset, which, gone: BTreeSet::new(), why };
        let result = Box::pin(work.withdraw(versions, erasures, &mut withdrawn)).await;
        if let Err(error) = result {
            withdrawn.stays.insert(keys::latest_release(&dataset).to_string(), error.to_string());
        }
    }
    Ok(withdrawn)
}

/// The releases of one dataset.
struct OfDataset<'a> {
    lake: &'a Lake,
    settings: &'a EraseSettings,
    dataset: &'a str,
    which: Which<'a>,
    /// The versions that are withdrawn, or are about to be.
    gone: BTreeSet<String>,
    why: &'a str,
}

impl OfDataset<'_> {
    async fn withdraw(
        &mut self,
        versions: BTreeMap<String, Vec<Path>>,
        erasures: &Erasures,
        withdrawn: &mut Withdrawn,
    ) -> Result<(), EraseError> {
        let newest = newest_release(self.lake, self.dataset).await?.map(|newest| newest.version);
        let mut last = None;
        let means = |version: &str, files: &[Path]| self.which.means(self.dataset, version, files, newest.as_deref());
        let versions: Vec<_> = versions.into_iter().filter(|(version, files)| means(version, files)).collect();
        for (version, files) in versions {
            if files.iter().any(is_note) {
                self.gone.insert(version.clone());
            }
            let Some(release) = look(self.lake, self.dataset, &version, files, erasures, withdrawn).await else {
                continue;
            };
            self.gone.insert(version);
            if newest.as_ref() == Some(&release.version) {
                last = Some(release);
            } else {
                self.take_back(&release, withdrawn).await;
            }
        }
        if self.gone.is_empty() {
            return Ok(());
        }
        let renewed = self.renew(withdrawn).await;
        if let Some(release) = last {
            self.take_back(&release, withdrawn).await;
        }
        renewed?;
        // Who had written one of them before they were looked for may have named it since; whoever names one later finds the
        // note.
        self.renew(withdrawn).await
    }

    /// Notes that a release was withdrawn, and removes its files.
    async fn take_back(&self, release: &Tainted, withdrawn: &mut Withdrawn) {
        withdrawn.releases += 1;
        let noted = note(self.lake, release, self.why).await;
        let mut stays = unseen::remove(self.lake, release.files.clone()).await;
        stays.values_mut().for_each(|why| *why = format!("it cannot be removed: {why}"));
        if let Err(error) = noted {
            let key = keys::latest_release(self.dataset).to_string();
            stays.insert(key, format!("release {} cannot be noted as withdrawn: {error}", release.version));
        }
        // It goes, whatever else could not be read of it.
        for key in &release.files {
            withdrawn.unreadable.remove(key.as_ref());
            withdrawn.stays.remove(key.as_ref());
        }
        withdrawn.stays.extend(stays);
    }

    /// Makes the dataset anew if its newest release has to go. Where that fails it has none until its own job makes one.
    async fn renew(&self, withdrawn: &mut Withdrawn) -> Result<(), EraseError> {
        let newest = newest_release(self.lake, self.dataset).await?;
        if !newest.is_some_and(|newest| self.gone.contains(&newest.version)) {
            return Ok(());
        }
        match make_anew(self.lake, self.settings, self.dataset).await {
            Ok(Some(release)) => {
                withdrawn.made.push(release);
                return Ok(());
            }
            Ok(None) => {
                tracing::warn!(
                    dataset = self.dataset,
                    "its newest release is withdrawn, and there is nothing to publish in its place"
                );
            }
            Err(error) => _ = withdrawn.unmade.insert(self.dataset.to_owned(), error.to_string()),
        }
        crate::vacuum::remove(self.lake, vec![keys::latest_release(self.dataset)]).await?;
        Ok(())
    }
}

/// A new release in the place of the newest; none where there is none to be made.
async fn make_anew(lake: &Lake, settings: &EraseSettings, name: &str) -> Result<Option<String>, PublishError> {
    let Some(dataset) = settings.datasets.iter().find(|dataset| dataset.name == name) else { return Ok(None) };
    let bounds = Bounds::from(&settings.compact);
    // Its type is forgotten here: the compiler loses itself in what is around it otherwise.
    Ok(match publish_within(lake, dataset, &settings.timezone, &bounds).boxed().await? {
        PublishOutcome::Published(release) => Some(format!("{name} {}", release.version)),
        PublishOutcome::NothingNew { .. } | PublishOutcome::Empty => None,
    })
}

async fn note(lake: &Lake, release: &Tainted, why: &str) -> Result<(), LakeError> {
    let key = keys::withdrawn_release(&release.dataset, &release.version);
    let withdrawn = Moment(lake.clock().now_us());
    let note = json!({
        "format": FORMAT, "dataset": release.dataset, "version": release.version, "withdrawn": withdrawn,
        "why": why,
    });
    let bytes = serde_json::to_vec_pretty(&note).unwrap_or_default();
    match lake.objects().put_opts(&key, PutPayload::from(bytes), PutMode::Create.into()).await {
        Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
        Err(source) => Err(LakeError::store(key, source)),
    }
}

impl Tainted {
    /// What is told of it.
    pub(super) fn found(&self) -> Found {
        Found::new("release", Path::from(format!("{OPEN}/{}/{}", self.dataset, self.version)), self.rows)
    }
}
