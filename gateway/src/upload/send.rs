//! Sending what is sealed, in its order: each object leaves the spool once the lake has it.

use futures::{StreamExt, stream};
use tokio::time::Instant;

use tjern_readings::batch;
use tjern_readings::sensor::Epoch;

use super::landing::{self, Outcome};
use super::line::Line;
use super::{Round, UploadError, Uploader};
use crate::spool::{SealedKind, SealedObject, SpoolError};

impl Uploader {
    /// Sends what is sealed: oldest first, or, where what is new goes first, the current epoch's and then
    /// the oldest. Past `until` nothing more is begun, but for as many as may be under way at once.
    pub(super) async fn send_all(
        &self,
        line: &Line<'_>,
        until: Option<Instant>,
    ) -> Result<(Outcome, Round), UploadError> {
        let mut objects = self.spool.sealed().await;
        objects.retain(|object| object.kind != SealedKind::Closed);
        if self.settings.live_first_after.is_some() {
            let current = self.spool.epoch();
            let (live, former): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object.epoch == current);
            if former.is_empty() {
                objects = live;
            } else {
                let (outcome, _) = self.send(line, live, None).await?;
                if outcome == Outcome::Foreign {
                    return Ok((outcome, Round::More));
                }
                objects = former;
            }
        }
        let (mut outcome, round) = self.send(line, objects, until).await?;
        if outcome == Outcome::Landed {
            let closed = self.closed().await;
            outcome = self.send(line, closed, None).await?.0;
        }
        Ok((outcome, round))
    }

    /// The words that epochs are finished of which nothing else waits.
    async fn closed(&self) -> Vec<SealedObject> {
        let objects = self.spool.sealed().await;
        let waits =
            |epoch: Epoch| objects.iter().any(|object| object.epoch == epoch && object.kind != SealedKind::Closed);
        let closed = objects.iter().filter(|object| object.kind == SealedKind::Closed && !waits(object.epoch));
        closed.cloned().collect()
    }

    async fn send(
        &self,
        line: &Line<'_>,
        objects: Vec<SealedObject>,
        until: Option<Instant>,
    ) -> Result<(Outcome, Round), UploadError> {
        let (current, in_flight, count) = (self.spool.epoch(), self.settings.limits.in_flight(), objects.len());
        let is_time = |index: usize| index < in_flight || until.is_none_or(|until| Instant::now() < until);
        let begun = objects.into_iter().enumerate().take_while(|(index, _)| is_time(*index));
        let sending = begun.map(|(_, object)| async {
            let result = self.send_one(line, &object).await;
            (object, result)
        });
        let mut results = stream::iter(sending).buffered(in_flight);
        let (mut contested, mut unreadable, mut done) = (Outcome::Landed, None, 0);
        while let Some((object, result)) = results.next().await {
            done += 1;
            match result {
                Ok(Outcome::Landed) => self.spool.remove(&object).await,
                // A former epoch has no more numbers to give: what stands there stays, and so does ours.
                Ok(Outcome::Foreign) if object.epoch != current => self.leave_contested(&object).await,
                Ok(Outcome::Foreign) => contested = Outcome::Foreign,
                // One file that cannot be read holds up no other.
                Err(error @ UploadError::Spool(_)) => unreadable = Some(error),
                Err(error) => return Err(error),
            }
        }
        let round = if done < count { Round::More } else { Round::Drained };
        unreadable.map_or(Ok((contested, round)), Err)
    }

    pub(super) async fn send_one(&self, line: &Line<'_>, object: &SealedObject) -> Result<Outcome, UploadError> {
        let bytes = match self.spool.bytes(object).await {
            Err(SpoolError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(self.give_up(object, &source).await);
            }
            bytes => bytes?,
        };
        let mut newest_us = None;
        if let Some(times_us) = self.spool.sealed_times_us(object, &bytes) {
            newest_us = Some(times_us.1);
        } else if object.kind == SealedKind::Batch {
            match batch::decode(&bytes).and_then(|batch| batch.times_us()) {
                Ok(times_us) => newest_us = times_us.map(|(_, newest_us)| newest_us),
                Err(error) => return Ok(self.give_up(object, &error).await),
            }
        }
        let landed = object.landed();
        let key = landed.key(&self.settings.source);
        let put = landing::put_once(line, &key, &landed, &bytes).await;
        if matches!(put, Ok(Outcome::Landed)) && object.kind == SealedKind::Batch {
            self.settings.state.landed(object.length, self.settings.clock.now_us(), newest_us);
        }
        put.map_err(|source| UploadError::Put { key, source })
    }

    /// A gap takes the place of a batch that cannot be read, and is sent in the next round. An object that
    /// has left the spool meanwhile is none of this.
    async fn give_up(&self, object: &SealedObject, error: &(dyn std::error::Error + Sync)) -> Outcome {
        tracing::error!(bounds = %object.bounds, error = %error, "a batch in the spool cannot be read: a gap takes its place");
        self.spool.give_up(object).await;
        Outcome::Landed
    }

    async fn leave_contested(&self, object: &SealedObject) {
        tracing::error!(epoch = %object.epoch, bounds = %object.bounds, "the lake has other readings under numbers of a former epoch; ours are kept aside; hint: look into `kept` in the spool's folder");
        self.spool.set_aside(object).await;
    }
}
