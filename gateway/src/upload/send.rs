//! Sending what is sealed, in its order: each object leaves the spool once the lake has it.
//!
//! What landed leaves at once, whatever becomes of what was under way beside it, is counted once, and is not sent again. What
//! may have landed, since its reply was lost, is looked for before its bytes go out a second time.
//!
//! The numbers that this run gave out in an epoch of an earlier run go last, and behind a claim (`contact`): before it
//! everything is in the lake that a copy of this spool has as well.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use tjern_readings::batch;
use tjern_readings::sensor::Epoch;
use tjern_readings::store::is_refusal;

use super::contact;
use super::landing::{self, Outcome};
use super::line::Line;
use super::{Round, UploadError, Uploader};
use crate::spool::{SealedKind, SealedObject, SpoolError};

/// What became of a run of objects.
struct Sent {
    outcome: Outcome,
    round: Round,
    /// One file that cannot be read holds up no other.
    unreadable: Option<UploadError>,
}

impl Uploader {
    /// Sends what is sealed: oldest first, or, where what is new goes first, the current epoch's and then
    /// the oldest. Past `until` nothing more is begun, but for as many as may be under way at once.
    pub(super) async fn send_all(
        &self,
        line: &Line<'_>,
        until: Option<Instant>,
    ) -> Result<(Outcome, Round), UploadError> {
        let mut objects = self.waiting().await;
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
            let closed = self.ours_to_say(line, closed).await?;
            outcome = self.send(line, closed, None).await?.0;
        }
        Ok((outcome, round))
    }

    /// What waits, without what has landed and could not leave (its epoch's end is still to be written): that is tried
    /// again.
    async fn waiting(&self) -> Vec<SealedObject> {
        let mut objects = self.spool.sealed().await;
        for object in self.landed.keep(&objects) {
            self.spool.removed(&object).await;
            objects.retain(|waiting| *waiting != object);
        }
        self.doubtful.keep(&objects);
        objects
    }

    /// The words that epochs are finished of which nothing else waits.
    async fn closed(&self) -> Vec<SealedObject> {
        let objects = self.waiting().await;
        let waits =
            |epoch: Epoch| objects.iter().any(|object| object.epoch == epoch && object.kind != SealedKind::Closed);
        let closed = objects.iter().filter(|object| object.kind == SealedKind::Closed && !waits(object.epoch));
        closed.cloned().collect()
    }

    /// Those of them that are this spool's to say. Where it left an epoch before it gave out a number of its own, its copy may go
    /// on with it, and the claim says whose it is.
    async fn ours_to_say(&self, line: &Line<'_>, closed: Vec<SealedObject>) -> Result<Vec<SealedObject>, UploadError> {
        let Some(claim) = self.claim_due() else { return Ok(closed) };
        let (unclaimed, mut ours): (Vec<_>, Vec<_>) =
            closed.into_iter().partition(|object| object.epoch == claim.epoch);
        let is_anothers = !unclaimed.is_empty() && self.claim(line).await? == Outcome::Foreign;
        if !is_anothers {
            ours.extend(unclaimed);
            return Ok(ours);
        }
        for object in &unclaimed {
            tracing::warn!(epoch = %object.epoch, "a copy of this spool goes on with a former epoch: it is not for this one to finish; hint: give each gateway a spool of its own");
            self.spool.remove(object).await;
        }
        Ok(ours)
    }

    async fn send(
        &self,
        line: &Line<'_>,
        objects: Vec<SealedObject>,
        until: Option<Instant>,
    ) -> Result<(Outcome, Round), UploadError> {
        let claim = self.spool.status().claim;
        let is_own = |object: &SealedObject| claim.is_some_and(|claim| claim.covers(object));
        let (own, shared): (Vec<_>, Vec<_>) = objects.into_iter().partition(is_own);
        let mut sent = self.send_some(line, shared, until).await?;
        if !own.is_empty() && sent.outcome == Outcome::Landed && sent.round == Round::Drained {
            sent.outcome = self.claim(line).await?;
            if sent.outcome == Outcome::Landed {
                let last = self.send_some(line, own, until).await?;
                (sent.outcome, sent.round) = (last.outcome, last.round);
                sent.unreadable = sent.unreadable.or(last.unreadable);
            }
        }
        sent.unreadable.map_or(Ok((sent.outcome, sent.round)), Err)
    }

    /// Claims the numbers of this run, where that is still to be done. [`Outcome::Foreign`] where a copy of this spool was
    /// faster.
    pub(super) async fn claim(&self, line: &Line<'_>) -> Result<Outcome, UploadError> {
        let Some(claim) = self.claim_due() else { return Ok(Outcome::Landed) };
        let outcome = contact::claim(claim, &self.settings.source, line).await?;
        if outcome == Outcome::Landed {
            self.claimed.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(outcome)
    }

    /// Sends objects, as many at once as the link has shown to carry. After a failure nothing more is begun, and what is
    /// under way is waited for: some of it lands.
    async fn send_some(
        &self,
        line: &Line<'_>,
        objects: Vec<SealedObject>,
        until: Option<Instant>,
    ) -> Result<Sent, UploadError> {
        let (current, count) = (self.spool.epoch(), objects.len());
        let mut waiting = objects.into_iter();
        let mut under_way = FuturesUnordered::new();
        let mut sent = Sent { outcome: Outcome::Landed, round: Round::Drained, unreadable: None };
        let (mut begun, mut done, mut failure, mut timed_out) = (0, 0, None, false);
        loop {
            let most = self.window.objects();
            let is_time = |begun: usize| begun < most || until.is_none_or(|until| Instant::now() < until);
            while failure.is_none() && sent.outcome == Outcome::Landed && under_way.len() < most && is_time(begun) {
                let Some(object) = waiting.next() else { break };
                begun += 1;
                under_way.push(async move { (self.send_one(line, &object).await, object) });
            }
            let Some((result, object)) = under_way.next().await else { break };
            done += 1;
            match result {
                Ok(Outcome::Landed) => {
                    self.window.succeeded();
                    if !self.spool.removed(&object).await {
                        self.landed.add(&object);
                    }
                }
                Ok(Outcome::GivenUp) => {}
                // A former epoch has no more numbers to give: what stands there stays, and so does ours.
                Ok(Outcome::Foreign) if object.epoch != current => self.leave_contested(&object).await,
                Ok(Outcome::Foreign) => sent.outcome = Outcome::Foreign,
                Err(error @ UploadError::Spool(_)) => sent.unreadable = Some(error),
                Err(error) => {
                    timed_out |= error.is_timeout();
                    self.doubtful.add(&object);
                    failure = failure.or(Some(error));
                }
            }
        }
        if timed_out {
            self.window.timed_out();
        }
        if done < count {
            sent.round = Round::More;
        }
        failure.map_or(Ok(sent), Err)
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
        let there = match self.doubtful.has(object) {
            true => landing::compare(line, &key, Some(&landed), &bytes).await,
            false => Ok(None),
        };
        let there = match there {
            // Some stores refuse to say of a key that it is not there. The put finds out.
            Err(error) if is_refusal(&error) => None,
            there => there.map_err(|source| UploadError::Get { key: key.clone(), source })?,
        };
        let outcome = match there {
            Some(outcome) => outcome,
            None => landing::put_once(line, &key, Some(&landed), &bytes)
                .await
                .map_err(|source| UploadError::Put { key, source })?,
        };
        if outcome == Outcome::Landed && object.kind == SealedKind::Batch {
            self.settings.state.landed(object.length, self.settings.clock.now_us(), newest_us);
        }
        Ok(outcome)
    }

    /// A gap takes the place of a batch that cannot be read, where the spool finds it so, and is sent in the next round. An object that
    /// has left the spool meanwhile is none of this.
    async fn give_up(&self, object: &SealedObject, error: &(dyn std::error::Error + Sync)) -> Outcome {
        tracing::debug!(bounds = %object.bounds, error = %error, "a batch in the spool cannot be read: the spool looks at it");
        self.spool.give_up(object).await;
        Outcome::GivenUp
    }

    async fn leave_contested(&self, object: &SealedObject) {
        tracing::error!(epoch = %object.epoch, bounds = %object.bounds, "the lake has other readings under numbers of a former epoch; ours are kept aside; hint: look into `kept` in the spool's folder");
        self.spool.set_aside(object).await;
    }
}
