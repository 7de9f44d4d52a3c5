//! What waits for the lake, told to the upload's state: between rounds, and while one lasts.

use tjern_readings::batch;

use super::state::UploadState;
use crate::spool::{SealedKind, SealedObject, Spool};

/// Looks at what waits.
#[derive(Debug)]
pub(super) struct Observer {
    spool: Spool,
    state: UploadState,
    /// The oldest time in the batch that waits longest.
    oldest: Option<(SealedObject, Option<i64>)>,
}

impl Observer {
    pub(super) const fn new(spool: Spool, state: UploadState) -> Self {
        Self { spool, state, oldest: None }
    }

    /// Says what waits. What should be sealed and cannot be waits for the lake as well, and nobody else would tell.
    pub(super) async fn look(&mut self) {
        let objects = self.spool.sealed().await;
        let oldest = objects.iter().find(|object| object.kind == SealedKind::Batch);
        if self.oldest.as_ref().map(|(object, _)| object) != oldest {
            self.oldest = match oldest {
                None => None,
                Some(object) => {
                    let times_us = match self.spool.known_times_us(object) {
                        Some(times_us) => Some(times_us),
                        None => self.decoded_times_us(object).await,
                    };
                    Some((object.clone(), times_us.map(|(oldest_us, _)| oldest_us)))
                }
            };
        }
        let bytes = objects.iter().map(|object| object.length).sum();
        let sealed_us = self.oldest.as_ref().and_then(|(_, time_us)| *time_us);
        let overdue_us = self.spool.status().overdue_us;
        let oldest_us = sealed_us.into_iter().chain(overdue_us).min();
        self.state.waiting(objects.len() as u64, bytes, oldest_us);
    }

    async fn decoded_times_us(&self, object: &SealedObject) -> Option<(i64, i64)> {
        let bytes = self.spool.bytes(object).await.ok()?;
        batch::decode(&bytes).ok()?.times_us().ok().flatten()
    }
}
