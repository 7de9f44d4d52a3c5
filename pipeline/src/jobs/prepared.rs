//! A job that begins only once its lake is ready to be worked on: its store was found to refuse a second create, and its tables
//! are there.
//!
//! A daemon finds that out at its start. Where that cannot be found out then, since the disk is full or may only be read, it starts
//! all the same: each of these jobs asks first whenever it is its turn, and fails until it can be had, as jobs fail. So
//! nothing works on a store that may be careless, and nobody has to start anything again when there is room. Once it
//! is known it is asked no more: [`Table::create_all`] keeps it with the lake.

use async_trait::async_trait;
use tjern_lake::{Lake, Table};
use tokio_util::sync::CancellationToken;

use super::job::{Done, Job, JobError};

#[derive(Debug)]
pub(super) struct Prepared(pub(super) Box<dyn Job>);

#[async_trait]
impl Job for Prepared {
    fn undone(&self) -> &'static str {
        self.0.undone()
    }

    fn heeds_stop(&self) -> bool {
        self.0.heeds_stop()
    }

    fn runs_once_only(&mut self) {
        self.0.runs_once_only();
    }

    async fn run(&mut self, lake: &Lake, stop: &CancellationToken) -> Result<Done, JobError> {
        Table::create_all(lake).await.map_err(|error| JobError::NotReady(error.to_string()))?;
        self.0.run(lake, stop).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use object_store::ObjectStore;
    use tjern_readings::clock::Clock;
    use tjern_readings::store::Store;
    use tjern_testing::s3::S3Server;
    use tjern_testing::simulated::{Fault, Simulated};

    use super::*;

    /// A job that counts how often it works.
    #[derive(Debug, Clone, Default)]
    struct Counts(Arc<AtomicU32>);

    #[async_trait]
    impl Job for Counts {
        fn undone(&self) -> &'static str {
            "nothing was counted"
        }

        async fn run(&mut self, _lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Done::default())
        }
    }

    async fn run(job: &Counts, lake: &Lake) -> Result<Done, String> {
        let mut prepared = Prepared(Box::new(job.clone()));
        prepared.run(lake, &CancellationToken::new()).await.map_err(|error| error.to_string())
    }

    fn count(job: &Counts) -> u32 {
        job.0.load(Ordering::SeqCst)
    }

    /// A disk was full when the machine started: the pipeline ended, and stayed so when there was room again.
    #[tokio::test]
    async fn jobs_wait_for_room_and_go_on_by_themselves() {
        let store = Arc::new(Simulated::new(Clock::manual(1_782_885_600_000_000)));
        let objects: Arc<dyn ObjectStore> = Arc::<Simulated>::clone(&store);
        let lake = Lake::over(Store::over(objects, "s3://city/lake".parse().expect("a lake")));
        let job = Counts::default();
        store.fail(Fault::Full(""));
        for _ in 0..3 {
            let error = run(&job, &lake).await.expect_err("it is full");
            assert!(error.contains("No space left"), "{error}");
        }
        assert_eq!(count(&job), 0, "whether the store is careless is not known: nothing works on it");
        store.fail(Fault::None);
        run(&job, &lake).await.expect("there is room");
        let before = lake.store().requests();
        run(&job, &lake).await.expect("it is ready");
        assert_eq!((count(&job), lake.store().requests().since(&before).billed()), (2, 0), "it is asked once");
    }

    /// The canary: a store that takes a second create is never worked on, and one that is merely full is not taken for it.
    #[tokio::test]
    async fn a_store_that_is_careless_is_never_worked_on() {
        let server = S3Server::start(1_000).await;
        server.overlook_conditions();
        let lake = Lake::over(server.store("lake"));
        let job = Counts::default();
        for _ in 0..2 {
            let error = run(&job, &lake).await.expect_err("it is careless");
            assert!(error.contains("does not refuse to create"), "{error}");
        }
        assert!(Table::create_all(&lake).await.expect_err("careless").is_careless());
        server.mind_conditions();
        run(&job, &lake).await.expect("it minds them");
        assert_eq!(count(&job), 1);
    }
}
