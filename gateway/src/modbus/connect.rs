//! A TCP connection for one request at a time.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Manners;
use crate::names;

/// A connection is given at least this long to come about, however short the bus's timeout is.
pub(super) const CONNECT_MIN: Duration = Duration::from_secs(1);

/// A connection that is ready for its first request.
pub(super) async fn connect(address: &str, manners: &Manners) -> io::Result<TcpStream> {
    let limit = manners.timeout.max(CONNECT_MIN);
    let connecting = async { TcpStream::connect(&*names::look_up(address).await?).await };
    let stream = timeout(limit, connecting).await.map_err(|_| names::too_late(address, limit))??;
    // Requests are small and wait for their answers: Nagle's delay would only cost time.
    let _ = stream.set_nodelay(true);
    if !manners.connection.pause.is_zero() {
        sleep(manners.connection.pause).await;
    }
    Ok(stream)
}
