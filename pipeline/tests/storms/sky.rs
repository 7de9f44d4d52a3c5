//! Where a lake lies, and what becomes of its requests.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tjern_readings::store::{LakeUrl, Store};
use tjern_testing::faults::{FaultyStore, Tally};
use tjern_testing::s3::S3Server;

/// How many keys a page of a listing has: few, so that there are pages.
const PAGE: usize = 7;

/// How long a client waits for the S3 server, which stalls for longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A store that fails, and the same one that does not.
pub(crate) enum Sky {
    /// In memory, failing where a client would have given up.
    Memory(Arc<dyn ObjectStore>, Arc<FaultyStore>),
    /// Over HTTP, failing on the way; the client's own repeats are at work.
    Http(S3Server),
}

impl Sky {
    /// Objects in memory; the seed says how many requests of a thousand fail.
    pub(crate) fn memory(seed: u64) -> Self {
        let per_mille = [10, 40, 100, 200][Rng::with_seed(seed).usize(..4)];
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let faulty = FaultyStore::over(Arc::clone(&memory), seed, per_mille);
        Self::Memory(memory, faulty)
    }

    /// An S3 server in this process, of whose requests `per_mille` of a thousand fail.
    pub(crate) async fn http(seed: u64, per_mille: u64) -> Self {
        let server = S3Server::start(PAGE).await;
        server.storm(seed, per_mille);
        Self::Http(server)
    }

    /// The store as the jobs see it.
    pub(crate) fn store(&self) -> Store {
        match self {
            Self::Memory(_, faulty) => over(Arc::clone(faulty) as Arc<dyn ObjectStore>),
            Self::Http(server) => {
                Store::open_with(&server.lake("lake"), &server.access(Some(PATIENCE))).expect("opened")
            }
        }
    }

    /// The store as it is. Over HTTP it is to be read once the sky is clear.
    pub(crate) fn truth(&self) -> Store {
        match self {
            Self::Memory(memory, _) => over(Arc::clone(memory)),
            Self::Http(_) => self.store(),
        }
    }

    /// Nothing fails from now on.
    pub(crate) fn clear(&self) {
        match self {
            Self::Memory(_, faulty) => faulty.set_calm(true),
            Self::Http(server) => server.storm(0, 0),
        }
    }

    /// What was asked and what failed; over HTTP in all, and not by kind.
    pub(crate) fn tally(&self) -> Tally {
        match self {
            Self::Memory(_, faulty) => faulty.tally(),
            Self::Http(server) => {
                println!("{} requests failed over HTTP", server.failed());
                assert!(server.failed() > 0, "the sky was clear");
                Tally::default()
            }
        }
    }
}

fn over(objects: Arc<dyn ObjectStore>) -> Store {
    let url: LakeUrl = "memory:///".parse().expect("a lake");
    Store::over(objects, url)
}
