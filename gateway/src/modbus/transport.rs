//! What may go over a Modbus wire, and what may come back.
//!
//! A [`ReadRequest`] is the only thing that our wires accept, and it can be nothing but one of the
//! four reads within the limits of the specification: a gateway cannot write to a device. Answers
//! are held against the request (function, count) before anybody sees them.

use tjern_readings::reading::Cause;
use tokio::time::Instant;
use tokio_modbus::client::{Client, Context};
use tokio_modbus::{ExceptionCode, ProtocolError, Request, Response};

use super::wire::is_babble;

/// The most registers that one request may ask for.
pub const REGISTERS_MAX: u16 = 125;
/// The most bits that one request may ask for.
pub const BITS_MAX: u16 = 2_000;

/// A device's four tables, each with a read of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Bits that can be set: function 1.
    Coil,
    /// Bits that can only be read: function 2.
    Discrete,
    /// Registers that can be set: function 3.
    Holding,
    /// Registers that can only be read: function 4.
    Input,
}

impl Table {
    /// Every table, with the word that stands in configurations.
    pub const ALL: &[(&str, Self)] =
        &[("coil", Self::Coil), ("discrete", Self::Discrete), ("input", Self::Input), ("holding", Self::Holding)];

    /// Whether it holds single bits.
    #[must_use]
    pub const fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// The most that one request may ask for.
    #[must_use]
    pub const fn count_max(self) -> u16 {
        if self.is_bits() { BITS_MAX } else { REGISTERS_MAX }
    }

    /// The function that reads it.
    const fn function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    /// How many bytes an answer with so many bits or registers has.
    #[must_use]
    pub const fn answer_bytes(self, count: u16) -> u16 {
        if self.is_bits() { count.div_ceil(8) } else { count * 2 }
    }
}

/// In an answer's function: it is an exception to it.
pub(super) const EXCEPTION_BIT: u8 = 0x80;

/// One of the four reads, within the limits of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReadRequest {
    table: Table,
    address: u16,
    count: u16,
}

impl ReadRequest {
    /// A read, if one request may ask for so much.
    #[must_use]
    pub const fn new(table: Table, address: u16, count: u16) -> Option<Self> {
        let within = count >= 1 && count <= table.count_max() && address as u32 + count as u32 <= 65_536;
        if within { Some(Self { table, address, count }) } else { None }
    }

    /// Which table.
    #[must_use]
    pub const fn table(self) -> Table {
        self.table
    }

    /// The first address.
    #[must_use]
    pub const fn address(self) -> u16 {
        self.address
    }

    /// How many bits or registers.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.count
    }

    /// How many bytes of data the answer has.
    #[must_use]
    pub const fn answer_bytes(self) -> u16 {
        self.table.answer_bytes(self.count)
    }

    /// The same table near the same place, with an answer of so many bytes: see `read_map`.
    pub(crate) fn with_answer_bytes(self, bytes: u16) -> Option<Self> {
        let count = if self.table.is_bits() { bytes * 8 } else { bytes / 2 };
        let address = self.address.min(u16::try_from(65_536 - u32::from(count)).unwrap_or(0));
        Self::new(self.table, address, count).filter(|request| request.answer_bytes() == bytes)
    }

    /// The request's bytes behind the unit id: one of the four reads.
    pub(super) const fn pdu(self) -> [u8; 5] {
        let ([address_high, address_low], [count_high, count_low]) =
            (self.address.to_be_bytes(), self.count.to_be_bytes());
        [self.table.function(), address_high, address_low, count_high, count_low]
    }

    /// What the bytes behind the unit id of an answer say, if they are one to this request: as many bytes as it says that
    /// it has, and as were asked for. As for the library, an answer with bytes behind those is none.
    pub(super) fn understand(self, pdu: &[u8]) -> Result<Answer, Failure> {
        let function = self.table.function();
        match pdu {
            [own, count, rest @ ..] if *own == function => {
                let data = Some(rest).filter(|rest| rest.len() == usize::from(*count)).ok_or_else(|| {
                    Failure::new(Cause::Malformed, format!("the answer says {count} bytes and has {}", rest.len()))
                })?;
                if data.len() != usize::from(self.answer_bytes()) {
                    return Err(self.wrong_length(if self.table.is_bits() { data.len() * 8 } else { data.len() / 2 }));
                }
                Ok(self.unpack(data))
            }
            [own, code, ..] if *own == function | EXCEPTION_BIT => {
                let exception = ExceptionCode::new(*code);
                Err(Failure::new(Cause::exception(*code), format!("the device answered: {exception}")))
            }
            [] => Err(Failure::new(Cause::Malformed, "the answer is empty")),
            [other, ..] => Err(Failure::new(Cause::Malformed, format!("the answer has function {other}"))),
        }
    }

    /// The bits or registers of an answer of the right length.
    fn unpack(self, data: &[u8]) -> Answer {
        if self.table.is_bits() {
            let bit = |index: usize| data[index / 8] >> (index % 8) & 1 == 1;
            Answer::Bits((0..usize::from(self.count)).map(bit).collect())
        } else {
            Answer::Registers(data.as_chunks::<2>().0.iter().map(|word| u16::from_be_bytes(*word)).collect())
        }
    }

    /// The one place where a request of the library is made.
    const fn to_wire(self) -> Request<'static> {
        match self.table {
            Table::Coil => Request::ReadCoils(self.address, self.count),
            Table::Discrete => Request::ReadDiscreteInputs(self.address, self.count),
            Table::Holding => Request::ReadHoldingRegisters(self.address, self.count),
            Table::Input => Request::ReadInputRegisters(self.address, self.count),
        }
    }

    /// What the answer holds, if it is one to this request.
    fn accept(self, response: Response) -> Result<Answer, Failure> {
        let answer = match (self.table, response) {
            (Table::Coil, Response::ReadCoils(bits)) | (Table::Discrete, Response::ReadDiscreteInputs(bits)) => {
                // Bits come in whole bytes; the rest of the last one means nothing.
                if bits.len() != usize::from(self.answer_bytes()) * 8 {
                    return Err(self.wrong_length(bits.len()));
                }
                Answer::Bits(bits.into_iter().take(usize::from(self.count)).collect())
            }
            (Table::Holding, Response::ReadHoldingRegisters(registers))
            | (Table::Input, Response::ReadInputRegisters(registers)) => {
                if registers.len() != usize::from(self.count) {
                    return Err(self.wrong_length(registers.len()));
                }
                Answer::Registers(registers)
            }
            (_, other) => {
                return Err(Failure::new(
                    Cause::Malformed,
                    format!("the answer has function {}", other.function_code()),
                ));
            }
        };
        Ok(answer)
    }

    fn wrong_length(self, got: usize) -> Failure {
        Failure::new(Cause::Malformed, format!("asked for {}, the answer holds {got}", self.count))
    }
}

/// What a device answered: exactly as much as was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Of a table of bits.
    Bits(Vec<bool>),
    /// Of a table of registers.
    Registers(Vec<u16>),
}

/// A request, and who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The unit id.
    pub unit: u8,
    /// What it is asked.
    pub request: ReadRequest,
}

/// How a request ended that was answered, or that failed alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The answer; with several requests at once a failure is a device's word that it has none.
    pub result: Result<Answer, Failure>,
    /// When it came.
    pub at: Instant,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}: {detail}")]
pub struct Failure {
    /// As it stands in the reading.
    pub cause: Cause,
    /// For the log.
    pub detail: String,
    /// It is of the unit alone: the line was closed on its request, and others on it are answered.
    is_of_unit: bool,
    /// Somebody was there, and hung up.
    is_hang_up: bool,
    /// The line is there, and never falls silent.
    is_babble: bool,
    /// Somebody else on this machine asks on the line.
    is_taken: bool,
    /// Nothing was tried: that failed a moment ago.
    is_untried: bool,
    /// Answers came that belong to no open request.
    has_strangers: bool,
    /// It was answered, and more came than that.
    is_doubt: bool,
    /// Of several requests that were asked together these units' were not answered.
    silent: Vec<u8>,
}

impl Failure {
    pub(crate) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self {
            cause,
            detail: detail.into(),
            is_of_unit: false,
            is_hang_up: false,
            is_babble: false,
            is_taken: false,
            is_untried: false,
            has_strangers: false,
            is_doubt: false,
            silent: Vec::new(),
        }
    }

    /// The same, of several requests, of which these units' were not answered.
    pub(crate) fn of_silent(self, silent: Vec<u8>) -> Self {
        Self { silent, ..self }
    }

    /// Whose requests were not answered, where several were asked together: one of them is dead, or keeps the others waiting.
    pub(crate) fn silent(&self) -> &[u8] {
        &self.silent
    }

    /// The same, of an answer beside which something else came.
    pub(super) fn by_doubt(self) -> Self {
        Self { is_doubt: true, ..self }
    }

    /// Whether it was answered, and more came than that.
    pub(super) const fn is_doubt(&self) -> bool {
        self.is_doubt
    }

    /// The same, of a server that was connected to and closed the connection.
    pub(crate) fn by_hang_up(self) -> Self {
        Self { is_hang_up: true, ..self }
    }

    /// Whether somebody was there, and hung up.
    pub(crate) const fn is_hang_up(&self) -> bool {
        self.is_hang_up
    }

    /// The same, of a line that is there and never falls silent.
    pub(crate) fn by_babble(self) -> Self {
        Self { is_babble: true, ..self }
    }

    /// Whether the line is there, and never falls silent: nothing can be asked on it.
    pub(crate) const fn is_babble(&self) -> bool {
        self.is_babble
    }

    /// The same, of a line on which somebody else asks.
    pub(crate) fn by_another(self) -> Self {
        Self { is_taken: true, ..self }
    }

    /// Whether somebody else on this machine asks on the line.
    pub(crate) const fn is_taken(&self) -> bool {
        self.is_taken
    }

    /// The same, where nothing was tried since that failed a moment ago.
    pub(crate) fn untried(self) -> Self {
        Self { is_untried: true, ..self }
    }

    /// Whether nothing was tried, since that failed a moment ago: it says nothing new.
    pub(crate) const fn is_untried(&self) -> bool {
        self.is_untried
    }

    /// The same, while answers came that belong to no open request.
    pub(crate) fn beside_strangers(self) -> Self {
        Self { has_strangers: true, ..self }
    }

    /// Whether answers came meanwhile that belong to no open request.
    pub(crate) const fn has_strangers(&self) -> bool {
        self.has_strangers
    }

    /// The same, of the unit alone.
    pub(crate) fn of_unit(self) -> Self {
        Self { is_of_unit: true, ..self }
    }

    /// Nobody on the line is reached.
    #[must_use]
    pub fn is_of_line(&self) -> bool {
        self.cause == Cause::Unreachable && !self.is_of_unit
    }

    /// The device answered, and said no: neither it nor the line is broken.
    #[must_use]
    pub const fn is_exception(&self) -> bool {
        matches!(
            self.cause,
            Cause::Exception1
                | Cause::Exception2
                | Cause::Exception3
                | Cause::Exception4
                | Cause::Exception5
                | Cause::Exception6
                | Cause::Exception8
                | Cause::Exception10
                | Cause::Exception11
                | Cause::ExceptionOther
        )
    }
}

/// One request and its answer. After any failure but an exception, the context must not be used
/// again.
pub(super) async fn call(context: &mut Context, request: ReadRequest) -> Result<Answer, Failure> {
    match context.call(request.to_wire()).await {
        Ok(Ok(response)) => request.accept(response),
        Ok(Err(exception)) => {
            Err(Failure::new(Cause::exception(exception.into()), format!("the device answered: {exception}")))
        }
        Err(tokio_modbus::Error::Protocol(error)) => Err(Failure::new(Cause::Malformed, describe(&error))),
        Err(tokio_modbus::Error::Transport(error)) if is_nonsense(&error) => {
            Err(Failure::new(Cause::Malformed, format!("what came is no answer: {error}")))
        }
        Err(tokio_modbus::Error::Transport(error)) => {
            let failure = Failure::new(Cause::Unreachable, error.to_string());
            Err(if is_babble(&error) { failure.by_babble() } else { failure })
        }
    }
}

/// Whether bytes came that make no sense. The library reports them, a PDU that ends too early among
/// them, as errors of its own; those of the line come from the system and have its number.
fn is_nonsense(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    error.raw_os_error().is_none() && matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

fn describe(error: &ProtocolError) -> String {
    match error {
        ProtocolError::HeaderMismatch { message, .. } => format!("the answer is not to this request: {message}"),
        ProtocolError::FunctionCodeMismatch { request, .. } => format!("the answer is not to function {request}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_but_the_four_reads_can_be_asked(
            table in prop::sample::select(Table::ALL), address: u16, count: u16,
        ) {
            let Some(request) = ReadRequest::new(table.1, address, count) else {
                let within = count >= 1 && count <= table.1.count_max() && u32::from(address) + u32::from(count) <= 65_536;
                prop_assert!(!within);
                return Ok(());
            };
            let code = request.to_wire().function_code().value();
            prop_assert!((1..=4).contains(&code), "function {code}");
            let [address_high, address_low] = address.to_be_bytes();
            let [count_high, count_low] = count.to_be_bytes();
            prop_assert_eq!(request.pdu(), [code, address_high, address_low, count_high, count_low]);
            prop_assert!(request.answer_bytes() <= 250);
        }

        #[test]
        fn an_answer_of_another_length_is_never_accepted(count in 1_u16..=125, got in 0_usize..=127) {
            let request = ReadRequest::new(Table::Input, 0, count).expect("within");
            let answer = request.accept(Response::ReadInputRegisters(vec![7; got]));
            prop_assert_eq!(answer.is_ok(), got == usize::from(count));
            let pdu: Vec<u8> = [4, u8::try_from(got * 2).expect("small")].into_iter().chain((0..got * 2).map(|_| 7)).collect();
            prop_assert_eq!(request.understand(&pdu).is_ok(), got == usize::from(count));
        }

        /// What is understood of bytes is what the library understands of them.
        #[test]
        fn bytes_are_understood_as_the_library_does(
            table in prop::sample::select(Table::ALL), count in 1_u16..=20,
            data in prop::collection::vec(any::<u8>(), 0..48), function in prop::option::of(any::<u8>()), said in prop::option::of(any::<u8>()),
        ) {
            let request = ReadRequest::new(table.1, 0, count).expect("within");
            let function = function.unwrap_or(table.1.function());
            let said = said.unwrap_or(u8::try_from(data.len()).expect("small"));
            let pdu: Vec<u8> = [function, said].into_iter().chain(data).collect();
            let own = request.understand(&pdu);
            let theirs = Response::try_from(bytes::Bytes::from(pdu)).ok().map(|response| request.accept(response));
            match theirs {
                Some(theirs) if (1..=4).contains(&function) => prop_assert_eq!(own.ok(), theirs.ok()),
                _ => prop_assert!(own.is_err()),
            }
        }
    }

    #[test]
    fn each_table_has_the_function_of_the_specification() {
        let codes = [(Table::Coil, 1), (Table::Discrete, 2), (Table::Holding, 3), (Table::Input, 4)];
        for (table, code) in codes {
            let request = ReadRequest::new(table, 0, 1).expect("within");
            assert_eq!(request.to_wire().function_code().value(), code);
        }
    }

    #[test]
    fn an_answer_from_another_table_is_malformed() {
        let request = ReadRequest::new(Table::Input, 0, 1).expect("within");
        let failure = request.accept(Response::ReadHoldingRegisters(vec![1])).expect_err("another function");
        assert_eq!(failure.cause, Cause::Malformed);
    }

    #[test]
    fn surplus_bits_of_the_last_byte_mean_nothing() {
        let request = ReadRequest::new(Table::Coil, 0, 3).expect("within");
        let bits = vec![true, false, true, true, true, true, true, true];
        assert_eq!(request.accept(Response::ReadCoils(bits)), Ok(Answer::Bits(vec![true, false, true])));
    }
}
