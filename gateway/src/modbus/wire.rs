//! A line that RTU frames go over, below the library: it keeps the silences, and lets one answer through.
//!
//! Downwards it takes a request whole, waits until the line has been silent for long enough, and has the
//! line's pacer write it (see there); a line that does not fall silent is given up on, counted, and told from one that is gone
//! ([`is_babble`]). Upwards it hands
//! on the one frame that answers that request (unit, function, count, CRC) and nothing else: noise,
//! echoes of the request and answers to somebody else are counted and forgotten (see `frame`).
//!
//! The same holds for a serial port and for RTU over TCP, where the far line's silences are kept as well.
//! Clones share the line: the library's context lives until its first error, the line longer. With the last of them the
//! port is free for the next who opens it: the pacer's thread writes nothing more, but for a write that has begun.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_serial::SerialStream;

use super::copies::Copies;
use super::frame::{Expected, FRAME_MAX, Passed};
use super::ioctl::{self, LineErrors};
use super::pacer::{Pacer, Sent};

/// A USB adapter may hold back what it received for so long.
pub(super) const LUMP: Duration = Duration::from_millis(20);

/// Who hands over the first bytes of a frame has handed over the rest after so long.
const PIECES: Duration = LUMP.saturating_mul(2);

/// What a line that never falls silent may make us keep.
const RECEIVED_MAX: usize = 16 * FRAME_MAX;

/// A read's request: unit, function, address, count, CRC.
const REQUEST_BYTES: usize = 8;

/// What carries the bytes.
#[derive(Debug)]
pub(super) enum Carrier {
    Serial(SerialStream),
    Tcp(TcpStream),
    #[cfg(test)]
    Memory(super::faults::Pipe),
}

/// The time of the runtime, which is the system's but for tests that set it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A handle on an open line; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Wire(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    carrier: Carrier,
    pacer: Pacer,
    /// The silence before the next request, and until when it may be waited for.
    silence: Duration,
    give_up: Instant,
    /// The newest moment at which something was on the line, as far as is known.
    active: Instant,
    request: Vec<u8>,
    sending: Option<oneshot::Receiver<io::Result<Sent>>>,
    exchange: Exchange,
    copies: Copies,
    /// The last request was answered: what comes before the next is not that answer, late.
    is_answered: bool,
}

/// What is known of the request under way.
#[derive(Debug, Default)]
struct Exchange {
    sent: Option<Instant>,
    expected: Option<Expected>,
    received: Vec<u8>,
    /// All that came before the request was sent, while the line had to fall silent.
    before: usize,
    /// It did not fall silent, and nothing was sent.
    babbles: bool,
    /// All that came since the request was sent.
    came: usize,
    passed: Passed,
    answer: Vec<u8>,
    answered_at: Option<Instant>,
    taken: usize,
    /// The answer came once more.
    is_copied: bool,
    /// It was noticed that copies of answers come, which nobody waited for before.
    notices_copies: bool,
    /// A whole frame came behind the answer that may be it as well, and says something else.
    has_rival: bool,
}

/// Why a request was not sent: what came left no room for it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the line never falls silent ({0} bytes came, and nothing was asked); hint: another master on it, another baud rate, a stuck driver, a line without termination or bias?"
)]
struct Babble(usize);

/// Whether an error is that a line never falls silent.
pub(super) fn is_babble(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<Babble>())
}

/// How far an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// When the request was handed to the port.
    pub(super) sent: Option<Instant>,
    /// When something was last received, or sent.
    pub(super) active: Instant,
    /// It may have gone out, whether or not that is known.
    pub(super) may_be_sent: bool,
    /// Bytes that belong to no frame, so far.
    pub(super) unread: usize,
    /// As many as the answer has are there, and no frame among them.
    pub(super) is_damaged: bool,
    /// What was passed over.
    pub(super) passed: Passed,
    /// So many bytes kept the line from falling silent, and the request from being sent.
    pub(super) babble: Option<usize>,
    /// Bytes that came and are neither the answer nor the request, heard back.
    pub(super) strange: usize,
    /// Behind the answer came another, or what begins like one.
    pub(super) has_rival: bool,
    /// So long after its answer a copy of it may come; none ever came where nothing stands.
    pub(super) copies_after: Option<Duration>,
    /// That is news: the answer may be a copy of an earlier one.
    pub(super) notices_copies: bool,
}

impl Exchange {
    /// Takes whole frames that came behind the answer.
    fn look_behind(&mut self) {
        let Some(expected) = &self.expected else { return };
        while let Some(other) = expected.take(&mut self.received, &mut self.passed) {
            self.passed.strangers += 1;
            self.is_copied |= other == self.answer;
            self.has_rival |= other != self.answer;
        }
    }

    /// Whether what is left begins like the answer.
    fn may_go_on(&self) -> bool {
        let is_answered = !self.answer.is_empty();
        is_answered && self.expected.as_ref().is_some_and(|expected| expected.may_begin_in(&self.received))
    }

    fn strange(&self) -> usize {
        let echoes = usize::try_from(self.passed.echoes).unwrap_or(usize::MAX).saturating_mul(REQUEST_BYTES);
        self.came.saturating_sub(self.answer.len()).saturating_sub(echoes)
    }
}

impl Carrier {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let before = buffer.filled().len();
        let polled = match self {
            Self::Serial(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(test)]
            Self::Memory(pipe) => Pin::new(pipe).poll_read(context, buffer),
        };
        ready!(polled)?;
        match buffer.filled().len() - before {
            0 => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the line was hung up"))),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn pacer(&self) -> io::Result<Pacer> {
        match self {
            Self::Serial(stream) => Pacer::start(ioctl::duplicate(stream)?),
            Self::Tcp(stream) => Ok(Pacer::without_a_thread(stream.as_fd().try_clone_to_owned()?)),
            #[cfg(test)]
            Self::Memory(pipe) => Ok(pipe.pacer()),
        }
    }
}

impl Wire {
    pub(super) fn new(carrier: Carrier) -> io::Result<Self> {
        let (pacer, now) = (carrier.pacer()?, now());
        Ok(Self(Arc::new(Mutex::new(Open {
            carrier,
            pacer,
            silence: Duration::ZERO,
            give_up: now,
            active: now,
            request: Vec::new(),
            sending: None,
            exchange: Exchange::default(),
            copies: Copies::default(),
            is_answered: false,
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new exchange begins: its request is sent after this silence, and not at all if the line does
    /// not keep it for as long as `patience`.
    pub(super) fn begin(&self, silence: Duration, patience: Duration) {
        let mut open = self.lock();
        let now = now();
        // It is called twice for a request that has to wait until the line is silent.
        if open.exchange.sent.is_some() {
            open.is_answered = !open.exchange.answer.is_empty();
        }
        (open.silence, open.give_up) = (silence, now + silence + patience);
        open.request.clear();
        open.sending = None;
        open.exchange = Exchange::default();
    }

    pub(super) fn progress(&self) -> Progress {
        let open = self.lock();
        let exchange = &open.exchange;
        let unread = exchange.received.len();
        let length = exchange.expected.as_ref().map_or(usize::MAX, Expected::length);
        Progress {
            sent: exchange.sent,
            active: open.active,
            may_be_sent: exchange.sent.is_some() || open.sending.is_some(),
            unread,
            is_damaged: unread >= length,
            passed: exchange.passed,
            babble: exchange.babbles.then_some(exchange.before),
            strange: exchange.strange(),
            has_rival: exchange.has_rival || exchange.may_go_on() && now() < open.active + PIECES,
            copies_after: open.copies.after(),
            notices_copies: exchange.notices_copies,
        }
    }

    /// What is known of an earlier connection to the same line.
    pub(super) fn remember_copies(&self, after: Option<Duration>) {
        self.lock().copies.remember(after);
    }

    /// What the port's hardware counts, if it does.
    pub(super) fn line_errors(&self) -> Option<LineErrors> {
        match &self.lock().carrier {
            Carrier::Serial(stream) => ioctl::line_errors(stream).ok(),
            Carrier::Tcp(_) => None,
            #[cfg(test)]
            Carrier::Memory(_) => super::faults::hardware(),
        }
    }

    /// Hears what follows an answer until the line is silent for so long, or until then; until a copy came, where they do; and where
    /// what came begins like an answer, until that must have gone on: a byte of noise may be the unit's number. That the line is
    /// gone meanwhile is no failure of what was answered. The pacer says when the silence is over: the runtime's timer would add a
    /// millisecond or two to each poll, a tenth of what a fast line carries.
    pub(super) async fn hear_out(&self, silence: Duration, until: Instant) {
        loop {
            let awaited = self.lock().awaited_until(until);
            if awaited.is_none() && self.is_silent_for(silence, until).await {
                return;
            }
            let longest = awaited.unwrap_or(until);
            let rest = std::future::poll_fn(|context| self.lock().poll_rest(context));
            let came = matches!(tokio::time::timeout_at(longest.into(), rest).await, Ok(Ok(())));
            if !came || now() >= longest.max(until) {
                return;
            }
        }
    }

    /// Whether nothing came by then, or the line is gone.
    async fn is_silent_for(&self, silence: Duration, until: Instant) -> bool {
        let told = {
            let open = self.lock();
            open.pacer.tell_at((open.active + silence).min(until))
        };
        match told {
            Ok(told) => !matches!(told.await, Ok(Ok(Sent::NotSilent))),
            Err(_) => true,
        }
    }

    /// Reads and forgets what comes until then, and counts it.
    pub(super) async fn forget_until(&self, until: Instant) -> io::Result<usize> {
        if until <= now() {
            return Ok(0);
        }
        let (mut buffer, mut came) = ([0; FRAME_MAX], 0_usize);
        let read = std::future::poll_fn(|context| -> Poll<io::Result<()>> {
            let mut open = self.lock();
            loop {
                let mut bytes = ReadBuf::new(&mut buffer);
                ready!(open.carrier.poll_read(context, &mut bytes))?;
                came = came.saturating_add(bytes.filled().len());
                open.active = now();
            }
        });
        match tokio::time::timeout_at(until.into(), read).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Ok(came),
        }
    }
}

impl Drop for Open {
    /// The pacer's thread has a descriptor of the port as well, and lets go of it when it gets its turn, or after the order
    /// under way. Until then nobody could open the port: a bus that begins anew, the next setting of a scan.
    fn drop(&mut self) {
        // Nobody waits any more, and the thread sees that: before the lock is given back.
        self.sending = None;
        if let Carrier::Serial(stream) = &self.carrier {
            // A port that was pulled out has no lock any more.
            let _ = ioctl::unlock(stream);
        }
    }
}

impl Open {
    /// Until when something is to come behind the answer, whatever the silence: the rest of a frame, or a copy.
    fn awaited_until(&self, until: Instant) -> Option<Instant> {
        let exchange = &self.exchange;
        if exchange.may_go_on() {
            return Some((self.active + PIECES).min(until + PIECES));
        }
        // At first copies of earlier answers come as well.
        let is_complete = exchange.is_copied && !exchange.notices_copies;
        let copied_at = exchange.answered_at? + self.copies.after()?;
        Some(copied_at).filter(|at| !is_complete && *at > now())
    }

    /// Takes what there is, counts and forgets it; an error means that the line is gone.
    fn forget(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let mut buffer = [0; FRAME_MAX];
        while let Poll::Ready(read) = self.carrier.poll_read(context, &mut ReadBuf::new(&mut buffer)) {
            let count = read?;
            self.exchange.before = self.exchange.before.saturating_add(count);
            self.active = now();
            if self.is_answered {
                self.exchange.notices_copies |= self.copies.look(&buffer[..count], |_| true, self.active);
            }
            if self.active >= self.give_up {
                return Ok(());
            }
        }
        Ok(())
    }

    fn order(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.forget(context)?;
        if now() >= self.give_up {
            self.exchange.babbles = true;
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, Babble(self.exchange.before)));
        }
        let expected = Expected::to(&self.request);
        // The last wall before the wire: nothing but a read has an answer, and nothing else is sent.
        self.exchange.expected =
            Some(expected.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "no read is not sent"))?);
        self.sending = Some(self.pacer.send(self.request.clone(), self.active + self.silence)?);
        Ok(())
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.request.is_empty() {
            let Some(sending) = &mut self.sending else {
                self.order(context)?;
                continue;
            };
            let sent = ready!(Pin::new(sending).poll(context));
            self.sending = None;
            match sent.map_err(|_| io::Error::other("the line's pacer has ended"))?? {
                Sent::NotSilent => {}
                Sent::At(at) => {
                    (self.exchange.sent, self.active) = (Some(at), at);
                    self.request.clear();
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what comes behind the answer.
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; FRAME_MAX];
        let mut more = ReadBuf::new(&mut bytes);
        ready!(self.carrier.poll_read(context, &mut more))?;
        self.active = now();
        let exchange = &mut self.exchange;
        exchange.came = exchange.came.saturating_add(more.filled().len());
        if exchange.received.len() < RECEIVED_MAX {
            exchange.received.extend_from_slice(more.filled());
        }
        exchange.look_behind();
        Poll::Ready(Ok(()))
    }

    fn poll_answer(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let exchange = &mut self.exchange;
            let left = &exchange.answer[exchange.taken..];
            let count = left.len().min(buffer.remaining());
            if count > 0 || buffer.remaining() == 0 {
                buffer.put_slice(&left[..count]);
                exchange.taken += count;
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; FRAME_MAX];
            let mut more = ReadBuf::new(&mut bytes);
            ready!(self.carrier.poll_read(context, &mut more))?;
            self.active = now();
            exchange.came = exchange.came.saturating_add(more.filled().len());
            let Some(expected) = &exchange.expected else { continue };
            if exchange.received.len() < RECEIVED_MAX {
                exchange.received.extend_from_slice(more.filled());
            }
            exchange.notices_copies |=
                self.copies.look(&exchange.received, |frame| expected.is_none_of(frame), self.active);
            if let Some(answer) = expected.take(&mut exchange.received, &mut exchange.passed) {
                self.copies.answered(&answer, self.active);
                (exchange.answer, exchange.answered_at, exchange.taken) = (answer, Some(self.active), 0);
                exchange.look_behind();
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_answer(context, buffer)
    }
}

impl AsyncWrite for Wire {
    /// A request is gathered here, and goes out when it is flushed: whole, as the library does it.
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().request.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_send(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
