//! What a technician gets wrong, and what the gateway says to it.

mod uploaded;

use super::check::BUSES_MAX;
use super::*;

const GOOD: &str = r#"
version = 1
gateway = "landfall-01"
lake = "file:///var/lib/tjern/lake"

[spool]
dir = "/var/lib/tjern/spool"

[[bus]]
name = "pumphouse"
kind = "modbus-tcp"
address = "10.0.3.7:502"

[[bus.device]]
name = "logger"
unit_id = 1

[[bus.device.point]]
sensor = "landfalltjern/water_temperature"
register = "input:0"
type = "f32"
every = "1h"

[[bus]]
name = "mast"
kind = "text-lines"
port = "/dev/ttyUSB0"

[[bus.device]]
name = "weather"

[[bus.device.point]]
sensor = "mast/air_temperature"
sentence = "MTA"
field = 1
every = "10min"
phase = "1min"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(&ConfigText::new("gateway.toml", text))
}

/// Replaces a line of the good configuration, and says what is then wrong with it: what stands at
/// the place that is named, the message, the hint.
fn problems(from: &str, to: &str) -> Vec<(String, String, String)> {
    assert!(GOOD.contains(from), "{from}");
    problems_of(&GOOD.replacen(from, to, 1))
}

fn problems_of(text: &str) -> Vec<(String, String, String)> {
    let place = |problem: &tjern_readings::configuration::Problem| {
        let line = text.lines().nth(problem.line - 1).expect("the line is there");
        line.chars().skip(problem.column - 1).collect()
    };
    match parse(text) {
        Err(ConfigError::Wrong(problems)) => problems
            .into_iter()
            .map(|problem| (place(&problem), problem.message, problem.hint.unwrap_or_default()))
            .collect(),
        other => panic!("it was taken: {other:?}"),
    }
}

#[track_caller]
fn refused(from: &str, to: &str, place: &str, message: &str) {
    let problems = problems(from, to);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].0, place, "{problems:?}");
    assert!(problems[0].1.contains(message), "no {message:?} in {problems:?}");
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = parse(GOOD).expect("good");
    assert_eq!(config.spool().max_bytes, 1 << 30);
    assert_eq!(config.spool().sync_every, Period::from_seconds(5));
    assert_eq!(config.upload_every(), Period::from_seconds(60));
    assert_eq!(config.clock(), ClockConfig { patience: Duration::from_secs(86_400), trusted: false });
    let [tcp, text] = config.buses() else { panic!("two buses") };
    assert_eq!((tcp.timeout, tcp.down_report), (Duration::from_millis(500), Period::from_seconds(300)));
    let BusKind::ModbusTcp { devices, .. } = &tcp.kind else { panic!("{tcp:?}") };
    let point = &devices[0].points[0];
    assert_eq!(
        (point.order, point.common.terms.scaling, &point.common.terms.unit),
        (Order::Abcd, Scaling::new(1.0, 0.0), &None)
    );
    let BusKind::TextLines { place: LinePlace::Serial(serial), poll, framing, .. } = &text.kind else {
        panic!("{text:?}")
    };
    assert_eq!((serial.baud, serial.data_bits, serial.parity, serial.stop_bits), (4_800, 8, Parity::None, 1));
    assert_eq!((poll, framing), (&None, &Framing::Terminator { text: "\n".to_owned(), max: 4_096 }));
    assert_eq!(
        config.sensors().map(SensorId::as_str).collect::<Vec<_>>(),
        ["landfalltjern/water_temperature", "mast/air_temperature"]
    );
    assert_eq!(config.sha256().len(), 64);
}

#[test]
fn modbus_rtu_is_set_as_its_specification_has_it() {
    let text =
        GOOD.replace("modbus-tcp", "modbus-rtu").replace("address = \"10.0.3.7:502\"", "port = \"/dev/ttyUSB1\"");
    let config = parse(&text).expect("good");
    let BusKind::ModbusRtu { serial, .. } = &config.buses()[0].kind else { panic!("{config:?}") };
    assert_eq!((serial.baud, serial.data_bits, serial.parity, serial.stop_bits), (19_200, 8, Parity::Even, 1));
}

#[test]
fn a_device_that_counts_from_one_is_read_where_its_manual_says() {
    let config =
        parse(&GOOD.replace("unit_id = 1", "unit_id = 1\nbase = 1").replace("input:0", "input:1")).expect("good");
    let BusKind::ModbusTcp { devices, .. } = &config.buses()[0].kind else { panic!("{config:?}") };
    assert_eq!(devices[0].points[0].address, 0);
}

#[test]
fn an_error_shows_place_text_and_what_would_be_right() {
    let Err(error) = parse(&GOOD.replace("input:0", "inputs:0")) else { panic!("taken") };
    let expected = "\
error: `inputs:0` is no register
  --> gateway.toml:20:12
   |
20 | register = \"inputs:0\"
   |            ^^^^^^^^^^
   |
   = hint: did you mean `input:0`?";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = GOOD
        .replace("version = 1", "version = 2")
        .replace("landfall-01", "Landfall 01")
        .replace("10.0.3.7:502", "10.0.3.7")
        .replace("\"f32\"", "\"float\"")
        .replace("\"10min\"", "\"10 minutes\"");
    let places: Vec<String> = problems_of(&text).into_iter().map(|problem| problem.0).collect();
    assert_eq!(places, ["2", "\"Landfall 01\"", "\"10.0.3.7\"", "\"float\"", "\"10 minutes\""]);
}

#[test]
fn names_are_taken_once() {
    let twice = "\"landfalltjern/water_temperature\"";
    refused("\"mast/air_temperature\"", twice, twice, "named twice");
    refused("name = \"mast\"", "name = \"pumphouse\"", "\"pumphouse\"", "bus `pumphouse` is named twice");
    let other = |name: &str, unit_id: u8, sensor: &str| {
        format!(
            "[[bus.device]]\nname = \"{name}\"\nunit_id = {unit_id}\n[[bus.device.point]]\nsensor = \"x/{sensor}\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1h\"\n"
        )
    };
    let twins = other("other", 1, "a") + &other("logger", 2, "b") + "[[bus]]\nname = \"mast\"";
    let messages: Vec<String> =
        problems("[[bus]]\nname = \"mast\"", &twins).into_iter().map(|problem| problem.1).collect();
    assert_eq!(messages, ["unit id 1 is used twice on this bus", "device `logger` is named twice on this bus"]);
}

#[test]
fn what_cannot_be_is_refused() {
    let every = |more: &str| format!("every = \"1h\"\n{more}");
    let port = |more: &str| format!("port = \"/dev/ttyUSB0\"\n{more}");
    for (from, to, place, message) in [
        ("mast/air_temperature", "_system/spool_age", "\"_system/spool_age\"", "the product's own"),
        ("input:0", "input:65535", "\"input:65535\"", "ends past the last register"),
        ("input:0", "input:+1", "\"input:+1\"", "is no register"),
        ("input:0", "imput:0", "\"imput:0\"", "is no register"),
        ("\"f32\"", "\"bool\"", "\"bool\"", "no single bit"),
        ("input:0", "coil:0", "\"f32\"", "single bit"),
        ("\"1min\"", "\"10min\"", "\"10min\"", "not shorter than"),
        ("every = \"1h\"", &every("scale = 0"), "0", "zero"),
        ("every = \"1h\"", &every("scale = nan"), "nan", "no finite number"),
        ("every = \"1h\"", &every("order = \"abdc\""), "\"abdc\"", "is no order"),
        ("\"1h\"", "\"0s\"", "\"0s\"", "no time at all"),
        ("unit_id = 1", "unit_id = 256", "256", "cannot be 256"),
        ("unit_id = 1", "unit_id = 1\nbase = 1", "\"input:0\"", "no register 0"),
        ("unit_id = 1", "", "\"logger\"", "no `unit_id`"),
        ("type = \"f32\"", "", "\"landfalltjern/water_temperature\"", "no `type`"),
        ("\"text-lines\"", "\"text-line\"", "\"text-line\"", "no kind of bus"),
        ("port = \"/dev/ttyUSB0\"", &port("parity = \"some\""), "\"some\"", "no parity"),
        ("port = \"/dev/ttyUSB0\"", "", "\"text-lines\"", "no `port`"),
        ("address = \"10.0.3.7:502\"", "address = \"10.0.3.7:502\"\nbaud = 9600", "9600", "no meaning here"),
        ("every = \"1h\"", &every("unit = \"\""), "\"\"", "`unit` is empty"),
        ("file:///var/lib/tjern/lake", "ftp://x/y", "\"ftp://x/y\"", "is no lake"),
    ] {
        refused(from, to, place, message);
    }
}

#[test]
fn two_buses_do_not_share_a_wire() {
    let rtu = "kind = \"modbus-rtu\"\nport = \"/dev/ttyUSB0\"";
    let tcp = "kind = \"modbus-tcp\"\naddress = \"10.0.3.7:502\"";
    refused(tcp, rtu, "\"/dev/ttyUSB0\"", "two buses have the port");
    // A server may answer several connections at once.
    assert!(parse(&GOOD.replace("port = \"/dev/ttyUSB0\"", "address = \"10.0.3.7:502\"")).is_ok());
}

/// Behind an address may lie a serial line: two masters there talk over each other, and take each other's answers.
#[test]
fn two_buses_do_not_ask_on_one_far_line() {
    let (tcp, port) = ("kind = \"modbus-tcp\"\naddress = \"10.0.3.7:502\"", "port = \"/dev/ttyUSB0\"");
    let rtu = tcp.replace("modbus-tcp", "modbus-rtu-tcp").replace("10.0.3.7", "Moxa-1");
    let asked = "address = \"moxa-1:502\"\npoll = \"?\"";
    let problems = problems_of(&GOOD.replace(tcp, &rtu).replace(port, asked));
    let [(place, message, hint)] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!((place.as_str(), message.as_str()), ("\"moxa-1:502\"", "two buses have the address `moxa-1:502`"));
    assert_eq!(hint, "line 12 has it first: put the devices under one bus");
    // One that only listens talks over nobody.
    assert!(parse(&GOOD.replace(tcp, &rtu).replace(port, "address = \"moxa-1:502\"")).is_ok());
}

#[test]
fn ports_are_as_many_as_there_may_be_threads() {
    let (head, _) = GOOD.split_once("[[bus]]").expect("a bus");
    let bus = |number: usize| {
        format!(
            "[[bus]]\nname = \"bus-{number}\"\nkind = \"modbus-rtu\"\nport = \"/dev/ttyUSB{number}\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n\
             [[bus.device.point]]\nsensor = \"a/b{number}\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1h\"\n"
        )
    };
    let text = |count: usize| format!("{head}{}", (0..count).map(bus).collect::<String>());
    assert!(parse(&text(PORTS_MAX)).is_ok());
    let problems = problems_of(&text(PORTS_MAX + 1));
    assert!(problems.len() == 1 && problems[0].1.contains("more than 32 modbus-rtu buses"), "{problems:?}");
}

#[test]
fn a_bus_or_device_with_nothing_on_it_is_refused() {
    let (head, rest) = GOOD.split_once("[[bus.device]]").expect("a device");
    let mast = &rest[rest.find("[[bus]]").expect("a second bus")..];
    let said = |text: &str| problems_of(text).into_iter().map(|problem| (problem.0, problem.1)).collect::<Vec<_>>();
    let expected = |place: &str, message: &str| vec![(place.to_owned(), message.to_owned())];
    assert_eq!(said(&format!("{head}{mast}")), expected("\"pumphouse\"", "the bus has no device"));
    let device = "[[bus.device]]\nname = \"logger\"\nunit_id = 1\n";
    assert_eq!(said(&format!("{head}{device}{mast}")), expected("\"logger\"", "the device has no point"));
    assert!(parse(&head[..head.find("[[bus]]").expect("a bus")]).is_ok(), "a gateway may wait for its first bus");
}

#[test]
fn names_can_be_printed_in_one_line_of_the_log() {
    for good in ["A\u{30a}ssiden", "Pumpehuset på Åssiden, 2. etg.", "x", "\\\"øst\\\"", &"å".repeat(64)] {
        assert!(parse(&GOOD.replace("pumphouse", good).replace("logger", good)).is_ok(), "{good}");
    }
    for bad in ["", " ", "two\\nlines", "\\u001b[31mred", "turned\\u202E", &"å".repeat(65)] {
        let quoted = format!("\"{bad}\"");
        refused("\"pumphouse\"", &quoted, &quoted, "is no name of a bus");
        refused("\"logger\"", &quoted, &quoted, "is no name of a device");
    }
}

#[test]
fn a_spool_has_room_for_something() {
    let with = |size: &str| format!("dir = \"/var/lib/tjern/spool\"\nmax_bytes = \"{size}\"");
    let dir = "dir = \"/var/lib/tjern/spool\"";
    refused(dir, &with("0B"), "\"0B\"", "no room for a spool");
    assert_eq!(parse(&GOOD.replace(dir, &with("1023KiB"))).expect("valid").spool().max_bytes, 1 << 20);
    assert!(parse(&GOOD.replace(dir, &with("1MiB"))).is_ok());
    assert_eq!(crate::spool::MAX_BYTES_LEAST, 1 << 20, "as docs/configuration.md says");
    let share = |share: &str| format!("{dir}\nmax_disk_share = {share}");
    for (share, no_share) in [(share("0.0"), "0.0"), (share("1.5"), "1.5"), (share("-1"), "-1")] {
        refused(dir, &share, no_share, "no share of a disk");
    }
    assert_eq!(
        parse(&GOOD.replace(dir, &share("1"))).expect("valid").spool().max_disk_share.to_bits(),
        1_f64.to_bits()
    );
    assert_eq!(parse(GOOD).expect("good").spool().max_disk_share.to_bits(), 0.5_f64.to_bits());
}

/// The unit's `TasksMax` was reached at the 60th serial line, and the bus that came last was never read.
#[test]
fn more_buses_than_there_are_threads_for_are_refused() {
    let bus = |number: usize| {
        format!(
            "[[bus]]\nname = \"b{number}\"\nkind = \"modbus-tcp\"\naddress = \"h:1\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n\
            [[bus.device.point]]\nsensor = \"s/q{number}\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1h\"\n"
        )
    };
    let text = |buses: usize| {
        let buses: String = (0..buses).map(bus).collect();
        format!("version = 1\ngateway = \"g\"\nlake = \"memory:///\"\n[spool]\ndir = \"s\"\n{buses}")
    };
    assert!(parse(&text(BUSES_MAX)).is_ok());
    let [(place, message, _)] = &problems_of(&text(BUSES_MAX + 1))[..] else { panic!("one problem") };
    assert!(place.starts_with(&format!("\"b{BUSES_MAX}\"")) && message.contains("257 buses"), "{place}: {message}");
}

#[test]
fn a_point_of_a_text_bus_says_in_one_way_where_its_number_stands() {
    let lines = "sentence = \"MTA\"\nfield = 1";
    for good in ["column = 3\nseparator = \";\"", "column = 1", "pattern = 'T=(?<value>[-0-9.]+)'"] {
        assert!(parse(&GOOD.replace(lines, good)).is_ok(), "{good}");
    }
    refused(lines, "pattern = 'T=([0-9]+)'", "'T=([0-9]+)'", "no group named `value`");
    refused(lines, "pattern = 'T=(?<value>[0-9]+'", "'T=(?<value>[0-9]+'", "is no pattern");
    refused(lines, "column = 0", "0", "cannot be 0");
    refused(lines, "sentence = \"MTA\"", "\"MTA\"", "no `field`");
    refused(lines, "sentence = \"MTA\"\nfield = 1\ncolumn = 2", "2", "in one way");
    refused(lines, "register = \"input:0\"\ncolumn = 2", "\"input:0\"", "no meaning here");
}

/// Nobody guesses what a comma is: it is said, or it is as it was before that could be said.
#[test]
fn a_point_may_say_which_mark_its_decimals_have() {
    let lines = "sentence = \"MTA\"\nfield = 1";
    let decimal = |text: &str| {
        let config = parse(&GOOD.replace(lines, text)).expect("good");
        let BusKind::TextLines { points, .. } = &config.buses()[1].kind else { panic!("{config:?}") };
        points[0].decimal
    };
    assert_eq!(decimal("column = 3"), None);
    assert_eq!(decimal("column = 3\ndecimal = \"point\""), Some(DecimalMark::Point));
    assert_eq!(decimal("pattern = 'T=(?<value>.*)'\ndecimal = \"comma\""), Some(DecimalMark::Comma));
    refused(lines, "column = 3\ndecimal = \"dot\"", "\"dot\"", "it is one of `point`, `comma`");
    refused(lines, &format!("{lines}\ndecimal = \"point\""), "\"point\"", "no meaning here");
    refused("type = \"f32\"", "type = \"f32\"\ndecimal = \"point\"", "\"point\"", "no meaning here");
}

#[test]
fn lines_end_in_one_way() {
    let port = |more: &str| format!("port = \"/dev/ttyUSB0\"\n{more}");
    let framing =
        |more: &str| match parse(&GOOD.replace("port = \"/dev/ttyUSB0\"", &port(more))).expect("good").buses[1].kind {
            BusKind::TextLines { ref framing, .. } => framing.clone(),
            ref other => panic!("{other:?}"),
        };
    assert_eq!(framing("length = 32"), Framing::Length(32));
    let until = |text: &str, max| Framing::Terminator { text: text.to_owned(), max };
    assert_eq!(framing("terminator = \"\\r\"\nmax_line = 200"), until("\r", 200));
    refused("port = \"/dev/ttyUSB0\"", &port("length = 0"), "0", "cannot be 0");
    refused("port = \"/dev/ttyUSB0\"", &port("length = 32\nmax_line = 64"), "64", "no meaning here");
    refused("port = \"/dev/ttyUSB0\"", &port("terminator = \"\""), "\"\"", "`terminator` is empty");
    refused("address = \"10.0.3.7:502\"", "address = \"10.0.3.7:502\"\nlength = 32", "32", "no meaning here");
}

/// Lines of a fixed length without a pause between them never fall into step again after a lost byte.
#[test]
fn lines_of_a_fixed_length_that_come_too_close_are_warned_of() {
    let warnings = |more: &str, every: &str| {
        let text = format!(
            "version = 1\ngateway = \"g\"\nlake = \"memory:///\"\n[spool]\ndir = \"/spool\"\n[[bus]]\nname = \"mast\"\n\
             kind = \"text-lines\"\n{more}\n[[bus.device]]\nname = \"logger\"\n[[bus.device.point]]\n\
             sensor = \"mast/value\"\ncolumn = 1\nevery = \"{every}\"\n"
        );
        parse(&text).expect("good").warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let serial = "port = \"/dev/ttyUSB0\"\nbaud = 1200\nlength = 14";
    let told = warnings(serial, "150ms");
    let [warning] = &told[..] else { panic!("{told:?}") };
    assert!(
        warning.contains("166 ms") && warning.contains("every 150 ms") && warning.contains("terminator"),
        "{warning}"
    );
    assert_eq!(warnings(serial, "200ms"), [""; 0]);
    assert_eq!(warnings(&format!("{serial}\npoll = \"?\""), "150ms"), [""; 0], "it is asked");
    assert_eq!(warnings("port = \"/dev/ttyUSB0\"\nbaud = 1200", "150ms"), [""; 0]);
    assert_eq!(warnings("address = \"logger:4001\"\nlength = 14", "59ms").len(), 1);
    assert_eq!(warnings("address = \"logger:4001\"\nlength = 14", "60ms"), [""; 0]);
}

#[test]
fn a_device_says_how_it_writes_the_time() {
    let weather = |more: &str| format!("name = \"weather\"\n{more}");
    let with = |more: &str| weather(&format!("time_field = 2\n{more}"));
    for good in ["time_format = \"unix\"", "time_format = \"%d.%m.%Y %H:%M\"\ntime_zone = \"Europe/Oslo\""] {
        let config = parse(&GOOD.replace("name = \"weather\"", &with(good))).expect(good);
        let BusKind::TextLines { points, .. } = &config.buses[1].kind else { panic!("{config:?}") };
        assert!(points[0].time.is_some(), "{good}");
    }
    let name = "name = \"weather\"";
    refused(name, &with(""), "2", "no `time_format`");
    refused(name, &with("time_format = \"%H:%M\""), "\"%H:%M\"", "does not say year");
    refused(name, &with("time_format = \"unix\"\ntime_zone = \"Oslo\""), "\"Oslo\"", "is no time zone");
    refused(name, &with("time_format = \"unix\"\ntime_column = 1"), "2", "in one way");
    refused(name, &weather("time_zone = \"UTC\""), "\"UTC\"", "no meaning here");
    refused(name, &weather("time_column = 1\ntime_format = \"unix\""), "1", "fits points with a `column` only");
    refused(name, &weather("time_pattern = 'x'\ntime_format = \"unix\""), "'x'", "no group named `time`");
    refused("unit_id = 1", "unit_id = 1\ntime_zone = \"UTC\"", "\"UTC\"", "no meaning here");
}

#[test]
fn a_clock_is_waited_for_as_long_as_was_said() {
    let clock =
        |more: &str| parse(&GOOD.replace("[spool]", &format!("[clock]\n{more}\n[spool]"))).expect("good").clock();
    assert_eq!(clock("patience = \"0s\""), ClockConfig { patience: Duration::ZERO, trusted: false });
    assert!(clock("trusted = true").trusted);
    refused("[spool]", "[clock]\npatience = \"a day\"\n[spool]", "\"a day\"", "a day");
}

#[test]
fn a_misspelt_key_is_found() {
    let problems = problems("unit_id", "unit_ids");
    assert_eq!(problems[0].0, "unit_ids = 1");
    assert!(problems[0].2.contains("did you mean `unit_id`?"), "{problems:?}");
}

#[test]
fn two_texts_have_two_hashes() {
    let hash = |text: &str| parse(text).expect("good").sha256();
    assert_ne!(hash(GOOD), hash(&GOOD.replace("1h", "2h")));
    assert_eq!(hash(GOOD), hash(GOOD));
}

const PROFILE: &str = "[[profile]]\nname = \"gauge\"\nbase = 1\n[[profile.point]]\nquantity = \"level\"\nregister = \"input:1\"\ntype = \"u16\"\nevery = \"1h\"\nnot_available = 0xFFFF\n";

/// Fifty meters were fifty copies of their points, and the eighth had a wrong address.
#[test]
fn fifty_equal_meters_are_fifty_short_tables() {
    let meters: String = (1..=50)
        .map(|unit| {
            format!(
                "[[bus.device]]\nname = \"m{unit}\"\nunit_id = {unit}\nprofile = \"gauge\"\nplace = \"hall/m-{unit}\"\n"
            )
        })
        .collect();
    let head = &GOOD[..GOOD.find("[[bus.device]]").expect("a device")];
    let own = "[[bus.device.point]]\nsensor = \"hall/door\"\nregister = \"coil:1\"\ntype = \"bool\"\nevery = \"1h\"\n";
    let config = parse(&format!("{head}{meters}{own}{PROFILE}")).expect("good");
    let BusKind::ModbusTcp { devices, .. } = &config.buses()[0].kind else { panic!("{config:?}") };
    assert_eq!((devices.len(), config.device_count(), config.sensors().count()), (50, 50, 51));
    let point = &devices[6].points[0];
    assert_eq!((point.common.sensor.as_str(), point.address), ("hall/m-7/level", 0), "the profile's base holds");
    assert_eq!(
        point.common.terms.no_value.decode(point.kind, point.order, &[0xFFFF]),
        Err(tjern_readings::reading::Cause::NotAvailable)
    );
    let last = &devices[49].points;
    assert_eq!(
        last.iter().map(|point| point.common.sensor.as_str()).collect::<Vec<_>>(),
        ["hall/door", "hall/m-50/level"]
    );
    assert_eq!(last[0].address, 0, "a device's own points count as its profile's do");
}

#[test]
fn a_profile_serves_text_lines_too() {
    let profile = "[[profile]]\nname = \"mast\"\n[[profile.point]]\nquantity = \"air_temperature\"\nsentence = \"MTA\"\nfield = 1\nevery = \"10min\"\nnot_available = -99.9\n";
    let device = "name = \"weather\"\nprofile = \"mast\"\nplace = \"roof\"\n";
    let text = GOOD.replace("name = \"weather\"\n", device);
    let config =
        parse(&format!("{}{profile}", &text[..text.rfind("[[bus.device.point]]").expect("a point")])).expect("good");
    let BusKind::TextLines { points, .. } = &config.buses()[1].kind else { panic!("{config:?}") };
    assert_eq!(points[0].common.sensor.as_str(), "roof/air_temperature");
    assert!(points[0].common.terms.no_value.sift(-99.9).is_err());
}

#[test]
fn what_is_odd_but_works_is_no_error() {
    let config = parse(&format!("{GOOD}{PROFILE}")).expect("good");
    let said: Vec<&str> = config.warnings().iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(said, ["no device uses this profile: its points are not checked"]);
    assert!(config.warnings()[0].to_string().starts_with("warning: "));
    assert!(parse(GOOD).expect("good").warnings().is_empty());
}

/// A device that bears one register a request was asked for four, at each poll, and nobody had said so.
#[test]
fn a_value_that_is_wider_than_a_request_is_told() {
    let warnings = |most: &str, kind: &str| {
        let text =
            GOOD.replace("unit_id = 1", &format!("unit_id = 1\n{most}")).replace("\"f32\"", &format!("\"{kind}\""));
        parse(&text).expect("good").warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let told = warnings("max_registers = 1", "u64");
    let [warning] = &told[..] else { panic!("{told:?}") };
    for part in ["`landfalltjern/water_temperature` has 4 registers", "max_registers = 1", "write `max_registers = 4`"]
    {
        assert!(warning.contains(part), "{warning}");
    }
    for (most, kind) in
        [("max_registers = 4", "u64"), ("max_registers = 1", "u16"), ("", "u64"), ("max_bits = 1", "u64")]
    {
        assert_eq!(warnings(most, kind), [""; 0], "{most} {kind}");
    }
}

proptest::proptest! {
    /// What is left after a hundred keystrokes gone wrong is told, and never a panic.
    #[test]
    fn no_file_makes_the_check_panic(changes in proptest::collection::vec((0_usize..80, 0_usize..9, 0_usize..80), 1..12)) {
        let device = "unit_id = 1\nprofile = \"gauge\"\nplace = \"tarn\"\n";
        let whole = format!("{}{PROFILE}", GOOD.replace("unit_id = 1\n", device));
        let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        for (place, change, other) in changes {
            let (place, other) = (place % lines.len(), other % lines.len());
            let value = |value: &str| format!("{}= {value}", lines[place].split('=').next().unwrap_or_default());
            lines[place] = match change {
                0 => String::new(),
                1 => lines[other].clone(),
                2 => format!("{}\n{}", lines[place], lines[other]),
                3 => lines[place].replacen('e', "", 1),
                4 => value("5"),
                5 => value("[]"),
                6 => value("\"\""),
                7 => value("\"æ/ø\""),
                _ => value("{ a = 1 }"),
            };
        }
        let text = lines.join("\n");
        if let Err(error) = parse(&text) {
            let ConfigError::Wrong(problems) = error else { panic!("it was read") };
            proptest::prop_assert!(problems.iter().any(|problem| problem.severity == Severity::Error), "{text}");
        }
    }
}

#[test]
fn a_wire_says_how_it_wants_to_be_treated() {
    let tcp = "kind = \"modbus-tcp\"\naddress = \"10.0.3.7:502\"";
    let rtu = "kind = \"modbus-rtu\"\nport = \"/dev/ttyUSB1\"";
    let of = |from: &str, to: &str| parse(&GOOD.replacen(from, to, 1)).expect("good").buses()[0].kind.clone();
    let more = "\ngap = \"20ms\"\necho = true\nrs485 = true\nrts_delay_before = \"1ms\"\nrts_delay_after = \"2ms\"";
    let BusKind::ModbusRtu { serial, echo, devices } = of(tcp, &format!("{rtu}{more}")) else { panic!("RTU") };
    let milliseconds = Duration::from_millis;
    let rs485 = Rs485 { rts_delay_before: milliseconds(1), rts_delay_after: milliseconds(2), ..Rs485::default() };
    assert_eq!((serial.rs485, echo, devices[0].gap), (Some(rs485), true, milliseconds(20)));
    assert_eq!(serial.line().bits_per_char, 11);
    let more = "\nrs485 = true\nrts = \"inverted\"\nrx_during_tx = true";
    let BusKind::ModbusRtu { serial, .. } = of(tcp, &format!("{rtu}{more}")) else { panic!("RTU") };
    assert!(serial.rs485.is_some_and(|rs485| rs485.rts_inverted && rs485.rx_during_tx), "{serial:?}");
    let far = format!("{}\nconnect_pause = \"500ms\"\nidle_close = \"3s\"", tcp.replace("-tcp", "-rtu-tcp"));
    let BusKind::ModbusRtuTcp { baud, connection, .. } = of(tcp, &far) else { panic!("RTU over TCP") };
    assert_eq!((baud, connection.pause, connection.idle_close), (9_600, milliseconds(500), Some(milliseconds(3_000))));
    let in_flight = |more: &str| match of(tcp, &format!("{tcp}{more}")) {
        BusKind::ModbusTcp { connection, .. } => connection.in_flight,
        other => panic!("{other:?}"),
    };
    assert_eq!((in_flight(""), in_flight("\nin_flight = 8")), (1, 8), "one, unless somebody knows better");
    let own = format!("{tcp}\ngap = \"20ms\"");
    let text = GOOD.replacen(tcp, &own, 1).replace("unit_id = 1", "unit_id = 1\ngap = \"0s\"");
    let config = parse(&text).expect("good");
    let BusKind::ModbusTcp { devices, .. } = &config.buses()[0].kind else { panic!("TCP") };
    assert_eq!(devices[0].gap, Duration::ZERO, "a device's own word counts");
    for (to, place, message) in [
        (format!("{tcp}\necho = true"), "true", "no meaning here"),
        (format!("{rtu}\nconnect_pause = \"1s\""), "\"1s\"", "no meaning here"),
        (format!("{rtu}\nin_flight = 2"), "2", "no meaning here"),
        (format!("{far}\nin_flight = 2"), "2", "no meaning here"),
        (format!("{tcp}\nin_flight = 17"), "17", "cannot be 17"),
        (format!("{rtu}\nrts_delay_before = \"1ms\""), "\"1ms\"", "no meaning here"),
        (format!("{rtu}\nrts = \"inverted\""), "\"inverted\"", "no meaning here"),
        (format!("{rtu}\nrs485 = true\nrts = \"inverse\""), "\"inverse\"", "no polarity"),
        (format!("{rtu}\ngap = \"11s\""), "\"11s\"", "longer than"),
        (far.replace("\"3s\"", "\"0s\""), "\"0s\"", "no time at all"),
        (format!("{far}\nparity = \"even\""), "\"even\"", "no meaning here"),
    ] {
        refused(tcp, &to, place, message);
    }
}
