//! `watch`: a live table of what a gateway that runs reads.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::{FAILED, WRONG, load};
use crate::say;
use crate::status::client::{self, ClientError, StatusAddress};
use crate::watch::{Size, table};

/// The table is made anew so often.
const EVERY: Duration = Duration::from_secs(1);

/// To another screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// To the first place; and what is left of the line, or of the screen, away.
const HOME: &str = "\x1b[H";
const LINE_END: &str = "\x1b[K\n";
const SCREEN_END: &str = "\x1b[J";

/// What `watch` is told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tjern-gateway watch --config landfall-01.toml\n  tjern-gateway watch --status http://127.0.0.1:9469\n  \
    tjern-gateway watch --status unix:/run/tjern-gateway/status.sock --once\n\n\
    The gateway's configuration needs `[status] listen`. Times are local. Ctrl-C ends it.\n\
    Exit status: 0 when told to end, 1 where no gateway answers, 2 for a wrong configuration or address."
)]
pub struct WatchArguments {
    /// The gateway's configuration, which says where it listens
    #[arg(long, value_name = "FILE", required_unless_present = "status", conflicts_with = "status")]
    config: Option<PathBuf>,
    /// Where it listens: http://host:port, or unix:/path
    #[arg(long, value_name = "URL")]
    status: Option<String>,
    /// One table and no more; so it is too where stdout is no terminal
    #[arg(long)]
    once: bool,
}

/// Shows until it is told to end.
pub(super) async fn execute(arguments: WatchArguments) -> ExitCode {
    let address = match address(&arguments) {
        Ok(address) => address,
        Err(status) => return status,
    };
    let live = !arguments.once && io::stdout().is_terminal();
    let shown = if live { show_live(&address).await } else { show_once(&address).await };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Where the gateway listens; what is wrong was told.
fn address(arguments: &WatchArguments) -> Result<StatusAddress, ExitCode> {
    let wrong = |text: String| {
        say!("error: {text}");
        ExitCode::from(WRONG)
    };
    if let Some(text) = &arguments.status {
        return text.parse().map_err(|error: ClientError| wrong(error.to_string()));
    }
    let named = arguments.config.as_deref();
    let path = named.ok_or_else(|| wrong("write `--config FILE` or `--status URL`".to_owned()))?;
    let config = load(path)?;
    let listen = config.status_listen().ok_or_else(|| {
        wrong(format!(
            "`{}` does not say where the gateway tells how it is; hint: add `[status]` with `listen = \"127.0.0.1:9469\"`, \
            then let the gateway read it: `systemctl reload tjern-gateway`",
            path.display()
        ))
    })?;
    Ok(StatusAddress::from(listen))
}

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot write to the terminal: {0}")]
    Terminal(#[from] io::Error),
}

async fn show_once(address: &StatusAddress) -> Result<(), WatchError> {
    let text = table(&client::status(address).await?, Size::UNBOUNDED);
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// A gateway that goes away while it is watched is waited for: it may be starting anew.
async fn show_live(address: &StatusAddress) -> Result<(), WatchError> {
    let first = client::status(address).await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let screen = Screen::enter()?;
    screen.draw(&table(&first, size()))?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let status = tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            status = async { ticks.tick().await; client::status(address).await } => status,
        };
        match status {
            Ok(status) => screen.draw(&table(&status, size()))?,
            Err(error) => screen.draw(&format!("{error}\n"))?,
        }
    }
}

/// The other screen of a terminal, which is left however this ends.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        write(ENTER)?;
        Ok(Self)
    }

    /// Over what stands there, so that nothing flickers.
    fn draw(&self, text: &str) -> io::Result<()> {
        write(&format!("{HOME}{}{SCREEN_END}", text.replace('\n', LINE_END)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = write(LEAVE);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn size() -> Size {
    tcgetwinsize(io::stdout()).map_or(Size::UNBOUNDED, |size| Size {
        rows: usize::from(size.ws_row).max(1),
        columns: usize::from(size.ws_col).max(1),
    })
}
