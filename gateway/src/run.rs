//! A gateway from its start to its end.
//!
//! It starts and polls with no lake, no network and any port missing; only a spool that cannot be
//! had keeps it from starting (a wrong configuration never gets here). When it shall stop, it ends
//! the transactions under way, hands what they brought to the spool, and leaves the last seal and
//! upload to the uploader, which has a bounded time; what stays in the spool is for the next start.
//!
//! A reload reads the configuration's file again. All of it is taken over, or nothing: a file that is
//! wrong, or that changes what needs a new start, leaves everything as it is, and that is told by the log and
//! by `/health`. Buses that are the same read on and do not notice; the spool stays open throughout.
//!
//! A bus whose code fails is begun anew. A task that everything goes through (the one that fills the
//! spool, the spool's own, the uploader) is not: where one ends before its time, the gateway keeps
//! what it can and fails, so that whoever watches it starts it again, rather than poll for nobody.

mod appender;
mod buses;
mod listener;
mod sensors;
mod time_service;
mod uploads;
mod watchdog;

use std::time::Duration;

use tjern_readings::clock::Clock;
use tjern_readings::configuration::Problem;
use tjern_readings::store::Store;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::bus::state::BusStates;
use crate::bus::{BusContext, DeviceTimes, Newest};
use crate::clock::Witness;
use crate::config::Config;
use crate::dating::{ClockPolicy, Dater, Sensors};
use crate::notify::Notifier;
use crate::spool::{self, Spool, SpoolError, SpoolSettings};
use crate::status::StatusSource;
use crate::system::SystemReadings;
use crate::upload::{Unsent, UploadSettings, UploadState, known_lake};
pub(crate) use appender::Appender;
use appender::DISK_PATIENCE;
use buses::Buses;
use listener::Listener;
use sensors::SensorChanges;
use time_service::TimeService;
use uploads::Uploads;

/// A file that does not answer must not keep the gateway from ending when it is told to.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// A reload that waits for the one under way; further ones are the same one.
pub const RELOAD_QUEUE: usize = 1;

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

/// Whoever started a gateway as a service, and wants to hear of it and to tell it things.
#[derive(Debug, Default)]
pub struct Service {
    /// Each message is a wish to read the configuration's file again; at most [`RELOAD_QUEUE`] wait.
    pub reloads: Option<mpsc::Receiver<()>>,
    /// Who is told that it is ready, that it reloads, that it goes on.
    pub notifier: Notifier,
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
    run_as_service(config, options, Service::default()).await
}

/// The same, for one that listens to whoever started it.
///
/// # Errors
/// As [`run`].
pub async fn run_as_service(config: Config, options: RunOptions, service: Service) -> Result<(), RunError> {
    let spool = open_spool(&config, options.clock.clone()).await?;
    run_over(spool, config, options, service).await
}

async fn run_over(spool: Spool, config: Config, options: RunOptions, service: Service) -> Result<(), RunError> {
    let Service { mut reloads, notifier } = service;
    let stop = options.stop.clone();
    announce(&config, &spool);
    let (dater, clock) = begin_dating(&config, spool.clone(), options.clock.clone()).await?;
    let options = RunOptions { clock, ..options };
    let unsent = unsent(&config).await?;
    let mut gateway = Running::start((spool, dater), (config, unsent), options, notifier);
    let ended = loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break None,
            () = gateway.spool.closed() => break Some("the spool's task"),
            () = gateway.appender.ended().cancelled() => break Some("the task that fills the spool"),
            () = gateway.uploads.ended().cancelled() => break Some("the task that uploads"),
            () = wish(&mut reloads) => gateway = Box::pin(gateway.reload()).await,
        }
    };
    if let Some(task) = ended {
        error!("{task} ended before its time: the gateway ends");
    }
    gateway.finish().await;
    ended.map_or(Ok(()), |task| Err(RunError::Ended { task }))
}

/// Waits until a reload is wished for: for ever where nobody can.
async fn wish(reloads: &mut Option<mpsc::Receiver<()>>) {
    if let Some(receiver) = reloads
        && receiver.recv().await.is_some()
    {
        return;
    }
    *reloads = None;
    std::future::pending().await
}

/// A gateway at work.
struct Running {
    config: Config,
    upload: UploadShare,
    spool: Spool,
    buses: Buses,
    bus_stop: CancellationToken,
    appender: Appender,
    uploads: Uploads,
    status: StatusSource,
    listener: Option<Listener>,
    watchdog: AbortOnDropHandle<()>,
    notifier: Notifier,
}

impl Running {
    fn start(
        (spool, dater): (Spool, Dater),
        (config, unsent): (Config, Unsent),
        options: RunOptions,
        notifier: Notifier,
    ) -> Self {
        let RunOptions { clock, stop, store } = options;
        let upload = UploadShare { store, clock: clock.clone(), state: UploadState::default(), unsent };
        let uploads = Uploads::start(spool.clone(), upload.settings(&config));
        let time_service = TimeService::begin(Witness::system());
        let said = time_service.said();
        let offset = time_service.offset_ms(clock.clone());
        let system = SystemReadings::new(config.gateway(), clock.clone(), upload.state.clone(), offset);
        let (newest, maintenance) = (Newest::from_fn(dater.newest_of()), dater.maintenance_told());
        let device_times = DeviceTimes::default();
        let dater = dater.with_system(system.ok()).with_device_times(device_times.clone());
        let (appender, readings, left, on_disk) = Appender::start(dater);
        let bus_stop = stop.child_token();
        let states = BusStates::new();
        let learned = Some(config.spool().dir.join("learned"));
        let context = BusContext {
            clock: clock.clone(),
            readings,
            left,
            newest,
            stop: bus_stop.clone(),
            states: states.clone(),
            learned,
            device_times,
            on_disk,
        };
        let mut buses = Buses::new(context);
        buses.begin_missing(&config);
        let status = StatusSource::new(clock, (spool.probe(), states, upload.state.clone()), &config, buses.places())
            .with_maintenance(maintenance)
            .with_time_service(said);
        let listener = listen(&config, &status);
        let watchdog = AbortOnDropHandle::new(tokio::spawn(watchdog::run(status.clone(), notifier.clone())));
        notifier.ready(&polls(&config));
        Self { config, upload, spool, buses, bus_stop, appender, uploads, status, listener, watchdog, notifier }
    }

    /// Reads the file again, and takes all of it over or nothing.
    async fn reload(self) -> Self {
        self.notifier.reloading();
        let path = self.config.path().to_owned();
        info!(file = %path.display(), "reading the configuration again");
        // The file may lie on a disk that is slow, or does not answer.
        let reading = tokio::task::spawn_blocking(move || Config::load(&path));
        let read = tokio::select! {
            biased;
            // It ends: what the file says does not matter any more.
            () = self.bus_stop.cancelled() => return self,
            read = timeout(READ_PATIENCE, reading) => read,
        };
        let refusal = match read.map(|read| read.map_err(|failure| failure.to_string())) {
            Ok(Ok(Ok(config))) if config.text() == self.config.text() => {
                info!("the configuration is the same; nothing changes");
                self.status.unchanged();
                self.notifier.ready(&polls(&config));
                return self;
            }
            Ok(Ok(Ok(config))) => match self.config.needs_restart(&config).as_slice() {
                [] => return self.take_over(config).await,
                differs => format!(
                    "{} cannot change while the gateway runs; hint: undo that, or start the gateway anew",
                    differs.join(", ")
                ),
            },
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(failure)) => failure,
            Err(_) => format!("`{}` could not be read within {READ_PATIENCE:?}", self.config.path().display()),
        };
        error!("the new configuration is not taken over, the old one stays: {refusal}");
        self.status.refused(refusal);
        self.notifier
            .ready(&format!("{}; the new configuration was refused: see /health or the log", polls(&self.config)));
        self
    }

    async fn take_over(mut self, config: Config) -> Self {
        for Problem { line, column, message, hint, .. } in config.warnings() {
            warn!(line, column, hint, "the new configuration: {message}");
        }
        let changes = self.buses.changes(&config);
        let sensors = SensorChanges::between(self.config.sensors(), config.sensors());
        self.buses.end(&changes.ending).await;
        // A sensor that moves to another bus is not stored twice for a slot: what its old bus read is in the
        // spool before its new one begins.
        self.appender.flush(Sensors::of(&config), &self.bus_stop).await;
        self.upload.keep(&config, &self.bus_stop).await;
        let configured = unless(&self.bus_stop, self.spool.set_configuration(config.sha256())).await;
        if configured.is_none() && !self.bus_stop.is_cancelled() {
            error!(
                "the spool does not answer within {DISK_PATIENCE:?}; the reload goes on; hint: is the disk failing?"
            );
        }
        self.buses.begin_missing(&config);
        self.uploads = self.uploads.replace(self.upload.settings(&config));
        if config.status_listen() != self.config.status_listen() {
            // The old one first: both may want the same place.
            end(self.listener.take()).await;
            self.listener = listen(&config, &self.status);
        }
        self.status.taken_over(&config, self.buses.places());
        info!(
            ended = changes.ending.len(),
            begun = changes.beginning.len(),
            unchanged = changes.kept,
            configuration = config.sha256(),
            "the new configuration is in force: buses that changed begin anew"
        );
        // Half a file may be a whole one, as far as anybody can tell: what went is named.
        match &sensors {
            SensorChanges { gone, .. } if !gone.is_empty() => warn!("the new configuration: {sensors}"),
            SensorChanges { came, .. } if !came.is_empty() => info!("the new configuration: {sensors}"),
            _ => {}
        }
        self.notifier.ready(&polls(&config));
        self.config = config;
        self
    }

    async fn finish(self) {
        info!("stopping: ending the transactions under way");
        self.notifier.stopping();
        drop(self.watchdog);
        self.bus_stop.cancel();
        // The last sender of readings goes with the buses: the appender ends once it handed everything on.
        self.buses.end_all().await;
        if !self.appender.finish().await {
            error!("the task that fills the spool failed, or did not end in time");
        }
        if !timeout(DISK_PATIENCE, self.spool.sync()).await.unwrap_or(false) {
            let lost = self.spool.status().unsynced_readings;
            error!(readings = lost, "the disk did not take the last readings: they are lost");
        }
        self.uploads.finish().await;
        end(self.listener).await;
        match timeout(DISK_PATIENCE, self.spool.close()).await {
            Ok(()) => info!("stopped"),
            Err(_) => error!("the disk does not let go of the spool within {DISK_PATIENCE:?}: stopped all the same"),
        }
    }
}

/// What comes of work on the disk, unless the gateway ends first, or the disk does not answer.
async fn unless<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = stop.cancelled() => None,
        done = timeout(DISK_PATIENCE, work) => done.ok(),
    }
}

/// A task, and what is cancelled when it ends.
type Task = (AbortOnDropHandle<()>, CancellationToken);

/// A task, and what is cancelled when it ends, however that comes about.
fn watched(task: impl Future<Output = ()> + Send + 'static) -> Task {
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    let handle = tokio::spawn(async move {
        let _guard = guard;
        task.await;
    });
    (AbortOnDropHandle::new(handle), ended)
}

/// The way of readings into the spool, and the clock to work with: the machine's may not be known yet.
async fn begin_dating(config: &Config, spool: Spool, wall: Clock) -> Result<(Dater, Clock), RunError> {
    let (settings, sensors) = (spool_settings(config), Sensors::of(config));
    let clock = config.clock();
    let policy = ClockPolicy {
        patience_us: i64::try_from(clock.patience.as_micros()).unwrap_or(i64::MAX),
        trusted: clock.trusted,
        witness: Witness::system(),
    };
    // What an earlier run left is read: not on a thread that others wait for.
    let beginning = tokio::task::spawn_blocking(move || Dater::begin(spool, settings, &wall, sensors, policy));
    Ok(beginning.await?)
}

async fn open_spool(config: &Config, clock: Clock) -> Result<Spool, RunError> {
    let settings = spool_settings(config);
    // Recovery reads the whole log: not on a thread that others wait for.
    Ok(tokio::task::spawn_blocking(move || Spool::open(settings, clock)).await??)
}

/// The configurations that the lake may not have, with this one, on disk before a reading names it.
async fn unsent(config: &Config) -> Result<Unsent, RunError> {
    let (dir, sha256, text) = (config.spool().dir.clone(), config.sha256(), config.public_text());
    let keeping = tokio::task::spawn_blocking(move || {
        let unsent = Unsent::kept_in(&dir);
        unsent.keep(&sha256, &text);
        unsent
    });
    Ok(keeping.await?)
}

/// How the spool of this configuration behaves.
pub(crate) fn spool_settings(config: &Config) -> SpoolSettings {
    let spool = config.spool();
    SpoolSettings {
        dir: spool.dir.clone(),
        max_bytes: spool::bounded(&spool.dir, spool.max_bytes, spool.max_disk_share),
        sync_every: spool.sync_every.duration(),
        source: config.gateway().clone(),
        configuration: Some(config.sha256()),
    }
}

/// What an uploader and its successors have in common.
struct UploadShare {
    store: Option<Store>,
    clock: Clock,
    state: UploadState,
    unsent: Unsent,
}

impl UploadShare {
    /// Keeps a configuration's text on disk before readings name it.
    async fn keep(&self, config: &Config, stop: &CancellationToken) {
        let (unsent, sha256, text) = (self.unsent.clone(), config.sha256(), config.public_text());
        // A disk that does not answer is told of where readings go there.
        let _ = unless(stop, tokio::task::spawn_blocking(move || unsent.keep(&sha256, &text))).await;
    }

    fn settings(&self, config: &Config) -> UploadSettings {
        let upload = config.upload();
        UploadSettings {
            every: upload.every.duration(),
            configuration: Some((config.sha256(), config.public_text())),
            unsent: self.unsent.clone(),
            store: self.store.clone(),
            limits: upload.limits,
            live_first_after: upload.live_first_after,
            credentials_file: upload.credentials_file.clone(),
            known_lake: Some(config.spool().dir.join(known_lake::FILE)),
            clock: self.clock.clone(),
            state: self.state.clone(),
            ..UploadSettings::new(config.lake().clone(), config.gateway().clone())
        }
    }
}

fn listen(config: &Config, status: &StatusSource) -> Option<Listener> {
    Listener::start(config.status_listen()?.clone(), status.clone())
}

async fn end(listener: Option<Listener>) {
    if let Some(listener) = listener {
        listener.end().await;
    }
}

/// What `systemctl status` shows.
fn polls(config: &Config) -> String {
    format!("polling {} sensors on {} buses", config.sensors().count(), config.buses().len())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;
    use crate::notify::tests::Manager;
    use crate::spool::tests::hanging::{Gate, Hanging};
    use std::sync::Arc;
    use tjern_readings::configuration::ConfigText;
    use tjern_readings::reading::Reading;

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
        let running = tokio::spawn(run_over(spool.clone(), config, options, Service::default()));
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

    /// Lets what does not hang come to its end: the time stands still meanwhile.
    async fn others_work() {
        for _ in 0..50 {
            tokio::task::spawn_blocking(std::thread::yield_now).await.expect("no panic");
        }
    }

    /// The unit killed it after a minute, in the middle of what it could still have brought to safety; and it was not
    /// looked at whether the disk of the configuration or that of the spool was the one that hung.
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_does_not_keep_a_gateway_from_ending() {
        let (folder, gate) = (tempfile::tempdir().expect("a folder"), Gate::default());
        let config = config(folder.path());
        let disk = Arc::new(Hanging::at(folder.path(), gate.clone()));
        let spool = Spool::over(disk, spool_settings(&config), Clock::manual(0));
        let stop = CancellationToken::new();
        let options = RunOptions { clock: Clock::system(), stop: stop.clone(), store: None };
        let (manager, notifier) = Manager::new(None);
        let running = tokio::spawn(run_over(spool.clone(), config, options, Service { reloads: None, notifier }));
        while !manager.heard().iter().any(|heard| heard.starts_with("READY=1")) {
            others_work().await;
        }
        assert!(spool.sync().await, "it runs");
        gate.set_closed(true);
        spool.append(vec![Reading::of("tarn/level".parse().expect("a sensor"), 1, 4.0)]).await;
        stop.cancel();
        let mut seconds = 0;
        while !running.is_finished() && seconds < 60 {
            tokio::time::advance(Duration::from_secs(1)).await;
            others_work().await;
            seconds += 1;
        }
        gate.set_closed(false);
        assert!(seconds < 60, "the unit would have killed it");
        running.await.expect("it does not panic").expect("it does not fail");
    }

    /// A printer of lines, a gauge that is there; and devices by names that no server answers, more than the runtime has threads.
    fn many_names(dir: &std::path::Path, good: std::net::SocketAddr) -> String {
        let bus = |name: &str, address: &str, every: &str| {
            format!(
                "[[bus]]\nname = \"{name}\"\nkind = \"text-lines\"\naddress = \"{address}\"\n[[bus.device]]\nname = \"d\"\n\
                [[bus.device.point]]\nsensor = \"{name}/level\"\ncolumn = 2\nseparator = \";\"\nevery = \"{every}\"\n"
            )
        };
        let silent = (0..4 * FEW_THREADS)
            .map(|number| bus(&format!("b{number}"), &format!("plc{number}{}:502", names::tests::UNANSWERED), "1h"));
        let buses: String = silent.chain([bus("good", &good.to_string(), "1s")]).collect();
        format!(
            "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"{}\"\nsync_every = \"100ms\"\n{buses}",
            dir.display()
        )
    }

    const FEW_THREADS: usize = 4;

    /// A name server that said nothing stopped all: after half a minute nothing was synced, `/health` said nothing, and the
    /// watchdog killed it with what was read meanwhile.
    #[test]
    fn names_that_nobody_answers_stop_neither_the_other_devices_nor_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let gauge = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let text = many_names(folder.path(), gauge.local_addr().expect("an address"));
        let config = Config::parse(&ConfigText::new("test.toml", text)).expect("good");
        std::thread::spawn(move || {
            let (mut stream, _) = gauge.accept().expect("it connects");
            while std::io::Write::write_all(&mut stream, b"n;0.2\n").is_ok() {
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        let runtime =
            tokio::runtime::Builder::new_current_thread().max_blocking_threads(FEW_THREADS).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            let spool = open_spool(&config, Clock::system()).await.expect("it opens");
            let stop = CancellationToken::new();
            let options = RunOptions { clock: Clock::system(), stop: stop.clone(), store: None };
            let running = tokio::spawn(run_over(spool.clone(), config, options, Service::default()));
            let going_on = async {
                while names::tests::waiting() < 4 * FEW_THREADS {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let before = spool.status().synced_seq;
                while spool.status().synced_seq < before + 3 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                spool.is_at_hand().await.expect("it is there");
            };
            timeout(PATIENCE, going_on).await.expect("the others go on");
            stop.cancel();
            timeout(PATIENCE, running).await.expect("it ends").expect("it does not panic").expect("it does not fail");
        });
        runtime.shutdown_background();
    }

    #[tokio::test]
    async fn a_task_that_panics_is_noticed() {
        let (task, ended) = watched(async { panic!("on purpose") });
        timeout(PATIENCE, ended.cancelled()).await.expect("it is noticed");
        assert!(task.await.is_err());
    }
}
