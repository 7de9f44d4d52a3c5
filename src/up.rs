//! `tjern up`: a whole small city in one process: its gateways, its pipeline, its server.
//!
//! Without a configuration it is the demo city, which differs by its configuration only: the demo
//! starts its simulated devices, writes the configuration that names them, and everything after that
//! is the same. What it does is told on stdout, a line a step.
//!
//! It ends in the order in which readings travel: gateways finish, seal and upload; the pipeline takes
//! what they uploaded; the server closes last.

use std::path::Path;

use tjern_gateway::cli::stop_on_signals;
use tjern_gateway::config::Config as GatewayConfig;
use tjern_gateway::run::{RunError, RunOptions, run as run_gateway};
use tjern_lake::Lake;
use tjern_pipeline::jobs::{self, JobSettings, States};
use tjern_pipeline::register::{self, RegisterError};
use tjern_queries::Server;
use tjern_readings::clock::Clock;
use tjern_readings::configuration::ConfigText;
use tjern_readings::store::LakeUrl;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cli::UpArguments;
use crate::config::City;
use crate::demo::Demo;
use crate::failure::Failure;
use crate::pipeline::{prepare, register_failure};
use crate::serve::bind;

/// The demo's folder where none is named.
const DATA: &str = "tjern-data";

/// Runs a city until SIGINT or SIGTERM.
pub(crate) async fn up(arguments: UpArguments) -> Result<(), Failure> {
    // Signals are heard from the start, so that ending early ends well too.
    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(Failure::failed)?;
    let UpArguments { config, data, http, staff } = arguments;
    let (mut city, demo) = match &config {
        Some(config) => (placed(City::load(config)?, data.as_deref())?, None),
        None => {
            let demo = Demo::prepare(data.as_deref().unwrap_or(Path::new(DATA))).await?;
            (City::load(demo.config())?, Some(demo))
        }
    };
    city.serve.public = http.unwrap_or(city.serve.public);
    city.serve.staff = staff.unwrap_or(city.serve.staff);
    let lake = Lake::open(&city.lake).map_err(Failure::failed)?;
    let states = States::default();
    let server = bind(&city, &lake, Some(&states)).await?;
    say(&format!("the lake is {}", city.lake));
    let started = stop.run_until_cancelled(fill(&city, &lake, demo.as_ref())).await;
    match started {
        Some(done) => done?,
        None => return Ok(()),
    }
    run(city, lake, server, states, stop).await
}

/// The register and, for the demo, the history: what a resident shall see from the first moment.
async fn fill(city: &City, lake: &Lake, demo: Option<&Demo>) -> Result<(), Failure> {
    let is_writable = prepare(lake).await?;
    if let Some(personal) = &city.personal {
        let lake = personal.open()?;
        prepare(&lake).await?;
        say(&format!("the lake of personal readings is {}", personal.lake));
    }
    if !is_writable {
        // The job `register` does it once it can be done, and what is there can be seen.
        say("the lake cannot be written: what is there is shown, and what lands waits until there is room");
        return Ok(());
    }
    if registered(city, lake).await? {
        let sensors = register::load(lake).await.map_err(Failure::failed)?.len();
        say(&format!("the register names {sensors} sensors"));
    }
    if let Some(demo) = demo {
        demo.land_history(lake).await?;
    }
    Ok(())
}

/// Brings the register to what its files say. Returns whether there is one.
///
/// A lake that has a register goes on with it where the files are wrong: a power cut while somebody saved one of them keeps no
/// city from its readings. What was not public by it is not public now, since files are taken as a whole or not at all.
async fn registered(city: &City, lake: &Lake) -> Result<bool, Failure> {
    let error = match register::register(lake, &city.jobs.register).await {
        Ok(done) => return Ok(done.found),
        Err(error) => error,
    };
    if is_of_the_store(&error) {
        tracing::error!(%error, "the register's files could not be registered; the job `register` tries it again");
        return Ok(false);
    }
    if !error.is_of_the_files() || !register::is_there(lake).await.map_err(Failure::failed)? {
        return Err(register_failure(error));
    }
    tracing::error!("the register's files are wrong, so the register is as it was before: {error}");
    say(
        "the register's files are wrong: the register is as it was before, and they are taken as soon as they are right",
    );
    Ok(true)
}

/// Whether it is the store that failed, and not the city's files.
const fn is_of_the_store(error: &RegisterError) -> bool {
    matches!(error, RegisterError::Lake(_) | RegisterError::Commit(_))
}

async fn run(city: City, lake: Lake, server: Server, states: States, stop: CancellationToken) -> Result<(), Failure> {
    let personal = match city.personal {
        Some(personal) => Some((personal.open()?, personal.jobs)),
        None => None,
    };
    let (pages, office) = (server.public_address(), server.staff_address());
    let jobs_stop = CancellationToken::new();
    let server_stop = CancellationToken::new();
    let serving = tokio::spawn(server.run(server_stop.clone()));
    let working = tokio::spawn(work(lake, city.jobs, personal, states, jobs_stop.clone()));
    // A part that ends by itself ends the city: one that looks alive and does not measure, or does not
    // take what was measured, helps nobody.
    let (working, serving) = (watched(working, &stop), watched(serving, &stop));
    let gateways = start_gateways(city.gateways, &stop);
    say(&format!("the staff's SQL and metrics: http://{office}/"));
    say(&format!("the page: http://{pages}/"));
    say("end with Ctrl-C");
    let ended = end_of_gateways(gateways, &stop).await;
    say("the gateways have ended; the pipeline takes what they sent");
    jobs_stop.cancel();
    let worked = working.await;
    server_stop.cancel();
    let served = serving.await;
    say("ended");
    ended?;
    worked.and(served).map_err(|error| Failure::failed(format!("a part of the city failed: {error}")))
}

/// The jobs of the city's lake, and of its lake of personal readings.
async fn work(
    lake: Lake,
    settings: JobSettings,
    personal: Option<(Lake, JobSettings)>,
    states: States,
    stop: CancellationToken,
) {
    let others = async {
        if let Some((lake, settings)) = personal {
            Box::pin(jobs::run(lake, settings, states.clone(), stop.clone())).await;
        }
    };
    tokio::join!(Box::pin(jobs::run(lake, settings, states.clone(), stop.clone())), others);
}

/// A task that stops the city when it ends.
fn watched(task: JoinHandle<()>, stop: &CancellationToken) -> JoinHandle<()> {
    let stop = stop.clone();
    tokio::spawn(async move {
        let ended = task.await;
        stop.cancel();
        if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
            std::panic::resume_unwind(panic);
        }
    })
}

/// Runs each gateway in a task of its own.
fn start_gateways(configs: Vec<GatewayConfig>, stop: &CancellationToken) -> JoinSet<Result<(), RunError>> {
    let mut gateways = JoinSet::new();
    for config in configs {
        let buses = config.buses().len();
        say(&format!("gateway `{}` polls {} sensors on {buses} buses", config.gateway(), config.sensors().count()));
        let options = RunOptions { clock: Clock::system(), stop: stop.clone(), store: None };
        gateways.spawn(run_gateway(config, options));
    }
    gateways
}

/// Waits until it is told to stop and every gateway has ended. One that fails ends the city: a city
/// that looks alive and does not measure helps nobody.
async fn end_of_gateways(mut gateways: JoinSet<Result<(), RunError>>, stop: &CancellationToken) -> Result<(), Failure> {
    let mut failure = None;
    while let Some(ended) = gateways.join_next().await {
        let error = match ended {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        failure.get_or_insert(Failure::failed(error));
        stop.cancel();
    }
    match failure {
        Some(failure) => Err(failure),
        None => {
            stop.cancelled().await;
            Ok(())
        }
    }
}

/// Puts a city's lake and spools into the folder given with `--data`.
fn placed(mut city: City, data: Option<&Path>) -> Result<City, Failure> {
    let Some(data) = data else { return Ok(city) };
    city.lake = folder(&data.join("lake"))?;
    city.jobs.watch.lake = city.lake.clone();
    let own = match &mut city.personal {
        // What is personal stays apart, wherever the city is put.
        Some(personal) => {
            let own = std::mem::replace(&mut personal.lake, folder(&data.join("personal_lake"))?);
            personal.jobs.watch.lake = personal.lake.clone();
            Some((own, personal.lake.clone()))
        }
        None => None,
    };
    let gateways = city.gateways.iter().map(|gateway| {
        let personal = own.as_ref().filter(|(own, _)| own == gateway.lake()).map(|(_, moved)| moved);
        moved(gateway, personal.unwrap_or(&city.lake), data)
    });
    city.gateways = gateways.collect::<Result<_, _>>()?;
    Ok(city)
}

/// The lake in a folder, which is created.
fn folder(path: &Path) -> Result<LakeUrl, Failure> {
    std::fs::create_dir_all(path)
        .map_err(|error| Failure::failed(format!("cannot create `{}`: {error}", path.display())))?;
    LakeUrl::folder(&path.canonicalize().map_err(Failure::failed)?).map_err(Failure::wrong)
}

/// A gateway's configuration with another lake and another spool.
fn moved(gateway: &GatewayConfig, lake: &LakeUrl, data: &Path) -> Result<GatewayConfig, Failure> {
    let mut table: toml::Table = gateway.text().parse().map_err(Failure::wrong)?;
    let spool = data.join("spool").join(gateway.gateway().as_str());
    table.insert("lake".to_owned(), lake.to_string().into());
    if let Some(section) = table.get_mut("spool").and_then(toml::Value::as_table_mut) {
        section.insert("dir".to_owned(), spool.display().to_string().into());
    }
    let text = toml::to_string(&table).map_err(Failure::wrong)?;
    GatewayConfig::parse(&ConfigText::new(gateway.path(), text)).map_err(Failure::wrong)
}

/// A line of what happens, on stdout.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    // Nobody may be listening any more, which is no reason to end a city.
    let _ = writeln!(std::io::stdout(), "{line}");
}
