//! Vacuum beside readers: whoever began to read within the last `retention` finds every file, whatever is written, merged and
//! removed meanwhile.
//!
//! A reader is a process of its own: it opens a session, which pins the newest version and reads no file, and asks much later.
//! Time is the test's. Canary: a vacuum that keeps what was removed for less long than readers read takes files away from them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use futures::future::join_all;
use jiff::tz::TimeZone;
use object_store::ObjectStore;
use tjern_lake::session::MEMORY_BYTES;
use tjern_lake::{Access, CommitError, Lake, Operation, SessionSettings, Table, TableName, session};
use tjern_pipeline::compact::{CompactSettings, compact};
use tjern_pipeline::vacuum::vacuum;
use tjern_readings::clock::Clock;
use tjern_readings::store::Store;
use tjern_testing::simulated::Simulated;
use tokio_util::sync::CancellationToken;

use crate::place::{ALONE, HOUR_US, commit, file, rows};

/// 2026-07-01T00:00:00Z.
const NOW_US: i64 = 1_782_864_000_000_000;
const MINUTE_US: i64 = 60_000_000;

const ROUNDS: i64 = 30;
const ROUND_US: i64 = 10 * MINUTE_US;
/// So long a reader waits before it asks.
const HELD_US: i64 = 55 * MINUTE_US;
/// So long vacuum keeps what was removed.
const RETENTION: Duration = Duration::from_secs(60 * 60);
const ROWS: i64 = 20;
/// So many files are committed in a round.
const FILES: i64 = 3;

/// Somebody who has pinned a version, and when they ask, and what they have to find: how many rows, and the sum of their numbers.
struct Reader {
    context: SessionContext,
    asks_us: i64,
    wanted: (i64, i64),
}

impl Reader {
    async fn begin(lake: &Lake, wanted: (i64, i64)) -> Self {
        let settings = SessionSettings { access: Access::Staff, timezone: TimeZone::UTC, memory_bytes: MEMORY_BYTES };
        let context = session(lake, &settings).await.expect("opened");
        Self { context, asks_us: lake.clock().now_us() + HELD_US, wanted }
    }

    async fn ask(self) -> Result<(), String> {
        let asked = self.context.sql("SELECT count(*), coalesce(sum(seq), 0) FROM readings").await;
        let answer = match asked {
            Ok(asked) => asked.collect().await,
            Err(error) => Err(error),
        };
        let answer = answer.map_err(|error| error.to_string())?;
        let number = |column: usize| answer[0].column(column).as_primitive::<Int64Type>().value(0);
        let found = (number(0), number(1));
        if found == self.wanted { Ok(()) } else { Err(format!("{found:?} in place of {:?}", self.wanted)) }
    }
}

/// What came of it all.
#[derive(Debug, Default)]
struct Played {
    merged: usize,
    vacuumed: usize,
    answered: usize,
    /// What readers were told in place of an answer.
    missed: Vec<String>,
}

/// Commits files of an old day, as imports do, so that all are worth merging.
async fn write(lake: &Lake, round: i64) {
    let mut table = Table::open_or_create(lake, TableName::Readings).await.expect("a table");
    for number in 0..FILES {
        let first = (round * FILES + number) * ROWS;
        let rows = rows(first, ROWS, 4, |number| NOW_US - 900 * HOUR_US + number * 1_000_000);
        loop {
            // Written again where vacuum may have taken it.
            let wanted = commit(Operation::Ingest, vec![file(lake, &rows).await], vec![]);
            match table.commit(wanted).await {
                Ok(_) => break,
                Err(CommitError::Conflict { .. } | CommitError::Stale { .. }) => {
                    table.refresh().await.expect("refreshed");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn play(retention: Duration) -> Played {
    let clock = Clock::manual(NOW_US);
    let store = Arc::new(Simulated::new(clock.clone()));
    // Each is a process of its own: what one has read is not kept for the others.
    let process = || {
        let objects: Arc<dyn ObjectStore> = Arc::<Simulated>::clone(&store);
        Lake::over(Store::over(objects, "s3://city/lake".parse().expect("a lake"))).with_clock(clock.clone())
    };
    let (writer, compactor, vacuumer) = (process(), process(), process());
    Table::create_all(&writer).await.expect("created");
    let (mut readers, mut played) = (VecDeque::new(), Played::default());
    let (settings, never) = (CompactSettings::default(), CancellationToken::new());
    for round in 0..ROUNDS {
        let count = round * FILES * ROWS;
        readers.push_back(Reader::begin(&process(), (count, count * (count - 1) / 2)).await);
        let mut due = Vec::new();
        while readers.front().is_some_and(|reader: &Reader| reader.asks_us <= clock.now_us()) {
            due.extend(readers.pop_front());
        }
        store.give_way(u64::try_from(round % 4).expect("small"));
        let mut quiet = |_| ();
        let ((), merged, vacuumed, answers) = tokio::join!(
            write(&writer, round),
            compact(&compactor, &settings, &never, &mut quiet),
            vacuum(&vacuumer, retention, false),
            join_all(due.into_iter().map(Reader::ask)),
        );
        played.merged += merged.expect("compacted").removed;
        played.vacuumed += vacuumed.expect("vacuumed").iter().map(|table| table.files.len()).sum::<usize>();
        played.answered += answers.len();
        played.missed.extend(answers.into_iter().filter_map(Result::err));
        clock.advance_us(ROUND_US);
    }
    played
}

#[tokio::test]
async fn no_reader_misses_a_file_that_vacuum_removes() {
    let _alone = ALONE.lock().await;
    let played = Box::pin(play(RETENTION)).await;
    assert!(played.merged > 30 && played.vacuumed > 30 && played.answered > 20, "{played:?}");
    assert_eq!(played.missed, [""; 0], "{played:?}");
}

/// The canary: what was removed is kept for no time at all.
#[tokio::test]
async fn a_vacuum_that_does_not_heed_readers_is_caught() {
    let _alone = ALONE.lock().await;
    let played = Box::pin(play(Duration::ZERO)).await;
    assert!(played.missed.len() > 5, "{played:?}");
    assert!(played.missed.iter().any(|told| told.contains("not found") || told.contains("NotFound")), "{played:?}");
}
