//! Which configuration a reading was measured under: by the table's own memory, or, for what was ingested
//! before it had one, by the reading's batch while that lies in the landing zone. The configurations
//! themselves stay in the landing zone for good.

use std::collections::HashMap;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tjern_lake::{Lake, LakeError, Table};
use tjern_readings::batch;
use tjern_readings::keys::{Bounds, Landed, epoch_folder};
use tjern_readings::sensor::{Epoch, SourceName};

use super::moments::Stored;
use crate::ingest::configurations::Configurations;

type Stream = (SourceName, Epoch);

/// A configuration's text, or why there is none.
pub(crate) type Text = Result<Arc<str>, Arc<str>>;

/// Looks configurations up, each once.
pub(crate) struct Origins<'a> {
    table: &'a Table,
    remembered: Configurations,
    landed: HashMap<Stream, Vec<Bounds>>,
    named: HashMap<(Stream, Bounds), Option<String>>,
    texts: HashMap<(SourceName, String), Text>,
}

impl<'a> Origins<'a> {
    pub(crate) fn new(table: &'a Table) -> Self {
        Self {
            table,
            remembered: Configurations::default(),
            landed: HashMap::new(),
            named: HashMap::new(),
            texts: HashMap::new(),
        }
    }

    /// The SHA-256 of the configuration under which a reading came, as far as it is known.
    pub(crate) async fn configuration(&mut self, row: &Stored) -> Result<Option<(SourceName, String)>, LakeError> {
        let (Ok(source), Ok(epoch)) = (row.source.parse::<SourceName>(), row.epoch.parse::<Epoch>()) else {
            return Ok(None);
        };
        let stream = (source.clone(), epoch);
        let remembered = self.remembered.of(&stream, self.table.transactions()).at(row.seq).map(str::to_owned);
        let found = match remembered {
            Some(found) => Some(found),
            None => self.named_by_batch(&stream, row.seq).await?,
        };
        Ok(found.map(|sha256| (source, sha256)))
    }

    /// The text of a configuration.
    pub(crate) async fn text(&mut self, source: &SourceName, sha256: &str) -> Result<Text, LakeError> {
        let name = (source.clone(), sha256.to_owned());
        if let Some(known) = self.texts.get(&name) {
            return Ok(known.clone());
        }
        let key = Landed::Configuration(sha256.to_owned()).key(source);
        let text: Text = match bytes_of(self.lake(), &key).await? {
            None => Err(format!("its configuration is not in the lake any more: `{key}`").into()),
            Some(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => Ok(text.into()),
                Err(_) => Err(format!("its configuration is no text: `{key}`").into()),
            },
        };
        self.texts.insert(name, text.clone());
        Ok(text)
    }

    fn lake(&self) -> &'a Lake {
        self.table.lake()
    }

    async fn named_by_batch(&mut self, stream: &Stream, seq: i64) -> Result<Option<String>, LakeError> {
        if !self.landed.contains_key(stream) {
            let listed = list(self.lake(), stream).await?;
            self.landed.insert(stream.clone(), listed);
        }
        let landed = self.landed.get(stream).map(Vec::as_slice).unwrap_or_default();
        let Some(bounds) = landed.iter().copied().find(|bounds| bounds.first <= seq && seq <= bounds.last) else {
            return Ok(None);
        };
        if let Some(known) = self.named.get(&(stream.clone(), bounds)) {
            return Ok(known.clone());
        }
        let key = Landed::Batch(stream.1, bounds).key(&stream.0);
        let batch = bytes_of(self.lake(), &key).await?.and_then(|bytes| batch::decode(&bytes).ok());
        let named = batch.and_then(|batch| batch.header.named_configuration().map(str::to_owned));
        self.named.insert((stream.clone(), bounds), named.clone());
        Ok(named)
    }
}

async fn list(lake: &Lake, (source, epoch): &Stream) -> Result<Vec<Bounds>, LakeError> {
    let folder = epoch_folder(source, *epoch);
    let objects = lake.objects();
    let listed = objects.list(Some(&folder)).try_filter_map(|meta| async move {
        Ok(match Landed::parse(&meta.location) {
            Some((_, Landed::Batch(_, bounds))) => Some(bounds),
            _ => None,
        })
    });
    listed.try_collect().await.map_err(|source| LakeError::store(folder, source))
}

async fn bytes_of(lake: &Lake, key: &object_store::path::Path) -> Result<Option<bytes::Bytes>, LakeError> {
    match lake.objects().get(key).await {
        Ok(found) => found.bytes().await.map(Some).map_err(|source| LakeError::store(key, source)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(source) => Err(LakeError::store(key, source)),
    }
}
