//! What others say of the sensors of a batch: the register, and the configuration that the batch names. Both are kept, and read
//! again where they may be others.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use tjern_lake::{Lake, LakeError, Table, TableName};
use tjern_readings::batch::Batch;
use tjern_readings::configuration::units;
use tjern_readings::keys::Landed;

use super::Ingester;
use crate::ingest::IngestError;
use crate::ingest::rows::Units;
use crate::register::Said;

impl Ingester {
    /// What the register says, read again where its tables moved on.
    pub(in crate::ingest) async fn said(&mut self) -> Result<Arc<Said>, IngestError> {
        let mut versions = [-1; 2];
        for (version, name) in versions.iter_mut().zip([TableName::Sensors, TableName::Events]) {
            *version = Table::open(&self.lake, name).await?.map_or(-1, |table| table.version());
        }
        if let Some((known, said)) = &self.said
            && *known == versions
        {
            return Ok(Arc::clone(said));
        }
        let said = Arc::new(Said::load(&self.lake).await?);
        self.said = Some((versions, Arc::clone(&said)));
        Ok(said)
    }

    /// The units of a batch's sensors, as far as its configuration says them; none where that is not in the store. It
    /// is asked for again by each batch then, until it comes.
    pub(super) async fn units_of(&mut self, batch: &Batch) -> Result<Option<Units>, IngestError> {
        let Some(sha256) = batch.header.named_configuration() else { return Ok(Some(Units::new())) };
        self.units_at(&Landed::Configuration(sha256.to_owned()).key(&batch.header.source)).await
    }

    /// The units that a configuration says; none where it is not in the store.
    pub(in crate::ingest) async fn units_at(&mut self, key: &Path) -> Result<Option<Units>, IngestError> {
        if let Some(units) = self.units.get(key) {
            return Ok(Some(units.clone()));
        }
        let Some(units) = units_in_store(&self.lake, key).await? else {
            if self.missing.insert(key.clone()) {
                tracing::warn!(%key, "the configuration that a batch names is not there: its units are held against the register's once it is; hint: restart its gateway, which uploads it");
            }
            return Ok(None);
        };
        if self.missing.remove(key) {
            tracing::info!(%key, "a configuration that was missing is there");
        }
        self.units.insert(key.clone(), units.clone());
        Ok(Some(units))
    }
}

/// The units that a configuration says; none where it is not in the store.
pub(in crate::ingest) async fn units_in_store(lake: &Lake, key: &Path) -> Result<Option<Units>, LakeError> {
    let text = match lake.objects().get(key).await {
        Ok(found) => found.bytes().await.map_err(|source| LakeError::store(key, source))?,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(source) => return Err(LakeError::store(key, source)),
    };
    let text = String::from_utf8_lossy(&text);
    let units = units(&text).unwrap_or_else(|error| {
        tracing::warn!(%key, error, "a configuration that batches name is no TOML: their units are not checked");
        Units::new()
    });
    Ok(Some(units))
}
