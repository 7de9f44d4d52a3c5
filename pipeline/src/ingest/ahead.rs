//! Steps in their order, with what they need read ahead.
//!
//! Several batches are fetched at once, as many as fit: [`READS_MAX`] of them, with [`BYTES_MAX`] in the store. One that
//! is larger than that is read alone. What will not be used is not asked for: of a stream that was stopped nothing more is
//! read (what is under way is given up), and no more rows than the commit has room for.

use std::collections::{HashSet, VecDeque};

use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use tjern_readings::keys::Bounds;

use super::landing::Stream;
use super::sequence::Step;

/// How many batches are read at once.
pub(super) const READS_MAX: usize = 16;

/// How many bytes they have together, as they lie in the store.
pub(super) const BYTES_MAX: u64 = 64 << 20;

/// A step that is to be done, and the bytes of the batch that it needs.
pub(super) type Wanted = (Stream, Step, u64);

/// Room that is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) batches: usize,
    pub(super) rows: usize,
}

/// What a step needs, as it is read.
type Reading<'a, T> = BoxFuture<'a, Option<T>>;

/// Steps, some of them with their reading under way. `T` is what a reading gives.
pub(super) struct Ahead<'a, T> {
    steps: VecDeque<Wanted>,
    read: Box<dyn Fn(Stream, Bounds) -> BoxFuture<'a, T> + Send + 'a>,
    under_way: FuturesOrdered<Reading<'a, T>>,
    /// The steps whose reading is under way, in order.
    begun: VecDeque<Begun>,
    /// Streams of which nothing more is wanted.
    stopped: HashSet<Stream>,
}

struct Begun {
    wanted: Wanted,
    rows: usize,
    abort: AbortHandle,
}

impl<'a, T: Send + 'a> Ahead<'a, T> {
    pub(super) fn new(steps: Vec<Wanted>, read: impl Fn(Stream, Bounds) -> BoxFuture<'a, T> + Send + 'a) -> Self {
        Self {
            steps: steps.into(),
            read: Box::new(read),
            under_way: FuturesOrdered::new(),
            begun: VecDeque::new(),
            stopped: HashSet::new(),
        }
    }

    /// The next step of a stream that was not stopped, with what was read for it.
    pub(super) async fn next(&mut self, room: Room) -> Option<(Stream, Step, Option<T>)> {
        loop {
            self.begin(room);
            let Begun { wanted: (stream, step, _), .. } = self.begun.pop_front()?;
            let read = self.under_way.next().await.flatten();
            if !self.stopped.contains(&stream) {
                return Some((stream, step, read));
            }
        }
    }

    /// Of this stream nothing more is wanted.
    pub(super) fn stop(&mut self, stream: Stream) {
        self.begun.iter().filter(|begun| begun.wanted.0 == stream).for_each(|begun| begun.abort.abort());
        self.stopped.insert(stream);
    }

    /// Begins to read for as many steps as there is room for; for one in any case.
    fn begin(&mut self, room: Room) {
        while let Some((stream, step, bytes)) = self.steps.front() {
            if self.stopped.contains(stream) {
                self.steps.pop_front();
                continue;
            }
            let rows = self.begun.iter().map(|begun| begun.rows).sum::<usize>();
            let begun_bytes = self.begun.iter().map(|begun| begun.wanted.2).sum::<u64>();
            let fits = self.begun.len() < READS_MAX.min(room.batches)
                && begun_bytes.saturating_add(*bytes) <= BYTES_MAX
                && rows < room.rows;
            if !fits && !self.begun.is_empty() {
                return;
            }
            let (abort, registration) = AbortHandle::new_pair();
            let reading = match step.batch() {
                Some(bounds) => {
                    let reading = Abortable::new((self.read)(stream.clone(), bounds), registration);
                    reading.map(Result::ok).boxed()
                }
                None => futures::future::ready(None).boxed(),
            };
            let rows = step.batch().map_or(0, |bounds| usize::try_from(bounds.count()).unwrap_or(usize::MAX));
            self.under_way.push_back(reading);
            if let Some(wanted) = self.steps.pop_front() {
                self.begun.push_back(Begun { wanted, rows, abort });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tjern_readings::sensor::Epoch;

    use super::*;

    /// Which readings were begun, and which of them were given up before their end.
    type Log = Arc<Mutex<Vec<(Stream, Bounds)>>>;

    fn stream(number: u8) -> Stream {
        (format!("gateway-{number}").parse().expect("valid"), Epoch::from_bytes([number; 16]))
    }

    fn take(first: i64, rows: i64) -> Step {
        Step::Take(Bounds::new(first, first + rows - 1).expect("in order"))
    }

    fn over(steps: Vec<Wanted>, log: &Log) -> Ahead<'static, Bounds> {
        let log = Arc::clone(log);
        Ahead::new(steps, move |stream, bounds| {
            log.lock().expect("whole").push((stream, bounds));
            async move {
                tokio::task::yield_now().await;
                bounds
            }
            .boxed()
        })
    }

    const ROOM: Room = Room { batches: 4_096, rows: 1_000_000 };

    proptest! {
        /// Whatever is sent: what is in hand keeps to its bounds, but for one batch that is larger by itself; every step comes,
        /// in order, with what was read for it.
        #[test]
        fn what_is_read_ahead_is_bounded_and_comes_in_order(
            sizes in prop::collection::vec((1_u64..40 << 20, 1_i64..2_000_000), 1..60),
        ) {
            let mut first = 1;
            let steps: Vec<Wanted> = sizes.iter().map(|(bytes, rows)| {
                let step = take(first, *rows);
                first += rows;
                (stream(1), step, *bytes)
            }).collect();
            let size_of: BTreeMap<Bounds, u64> =
                steps.iter().filter_map(|(_, step, bytes)| Some((step.batch()?, *bytes))).collect();
            let log = Log::default();
            let mut ahead = over(steps.clone(), &log);
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            for (done, (_, wanted, _)) in steps.iter().enumerate() {
                let (_, step, read) = runtime.block_on(ahead.next(ROOM)).expect("a step");
                prop_assert_eq!((step, read), (*wanted, wanted.batch()));
                let log = log.lock().expect("whole");
                let in_hand = &log[done..];
                let bytes: u64 = in_hand.iter().map(|(_, bounds)| size_of[bounds]).sum();
                let rows: i64 = in_hand.iter().rev().skip(1).map(|(_, bounds)| bounds.count()).sum();
                prop_assert!(in_hand.len() <= READS_MAX);
                prop_assert!(bytes <= BYTES_MAX || in_hand.len() == 1, "{bytes} bytes of {} batches", in_hand.len());
                prop_assert!(rows < 1_000_000, "{rows} rows before the last one");
            }
            prop_assert!(runtime.block_on(ahead.next(ROOM)).is_none());
        }
    }

    /// A batch that cannot be had stops its stream: the thousands behind it were downloaded for nothing, round after round.
    #[tokio::test]
    async fn of_a_stream_that_was_stopped_nothing_more_is_read() {
        let steps = (0..200_i64).flat_map(|turn| [1, 2].map(|number| (stream(number), take(turn * 10 + 1, 10), 1_000)));
        let log = Log::default();
        let mut ahead = over(steps.collect(), &log);
        let (first, ..) = ahead.next(ROOM).await.expect("a step");
        ahead.stop(first.clone());
        let mut others = 0;
        while let Some((stream, _, read)) = ahead.next(ROOM).await {
            assert!(stream != first && read.is_some());
            others += 1;
        }
        assert_eq!(others, 200);
        let in_vain = log.lock().expect("whole").iter().filter(|(stream, _)| *stream == first).count();
        assert!(in_vain <= READS_MAX, "{in_vain} readings of a stream that was stopped");
    }
}
