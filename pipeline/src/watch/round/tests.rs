//! The watch on a real lake, with a receiver on a real line that may be away.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tjern_lake::Operation;
use tjern_readings::reading::Cause;
use tjern_readings::store::Store;
use tjern_testing::simulated::{Fault, Simulated};

use super::*;
use crate::jobs::record::Outcome;
use crate::testing::{NOW_US, Place, Row, commit};
use crate::watch::WatchSection;

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;

/// Who is told: a server that answers with what it is set to.
#[derive(Debug, Clone, Default)]
struct Receiver {
    status: Arc<AtomicU16>,
    bodies: Arc<Mutex<Vec<Value>>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    async fn start(&self) -> String {
        self.status.store(200, Ordering::SeqCst);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook/the-canary", listener.local_addr().expect("an address"));
        let routes = Router::new().route("/hook/{secret}", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    }

    /// What was told since it was asked last: `begun limit tjern/ph`.
    fn told(&self) -> Vec<String> {
        let bodies = std::mem::take(&mut *self.bodies.lock().expect("whole"));
        let events = bodies.iter().flat_map(|body| body["events"].as_array().cloned().unwrap_or_default());
        let text = |event: Value| {
            ["change", "kind", "subject"].map(|name| event[name].as_str().unwrap_or_default().to_owned()).join(" ")
        };
        events.map(text).collect()
    }
}

async fn take(Shared(receiver): Shared<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let status = StatusCode::from_u16(receiver.status.load(Ordering::SeqCst)).expect("a status");
    if status.is_success() {
        receiver.bodies.lock().expect("whole").push(serde_json::from_str(&body).expect("JSON"));
        let token = headers.get("authorization").map(|value| value.to_str().expect("text").to_owned());
        receiver.tokens.lock().expect("whole").extend(token);
    }
    status
}

struct City {
    place: Place,
    settings: WatchSettings,
    receiver: Receiver,
}

impl City {
    async fn new() -> Self {
        Self::at(Place::new()).await
    }

    /// One whose lake fails as it is told.
    async fn with_faults() -> (Self, Arc<Simulated>) {
        let place = Place::new();
        let simulated = Arc::new(Simulated::new(place.clock.clone()));
        let url = "s3://city/lake".parse().expect("a lake");
        let objects: Arc<dyn ObjectStore> = Arc::<Simulated>::clone(&simulated);
        let lake = Lake::over(Store::over(objects, url)).with_clock(place.clock.clone());
        (Self::at(Place { lake, ..place }).await, simulated)
    }

    /// A tarn with an hourly sensor, and a limit of 25 on it; a receiver with a secret address and a token.
    async fn at(place: Place) -> Self {
        let sensors = "id,site,quantity,unit,kind,class,interval\n\
                       tjern/water_temperature,tjern,water_temperature,Cel,sample,public,1h\n";
        let files = place.files("site\ntjern\n", sensors);
        register::register(&place.lake, &files).await.expect("registered");
        let receiver = Receiver::default();
        std::fs::write(place.folder.path().join("url"), receiver.start().await).expect("written");
        std::fs::write(place.folder.path().join("token"), "another-canary\n").expect("written");
        let section: WatchSection = toml::from_str(
            "disk_free = \"1B\"\n[webhook]\nurl_file = \"url\"\ntoken_file = \"token\"\n\
             [[limit]]\nsensor = \"tjern/*\"\nhigh = 25\n",
        )
        .expect("valid");
        let lake = format!("file://{}/lake", place.folder.path().display()).parse().expect("a lake");
        let settings = section.settings(place.folder.path(), &lake, &TimeZone::UTC).expect("secrets");
        Self { place, settings, receiver }
    }

    /// A round of a process that knows nothing yet.
    async fn round(&self) -> Result<WatchOutcome, WatchError> {
        Watcher::new(self.settings.clone(), BTreeMap::new()).run(&self.place.lake).await
    }

    async fn rounds(&self, minutes: i64) {
        for _ in 0..minutes / 5 {
            self.round().await.expect("looked");
            self.place.clock.advance_us(5 * MINUTE_US);
        }
    }

    fn now_us(&self) -> i64 {
        self.place.lake.clock().now_us()
    }

    async fn measure(&self, value: f64) {
        let now_us = self.now_us();
        let row = Row { received_us: now_us, ..Row::new("water_temperature", now_us, value) };
        self.place.ingest(&[row]).await;
    }
}

use jiff::tz::TimeZone;

#[tokio::test]
async fn a_value_over_its_limit_is_told_once_and_once_when_it_is_over() {
    let city = City::new().await;
    city.measure(26.5).await;
    city.rounds(30).await;
    assert_eq!(city.receiver.told(), ["begun limit tjern/water_temperature"]);
    assert_eq!(city.receiver.tokens.lock().expect("whole")[0], "Bearer another-canary");
    city.measure(24.0).await;
    city.rounds(30).await;
    assert_eq!(city.receiver.told(), ["ended limit tjern/water_temperature"]);
    city.rounds(30).await;
    assert_eq!(city.receiver.told(), [""; 0]);
}

/// What a home's shower measured went out by a webhook, and into the log of the city.
#[tokio::test]
async fn nothing_that_a_home_measures_is_told() {
    let place = Place::new();
    let lake = place.lake.clone().of_persons();
    let city = City::at(Place { lake, ..place }).await;
    city.measure(26.5).await;
    city.rounds(4 * 60).await;
    assert_eq!(city.receiver.told(), ["begun source_silent landfall-01"], "that its gateway is silent is told");
}

#[tokio::test]
async fn a_receiver_that_is_away_is_told_later_and_no_secret_is_in_the_error() {
    let city = City::new().await;
    city.receiver.status.store(503, Ordering::SeqCst);
    city.measure(26.5).await;
    let error = city.round().await.expect_err("refused").to_string();
    assert!(error.contains("1 events are not told yet") && error.contains("503"), "{error}");
    city.place.clock.advance_us(HOUR_US / 2);
    city.measure(20.0).await;
    assert!(city.round().await.is_err());
    city.place.clock.advance_us(HOUR_US / 2);
    assert!(city.round().await.is_err());
    assert_eq!(city.receiver.told(), [""; 0]);
    city.receiver.status.store(204, Ordering::SeqCst);
    city.rounds(5).await;
    assert_eq!(city.receiver.told(), ["begun limit tjern/water_temperature", "ended limit tjern/water_temperature"]);

    // Nobody there at all.
    let mut gone = city.settings.clone();
    let nobody = tjern_testing::ports::SilentPort::take();
    std::fs::write(city.place.folder.path().join("url"), format!("http://{}/the-canary", nobody.address()))
        .expect("written");
    let section = crate::watch::webhook::WebhookSection { url_file: Some("url".into()), ..Default::default() };
    gone.webhook = Some(section.settings(city.place.folder.path()).expect("a secret"));
    city.measure(30.0).await;
    let error = Watcher::new(gone.clone(), BTreeMap::new()).run(&city.place.lake).await.expect_err("nobody there");
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    let shown = format!("{error} {error:?} {gone:?}");
    assert!(!shown.contains("canary"), "{shown}");
    let state = State::read(&city.place.lake).await.expect("read").expect("there");
    assert!(!format!("{state:?}").contains("canary"));
}

#[tokio::test]
async fn a_sensor_and_its_source_that_fall_silent_are_told_and_when_they_are_back() {
    let city = City::new().await;
    city.measure(20.0).await;
    city.rounds(2 * 60).await;
    assert_eq!(city.receiver.told(), [""; 0], "an hourly sensor is late after two hours and a little");
    city.rounds(2 * 60).await;
    assert_eq!(city.receiver.told(), ["begun sensor_late tjern/water_temperature", "begun source_silent landfall-01"]);
    city.measure(20.0).await;
    city.rounds(20).await;
    assert_eq!(city.receiver.told(), ["ended sensor_late tjern/water_temperature", "ended source_silent landfall-01"]);
}

/// Set to half an hour, with a source that sends every twenty minutes: what was written down moves in steps of an hour, and
/// by that the source fell silent and came back once an hour. And an hour more is not an hour less.
#[tokio::test]
async fn a_source_is_silent_to_the_minute() {
    let mut city = City::new().await;
    city.settings.source_silent = Duration::from_secs(30 * 60);
    for _ in 0..12 {
        city.measure(20.0).await;
        city.rounds(20).await;
    }
    assert_eq!(city.receiver.told(), [""; 0]);
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), [""; 0], "half an hour is not over");
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), ["begun source_silent landfall-01"]);
    city.measure(20.0).await;
    city.rounds(20).await;
    assert_eq!(city.receiver.told(), ["ended source_silent landfall-01"]);
}

#[tokio::test]
async fn a_sensor_that_never_spoke_is_late_only_once_the_watch_has_waited_for_it() {
    let city = City::new().await;
    city.rounds(2 * 60).await;
    assert_eq!(city.receiver.told(), [""; 0]);
    city.rounds(30).await;
    assert_eq!(city.receiver.told(), ["begun sensor_late tjern/water_temperature"]);
}

/// A city registered a sensor an evening before it was put up: "no value for at least 47 h", within a second. And a name that
/// is spelt right afterwards is no sensor that begins anew.
#[tokio::test]
async fn a_sensor_that_is_registered_later_is_waited_for_too() {
    let city = City::new().await;
    let sensors = |name: &str| {
        format!(
            "id,site,quantity,unit,kind,class,interval,name_nb\ntjern/water_temperature,tjern,water_temperature,Cel,sample,public,,\n\
             tjern/ph,tjern,ph,1,sample,public,1h,{name}\n"
        )
    };
    let register = async |name: &str| {
        let files = city.place.files("site\ntjern\n", &sensors(name));
        register::register(&city.place.lake, &files).await.expect("registered");
    };
    city.rounds(10).await;
    city.place.clock.advance_us(60 * HOUR_US);
    register("pH i tjernt").await;
    city.rounds(2 * 60).await;
    assert_eq!(city.receiver.told(), [""; 0], "it has had two hours");
    city.rounds(30).await;
    assert_eq!(city.receiver.told(), ["begun sensor_late tjern/ph"]);
    register("pH i tjernet").await;
    city.rounds(60).await;
    assert_eq!(city.receiver.told(), [""; 0], "it is late still");
}

impl City {
    /// A batch of an hour, a value each ten minutes, that is taken now.
    async fn measure_hour(&self, values: [f64; 6]) {
        let now_us = self.now_us();
        let time_us = |place: i64| now_us - (5 - place) * 10 * MINUTE_US;
        let row = |(place, value)| Row { received_us: now_us, ..Row::new("water_temperature", time_us(place), value) };
        self.place.ingest(&(0..).zip(values).map(row).collect::<Vec<_>>()).await;
    }
}

/// A gateway sends once an hour. For twenty minutes the water was over its limit, in the middle of a batch, and nobody heard of it.
#[tokio::test]
async fn a_peak_in_the_middle_of_a_batch_is_told_and_that_it_is_over() {
    const PEAK: [f64; 6] = [20.0, 20.0, 39.0, 38.5, 20.0, 20.0];
    let city = City::new().await;
    city.measure_hour([20.0; 6]).await;
    city.rounds(60).await;
    city.measure_hour(PEAK).await;
    let outcome = city.round().await.expect("looked");
    assert_eq!((outcome.open, outcome.begun), (1, 1));
    let state = State::read(&city.place.lake).await.expect("read").expect("there");
    let text = &state.alerts["limit:tjern/water_temperature"].text;
    let at = look::local(city.now_us() - 30 * MINUTE_US, &TimeZone::UTC);
    assert_eq!(*text, format!("tjern/water_temperature was 39 at {at}, over its limit of 25; newer values are not"));
    assert_eq!(city.receiver.told(), ["begun limit tjern/water_temperature"]);
    city.rounds(30).await;
    assert_eq!(city.receiver.told(), ["ended limit tjern/water_temperature"]);
    // It stays where it is for two days: nobody is told of it again, whoever watches.
    city.rounds(25).await;
    assert_eq!(city.receiver.told(), [""; 0]);
    city.measure_hour(PEAK).await;
    let mut watcher = Watcher::new(city.settings.clone(), BTreeMap::new());
    for _ in 0..5 {
        watcher.run(&city.place.lake).await.expect("looked");
        city.place.clock.advance_us(5 * MINUTE_US);
    }
    assert_eq!(
        city.receiver.told(),
        ["begun limit tjern/water_temperature", "ended limit tjern/water_temperature"],
        "the next one is told as the first was"
    );
}

/// A thermometer was held in the hand, and its value withdrawn before the watch looked.
#[tokio::test]
async fn a_peak_that_was_withdrawn_is_not_told() {
    let city = City::new().await;
    city.measure_hour([20.0; 6]).await;
    city.rounds(10).await;
    city.measure_hour([20.0, 39.0, 20.0, 20.0, 20.0, 20.0]).await;
    let now_us = city.now_us();
    let peak = Row::new("water_temperature", now_us - 40 * MINUTE_US, 39.0);
    city.place.ingest(&[Row { received_us: now_us, ..peak.quality(4).revision(1) }]).await;
    city.rounds(20).await;
    assert_eq!(city.receiver.told(), [""; 0]);
}

/// A state of before this was known has no word of which values were looked at: it gets one, and peaks are told from then on.
#[tokio::test]
async fn a_watch_of_an_earlier_version_goes_on_with_peaks() {
    let city = City::new().await;
    city.measure_hour([39.0, 20.0, 20.0, 20.0, 20.0, 20.0]).await;
    let mut before = State::new(city.now_us() - HOUR_US);
    before.values = None;
    before.write(&city.place.lake).await.expect("written");
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), [""; 0], "what was taken before is nobody's news");
    city.measure_hour([20.0, 39.0, 20.0, 20.0, 20.0, 20.0]).await;
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), ["begun limit tjern/water_temperature"]);
}

/// A token ran out on a Sunday: the lake could not be reached, and nobody had been told. It is told as long before as was set, once, and
/// is over when it was renewed.
#[tokio::test]
async fn a_token_that_runs_out_is_told_in_time_and_when_it_is_renewed() {
    let mut city = City::new().await;
    let day_us = 24 * HOUR_US;
    let file = city.place.folder.path().join("sas-token");
    let write = |end_us: i64| {
        let end = jiff::Timestamp::from_microsecond(end_us).expect("in range");
        std::fs::write(&file, format!("sv=2024-11-04&se={end}&sig=the-canary\n")).expect("written");
    };
    write(NOW_US + 20 * day_us);
    let token = "[[token]]\nname = \"the lake's access\"\nfile = \"sas-token\"\n";
    let section: WatchSection = toml::from_str(&format!("disk_free = \"1B\"\n{token}")).expect("valid");
    let tokens = section.settings(city.place.folder.path(), &city.settings.lake, &TimeZone::UTC).expect("read").tokens;
    city.settings = WatchSettings { tokens, source_silent: Duration::from_secs(365 * 86_400), ..city.settings };
    // A sensor of which nothing comes is another story.
    let files = city.place.files("site\n", "id,site,quantity,unit,kind,class\n");
    let files = register::RegisterFiles { may_end_all: true, ..files };
    register::register(&city.place.lake, &files).await.expect("registered");
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), [""; 0], "three weeks are time enough");
    city.place.clock.set_us(NOW_US + 7 * day_us);
    city.rounds(60).await;
    assert_eq!(city.receiver.told(), ["begun token the lake's access"], "two weeks before, and once");
    city.place.clock.set_us(NOW_US + 21 * day_us);
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), [""; 0], "that it has run out is the same");
    write(NOW_US + 400 * day_us);
    city.rounds(15).await;
    assert_eq!(city.receiver.told(), ["ended token the lake's access"]);
    let state = State::read(&city.place.lake).await.expect("read").expect("there");
    assert!(!format!("{state:?}").contains("the-canary"), "nothing of it is anywhere");
}

/// The thermometer was out of the water, and a person withdrew its value: it was told as the newest all the same, through
/// the word that was there before.
#[tokio::test]
async fn a_value_that_was_withdrawn_is_not_the_newest() {
    let city = City::new().await;
    city.measure(20.0).await;
    city.place.clock.advance_us(HOUR_US / 2);
    city.measure(26.5).await;
    let now_us = city.now_us();
    let withdrawn = Row { received_us: now_us, ..Row::new("water_temperature", now_us, 26.5).quality(4).revision(1) };
    city.place.ingest(&[withdrawn]).await;
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), [""; 0]);
    let better = Row { received_us: now_us, ..Row::new("water_temperature", now_us, 27.5).revision(2) };
    city.place.ingest(&[better]).await;
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), ["begun limit tjern/water_temperature"]);
}

/// One tank that is read off once a month made every round read a quarter of a year of all sensors.
#[tokio::test]
async fn a_sensor_that_measures_seldom_makes_no_round_dear() {
    let city = City::new().await;
    let day_us = 24 * HOUR_US;
    let sensors = "id,site,quantity,unit,kind,class,interval\ntjern/level,tjern,level,m,sample,public,30d\n\
                   tjern/water_temperature,tjern,water_temperature,Cel,sample,public,1h\n";
    register::register(&city.place.lake, &city.place.files("site\ntjern\n", sensors)).await.expect("registered");
    let row = |quantity: &str, time_us: i64| Row { received_us: time_us, ..Row::new(quantity, time_us, 20.0) };
    for day in 1..=40 {
        city.place.ingest(&[row("water_temperature", NOW_US - day * day_us)]).await;
    }
    city.place.ingest(&[row("level", NOW_US - 65 * day_us)]).await;
    let mut watcher = Watcher::new(city.settings.clone(), BTreeMap::new());
    city.measure(20.0).await;
    let spent = async |watcher: &mut Watcher| {
        let before = city.place.lake.store().requests();
        watcher.run(&city.place.lake).await.expect("looked");
        city.place.clock.advance_us(5 * MINUTE_US);
        city.place.lake.store().requests().since(&before).gets
    };
    let first = spent(&mut watcher).await;
    for _ in 0..6 {
        let gets = spent(&mut watcher).await;
        assert!(gets < 60, "{gets} gets a round, {first} the first time: what is old is not read again");
    }
    assert_eq!(city.receiver.told(), ["begun sensor_late tjern/level"], "it is known all the same, and once");
    let now_us = city.now_us();
    city.place.ingest(&[row("level", now_us)]).await;
    for _ in 0..3 {
        spent(&mut watcher).await;
    }
    assert_eq!(city.receiver.told(), ["ended sensor_late tjern/level"]);
}

const LEVEL: &str = "tjern/level";

impl City {
    /// A level in metres that landfall-01 alone may write.
    async fn with_a_level() -> Self {
        let city = Self::new().await;
        let sensors = "id,site,quantity,unit,kind,class,sources\ntjern/level,tjern,level,m,sample,public,landfall-01\n\
                       tjern/water_temperature,tjern,water_temperature,Cel,sample,public,\n";
        register::register(&city.place.lake, &city.place.files("site\ntjern\n", sensors)).await.expect("registered");
        city
    }

    /// A reading lands and is ingested.
    async fn ingest(&self, source: &str, number: i64, sensor: &str, time_us: i64, configuration: Option<&str>) {
        let source = source.parse().expect("valid");
        let epoch = tjern_readings::sensor::Epoch::from_bytes([5; 16]);
        let reading = tjern_readings::reading::Reading::of(sensor.parse().expect("valid"), time_us, 1.0);
        let (bytes, batch) =
            tjern_readings::batch::encode(&source, epoch, number, &[reading], configuration).expect("encoded");
        self.put(&keys::Landed::Batch(epoch, batch.header.bounds).key(&source), bytes.to_vec()).await;
        let settings = ingest::IngestSettings {
            hole_patience: Duration::from_secs(3_600),
            landing_grace: Duration::from_secs(7 * 24 * 3_600),
        };
        ingest::ingest(&self.place.lake, &settings).await.expect("ingested");
    }

    async fn put(&self, key: &Path, bytes: Vec<u8>) {
        use object_store::ObjectStoreExt;
        self.place.lake.objects().put(key, bytes.into()).await.expect("put");
    }
}

/// History of a year ago under a wrong name, and a gateway whose clock is ahead, while nobody watched: they failed, and
/// nobody heard of it.
#[tokio::test]
async fn what_ingest_refused_is_told_however_old_it_is_and_whoever_watched() {
    let city = City::with_a_level().await;
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), [""; 0]);
    let year_us = 365 * 24 * HOUR_US;
    city.ingest("import:history", 1, LEVEL, city.now_us() - year_us, None).await;
    city.ingest("landfall-01", 1, LEVEL, city.now_us() + HOUR_US, None).await;
    city.place.clock.advance_us(5 * HOUR_US / 2);
    city.rounds(5).await;
    let told = city.receiver.told();
    assert_eq!(told, ["begun future landfall-01", "begun not_assigned tjern/level import:history"]);
    city.rounds(30).await;
    let told = city.receiver.told();
    let ended: Vec<_> = told.iter().filter(|event| !event.contains("source_silent")).map(String::as_str).collect();
    assert_eq!(ended, ["ended future landfall-01", "ended not_assigned tjern/level import:history"], "each once");
    city.rounds(30).await;
    assert!(!city.receiver.told().iter().any(|event| event.contains("future") || event.contains("assigned")));
}

/// A gateway whose configuration never came (its upload is tried for ever): the check of its units was off, and nobody knew.
/// It is told for as long as it lasts, though the gateway sends no more, and over once readings were held against it.
#[tokio::test]
async fn a_configuration_that_is_not_there_is_told_until_it_comes() {
    let city = City::with_a_level().await;
    let sha256 = "ab".repeat(32);
    city.ingest("landfall-01", 1, LEVEL, city.now_us(), Some(&sha256)).await;
    city.rounds(10).await;
    let begun = format!("begun configuration landfall-01/{sha256}");
    assert_eq!(city.receiver.told(), [begun]);
    city.place.clock.advance_us(26 * HOUR_US);
    city.rounds(20).await;
    let told: Vec<String> = city.receiver.told().into_iter().filter(|event| event.contains("configuration")).collect();
    assert_eq!(told, [""; 0], "it is missing still: nothing is over, and nothing is told twice");
    let configuration = b"[[bus.device.point]]\nsensor = \"tjern/level\"\nunit = \"cm\"\n".to_vec();
    city.put(&keys::Landed::Configuration(sha256.clone()).key(&"landfall-01".parse().expect("valid")), configuration)
        .await;
    city.place.clock.advance_us(HOUR_US);
    city.ingest("landfall-01", 2, LEVEL, city.now_us(), Some(&sha256)).await;
    city.rounds(20).await;
    let mut told = city.receiver.told();
    told.retain(|event| !event.contains("source_silent"));
    let ended = format!("ended configuration landfall-01/{sha256}");
    assert_eq!(told, ["begun unit tjern/level landfall-01".to_owned(), ended]);
    let rows = city.place.readings().await;
    let causes: Vec<_> = rows.iter().map(|row| (row.quality, row.refused)).collect();
    assert_eq!(causes, [(4, Some(Cause::Unit)); 2], "the one from before it came, too");
}

/// A second configuration of one gateway was missing behind the first, and an alarm about one that would never come had no end.
#[tokio::test]
async fn each_configuration_is_told_by_itself_until_it_is_accepted() {
    let city = City::with_a_level().await;
    let [first, second] = ["ab", "cd"].map(|digits| digits.repeat(32));
    city.ingest("landfall-01", 1, LEVEL, city.now_us(), Some(&first)).await;
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), [format!("begun configuration landfall-01/{first}")]);
    city.ingest("landfall-01", 2, LEVEL, city.now_us(), Some(&second)).await;
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), [format!("begun configuration landfall-01/{second}")]);
    let author = crate::correct::Author { by: "a technician".to_owned(), reason: None };
    let source = "landfall-01".parse().expect("valid");
    ingest::accept_configuration(&city.place.lake, &source, &first, &author).await.expect("accepted");
    city.rounds(20).await;
    assert_eq!(city.receiver.told(), [format!("ended configuration landfall-01/{first}")]);
    // A name that is none is the writer's fault, and is told of the source.
    city.ingest("landfall-01", 3, LEVEL, city.now_us(), Some("../nonsense")).await;
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), ["begun configuration landfall-01"]);
}

/// An alarm about missing numbers ends when they are explained or accepted, and that a gateway dropped readings is told for
/// a day: both went on for ever.
#[tokio::test]
async fn a_hole_is_over_once_it_is_explained_or_accepted() {
    let city = City::new().await;
    let epoch = "0123456789abcdef0123456789abcdef";
    let run = |first: i64, kind| (format!(":open/landfall-01/{epoch}/{first:020}-{:020}", first + 1), kind);
    let mut table = Table::open_or_create(&city.place.lake, TableName::Readings).await.expect("a table");
    let mut say = async |transactions| {
        let moved = tjern_lake::Commit { transactions, ..commit(Operation::Ingest, vec![], vec![]) };
        table.commit(moved).await.expect("committed");
    };
    say(vec![run(3, 1), run(8, 1)]).await;
    city.rounds(20).await;
    let hole = |change: &str, numbers: &str| format!("{change} hole landfall-01/{epoch}{numbers}");
    assert_eq!(city.receiver.told(), [hole("begun", "/3-4"), hole("begun", "/8-9")]);
    say(vec![run(3, 4), run(8, 2), (format!(":dropped/landfall-01/{epoch}"), city.now_us())]).await;
    city.rounds(20).await;
    assert_eq!(city.receiver.told(), [hole("begun", ""), hole("ended", "/3-4"), hole("ended", "/8-9")]);
    city.place.clock.advance_us(23 * HOUR_US);
    city.rounds(20).await;
    assert!(!city.receiver.told().contains(&hole("ended", "")));
    city.rounds(80).await;
    assert!(city.receiver.told().contains(&hole("ended", "")));
}

#[tokio::test]
async fn a_job_that_fails_is_told_by_the_watch_of_another_process() {
    let city = City::new().await;
    let run = |outcome| Run { error: Some("no room".to_owned()), ..Run::new("compact", NOW_US, NOW_US, outcome) };
    let third = run(Outcome::Failed).after(Some(&Run { failures: 2, ..run(Outcome::Failed) }));
    record::write(&city.place.lake, &third).await.expect("written");
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), ["begun job_failed compact"]);
    record::write(&city.place.lake, &run(Outcome::Done)).await.expect("written");
    city.rounds(20).await;
    assert_eq!(city.receiver.told(), ["ended job_failed compact"]);
}

#[tokio::test]
async fn of_two_that_watch_one_tells() {
    let city = City::new().await;
    city.measure(26.5).await;
    let (one, other) = tokio::join!(city.round(), city.round());
    let told = one.expect("looked").told + other.expect("looked").told;
    assert_eq!((told, city.receiver.told().len()), (1, 1));
}

/// A disk that was full stopped the whole city, and the watch with it: it could not write down what it was to tell, and told
/// nothing.
#[tokio::test]
async fn a_lake_that_cannot_be_written_is_told_and_what_else_is_wrong_with_it() {
    let (city, store) = City::with_faults().await;
    city.measure(20.0).await;
    city.rounds(10).await;
    let mut watcher = Watcher::new(city.settings.clone(), BTreeMap::new());
    let lake = format!("disk {}", city.settings.lake);
    city.measure(26.5).await;
    store.fail(Fault::Full("jobs/"));
    let error = watcher.run(&city.place.lake).await.expect_err("it is not written down").to_string();
    assert!(error.contains("No space left") && error.contains("2 events were told"), "{error}");
    assert_eq!(city.receiver.told(), [format!("begun {lake}"), "begun limit tjern/water_temperature".to_owned()]);
    for _ in 0..24 {
        city.place.clock.advance_us(5 * MINUTE_US);
        watcher.run(&city.place.lake).await.expect_err("it is full still");
    }
    assert_eq!(city.receiver.told(), [""; 0], "once");
    // The lease fits, and the state does not.
    store.fail(Fault::Full("jobs/watch/"));
    city.place.clock.advance_us(5 * MINUTE_US);
    watcher.run(&city.place.lake).await.expect_err("it is full still");
    assert_eq!(city.receiver.told(), [""; 0]);
    // Nobody is there, either: it is told later.
    city.receiver.status.store(503, Ordering::SeqCst);
    city.measure(20.0).await;
    for _ in 0..3 {
        city.place.clock.advance_us(5 * MINUTE_US);
        let error = watcher.run(&city.place.lake).await.expect_err("full, and nobody there").to_string();
        assert!(error.contains("No space left"), "{error}");
    }
    // There is room again.
    store.fail(Fault::None);
    city.receiver.status.store(200, Ordering::SeqCst);
    for _ in 0..4 {
        watcher.run(&city.place.lake).await.expect("looked");
        city.place.clock.advance_us(5 * MINUTE_US);
    }
    assert_eq!(city.receiver.told(), ["ended limit tjern/water_temperature".to_owned(), format!("ended {lake}")]);
    city.rounds(20).await;
    assert_eq!(city.receiver.told(), [""; 0], "another process finds it in the lake that all was told");
}

/// What was told and could not be written down is not told again by the same process, and what another one told meanwhile
/// stands over what is kept in memory.
#[tokio::test]
async fn what_another_process_could_write_stands_over_what_one_keeps() {
    let (city, store) = City::with_faults().await;
    city.measure(26.5).await;
    let mut watcher = Watcher::new(city.settings.clone(), BTreeMap::new());
    store.fail(Fault::Full("jobs/"));
    watcher.run(&city.place.lake).await.expect_err("full");
    assert_eq!(city.receiver.told().len(), 2);
    store.fail(Fault::None);
    city.rounds(5).await;
    assert_eq!(city.receiver.told(), ["begun limit tjern/water_temperature"], "it knows nothing of what was told");
    watcher.run(&city.place.lake).await.expect("looked");
    assert_eq!(city.receiver.told(), [""; 0]);
    assert_eq!(watcher.kept.map(|kept| kept.stored), None, "it is forgotten");
}

/// The canary: a watch that does not keep its state tells everything again.
#[tokio::test]
async fn a_watch_that_forgets_is_caught() {
    let city = City::new().await;
    city.measure(26.5).await;
    city.rounds(10).await;
    use object_store::ObjectStoreExt;
    city.place.lake.objects().delete(&keys::watch_state()).await.expect("deleted");
    city.rounds(10).await;
    assert_eq!(city.receiver.told().len(), 2);
}

/// An integrator's bridge forgot the padding of its numbers: every reading of it was lost, and those who are told of all that
/// is wrong were told nothing.
#[tokio::test]
async fn what_landed_and_belongs_to_nobody_is_told_once_and_when_it_is_gone() {
    let city = City::new().await;
    city.measure(20.0).await;
    let key = Path::from("landing/bridge/0123456789abcdef0123456789abcdef/1-3.arrow");
    city.put(&key, b"a batch".to_vec()).await;
    city.put(&Path::from("landing/notes.txt"), b"moved on Friday".to_vec()).await;
    let mut watcher = Watcher::new(city.settings.clone(), BTreeMap::new());
    let rounds = async |watcher: &mut Watcher| {
        for _ in 0..14 {
            city.measure(20.0).await;
            watcher.run(&city.place.lake).await.expect("looked");
            city.place.clock.advance_us(5 * MINUTE_US);
        }
    };
    rounds(&mut watcher).await;
    assert_eq!(city.receiver.told(), ["begun stray bridge", "begun stray landing/"]);
    let state = State::read(&city.place.lake).await.expect("read").expect("there");
    let text = &state.alerts["stray:bridge"].text;
    assert!(text.starts_with("1 objects in the folder `bridge`") && text.contains("hint: "), "{text}");
    assert!(!text.contains("1-3"), "a key may name what is erased one day: {text}");
    object_store::ObjectStoreExt::delete(city.place.lake.objects().as_ref(), &key).await.expect("removed");
    rounds(&mut watcher).await;
    rounds(&mut watcher).await;
    assert_eq!(city.receiver.told(), ["ended stray bridge"]);
}

/// A folder whose rights were changed hides what lies in it: that it is gone is not known.
#[tokio::test]
async fn of_what_cannot_be_read_nothing_is_concluded() {
    let (city, simulated) = City::with_faults().await;
    city.put(&Path::from("landing/bridge/soon/1-3.arrow"), b"a batch".to_vec()).await;
    city.rounds(10).await;
    assert_eq!(city.receiver.told(), ["begun stray bridge"]);
    simulated.fail(Fault::Locked("landing/bridge/"));
    city.rounds(60).await;
    assert_eq!(city.receiver.told(), [""; 0]);
    simulated.fail(Fault::None);
    object_store::ObjectStoreExt::delete(simulated.inner().as_ref(), &Path::from("landing/bridge/soon/1-3.arrow"))
        .await
        .expect("removed");
    city.rounds(20).await;
    assert_eq!(city.receiver.told(), ["ended stray bridge"]);
}
