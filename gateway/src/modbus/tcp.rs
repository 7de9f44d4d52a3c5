//! Modbus TCP: one connection a bus.
//!
//! The connection is kept until its first error and made again at the next request, with growing
//! pauses until somebody answers. An answer that comes after its time dies with its connection, or is
//! dropped where a converter sends it over the next one, which is then made anew, too: its transaction id is no
//! longer open (see `mbap`). After a timeout the server is left alone for as long once more, and at most for a quarter of a
//! second, so that a converter is done with what it was asked and the others do not wait for one device.

use std::time::Duration;

use tjern_readings::reading::Cause;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_modbus::client::{Context, tcp};
use tokio_modbus::slave::{Slave, SlaveContext};

use super::connect::connect;
use super::mbap::{Guarded, TransactionIds};
use super::parked::Parked;
use super::transport::{Answer, Failure, ReadRequest, call};
use super::{Manners, Retry};

/// A server is left alone for at most so long after it did not answer.
const QUIET_MAX: Duration = Duration::from_millis(250);

/// The client's end of a Modbus TCP connection.
#[derive(Debug)]
pub struct TcpMaster {
    address: String,
    manners: Manners,
    connection: Parked<Context>,
    retry: Retry,
    ids: TransactionIds,
    quiet_until: Instant,
    /// When the last answer came, and whose.
    last: Option<(Instant, u8)>,
    /// A canary, so that the tests show that they would notice: the library's ids as they are.
    #[cfg(test)]
    careless: bool,
    #[cfg(test)]
    pub(crate) dial: Option<super::faults::Dial>,
}

impl TcpMaster {
    /// A client of the server at `host:port`. Nothing is connected yet.
    #[must_use]
    pub fn new(address: String, manners: Manners) -> Self {
        Self {
            address,
            connection: Parked::new(manners.connection.idle_close),
            manners,
            retry: Retry::default(),
            ids: TransactionIds::new(),
            quiet_until: Instant::now(),
            last: None,
            #[cfg(test)]
            careless: false,
            #[cfg(test)]
            dial: None,
        }
    }

    /// How long the server will be left alone from now on.
    pub(super) fn quiet_left(&self) -> Duration {
        self.quiet_until.saturating_duration_since(Instant::now())
    }

    /// What a new connection costs before its first request; nothing while there is one.
    pub(super) fn connect_pause(&self) -> Duration {
        if self.connection.is_there() { Duration::ZERO } else { self.manners.connection.pause }
    }

    /// One request and its answer, which takes at most the bus's timeout, the time to connect, and
    /// the rest of the pause after a timeout.
    ///
    /// # Errors
    /// [`Failure`] with the cause that stands in the reading.
    pub async fn read(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        let reused = self.connection.is_there();
        let first = self.exchange(unit, request).await;
        match first {
            // A server may close a connection that was idle for long: that says nothing about it.
            Err(failure) if reused && failure.cause == Cause::Unreachable => self.exchange(unit, request).await,
            other => other,
        }
    }

    async fn exchange(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        sleep_until(self.quiet_until.max(self.gap_until(unit))).await;
        let reused = self.connection.is_there();
        let mut context = match self.connection.take() {
            Some(context) => context,
            None => self.connect().await?,
        };
        context.set_slave(Slave(unit));
        let limit = self.manners.timeout;
        let result = match timeout(limit, call(&mut context, request)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(Cause::Timeout, format!("no answer within {limit:?}"))),
        };
        self.last = Some((Instant::now(), unit));
        match result.as_ref().err() {
            None => self.answered(context),
            Some(failure) if failure.is_exception() => self.answered(context),
            Some(failure) if failure.cause == Cause::Timeout => {
                self.quiet_until = Instant::now() + limit.min(QUIET_MAX);
            }
            // Accepted, and closed without an answer: such a server is not there either.
            Some(failure) if failure.cause == Cause::Unreachable && !reused => self.retry.failed(),
            Some(_) => {}
        }
        result
    }

    /// Until when this device or the last one wants to be left alone.
    fn gap_until(&self, unit: u8) -> Instant {
        let gap = |unit: u8| self.manners.gaps.get(&unit).copied().unwrap_or_default();
        self.last.map_or(self.quiet_until, |(at, last)| at + gap(unit).max(gap(last)))
    }

    fn answered(&mut self, context: Context) {
        self.retry.succeeded();
        // Where an answer to an earlier request came, more may follow: they end with this connection.
        if !self.ids.was_stale() {
            self.connection.park(context);
        }
    }

    async fn connect(&mut self) -> Result<Context, Failure> {
        let address = &self.address;
        if !self.retry.may_try() {
            return Err(Failure::new(Cause::Unreachable, format!("{address} was not reachable a moment ago")));
        }
        #[cfg(test)]
        if let Some(dial) = &self.dial {
            return Ok(tcp::attach(Guarded::new(dial.open(), self.ids.clone())));
        }
        match connect(address, &self.manners).await {
            #[cfg(test)]
            Ok(stream) if self.careless => Ok(tcp::attach(stream)),
            Ok(stream) => Ok(tcp::attach(Guarded::new(stream, self.ids.clone()))),
            Err(error) => {
                self.retry.failed();
                Err(Failure::new(Cause::Unreachable, format!("cannot connect to {}: {error}", self.address)))
            }
        }
    }
}

#[cfg(test)]
#[path = "tcp/tests.rs"]
mod tests;
