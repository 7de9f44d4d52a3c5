//! The listener of the status, on a thread and a small runtime of its own.
//!
//! Who asks how the gateway is, however often, so takes no turn of those that poll: connections are accepted, pages made and sent
//! beside them, by the system's own shares. One connection after the other has its turn there, and a page is made once
//! a second at most (`status::pages`).

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::config::StatusListen;
use crate::status::{StatusSource, http};

/// A listener that is told to end has so long: who makes a page ends once it is made.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// A page is made of lists of lists: a fraction of this.
const STACK_BYTES: usize = 512 << 10;

/// A listener at work. Dropped, it ends when it gets its turn.
#[derive(Debug)]
pub(super) struct Listener {
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Listener {
    /// Begins to listen there. A machine that has no thread for it keeps nothing else from running.
    pub(super) fn start(place: StatusListen, source: StatusSource) -> Option<Self> {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, guard) = (stop.clone(), ended.clone().drop_guard());
        let work = move || {
            let _guard = guard;
            match tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build() {
                Ok(runtime) => runtime.block_on(async {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        () = http::serve(place, source) => {}
                    }
                }),
                Err(failure) => not_told(&failure),
            }
        };
        let begun = std::thread::Builder::new().name("status".to_owned()).stack_size(STACK_BYTES).spawn(work);
        begun.map_err(|failure| not_told(&failure)).is_ok().then_some(Self { stop, ended })
    }

    /// Ends it, so that another may listen at its place.
    pub(super) async fn end(self) {
        self.stop.cancel();
        // What hangs on a disk that does not answer keeps its place; the next one says so.
        let _ = timeout(END_PATIENCE, self.ended.cancelled()).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn not_told(failure: &std::io::Error) {
    error!("nobody is told how this gateway is: {failure}; hint: are there too many threads or files open?");
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::time::Instant;

    use tjern_readings::clock::Clock;
    use tjern_readings::configuration::ConfigText;

    use super::*;
    use crate::bus::state::BusStates;
    use crate::config::Config;
    use crate::run::spool_settings;
    use crate::spool::Spool;
    use crate::upload::UploadState;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Asks without a turn of the runtime, for as long as nobody listens yet.
    fn health_at(socket: &Path) -> String {
        let began = Instant::now();
        let mut stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(failure) => assert!(began.elapsed() < PATIENCE, "nobody listens: {failure}"),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Twenty-four loops that asked for it cost the buses slots: each of their connections had a turn among those that poll.
    #[tokio::test]
    async fn who_asks_how_it_is_takes_no_turn_of_those_that_poll() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"{}\"\n",
            folder.path().join("spool").display()
        );
        let config = Config::parse(&ConfigText::new("test.toml", text)).expect("good");
        let spool = Spool::open(spool_settings(&config), Clock::system()).expect("it opens");
        let parts = (spool.probe(), BusStates::new(), UploadState::default());
        let source = StatusSource::new(Clock::system(), parts, &config, Vec::new());
        let socket = folder.path().join("status.sock");
        let place = StatusListen::Unix(socket.clone());
        for _ in 0..2 {
            let listener = Listener::start(place.clone(), source.clone()).expect("a thread");
            // From here to its end nothing of this runtime has a turn.
            let answer = health_at(&socket);
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"state\""), "{answer}");
            listener.end().await;
            assert!(!socket.exists(), "another may listen there");
        }
        spool.close().await;
    }
}
