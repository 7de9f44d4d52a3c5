//! Simulated Modbus devices: the library's servers, with units that answer, stay silent, are late.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use tjern_readings::clock::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_modbus::server::{Service, rtu, tcp};
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};
use tracing::debug;

use super::{SimulatedRegister, SimulatedUnit, Terminal};
use crate::modbus::transport::{ReadRequest, Table};
use crate::value;

/// What the devices on one bus answer.
#[derive(Debug, Clone)]
struct Devices {
    units: Arc<Vec<SimulatedUnit>>,
    clock: Clock,
}

impl Service for Devices {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = Pin<Box<dyn Future<Output = Result<Option<Response>, ExceptionCode>> + Send>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        let Some(unit) = self.units.iter().find(|unit| unit.unit_id == request.slave) else {
            // Nobody has this address: on a wire, nobody answers.
            return Box::pin(async { Ok(None) });
        };
        let faults = Arc::clone(&unit.faults);
        let answer = match faults.exception() {
            0 => unit.answer(&request.request, self.clock.now_us()),
            code => Err(ExceptionCode::new(code)),
        };
        Box::pin(async move {
            tokio::time::sleep(faults.delay()).await;
            if faults.is_silent() { Ok(None) } else { answer.map(Some) }
        })
    }
}

impl SimulatedUnit {
    fn answer(&self, request: &Request<'_>, now_us: i64) -> Result<Response, ExceptionCode> {
        let read = |table, address: u16, count| {
            let request = ReadRequest::new(table, address, count).ok_or(ExceptionCode::IllegalDataValue)?;
            self.words(request, now_us).ok_or(ExceptionCode::IllegalDataAddress)
        };
        let bits = |words: Vec<u16>| words.into_iter().map(|word| word != 0).collect();
        match *request {
            Request::ReadCoils(address, count) => read(Table::Coil, address, count).map(bits).map(Response::ReadCoils),
            Request::ReadDiscreteInputs(address, count) => {
                read(Table::Discrete, address, count).map(bits).map(Response::ReadDiscreteInputs)
            }
            Request::ReadHoldingRegisters(address, count) => {
                read(Table::Holding, address, count).map(Response::ReadHoldingRegisters)
            }
            Request::ReadInputRegisters(address, count) => {
                read(Table::Input, address, count).map(Response::ReadInputRegisters)
            }
            _ => Err(ExceptionCode::IllegalFunction),
        }
    }

    /// What stands at every address that is asked for, or `None` where one of them is not there.
    pub(super) fn words(&self, request: ReadRequest, now_us: i64) -> Option<Vec<u16>> {
        let (start, end) = (u32::from(request.address()), u32::from(request.address()) + u32::from(request.count()));
        (start..end).map(|address| self.word(request.table(), address, now_us)).collect()
    }

    fn word(&self, table: Table, address: u32, now_us: i64) -> Option<u16> {
        let holds = |register: &&SimulatedRegister| {
            let first = u32::from(register.address);
            register.table == table && (first..first + u32::from(register.kind.width())).contains(&address)
        };
        let register = self.registers.iter().find(holds)?;
        let raw = register.scaling.undo(register.signal.at(now_us));
        let words = value::encode(register.kind, register.order, raw);
        words.get(usize::try_from(address - u32::from(register.address)).ok()?).copied()
    }
}

pub(super) async fn start_tcp(units: Vec<SimulatedUnit>, clock: Clock) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let devices = Devices { units: Arc::new(units), clock };
    let task = tokio::spawn(async move {
        let accept = |stream: TcpStream, peer: SocketAddr| {
            let devices = devices.clone();
            async move { tcp::accept_tcp_connection(stream, peer, |_| Ok(Some(devices.clone()))) }
        };
        let ended =
            tcp::Server::new(listener).serve(&accept, |error| debug!("simulated connection ended: {error}")).await;
        debug!("simulated server ended: {ended:?}");
    });
    Ok((address, task))
}

pub(super) fn start_rtu(units: Vec<SimulatedUnit>, clock: Clock) -> io::Result<(String, JoinHandle<()>)> {
    let Terminal { ours, theirs, port } = Terminal::open()?;
    let devices = Devices { units: Arc::new(units), clock };
    let task = tokio::spawn(async move {
        let ended = rtu::Server::new(ours).serve_forever(devices).await;
        debug!("simulated bus ended: {ended:?}");
        drop(theirs);
    });
    Ok((port, task))
}
