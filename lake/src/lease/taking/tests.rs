//! Two who find the same lease run out, each of whose calls comes at any time between the other's: one has it.
//!
//! Canary: reading, removing and creating gives it to both.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutOptions,
    PutResult, Result,
};
use tjern_readings::clock::Clock;
use tjern_readings::store::Store;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::*;
use crate::Lake;

const MINUTE: Duration = Duration::from_secs(60);

/// No taker makes more calls.
const CALLS_MAX: usize = 12;

/// Objects in memory, each call to which waits until it is let through.
#[derive(Debug, Clone)]
struct Gate {
    objects: Arc<InMemory>,
    calls: Arc<Semaphore>,
    compares: bool,
}

impl Gate {
    async fn pass(&self) {
        self.calls.acquire().await.expect("open").forget();
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Gate")
    }
}

#[async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if matches!(options.mode, PutMode::Update(_)) && !self.compares {
            return Err(Error::NotImplemented { operation: "put".to_owned(), implementer: "Gate".to_owned() });
        }
        self.pass().await;
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass().await;
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let gate = self.clone();
        let passed = locations.then(move |location| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                location
            }
        });
        self.objects.delete_stream(passed.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

/// How somebody takes a lease.
type Take = fn(Lake) -> BoxFuture<'static, bool>;

fn takes(lake: Lake) -> BoxFuture<'static, bool> {
    Box::pin(async move { Lease::take(&lake, "compact", MINUTE).await.expect("asked").is_some() })
}

/// As it was done: what had run out was removed, and one's own created.
fn removes_and_creates(lake: Lake) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        let now_us = lake.clock().now_us();
        let holder = uuid::Uuid::new_v4().to_string();
        let record = Record { holder, until_us: now_us + 60_000_000, since_us: now_us };
        let lease = Lease { key: keys::lease("compact"), lake, record, lasts_us: 60_000_000 };
        let found = lease.held().await.expect("asked");
        if found.is_some_and(|found| lease.is_held_by(&found.record, now_us)) {
            return false;
        }
        lease.delete().await.expect("removed");
        lease.create().await.expect("asked")
    })
}

/// One of the two, and the gate before its calls.
struct Taker {
    gate: Gate,
    taking: JoinHandle<bool>,
}

impl Taker {
    fn begin(objects: &Arc<InMemory>, clock: &Clock, compares: bool, take: Take) -> Self {
        let gate = Gate { objects: Arc::clone(objects), calls: Arc::new(Semaphore::new(0)), compares };
        let store = Store::over(Arc::new(gate.clone()), "s3://city/lake".parse().expect("a lake"));
        let taking = tokio::spawn(take(Lake::over(store).with_clock(clock.clone())));
        Self { gate, taking }
    }

    /// Lets so many calls through, and waits until they have done their work.
    async fn go_on(&self, calls: usize) {
        for _ in 0..calls {
            self.gate.calls.add_permits(1);
            // Everything here is in memory, on one thread.
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// An order of calls of two who came for a lease that had run out, and what came of it.
struct Order {
    calls: [usize; 3],
    /// How many of the two have the lease.
    holders: usize,
    /// How many objects are there then.
    objects: usize,
}

impl Order {
    /// The one makes so many calls, then the other, then the one again; then the other ends, and the one.
    async fn of(compares: bool, take: Take, calls: [usize; 3]) -> Self {
        let (objects, clock) = (Arc::new(InMemory::new()), Clock::manual(1_000_000));
        let own: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&objects);
        let lake = Lake::over(Store::over(own, "s3://city/lake".parse().expect("a lake"))).with_clock(clock.clone());
        Lease::take(&lake, "compact", MINUTE).await.expect("asked").expect("free");
        clock.set_us(100_000_000);
        let one = Taker::begin(&objects, &clock, compares, take);
        let other = Taker::begin(&objects, &clock, compares, take);
        one.go_on(calls[0]).await;
        other.go_on(calls[1]).await;
        one.go_on(calls[2]).await;
        other.go_on(CALLS_MAX).await;
        one.go_on(CALLS_MAX).await;
        let had = [one.taking.await.expect("ended"), other.taking.await.expect("ended")];
        let holders = had.into_iter().filter(|has| *has).count();
        Self { calls, holders, objects: objects.list(None).count().await }
    }

    async fn all(compares: bool, take: Take) -> Vec<Self> {
        let mut orders = Vec::new();
        for first in 0..9 {
            for second in 0..9 {
                for third in 0..9 {
                    orders.push(Self::of(compares, take, [first, second, third]).await);
                }
            }
        }
        orders
    }
}

#[tokio::test]
async fn of_two_who_take_a_lease_over_one_has_it() {
    for compares in [true, false] {
        for Order { calls, holders, objects } in Order::all(compares, takes).await {
            assert_eq!((holders, objects), (1, 1), "holders and objects; compares: {compares}; calls {calls:?}");
        }
    }
}

#[tokio::test]
async fn who_removes_and_creates_is_caught() {
    let both = Order::all(true, removes_and_creates).await.into_iter().filter(|order| order.holders == 2).count();
    assert!(both > 10, "{both} orders gave it to both");
}

/// Who was killed while it took a lease over keeps others from it for as long as a lease lasts, and no longer.
#[tokio::test]
async fn a_claim_of_one_that_was_killed_runs_out() {
    for calls in 0..CALLS_MAX {
        let (objects, clock) = (Arc::new(InMemory::new()), Clock::manual(1_000_000));
        let whole = |objects: &Arc<InMemory>| {
            let gate = Gate {
                objects: Arc::clone(objects),
                calls: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
                compares: false,
            };
            let store = Store::over(Arc::new(gate), "s3://city/lake".parse().expect("a lake"));
            Lake::over(store).with_clock(clock.clone())
        };
        let lake = whole(&objects);
        Lease::take(&lake, "compact", MINUTE).await.expect("asked").expect("free");
        for life in 1..4 {
            clock.set_us(life * 100_000_000);
            let killed = Taker::begin(&objects, &clock, false, takes);
            killed.go_on(calls).await;
            killed.taking.abort();
        }
        clock.set_us(400_000_000);
        let taken = Lease::take(&lake, "compact", MINUTE).await.expect("asked");
        assert!(taken.is_some(), "killed after {calls} calls");
        assert!(Lease::take(&lake, "compact", MINUTE).await.expect("asked").is_none());
        assert_eq!(objects.list(None).count().await, 1, "killed after {calls} calls, and its claims stay");
    }
}

/// One whose machine slept for longer than its lease lasts renews it beside somebody who takes it over.
#[tokio::test]
async fn who_renews_what_ran_out_and_who_takes_it_over_are_not_both_its_holder() {
    for compares in [true, false] {
        for first in 0..8 {
            for second in 0..8 {
                let (objects, clock) = (Arc::new(InMemory::new()), Clock::manual(1_000_000));
                let gate = Gate { objects: Arc::clone(&objects), calls: Arc::new(Semaphore::new(0)), compares };
                let store = Store::over(Arc::new(gate.clone()), "s3://city/lake".parse().expect("a lake"));
                let lake = Lake::over(store).with_clock(clock.clone());
                gate.calls.add_permits(1);
                let mut slept = Lease::take(&lake, "compact", MINUTE).await.expect("asked").expect("free");
                clock.set_us(100_000_000);
                let taking = tokio::spawn(async move { slept.renew().await.expect("asked") });
                let renewing = Taker { gate, taking };
                let other = Taker::begin(&objects, &clock, compares, takes);
                renewing.go_on(first).await;
                other.go_on(second).await;
                renewing.go_on(CALLS_MAX).await;
                other.go_on(CALLS_MAX).await;
                let both = (renewing.taking.await.expect("ended"), other.taking.await.expect("ended"));
                assert!(both == (true, false) || both == (false, true), "{compares}, {first}, {second}: {both:?}");
            }
        }
    }
}
