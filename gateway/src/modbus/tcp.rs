//! Modbus TCP: one connection a bus.
//!
//! The connection is kept until its first error and made again at the next request, with growing
//! pauses until somebody answers. An answer that comes after its time dies with its connection, or is
//! dropped where a converter sends it over the next one: its transaction id is no longer open (see
//! `mbap`). After a timeout the server is left alone for as long once more, so that it is
//! done with what it was asked.

use std::time::Duration;

use tjern_readings::reading::Cause;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_modbus::client::{Context, tcp};
use tokio_modbus::slave::{Slave, SlaveContext};

use super::Retry;
use super::mbap::{Guarded, TransactionIds};
use super::transport::{Answer, Failure, ReadRequest, call};

/// A connection is given at least this long to come about, however short the bus's timeout is.
const CONNECT_MIN: Duration = Duration::from_secs(1);

/// The client's end of a Modbus TCP connection.
#[derive(Debug)]
pub struct TcpMaster {
    address: String,
    timeout: Duration,
    connection: Connection,
    retry: Retry,
    ids: TransactionIds,
    quiet_until: Instant,
    #[cfg(test)]
    pub(crate) dial: Option<super::faults::Dial>,
}

/// The library's context has no `Debug` of its own.
struct Connection(Option<Context>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_some() { "Connection(open)" } else { "Connection(none)" })
    }
}

impl TcpMaster {
    /// A client of the server at `host:port`. Nothing is connected yet.
    #[must_use]
    pub fn new(address: String, timeout: Duration) -> Self {
        Self {
            address,
            timeout,
            connection: Connection(None),
            retry: Retry::default(),
            ids: TransactionIds::new(),
            quiet_until: Instant::now(),
            #[cfg(test)]
            dial: None,
        }
    }

    /// One request and its answer, which takes at most the bus's timeout, the time to connect, and
    /// the rest of the pause after a timeout.
    ///
    /// # Errors
    /// [`Failure`] with the cause that stands in the reading.
    pub async fn read(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        let reused = self.connection.0.is_some();
        let first = self.exchange(unit, request).await;
        match first {
            // A server may close a connection that was idle for long: that says nothing about it.
            Err(failure) if reused && failure.cause == Cause::Unreachable => self.exchange(unit, request).await,
            other => other,
        }
    }

    async fn exchange(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        sleep_until(self.quiet_until).await;
        let reused = self.connection.0.is_some();
        let mut context = match self.connection.0.take() {
            Some(context) => context,
            None => self.connect().await?,
        };
        context.set_slave(Slave(unit));
        let result = match timeout(self.timeout, call(&mut context, request)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(Cause::Timeout, format!("no answer within {:?}", self.timeout))),
        };
        match result.as_ref().err() {
            None => self.answered(context),
            Some(failure) if failure.is_exception() => self.answered(context),
            Some(failure) if failure.cause == Cause::Timeout => self.quiet_until = Instant::now() + self.timeout,
            // Accepted, and closed without an answer: such a server is not there either.
            Some(failure) if failure.cause == Cause::Unreachable && !reused => self.retry.failed(),
            Some(_) => {}
        }
        result
    }

    fn answered(&mut self, context: Context) {
        self.retry.succeeded();
        self.connection.0 = Some(context);
    }

    async fn connect(&mut self) -> Result<Context, Failure> {
        let unreachable = |detail: String| Failure::new(Cause::Unreachable, detail);
        if !self.retry.may_try() {
            return Err(unreachable(format!("{} was not reachable a moment ago", self.address)));
        }
        #[cfg(test)]
        if let Some(dial) = &self.dial {
            return Ok(tcp::attach(Guarded::new(dial.open(), self.ids.clone())));
        }
        let limit = self.timeout.max(CONNECT_MIN);
        let attempt = match timeout(limit, TcpStream::connect(&self.address)).await {
            Ok(attempt) => attempt.map_err(|error| unreachable(format!("cannot connect to {}: {error}", self.address))),
            Err(_) => Err(unreachable(format!("{} did not accept a connection within {limit:?}", self.address))),
        };
        match attempt {
            Ok(stream) => {
                // Requests are small and wait for their answers: Nagle's delay would only cost time.
                let _ = stream.set_nodelay(true);
                Ok(tcp::attach(Guarded::new(stream, self.ids.clone())))
            }
            Err(failure) => {
                self.retry.failed();
                Err(failure)
            }
        }
    }
}
