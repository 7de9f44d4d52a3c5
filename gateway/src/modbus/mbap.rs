//! A Modbus TCP connection: requests out, answers in, told apart by their transaction ids.
//!
//! A client that counts transactions from 0 on every connection is deceived by a converter from TCP to a serial
//! line, which answers in order and on its newest connection: the late answer to request 0 of the last connection
//! becomes the answer to request 0 of this one, and from then on every answer is the one before. Here every request
//! gets an id that the bus has not used for 65 535 requests, whatever connection it goes over ([`TransactionIds`]); an
//! answer with any other is dropped and noted, so that the connection is not used for another request
//! ([`Connection::is_stale`]).
//!
//! Several requests may go out together, with one write. Their answers may come in any order, and count only when
//! all are there, each under its own id and with the unit, function and length that were asked for: a server that
//! mixes ids up while it has several requests leaves one of them without an answer, and then none of them is a value.
//! Nor does a frame that ends too early become whole with the beginning of the next one: where the head of another answer
//! stands in an answer's data, none of them counts.
//!
//! Limits: frames of at most [`FRAME_MAX`] bytes. After a failure the connection must not be used again.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tjern_readings::reading::Cause;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::debug;

use super::patience::{Elapsed, Patience};
use super::transport::{Answer, Asked, EXCEPTION_BIT, Failure, Reply};

/// Transaction id, protocol id and length stand before what the length counts.
const PREFIX: usize = 6;

/// The longest frame that the specification allows: the prefix, a unit id, a PDU.
const FRAME_MAX: usize = PREFIX + 1 + 253;

/// A request: the prefix, a unit id, function, address, count.
const REQUEST: usize = PREFIX + 1 + 5;

/// The ids of a bus, which go on across its connections. They begin anywhere, so that a gateway that
/// was started again does not repeat those of its last run.
#[derive(Debug, Clone)]
pub(super) struct TransactionIds {
    next: Arc<AtomicU16>,
    strangers: Strangers,
}

/// How many answers came under an id of no open request. It only grows, and clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Strangers(Arc<AtomicU64>);

impl Strangers {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TransactionIds {
    pub(super) fn new() -> Self {
        Self::beginning_at(fastrand::u16(..))
    }

    /// As a client has them that does not think of it: from 0 on each connection.
    #[cfg(test)]
    pub(super) fn careless() -> Self {
        Self::beginning_at(0)
    }

    fn beginning_at(first: u16) -> Self {
        Self { next: Arc::new(AtomicU16::new(first)), strangers: Strangers::default() }
    }

    pub(super) fn next(&self) -> u16 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn strangers(&self) -> Strangers {
        self.strangers.clone()
    }
}

/// What a connection goes over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// What comes next is acknowledged when it comes. A server that does not say otherwise to its system (Nagle) sends the
    /// second of several answers once the first is acknowledged, which systems put off by 40 ms and more.
    fn acknowledge_at_once(&self) {}
}

impl Stream for TcpStream {
    fn acknowledge_at_once(&self) {
        // It only makes it slow where the system cannot.
        let _ = rustix::net::sockopt::set_tcp_quickack(self, true);
    }
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn acknowledge_at_once(&self) {
        (**self).acknowledge_at_once();
    }
}

/// The bytes of an answer's head: the prefix, unit and function.
const HEAD: usize = PREFIX + 2;

/// Of a head, as a big-endian number: the protocol is 0, and the length has one byte.
const ZEROS_OF_A_HEAD: u64 = 0x0000_FFFF_FF00_0000;

/// The heads of the answers to so many requests are known again.
const HEADS_MAX: usize = 32;

/// A connection whose requests carry the bus's ids.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    ids: TransactionIds,
    /// What came and is not looked at yet.
    received: Vec<u8>,
    /// How the answers to the last requests begin.
    heads: VecDeque<[u64; 2]>,
    /// An answer came that is none to an open request.
    is_stale: bool,
    patience: Patience,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Open {
    id: [u8; 2],
    asked: Asked,
    reply: Option<Reply>,
}

impl<S: Stream> Connection<S> {
    pub(super) fn new(stream: S, ids: TransactionIds) -> Self {
        let (received, heads, patience) = (Vec::new(), VecDeque::new(), Patience::default());
        Self { stream, ids, received, heads, is_stale: false, patience }
    }

    /// Whether an answer came over it that was none to an open request, or has begun to: more may follow, and they end
    /// with this connection.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale || !self.received.is_empty()
    }

    /// Sends requests together, and waits for all their answers: each may take so long from the one before.
    ///
    /// # Errors
    /// [`Failure`] where one answer is missing, or is none to its request. Then nothing is known of the others.
    pub(super) async fn exchange(&mut self, asked: &[Asked], timeout: Duration) -> Result<Vec<Reply>, Failure> {
        let mut open: Vec<Open> = asked.iter().map(|asked| self.open(*asked)).collect();
        match self.answers(&mut open, timeout).await {
            Ok(()) => Ok(open.into_iter().filter_map(|open| open.reply).collect()),
            // An answer that came is no value, but it shows that its unit is not the one that is waited for.
            Err(failure) if failure.cause == Cause::Timeout && open.len() > 1 => {
                let silent = open.iter().filter(|open| open.reply.is_none()).map(|open| open.asked.unit);
                Err(failure.of_silent(silent.collect()))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn answers(&mut self, open: &mut [Open], timeout: Duration) -> Result<(), Failure> {
        let mut last = Instant::now();
        let (strangers, before) = (self.ids.strangers(), self.ids.strangers().count());
        let silent = |Elapsed| no_answer(timeout, strangers.count() - before);
        let bytes = requests(open);
        self.received.reserve(open.len() * FRAME_MAX);
        let sending = send(&mut self.stream, &bytes);
        self.patience.until(last + timeout, sending).await.map_err(silent)?.map_err(|error| of_io(&error))?;
        let mut missing = open.len();
        while missing > 0 {
            if open.len() > 1 {
                self.stream.acknowledge_at_once();
            }
            let receiving = self.stream.read_buf(&mut self.received);
            let received = self.patience.until(last + timeout, receiving).await;
            let count = received.map_err(silent)?.map_err(|error| of_io(&error))?;
            if count == 0 {
                return Err(self.ended());
            }
            let now = Instant::now();
            let answered = self.sort(open, now)?;
            if answered > 0 {
                (last, missing) = (now, missing - answered);
            }
        }
        Ok(())
    }

    fn open(&mut self, asked: Asked) -> Open {
        let open = Open { id: self.ids.next().to_be_bytes(), asked, reply: None };
        if self.heads.len() >= HEADS_MAX {
            self.heads.pop_front();
        }
        self.heads.push_back(open.heads());
        open
    }

    /// Takes whole frames out of what came, and says how many of them were waited for.
    fn sort(&mut self, open: &mut [Open], now: Instant) -> Result<usize, Failure> {
        let (mut at, mut answered) = (0, 0);
        while let Some((id, protocol, length)) = prefix(&self.received[at..]) {
            let whole = PREFIX + length;
            if protocol != 0 || length < 2 || whole > FRAME_MAX {
                return Err(nonsense(format!("a frame with protocol {protocol} and length {length}")));
            }
            let Some(frame) = self.received[at..].get(PREFIX..whole) else { break };
            let is_own = |open: &&mut Open| open.reply.is_none() && open.id == id;
            #[cfg(test)]
            let is_own = |open: &&mut Open| {
                let any = super::faults::is_broken(super::faults::Broken::Ids) && open.reply.is_none();
                is_own(open) || any
            };
            let are_several = open.len() > 1;
            match open.iter_mut().find(is_own) {
                Some(_) if are_several && self.holds_a_head(frame) => {
                    return Err(nonsense("another answer begins within an answer".to_owned()));
                }
                Some(open) => {
                    open.reply = Some(Reply { result: open.asked.told(frame)?, at: now });
                    answered += 1;
                }
                None => {
                    self.is_stale = true;
                    self.ids.strangers.0.fetch_add(1, Ordering::Relaxed);
                    debug!(id = u16::from_be_bytes(id), "an answer to no open request is dropped");
                }
            }
            at += whole;
        }
        self.received.drain(..at);
        Ok(answered)
    }

    /// Whether the head of another answer stands in a frame's data.
    fn holds_a_head(&self, frame: &[u8]) -> bool {
        let Some(newest) = self.heads.back().map(|heads| id_of(heads[0])) else { return false };
        let (mut word, mut count) = (0, 0);
        frame.iter().any(|byte| {
            (word, count) = (word << 8 | u64::from(*byte), count + 1);
            if word & ZEROS_OF_A_HEAD != 0 {
                return false;
            }
            // A connection's ids follow one another: an id says where its head would stand.
            let back = usize::from(newest.wrapping_sub(id_of(word)));
            let place = self.heads.len().checked_sub(back + 1).filter(|_| count >= HEAD);
            place.is_some_and(|place| self.heads[place].contains(&word))
        })
    }

    fn ended(&self) -> Failure {
        match self.received.len() {
            0 => Failure::new(Cause::Unreachable, "the server closed the connection"),
            count => nonsense(format!("the connection ended after {count} bytes of an answer")),
        }
    }
}

impl Open {
    /// How an answer to it begins, and how one that is an exception does: id, protocol, length, unit and function.
    fn heads(&self) -> [u64; 2] {
        let [id_high, id_low] = self.id;
        let [function, ..] = self.asked.request.pdu();
        // Unit, function and count, or unit, function and code, stand before the data.
        let head = |length: u16, function: u8| {
            let [length_high, length_low] = length.to_be_bytes();
            u64::from_be_bytes([id_high, id_low, 0, 0, length_high, length_low, self.asked.unit, function])
        };
        [head(self.asked.request.answer_bytes() + 3, function), head(3, function | EXCEPTION_BIT)]
    }
}

impl Asked {
    /// What a frame with this request's id says: unit id and PDU. A device's exception is an answer as well.
    fn told(&self, frame: &[u8]) -> Result<Result<Answer, Failure>, Failure> {
        let Some((unit, pdu)) = frame.split_first() else { return Err(nonsense("an empty frame".to_owned())) };
        if *unit != self.unit {
            let detail = format!("the answer is not to this request: unit {unit} answers, {} was asked", self.unit);
            return Err(Failure::new(Cause::Malformed, detail));
        }
        match self.request.understand(pdu) {
            Err(failure) if !failure.is_exception() => Err(failure),
            result => Ok(result),
        }
    }
}

/// The transaction id that a head begins with.
const fn id_of(head: u64) -> u16 {
    (head >> 48) as u16
}

/// The bytes of requests, one behind the other.
fn requests(open: &[Open]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(open.len() * REQUEST);
    for Open { id: [id_high, id_low], asked, .. } in open {
        bytes.extend_from_slice(&[*id_high, *id_low, 0, 0, 0, 6, asked.unit]);
        bytes.extend_from_slice(&asked.request.pdu());
    }
    bytes
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn prefix(bytes: &[u8]) -> Option<([u8; 2], u16, usize)> {
    let [id_high, id_low, protocol_high, protocol_low, length_high, length_low] = *bytes.first_chunk::<PREFIX>()?;
    let protocol = u16::from_be_bytes([protocol_high, protocol_low]);
    Some(([id_high, id_low], protocol, usize::from(u16::from_be_bytes([length_high, length_low]))))
}

/// A device or a converter that answers under ids of its own is silent to nobody but us.
fn no_answer(timeout: Duration, strangers: u64) -> Failure {
    let silent = format!("no answer within {timeout:?}");
    match strangers {
        0 => Failure::new(Cause::Timeout, silent),
        1 => Failure::new(Cause::Timeout, format!("{silent}; an answer with another transaction id came"))
            .beside_strangers(),
        count => Failure::new(Cause::Timeout, format!("{silent}; {count} answers with another transaction id came"))
            .beside_strangers(),
    }
}

fn nonsense(detail: String) -> Failure {
    Failure::new(Cause::Malformed, format!("what came is no answer: {detail}"))
}

fn of_io(error: &io::Error) -> Failure {
    Failure::new(Cause::Unreachable, error.to_string())
}

#[cfg(test)]
#[path = "mbap/tests.rs"]
mod tests;
