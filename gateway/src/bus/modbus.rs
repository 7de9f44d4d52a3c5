//! The actor of a Modbus bus: it waits, asks, and hands readings on; what is asked is `poll`'s to say.
//!
//! A transaction is never ended half way. A line that is missing is tried again by its master.

use std::sync::Arc;
use std::time::Duration;

use tjern_readings::rows::Rows;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::BusContext;
use super::device::{Device, Job, Timing};
use super::learned::{BusMemory, Keeper};
use super::line_news::{LineNews, News};
use super::poll::{Polling, Setting};
use super::state::{BusState, LineState};
use crate::config::ModbusDevice;
use crate::modbus::Master;
use crate::modbus::transport::{Asked, Failure, Reply};

/// How often it is looked whether slots were missed: a line a minute, not a line a slot. What was learned is written
/// as often.
const LOOK: Duration = Duration::from_secs(60);

/// A turnaround alone is written no more often: it is measured anew anyway, and cards wear out.
const TURNAROUND_KEPT_EVERY: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
pub(super) struct Actor {
    name: String,
    master: Master,
    polling: Polling,
    context: BusContext,
    state: Arc<BusState>,
    /// Until then the master lets the line fall silent.
    drained_at: Instant,
    /// When the last answer came, and how long who gave it is left alone: no part of what the next one takes.
    left_alone: Instant,
    left_gap: Duration,
    keeper: Keeper,
    kept: BusMemory,
    kept_at: Instant,
    line: LineNews,
    missed_noted: u64,
    looked_at: Instant,
}

/// When a transaction began.
#[derive(Debug, Clone, Copy)]
struct Begun {
    at: Instant,
    measured_from: Instant,
    /// Whether it says something about the device, and not about what was before.
    is_measure: bool,
    gap: Duration,
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Actor {
    pub(super) fn new(
        setting: Setting,
        master: Master,
        devices: &[ModbusDevice],
        (keeper, memory): (Keeper, BusMemory),
        context: BusContext,
    ) -> Self {
        let polling = Polling::new(&setting, devices, memory.clone(), &context);
        let cells = polling.devices().map(|device: &Device| Arc::clone(&device.cell)).collect();
        let state = context.states.begin(&setting.name, setting.kind, cells);
        if let Some(stats) = master.stats() {
            state.count_wire(stats);
        }
        if let Some(strangers) = master.strangers() {
            state.count_strangers(strangers);
        }
        let drained_at = Instant::now() + master.quiet_left();
        Self {
            name: setting.name,
            master,
            polling,
            context,
            state,
            drained_at,
            left_alone: Instant::now(),
            left_gap: Duration::ZERO,
            keeper,
            kept: memory,
            kept_at: Instant::now(),
            line: LineNews::default(),
            missed_noted: 0,
            looked_at: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.context.stop.clone();
        while !stop.is_cancelled() {
            self.state.turn();
            let (now_us, now) = (self.context.clock.now_us(), Instant::now());
            let readings = self.polling.look(now_us, now);
            self.context.store(readings).await;
            self.look_back().await;
            if self.serve().await {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(self.polling.pause(now_us, now)) => {}
            }
        }
        let readings = self.polling.give_up(self.context.clock.now_us());
        self.context.store(readings).await;
        if self.polling.memory() != self.kept {
            self.keeper.keep(&self.polling.memory()).await;
        }
        self.keeper.end().await;
        debug!(bus = self.name, missed = self.polling.missed(), "bus stopped");
    }

    /// One transaction, if one is due; several at once where the bus is known to bear them.
    async fn serve(&mut self) -> bool {
        let jobs = self.polling.next_together(Instant::now());
        if jobs.is_empty() {
            return false;
        }
        let asked_us = self.context.clock.now_us();
        let mut begun = self.begin(&jobs);
        let requests: Vec<Asked> = jobs.iter().map(|one| self.polling.asked(one)).collect();
        let result = self.master.read_together(&requests).await;
        let (ended_us, now) = (self.context.clock.now_us(), Instant::now());
        begun.is_measure &= !self.master.was_probed();
        // After a lost answer the master leaves the bus alone until no late one is to be expected.
        let drain = self.master.quiet_left();
        self.drained_at = now + drain;
        (self.left_alone, self.left_gap) = (now, begun.gap);
        let failure = result.as_ref().err().or_else(|| result.as_ref().ok()?.first()?.result.as_ref().err());
        self.note_line(failure);
        let replies = match result {
            Ok(replies) => replies,
            Err(failure) if jobs.len() == 1 => vec![Reply { result: Err(failure), at: now }],
            Err(failure) => {
                let cost = now.saturating_duration_since(begun.at) + drain;
                self.polling.fell_through(&jobs, &failure, (cost, now));
                return true;
            }
        };
        let mut order: Vec<(&(usize, Job), Reply)> = jobs.iter().zip(replies).collect();
        order.sort_by_key(|(_, reply)| reply.at);
        let (mut readings, mut before) = (Rows::default(), begun);
        for (job, Reply { result, at }) in order {
            let timing = Timing {
                asked_us,
                answered_us: ended_us - micros(now.saturating_duration_since(at)),
                now: at,
                took: at.saturating_duration_since(before.measured_from),
                is_measure: before.is_measure,
                // What several answers took is charged to each from the one before on; a drain follows one alone.
                cost: at.saturating_duration_since(before.at) + drain,
                turn: 0,
            };
            before = Begun { at, measured_from: at, ..before };
            readings.append(self.polling.ended((job.0, &job.1), result.as_ref(), timing));
        }
        if jobs.len() > 1 {
            self.polling.went_well(now);
        }
        self.context.store(readings).await;
        true
    }

    /// From when on a transaction is charged and measured that is about to begin.
    fn begin(&self, jobs: &[(usize, Job)]) -> Begun {
        let (asked, gap) = (Instant::now(), self.polling.gap(jobs));
        // The drain after a failure was charged to whom it is owed to.
        let at = asked.max(self.drained_at);
        // What is configured is no part of what the device needs: `plan` adds it by itself.
        let measured_from = at.max(self.left_alone + gap.max(self.left_gap)) + self.master.connect_pause();
        Begun { at, measured_from, is_measure: asked >= self.drained_at, gap }
    }

    /// What is done now and then: missed slots are told, what was learned is written.
    async fn look_back(&mut self) {
        if self.looked_at.elapsed() < LOOK {
            return;
        }
        self.looked_at = Instant::now();
        let missed = self.polling.missed();
        if missed > self.missed_noted {
            let slots = missed - self.missed_noted;
            warn!(bus = self.name, slots, "slots passed without a poll: the bus is slower than its points' `every`");
        }
        self.missed_noted = missed;
        let memory = self.polling.memory();
        let learned = memory.iter().any(|(unit_id, device)| {
            self.kept.get(unit_id).is_none_or(|kept| {
                kept.learned != device.learned || kept.turnaround.is_none() && device.turnaround.is_some()
            })
        });
        if learned || memory != self.kept && self.kept_at.elapsed() >= TURNAROUND_KEPT_EVERY {
            self.keeper.keep(&memory).await;
            (self.kept, self.kept_at) = (memory, Instant::now());
        } else {
            self.keeper.go_on().await;
        }
    }

    /// What is newest is shown. In the log it is a line a change, not a line a poll.
    fn note_line(&mut self, failure: Option<&Failure>) {
        // What was the matter when it was last tried still is, as far as one knows.
        if self.line.is_away() && failure.is_some_and(Failure::is_untried) {
            return;
        }
        let line = match failure {
            Some(failure) if failure.is_babble() => LineState::Babbles(failure.detail.clone()),
            Some(failure) if failure.is_of_line() => LineState::Missing(failure.detail.clone()),
            _ => LineState::Up,
        };
        match (self.line.note(&line), &line) {
            (News::Nothing, _) => return,
            (News::Known, _) => {}
            (News::Changed, LineState::Missing(why)) => warn!(bus = self.name, "not reachable, trying again: {why}"),
            (News::OtherReason, LineState::Missing(why)) => {
                warn!(bus = self.name, "trying again, for another reason now: {why}");
            }
            (_, LineState::Babbles(why)) => warn!(bus = self.name, "nothing can be asked, trying again: {why}"),
            (_, LineState::Up) => info!(bus = self.name, "reachable"),
        }
        self.state.set_line(line);
    }
}
