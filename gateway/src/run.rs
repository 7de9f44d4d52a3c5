//! A gateway from its start to its end.
//!
//! It starts and polls with no lake, no network and any port missing; only a spool that cannot be
//! had keeps it from starting (a wrong configuration never gets here). When it shall stop, it ends
//! the transactions under way, hands what they brought to the spool, and leaves the last seal and
//! upload to the uploader, which has [`UPLOAD_GRACE`]; what stays in the spool is for the next start.

use std::time::Duration;

use tjern_readings::clock::Clock;
use tjern_readings::reading::Reading;
use tjern_readings::store::Store;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::bus::{self, BusContext, Newest, READINGS_QUEUE};
use crate::config::{Bus, Config};
use crate::spool::{Spool, SpoolError, SpoolSettings};
use crate::upload::{self, UploadSettings};

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
}

/// Runs a gateway until `options.stop` is cancelled.
///
/// # Errors
/// [`RunError`] where the spool's folder cannot be had, or is held by another process.
pub async fn run(config: Config, options: RunOptions) -> Result<(), RunError> {
    let RunOptions { clock, stop, store } = options;
    let spool = open_spool(&config, clock.clone()).await?;
    announce(&config, &spool);
    let upload_stop = CancellationToken::new();
    let upload = upload::run(spool.clone(), upload_settings(&config, store), upload_stop.clone());
    let uploader = AbortOnDropHandle::new(tokio::spawn(upload));
    let (readings, received) = mpsc::channel(READINGS_QUEUE);
    let appender = AbortOnDropHandle::new(tokio::spawn(append(spool.clone(), received)));
    let buses = start_buses(&config, &clock, readings, &spool, &stop);
    stop.cancelled().await;
    info!("stopping: ending the transactions under way");
    end_buses(buses).await;
    // The last sender went with the buses: the appender ends once it handed everything on.
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
    Ok(())
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

fn upload_settings(config: &Config, store: Option<Store>) -> UploadSettings {
    UploadSettings {
        lake: config.lake().clone(),
        source: config.gateway().clone(),
        every: config.upload_every().duration(),
        configuration: Some((config.sha256(), config.text().to_owned())),
        store,
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
async fn append(spool: Spool, mut received: mpsc::Receiver<Vec<Reading>>) {
    while let Some(readings) = received.recv().await {
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
    let context = BusContext { clock: clock.clone(), readings, newest, stop: stop.child_token() };
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
