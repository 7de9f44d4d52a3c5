//! The check of devices, and of points on a Modbus bus.

use std::collections::HashMap;
use std::time::Duration;

use tjern_readings::configuration::{Period, nearest};
use tjern_readings::sensor::SensorId;
use toml::Spanned;

use super::checker::{Checker, refuse_keys};
use super::file::{DeviceFile, PointFile, ProfileFile};
use super::overlap::{self, Placed};
use super::profile::points_of;
use super::{ModbusDevice, ModbusPoint, PointCommon, PointTerms, ReadLimits, number, wire};
use crate::grid::Grid;
use crate::modbus::transport::Table;
use crate::value::{NoValue, NumberType, Scaling};

/// How many addresses a table has.
const ADDRESSES: i64 = 65_536;

const FORM: &str = "write table:address, like \"input:0\"; the tables are `coil`, `discrete`, `input`, `holding`";

pub(super) fn modbus_devices(
    checker: &mut Checker<'_>,
    files: &[DeviceFile],
    units: [i64; 2],
    gap: Duration,
) -> Option<Vec<ModbusDevice>> {
    let mut first_use = HashMap::new();
    let devices: Vec<_> = files
        .iter()
        .map(|file| {
            refuse_time(checker, file);
            let unit_id = unit_id(checker, file, units);
            let of_profile = file.profile.as_ref().and_then(|name| checker.profile(name));
            let base = base(checker, file.base.as_ref().or_else(|| of_profile?.base.as_ref()));
            let gap = wire::gap(checker, file.gap.as_ref().or_else(|| of_profile?.gap.as_ref()), gap);
            if let (Some(unit_id), Some(text)) = (unit_id, &file.unit_id)
                && let Some(first) = first_use.insert(unit_id, text.span())
            {
                let message = format!("unit id {unit_id} is used twice on this bus");
                let line = checker.line_of(&first);
                let hint = format!("line {line} uses it first: put the points under one device");
                checker.note_with(text.span(), message, hint, vec![(first, "first here".to_owned())]);
            }
            let mut placed = Vec::new();
            let points = points_of(checker, file, |checker, point| {
                let read = modbus_point(checker, point, base)?;
                placed.push(Placed::new(point, &read));
                Some(read)
            });
            overlap::check(checker, placed);
            let reads = read_limits(checker, file, of_profile);
            warn_of_wider_values(
                checker,
                file.max_registers.as_ref().or_else(|| of_profile?.max_registers.as_ref()),
                points.as_deref(),
            );
            Some(ModbusDevice { name: file.name.get_ref().clone(), unit_id: unit_id?, gap, reads, points: points? })
        })
        .collect();
    devices.into_iter().collect()
}

/// Only lines of text say what time it is.
fn refuse_time(checker: &mut Checker<'_>, file: &DeviceFile) {
    let why = "only a device of a text-lines bus has it";
    refuse_keys!(checker, file, why, [time_column, time_field, time_pattern, time_format, time_zone]);
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

fn read_limits(checker: &mut Checker<'_>, file: &DeviceFile, profile: Option<&ProfileFile>) -> ReadLimits {
    let mut limit = |number: Option<&Spanned<i64>>, [low, high]: [i64; 2], name: &str| {
        number.and_then(|number| {
            checker.whole(
                number,
                &[low, high],
                name,
                &format!("it is from {low} to {high}, as the specification has it"),
            )
        })
    };
    let default = ReadLimits::default();
    ReadLimits {
        max_registers: limit(
            file.max_registers.as_ref().or_else(|| profile?.max_registers.as_ref()),
            [1, 125],
            "max_registers",
        )
        .unwrap_or(default.max_registers),
        max_bits: limit(file.max_bits.as_ref().or_else(|| profile?.max_bits.as_ref()), [1, 2_000], "max_bits")
            .unwrap_or(default.max_bits),
        max_hole: limit(file.max_hole.as_ref().or_else(|| profile?.max_hole.as_ref()), [0, 123], "max_hole"),
    }
}

/// A value of several registers is read whole, or halves of two values would be taken for one: more than the device is said to
/// bear, which then says no, or nothing.
fn warn_of_wider_values(checker: &mut Checker<'_>, most: Option<&Spanned<i64>>, points: Option<&[ModbusPoint]>) {
    let (Some(most), Some(points)) = (most, points) else { return };
    let width = |point: &&ModbusPoint| if point.table.is_bits() { 0 } else { point.kind.width() };
    let Some(widest) = points.iter().max_by_key(width).filter(|widest| i64::from(width(widest)) > *most.get_ref())
    else {
        return;
    };
    let (registers, sensor) = (width(&widest), &widest.common.sensor);
    let message =
        format!("`{sensor}` has {registers} registers, and is read whole, in a request for more than `max_registers`");
    let hint = format!(
        "write `max_registers = {registers}` or more; a device that bears no more than {} cannot be asked for it",
        most.get_ref()
    );
    checker.warn(most.span(), message, hint, Vec::new());
}

fn base(checker: &mut Checker<'_>, base: Option<&Spanned<i64>>) -> i64 {
    base.and_then(|base| checker.whole(base, &[0, 1], "base", "it is 0, or 1 for manuals that count from one"))
        .unwrap_or(0)
}

/// The sensor, and the terms but for the numbers that stand for none: those depend on the kind of point.
pub(super) fn common(checker: &mut Checker<'_>, file: &PointFile) -> Option<(SensorId, PointTerms)> {
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
    let (grid, scaling) = (Grid::new(every?, phase?), Scaling::new(scale?, offset?));
    Some((sensor?, PointTerms { grid, scaling, no_value: NoValue::default(), unit }))
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
    refuse_keys!(checker, file, why, [sentence, field, column, separator, pattern, decimal]);
    let place = match &file.register {
        Some(register) => checker.read(register, read_register).map(|place| (register, place)),
        None => {
            checker.note(file.sensor.span(), "the point has no `register`", FORM);
            None
        }
    };
    let Some((register, (table, address))) = place else {
        number::check_words(checker, file);
        return None;
    };
    let kind = number::kind(checker, file, table)?;
    let (order, no_value) = (number::order(checker, file, kind), number::no_value(checker, file, kind));
    let address = wire_address(checker, register, (address, base), kind)?;
    let (no_value, (sensor, terms)) = (no_value?, common?);
    let common = PointCommon { sensor, terms: checker.shared(PointTerms { no_value, ..terms }) };
    Some(ModbusPoint { common, table, address, kind, order: order? })
}

fn read_register(text: &str) -> Result<(Table, i64), String> {
    let refused = || format!("`{text}` is no register; hint: {FORM}");
    let (table, address) = text.split_once(':').ok_or_else(refused)?;
    let Some((_, table)) = Table::ALL.iter().find(|(word, _)| *word == table) else {
        let words = Table::ALL.iter().map(|(word, _)| *word);
        return Err(match nearest(table, words) {
            Some(meant) => format!("`{text}` is no register; hint: did you mean `{meant}:{address}`?"),
            None => refused(),
        });
    };
    let digits = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit());
    let address = address.parse().ok().filter(|_| digits).ok_or_else(refused)?;
    Ok((*table, address))
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
