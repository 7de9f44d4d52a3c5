//! The buses that are read now. Each has a task of its own; a reload ends and begins those that differ, and
//! the others do not notice.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

use crate::bus::{self, BusContext};
use crate::config::{Bus, Config, Fingerprint};
use crate::status::{BusPlace, TURN_TIMEOUTS};

/// Transactions under way get at least so long to end, and longer where their bus's `timeout` asks for it.
const GRACE_MIN: Duration = Duration::from_secs(10);

/// But no longer: a gateway that ends has a minute, and its spool and its uploads need the rest of it.
const GRACE_MAX: Duration = Duration::from_secs(20);

/// An actor that failed is begun anew after this.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The buses that are read.
#[derive(Debug)]
pub(super) struct Buses {
    context: BusContext,
    running: Vec<RunningBus>,
    begun: u64,
}

#[derive(Debug)]
struct RunningBus {
    name: String,
    fingerprint: Fingerprint,
    place: BusPlace,
    timeout: Duration,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// What a new configuration changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Buses that end: they are gone, or begin anew in another way.
    pub(super) ending: Vec<String>,
    /// Buses that begin.
    pub(super) beginning: Vec<String>,
    /// Buses that go on.
    pub(super) kept: usize,
}

impl Buses {
    /// None yet. They end with `context.stop` at the latest.
    pub(super) const fn new(context: BusContext) -> Self {
        Self { context, running: Vec::new(), begun: 0 }
    }

    /// What of them differs in a configuration.
    pub(super) fn changes(&self, config: &Config) -> Changes {
        let goes_on = |running: &RunningBus| {
            config.buses().iter().any(|bus| bus.name == running.name && bus.fingerprint() == running.fingerprint)
        };
        let (kept, ending): (Vec<_>, Vec<_>) = self.running.iter().partition(|running| goes_on(running));
        let is_new = |bus: &&Arc<Bus>| !kept.iter().any(|running| running.name == bus.name);
        Changes {
            ending: ending.iter().map(|running| running.name.clone()).collect(),
            beginning: config.buses().iter().filter(is_new).map(|bus| bus.name.clone()).collect(),
            kept: kept.len(),
        }
    }

    /// Begins those that are not there yet, and puts all in the configuration's order.
    pub(super) fn begin_missing(&mut self, config: &Config) {
        for bus in config.buses() {
            if !self.running.iter().any(|running| running.name == bus.name) {
                self.begin(bus);
            }
        }
        let position = |running: &RunningBus| config.buses().iter().position(|bus| bus.name == running.name);
        self.running.sort_by_key(position);
    }

    fn begin(&mut self, bus: &Arc<Bus>) {
        self.begun += 1;
        let stop = self.context.stop.child_token();
        let context = BusContext { stop: stop.clone(), ..self.context.clone() };
        self.running.push(RunningBus {
            name: bus.name.clone(),
            fingerprint: bus.fingerprint(),
            place: BusPlace::new(bus, self.begun),
            timeout: bus.timeout,
            stop,
            task: AbortOnDropHandle::new(tokio::spawn(supervise(Arc::clone(bus), context))),
        });
    }

    /// Which they are, for the status.
    pub(super) fn places(&self) -> Vec<BusPlace> {
        self.running.iter().map(|running| running.place.clone()).collect()
    }

    /// Ends the named ones: what they had under way is handed on when this returns.
    pub(super) async fn end(&mut self, names: &[String]) {
        let (ending, kept) = std::mem::take(&mut self.running).into_iter().partition(|bus| names.contains(&bus.name));
        self.running = kept;
        let states = self.context.states.clone();
        let gone: Vec<RunningBus> = ending;
        let gone_names: Vec<String> = gone.iter().map(|bus| bus.name.clone()).collect();
        end(gone).await;
        gone_names.iter().for_each(|name| states.forget(name));
    }

    /// Ends all.
    pub(super) async fn end_all(self) {
        end(self.running).await;
    }
}

async fn end(buses: Vec<RunningBus>) {
    let grace = grace(buses.iter().map(|bus| bus.timeout));
    let mut tasks = JoinSet::new();
    for bus in buses {
        bus.stop.cancel();
        tasks.spawn(bus.task);
    }
    end_within(grace, tasks).await;
}

/// How long a transaction of buses with these timeouts may take, within what there is.
fn grace(timeouts: impl Iterator<Item = Duration>) -> Duration {
    timeouts.max().unwrap_or_default().saturating_mul(TURN_TIMEOUTS).clamp(GRACE_MIN, GRACE_MAX)
}

/// Waits until these have ended. One that does not is given up in the middle of its transaction: whoever asks on the line next
/// takes every unit to owe an answer.
async fn end_within<T: Send + 'static>(grace: Duration, mut tasks: JoinSet<T>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(grace, all).await.is_err() {
        warn!("a transaction did not end within {grace:?} and is given up");
    }
    tasks.shutdown().await;
}

/// A failure in one bus's code ends neither the gateway nor, for long, the bus.
async fn supervise(bus: Arc<Bus>, context: BusContext) {
    loop {
        let actor = AbortOnDropHandle::new(tokio::spawn(bus::run(Arc::clone(&bus), context.clone())));
        let Err(failure) = actor.await else { return };
        error!(bus = bus.name, "the bus's task failed and is begun anew: {failure}");
        sleep(RESTART_PAUSE).await;
        if context.stop.is_cancelled() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// With a `timeout` of 3 s a transaction may take 18 s, and was broken off after 10.
    #[tokio::test(start_paused = true)]
    async fn a_transaction_is_not_broken_off_before_its_time() {
        let (slow, endless) = (Duration::from_secs(3), Duration::from_secs(60));
        assert_eq!(grace([Duration::from_millis(500)].into_iter()), GRACE_MIN);
        assert_eq!(grace([slow, Duration::from_millis(500)].into_iter()), Duration::from_secs(18));
        assert_eq!(grace([endless].into_iter()), GRACE_MAX);
        for (took, is_ended) in [(slow * 5, true), (endless, false)] {
            let (ended, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
            let told = Arc::clone(&ended);
            tasks.spawn(async move {
                sleep(took).await;
                told.store(true, Ordering::Relaxed);
            });
            end_within(grace([slow].into_iter()), tasks).await;
            assert_eq!(ended.load(Ordering::Relaxed), is_ended, "{took:?}");
        }
    }
}
