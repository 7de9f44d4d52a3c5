//! The names of devices' hosts, looked up: all of them here.
//!
//! The system's look-up of a name cannot be ended by who waits for it, and lasts for minutes where a name server says nothing.
//! So there is one a name at most, whoever wants it joins, and each has a thread of its own: not one of the runtime's, which
//! the files need. A waiter that goes leaves it running, and its answer is for whoever asks next.
//!
//! Invariants: an address that is an IP address is not looked up; no more than [`LOOK_UPS_MAX`] threads are at it. An
//! address that was found is kept for [`KEPT`]; that nothing was found is told once, and asked again.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::BUSES_MAX;

/// Longer than the pause between two attempts to connect, so that what comes after the first one's timeout serves the second;
/// and no longer than a person waits who has just given a device another address.
const KEPT: Duration = Duration::from_secs(10);

/// So many names are looked up at once: as many as there may be buses, so that those that nobody answers keep no other waiting. With the
/// other threads they stay within the `TasksMax` of the unit that comes with the gateway.
const LOOK_UPS_MAX: usize = BUSES_MAX;

/// What the C library's look-up needs, and some more.
const STACK_BYTES: usize = 512 << 10;

/// What a look-up found, or the kind of its error and its words.
type Found = Result<Vec<IpAddr>, (io::ErrorKind, String)>;

/// Nothing, until it is there.
type Answer = watch::Receiver<Option<(Instant, Found)>>;

/// Looks a name up, for as long as that takes.
type Ask = fn(&str) -> io::Result<Vec<IpAddr>>;

static NAMES: LazyLock<Names> = LazyLock::new(|| Names::asked_by(of_the_system));

/// The addresses of a `host:port`. Dropped before it is done, it leaves the look-up to the next one.
pub(crate) async fn look_up(address: &str) -> io::Result<Vec<SocketAddr>> {
    NAMES.look_up(address).await
}

fn of_the_system(host: &str) -> io::Result<Vec<IpAddr>> {
    #[cfg(test)]
    if host.ends_with(tests::UNANSWERED) {
        return tests::for_ever();
    }
    let mut found: Vec<IpAddr> = Vec::new();
    for address in (host, 0).to_socket_addrs()? {
        if !found.contains(&address.ip()) {
            found.push(address.ip());
        }
    }
    Ok(found)
}

/// Names that are looked up, and those that were a moment ago.
struct Names {
    ask: Ask,
    kept: Duration,
    answers: Mutex<HashMap<String, Answer>>,
}

impl Names {
    fn asked_by(ask: Ask) -> Self {
        Self { ask, kept: KEPT, answers: Mutex::default() }
    }

    async fn look_up(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "it is no host:port");
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let found = self.addresses(host).await?;
        Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut answer = self.asked(host)?;
        let found = match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some((_, found))) => found.clone(),
            _ => Err((io::ErrorKind::Other, "the look-up of its name failed".into())),
        };
        found.map_err(|(kind, words)| {
            self.forget(host, &answer);
            io::Error::new(kind, words)
        })
    }

    /// The answer that is there, or comes; a look-up begins where there is neither.
    fn asked(&self, host: &str) -> io::Result<Answer> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, answer| match &*answer.borrow() {
            Some((at, _)) => at.elapsed() < self.kept,
            None => answer.has_changed().is_ok(),
        });
        if let Some(answer) = answers.get(host) {
            return Ok(answer.clone());
        }
        let under_way = answers.values().filter(|answer| answer.borrow().is_none()).count();
        if under_way >= LOOK_UPS_MAX {
            let words = format!("{under_way} other names are being looked up; hint: does the name server answer?");
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, words));
        }
        let (sender, answer) = watch::channel(None);
        let (ask, name) = (self.ask, host.to_owned());
        std::thread::Builder::new().name("name".into()).stack_size(STACK_BYTES).spawn(move || {
            let found = ask(&name).map_err(|error| (error.kind(), error.to_string()));
            sender.send_replace(Some((Instant::now(), found)));
        })?;
        answers.insert(host.to_owned(), answer.clone());
        Ok(answer)
    }

    /// That nothing was found is not kept once somebody knows.
    fn forget(&self, host: &str, known: &Answer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.get(host).is_some_and(|answer| answer.same_channel(known)) {
            answers.remove(host);
        }
    }
}

/// What a person is told of a connection for which there was no time.
pub(crate) fn too_late(address: &str, limit: Duration) -> io::Error {
    let words = match is_looked_up(address) {
        true => format!("no name server answered within {limit:?}; hint: write the device's IP address"),
        false => format!("nobody accepted within {limit:?}"),
    };
    io::Error::new(io::ErrorKind::TimedOut, words)
}

/// Whether its name is still being looked up.
fn is_looked_up(address: &str) -> bool {
    let Some((host, _)) = address.rsplit_once(':') else { return false };
    let answers = NAMES.answers.lock().unwrap_or_else(PoisonError::into_inner);
    answers.get(host).is_some_and(|answer| answer.borrow().is_none())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::timeout;

    use super::*;

    /// What ends so is looked up for ever.
    pub(crate) const UNANSWERED: &str = ".unanswered.test";

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    pub(super) fn for_ever() -> io::Result<Vec<IpAddr>> {
        loop {
            std::thread::park();
        }
    }

    /// How many of those that are never answered are looked up by now.
    pub(crate) fn waiting() -> usize {
        let answers = NAMES.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.keys().filter(|host| host.ends_with(UNANSWERED)).count()
    }

    #[tokio::test]
    async fn an_ip_address_is_not_looked_up() {
        let names = Names::asked_by(|_| panic!("it is none"));
        for address in ["10.0.0.1:502", "[::1]:502", "[fe80::1%2]:502"] {
            let found = names.look_up(address).await.expect("found");
            assert_eq!(found, [address.parse().expect("an address")]);
        }
        for wrong in ["plc", "plc:", "plc:http", "plc:70000"] {
            let error = names.look_up(wrong).await.expect_err(wrong);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{wrong}");
        }
    }

    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static MAY_ANSWER: AtomicUsize = AtomicUsize::new(0);

    fn slowly(_: &str) -> io::Result<Vec<IpAddr>> {
        ASKED.fetch_add(1, Ordering::SeqCst);
        while MAY_ANSWER.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        Ok(vec![[10, 0, 0, 7].into()])
    }

    /// Each attempt began one that lasts for a minute, and none was there in time for its own.
    #[tokio::test]
    async fn a_name_is_looked_up_once_whoever_waits_and_serves_who_comes_after() {
        let mut names = Names::asked_by(slowly);
        for port in 0..100 {
            assert!(timeout(Duration::from_millis(1), names.look_up(&format!("plc:{port}"))).await.is_err());
        }
        MAY_ANSWER.store(1, Ordering::SeqCst);
        let (one, other) = tokio::join!(names.look_up("plc:502"), names.look_up("plc:503"));
        let expected = |port| [SocketAddr::from(([10, 0, 0, 7], port))];
        assert_eq!((one.expect("found"), other.expect("found")), (expected(502).to_vec(), expected(503).to_vec()));
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        // A device that has another address now is found.
        names.kept = Duration::ZERO;
        assert_eq!(names.look_up("plc:502").await.expect("found"), expected(502));
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
    }

    static FAILED: AtomicUsize = AtomicUsize::new(0);

    fn in_vain(_: &str) -> io::Result<Vec<IpAddr>> {
        FAILED.fetch_add(1, Ordering::SeqCst);
        Err(io::Error::other("Name or service not known"))
    }

    #[tokio::test]
    async fn that_nothing_was_found_is_told_and_asked_again() {
        let names = Names::asked_by(in_vain);
        for attempt in 1..4 {
            let error = names.look_up("plc:502").await.expect_err("there is none").to_string();
            assert_eq!((error.as_str(), FAILED.load(Ordering::SeqCst)), ("Name or service not known", attempt));
        }
    }

    /// A look-up that dies is one that failed, and not one that lasts for ever.
    #[tokio::test]
    async fn a_look_up_that_panics_is_told_and_asked_again() {
        let names = Names::asked_by(|_| panic!("on purpose"));
        for _ in 0..3 {
            timeout(PATIENCE, names.look_up("plc:502")).await.expect("an answer").expect_err("it failed");
        }
    }

    #[tokio::test]
    async fn there_are_only_so_many_threads() {
        let names = Names::asked_by(|_| for_ever());
        for number in 0..LOOK_UPS_MAX {
            let address = format!("plc{number}:502");
            assert!(timeout(Duration::ZERO, names.look_up(&address)).await.is_err());
        }
        let refused = names.look_up("one-more:502").await.expect_err("it is one too many");
        assert!(refused.to_string().contains("256 other names"), "{refused}");
        assert!(timeout(Duration::ZERO, names.look_up("plc0:503")).await.is_err(), "who waits already is none more");
    }
}
