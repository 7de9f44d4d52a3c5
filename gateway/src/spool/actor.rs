//! The one task that owns the spool's files, and decides when to sync.
//!
//! Commands come through one bounded queue; the order in it is the order of the numbers. Work on the disk
//! runs on a thread of its own (`desk`), so that a slow disk stops nobody else, and nobody else the disk. Readings that nobody waits for are
//! gathered for [`GATHER`] first, at most [`GATHER_READINGS`] and one queue of them: among what waits to be written, so
//! that what they came in is free for the next ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use tjern_readings::reading::Reading;
use tjern_readings::rows::Rows;

use super::SpoolStatus;
use super::core::Core;
use super::desk::Desk;
use super::sealed::SealedObject;

/// The most commands that wait; a caller of `append` waits beyond that.
pub(crate) const QUEUE_MAX: usize = 256;

/// A disk that refuses is asked again after this at the latest, however long `sync_every` is.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Beyond this a deadline is as good as none.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the owner of the files is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Rows),
    /// Measured under this configuration.
    AppendMeasured(Rows, Option<String>),
    Sync(oneshot::Sender<bool>),
    /// Answered once what came before is on disk; synced at once where that is said.
    Confirm(bool, oneshot::Sender<()>),
    /// Times after this one are not sure any more.
    Distrust(i64),
    Seal(oneshot::Sender<bool>),
    Offered(oneshot::Sender<Vec<SealedObject>>),
    Remove(SealedObject, oneshot::Sender<bool>),
    GiveUp(SealedObject, oneshot::Sender<()>),
    SetAside(SealedObject, oneshot::Sender<()>),
    Renew(HashMap<i64, Reading>, oneshot::Sender<bool>),
    BeginEpoch(oneshot::Sender<bool>),
    BeginEpochIfUnused(oneshot::Sender<bool>),
    LimitBatches(u64),
    Configure(String, oneshot::Sender<()>),
    Ping(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// Readings that nothing waits for are written together with those that come within this time: before they are
/// synced they do not count anyway, and each time costs a switch to another thread and back.
const GATHER: Duration = Duration::from_millis(100);

/// So many readings are written without waiting for more.
const GATHER_READINGS: usize = 16_384;

/// What is carried out together.
#[derive(Debug)]
struct Gathered {
    /// Readings that the core has taken already, ahead of all commands.
    readings: usize,
    /// From the first on that is more than readings.
    commands: Vec<Command>,
    until: Instant,
}

impl Gathered {
    fn new() -> Self {
        Self { readings: 0, commands: Vec::new(), until: Instant::now() }
    }

    fn is_empty(&self) -> bool {
        self.readings == 0 && self.commands.is_empty()
    }

    /// Takes what came, in its order.
    fn add(&mut self, came: &mut Vec<Command>, core: &mut Core) {
        if self.is_empty() {
            self.until = Instant::now() + GATHER;
        }
        for command in came.drain(..) {
            match command {
                Command::Append(readings) if self.commands.is_empty() => {
                    self.readings += readings.len();
                    core.take(readings);
                }
                command => self.commands.push(command),
            }
        }
    }

    /// Whether more may come before they are carried out: somebody waits for whatever is more than readings.
    fn may_wait(&self, due_at: Instant) -> bool {
        let is_enough = !self.commands.is_empty() || self.readings >= GATHER_READINGS;
        !self.is_empty() && !is_enough && Instant::now() < self.until.min(due_at)
    }
}

/// Carries out commands until one says to close, or nobody is left to send any.
pub(crate) async fn run(mut core: Core, mut commands: mpsc::Receiver<Command>, status: Arc<Mutex<SpoolStatus>>) {
    let sync_every = core.settings.sync_every.min(FAR);
    let desk = Desk::of(&core.clock);
    // Nothing was synced yet: what comes first is synced at once.
    let mut due_at = Instant::now();
    let (mut came, mut gathered) = (Vec::new(), Gathered::new());
    loop {
        let waits = !gathered.is_empty();
        let wake_at = if waits { gathered.until.min(due_at) } else { due_at };
        tokio::select! {
            count = commands.recv_many(&mut came, QUEUE_MAX) => if count == 0 {
                came.push(Command::Close(oneshot::channel().0));
            },
            () = tokio::time::sleep_until(wake_at), if waits || core.has_unsynced() || core.recovery_due.is_some() => {}
        }
        gathered.add(&mut came, &mut core);
        if gathered.may_wait(due_at) {
            continue;
        }
        let batch = std::mem::replace(&mut gathered, Gathered::new());
        let is_due = Instant::now() >= due_at;
        let shown = Arc::clone(&status);
        let work = desk.carry_out(move || {
            let done = work(&mut core, batch, is_due, &shown);
            (core, done)
        });
        // It fails only if the runtime ends, or the work panics, which for the spool is a crash like any other.
        let Some((back, done)) = work.await else { return };
        core = back;
        if let Some(closed) = done.closed {
            drop(core);
            // Whoever asked may have gone.
            let _ = closed.send(());
            return;
        }
        if done.synced {
            let pause = if core.in_trouble() { sync_every.min(RETRY_MAX) } else { sync_every };
            due_at = Instant::now() + pause;
        }
    }
}

/// What came of a round of commands.
#[derive(Default)]
struct Done {
    /// A sync was tried.
    synced: bool,
    closed: Option<oneshot::Sender<()>>,
    /// Readings were taken and are not written yet.
    taken: bool,
}

impl Done {
    /// Writes what was taken, all of it together.
    fn write(&mut self, core: &mut Core) {
        if std::mem::take(&mut self.taken) {
            core.write_taken();
        }
    }
}

fn work(core: &mut Core, batch: Gathered, is_due: bool, status: &Mutex<SpoolStatus>) -> Done {
    let mut done = Done { taken: batch.readings > 0, ..Done::default() };
    for command in batch.commands {
        if !matches!(command, Command::Append(_)) {
            done.write(core);
        }
        carry_out(core, command, status, &mut done);
    }
    done.write(core);
    let close = done.closed.is_some();
    // A spool that waits for its disk has something to do for those that wait for it.
    if (core.has_unsynced() || core.recovery_due.is_some()) && (is_due || close) {
        core.sync();
        done.synced = true;
    }
    show(core, status);
    done
}

fn carry_out(core: &mut Core, command: Command, status: &Mutex<SpoolStatus>, done: &mut Done) {
    match command {
        Command::Append(readings) => {
            core.take(readings);
            done.taken = true;
        }
        Command::AppendMeasured(readings, configuration) => {
            core.take_measured(readings, configuration.as_deref());
            done.taken = true;
        }
        Command::Sync(reply) => {
            done.synced |= core.has_unsynced();
            answer(reply, core.sync(), core, status);
        }
        Command::Confirm(at_once, reply) => {
            core.confirm(reply);
            if at_once {
                done.synced |= core.has_unsynced();
                core.sync();
            }
        }
        Command::Distrust(after_us) => {
            done.synced |= core.has_unsynced();
            core.distrust(after_us);
        }
        Command::Seal(reply) => {
            done.synced |= core.has_unsynced();
            answer(reply, core.seal(), core, status);
        }
        Command::Offered(reply) => answer(reply, core.offered(), core, status),
        Command::Remove(object, reply) => {
            let is_away = core.remove(&object);
            answer(reply, is_away, core, status);
        }
        Command::GiveUp(object, reply) => {
            core.give_up(&object);
            answer(reply, (), core, status);
        }
        Command::SetAside(object, reply) => {
            core.set_aside(&object);
            answer(reply, (), core, status);
        }
        Command::Renew(landed, reply) => answer(reply, core.renew(&landed), core, status),
        Command::BeginEpoch(reply) => {
            done.synced |= core.has_unsynced();
            answer(reply, core.begin_live_epoch(), core, status);
        }
        Command::BeginEpochIfUnused(reply) => {
            done.synced |= core.has_unsynced();
            answer(reply, core.begin_live_epoch_if_unused(), core, status);
        }
        Command::LimitBatches(bytes) => core.batch_bytes = bytes,
        Command::Configure(sha256, reply) => {
            done.synced |= core.has_unsynced();
            core.seal();
            core.set_configuration(sha256);
            answer(reply, (), core, status);
        }
        Command::Ping(reply) => answer(reply, (), core, status),
        Command::Close(reply) => done.closed = Some(reply),
    }
}

/// Answers once the status says the same.
fn answer<T>(reply: oneshot::Sender<T>, result: T, core: &Core, status: &Mutex<SpoolStatus>) {
    show(core, status);
    // Whoever asked may have gone.
    let _ = reply.send(result);
}

fn show(core: &Core, status: &Mutex<SpoolStatus>) {
    *status.lock().unwrap_or_else(PoisonError::into_inner) = core.status();
}
