//! `read`: one read of one device, shown in every type and byte order side by side.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::target::{Addresses, Ending, LineArguments, word};
use super::tell_or_fail;
use crate::modbus::transport::{Answer, ReadRequest};
use crate::value::{self, NumberType, Order};

/// What `read` is told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tjern-gateway read --config landfall-01.toml --bus pumphouse --unit-id 1 input:0 --count 4\n  \
    tjern-gateway read --port /dev/ttyUSB0 --baud 9600 --parity even --unit-id 1 holding:100 --count 2\n  \
    tjern-gateway read --tcp 10.0.3.7:502 --unit-id 1 input:0 --format json\n\n\
    Addresses count from zero. It only reads. A port that a running gateway has open cannot be opened twice,\n\
    nor can a line behind `--rtu-tcp`, where the gateway runs on this machine: stop it first. One on another machine,\n\
    or in a container, is not noticed, and values may be those that it asked for.\n\
    Exit status: 0, 1 where no value came, 2 for wrong usage or a wrong configuration."
)]
pub struct ReadArguments {
    #[command(flatten)]
    line: LineArguments,
    /// The device's address on the line
    #[arg(long, value_name = "ID")]
    unit_id: u8,
    /// The table and the first address, like `input:0`
    #[arg(value_name = "REGISTER")]
    register: Addresses,
    /// How many registers or bits
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    count: u16,
    /// How they are shown
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

/// Reads once.
pub(super) async fn execute(arguments: ReadArguments) -> ExitCode {
    match Box::pin(read(&arguments)).await {
        Ok(text) => tell_or_fail(&text).err().unwrap_or(ExitCode::SUCCESS),
        Err(ending) => ending.tell(),
    }
}

async fn read(arguments: &ReadArguments) -> Result<String, Ending> {
    let Addresses { table, first, last } = arguments.register;
    // A range says how many by itself.
    let count = if last > first { (last - first).saturating_add(1) } else { arguments.count };
    let request = ReadRequest::new(table, first, count).ok_or_else(|| {
        let hint = format!("from 1 to {}, and not past address 65535", table.count_max());
        Ending::wrong(format!("a read cannot have {count} of `{}` at {first}", word(table)), hint)
    })?;
    let target = arguments.line.target()?;
    let mut master = target.master()?;
    let asked = Instant::now();
    let result = master.read(arguments.unit_id, request).await;
    let took = asked.elapsed();
    let place = format!("{}:{first}", word(table));
    let answer = result.map_err(|failure| target.ending_of_read(arguments.unit_id, &place, &failure))?;
    Ok(render(arguments.format, arguments.unit_id, request, &answer, took))
}

/// A number in one place, one type, one order.
struct Cell {
    address: u16,
    kind: &'static str,
    order: &'static str,
    shown: String,
    is_number: bool,
}

/// The orders that only numbers of four registers have.
fn orders_of_four() -> impl Iterator<Item = &'static (&'static str, Order)> {
    let is_new = |(_, order): &&(&str, Order)| !Order::ALL.iter().any(|(_, known)| known == order);
    Order::OF_FOUR_REGISTERS.iter().filter(is_new)
}

/// The orders that make a difference for a type: one register has two, by its bytes.
fn orders(kind: NumberType) -> impl Iterator<Item = &'static (&'static str, Order)> {
    let is_other = move |order: Order| kind.width() > 1 || matches!(order, Order::Abcd | Order::Badc);
    Order::ALL.iter().chain(orders_of_four()).filter(move |(_, order)| order.fits(kind) && is_other(*order))
}

fn cells(first: u16, registers: &[u16]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (index, address) in (0..registers.len()).zip(first..=u16::MAX) {
        for (kind_word, kind) in NumberType::ALL.iter().filter(|(_, kind)| *kind != NumberType::Bool) {
            let Some(own) = registers.get(index..index + usize::from(kind.width())) else { continue };
            for (order_word, order) in orders(*kind) {
                let value = value::decode(*kind, *order, own);
                cells.push(Cell {
                    address,
                    kind: kind_word,
                    order: order_word,
                    shown: value.map_or_else(|cause| cause.to_string(), |value| number(*kind, value)),
                    is_number: value.is_ok(),
                });
            }
        }
    }
    cells
}

/// As short as it can be read back; what came as 32 bits is not shown with the digits of 64.
#[expect(clippy::cast_possible_truncation, reason = "it came as an f32")]
fn number(kind: NumberType, value: f64) -> String {
    let is_far = value != 0.0 && !(1e-6..1e16).contains(&value.abs());
    match (kind, is_far) {
        (NumberType::F32, true) => format!("{:e}", value as f32),
        (NumberType::F32, false) => format!("{}", value as f32),
        (_, true) => format!("{value:e}"),
        (_, false) => format!("{value}"),
    }
}

fn render(format: Format, unit: u8, request: ReadRequest, answer: &Answer, took: Duration) -> String {
    match (format, answer) {
        (Format::Table, Answer::Registers(registers)) => {
            let head = head(unit, request, took);
            let (plain, numbers) = (plain_table(request, registers), number_table(request, registers, Order::ALL));
            let four: Vec<_> = orders_of_four().copied().collect();
            let of_four = number_table(request, registers, &four);
            let of_four = if of_four.is_empty() { of_four } else { format!("\n{of_four}") };
            format!("{head}\n{plain}\n{numbers}{of_four}")
        }
        (Format::Table, Answer::Bits(bits)) => {
            let mut text = head(unit, request, took);
            for (bit, address) in bits.iter().zip(request.address()..=u16::MAX) {
                let _ = writeln!(text, "{}:{address}  {}", word(request.table()), u8::from(*bit));
            }
            text
        }
        (Format::Csv, Answer::Registers(registers)) => {
            let mut text = String::from("table,address,type,order,value\n");
            for cell in cells(request.address(), registers) {
                let Cell { address, kind, order, shown, .. } = cell;
                let _ = writeln!(text, "{},{address},{kind},{order},{shown}", word(request.table()));
            }
            text
        }
        (Format::Csv, Answer::Bits(bits)) => {
            let mut text = String::from("table,address,type,order,value\n");
            for (bit, address) in bits.iter().zip(request.address()..=u16::MAX) {
                let _ = writeln!(text, "{},{address},bool,,{}", word(request.table()), u8::from(*bit));
            }
            text
        }
        (Format::Json, _) => json(unit, request, answer, took),
    }
}

fn head(unit: u8, request: ReadRequest, took: Duration) -> String {
    let what = if request.table().is_bits() { "bits" } else { "registers" };
    let (table, address, count) = (word(request.table()), request.address(), request.count());
    format!("unit {unit}, {table}:{address}, {count} {what}, {:.1} ms\n", took.as_secs_f64() * 1e3)
}

/// Each register by itself: hexadecimal, and its bits.
fn plain_table(request: ReadRequest, registers: &[u16]) -> String {
    let mut rows = vec![["address".into(), "hex".into(), "bits".into(), "text".into()].to_vec()];
    for (register, address) in registers.iter().zip(request.address()..=u16::MAX) {
        let bits = format!("{register:016b}");
        let text: String = register
            .to_be_bytes()
            .iter()
            .map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' })
            .collect();
        let bits = [&bits[..4], &bits[4..8], &bits[8..12], &bits[12..]].join(" ");
        rows.push(vec![format!("{}:{address}", word(request.table())), format!("{register:04x}"), bits, text]);
    }
    aligned(&rows)
}

/// Every type at every address that has one of these orders, the orders side by side. Empty where none has.
fn number_table(request: ReadRequest, registers: &[u16], orders: &[(&str, Order)]) -> String {
    let head = ["address", "type"].into_iter().chain(orders.iter().map(|(word, _)| *word));
    let mut rows = vec![head.map(String::from).collect::<Vec<_>>()];
    let has_place = |cell: &Cell| orders.iter().any(|(word, _)| *word == cell.order);
    for cell in cells(request.address(), registers).into_iter().filter(has_place) {
        let place = format!("{}:{}", word(request.table()), cell.address);
        let is_same = rows.last().is_some_and(|row| row[0] == place && row[1] == cell.kind);
        if !is_same {
            rows.push([vec![place, cell.kind.to_owned()], vec![String::new(); orders.len()]].concat());
        }
        let column = orders.iter().position(|(word, _)| *word == cell.order);
        if let (Some(row), Some(column)) = (rows.last_mut(), column) {
            row[column + 2] = cell.shown;
        }
    }
    if rows.len() == 1 { String::new() } else { aligned(&rows) }
}

/// Columns as wide as their widest text.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let texts = row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}"));
        format!("{}\n", texts.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn json(unit: u8, request: ReadRequest, answer: &Answer, took: Duration) -> String {
    let values: Vec<String> = match answer {
        Answer::Bits(bits) => bits
            .iter()
            .zip(request.address()..=u16::MAX)
            .map(|(bit, address)| format!("{{\"address\":{address},\"type\":\"bool\",\"value\":{bit}}}"))
            .collect(),
        Answer::Registers(registers) => cells(request.address(), registers)
            .into_iter()
            .map(|Cell { address, kind, order, shown, is_number }| {
                let value = if is_number { format!("\"value\":{shown}") } else { format!("\"cause\":\"{shown}\"") };
                format!("{{\"address\":{address},\"type\":\"{kind}\",\"order\":\"{order}\",{value}}}")
            })
            .collect(),
    };
    format!(
        "{{\"unit_id\":{unit},\"table\":\"{}\",\"address\":{},\"count\":{},\"took_ms\":{:.3},\"values\":[\n{}\n]}}\n",
        word(request.table()),
        request.address(),
        request.count(),
        took.as_secs_f64() * 1e3,
        values.join(",\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modbus::transport::Table;

    const TOOK: Duration = Duration::from_micros(12_340);

    fn shown(format: Format) -> String {
        let request = ReadRequest::new(Table::Input, 0, 4).expect("within");
        // 12.25 as f32, most significant first; then text, and what is no number.
        render(format, 7, request, &Answer::Registers(vec![0x4144, 0, 0x5470, 0x7fc0]), TOOK)
    }

    #[test]
    fn one_read_is_shown_in_every_type_and_order() {
        let text = shown(Format::Table);
        assert!(text.starts_with("unit 7, input:0, 4 registers, 12.3 ms\n"), "{text}");
        let row = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        assert_eq!(row("input:0  4144"), "input:0  4144  0100 0001 0100 0100  AD");
        assert!(row("input:0  f32").contains("12.25"), "{text}");
        let mut types = 0;
        for (kind, _) in NumberType::ALL.iter().filter(|(_, kind)| *kind != NumberType::Bool) {
            types += usize::from(text.lines().any(|line| line.split_whitespace().nth(1) == Some(kind)));
        }
        assert_eq!(types, NumberType::ALL.len() - 1, "{text}");
        assert!(text.lines().all(|line| line.len() < 140 && line.trim_end() == line), "{text}");
    }

    /// A meter whose energy lies with its halves exchanged was shown in no column, and its order not found.
    #[test]
    fn whatever_a_point_may_say_is_in_a_cell() {
        let registers = [0x4144, 0x1122, 0x5470, 0x7fc0];
        let cells = cells(0, &registers);
        for (kind_word, kind) in NumberType::ALL.iter().filter(|(_, kind)| *kind != NumberType::Bool) {
            for (order_word, order) in Order::OF_FOUR_REGISTERS.iter().filter(|(_, order)| order.fits(*kind)) {
                let own = &registers[..usize::from(kind.width())];
                let value = value::decode(*kind, *order, own);
                let expected = value.map_or_else(|cause| cause.to_string(), |value| number(*kind, value));
                let has = |cell: &&Cell| cell.address == 0 && cell.kind == *kind_word && cell.shown == expected;
                assert!(cells.iter().any(|cell| has(&cell)), "no {kind_word} {order_word}");
            }
        }
        let text = shown(Format::Table);
        for (word, _) in Order::ALL.iter().chain(&Order::OF_FOUR_REGISTERS[4..]) {
            assert!(text.split_whitespace().any(|shown| shown == *word), "{word}: {text}");
        }
    }

    #[test]
    fn machines_get_every_cell_as_well() {
        let (json, csv) = (shown(Format::Json), shown(Format::Csv));
        assert!(json.contains("{\"address\":0,\"type\":\"f32\",\"order\":\"abcd\",\"value\":12.25}"), "{json}");
        assert!(
            json.contains("{\"address\":2,\"type\":\"f32\",\"order\":\"cdab\",\"cause\":\"not_a_number\"}"),
            "{json}"
        );
        assert!(csv.contains("\ninput,0,f32,abcd,12.25\n"), "{csv}");
        assert_eq!(json.matches("\"address\"").count() - 1, csv.lines().count() - 1);
    }

    #[test]
    fn bits_are_bits() {
        let request = ReadRequest::new(Table::Coil, 65_534, 2).expect("within");
        let text = render(Format::Table, 1, request, &Answer::Bits(vec![true, false]), TOOK);
        assert_eq!(text, "unit 1, coil:65534, 2 bits, 12.3 ms\ncoil:65534  1\ncoil:65535  0\n");
    }
}
