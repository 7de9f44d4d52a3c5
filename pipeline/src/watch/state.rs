//! What is wrong, what is still to be told, and when sources were heard last: one object, `jobs/watch/state.json` in the lake.
//!
//! Invariants: an event is put into the queue of every way of telling that is configured, in the same write as the
//! condition's begin or end; it leaves a queue only once it was told on that way. A condition is over once it
//! has not been seen for [`CALM_US`], so that a value that swings about its limit is told once. A way that has no queue
//! yet was configured later: it is told what is wrong already.
//!
//! Limits: a queue holds [`QUEUE_MAX`] events; of more, the oldest go, and it is counted.

use std::collections::{BTreeMap, VecDeque};

use object_store::{Error, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys;

use super::alert::{Change, Condition, Event, Kind};
use crate::jobs::record::Moment;

/// For how long a condition is not seen before it is over.
pub const CALM_US: i64 = 10 * 60 * 1_000_000;

/// The most events that wait for a receiver.
pub const QUEUE_MAX: usize = 10_000;

/// A source that was not heard for so long is no source any more.
pub const SOURCE_FORGOTTEN_US: i64 = 30 * 24 * 3_600 * 1_000_000;

/// How much newer a source's word must be to be written down.
const SOURCE_STEP_US: i64 = 3_600 * 1_000_000;

const FORMAT: u32 = 1;

/// All that lasts of the watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// When the watch began: what was never heard is late only so long after.
    pub born: Moment,
    /// What is wrong, by its key.
    pub alerts: BTreeMap<String, Alert>,
    /// What is still to be told, by the way of telling.
    pub queues: BTreeMap<String, Queue>,
    /// When each source was heard last, to the hour.
    pub sources: BTreeMap<String, Moment>,
    /// Up to when it was told what ingest refused.
    #[serde(default = "nothing_told")]
    pub refused: Moment,
    /// Up to when values that were taken by then were held against their limits, at the last round that wrote anything: later
    /// ones, in which nothing was wrong, cost no request for it. None: by whoever wrote this, the newest values only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Moment>,
}

/// A state that was written before this was kept told what it knew of.
const fn nothing_told() -> Moment {
    Moment(0)
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What.
    pub kind: Kind,
    /// With what.
    pub subject: String,
    /// In a sentence, as it was when it began.
    pub text: String,
    /// When it was first seen.
    pub since: Moment,
    /// Since when it is not seen any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calm_since: Option<Moment>,
}

impl Alert {
    /// What is wrong.
    #[must_use]
    pub fn condition(&self) -> Condition {
        Condition { kind: self.kind, subject: self.subject.clone(), text: self.text.clone() }
    }
}

/// Events that wait for a receiver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The oldest first.
    pub events: VecDeque<Event>,
    /// How many had to go for want of room since something was told.
    #[serde(default)]
    pub dropped: u64,
    /// Since when its receiver is refused for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_since: Option<Moment>,
}

impl State {
    /// The state of a watch that begins.
    #[must_use]
    pub const fn new(now_us: i64) -> Self {
        Self {
            format: FORMAT,
            born: Moment(now_us),
            alerts: BTreeMap::new(),
            queues: BTreeMap::new(),
            sources: BTreeMap::new(),
            refused: Moment(now_us),
            values: Some(Moment(now_us)),
        }
    }

    /// Takes what is wrong now; what begins and what is over is put into the queues of these ways of telling.
    pub fn update(&mut self, conditions: &[Condition], ways: &[&str], now_us: i64) {
        self.queues.retain(|way, _| ways.contains(&way.as_str()));
        for way in ways {
            self.introduce(way);
        }
        let seen: BTreeMap<String, &Condition> =
            conditions.iter().map(|condition| (condition.key(), condition)).collect();
        for (key, condition) in &seen {
            match self.alerts.get_mut(key) {
                Some(alert) => alert.calm_since = None,
                None => {
                    let Condition { kind, subject, text } = (*condition).clone();
                    let alert = Alert { kind, subject, text, since: Moment(now_us), calm_since: None };
                    self.tell(&alert, Change::Begun, ways, now_us);
                    self.alerts.insert(key.clone(), alert);
                }
            }
        }
        for key in self.alerts.keys().filter(|key| !seen.contains_key(*key)).cloned().collect::<Vec<_>>() {
            let Some(alert) = self.alerts.get_mut(&key) else { continue };
            let calm_since = *alert.calm_since.get_or_insert(Moment(now_us));
            // A clock that was set back begins the calm anew.
            if calm_since.0 > now_us {
                alert.calm_since = Some(Moment(now_us));
            } else if now_us - calm_since.0 >= CALM_US {
                let alert = alert.clone();
                self.alerts.remove(&key);
                self.tell(&alert, Change::Ended, ways, calm_since.0);
            }
        }
    }

    /// Gives the queue of a way to each of the ways that have come in its place: those whose name goes on with `:`.
    pub fn share(&mut self, way: &str, among: &[&str]) {
        let Some(queue) = self.queues.remove(way) else { return };
        let is_part = |name: &&&str| name.strip_prefix(way).is_some_and(|rest| rest.starts_with(':'));
        for name in among.iter().filter(is_part) {
            self.queues.entry((*name).to_owned()).or_insert_with(|| queue.clone());
        }
    }

    /// When each source was heard last, given what is seen now: what is written down is rounded, and only good for
    /// what is not seen any more.
    #[must_use]
    pub fn newest(&self, seen: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
        let mut newest = seen.clone();
        for (source, heard) in &self.sources {
            let known_us = newest.entry(source.clone()).or_insert(heard.0);
            *known_us = (*known_us).max(heard.0);
        }
        newest
    }

    /// Takes when sources were heard last.
    pub fn heard(&mut self, sources: impl IntoIterator<Item = (String, i64)>, now_us: i64) {
        for (source, heard_us) in sources {
            let known = self.sources.entry(source).or_insert(Moment(i64::MIN));
            if heard_us.saturating_sub(known.0) >= SOURCE_STEP_US || known.0 == i64::MIN {
                *known = Moment(heard_us);
            }
        }
        let is_forgotten = |heard: &Moment| now_us.saturating_sub(heard.0) >= SOURCE_FORGOTTEN_US;
        for (source, _) in self.sources.iter().filter(|(_, heard)| is_forgotten(heard)) {
            // It is no source any more; that it is silent is not over, and nobody shall be told so.
            self.alerts.remove(&Condition::key_of(Kind::SourceSilent, source));
        }
        self.sources.retain(|_, heard| !is_forgotten(heard));
    }

    /// Whether an alert is about a source that was forgotten.
    #[must_use]
    pub fn has_forgotten(&self, alert: &Alert) -> bool {
        alert.kind == Kind::SourceSilent && !self.sources.contains_key(&alert.subject)
    }

    /// Tells a way that has no queue yet what is wrong already. What begins while a way is there gives it a queue.
    fn introduce(&mut self, way: &str) {
        if self.queues.contains_key(way) {
            return;
        }
        let mut open: Vec<Alert> = self.alerts.values().cloned().collect();
        open.sort_by_key(|alert| alert.since);
        for alert in &open {
            self.tell(alert, Change::Begun, &[way], 0);
        }
    }

    fn tell(&mut self, alert: &Alert, change: Change, ways: &[&str], until_us: i64) {
        let word = if change == Change::Begun { "begun" } else { "ended" };
        let event = Event {
            id: format!("{}:{}:{}:{word}", alert.kind.as_str(), alert.subject, alert.since),
            change,
            kind: alert.kind,
            subject: alert.subject.clone(),
            text: alert.text.clone(),
            since: alert.since,
            until: (change == Change::Ended).then_some(Moment(until_us)),
        };
        for way in ways {
            let queue = self.queues.entry((*way).to_owned()).or_default();
            queue.events.push_back(event.clone());
            while queue.events.len() > QUEUE_MAX {
                queue.events.pop_front();
                queue.dropped += 1;
            }
        }
    }

    /// The state in the lake; `None` where there is none. One that cannot be read counts as none and is told in
    /// the log: everything that is wrong is then told again.
    ///
    /// # Errors
    /// [`LakeError::Store`].
    pub async fn read(lake: &Lake) -> Result<Option<Self>, LakeError> {
        let key = keys::watch_state();
        let failed = |source| LakeError::store(&key, source);
        let bytes = match lake.objects().get(&key).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(state) if state.format == FORMAT => Ok(Some(state)),
            _ => {
                tracing::warn!(%key, "the state of the watch cannot be read; it begins anew, and tells again what is wrong");
                Ok(None)
            }
        }
    }

    /// Writes the state into the lake.
    ///
    /// # Errors
    /// [`LakeError::Store`].
    pub async fn write(&self, lake: &Lake) -> Result<(), LakeError> {
        let key = keys::watch_state();
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let put = lake.objects().put(&key, PutPayload::from(bytes)).await;
        put.map(drop).map_err(|source| LakeError::store(&key, source))
    }
}

#[cfg(test)]
mod tests;
