//! The slim binary as a service: what it tells the service manager, what it does at SIGHUP, what `watch` shows.

mod common;

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use common::{device, point, simulator, soon, unit, word};
use tjern_gateway::config::Config;
use tjern_gateway::simulate::{Simulation, Simulator};
use tokio::process::{Child, Command};
use tokio::time::interval;

/// The bit of SIGHUP in `SigCgt` of `/proc/<id>/status`.
const HANGUP_BIT: u64 = 1;

struct Site {
    folder: tempfile::TempDir,
    manager: UnixDatagram,
    _simulator: Simulator,
    text: String,
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let manager = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        manager.set_nonblocking(true).expect("a socket");
        let (unit, _) = unit(1, vec![word(0, 11)]);
        let simulator = simulator(Simulation::ModbusTcp(vec![unit])).await;
        let (root, address) = (folder.path().display(), simulator.address().expect("TCP"));
        let body = "register = \"input:0\"\ntype = \"u16\"\nevery = \"100ms\"\nunit = \"Cel\"";
        let text = format!(
            "version = 1\ngateway = \"site-01\"\nlake = \"file://{root}/lake\"\n[spool]\ndir = \"{root}/spool\"\n\
            [status]\nlisten = \"unix:{root}/status.sock\"\n\
            [[bus]]\nname = \"north\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{}{}",
            device(1),
            point("tarn/water_temperature", body)
        );
        Self { folder, manager, _simulator: simulator, text }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
        command.args(words).arg("--config").arg(self.config()).env("NO_COLOR", "1").env_remove("RUST_LOG");
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self) -> Child {
        let mut command = self.command(&["run"]);
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify")).env("WATCHDOG_USEC", "2000000");
        command.env_remove("WATCHDOG_PID").stderr(Stdio::inherit());
        command.spawn().expect("it starts")
    }

    /// Waits until the manager is told this; what it was told on the way is forgotten.
    async fn told(&self, words: &str) -> String {
        soon(words, async {
            let mut looks = interval(Duration::from_millis(10));
            let mut bytes = [0; 4_096];
            loop {
                looks.tick().await;
                while let Ok(length) = self.manager.recv(&mut bytes) {
                    let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
                    if message.contains(words) {
                        return message;
                    }
                }
            }
        })
        .await
    }

    async fn write_into_pipe(&self) {
        let (pipe, text) = (self.config(), self.text.clone());
        let written = tokio::task::spawn_blocking(move || std::fs::write(pipe, text));
        soon("somebody reads the pipe", written).await.expect("no panic").expect("written");
    }

    fn write(&self, text: &str) {
        std::fs::write(self.config(), text).expect("written");
    }
}

async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().await.expect("kill runs").success());
}

async fn ended(mut child: Child) -> Option<i32> {
    signal(&child, "TERM").await;
    soon("the end", child.wait()).await.expect("a status").code()
}

async fn output(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = soon("the end", command.output()).await.expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// A log that cannot be written ended the gateway, or a bus for good, or kept it from ending.
#[tokio::test]
async fn a_log_that_nobody_takes_stops_nothing() {
    let site = Site::new().await;
    site.write(&site.text);
    let mut command = site.command(&["run"]);
    command.env("NOTIFY_SOCKET", site.folder.path().join("notify")).env("WATCHDOG_USEC", "2000000");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    let child = command.env("RUST_LOG", "debug").stderr(full).spawn().expect("it starts");
    site.told("READY=1").await;
    site.write("nonsense");
    signal(&child, "HUP").await;
    site.told("refused").await;
    site.told("WATCHDOG=1").await;
    assert_eq!(ended(child).await, Some(0));
}

/// A technician copies it and begins.
#[test]
fn the_example_that_is_packed_is_a_configuration() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../dist/gateway.example.toml");
    let config = Config::load(path.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.status_listen().is_some() && config.sensors().count() > 0);
}

#[tokio::test]
async fn the_version_is_told_and_help_has_examples() {
    for (words, part) in [
        (["--version"].as_slice(), concat!("tjern-gateway ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], "Examples:"),
        (&["run", "--help"], "SIGHUP makes it read the file again"),
        (&["watch", "--help"], "tjern-gateway watch --status unix:"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
        command.args(words).env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (status, out, _) = output(command).await;
        assert!(status == Some(0) && out.contains(part), "{words:?}: {out}");
    }
}

#[tokio::test]
async fn the_service_manager_hears_of_start_progress_reload_and_end() {
    let site = Site::new().await;
    site.write(&site.text);
    let child = site.start();
    assert!(site.told("READY=1").await.contains("STATUS=polling 1 sensors on 1 buses"));
    site.told("WATCHDOG=1").await;
    site.write(&site.text.replace("100ms", "200ms"));
    signal(&child, "HUP").await;
    assert!(site.told("RELOADING=1").await.contains("\nMONOTONIC_USEC="));
    assert!(!site.told("READY=1").await.contains("refused"));
    site.write("version = 1\n");
    signal(&child, "HUP").await;
    site.told("RELOADING=1").await;
    assert!(site.told("READY=1").await.contains("refused"));
    site.told("WATCHDOG=1").await;
    let ending = ended(child);
    let (status, _) = tokio::join!(ending, site.told("STOPPING=1"));
    assert_eq!(status, Some(0));
}

/// Telegraf ended where it was told to load again before it was up.
#[tokio::test]
async fn a_hangup_while_it_starts_does_not_end_it() {
    let site = Site::new().await;
    let made = Command::new("mkfifo").arg(site.config()).status().await.expect("mkfifo runs");
    assert!(made.success());
    // It waits for its configuration, which comes through a pipe.
    let child = site.start();
    let id = child.id().expect("it runs");
    soon("SIGHUP is heard", async {
        let mut looks = interval(Duration::from_millis(5));
        loop {
            looks.tick().await;
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("Linux says so");
            if u64::from_str_radix(caught.trim(), 16).expect("a number") & HANGUP_BIT != 0 {
                return;
            }
        }
    })
    .await;
    signal(&child, "HUP").await;
    site.write_into_pipe().await;
    site.told("READY=1").await;
    // The wish was kept, and it reads the pipe again.
    site.told("RELOADING=1").await;
    site.write_into_pipe().await;
    assert!(!site.told("READY=1").await.contains("refused"));
    assert_eq!(ended(child).await, Some(0));
}

#[tokio::test]
async fn watch_shows_every_point_and_says_where_no_gateway_runs() {
    let site = Site::new().await;
    site.write(&site.text);
    let (status, out, error) = output(site.command(&["watch"])).await;
    assert_eq!((status, out.as_str()), (Some(1), ""), "{error}");
    assert!(error.contains("no gateway answers at unix:") && error.contains("hint: is it running?"), "{error}");
    let child = site.start();
    site.told("READY=1").await;
    soon("a value", async {
        let mut looks = interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            let (status, out, error) = output(site.command(&["watch", "--once"])).await;
            if status == Some(0) && out.contains("11 Cel") {
                let line = out.lines().find(|line| line.contains("tarn/water_temperature")).expect("its line");
                assert!(line.starts_with("north  device-1  ") && line.contains("ms"), "{out}");
                assert!(!out.contains('\x1b'), "no terminal, no control: {out}");
                return;
            }
            assert!(status == Some(0) || error.contains("no gateway answers"), "{error}");
        }
    })
    .await;
    assert_eq!(ended(child).await, Some(0));
    site.write(&site.text.replace("[status]", "# ").replace("listen", "# listen"));
    let (status, _, error) = output(site.command(&["watch"])).await;
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("hint: add `[status]`"), "{error}");
}
