//! The transaction ids of a bus, below the library.
//!
//! The library counts transactions from 0 on every connection. Behind a converter from TCP to a
//! serial line, which answers in order and on its newest connection, the late answer to request 0 of
//! the last connection so becomes the answer to request 0 of this one, and from then on every answer
//! is the one before. Here every request gets an id that the bus has not used for 65 535 requests,
//! whatever connection it goes over ([`TransactionIds`]); an answer with any other is dropped and noted, so that the
//! connection is not used for another request, and the one with the right id is let through once, with the
//! library's own id put back.
//!
//! Limits: one request at a time (as the library asks them), frames of at most [`FRAME_MAX`] bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

/// Transaction id, protocol id and length stand before what the length counts.
const PREFIX: usize = 6;

/// The longest frame that the specification allows: the prefix, a unit id, a PDU.
const FRAME_MAX: usize = PREFIX + 1 + 253;

/// The ids of a bus, which go on across its connections. They begin anywhere, so that a gateway that
/// was started again does not repeat those of its last run.
#[derive(Debug, Clone)]
pub(super) struct TransactionIds(Arc<Ids>);

#[derive(Debug)]
struct Ids {
    next: AtomicU16,
    is_stale: AtomicBool,
}

impl TransactionIds {
    pub(super) fn new() -> Self {
        Self(Arc::new(Ids { next: AtomicU16::new(fastrand::u16(..)), is_stale: AtomicBool::new(false) }))
    }

    fn next(&self) -> u16 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether an answer to no open request came since this was asked last.
    pub(super) fn was_stale(&self) -> bool {
        self.0.is_stale.swap(false, Ordering::Relaxed)
    }
}

/// A connection whose requests carry the bus's ids.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    ids: TransactionIds,
    /// The request under way, and how much of it is written.
    request: Vec<u8>,
    written: usize,
    open: Option<Open>,
    /// What came and is no whole frame yet.
    received: Vec<u8>,
    /// The answer, and how much of it was handed on.
    answer: Vec<u8>,
    taken: usize,
}

/// The id of the request that waits for its answer: the one on the wire, and the library's.
#[derive(Debug, Clone, Copy)]
struct Open {
    wire: [u8; 2],
    library: [u8; 2],
}

impl<S> Guarded<S> {
    pub(super) const fn new(stream: S, ids: TransactionIds) -> Self {
        Self {
            stream,
            ids,
            request: Vec::new(),
            written: 0,
            open: None,
            received: Vec::new(),
            answer: Vec::new(),
            taken: 0,
        }
    }

    /// Gives the request its id, before its first byte goes out.
    fn open(&mut self) {
        if let (0, Some(id)) = (self.written, self.request.first_chunk_mut::<2>()) {
            let wire = self.ids.next().to_be_bytes();
            self.open = Some(Open { wire, library: *id });
            *id = wire;
        }
    }

    /// Takes whole frames out of what came; the one that was waited for becomes the answer.
    fn sort(&mut self) -> io::Result<()> {
        while let Some((id, protocol, length)) = prefix(&self.received) {
            let frame = PREFIX + length;
            if protocol != 0 || length < 2 || frame > FRAME_MAX {
                return Err(nonsense(format!("a frame with protocol {protocol} and length {length}")));
            }
            if self.received.len() < frame {
                return Ok(());
            }
            let rest = self.received.split_off(frame);
            let mut frame = std::mem::replace(&mut self.received, rest);
            let is_own = |open: &Open| open.wire == id;
            #[cfg(test)]
            let is_own = |open: &Open| is_own(open) || super::faults::is_broken(super::faults::Broken::Ids);
            match self.open.filter(is_own) {
                Some(open) => {
                    self.open = None;
                    frame[..2].copy_from_slice(&open.library);
                    (self.answer, self.taken) = (frame, 0);
                }
                None => {
                    self.ids.0.is_stale.store(true, Ordering::Relaxed);
                    debug!(id = u16::from_be_bytes(id), "an answer to no open request is dropped");
                }
            }
        }
        Ok(())
    }

    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let left = &self.answer[self.taken..];
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.taken += count;
        count > 0
    }
}

fn prefix(bytes: &[u8]) -> Option<([u8; 2], u16, usize)> {
    let [id_high, id_low, protocol_high, protocol_low, length_high, length_low] = *bytes.first_chunk::<PREFIX>()?;
    let protocol = u16::from_be_bytes([protocol_high, protocol_low]);
    Some(([id_high, id_low], protocol, usize::from(u16::from_be_bytes([length_high, length_low]))))
}

fn nonsense(detail: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.hand_on(buffer) || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; FRAME_MAX];
            let mut more = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut more))?;
            if more.filled().is_empty() {
                let end = match self.received.len() {
                    0 => io::Error::new(io::ErrorKind::ConnectionAborted, "the server closed the connection"),
                    count => nonsense(format!("the connection ended after {count} bytes of an answer")),
                };
                return Poll::Ready(Err(end));
            }
            self.received.extend_from_slice(more.filled());
            self.sort()?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    /// A request is gathered here, and goes out when it is flushed: whole, as the library does it.
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.request.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open();
        let this = &mut *self;
        while this.written < this.request.len() {
            let count = ready!(Pin::new(&mut this.stream).poll_write(context, &this.request[this.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.written += count;
        }
        this.request.clear();
        this.written = 0;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// A request or an answer, as far as it matters here: an id and a PDU.
    fn frame(id: u16, pdu: &[u8]) -> Vec<u8> {
        let length = u16::try_from(pdu.len() + 1).expect("short");
        [&id.to_be_bytes()[..], &[0, 0], &length.to_be_bytes(), &[1], pdu].concat()
    }

    async fn request(guarded: &mut Guarded<tokio::io::DuplexStream>, wire: &mut tokio::io::DuplexStream) -> u16 {
        let sent = frame(0, &[4, 0, 0, 0, 1]);
        guarded.write_all(&sent).await.expect("written");
        guarded.flush().await.expect("flushed");
        let mut seen = vec![0; sent.len()];
        wire.read_exact(&mut seen).await.expect("it arrives");
        assert_eq!(seen[2..], sent[2..]);
        u16::from_be_bytes([seen[0], seen[1]])
    }

    #[tokio::test]
    async fn no_id_comes_twice_across_connections() {
        let ids = TransactionIds::new();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (ours, mut wire) = duplex(1_024);
            let mut guarded = Guarded::new(ours, ids.clone());
            for _ in 0..3 {
                seen.push(request(&mut guarded, &mut wire).await);
            }
        }
        assert!(seen.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{seen:?}");
    }

    proptest! {
        #[test]
        fn only_the_answer_to_the_open_request_gets_through(
            strangers in prop::collection::vec((1_u16.., prop::collection::vec(any::<u8>(), 1..250)), 0..5),
            own in prop::collection::vec(any::<u8>(), 1..250), pieces in 1_usize..40,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let (received, end) = runtime.block_on(async {
                let (ours, mut wire) = duplex(4_096);
                let mut guarded = Guarded::new(ours, TransactionIds::new());
                let id = request(&mut guarded, &mut wire).await;
                let others = strangers.iter().map(|(shift, pdu)| frame(id.wrapping_add(*shift), pdu));
                let mut bytes = others.collect::<Vec<_>>().concat();
                bytes.extend(frame(id, &own));
                bytes.extend(frame(id, &[9, 9]));
                for piece in bytes.chunks(pieces) {
                    wire.write_all(piece).await.expect("there is room");
                }
                drop(wire);
                let mut received = Vec::new();
                let end = guarded.read_to_end(&mut received).await.expect_err("the connection ended");
                (received, end.kind())
            });
            prop_assert_eq!(received, frame(0, &own));
            prop_assert_eq!(end, io::ErrorKind::ConnectionAborted);
        }
    }

    #[tokio::test]
    async fn half_an_answer_is_not_silence() {
        let (ours, mut wire) = duplex(1_024);
        let mut guarded = Guarded::new(ours, TransactionIds::new());
        let id = request(&mut guarded, &mut wire).await;
        wire.write_all(&frame(id, &[4, 2, 0, 7])[..9]).await.expect("there is room");
        drop(wire);
        let error = guarded.read_to_end(&mut Vec::new()).await.expect_err("half a frame");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
