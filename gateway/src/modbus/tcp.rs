//! Modbus TCP: one connection a bus.
//!
//! The connection is kept until its first error and made again at the next request, with growing
//! pauses until somebody answers; at once where the server hangs up on one unit and answers for others (`answering`). An answer that comes after its time dies with its connection, or is
//! dropped where a converter sends it over the next one, which is then made anew, too: its transaction id is no
//! longer open (see `mbap`). Several requests may be asked together, if their servers are known to bear it: all of
//! them are answered, or none, and for none of them is waited longer than [`TOGETHER_PATIENCE_MAX`]. After a timeout the server is left alone for as long once more, and at most for a quarter of a
//! second, so that a converter is done with what it was asked and the others do not wait for one device.

use std::time::Duration;

use tjern_readings::reading::Cause;
#[cfg(not(test))]
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::answering::Answering;
use super::connect::connect;
use super::mbap::{Connection, Strangers, TransactionIds};
use super::parked::Parked;
use super::transport::{Answer, Asked, Failure, ReadRequest, Reply};
use super::{Manners, Retry};

/// A server is left alone for at most so long after it did not answer.
const QUIET_MAX: Duration = Duration::from_millis(250);

/// A socket; in tests a pipe in memory as well.
#[cfg(not(test))]
type Stream = TcpStream;
#[cfg(test)]
type Stream = Box<dyn super::faults::AnyStream>;

/// However long the timeout is: for an answer to one of several requests so long is waited from the one before. Only who is known
/// to be quick is asked so, and what is not answered is asked again alone, with all of the timeout.
pub(crate) const TOGETHER_PATIENCE_MAX: Duration = Duration::from_secs(1);

/// The client's end of a Modbus TCP connection.
#[derive(Debug)]
pub struct TcpMaster {
    address: String,
    manners: Manners,
    connection: Parked<Connection<Stream>>,
    retry: Retry,
    answering: Answering,
    ids: TransactionIds,
    quiet_until: Instant,
    /// When the last answer came, and whose.
    last: Option<(Instant, u8)>,
    /// A canary, so that the tests show that they would notice: ids that begin at 0 on each connection.
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
            answering: Answering::default(),
            ids: TransactionIds::new(),
            quiet_until: Instant::now(),
            last: None,
            #[cfg(test)]
            careless: false,
            #[cfg(test)]
            dial: None,
        }
    }

    /// How many answers came, over all of its connections, that belonged to no open request.
    pub(super) fn strangers(&self) -> Strangers {
        self.ids.strangers()
    }

    /// How long the server will be left alone from now on.
    pub(super) fn quiet_left(&self) -> Duration {
        self.quiet_until.saturating_duration_since(Instant::now())
    }

    /// The next request connects, whoever hung up a moment ago.
    pub(super) fn try_at_once(&mut self) {
        self.retry.succeeded();
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
        let replies = self.read_together(&[Asked { unit, request }]).await?;
        replies
            .into_iter()
            .next()
            .map_or_else(|| Err(Failure::new(Cause::Malformed, "no answer")), |reply| reply.result)
    }

    /// Several requests at once, and their answers in the same order: each may take the bus's timeout from the one
    /// before, and at most [`TOGETHER_PATIENCE_MAX`].
    ///
    /// # Errors
    /// [`Failure`] where one of them was not answered rightly. Then nothing is known of the others.
    pub(super) async fn read_together(&mut self, asked: &[Asked]) -> Result<Vec<Reply>, Failure> {
        let reused = self.connection.is_there();
        let first = self.exchange(asked).await;
        match first {
            // A server may close a connection that was idle for long: that says nothing about it.
            Err(failure) if reused && failure.cause == Cause::Unreachable => self.exchange(asked).await,
            other => other,
        }
    }

    async fn exchange(&mut self, asked: &[Asked]) -> Result<Vec<Reply>, Failure> {
        let careful = asked.iter().map(|asked| asked.unit).max_by_key(|unit| self.gap(*unit)).unwrap_or_default();
        let begin = self.quiet_until.max(self.gap_until(careful));
        if begin > Instant::now() {
            sleep_until(begin).await;
        }
        let reused = self.connection.is_there();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let limit = self.patience(asked);
        let result = connection.exchange(asked, limit).await;
        self.last = Some((Instant::now(), careful));
        match result {
            Ok(_) => {
                asked.iter().for_each(|asked| self.answering.answered(asked.unit));
                self.answered(connection);
                result
            }
            Err(failure) if failure.cause == Cause::Timeout => {
                self.quiet_until = Instant::now() + limit.min(QUIET_MAX);
                if let [one] = asked {
                    self.answering.was_silent(one.unit);
                }
                Err(failure)
            }
            Err(failure) if failure.cause == Cause::Unreachable && !reused => Err(self.hung_up(asked, failure)),
            Err(failure) => Err(failure),
        }
    }

    /// Accepted, and closed without an answer: such a server is not there either, if that is not one unit's doing.
    fn hung_up(&mut self, asked: &[Asked], failure: Failure) -> Failure {
        let (units, failure) = (asked.iter().map(|asked| asked.unit).collect::<Vec<u8>>(), failure.by_hang_up());
        if self.answering.hung_up(&units) {
            return failure.of_unit();
        }
        self.retry.failed();
        failure
    }

    /// How long each answer may take.
    fn patience(&self, asked: &[Asked]) -> Duration {
        let most = if asked.len() > 1 { TOGETHER_PATIENCE_MAX } else { Duration::MAX };
        self.manners.timeout.min(most)
    }

    fn gap(&self, unit: u8) -> Duration {
        self.manners.gaps.get(&unit).copied().unwrap_or_default()
    }

    /// Until when this device or the last one wants to be left alone.
    fn gap_until(&self, unit: u8) -> Instant {
        self.last.map_or(self.quiet_until, |(at, last)| at + self.gap(unit).max(self.gap(last)))
    }

    fn answered(&mut self, connection: Connection<Stream>) {
        self.retry.succeeded();
        // Where an answer to an earlier request came, more may follow: they end with this connection.
        if !connection.is_stale() {
            self.connection.park(connection);
        }
    }

    async fn connect(&mut self) -> Result<Connection<Stream>, Failure> {
        let address = &self.address;
        if !self.retry.may_try() {
            let detail = format!("{address} was not reachable a moment ago");
            return Err(Failure::new(Cause::Unreachable, detail).untried());
        }
        #[cfg(test)]
        if let Some(dial) = &self.dial {
            return Ok(Connection::new(Box::new(dial.open()), self.ids.clone()));
        }
        match connect(address, &self.manners).await {
            Ok(stream) => Ok(self.guarded(stream)),
            Err(error) => {
                self.retry.failed();
                self.answering.is_gone();
                Err(Failure::new(Cause::Unreachable, format!("cannot connect to {}: {error}", self.address)))
            }
        }
    }

    #[cfg(not(test))]
    fn guarded(&self, stream: TcpStream) -> Connection<Stream> {
        Connection::new(stream, self.ids.clone())
    }

    #[cfg(test)]
    fn guarded(&self, stream: tokio::net::TcpStream) -> Connection<Stream> {
        let ids = if self.careless { TransactionIds::careless() } else { self.ids.clone() };
        Connection::new(Box::new(stream), ids)
    }
}

#[cfg(test)]
#[path = "tcp/tests.rs"]
mod tests;
