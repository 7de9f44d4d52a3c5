//! The check of devices and points.

use std::collections::HashMap;
use std::time::Duration;

use regex::Regex;
use tjern_readings::configuration::Period;
use toml::Spanned;

use super::check::Checker;
use super::file::{DeviceFile, PointFile};
use super::{LineField, LinePoint, ModbusDevice, ModbusPoint, PointCommon, wire};
use crate::grid::Grid;
use crate::modbus::transport::Table;
use crate::value::{NumberType, Order, Scaling};

/// How many addresses a table has.
const ADDRESSES: i64 = 65_536;

const FORM: &str = "write table:address, like \"input:0\"; the tables are `coil`, `discrete`, `input`, `holding`";

pub(super) fn modbus_devices(
    checker: &mut Checker<'_>,
    files: &[DeviceFile],
    units: [i64; 2],
    gap: Duration,
) -> Option<Vec<ModbusDevice>> {
    let mut first_line = HashMap::new();
    let devices: Vec<_> = files
        .iter()
        .map(|file| {
            let unit_id = unit_id(checker, file, units);
            let base = base(checker, file);
            let gap = wire::gap(checker, file.gap.as_ref(), gap);
            if let (Some(unit_id), Some(text)) = (unit_id, &file.unit_id) {
                let line = checker.line_of(&text.span());
                if let Some(first) = first_line.insert(unit_id, line) {
                    let message = format!("unit id {unit_id} is used twice on this bus");
                    checker.note(
                        text.span(),
                        message,
                        format!("line {first} uses it first: put the points under one device"),
                    );
                }
            }
            let points: Vec<_> = file.point.iter().map(|point| modbus_point(checker, point, base)).collect();
            let points = points.into_iter().collect::<Option<Vec<_>>>();
            Some(ModbusDevice { name: file.name.get_ref().clone(), unit_id: unit_id?, gap, points: points? })
        })
        .collect();
    devices.into_iter().collect()
}

fn unit_id(checker: &mut Checker<'_>, file: &DeviceFile, [low, high]: [i64; 2]) -> Option<u8> {
    let Some(number) = &file.unit_id else {
        checker.note(
            file.name.span(),
            "the device has no `unit_id`",
            "write `unit_id = 1`, or what the device's manual says",
        );
        return None;
    };
    checker.whole(number, &[low, high], "unit_id", &format!("on this kind of bus it is from {low} to {high}"))
}

fn base(checker: &mut Checker<'_>, file: &DeviceFile) -> i64 {
    let base = file.base.as_ref();
    base.and_then(|base| checker.whole(base, &[0, 1], "base", "it is 0, or 1 for manuals that count from one"))
        .unwrap_or(0)
}

fn common(checker: &mut Checker<'_>, file: &PointFile) -> Option<PointCommon> {
    let sensor = checker.sensor(&file.sensor);
    let every: Option<Period> = checker.parse(&file.every);
    let phase = match &file.phase {
        Some(text) => checker.duration(text),
        None => Some(Duration::ZERO),
    };
    if let (Some(every), Some(phase), Some(text)) = (every, phase, &file.phase)
        && phase >= every.duration()
    {
        checker.note(
            text.span(),
            format!("`phase` is not shorter than `every` ({})", file.every.get_ref()),
            "it moves the slots within a period",
        );
    }
    let scale = number(checker, file.scale.as_ref(), "scale", 1.0);
    let offset = number(checker, file.offset.as_ref(), "offset", 0.0);
    if let (Some(text), Some(0.0)) = (&file.scale, scale) {
        checker.note(
            text.span(),
            "`scale` is zero: every value would be the offset",
            "leave it out, or write what the manual says",
        );
    }
    if let Some(text) = file.unit.as_ref().filter(|text| text.get_ref().trim().is_empty()) {
        checker.note(text.span(), "`unit` is empty", "leave it out, or write it in UCUM, like \"Cel\"; \"1\" is none");
    }
    let unit = file.unit.as_ref().map(|unit| unit.get_ref().clone());
    Some(PointCommon { sensor: sensor?, grid: Grid::new(every?, phase?), scaling: Scaling::new(scale?, offset?), unit })
}

fn number(checker: &mut Checker<'_>, text: Option<&Spanned<f64>>, name: &str, default: f64) -> Option<f64> {
    let Some(text) = text else { return Some(default) };
    if text.get_ref().is_finite() {
        return Some(*text.get_ref());
    }
    checker.note(text.span(), format!("`{name}` is no finite number"), "");
    None
}

fn modbus_point(checker: &mut Checker<'_>, file: &PointFile, base: i64) -> Option<ModbusPoint> {
    let common = common(checker, file);
    let why = "only a point of a text-lines bus has it";
    checker.refuse(file.sentence.as_ref(), "sentence", why);
    checker.refuse(file.field.as_ref(), "field", why);
    checker.refuse(file.column.as_ref(), "column", why);
    checker.refuse(file.separator.as_ref(), "separator", why);
    checker.refuse(file.pattern.as_ref(), "pattern", why);
    let kind: Option<NumberType> = match &file.kind {
        Some(word) => checker.parse(word),
        None => {
            checker.note(
                file.sensor.span(),
                "the point has no `type`",
                "write how the number lies in the registers, like `type = \"f32\"`",
            );
            None
        }
    };
    let order = match &file.order {
        Some(word) => checker.parse(word),
        None => Some(Order::default()),
    };
    let Some(register) = &file.register else {
        checker.note(file.sensor.span(), "the point has no `register`", FORM);
        return None;
    };
    let (table, address) = checker.read(register, read_register)?;
    let kind = kind?;
    check_kind(checker, file, table, kind);
    let address = wire_address(checker, register, (address, base), kind)?;
    Some(ModbusPoint { common: common?, table, address, kind, order: order? })
}

fn read_register(text: &str) -> Result<(Table, i64), String> {
    let refused = || format!("`{text}` is no register; hint: {FORM}");
    let (table, address) = text.split_once(':').ok_or_else(refused)?;
    let table = Table::ALL.iter().find(|(word, _)| *word == table).ok_or_else(refused)?.1;
    let digits = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit());
    let address = address.parse().ok().filter(|_| digits).ok_or_else(refused)?;
    Ok((table, address))
}

fn check_kind(checker: &mut Checker<'_>, file: &PointFile, table: Table, kind: NumberType) {
    let span = file.kind.as_ref().unwrap_or(&file.sensor).span();
    match (table.is_bits(), kind == NumberType::Bool) {
        (true, false) => checker.note(span, "a coil or discrete input is a single bit", "write `type = \"bool\"`"),
        (false, true) => checker.note(
            span,
            "a register is no single bit",
            "write a numeric type, like `type = \"u16\"`, or read a `coil` or `discrete`",
        ),
        _ => {}
    }
    if kind == NumberType::Bool {
        checker.refuse(file.order.as_ref(), "order", "a bit has no order");
    }
}

fn wire_address(
    checker: &mut Checker<'_>,
    register: &Spanned<String>,
    (address, base): (i64, i64),
    kind: NumberType,
) -> Option<u16> {
    let wire = address - base;
    if wire < 0 {
        checker.note(
            register.span(),
            "a device with `base = 1` has no register 0",
            "count from one, or write `base = 0`",
        );
        return None;
    }
    if wire + i64::from(kind.width()) > ADDRESSES {
        let message = format!("`{}` ends past the last register", register.get_ref());
        checker.note(
            register.span(),
            message,
            format!("the last address is {}, and the type takes {}", ADDRESSES - 1 + base, kind.width()),
        );
        return None;
    }
    u16::try_from(wire).ok()
}

pub(super) fn line_points(checker: &mut Checker<'_>, files: &[DeviceFile]) -> Option<Vec<LinePoint>> {
    let mut points = Vec::new();
    for device in files {
        let why = "a text-lines bus has no units";
        checker.refuse(device.unit_id.as_ref(), "unit_id", why);
        checker.refuse(device.base.as_ref(), "base", why);
        points.extend(device.point.iter().map(|point| line_point(checker, point)));
    }
    points.into_iter().collect()
}

fn line_point(checker: &mut Checker<'_>, file: &PointFile) -> Option<LinePoint> {
    let common = common(checker, file);
    let why = "only a point of a Modbus bus has it";
    checker.refuse(file.register.as_ref(), "register", why);
    checker.refuse(file.kind.as_ref(), "type", why);
    checker.refuse(file.order.as_ref(), "order", why);
    let ways = [
        file.sentence.as_ref().map(Spanned::span),
        file.column.as_ref().map(Spanned::span),
        file.pattern.as_ref().map(Spanned::span),
    ];
    if ways.iter().flatten().count() != 1 {
        let span = ways.iter().flatten().nth(1).cloned().unwrap_or(file.sensor.span());
        checker.note(span, "a point says in one way where its number stands", "write `sentence = \"MTW\", field = 1`, or `column = 3, separator = \";\"`, or `pattern = \"T=(?<value>[-0-9.]+)\"`");
        return None;
    }
    if file.sentence.is_none() {
        checker.refuse(file.field.as_ref(), "field", "it counts the fields of a `sentence`");
    }
    if file.column.is_none() {
        checker.refuse(file.separator.as_ref(), "separator", "it stands between columns");
    }
    let field = line_field(checker, file);
    Some(LinePoint { common: common?, field: field? })
}

fn line_field(checker: &mut Checker<'_>, file: &PointFile) -> Option<LineField> {
    if let Some(pattern) = &file.pattern {
        return checker.read(pattern, read_pattern).map(LineField::Pattern);
    }
    if let Some(column) = &file.column {
        let separator = file.separator.as_ref().map_or(";", |separator| separator.get_ref());
        if let (true, Some(text)) = (separator.is_empty(), &file.separator) {
            checker.note(text.span(), "`separator` is empty", "write what stands between columns, like \";\"");
        }
        let column = checker.whole(column, &[1, 1_000], "column", "columns count from 1")?;
        return Some(LineField::Column { column, separator: separator.to_owned() });
    }
    let sentence = file.sentence.as_ref()?;
    let word = sentence.get_ref();
    if !(3..=12).contains(&word.len()) || !word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
        checker.note(
            sentence.span(),
            format!("`{word}` is no NMEA sentence"),
            "write its three letters, like \"MTW\", or the whole address, like \"YXMTW\"",
        );
    }
    let Some(field) = &file.field else {
        checker.note(
            sentence.span(),
            "the point has no `field`",
            "write which field of the sentence it is, from 1 after the address",
        );
        return None;
    };
    let field = checker.whole(field, &[1, 100], "field", "fields count from 1")?;
    Some(LineField::Nmea { sentence: word.clone(), field })
}

fn read_pattern(text: &str) -> Result<Regex, String> {
    let regex = Regex::new(text).map_err(|error| {
        let shown = error.to_string();
        let reason = shown.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        format!("`{text}` is no pattern: {}", reason.trim().trim_start_matches("error: "))
    })?;
    if regex.capture_names().flatten().any(|name| name == "value") {
        return Ok(regex);
    }
    Err(format!("`{text}` has no group named `value`; hint: mark the number, like \"T=(?<value>[-0-9.]+)\""))
}
