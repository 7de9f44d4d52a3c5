//! What a gateway tells systemd: that it is ready, that it reloads, that it goes on, that it stops.
//!
//! Datagrams to the socket that `NOTIFY_SOCKET` names (`sd_notify(3)`); with none set, nothing. A message that
//! cannot be sent is lost, and never holds the gateway up for longer than [`SEND_PATIENCE`].

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::{debug, warn};

/// How long a full socket is waited for.
const SEND_PATIENCE: Duration = Duration::from_millis(200);

/// Whoever started the gateway, if it wants to hear of it.
#[derive(Debug, Clone, Default)]
pub struct Notifier(Option<Arc<Socket>>);

#[derive(Debug)]
struct Socket {
    socket: UnixDatagram,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    #[must_use]
    pub fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let watchdog = watchdog(env::var("WATCHDOG_USEC").ok(), env::var("WATCHDOG_PID").ok(), std::process::id());
        Self::to(&name, watchdog).unwrap_or_else(|error| {
            warn!("the socket `{}` of NOTIFY_SOCKET cannot be used: {error}", name.display());
            Self::default()
        })
    }

    /// A socket by its path, or, where its name begins with `@`, an abstract one; and how often the watchdog
    /// wants to hear that all goes on.
    ///
    /// # Errors
    /// Where there is no such socket.
    pub fn to(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(SEND_PATIENCE))?;
        Ok(Self(Some(Arc::new(Socket { socket, watchdog }))))
    }

    /// How often the watchdog wants to hear that all goes on, if there is one.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?.watchdog
    }

    /// It polls, or polls on after a reload.
    pub fn ready(&self, text: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(text)));
    }

    /// A reload begins; `ready` ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now_us = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reading the configuration again"));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// All goes on.
    pub fn feed(&self) {
        self.send("WATCHDOG=1");
    }

    /// What it does.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", one_line(text)));
    }

    fn send(&self, message: &str) {
        if let Some(target) = &self.0
            && let Err(error) = target.socket.send(message.as_bytes())
        {
            debug!("cannot tell the service manager: {error}");
        }
    }
}

/// A line's end would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// `sd_watchdog_enabled(3)`: the time is for the process with this id, or for any.
fn watchdog(time_us: Option<String>, process: Option<String>, own: u32) -> Option<Duration> {
    if process.is_some_and(|process| process.parse() != Ok(own)) {
        return None;
    }
    let time_us: u64 = time_us?.parse().ok()?;
    (time_us > 0).then(|| Duration::from_micros(time_us))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A service manager's end of the socket.
    pub(crate) struct Manager {
        socket: UnixDatagram,
        _folder: tempfile::TempDir,
    }

    impl Manager {
        pub(crate) fn new(watchdog: Option<Duration>) -> (Self, Notifier) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("notify");
            let socket = UnixDatagram::bind(&path).expect("a socket");
            socket.set_nonblocking(true).expect("a socket");
            let notifier = Notifier::to(path.as_os_str(), watchdog).expect("it is there");
            (Self { socket, _folder: folder }, notifier)
        }

        /// Everything that was said and not taken yet.
        pub(crate) fn heard(&self) -> Vec<String> {
            let mut bytes = [0; 4_096];
            let next =
                || self.socket.recv(&mut bytes).ok().map(|length| String::from_utf8_lossy(&bytes[..length]).into());
            std::iter::from_fn(next).collect()
        }
    }

    #[test]
    fn a_manager_hears_what_its_manual_says() {
        let (manager, notifier) = Manager::new(None);
        notifier.ready("polling\nWATCHDOG=1");
        notifier.reloading();
        notifier.stopping();
        let heard = manager.heard();
        assert_eq!(heard[0], "READY=1\nSTATUS=polling WATCHDOG=1");
        let reloading = heard[1].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("it reloads");
        let time_us = reloading.split('\n').next().expect("a time");
        assert!(time_us.parse::<u64>().is_ok_and(|time_us| time_us > 0), "{reloading}");
        assert!(heard[2].starts_with("STOPPING=1\n"));
    }

    #[test]
    fn an_abstract_socket_has_no_file() {
        let name = format!("tjern-gateway-test-{}-{}", std::process::id(), fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Notifier::to(OsStr::new(&format!("@{name}")), None).expect("it is there").feed();
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).expect("it was sent");
        assert_eq!(&bytes[..length], b"WATCHDOG=1");
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_fed() {
        let time = || Some("30000000".to_owned());
        assert_eq!(watchdog(time(), None, 7), Some(Duration::from_secs(30)));
        assert_eq!(watchdog(time(), Some("7".to_owned()), 7), Some(Duration::from_secs(30)));
        assert_eq!(watchdog(time(), Some("8".to_owned()), 7), None);
        assert_eq!(watchdog(Some("0".to_owned()), None, 7), None);
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn a_socket_that_is_gone_holds_nothing_up() {
        assert!(Notifier::to(OsStr::new("/nowhere/at/all"), None).is_err());
        let (manager, notifier) = Manager::new(None);
        drop(manager);
        notifier.feed();
        Notifier::default().feed();
    }
}
