//! A gateway from its start to its end.
//!
//! It starts and polls with no lake, no network and any port missing; only a spool that cannot be
//! had keeps it from starting (a wrong configuration never gets here). When it shall stop, it ends
//! the transactions under way, hands what they brought to the spool, and leaves the last seal and
//! upload to the uploader, which has [`UPLOAD_GRACE`]; what stays in the spool is for the next start.
//!
//! A bus whose code fails is begun anew. A task that everything goes through (the one that fills the
//! spool, the spool's own, the uploader) is not: where one ends before its time, the gateway keeps
//! what it can and fails, so that whoever watches it starts it again, rather than poll for nobody.

use std::time::Duration;

use tjern_readings::clock::Clock;
use tjern_readings::reading::{Reading, TIMES_US};
use tjern_readings::store::Store;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::bus::state::BusStates;
use crate::bus::{self, BusContext, Newest, READINGS_QUEUE};
use crate::config::{Bus, Config};
use crate::spool::{Spool, SpoolError, SpoolSettings};
use crate::system::SystemReadings;
use crate::upload::{self, UploadSettings, UploadState};

/// Transactions under way get so long to end: a timeout may be longer than a shutdown.
const BUS_GRACE: Duration = Duration::from_secs(10);

/// The uploader's own limit is shorter; this one is for a store that does not let go.
const UPLOAD_GRACE: Duration = Duration::from_secs(15);

/// An actor that failed is begun anew after this.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// What a gateway needs besides its configuration.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// What time it is.
    pub clock: Clock,
    /// Ends it.
    pub stop: CancellationToken,
    /// The lake's store where it is open already; otherwise it is opened when it is first needed.
    pub store: Option<Store>,
}

/// Why a gateway cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No reading could be kept.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The task that opened the spool failed.
    #[error("opening the spool failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// A task that everything goes through ended while the gateway ran.
    #[error(
        "{task} ended before its time; hint: the lines before say why; what is in the spool is sent after a new start"
    )]
    Ended {
        /// Which one.
        task: &'static str,
    },
}

/// Runs a gateway until `options.stop` is cancelled.
///
/// # Errors
/// [`RunError`] where the spool's folder cannot be had, or is held by another process, or where a
/// task that everything goes through ends before `options.stop`.
pub async fn run(config: Config, options: RunOptions) -> Result<(), RunError> {
    let spool = open_spool(&config, options.clock.clone()).await?;
    run_over(spool, config, options).await
}

async fn run_over(spool: Spool, config: Config, options: RunOptions) -> Result<(), RunError> {
    let RunOptions { clock, stop, store } = options;
    announce(&config, &spool);
    let upload_stop = CancellationToken::new();
    let upload_state = UploadState::default();
    let settings = upload_settings(&config, store, &clock, upload_state.clone());
    let (uploader, upload_ended) = watched(upload::run(spool.clone(), settings, upload_stop.clone()));
    let (readings, received) = mpsc::channel(READINGS_QUEUE);
    // How far the clock is off nobody says here yet.
    let system = SystemReadings::new(config.gateway(), clock.clone(), upload_state.clone(), || None);
    let (appender, append_ended) = watched(append(spool.clone(), system.ok(), received));
    let bus_stop = stop.child_token();
    let buses = start_buses(&config, &clock, readings.clone(), &spool, &bus_stop);
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        () = spool.closed() => Some("the spool's task"),
        () = append_ended.cancelled() => Some("the task that fills the spool"),
        () = upload_ended.cancelled() => Some("the task that uploads"),
    };
    if let Some(task) = ended {
        error!("{task} ended before its time: the gateway ends");
    }
    info!("stopping: ending the transactions under way");
    bus_stop.cancel();
    end_buses(buses).await;
    // The last sender goes after the buses: the appender ends once it handed everything on.
    drop(readings);
    if appender.await.is_err() {
        error!("the task that fills the spool failed");
    }
    if !spool.sync().await {
        error!("the last readings could not be written to the spool");
    }
    upload_stop.cancel();
    if timeout(UPLOAD_GRACE, uploader).await.is_err() {
        warn!("the lake does not answer; what is in the spool goes there after the next start");
    }
    spool.close().await;
    info!("stopped");
    ended.map_or(Ok(()), |task| Err(RunError::Ended { task }))
}

/// A task, and what is cancelled when it ends, however that comes about.
fn watched(task: impl Future<Output = ()> + Send + 'static) -> (AbortOnDropHandle<()>, CancellationToken) {
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let handle = tokio::spawn(async move {
        let _guard = guard;
        task.await;
    });
    (AbortOnDropHandle::new(handle), ended)
}

async fn open_spool(config: &Config, clock: Clock) -> Result<Spool, RunError> {
    let settings = SpoolSettings {
        dir: config.spool().dir.clone(),
        max_bytes: config.spool().max_bytes,
        sync_every: config.spool().sync_every.duration(),
        source: config.gateway().clone(),
        configuration: Some(config.sha256()),
    };
    // Recovery reads the whole log: not on a thread that others wait for.
    Ok(tokio::task::spawn_blocking(move || Spool::open(settings, clock)).await??)
}

fn upload_settings(config: &Config, store: Option<Store>, clock: &Clock, state: UploadState) -> UploadSettings {
    let upload = config.upload();
    UploadSettings {
        every: upload.every.duration(),
        configuration: Some((config.sha256(), config.public_text())),
        store,
        limits: upload.limits,
        live_first_after: upload.live_first_after,
        credentials_file: upload.credentials_file.clone(),
        clock: clock.clone(),
        state,
        ..UploadSettings::new(config.lake().clone(), config.gateway().clone())
    }
}

fn announce(config: &Config, spool: &Spool) {
    info!(
        gateway = config.gateway().as_str(),
        lake = %config.lake(),
        spool = %config.spool().dir.display(),
        epoch = %spool.epoch(),
        buses = config.buses().len(),
        sensors = config.sensors().count(),
        "gateway started"
    );
    if config.buses().is_empty() {
        warn!("no bus is configured: nothing will be read");
    }
}

/// The one way into the spool.
async fn append(spool: Spool, mut system: Option<SystemReadings>, mut received: mpsc::Receiver<Vec<Reading>>) {
    while let Some(mut readings) = received.recv().await {
        let came = readings.len();
        // No batch may hold such a time, and one would keep all others of its batch out of the lake.
        readings.retain(|reading| TIMES_US.contains(&reading.time_us));
        if readings.len() < came {
            error!(readings = came - readings.len(), "the clock is centuries off: these are not kept");
        }
        if let Some(system) = &mut system {
            system.join(&mut readings);
        }
        spool.append(readings).await;
    }
}

fn start_buses(
    config: &Config,
    clock: &Clock,
    readings: mpsc::Sender<Vec<Reading>>,
    spool: &Spool,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let spool = spool.clone();
    let newest = Newest::from_fn(move |sensor| spool.newest_time_us(sensor));
    let (states, learned) = (BusStates::new(), Some(config.spool().dir.join("learned")));
    let context = BusContext { clock: clock.clone(), readings, newest, stop: stop.clone(), states, learned };
    let mut buses = JoinSet::new();
    for bus in config.buses() {
        buses.spawn(supervise(bus.clone(), context.clone()));
    }
    buses
}

/// A failure in one bus's code ends neither the gateway nor, for long, the bus.
async fn supervise(bus: Bus, context: BusContext) {
    loop {
        let actor = AbortOnDropHandle::new(tokio::spawn(bus::run(bus.clone(), context.clone())));
        let Err(failure) = actor.await else { return };
        error!(bus = bus.name, "the bus's task failed and is begun anew: {failure}");
        sleep(RESTART_PAUSE).await;
        if context.stop.is_cancelled() {
            return;
        }
    }
}

async fn end_buses(mut buses: JoinSet<()>) {
    let all = async { while buses.join_next().await.is_some() {} };
    if timeout(BUS_GRACE, all).await.is_err() {
        warn!("a transaction did not end within {BUS_GRACE:?} and is given up");
    }
    buses.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tjern_readings::configuration::ConfigText;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn config(dir: &std::path::Path) -> Config {
        let text =
            format!("version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"{}\"\n", dir.display());
        Config::parse(&ConfigText::new("test.toml", text)).expect("good")
    }

    /// It polled on, day after day, and every reading was lost.
    #[tokio::test]
    async fn a_gateway_without_its_spool_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let options = RunOptions { clock: Clock::system(), stop: CancellationToken::new(), store: None };
        let spool = open_spool(&config, Clock::system()).await.expect("it opens");
        let running = tokio::spawn(run_over(spool.clone(), config, options));
        spool.close().await;
        let result = timeout(PATIENCE, running).await.expect("it ends").expect("it does not panic");
        assert!(matches!(result, Err(RunError::Ended { task: "the spool's task" })), "{result:?}");
    }

    #[tokio::test]
    async fn a_gateway_that_is_told_to_end_does_not_fail() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = RunOptions { clock: Clock::system(), stop: CancellationToken::new(), store: None };
        let stop = options.stop.clone();
        let running = tokio::spawn(run(config(folder.path()), options));
        stop.cancel();
        timeout(PATIENCE, running).await.expect("it ends").expect("it does not panic").expect("it does not fail");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_noticed() {
        let (task, ended) = watched(async { panic!("on purpose") });
        timeout(PATIENCE, ended.cancelled()).await.expect("it is noticed");
        assert!(task.await.is_err());
    }
}
