//! Devices on a bad line, on a wire that anybody can open: what `simulate` starts.
//!
//! They answer the four reads and nothing else, one request at a time, and every answer goes through a
//! [`BadLine`]. Over TCP each client has a connection, and a line, of its own: at most [`CLIENTS_MAX`] at once, more wait. A line of text goes through one as well. Who is told to disconnect closes a TCP connection; a pseudo
//! terminal cannot be unplugged from this end, so there the rest of the answer is lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tjern_readings::clock::Clock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::debug;

use super::bad_line::{Act, BadLine, Framing, LineFaults, crc};
use super::{SimulatedUnit, Terminal};
use crate::modbus::transport::{ReadRequest, Table};

/// Illegal function, data address, data value.
const ILLEGAL: [u8; 3] = [1, 2, 3];

/// So many clients are served at once by one bus.
pub const CLIENTS_MAX: usize = 16;

/// An RTU request for a read.
const RTU_REQUEST: usize = 8;
/// Transaction id, protocol id, length, unit.
const TCP_HEADER: usize = 7;

/// Devices, and the line they are on.
#[derive(Debug, Clone)]
pub struct BadDevices {
    /// Who answers.
    pub units: Vec<SimulatedUnit>,
    /// How the bytes are framed.
    pub framing: Framing,
    /// What goes wrong.
    pub faults: LineFaults,
    /// From which all of that follows.
    pub seed: u64,
    /// What time it is.
    pub clock: Clock,
}

/// Makes the lines that a logger prints, for a moment.
pub type Lines = Box<dyn Fn(i64) -> Vec<String> + Send + Sync>;

impl BadDevices {
    /// Serves every client that comes, for ever.
    pub async fn serve_tcp(self, listener: TcpListener) {
        let shared = Arc::new(self);
        serve_each(&listener, (shared.faults, shared.framing, shared.seed), |mut stream, mut line| {
            let devices = Arc::clone(&shared);
            async move { devices.serve(&mut stream, &mut line).await }
        })
        .await;
    }

    /// Opens a pseudo terminal: its device file, and what serves it for ever.
    ///
    /// # Errors
    /// Where there is none to be had.
    pub fn open_terminal(self) -> io::Result<(String, impl Future<Output = ()> + Send)> {
        let Terminal { mut ours, theirs, port } = Terminal::open()?;
        let serve = async move {
            let mut line = self.line();
            loop {
                self.serve(&mut ours, &mut line).await;
                debug!(open = ?theirs, "what was received on the pseudo terminal made no sense");
            }
        };
        Ok((port, serve))
    }

    fn line(&self) -> BadLine {
        BadLine::new(self.faults, self.framing, self.seed)
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S, line: &mut BadLine) {
        loop {
            let answered = match self.next_answer(stream).await {
                Ok(Some(answer)) => perform(line.answer(answer), stream).await,
                Ok(None) => Ok(true),
                Err(error) => Err(error),
            };
            match answered {
                Ok(true) => {}
                Ok(false) if self.framing == Framing::Rtu => {}
                Ok(false) => return,
                Err(error) => return debug!("a simulated connection ended: {error}"),
            }
        }
    }

    /// Waits for a request; `None` for one that nobody here answers.
    async fn next_answer<S: AsyncRead + Unpin>(&self, stream: &mut S) -> io::Result<Option<Vec<u8>>> {
        if self.framing == Framing::Rtu {
            let mut request = [0; RTU_REQUEST];
            stream.read_exact(&mut request).await?;
            // Whoever comes in the middle of a request finds the next one's beginning by its CRC.
            while crc(&request[..RTU_REQUEST - 2]) != request[RTU_REQUEST - 2..] {
                request.copy_within(1.., 0);
                stream.read_exact(&mut request[RTU_REQUEST - 1..]).await?;
            }
            return Ok(self.answer(request[0], &request[1..RTU_REQUEST - 2]).map(|pdu| {
                let mut frame = [&request[..1], &pdu].concat();
                frame.extend(crc(&frame));
                frame
            }));
        }
        let mut header = [0; TCP_HEADER];
        stream.read_exact(&mut header).await?;
        let [id_high, id_low, .., length_high, length_low, unit] = header;
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let mut pdu = vec![0; length.saturating_sub(1)];
        stream.read_exact(&mut pdu).await?;
        Ok(self.answer(unit, &pdu).map(|pdu| {
            let length = u16::try_from(pdu.len() + 1).unwrap_or(u16::MAX).to_be_bytes();
            [&[id_high, id_low, 0, 0, length[0], length[1], unit], &pdu[..]].concat()
        }))
    }

    /// The PDU of the answer, an exception among them; nobody answers for a unit that is not there.
    fn answer(&self, unit: u8, pdu: &[u8]) -> Option<Vec<u8>> {
        let unit = self.units.iter().find(|known| known.unit_id == unit)?;
        let function = *pdu.first()?;
        let answer = match self.data(unit, pdu) {
            Ok(data) => [&[function, u8::try_from(data.len()).unwrap_or(u8::MAX)], &data[..]].concat(),
            Err(exception) => vec![function | 0x80, exception],
        };
        Some(answer)
    }

    fn data(&self, unit: &SimulatedUnit, pdu: &[u8]) -> Result<Vec<u8>, u8> {
        let [function, address_high, address_low, count_high, count_low] = *pdu else { return Err(ILLEGAL[0]) };
        let table = match function {
            1 => Table::Coil,
            2 => Table::Discrete,
            3 => Table::Holding,
            4 => Table::Input,
            _ => return Err(ILLEGAL[0]),
        };
        let (address, count) =
            (u16::from_be_bytes([address_high, address_low]), u16::from_be_bytes([count_high, count_low]));
        let request = ReadRequest::new(table, address, count).ok_or(ILLEGAL[2])?;
        let words = unit.words(request, self.clock.now_us()).ok_or(ILLEGAL[1])?;
        if table.is_bits() {
            let packed = |bits: &[u16]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit != 0));
            return Ok(words.chunks(8).map(packed).collect());
        }
        Ok(words.into_iter().flat_map(u16::to_be_bytes).collect())
    }
}

/// Serves every client that comes, for ever, each with a line of its own: which faults it has follows from the seed and
/// from how many came before it.
pub async fn serve_each<F: Future<Output = ()> + Send + 'static>(
    listener: &TcpListener,
    (faults, framing, seed): (LineFaults, Framing, u64),
    serve: impl Fn(TcpStream, BadLine) -> F,
) {
    let (places, mut clients) = (Arc::new(Semaphore::new(CLIENTS_MAX)), JoinSet::new());
    for number in 0_u64.. {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => debug!("a simulated server did not accept: {error}"),
            }
        };
        // Far from the seeds of other buses, which follow one another.
        let line = BadLine::new(faults, framing, seed.wrapping_add(number << 32));
        let served = serve(stream, line);
        clients.spawn(async move {
            served.await;
            drop(place);
        });
        while clients.try_join_next().is_some() {}
    }
}

/// Prints lines on a bad line, for ever or until it is told to disconnect.
///
/// # Errors
/// Where nobody reads any more.
pub async fn print_lines<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    line: &mut BadLine,
    (every, lines): (Duration, &Lines),
    clock: &Clock,
) -> io::Result<()> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ignored = [0_u8; 64];
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                for text in lines(clock.now_us()) {
                    if !perform(line.answer(text.into_bytes()), stream).await? {
                        return Ok(());
                    }
                }
            }
            // What it is sent is of no interest; that nobody is there is.
            received = stream.read(&mut ignored) => {
                if received? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// Answers with lines when it is asked, for ever or until it is told to disconnect.
///
/// # Errors
/// Where nobody asks any more.
pub async fn answer_lines<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    line: &mut BadLine,
    (question, lines): (&str, &Lines),
    clock: &Clock,
) -> io::Result<()> {
    let (question, mut heard, mut bytes) = (question.as_bytes(), Vec::new(), [0_u8; 64]);
    loop {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        for byte in &bytes[..count] {
            heard.push(*byte);
            if !heard.ends_with(question) {
                // What may be the beginning of a question stays.
                let surplus = (heard.len() + 1).saturating_sub(question.len());
                heard.drain(..surplus);
                continue;
            }
            heard.clear();
            for text in lines(clock.now_us()) {
                if !perform(line.answer(text.into_bytes()), stream).await? {
                    return Ok(());
                }
            }
        }
    }
}

/// Does what the line does; whether the connection is still to be used.
async fn perform<S: AsyncWrite + Unpin>(acts: Vec<Act>, stream: &mut S) -> io::Result<bool> {
    for act in acts {
        match act {
            Act::Wait(wait) => sleep(wait).await,
            Act::Send(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Act::Close => return Ok(false),
        }
    }
    Ok(true)
}
