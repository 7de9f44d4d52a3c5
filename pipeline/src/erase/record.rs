//! What an erasure is, and how it stands in the lake: for as long as that is there.
//!
//! `erasures/<id>.json` is created once, before anything is removed, and says which readings may never come back. It is
//! the memory: whoever brings rows into `readings` asks it. `erasures/<id>.done.json` is created once nothing of them
//! was left. A record that cannot be read stops whoever asks: nobody may take it that there is none.

use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::ErasureKey;
use tjern_readings::sensor::{Epoch, SensorId};

use super::Request;
use crate::jobs::record::Moment;

/// The version of a record's shape.
pub(super) const FORMAT: u32 = 1;

/// Readings that are erased: of one sensor, from one time on, up to and without another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// The version of this shape: 1.
    pub format: u32,
    /// Its name.
    pub id: String,
    /// Of which sensor.
    #[serde(serialize_with = "text")]
    pub sensor: SensorId,
    /// From this time on, UTC.
    pub from: Moment,
    /// Up to and without this one, UTC.
    pub to: Moment,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub by: String,
    /// When, UTC.
    pub at: Moment,
}

fn text<S: serde::Serializer>(sensor: &SensorId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(sensor.as_str())
}

impl Erasure {
    /// What is asked for now, under a name of its own.
    pub(crate) fn new(lake: &Lake, request: &Request) -> Self {
        Self {
            format: FORMAT,
            id: Epoch::random().to_string(),
            sensor: request.sensor.clone(),
            from: Moment(request.from_us),
            to: Moment(request.to_us),
            reason: request.reason.clone(),
            by: request.by.clone(),
            at: Moment(lake.clock().now_us()),
        }
    }

    /// Whether a reading of its sensor at this time is erased.
    #[must_use]
    pub const fn contains(&self, time_us: i64) -> bool {
        self.from.0 <= time_us && time_us < self.to.0
    }

    /// The transaction by which a table says how far it is.
    pub(super) fn mark(&self) -> String {
        format!(":erasure/{}", self.id)
    }

    /// Creates the record.
    pub(super) async fn write(&self, lake: &Lake) -> Result<(), LakeError> {
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        create(lake, &ErasureKey::Record(self.id.clone()), bytes).await
    }

    /// Whether the record is there.
    pub(super) async fn is_written(&self, lake: &Lake) -> Result<bool, LakeError> {
        let key = ErasureKey::Record(self.id.clone()).key();
        match lake.objects().head(&key).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(LakeError::store(key, source)),
        }
    }

    /// Says that nothing of it is left.
    pub(super) async fn write_done(&self, lake: &Lake) -> Result<(), LakeError> {
        let note = json!({ "format": FORMAT, "id": self.id, "done": Moment(lake.clock().now_us()) });
        let bytes = serde_json::to_vec_pretty(&note).unwrap_or_default();
        create(lake, &ErasureKey::Done(self.id.clone()), bytes).await
    }
}

/// Creates an object under a name that nobody else draws: one that is there is ours.
pub(super) async fn create(lake: &Lake, key: &ErasureKey, bytes: Vec<u8>) -> Result<(), LakeError> {
    let key = key.key();
    match lake.objects().put_opts(&key, PutPayload::from(bytes), PutMode::Create.into()).await {
        Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
        Err(source) => Err(LakeError::store(key, source)),
    }
}
