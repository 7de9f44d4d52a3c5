//! Devices on a line in memory, whose registers say where they stand and when they were asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::pipe::Pipe;
use crate::modbus::transport::{Answer, ReadRequest, Table};
use crate::simulate::bad_line::{Act, BadLine, Framing, LineFaults, Tally, crc};

/// Makes a connection to the devices, or opens their port.
#[derive(Clone)]
pub(crate) struct Dial(Arc<dyn Fn() -> Pipe + Send + Sync>);

impl Dial {
    pub(crate) fn open(&self) -> Pipe {
        (self.0)()
    }

    /// To a story that plays the device by itself: it gets the far end of each connection.
    pub(crate) fn to_a_story() -> (Self, mpsc::UnboundedReceiver<FarEnd>) {
        let (told, far_ends) = mpsc::unbounded_channel();
        let dial = move || {
            let (ours, stream) = tokio::io::duplex(PIPE);
            let unread = Arc::new(AtomicUsize::new(0));
            // A story that is over hears of no connection.
            let _ = told.send(FarEnd { stream, unread: Arc::clone(&unread) });
            Pipe::new(ours, unread)
        };
        (Self(Arc::new(dial)), far_ends)
    }
}

/// The device's end of a connection in memory.
#[derive(Debug)]
pub(crate) struct FarEnd {
    stream: DuplexStream,
    unread: Arc<AtomicUsize>,
}

impl FarEnd {
    /// Writes, without a turn for anybody else: what is written waits in the port's buffer.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.unread.fetch_add(bytes.len(), Ordering::Relaxed);
        self.stream.write_all(bytes).await.expect("room");
    }

    /// Reads so many bytes.
    pub(crate) async fn read<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await.expect("the gateway asks");
        bytes
    }
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Dial")
    }
}

/// What devices do besides answering.
#[derive(Clone)]
pub(crate) struct Habits {
    /// They are silent to any other request.
    pub(crate) bears: fn(ReadRequest) -> bool,
    /// On a request to such a unit the connection is closed.
    pub(crate) hangs_up: Arc<dyn Fn(u8) -> bool + Send + Sync>,
}

impl Default for Habits {
    fn default() -> Self {
        Self { bears: |_| true, hangs_up: Arc::new(|_| false) }
    }
}

/// What a device is sent that answers with a line.
const QUESTION: usize = "?\n".len();

/// More than all that is ever on its way.
const PIPE: usize = 16_384;

/// What stands in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// A mixture of unit, address and the number of the poll that asks.
    OfPoll,
    /// Four registers make a `u64`: its address above [`MOMENT_BITS`], the moment of the request below.
    OfMoment,
}

/// Whole numbers up to 2⁵³ are exact: 16 bits of an address, and these.
pub(crate) const MOMENT_BITS: u32 = 36;

impl Words {
    /// Different wherever unit, address or moment alone is, whatever was asked in 65 535 polls: each factor is odd.
    fn word(self, unit: u8, address: u16, moment: u64) -> u16 {
        match self {
            Self::OfPoll => {
                let moment = moment.to_le_bytes();
                let poll = u16::from_le_bytes([moment[0], moment[1]]);
                address.wrapping_mul(0x9E37) ^ poll.wrapping_mul(0x85EB) ^ u16::from(unit).wrapping_mul(0x2C1B)
            }
            Self::OfMoment => {
                let number = u64::from(address & !3) << MOMENT_BITS | moment;
                let place = usize::from(address & 3) * 2;
                let bytes = number.to_be_bytes();
                u16::from_be_bytes([bytes[place], bytes[place + 1]])
            }
        }
    }
}

/// What a device answers if nothing goes wrong.
pub(crate) fn right_answer(words: Words, unit: u8, request: ReadRequest, moment: u64) -> Answer {
    let places = (0..request.count()).map(|index| words.word(unit, request.address() + index, moment));
    if request.table().is_bits() {
        Answer::Bits(places.map(|word| word.count_ones() % 2 == 1).collect())
    } else {
        Answer::Registers(places.collect())
    }
}

fn table(function: u8) -> Table {
    match function {
        1 => Table::Coil,
        2 => Table::Discrete,
        3 => Table::Holding,
        4 => Table::Input,
        other => panic!("function {other} was asked for"),
    }
}

/// The devices of a line.
pub(crate) struct Device {
    pub(crate) framing: Framing,
    /// They have the ids 1 to this.
    pub(crate) units: u8,
    pub(crate) faults: LineFaults,
    pub(crate) seed: u64,
    /// How long they take for each answer, besides what the line adds.
    pub(crate) turnaround: Duration,
    pub(crate) words: Words,
    pub(crate) habits: Habits,
    /// What counts as the moment of a request when it arrives.
    pub(crate) moment: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// The line, while its devices run.
pub(crate) struct Line(Arc<Mutex<BadLine>>);

impl Line {
    /// What it did.
    pub(crate) fn tally(&self) -> Tally {
        lock(&self.0).tally()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request as it arrived, and its right answer.
type Asked = Vec<u8>;

/// The newest connection: answers go there, whichever asked, as converters from TCP to a serial line do it.
type Newest = Arc<Mutex<Option<Writes>>>;

struct Writes {
    half: WriteHalf<DuplexStream>,
    unread: Arc<AtomicUsize>,
}

impl Writes {
    /// Nobody may be listening any more, and nobody listens for ever.
    fn send(&mut self, bytes: &[u8]) {
        if matches!(self.half.write_all(bytes).now_or_never(), Some(Ok(()))) {
            self.unread.fetch_add(bytes.len(), Ordering::Relaxed);
        }
    }
}

impl Device {
    /// Starts the devices; they end with the runtime.
    pub(crate) fn start(self) -> (Dial, Line) {
        let line = Arc::new(Mutex::new(BadLine::new(self.faults, self.framing, self.seed)));
        let newest = Newest::default();
        let (answers, received) = mpsc::unbounded_channel();
        tokio::spawn(answer(received, self.turnaround, Arc::clone(&line), Arc::clone(&newest)));
        let device = Arc::new(self);
        let dial = move || {
            let (ours, theirs) = tokio::io::duplex(PIPE);
            let (reads, writes) = tokio::io::split(theirs);
            let unread = Arc::new(AtomicUsize::new(0));
            *lock(&newest) = Some(Writes { half: writes, unread: Arc::clone(&unread) });
            tokio::spawn(listen(Arc::clone(&device), reads, answers.clone(), Arc::clone(&newest)));
            Pipe::new(ours, unread)
        };
        (Dial(Arc::new(dial)), Line(line))
    }

    /// The right answer to a request, which had better be a good one: to a question, the moment at which it came.
    fn answer(&self, request: &[u8]) -> Option<Asked> {
        let (head, unit, pdu) = match self.framing {
            Framing::Tcp => (&request[..4], request[6], &request[7..]),
            Framing::Lines => return Some(format!("{}\r\n", (self.moment)()).into_bytes()),
            Framing::Rtu => {
                assert_eq!(crc(&request[..6]), request[6..], "a request with a wrong CRC: {request:02x?}");
                (&request[..0], request[0], &request[1..6])
            }
        };
        let number = |place: usize| u16::from_be_bytes([pdu[place], pdu[place + 1]]);
        let asked = ReadRequest::new(table(pdu[0]), number(1), number(3)).expect("a request that may be asked");
        if !(1..=self.units).contains(&unit) || !(self.habits.bears)(asked) {
            return None;
        }
        let bytes = match right_answer(self.words, unit, asked, (self.moment)()) {
            Answer::Registers(words) => words.into_iter().flat_map(u16::to_be_bytes).collect::<Vec<u8>>(),
            Answer::Bits(bits) => bits.chunks(8).map(packed).collect(),
        };
        let count = u8::try_from(bytes.len()).expect("at most 250");
        let mut frame = head.to_vec();
        if self.framing == Framing::Tcp {
            frame.extend((u16::from(count) + 3).to_be_bytes());
        }
        frame.extend([unit, pdu[0], count]);
        frame.extend(bytes);
        if self.framing == Framing::Rtu {
            frame.extend(crc(&frame));
        }
        Some(frame)
    }
}

fn packed(bits: &[bool]) -> u8 {
    bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))
}

/// Takes requests when they arrive, however busy the devices are: that is the moment they were asked.
async fn listen(
    device: Arc<Device>,
    mut reads: ReadHalf<DuplexStream>,
    answers: mpsc::UnboundedSender<Asked>,
    newest: Newest,
) {
    let mut request = [0_u8; 12];
    let request = match device.framing {
        Framing::Tcp => &mut request[..],
        Framing::Rtu => &mut request[..8],
        Framing::Lines => &mut request[..QUESTION],
    };
    let unit_at = if device.framing == Framing::Tcp { 6 } else { 0 };
    while reads.read_exact(request).await.is_ok() {
        if device.framing != Framing::Lines && (device.habits.hangs_up)(request[unit_at]) {
            *lock(&newest) = None;
            return;
        }
        if device.answer(request).is_some_and(|answer| answers.send(answer).is_err()) {
            return;
        }
    }
}

/// One device at a time answers, in the order of the requests.
async fn answer(
    mut received: mpsc::UnboundedReceiver<Asked>,
    turnaround: Duration,
    line: Arc<Mutex<BadLine>>,
    newest: Newest,
) {
    while let Some(answer) = received.recv().await {
        sleep(turnaround).await;
        let acts = lock(&line).answer(answer);
        for act in acts {
            match act {
                Act::Wait(wait) => sleep(wait.max(Duration::from_millis(1))).await,
                Act::Send(bytes) => {
                    if let Some(writes) = lock(&newest).as_mut() {
                        writes.send(&bytes);
                    }
                }
                Act::Close => {
                    let _ = lock(&newest).take().and_then(|mut writes| writes.half.shutdown().now_or_never());
                }
            }
        }
    }
}
