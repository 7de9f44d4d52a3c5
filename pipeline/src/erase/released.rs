//! Releases of open datasets that hold erased readings, or such as are public no more: withdrawn, and made anew.
//!
//! A new release comes first, so that `latest.json` names it and never a withdrawn one; where there is nothing left to
//! publish, or the dataset is published no longer, `latest.json` goes. Then `withdrawn.json` is created in the release's
//! folder, which anybody may read: it says that the release was withdrawn and of what it was, and neither why nor whose
//! readings those were. Then its files go.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::{self, OPEN, WITHDRAWN};

use super::known::Erasures;
use super::record::FORMAT;
use super::{EraseError, EraseSettings, Found};
use crate::bounds::Bounds;
use crate::jobs::record::Moment;
use crate::publish::{PublishOutcome, newest_release, publish_within};

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

/// The releases that hold erased readings, and those whose withdrawal broke off.
pub(crate) async fn find(lake: &Lake, erasures: &Erasures) -> Result<Vec<Tainted>, EraseError> {
    let mut releases: BTreeMap<(String, String), Vec<Path>> = BTreeMap::new();
    let mut metas = lake.objects().list(Some(&Path::from(OPEN)));
    while let Some(meta) = metas.try_next().await.map_err(|source| LakeError::store(OPEN, source))? {
        let parts: Vec<String> = meta.location.parts().map(|part| part.as_ref().to_owned()).collect();
        if let [_, dataset, version, _] = parts.as_slice() {
            releases.entry((dataset.clone(), version.clone())).or_default().push(meta.location);
        }
    }
    let mut found = Vec::new();
    for ((dataset, version), mut files) in releases {
        let is_note = |key: &Path| key.filename() == Some(WITHDRAWN);
        let is_withdrawn = files.iter().any(is_note);
        files.retain(|key| !is_note(key));
        if is_withdrawn {
            if !files.is_empty() {
                found.push(Tainted { dataset, version, files, rows: None });
            }
            continue;
        }
        let mut rows = 0;
        for key in &files {
            rows = rows.max(count(lake, key, erasures).await?);
        }
        if rows > 0 {
            found.push(Tainted { dataset, version, files, rows: Some(rows) });
        }
    }
    Ok(found)
}

/// How many erased readings a file of a release has.
async fn count(lake: &Lake, key: &Path, erasures: &Erasures) -> Result<usize, EraseError> {
    let ending = key.extension().unwrap_or_default();
    if !matches!(ending, "parquet" | "csv") {
        return Ok(0);
    }
    let failed = |source| LakeError::store(key, source);
    let bytes = match lake.objects().get(key).await {
        Ok(found) => found.bytes().await.map_err(failed)?,
        Err(Error::NotFound { .. }) => return Ok(0),
        Err(source) => return Err(failed(source).into()),
    };
    let damaged = |what: String| EraseError::Release { key: key.clone(), what };
    if ending == "csv" { in_csv(&bytes, erasures) } else { in_parquet(bytes, erasures) }.map_err(damaged)
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

/// Withdraws releases and makes their datasets anew. Returns how many were withdrawn, and the new ones.
pub(crate) async fn withdraw(
    lake: &Lake,
    settings: &EraseSettings,
    tainted: &[Tainted],
    why: &str,
) -> Result<(usize, Vec<String>), EraseError> {
    let mut made = renew(lake, settings, tainted).await?;
    for release in tainted {
        note(lake, release, why).await?;
        crate::vacuum::remove(lake, release.files.clone()).await?;
    }
    // Who had written one of them before they were looked for may have named it since; whoever names one later finds the note.
    made.extend(renew(lake, settings, tainted).await?);
    Ok((tainted.len(), made))
}

/// Makes those datasets anew whose newest release has to go. Returns the new ones.
async fn renew(lake: &Lake, settings: &EraseSettings, tainted: &[Tainted]) -> Result<Vec<String>, EraseError> {
    let datasets: BTreeSet<&str> = tainted.iter().map(|release| release.dataset.as_str()).collect();
    let mut made = Vec::new();
    for dataset in datasets {
        let newest = newest_release(lake, dataset).await?;
        let is_tainted =
            |version: &str| tainted.iter().any(|release| release.dataset == dataset && release.version == version);
        if newest.is_some_and(|newest| is_tainted(&newest.version)) {
            made.extend(make_anew(lake, settings, dataset).await?);
        }
    }
    Ok(made)
}

/// A new release in the place of the newest; where there is none to be made the name goes.
async fn make_anew(lake: &Lake, settings: &EraseSettings, name: &str) -> Result<Option<String>, EraseError> {
    if let Some(dataset) = settings.datasets.iter().find(|dataset| dataset.name == name)
        && let PublishOutcome::Published(release) =
            publish_within(lake, dataset, &settings.timezone, &Bounds::from(&settings.compact)).await?
    {
        return Ok(Some(format!("{name} {}", release.version)));
    }
    tracing::warn!(dataset = name, "its newest release was withdrawn, and there is nothing to publish in its place");
    crate::vacuum::remove(lake, vec![keys::latest_release(name)]).await?;
    Ok(None)
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
