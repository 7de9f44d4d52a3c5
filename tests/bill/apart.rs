//! A server whose pipeline goes away and comes back: it answers on, asks the store meanwhile, and misses no commit.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tjern_lake::{Lake, Table, TableName, Versions};
use tjern_pipeline::ingest::Ingester;
use tjern_pipeline::register::register;
use tjern_readings::reading::Reading;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::dashboard::{Daemon, Dashboard};
use crate::jobs::INGEST;
use crate::place::{HOUR_US, NOW_US, Place, SECOND_US, files, gateway};

/// The line between the two: it leads to a daemon, or it is cut.
struct Line {
    address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
    underway: Arc<Mutex<JoinSet<()>>>,
    _carrying: AbortOnDropHandle<()>,
}

impl Line {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (to, underway) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(JoinSet::new())));
        let carrying = carry(listener, Arc::clone(&to), Arc::clone(&underway));
        Self { address, to, underway, _carrying: AbortOnDropHandle::new(tokio::spawn(carrying)) }
    }

    /// From now on it leads there; what is on its way is cut off.
    fn lead(&self, to: Option<SocketAddr>) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.underway.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

async fn carry(listener: TcpListener, to: Arc<Mutex<Option<SocketAddr>>>, underway: Arc<Mutex<JoinSet<()>>>) {
    while let Ok((mut near, _)) = listener.accept().await {
        // One that comes while the line is cut is closed at once.
        let mut underway = underway.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(to) = *to.lock().unwrap_or_else(PoisonError::into_inner) {
            underway.spawn(async move {
                if let Ok(mut far) = TcpStream::connect(to).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    }
}

/// A pipeline's process: its lake, with nothing known, what ingests into it, and its daemon.
struct Pipeline {
    lake: Lake,
    ingester: Ingester,
    daemon: Daemon,
}

impl Pipeline {
    async fn start(place: &Place) -> Self {
        let lake = place.lake();
        Table::create_all(&lake).await.expect("created");
        let ingester = Ingester::open(&lake, INGEST).await.expect("opened");
        let daemon = Daemon::of(&lake).await;
        Self { lake, ingester, daemon }
    }

    fn versions(&self) -> Versions {
        self.lake.versions().borrow().clone()
    }

    /// Lands a reading and takes it.
    async fn takes(&mut self, place: &Place, number: i64) {
        land(place, number).await;
        assert_eq!(self.ingester.run_everything().await.expect("ingested").batches, 1);
    }
}

async fn land(place: &Place, number: i64) {
    let source = gateway(0);
    let sensor = format!("{source}/q0").parse().expect("valid");
    place.land(&source, number, &[Reading::of(sensor, time_us(number), 10.0)]).await;
}

fn time_us(number: i64) -> i64 {
    NOW_US - HOUR_US + number * SECOND_US
}

/// Two processes that were parted: what was committed meanwhile is found as without a pipeline that tells, and known at once
/// when it is back; so is a table that was made anew, whose versions begin at 0 again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_pipeline_goes_away_answers_on_and_misses_no_commit() {
    let place = Place::new();
    let folder = tempfile::tempdir().expect("a folder");
    let (line, mut pipeline) = (Line::new().await, Pipeline::start(&place).await);
    register(&pipeline.lake, &files(folder.path(), 1)).await.expect("registered");
    line.lead(Some(pipeline.daemon.address));
    let mut dashboard = Dashboard::told_by(place.lake(), line.address).await;
    pipeline.takes(&place, 1).await;
    dashboard.hears(&pipeline.versions()).await;
    assert!(dashboard.shows(time_us(1)).await);
    pipeline.takes(&place, 2).await;
    dashboard.hears(&pipeline.versions()).await;
    assert!(dashboard.shows(time_us(2)).await, "it was told, and no time has passed");
    place.ahead(4 * 60 * SECOND_US);
    assert_eq!(dashboard.ask().await.1.billed(), 0, "nothing was told, so nothing is asked of the store");

    line.lead(None);
    dashboard.hears(&Versions::default()).await;
    assert!(dashboard.shows(time_us(2)).await, "it answers on");
    pipeline.takes(&place, 3).await;
    place.ahead(60 * SECOND_US);
    assert!(dashboard.shows(time_us(3)).await, "the store is asked as without a pipeline that tells");

    pipeline.takes(&place, 4).await;
    line.lead(Some(pipeline.daemon.address));
    dashboard.hears(&pipeline.versions()).await;
    assert!(dashboard.shows(time_us(4)).await, "what was committed while they were parted is told");

    // The pipeline ends and another one begins, which has counted nothing yet.
    pipeline.takes(&place, 5).await;
    line.lead(None);
    dashboard.hears(&Versions::default()).await;
    let mut pipeline = Pipeline::start(&place).await;
    pipeline.takes(&place, 6).await;
    line.lead(Some(pipeline.daemon.address));
    dashboard.hears(&pipeline.versions()).await;
    assert!(dashboard.shows(time_us(6)).await, "a pipeline that was started again tells what is there");

    // The table is lost and made anew from what landed, with fewer commits than it had.
    let before = pipeline.versions().get(TableName::Readings).expect("known");
    place.lose("tables/readings/").await;
    place.ahead(SECOND_US);
    let mut pipeline = Pipeline::start(&place).await;
    land(&place, 7).await;
    assert_eq!(pipeline.ingester.run_everything().await.expect("ingested").batches, 7);
    let anew = pipeline.versions().get(TableName::Readings).expect("known");
    assert!(anew.version < before.version, "{anew:?} after {before:?}");
    line.lead(Some(pipeline.daemon.address));
    dashboard.hears(&pipeline.versions()).await;
    assert!(dashboard.shows(time_us(7)).await, "a version that is less is another one too");

    // Once more, and it has more commits than it had before anybody asks.
    let before = anew;
    line.lead(None);
    dashboard.hears(&Versions::default()).await;
    place.lose("tables/readings/").await;
    place.ahead(SECOND_US);
    let mut pipeline = Pipeline::start(&place).await;
    pipeline.ingester.run_everything().await.expect("ingested");
    for number in 8..=12 {
        pipeline.takes(&place, number).await;
    }
    let anew = pipeline.versions().get(TableName::Readings).expect("known");
    assert!(anew.version > before.version && anew.is_of_another(before), "{anew:?} after {before:?}");
    line.lead(Some(pipeline.daemon.address));
    dashboard.hears(&pipeline.versions()).await;
    assert!(dashboard.shows(time_us(12)).await, "a version that is ahead may be another table's");
}

/// A command commits what the pipeline does not know of: seen within five minutes, and what is told goes on after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_commits_is_seen_within_five_minutes() {
    let place = Place::new();
    let folder = tempfile::tempdir().expect("a folder");
    let mut pipeline = Pipeline::start(&place).await;
    register(&pipeline.lake, &files(folder.path(), 1)).await.expect("registered");
    let mut dashboard = Dashboard::told_by(place.lake(), pipeline.daemon.address).await;
    pipeline.takes(&place, 1).await;
    dashboard.hears(&pipeline.versions()).await;
    assert!(dashboard.shows(time_us(1)).await);
    place.ahead(60 * 60 * SECOND_US);
    dashboard.ask().await;
    land(&place, 2).await;
    let mut command = Ingester::open(&place.lake(), INGEST).await.expect("opened");
    assert_eq!(command.run_everything().await.expect("ingested").batches, 1);
    place.ahead(5 * 60 * SECOND_US);
    assert!(dashboard.shows(time_us(2)).await, "nobody told of it");
    pipeline.takes(&place, 3).await;
    dashboard.hears(&pipeline.versions()).await;
    place.ahead(60 * SECOND_US);
    assert!(dashboard.shows(time_us(3)).await);
    pipeline.takes(&place, 4).await;
    dashboard.hears(&pipeline.versions()).await;
    assert!(dashboard.shows(time_us(4)).await, "the pipeline and the log agree, so what it tells is news again");
}

/// A daemon of another lake at the address: its versions are never found, so the store is asked as if nobody told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_of_another_lake_makes_no_answer_older() {
    let (place, other) = (Place::new(), Place::new());
    let folder = tempfile::tempdir().expect("a folder");
    let (mut pipeline, mut stranger) = (Pipeline::start(&place).await, Pipeline::start(&other).await);
    register(&pipeline.lake, &files(folder.path(), 1)).await.expect("registered");
    let mut dashboard = Dashboard::told_by(place.lake(), stranger.daemon.address).await;
    for number in 1..=3 {
        stranger.takes(&other, number).await;
    }
    dashboard.hears(&stranger.versions()).await;
    pipeline.takes(&place, 1).await;
    assert!(dashboard.shows(time_us(1)).await);
    for number in 2..=5 {
        place.ahead(30 * 60 * SECOND_US);
        dashboard.ask().await;
        pipeline.takes(&place, number).await;
        place.ahead(60 * SECOND_US);
        assert!(dashboard.shows(time_us(number)).await, "reading {number}");
    }
}
