//! A round of uploads: the configurations, a look for copies of this spool, what is sealed, and what is to be done where another one
//! writes under its numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use tjern_readings::keys::Landed;

use super::contact;
use super::landing::{self, Outcome};
use super::line::Line;
use super::{UploadError, Uploader};
use crate::spool::Claim;

/// What is left after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// Everything that was sealed is in the lake.
    Drained,
    /// It was time to look for something new first.
    More,
}

impl Uploader {
    /// Uploads what is sealed, until it is time to seal again.
    pub(super) async fn round(&mut self, until: Option<Instant>) -> Result<Round, UploadError> {
        let store = self.open().await?.objects();
        let state = self.settings.state.clone();
        let (pace, window) = (Arc::clone(&self.pace), Arc::clone(&self.window));
        let is_folder = self.settings.lake.local_folder().is_some();
        let is_forgeable = self.settings.is_forgeable;
        let line = Line { store: &*store, state: &state, pace: &pace, window: &window, is_folder, is_forgeable };
        self.round_over(&line, until).await
    }

    async fn round_over(&mut self, line: &Line<'_>, until: Option<Instant>) -> Result<Round, UploadError> {
        self.send_configurations(line).await;
        if self.spool.status().is_unread {
            // Its epoch is not known yet, nor what waits.
            return Ok(Round::Drained);
        }
        let live_is_due = self.live_is_due().await;
        if live_is_due || self.look_is_due() {
            let is_first = self.looks.is_first();
            if contact::is_contested(&self.spool, &self.settings.source, line, is_first).await? {
                self.renew(line).await?;
            } else if live_is_due {
                self.begin_live(line).await?;
            }
            self.looks.looked();
        }
        let (outcome, round) = self.send_all(line, until).await?;
        if outcome == Outcome::Foreign {
            self.renew(line).await?;
            return Ok(self.send_all(line, until).await?.1);
        }
        Ok(round)
    }

    /// Whether it is to be looked for a copy of this spool: before anything is sent, and not where nothing is.
    fn look_is_due(&self) -> bool {
        self.looks.is_first() || (self.looks.is_due() && self.spool.status().sealed_count > 0)
    }

    /// What this run has to claim before it sends its own numbers.
    pub(super) fn claim_due(&self) -> Option<Claim> {
        self.spool.status().claim.filter(|_| !self.claimed.load(Ordering::Relaxed))
    }

    /// Begins an epoch for what is new, if the lake takes objects again. Its former one has no more numbers to give: what this run
    /// gave out of them is claimed first. Where that is nothing there is nothing to claim yet: a restart would have the same number
    /// to claim, and take itself for a copy.
    async fn begin_live(&mut self, line: &Line<'_>) -> Result<(), UploadError> {
        // The first reading may come meanwhile.
        for _ in 0..2 {
            if self.has_given_out().await && self.claim(line).await? == Outcome::Foreign {
                // A copy goes on with the epoch, and has to send what is from before the claim as well: under the same numbers it is
                // there once. What is this run's own is numbered anew when nothing else waits.
                tracing::warn!(epoch = %self.spool.epoch(), "a copy of this spool is at work: what both have goes first, and what is new behind it");
                self.failing_since = None;
                return Ok(());
            }
            if !self.takes_again(line).await? {
                return Ok(());
            }
            let has_begun = match self.claim_due() {
                Some(_) => self.spool.begin_epoch_if_unused().await,
                None => self.spool.begin_epoch().await,
            };
            if has_begun {
                self.failing_since = None;
                tracing::info!("the lake is back after a long time: what is new goes first, what waited behind it");
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether this run gave out numbers that it has not claimed. They are on disk: a restart has a later one to claim.
    async fn has_given_out(&self) -> bool {
        self.spool.sync().await;
        let status = self.spool.status();
        self.claim_due().is_some_and(|claim| claim.epoch == status.epoch && status.synced_seq >= claim.first_seq)
    }

    /// Whether the lake takes objects again: one that lists and refuses to store is not back.
    async fn takes_again(&self, line: &Line<'_>) -> Result<bool, UploadError> {
        let Some(oldest) = self.spool.sealed().await.first().cloned() else { return Ok(true) };
        let landed = matches!(self.send_one(line, &oldest).await?, Outcome::Landed);
        if landed {
            self.spool.remove(&oldest).await;
        }
        Ok(landed)
    }

    /// Whether so much waits after so long an outage that what is new should not wait behind it.
    async fn live_is_due(&mut self) -> bool {
        let Some(after) = self.settings.live_first_after else { return false };
        let outage = self.failing_since.is_some_and(|since| since.elapsed() >= after);
        // A power cut is an outage as well, of which only the readings tell.
        let waited =
            || self.settings.clock.now_us() - self.settings.state.snapshot().oldest_waiting_us.unwrap_or(i64::MAX / 2);
        let is_old = self.looks.is_first() && waited() >= i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        if !outage && !is_old {
            return false;
        }
        let current = self.spool.epoch();
        let waiting = self.spool.sealed().await.iter().filter(|object| object.epoch == current).count();
        waiting > self.settings.limits.in_flight()
    }

    /// Sends each configuration's text once. Batches do not wait for it.
    async fn send_configurations(&mut self, line: &Line<'_>) {
        for (sha256, text) in self.settings.unsent.all() {
            let landed = Landed::Configuration(sha256.clone());
            let key = landed.key(&self.settings.source);
            match landing::put_once(line, &key, Some(&landed), &text.into()).await {
                Ok(Outcome::Landed | Outcome::GivenUp) => self.settings.unsent.sent(&sha256).await,
                Ok(Outcome::Foreign) => {
                    tracing::error!(%key, "the lake has another text under this configuration's hash; it is left alone");
                    self.settings.unsent.sent(&sha256).await;
                }
                Err(error) => {
                    tracing::debug!(%key, %error, "cannot upload the configuration yet");
                    return;
                }
            }
        }
    }

    /// This spool is a copy: what the lake has of it goes, the rest gets new numbers.
    async fn renew(&self, line: &Line<'_>) -> Result<(), UploadError> {
        tracing::error!(epoch = %self.spool.epoch(), "another gateway writes under this spool's numbers: it was cloned or restored; it begins a new epoch; hint: give each gateway a spool of its own");
        let known = contact::landed_objects(&self.spool, &self.settings.source, line).await?;
        for object in known {
            self.spool.remove(&object).await;
        }
        let landed = contact::landed_readings(&self.spool, &self.settings.source, line).await?;
        if self.spool.renew_epoch_without(landed).await { Ok(()) } else { Err(UploadError::Renewal) }
    }
}
