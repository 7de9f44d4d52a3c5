//! Where lines come from: a serial port, or a TCP connection that notices when its other end is gone.

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::LinePlace;
use crate::modbus::open_serial;
use crate::names;

/// What is received in one go.
const READ_BUFFER: usize = 1_024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A box that was switched off says nothing, as one does that has nothing to say: after so long a silence
/// the connection is tested, this often and this many times, before it is given up.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TRIES: u32 = 3;

/// What was sent and is not acknowledged for so long was sent to nobody.
const UNACKNOWLEDGED_MAX_MS: u32 = 60_000;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) async fn open(place: &LinePlace) -> io::Result<Box<dyn Stream>> {
    match place {
        LinePlace::Serial(serial) => Ok(Box::new(open_serial(serial)?)),
        LinePlace::Tcp(address) => {
            let connecting = async { TcpStream::connect(&*names::look_up(address).await?).await };
            let connected = timeout(CONNECT_TIMEOUT, connecting).await;
            let stream = connected.map_err(|_| names::too_late(address, CONNECT_TIMEOUT))??;
            watch(&stream)?;
            Ok(Box::new(stream))
        }
    }
}

fn watch(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_TRIES)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MAX_MS)?;
    // A question is short and waits for its answer.
    stream.set_nodelay(true)
}

/// Waits for ever where nothing is open: the caller waits for other things too.
pub(super) async fn receive(stream: &mut Option<Box<dyn Stream>>) -> io::Result<Vec<u8>> {
    let Some(stream) = stream else { return std::future::pending().await };
    let mut buffer = vec![0; READ_BUFFER];
    let count = stream.read(&mut buffer).await?;
    buffer.truncate(count);
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(buffer) }
}

/// A place as it stands in the log.
pub(super) struct Place<'place>(pub(super) &'place LinePlace);

impl fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            LinePlace::Serial(serial) => formatter.write_str(&serial.port),
            LinePlace::Tcp(address) => formatter.write_str(address),
        }
    }
}
