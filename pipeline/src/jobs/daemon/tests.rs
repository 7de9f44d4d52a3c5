//! Days of a daemon in simulated time, on a lake in memory: nothing overlaps, nothing is missed, nothing is
//! done twice, and what fails is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tjern_lake::Lease;
use tjern_readings::clock::Clock;
use tjern_readings::store::Store;
use tokio::task::JoinHandle;

use super::super::job::{Done, Job};
use super::super::record::Outcome;
use super::super::schedule::Schedule;
use super::*;

/// 2026-11-22T12:00:00Z.
const NOON_US: i64 = 1_795_348_800_000_000;
const SECOND_US: i64 = 1_000_000;
const DAY_S: u64 = 86_400;

/// A job that takes its time, fails as often as it is told, and sees to it that it is never at work twice.
#[derive(Debug, Clone, Default)]
struct Rehearsed {
    takes_s: u64,
    fails: Arc<AtomicU32>,
    runs: Arc<AtomicU32>,
    at_work: Arc<AtomicU32>,
    together: Arc<AtomicU32>,
}

#[async_trait]
impl Job for Rehearsed {
    fn undone(&self) -> &'static str {
        "nothing was rehearsed"
    }

    async fn run(&mut self, _lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let others = self.at_work.fetch_add(1, Ordering::SeqCst);
        self.together.fetch_max(others + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(self.takes_s)).await;
        self.at_work.fetch_sub(1, Ordering::SeqCst);
        self.runs.fetch_add(1, Ordering::SeqCst);
        let fails = self.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if fails.is_ok() { Err(JobError::failed("the store is away")) } else { Ok(Done::new("rehearsed")) }
    }
}

impl Rehearsed {
    fn entry(&self, name: &str, line: Line, schedule: &Schedule) -> Entry {
        Entry { name: name.to_owned(), line, schedule: schedule.clone(), job: Box::new(self.clone()) }
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
}

fn every(seconds: u64) -> Schedule {
    Schedule::Every(Duration::from_secs(seconds))
}

fn nightly() -> Schedule {
    Schedule::Cron("30 3 * * *".parse().expect("well formed"))
}

/// A lake whose wall clock goes with the runtime's.
fn lake(start_us: i64) -> (Lake, Clock, JoinHandle<()>) {
    let clock = Clock::manual(start_us);
    let store = Store::open(&"memory:///".parse().expect("a lake")).expect("opened");
    (Lake::over(store).with_clock(clock.clone()), clock.clone(), tick(clock))
}

fn tick(clock: Clock) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            clock.advance_us(SECOND_US / 2);
        }
    })
}

async fn live(lake: &Lake, entries: Vec<Entry>, seconds: u64) -> States {
    let states = States::default();
    let stop = CancellationToken::new();
    let rhythm = Rhythm { timezone: TimeZone::get("Europe/Oslo").expect("known"), jitter: Duration::ZERO };
    let end = async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stop.cancel();
    };
    tokio::join!(run_entries(lake, entries, &rhythm, &states, &stop), end);
    states
}

#[tokio::test(start_paused = true)]
async fn a_slow_job_keeps_its_line_waiting_and_not_the_others() {
    let (lake, _, _ticking) = lake(NOON_US);
    let (slow, quick, ingest) =
        (Rehearsed { takes_s: 1_800, ..Rehearsed::default() }, Rehearsed::default(), Rehearsed::default());
    let beside =
        Rehearsed { at_work: Arc::clone(&slow.at_work), together: Arc::clone(&slow.together), ..quick.clone() };
    let entries = vec![
        ingest.entry("ingest", Line::Ingest, &every(60)),
        slow.entry("slow", Line::Upkeep, &every(3_600)),
        beside.entry("quick", Line::Upkeep, &every(60)),
    ];
    live(&lake, entries, DAY_S).await;
    assert_eq!(slow.together.load(Ordering::SeqCst), 1, "two jobs of a line were at work at once");
    // Thirty minutes of each hour are left for it, and what was missed is made up for once.
    assert!((24 * 29..=24 * 32).contains(&quick.runs()), "{}", quick.runs());
    assert_eq!(slow.runs(), 24);
    // And once more at the end, for what was uploaded last.
    assert!((1_435..=1_442).contains(&ingest.runs()), "{}", ingest.runs());
}

#[tokio::test(start_paused = true)]
async fn a_restart_neither_repeats_nor_forgets() {
    let (lake, clock, ticking) = lake(NOON_US);
    let job = Rehearsed::default();
    let entries = || vec![job.entry("publish-x", Line::Upkeep, &nightly())];
    live(&lake, entries(), DAY_S).await;
    assert_eq!(job.runs(), 1);
    // Restarted all day long: its slot is done.
    for _ in 0..10 {
        live(&lake, entries(), 600).await;
    }
    assert_eq!(job.runs(), 1);
    // Off for five nights: one run makes up for them, at once.
    ticking.abort();
    clock.advance_us(5 * 86_400 * SECOND_US);
    let _ticking = tick(clock);
    let states = live(&lake, entries(), 600).await;
    assert_eq!(job.runs(), 2);
    assert_eq!(states.all()["publish-x"].done, 1);
}

/// The canary of the test above: without the record in the lake a restart repeats the work.
#[tokio::test(start_paused = true)]
async fn a_daemon_that_forgets_is_caught() {
    let (lake, _, _ticking) = lake(NOON_US);
    let job = Rehearsed::default();
    let hourly = || vec![job.entry("rollup", Line::Upkeep, &every(3_600))];
    live(&lake, hourly(), 600).await;
    live(&lake, hourly(), 600).await;
    assert_eq!(job.runs(), 1);
    use object_store::ObjectStoreExt;
    lake.objects().delete(&tjern_readings::keys::job_run("rollup")).await.expect("deleted");
    live(&lake, hourly(), 600).await;
    assert_eq!(job.runs(), 2, "a lost record is not noticed");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_told_and_over_by_itself() {
    let (lake, _, _ticking) = lake(NOON_US);
    let job = Rehearsed { fails: Arc::new(AtomicU32::new(4)), ..Rehearsed::default() };
    let states = live(&lake, vec![job.entry("compact", Line::Upkeep, &every(600))], 40).await;
    // At once, after 5, 15 and 35 seconds.
    assert_eq!(job.runs(), 4);
    let (well, jobs) = states.health(NOON_US + 40 * SECOND_US);
    assert!(!well && jobs["compact"].failures == 4);
    let run = record::read(&lake, "compact").await.expect("read").expect("there");
    assert_eq!((run.outcome, run.failures, run.succeeded), (Outcome::Failed, 3, None), "written when it turns serious");
    assert_eq!(run.not_done.as_deref(), Some("nothing was rehearsed"));
    let states = live(&lake, vec![job.entry("compact", Line::Upkeep, &every(600))], 40).await;
    assert_eq!(job.runs(), 5, "a restart tries again at once");
    assert!(states.health(NOON_US + 80 * SECOND_US).0);
    let run = record::read(&lake, "compact").await.expect("read").expect("there");
    assert_eq!((run.outcome, run.failures, run.error), (Outcome::Done, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_job_every_five_seconds_is_not_written_down_every_five_seconds() {
    let (lake, _, _ticking) = lake(NOON_US);
    let job = Rehearsed::default();
    let states = live(&lake, vec![job.entry("ingest", Line::Ingest, &every(5))], 3_600).await;
    assert!(job.runs() > 600, "{}", job.runs());
    let run = record::read(&lake, "ingest").await.expect("read").expect("there");
    let last = states.all()["ingest"].last.clone().expect("ran");
    let behind_us = last.began.0 - run.began.0;
    let unchanged_us = i64::try_from(record::UNCHANGED_EVERY.as_micros()).expect("small");
    assert!((60 * SECOND_US..unchanged_us).contains(&behind_us), "{behind_us}");
}

#[test]
fn a_job_is_late_when_it_is_at_work_or_waits_for_too_long() {
    let states = States::default();
    states.add("compact", "every 600s".to_owned(), None, NOON_US);
    let hour_us = 3_600 * SECOND_US;
    assert!(states.health(NOON_US + hour_us).0);
    assert!(!states.health(NOON_US + hour_us + 1).0);
    states.began("compact", NOON_US + 2 * hour_us);
    assert!(states.health(NOON_US + 3 * hour_us).0 && !states.health(NOON_US + 4 * hour_us).0);
    states.ended(&Run::new("compact", NOON_US, NOON_US + 1, Outcome::Done), NOON_US + 5 * hour_us);
    assert!(states.health(NOON_US + 4 * hour_us).0);
}

#[tokio::test]
async fn metrics_have_every_job_and_what_it_did() {
    let states = States::default();
    states.add("ingest", "every 5s".to_owned(), None, NOON_US);
    let mut run = Run::new("ingest", NOON_US, NOON_US + 3 * SECOND_US / 2, Outcome::Done);
    run.did.insert("rows".to_owned(), 360.into());
    states.ended(&run, NOON_US + 5 * SECOND_US);
    states.ended(&run, NOON_US + 5 * SECOND_US);
    let (lake, ..) = lake(NOON_US);
    record::read(&lake, "ingest").await.expect("asked");
    let text = super::super::metrics::text(&states, &lake).expect("text");
    for line in [
        "tjern_job_runs_total{job=\"ingest\",outcome=\"done\"} 2",
        "tjern_job_runs_total{job=\"ingest\",outcome=\"failed\"} 0",
        "tjern_job_did_total{job=\"ingest\",what=\"rows\"} 720",
        "tjern_job_busy_seconds_total{job=\"ingest\"} 3.0",
        "tjern_job_healthy{job=\"ingest\"} 1.0",
        "tjern_job_last_success_timestamp_seconds{job=\"ingest\"} 1795348800.0",
        "tjern_store_requests_total{kind=\"get\"} 1",
        "tjern_store_requests_total{kind=\"put\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// A server's clock was a day ahead until it heard of the time. The jobs ran on, and `/health` and the metrics went on saying that
/// each is due tomorrow: whoever looked believed that the pipeline stood still.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_is_told_of_in_when_a_job_is_due() {
    let (lake, clock, _ticking) = lake(NOON_US);
    let (hourly, waiting) = (Rehearsed::default(), Rehearsed::default());
    let entries =
        vec![hourly.entry("rollup", Line::Upkeep, &every(3_600)), waiting.entry("publish-x", Line::Upkeep, &nightly())];
    let set_back = async {
        tokio::time::sleep(Duration::from_secs(600)).await;
        clock.set_us(NOON_US - 86_400 * SECOND_US);
    };
    // The clock is looked at once a minute.
    let (states, ()) = tokio::join!(live(&lake, entries, 720), set_back);
    let now_us = clock.now_us();
    for (name, job) in states.all() {
        let due_us = job.next_us.expect("it is known") - now_us;
        assert!((0..16 * 3_600 * SECOND_US).contains(&due_us), "{name} is due in {} s", due_us / SECOND_US);
    }
}

/// A first run of a rollup or a release of a large lake takes hours. Whoever stops the service waited for it, until the
/// service manager killed the process in the middle of whatever it did.
#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_no_job() {
    let (lake, _, _ticking) = lake(NOON_US);
    let endless = Rehearsed { takes_s: 30 * DAY_S, ..Rehearsed::default() };
    let began = tokio::time::Instant::now();
    live(&lake, vec![endless.entry("rollup", Line::Upkeep, &every(600))], 60).await;
    assert!(began.elapsed() < Duration::from_secs(61), "{:?}", began.elapsed());
    assert_eq!((endless.runs(), endless.at_work.load(Ordering::SeqCst)), (0, 1), "it was at work, and not done");
    let run = record::read(&lake, "rollup").await.expect("read").expect("there");
    assert_eq!((run.outcome, run.succeeded), (Outcome::Interrupted, None));
    let short = Rehearsed::default();
    live(&lake, vec![short.entry("rollup", Line::Upkeep, &every(600))], 60).await;
    assert_eq!(short.runs(), 1, "the next start does at once what was not done");
}

/// A job that others are kept from while it is at work, as compaction.
#[derive(Debug)]
struct Leased {
    lasts: Duration,
    work: Rehearsed,
}

#[async_trait]
impl Job for Leased {
    fn undone(&self) -> &'static str {
        self.work.undone()
    }

    async fn run(&mut self, lake: &Lake, stop: &CancellationToken) -> Result<Done, JobError> {
        let Some(lease) = Lease::take(lake, "leased", self.lasts).await.map_err(JobError::failed)? else {
            return Ok(Done { held_elsewhere: true, ..Done::new("another process is at it").worked(false) });
        };
        let done = self.work.run(lake, stop).await;
        lease.give_back().await.map_err(JobError::failed)?;
        done
    }
}

/// The daemon was killed while it compacted at half past three, and restarted after five seconds. Its own lease, which
/// nobody gave back, kept it from the run that was due, and the night was lost.
#[tokio::test(start_paused = true)]
async fn a_run_that_was_killed_is_made_up_for_once_its_lease_has_run_out() {
    for lasts_s in [60, 300] {
        let lasts = Duration::from_secs(lasts_s);
        // 03:30 in Oslo, on the next day.
        let slot_us = NOON_US + (14 * 3_600 + 1_800) * SECOND_US;
        let (lake, clock, ticking) = lake(slot_us - 3_600 * SECOND_US);
        let work = Rehearsed::default();
        let entry = || Entry {
            name: "compact".to_owned(),
            line: Line::Upkeep,
            schedule: nightly(),
            job: Box::new(Leased { lasts, work: work.clone() }),
        };
        let yesterday = slot_us - 86_400 * SECOND_US;
        record::write(&lake, &Run::new("compact", yesterday, yesterday + 1, Outcome::Done)).await.expect("written");
        ticking.abort();
        clock.set_us(slot_us + 60 * SECOND_US);
        let killed = Lease::take(&lake, "leased", lasts).await.expect("taken").expect("free");
        drop(killed);
        clock.advance_us(5 * SECOND_US);
        let ticking = tick(clock);
        let states = live(&lake, vec![entry()], 2 * lasts_s + 10).await;
        assert_eq!(work.runs(), 1, "made up for, once");
        let job = &states.all()["compact"];
        assert!(job.held_elsewhere > 1 && job.failed == 0 && job.done == 1, "{job:?}");
        assert!(states.health(lake.clock().now_us()).0);
        let run = record::read(&lake, "compact").await.expect("read").expect("there");
        assert_eq!((run.outcome, run.failures), (Outcome::Done, 0));
        ticking.abort();
    }
}

/// A job with a defect.
#[derive(Debug)]
struct Defective;

#[async_trait]
impl Job for Defective {
    fn undone(&self) -> &'static str {
        "nothing was done"
    }

    async fn run(&mut self, _lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        panic!("an index out of bounds")
    }
}

/// A defect in one job ended the daemon, and with it ingest and whatever ran beside it.
#[tokio::test(start_paused = true)]
async fn a_job_that_panics_has_failed_and_the_others_go_on() {
    let (lake, _, _ticking) = lake(NOON_US);
    let ingest = Rehearsed::default();
    let mut defective = ingest.entry("compact", Line::Upkeep, &every(60));
    defective.job = Box::new(Defective);
    live(&lake, vec![ingest.entry("ingest", Line::Ingest, &every(5)), defective], 600).await;
    assert!(ingest.runs() > 100, "{}", ingest.runs());
    let run = record::read(&lake, "compact").await.expect("read").expect("there");
    assert!(run.error.as_ref().is_some_and(|error| error.contains("an index out of bounds")), "{run:?}");
}

/// Whoever asked for a job in the first moments was told that there is no such job: their monitoring gave alarm at each start.
#[test]
fn every_job_is_known_before_the_first_was_looked_at() {
    let states = States::default();
    let entries = ["ingest", "quality", "compact"].map(|name| {
        let line = if name == "ingest" { Line::Ingest } else { Line::Upkeep };
        Rehearsed::default().entry(name, line, &every(60))
    });
    announce_entries(&entries, &["compact".to_owned()].into(), &states);
    let (well, jobs) = states.health(NOON_US);
    assert!(well && jobs.keys().eq(["ingest", "quality"]), "what is off is none of them: {jobs:?}");
    // What is found out of one stays.
    states.add("ingest", "every minute".to_owned(), None, NOON_US);
    announce_entries(&entries, &BTreeSet::new(), &states);
    assert_eq!(states.all()["ingest"].next_us, Some(NOON_US));
}
