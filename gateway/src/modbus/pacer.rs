//! What keeps a line's silences: a thread for a port, a task for a connection.
//!
//! Between two frames on a serial line lie 3.5 characters of silence, 1.75 ms on a fast one. The
//! runtime's timer knows whole milliseconds only, so a thread of the line's own sleeps until the silence
//! is over and writes the request then, unless something was received meanwhile. On the way to a line behind a TCP
//! connection a millisecond is nothing: there a task does it, so that threads are as many as ports.
//!
//! Limits: one order at a time; a thread's sleep is as exact as the kernel's (some 60 µs). It ends with its
//! [`Pacer`], after the order under way; where nobody waits for that any more it is not written, and no more of it than is.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

/// A bus asks one thing at a time.
const ORDERS: usize = 1;

/// How long a port may refuse to take a request of eight bytes.
const WRITE_MAX: Duration = Duration::from_secs(1);
const WRITE_AGAIN: Duration = Duration::from_millis(1);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was handed to the port then.
    At(Instant),
    /// Somebody was still talking: it was not sent.
    NotSilent,
}

/// Where it is told what became of a request.
type Reply = oneshot::Sender<io::Result<Sent>>;

#[derive(Debug)]
pub(super) struct Order {
    pub(super) frame: Vec<u8>,
    pub(super) at: Instant,
    pub(super) reply: Reply,
}

/// The way to a line's thread or task.
#[derive(Debug)]
pub(super) struct Pacer(mpsc::Sender<Order>);

impl Pacer {
    /// A thread that writes to this descriptor, and owns it.
    pub(super) fn start(line: OwnedFd) -> io::Result<Self> {
        let (orders, received) = mpsc::channel(ORDERS);
        std::thread::Builder::new().name("modbus-line".into()).spawn(move || serve(&line, received))?;
        Ok(Self(orders))
    }

    /// A task that writes to this descriptor, and owns it.
    pub(super) fn without_a_thread(connection: OwnedFd) -> Self {
        let (orders, received) = mpsc::channel(ORDERS);
        tokio::spawn(attend(connection, received));
        Self(orders)
    }

    /// One whose orders somebody else carries out: a test, on a clock of its own.
    #[cfg(test)]
    pub(super) fn in_memory() -> (Self, mpsc::Receiver<Order>) {
        let (orders, received) = mpsc::channel(ORDERS);
        (Self(orders), received)
    }

    /// Has nothing written, and told at that moment whether something waits to be read.
    pub(super) fn tell_at(&self, at: Instant) -> io::Result<oneshot::Receiver<io::Result<Sent>>> {
        self.send(Vec::new(), at)
    }

    /// Has this written at that moment; the reply comes when it is.
    pub(super) fn send(&self, frame: Vec<u8>, at: Instant) -> io::Result<oneshot::Receiver<io::Result<Sent>>> {
        let (reply, result) = oneshot::channel();
        let busy = |_| io::Error::other("the line's pacer is busy or has ended");
        self.0.try_send(Order { frame, at, reply }).map_err(busy)?;
        Ok(result)
    }
}

fn serve(line: &OwnedFd, mut orders: mpsc::Receiver<Order>) {
    while let Some(Order { frame, at, reply }) = orders.blocking_recv() {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        // Nobody may be waiting any more; then it does not matter what became of it.
        let result = if reply.is_closed() { Ok(Sent::NotSilent) } else { write(line, &frame, &reply) };
        let _ = reply.send(result);
    }
}

async fn attend(connection: OwnedFd, mut orders: mpsc::Receiver<Order>) {
    while let Some(Order { frame, at, reply }) = orders.recv().await {
        tokio::time::sleep_until(at.into()).await;
        let result = if reply.is_closed() {
            Ok(Sent::NotSilent)
        } else {
            write_when_there_is_room(&connection, &frame, &reply).await
        };
        let _ = reply.send(result);
    }
}

fn write(line: &OwnedFd, frame: &[u8], reply: &Reply) -> io::Result<Sent> {
    if rustix::io::ioctl_fionread(line)? > 0 {
        return Ok(Sent::NotSilent);
    }
    let (mut left, latest) = (frame, Instant::now() + WRITE_MAX);
    while write_some(line, &mut left, latest)? {
        std::thread::sleep(WRITE_AGAIN);
        abandoned(reply)?;
    }
    Ok(Sent::At(Instant::now()))
}

async fn write_when_there_is_room(connection: &OwnedFd, frame: &[u8], reply: &Reply) -> io::Result<Sent> {
    if rustix::io::ioctl_fionread(connection)? > 0 {
        return Ok(Sent::NotSilent);
    }
    let (mut left, latest) = (frame, Instant::now() + WRITE_MAX);
    while write_some(connection, &mut left, latest)? {
        tokio::time::sleep(WRITE_AGAIN).await;
        abandoned(reply)?;
    }
    Ok(Sent::At(Instant::now()))
}

/// Fails where nobody waits any more: the line may be somebody else's by now.
fn abandoned(reply: &Reply) -> io::Result<()> {
    if reply.is_closed() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

/// Writes what there is room for; whether something is left.
fn write_some(line: &OwnedFd, left: &mut &[u8], latest: Instant) -> io::Result<bool> {
    while !left.is_empty() {
        match rustix::io::write(line, left) {
            Ok(count) => *left = &left[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) if Instant::now() < latest => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// Either kind.
    fn pacers() -> [fn(OwnedFd) -> Pacer; 2] {
        [|line| Pacer::start(line).expect("a thread"), Pacer::without_a_thread]
    }

    #[tokio::test]
    async fn nothing_is_written_before_its_time() {
        for pacer in pacers() {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            let pacer = pacer(ours.into());
            let at = Instant::now() + Duration::from_millis(20);
            let sent = pacer.send(vec![1, 2, 3], at).expect("free").await.expect("a reply").expect("written");
            let Sent::At(sent) = sent else { panic!("{sent:?}") };
            assert!(sent >= at);
            let mut seen = [0; 3];
            theirs.read_exact(&mut seen).expect("it arrives");
            assert_eq!(seen, [1, 2, 3]);
        }
    }

    /// A device that is still talking would be talked over.
    #[tokio::test]
    async fn nothing_is_written_while_somebody_talks() {
        for pacer in pacers() {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            theirs.write_all(&[7]).expect("room");
            let sent = pacer(ours.into()).send(vec![1, 2, 3], Instant::now()).expect("free").await.expect("a reply");
            assert_eq!(sent.expect("no error"), Sent::NotSilent);
        }
    }

    /// Whether an answer stands alone is known when the silence behind it is over, and not a millisecond later.
    #[tokio::test]
    async fn it_is_told_at_its_time_whether_somebody_talks() {
        for pacer in pacers() {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            let pacer = pacer(ours.into());
            let at = Instant::now() + Duration::from_millis(5);
            let told = pacer.tell_at(at).expect("free").await.expect("a reply").expect("no error");
            assert!(matches!(told, Sent::At(told) if told >= at), "{told:?}");
            theirs.write_all(&[7]).expect("room");
            let told = pacer.tell_at(Instant::now()).expect("free").await.expect("a reply");
            assert_eq!(told.expect("no error"), Sent::NotSilent);
            assert_eq!(rustix::io::ioctl_fionread(&theirs).expect("asked"), 0, "nothing was written");
        }
    }

    /// A port that took nothing may be somebody else's when it takes something again: half a request would talk over his.
    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_given_up() {
        let (mut full, theirs) = UnixStream::pair().expect("a pair");
        full.set_nonblocking(true).expect("set");
        while full.write(&[0; 4096]).is_ok() {}
        let (line, (reply, result)) = (OwnedFd::from(full), oneshot::channel());
        drop(result);
        for given_up in [write(&line, &[7; 8], &reply), write_when_there_is_room(&line, &[7; 8], &reply).await] {
            assert_eq!(given_up.expect_err("the port takes nothing").kind(), io::ErrorKind::Interrupted);
        }
        drop(theirs);
    }

    /// An adapter that is plugged in again gets its old name only if nobody has the old one open.
    #[tokio::test]
    async fn the_descriptor_is_closed_with_the_line() {
        for pacer in pacers() {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            drop(pacer(ours.into()));
            theirs.set_nonblocking(true).expect("set");
            let mut theirs = tokio::net::UnixStream::from_std(theirs).expect("registered");
            let end = tokio::io::AsyncReadExt::read(&mut theirs, &mut [0; 1]).await;
            assert_eq!(end.expect("an end"), 0);
        }
    }
}
