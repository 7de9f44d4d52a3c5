//! Buses against devices that speak the real protocols, well and badly.

mod common;

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use common::{Buses, PATIENCE, config, device, point, register, simulator, soon, unit, word};
use tjern_gateway::bus::state::LineState;
use tjern_gateway::modbus::transport::Table;
use tjern_gateway::simulate::{Signal, SimulatedLine, Simulation};
use tjern_gateway::value::{NumberType, Order, Scaling};
use tjern_readings::clock::Clock;
use tjern_readings::reading::{Cause, Quality, Reading};
use tjern_testing::ports::KeptPort;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::{interval, timeout};
use tokio_modbus::client::Client;
use tokio_modbus::{Request, Response, Slave};

fn has_value(sensor: &'static str) -> impl Fn(&Reading) -> bool {
    move |reading| reading.sensor.as_str() == sensor && reading.value.is_some()
}

fn has_cause(sensor: &'static str, cause: Cause) -> impl Fn(&Reading) -> bool {
    move |reading| reading.sensor.as_str() == sensor && reading.cause == Some(cause)
}

#[tokio::test]
async fn values_come_over_tcp_as_the_device_holds_them() {
    let tenth = Scaling::new(0.1, 0.0);
    let (unit, _) = unit(
        3,
        vec![
            register(Table::Input, 0, NumberType::F32, Order::Cdab, Scaling::default(), 12.25),
            register(Table::Input, 2, NumberType::I16, Order::Abcd, tenth, -12.5),
            // A hole: a request across it is refused, and the points are read apart.
            register(Table::Input, 5, NumberType::I32, Order::Badc, Scaling::default(), -70_000.0),
            register(Table::Holding, 0, NumberType::F64, Order::Dcba, Scaling::default(), 1.1),
            register(Table::Coil, 7, NumberType::Bool, Order::Abcd, Scaling::default(), 1.0),
        ],
    );
    let simulator = simulator(Simulation::ModbusTcp(vec![unit])).await;
    let address = simulator.address().expect("TCP");
    let points = [
        point("tarn/a", "register = \"input:0\"\ntype = \"f32\"\norder = \"cdab\"\nevery = \"200ms\""),
        point("tarn/b", "register = \"input:2\"\ntype = \"i16\"\nscale = 0.1\nevery = \"200ms\""),
        point("tarn/c", "register = \"input:5\"\ntype = \"i32\"\norder = \"badc\"\nevery = \"200ms\""),
        point("tarn/d", "register = \"holding:0\"\ntype = \"f64\"\norder = \"dcba\"\nevery = \"200ms\""),
        point("tarn/e", "register = \"coil:7\"\ntype = \"bool\"\nevery = \"200ms\""),
    ];
    let bus = format!(
        "[[bus]]\nname = \"tcp\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\ntimeout = \"20s\"\n{}{}",
        device(3),
        points.concat()
    );
    let mut buses = Buses::start(&config(&bus));
    let mut missing =
        vec![("tarn/a", 12.25), ("tarn/b", -12.5), ("tarn/c", -70_000.0), ("tarn/d", 1.1), ("tarn/e", 1.0)];
    let start = Instant::now();
    while !missing.is_empty() {
        let reading = buses.next().await;
        assert_eq!(reading.cause, None, "{reading:?}");
        assert_eq!(reading.time_us % 200_000, 0, "a reading stands for its slot");
        missing.retain(|(sensor, value)| *sensor != reading.sensor.as_str() || reading.value != Some(*value));
        assert!(start.elapsed() < PATIENCE, "{missing:?}");
    }
    buses.end().await;
}

#[tokio::test]
async fn units_on_an_rtu_bus_are_told_apart_and_a_missing_one_costs_little() {
    let (one, _) = unit(1, vec![word(0, 11)]);
    let (two, _) = unit(2, vec![word(0, 22)]);
    let simulator = simulator(Simulation::ModbusRtu(vec![one, two])).await;
    let port = simulator.port().expect("a port");
    let body = "register = \"input:0\"\ntype = \"u16\"\nevery = \"200ms\"";
    let devices =
        [(1, "bus/one"), (9, "bus/missing"), (2, "bus/two")].map(|(id, sensor)| device(id) + &point(sensor, body));
    let bus = format!(
        "[[bus]]\nname = \"rtu\"\nkind = \"modbus-rtu\"\nport = \"{port}\"\ntimeout = \"60ms\"\n{}",
        devices.concat()
    );
    let mut buses = Buses::start(&config(&bus));
    let missing = buses.first("the missing unit", |reading| reading.sensor.as_str() == "bus/missing").await;
    assert_eq!((missing.cause, missing.quality), (Some(Cause::Timeout), Quality::Missing));
    for _ in 0..20 {
        let reading = buses.next().await;
        match reading.sensor.as_str() {
            "bus/one" => assert_eq!(reading.value, Some(11.0)),
            "bus/two" => assert_eq!(reading.value, Some(22.0)),
            _ => assert_eq!(reading.cause, Some(Cause::Timeout)),
        }
    }
    buses.end().await;
}

/// An RTU answer does not say what it answers: one that comes after its time once became the value
/// of the register that was asked for next.
#[tokio::test]
async fn a_late_answer_never_becomes_the_value_of_another_register() {
    let (unit, faults) = unit(1, vec![word(0, 11), word(100, 22)]);
    let simulator = simulator(Simulation::ModbusRtu(vec![unit])).await;
    let port = simulator.port().expect("a port");
    let body = |address| format!("register = \"input:{address}\"\ntype = \"u16\"\nevery = \"100ms\"");
    let points = point("bus/eleven", &body(0)) + &point("bus/twentytwo", &body(100));
    let bus = format!(
        "[[bus]]\nname = \"rtu\"\nkind = \"modbus-rtu\"\nport = \"{port}\"\ntimeout = \"50ms\"\ndown_report = \"10ms\"\n{}{points}",
        device(1)
    );
    let mut buses = Buses::start(&config(&bus));
    // Late by less than the timeout, by more than the pause after it, by several polls; then in time.
    for delay_ms in [0, 70, 0, 130, 0, 400, 0] {
        faults.set_delay(Duration::from_millis(delay_ms));
        let mut values = 0;
        let mut failures = 0;
        while values < 4 && failures < 8 {
            let reading = buses.next().await;
            match (reading.value, reading.sensor.as_str()) {
                (Some(value), "bus/eleven") => assert_eq!(value, 11.0, "with a delay of {delay_ms} ms"),
                (Some(value), _) => assert_eq!(value, 22.0, "with a delay of {delay_ms} ms"),
                (None, _) => {}
            }
            if reading.value.is_some() { values += 1 } else { failures += 1 }
        }
    }
    buses.first("a value in the end", has_value("bus/twentytwo")).await;
    buses.end().await;
}

/// As a reload begins a bus anew whose configuration changed, at its quickest. The thread of the bus that ended had the port for
/// a moment more: the one that began in its place found it locked, and lost its first slots.
#[tokio::test]
async fn a_bus_that_begins_anew_on_its_port_finds_it_free() {
    let (unit, _) = unit(1, vec![word(0, 11)]);
    let simulator = simulator(Simulation::ModbusRtu(vec![unit])).await;
    let port = simulator.port().expect("a port");
    let config = config(&format!(
        "[[bus]]\nname = \"rtu\"\nkind = \"modbus-rtu\"\nport = \"{port}\"\ntimeout = \"50ms\"\ndown_report = \"10ms\"\n{}{}",
        device(1),
        point("bus/level", "register = \"input:0\"\ntype = \"u16\"\nevery = \"10ms\"")
    ));
    for life in 1..=20 {
        let mut buses = Buses::start(&config);
        let first = buses.next().await;
        // On a machine that is busy the answer may be late: that is another matter.
        assert_ne!(first.cause, Some(Cause::Unreachable), "life {life}: {first:?}");
        buses.end().await;
    }
}

/// The same device against the library's bare client, which takes the late answer: were this test to
/// fail, the one above would prove nothing.
#[tokio::test]
async fn the_bare_client_falls_into_the_trap() {
    let (unit, faults) = unit(1, vec![word(0, 11), word(100, 22)]);
    let simulator = simulator(Simulation::ModbusRtu(vec![unit])).await;
    let settings = tokio_serial::new(simulator.port().expect("a port"), 19_200);
    let port = tokio_serial::SerialStream::open(&settings).expect("the port opens");
    let mut client = tokio_modbus::client::rtu::attach_slave(port, Slave(1));
    faults.set_delay(Duration::from_millis(200));
    // On a machine that is busy an answer may be there before who waits for it gets to give up: then it was not late.
    soon("a late answer", async {
        while timeout(Duration::from_millis(50), client.call(Request::ReadInputRegisters(0, 1))).await.is_ok() {}
    })
    .await;
    let second = soon("the second answer", client.call(Request::ReadInputRegisters(100, 1))).await;
    assert_eq!(second.expect("an answer"), Ok(Response::ReadInputRegisters(vec![11])), "it is the first one's");
}

#[tokio::test]
async fn a_dead_device_delays_no_other_bus() {
    let (alive, _) = unit(1, vec![word(0, 7)]);
    let (dead, faults) = unit(1, vec![word(0, 8)]);
    faults.set_silent(true);
    let alive = simulator(Simulation::ModbusTcp(vec![alive])).await;
    let dead = simulator(Simulation::ModbusTcp(vec![dead])).await;
    let bus = |name: &str, address: std::net::SocketAddr| {
        let body = "register = \"input:0\"\ntype = \"u16\"\nevery = \"100ms\"";
        format!(
            "[[bus]]\nname = \"{name}\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\ntimeout = \"60s\"\n{}{}",
            device(1),
            point(&format!("{name}/value"), body)
        )
    };
    let text = bus("dead", dead.address().expect("TCP")) + &bus("alive", alive.address().expect("TCP"));
    let mut buses = Buses::start(&config(&text));
    let start = Instant::now();
    for _ in 0..10 {
        let reading = buses.next().await;
        assert_eq!((reading.sensor.as_str(), reading.value), ("alive/value", Some(7.0)));
    }
    assert!(start.elapsed() < Duration::from_secs(55), "ten slots of 100 ms took {:?}", start.elapsed());
}

/// The first device's first table once won every turn on a bus that is slower than its periods, and
/// the others were never read.
#[tokio::test]
async fn on_a_bus_that_is_too_slow_every_point_gets_its_share() {
    let holding = |value: u16| {
        let scaling = Scaling::default();
        register(Table::Holding, 0, NumberType::U16, Order::Abcd, scaling, f64::from(value))
    };
    let mut units = Vec::new();
    let mut devices = String::new();
    let mut missing = Vec::new();
    for id in 1..=3_u8 {
        let (unit, faults) = unit(id, vec![word(0, u16::from(id)), holding(u16::from(id) + 10)]);
        faults.set_delay(Duration::from_millis(30));
        units.push(unit);
        let points = [("input", 0.0), ("holding", 10.0)].map(|(table, more)| {
            let sensor = format!("slow/{table}-{id}");
            missing.push((sensor.clone(), f64::from(id) + more));
            point(&sensor, &format!("register = \"{table}:0\"\ntype = \"u16\"\nevery = \"10ms\""))
        });
        devices += &(device(id) + &points.concat());
    }
    let simulator = simulator(Simulation::ModbusTcp(units)).await;
    let address = simulator.address().expect("TCP");
    let bus = format!(
        "[[bus]]\nname = \"slow\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\ntimeout = \"5s\"\n{devices}"
    );
    let mut buses = Buses::start(&config(&bus));
    let start = Instant::now();
    while !missing.is_empty() {
        let reading = buses.next().await;
        missing.retain(|(sensor, value)| sensor != reading.sensor.as_str() || reading.value != Some(*value));
        assert!(start.elapsed() < PATIENCE, "never read: {missing:?}");
    }
    buses.end().await;
}

#[tokio::test]
async fn a_port_that_is_missing_is_unreachable_until_it_is_plugged_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = folder.path().join("ttyUSB0");
    let body = "register = \"input:0\"\ntype = \"u16\"\nevery = \"200ms\"";
    let bus = format!(
        "[[bus]]\nname = \"rtu\"\nkind = \"modbus-rtu\"\nport = \"{}\"\n{}{}",
        port.display(),
        device(1),
        point("bus/one", body)
    );
    let mut buses = Buses::start(&config(&bus));
    let reading = buses.first("a row that says so", |_| true).await;
    assert_eq!((reading.cause, reading.value), (Some(Cause::Unreachable), None));
    let (unit, _) = unit(1, vec![word(0, 11)]);
    let simulator = simulator(Simulation::ModbusRtu(vec![unit])).await;
    symlink(simulator.port().expect("a port"), &port).expect("a link");
    buses.first("a value", has_value("bus/one")).await;
    buses.end().await;
}

#[tokio::test]
async fn an_exception_is_a_cause_of_its_own_and_passes() {
    let (unit, faults) = unit(1, vec![word(0, 5)]);
    let simulator = simulator(Simulation::ModbusTcp(vec![unit])).await;
    faults.set_exception(6);
    let body = "register = \"input:0\"\ntype = \"u16\"\nevery = \"100ms\"";
    let address = simulator.address().expect("TCP");
    let bus = format!(
        "[[bus]]\nname = \"tcp\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{}{}",
        device(1),
        point("tcp/one", body)
    );
    let mut buses = Buses::start(&config(&bus));
    buses.first("the exception", has_cause("tcp/one", Cause::Exception6)).await;
    faults.set_exception(0);
    buses.first("a value", has_value("tcp/one")).await;
    buses.end().await;
}

#[tokio::test]
async fn text_lines_are_read_as_sentences_columns_and_patterns() {
    let lines = vec![
        SimulatedLine::Nmea { address: "YXMTW".into(), rest: "C".into(), signal: Signal::constant(12.3) },
        SimulatedLine::Columns { separator: ";".into(), signals: vec![Signal::constant(4.5), Signal::constant(-6.0)] },
    ];
    let simulator = simulator(Simulation::TextLines { every: Duration::from_millis(50), lines }).await;
    let points = [
        point("mast/sentence", "sentence = \"MTW\"\nfield = 1\nevery = \"200ms\""),
        point("mast/pattern", "pattern = '^[0-9]+;[-0-9.]+;(?<value>[-0-9.]+)$'\nevery = \"200ms\""),
        point("mast/absent", "sentence = \"MWV\"\nfield = 1\nevery = \"200ms\""),
    ];
    let port = simulator.port().expect("a port");
    let bus = format!(
        "[[bus]]\nname = \"mast\"\nkind = \"text-lines\"\nport = \"{port}\"\ntimeout = \"100ms\"\n[[bus.device]]\nname = \"logger\"\n{}",
        points.concat()
    );
    let mut buses = Buses::start(&config(&bus));
    let sentence = buses.first("a sentence", has_value("mast/sentence")).await;
    assert_eq!(sentence.value, Some(12.3));
    let pattern = buses.first("a pattern", has_value("mast/pattern")).await;
    assert_eq!(pattern.value, Some(-6.0));
    buses.first("what never comes", has_cause("mast/absent", Cause::Timeout)).await;
    buses.end().await;
}

#[tokio::test]
async fn a_device_that_wants_to_be_asked_is_asked_at_each_slot() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("the gateway connects");
        let mut stream = BufReader::new(stream);
        let (mut asked, mut question) = (0, String::new());
        while stream.read_line(&mut question).await.is_ok_and(|count| count > 0) {
            assert_eq!(std::mem::take(&mut question), "MEAS?\n");
            asked += 1;
            let answer = if asked % 2 == 0 { "ERROR\r\n".to_owned() } else { format!("T={asked}.5\r\n") };
            stream.write_all(answer.as_bytes()).await.expect("the gateway listens");
        }
    });
    let body = "pattern = '^T=(?<value>[-0-9.]+)$'\nevery = \"300ms\"";
    let bus = format!(
        "[[bus]]\nname = \"asked\"\nkind = \"text-lines\"\naddress = \"{address}\"\npoll = \"MEAS?\\n\"\ntimeout = \"100ms\"\n[[bus.device]]\nname = \"logger\"\n{}",
        point("mast/asked", body)
    );
    let mut buses = Buses::start(&config(&bus));
    let (mut values, mut timeouts) = (Vec::new(), 0);
    while values.len() < 3 {
        let reading = buses.next().await;
        values.extend(reading.value);
        timeouts += i32::from(reading.cause == Some(Cause::Timeout));
    }
    assert!(values.iter().all(|value| value.fract() == 0.5), "{values:?}");
    assert!(values.windows(2).all(|pair| pair[1] >= pair[0] + 2.0), "an answer serves one slot: {values:?}");
    assert!(timeouts >= 2, "a line that does not match is no answer");
    buses.end().await;
}

/// A server that was not up at the start, and then hung up on everybody: days later it was still told that it refused connections.
#[tokio::test]
async fn the_newest_reason_is_the_one_that_is_shown() {
    let port = KeptPort::take();
    let bus = format!(
        "[[bus]]\nname = \"away\"\nkind = \"modbus-tcp\"\naddress = \"{}\"\n{}{}",
        port.address(),
        device(1),
        point("away/level", "register = \"input:0\"\ntype = \"u16\"\nevery = \"100ms\"")
    );
    let buses = Buses::start(&config(&bus));
    let mut looks = interval(Duration::from_millis(10));
    let states = buses.states().clone();
    let mut reason = async |what: &str, is: fn(&str) -> bool| {
        soon(what, async {
            loop {
                looks.tick().await;
                let line = states.snapshot().into_iter().find_map(|bus| bus.line);
                if let Some(LineState::Missing(why)) = line
                    && is(&why)
                {
                    return;
                }
            }
        })
        .await;
    };
    reason("nobody is there", |why| why.contains("refused")).await;
    let listener = TcpListener::bind(port.address()).await.expect("it is ours");
    let hanging_up = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    reason("somebody is there, and hangs up", |why| why.contains("reset") || why.contains("closed")).await;
    hanging_up.abort();
    buses.end().await;
}

/// The last line before a cable was pulled once stood for the slot after it.
#[tokio::test]
async fn what_was_heard_before_the_line_was_lost_stands_for_no_later_slot() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let body = "pattern = '^T=(?<value>[-0-9.]+)$'\nevery = \"1s\"";
    let bus = format!(
        "[[bus]]\nname = \"lost\"\nkind = \"text-lines\"\naddress = \"{address}\"\ntimeout = \"100ms\"\n[[bus.device]]\nname = \"logger\"\n{}",
        point("lost/value", body)
    );
    let mut buses = Buses::start(&config(&bus));
    let (mut stream, _) = soon("a connection", listener.accept()).await.expect("the gateway connects");
    // Not at the end of a slot: the line is heard in the one that it is sent in.
    let mut looks = interval(Duration::from_millis(10));
    while Clock::system().now_us() % 1_000_000 > 500_000 {
        looks.tick().await;
    }
    let sent_us = Clock::system().now_us();
    stream.write_all(b"T=5\r\n").await.expect("the gateway listens");
    drop((stream, listener));
    let reading = buses.first("the next slot", |reading| reading.time_us > sent_us).await;
    assert_eq!((reading.cause, reading.value), (Some(Cause::Unreachable), None));
    buses.end().await;
}
