//! Which sources wrote a sensor whose readings are erased, or may have: what comes from them and cannot be read may
//! hold such readings.
//!
//! Known from the table, from landed batches, from the register and from the configurations in the landing zone. It has
//! to be asked before the rows go; what landed is remembered with the batches, and where something could not be looked
//! at, all of it ([`super::unseen`]).

use std::collections::{BTreeMap, BTreeSet};

use datafusion::prelude::{col, lit};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use tjern_lake::{Lake, LakeError, Table};
use tjern_readings::keys::Landed;

use super::EraseError;
use super::known::Erasures;
use super::record::Erasure;
use super::unseen::Reasons;
use crate::register::Register;
use crate::tables::engine;

/// Sources, with the erasures whose readings may come from them.
#[derive(Debug, Default)]
pub(super) struct Tainted {
    sources: BTreeMap<String, BTreeSet<String>>,
    /// The configurations that cannot be read: whose they are, they may name anything.
    pub(super) unseen: Reasons,
}

impl Tainted {
    /// Those that are known without looking at any batch.
    pub(super) async fn find(
        lake: &Lake,
        readings: Option<&Table>,
        register: &Register,
        configurations: &[Path],
        erasures: &Erasures,
    ) -> Result<Self, EraseError> {
        let mut tainted = Self::default();
        for (stream, _, ids) in erasures.doomed.all() {
            tainted.add(stream.0.as_str(), ids.iter().cloned());
        }
        for (source, ids) in &erasures.unseen.sources {
            tainted.add(source, ids.iter().cloned());
        }
        for erasure in erasures.all() {
            let id = || [erasure.id.clone()];
            let named = register.get(erasure.sensor.as_str()).and_then(|sensor| sensor.sources.as_deref());
            named.into_iter().flat_map(|sources| sources.split(' ')).for_each(|source| tainted.add(source, id()));
            if let Some(readings) = readings {
                wrote(readings, erasure).await?.iter().for_each(|source| tainted.add(source, id()));
            }
        }
        for key in configurations {
            let Some((source, Landed::Configuration(_))) = Landed::parse(key) else { continue };
            let text = match text(lake, key).await {
                Ok(Some(text)) => text,
                Ok(None) => continue,
                Err(error) => {
                    tainted.unseen.insert(key.to_string(), error.to_string());
                    continue;
                }
            };
            let named = erasures.all().iter().filter(|erasure| names(&text, erasure));
            tainted.add(source.as_str(), named.map(|erasure| erasure.id.clone()));
        }
        Ok(tainted)
    }

    pub(super) fn add(&mut self, source: &str, ids: impl IntoIterator<Item = String>) {
        let mut ids = ids.into_iter().peekable();
        if ids.peek().is_some() {
            self.sources.entry(source.to_owned()).or_default().extend(ids);
        }
    }

    /// The erasures whose readings may come from a source.
    pub(super) fn of(&self, source: &str) -> Option<&BTreeSet<String>> {
        self.sources.get(source)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// All of them.
    pub(super) fn into_sources(self) -> BTreeMap<String, BTreeSet<String>> {
        self.sources
    }
}

/// Who wrote a sensor, whenever.
async fn wrote(readings: &Table, erasure: &Erasure) -> Result<Vec<String>, EraseError> {
    let rows = engine(readings.lake())?.read_table(readings.provider())?;
    let rows = rows.filter(col("sensor").eq(lit(erasure.sensor.as_str())))?;
    let mut sources = Vec::new();
    for batch in rows.aggregate(vec![col("source")], vec![])?.collect().await? {
        sources.extend(crate::frames::texts(batch.column(0))?.iter().flatten().map(str::to_owned));
    }
    Ok(sources)
}

/// Whether a configuration may name a sensor: by its id, or by its place and quantity as devices with a profile do.
fn names(configuration: &str, erasure: &Erasure) -> bool {
    let id = erasure.sensor.as_str();
    let quoted = |part: &str| ['"', '\''].iter().any(|quote| configuration.contains(&format!("{quote}{part}{quote}")));
    configuration.contains(id) || id.rsplit_once('/').is_some_and(|(place, quantity)| quoted(place) && quoted(quantity))
}

async fn text(lake: &Lake, key: &Path) -> Result<Option<String>, LakeError> {
    let failed = |source| LakeError::store(key, source);
    match lake.objects().get(key).await {
        Ok(found) => Ok(Some(String::from_utf8_lossy(&found.bytes().await.map_err(failed)?).into_owned())),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(source) => Err(failed(source)),
    }
}
