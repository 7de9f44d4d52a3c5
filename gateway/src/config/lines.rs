//! The check of what only a text-lines bus has.

use std::ops::Range;
use std::time::Duration;

use jiff::tz::TimeZone;
use regex::Regex;
use toml::Spanned;

use super::checker::{Checker, refuse_keys};
use super::device::common;
use super::file::{BusFile, DeviceFile, PointFile};
use super::profile::points_of;
use super::{LineField, LinePlace, LinePoint, PointCommon, PointTerms, number};
use crate::lines::pauses::line_pause;
use crate::lines::time::{DeviceTime, TimeFormat, TimePlace, read_zone};
use crate::lines::{DecimalMark, Framing, LINE_MAX};
use crate::value::find_word;

/// The longest line that a bus may say.
const MAX_LINE_MAX: i64 = 65_536;

pub(super) fn framing(checker: &mut Checker<'_>, file: &BusFile) -> Option<Framing> {
    let range = [1, MAX_LINE_MAX];
    let hint = format!("it is a number of bytes, from 1 to {MAX_LINE_MAX}");
    if let Some(length) = &file.length {
        let why = "a line of a fixed `length` has none";
        refuse_keys!(checker, file, why, [terminator, max_line]);
        return checker.whole(length, &range, "length", &hint).map(Framing::Length);
    }
    let text = file.terminator.as_ref().map_or("\n", |text| text.get_ref()).to_owned();
    if let (true, Some(place)) = (text.is_empty(), &file.terminator) {
        checker.note(place.span(), "`terminator` is empty", "write what ends a line, like \"\\r\\n\"");
        return None;
    }
    let max = match &file.max_line {
        Some(number) => checker.whole(number, &range, "max_line", &hint)?,
        None => LINE_MAX,
    };
    Some(Framing::Terminator { text, max })
}

/// Warns of lines of a fixed length that come too close to each other: a device that is not asked parts them by silence
/// only, and how often it talks nobody says but `every`.
pub(super) fn warn_of_length_without_pause(
    checker: &mut Checker<'_>,
    file: &BusFile,
    (place, timeout): (&LinePlace, Duration),
    (framing, points): (&Framing, &[LinePoint]),
) {
    let (Framing::Length(bytes), Some(length), None) = (framing, &file.length, &file.poll) else { return };
    let bytes = u64::try_from(*bytes).unwrap_or(u64::MAX);
    let on_the_wire = match place {
        LinePlace::Serial(serial) => Duration::from_micros(serial.line().chars_us(bytes)),
        LinePlace::Tcp(_) => Duration::ZERO,
    };
    let needed = on_the_wire + line_pause(place, timeout);
    let every_us = points.iter().map(|point| point.common.terms.grid.every_us().unsigned_abs()).min();
    if let Some(every) = every_us.map(Duration::from_micros).filter(|every| *every < needed) {
        let message = format!(
            "lines of a fixed length are told apart by silence: one and its pause need {} ms, and a point is read every {} ms",
            needed.as_millis(),
            every.as_millis()
        );
        let hint = "where the device talks as often, write what ends its lines (`terminator`), or ask for them (`poll`); after a lost byte there are no values until it pauses";
        checker.warn(length.span(), message, hint, Vec::new());
    }
}

/// What a device says about the time in its lines.
struct TimeKeys {
    span: Range<usize>,
    place: PlaceKey,
    format: TimeFormat,
    zone: TimeZone,
}

enum PlaceKey {
    Field(usize),
    Column(usize),
    Pattern(Regex),
}

fn device_time(checker: &mut Checker<'_>, file: &DeviceFile) -> Option<TimeKeys> {
    let ways = [
        file.time_column.as_ref().map(Spanned::span),
        file.time_field.as_ref().map(Spanned::span),
        file.time_pattern.as_ref().map(Spanned::span),
    ];
    let mut ways = ways.into_iter().flatten();
    let (Some(span), second) = (ways.next(), ways.next()) else {
        let why = "the device has no `time_column`, `time_field` or `time_pattern`";
        refuse_keys!(checker, file, why, [time_format, time_zone]);
        return None;
    };
    if let Some(second) = second {
        checker.note(second, "a device says in one way where its time stands", "keep one of them");
        return None;
    }
    let place = if let Some(column) = &file.time_column {
        PlaceKey::Column(checker.whole(column, &[1, 1_000], "time_column", "columns count from 1")?)
    } else if let Some(field) = &file.time_field {
        PlaceKey::Field(checker.whole(field, &[1, 100], "time_field", "fields count from 1")?)
    } else {
        PlaceKey::Pattern(checker.read(file.time_pattern.as_ref()?, |text| pattern_with(text, "time"))?)
    };
    let Some(format) = &file.time_format else {
        checker.note(
            span,
            "the device has no `time_format`",
            "write how it writes times, like `time_format = \"%Y-%m-%d %H:%M:%S\"`, or `rfc3339`, `unix`, `unix_ms`",
        );
        return None;
    };
    let format = checker.read(format, TimeFormat::new)?;
    let zone = match &file.time_zone {
        Some(text) => checker.read(text, read_zone)?,
        None => TimeZone::UTC,
    };
    Some(TimeKeys { span, place, format, zone })
}

impl TimeKeys {
    /// The time of a point's lines: a column is counted as the point counts its own.
    fn of_point(&self, checker: &mut Checker<'_>, file: &PointFile, field: &LineField) -> Option<DeviceTime> {
        let place = match (&self.place, field) {
            (PlaceKey::Pattern(regex), _) => TimePlace::Pattern(regex.clone()),
            (PlaceKey::Field(field), LineField::Nmea { .. }) => TimePlace::Field(*field),
            (PlaceKey::Column(column), LineField::Column { separator, .. }) => {
                TimePlace::Column { column: *column, separator: separator.clone() }
            }
            (PlaceKey::Field(_), _) => return self.fits_not(checker, file, "time_field", "sentence"),
            (PlaceKey::Column(_), _) => return self.fits_not(checker, file, "time_column", "column"),
        };
        Some(DeviceTime { place, format: self.format.clone(), zone: self.zone.clone() })
    }

    fn fits_not(&self, checker: &mut Checker<'_>, file: &PointFile, time: &str, point: &str) -> Option<DeviceTime> {
        let message = format!("the device's `{time}` fits points with a `{point}` only");
        let line = checker.line_of(&file.sensor.span());
        let hint = format!(
            "the point on line {line} has none: write `time_pattern`, or put the point under a device of its own"
        );
        checker.note(self.span.clone(), message, hint);
        None
    }
}

pub(super) fn line_points(checker: &mut Checker<'_>, files: &[DeviceFile]) -> Option<Vec<LinePoint>> {
    let mut all = Some(Vec::new());
    for device in files {
        let why = "a text-lines bus has no units";
        refuse_keys!(checker, device, why, [unit_id, base, max_registers, max_bits, max_hole]);
        let time = device_time(checker, device);
        let points = points_of(checker, device, |checker, point| line_point(checker, (device, point), time.as_ref()));
        all = all.zip(points).map(|(all, points)| [all, points].concat());
    }
    all
}

fn line_point(
    checker: &mut Checker<'_>,
    (device, file): (&DeviceFile, &PointFile),
    time: Option<&TimeKeys>,
) -> Option<LinePoint> {
    let common = common(checker, file);
    let why = "only a point of a Modbus bus has it";
    refuse_keys!(checker, file, why, [register, order, bit, half]);
    checker.refuse(file.kind.as_ref(), "type", why);
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
    if file.sentence.is_some() {
        checker.refuse(
            file.decimal.as_ref(),
            "decimal",
            "a sentence's numbers have a point, and its commas part its fields",
        );
    }
    let field = line_field(checker, file);
    let decimal = file.decimal.as_ref().map(|word| decimal_mark(checker, word));
    let time = match (time, &field) {
        (Some(keys), Some(field)) => Some(keys.of_point(checker, file, field)?),
        _ => None,
    };
    let (sensor, terms) = common?;
    let terms = PointTerms { no_value: number::no_value_of_text(file), ..terms };
    let common = PointCommon { sensor, terms: checker.shared(terms) };
    let decimal = match decimal {
        Some(read) => Some(read?),
        None => None,
    };
    Some(LinePoint { device: device.name.get_ref().clone(), common, field: field?, decimal, time })
}

fn decimal_mark(checker: &mut Checker<'_>, word: &Spanned<String>) -> Option<DecimalMark> {
    checker.read(word, |word| find_word(word, "decimal mark", DecimalMark::ALL))
}

fn line_field(checker: &mut Checker<'_>, file: &PointFile) -> Option<LineField> {
    if let Some(pattern) = &file.pattern {
        return checker.read(pattern, |text| pattern_with(text, "value")).map(LineField::Pattern);
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

/// A pattern with a group of this name.
fn pattern_with(text: &str, group: &str) -> Result<Regex, String> {
    let regex = Regex::new(text).map_err(|error| {
        let shown = error.to_string();
        let reason = shown.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        format!("`{text}` is no pattern: {}", reason.trim().trim_start_matches("error: "))
    })?;
    if regex.capture_names().flatten().any(|name| name == group) {
        return Ok(regex);
    }
    let example = if group == "value" { "T=(?<value>[-0-9.]+)" } else { "^(?<time>[-0-9]+ [:0-9]+);" };
    Err(format!("`{text}` has no group named `{group}`; hint: mark what you mean, like \"{example}\""))
}
