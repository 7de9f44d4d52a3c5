//! The check of how a number lies in registers: type, bit, half, order, the number for "none".

use toml::Spanned;

use super::checker::Checker;
use super::file::PointFile;
use crate::modbus::transport::Table;
use crate::value::{NoValue, NumberType, Order, WrittenNumbers, find_word};

pub(super) fn kind(checker: &mut Checker<'_>, file: &PointFile, table: Table) -> Option<NumberType> {
    let Some(word) = &file.kind else {
        checker.note(
            file.sensor.span(),
            "the point has no `type`",
            "write how the number lies in the registers, like `type = \"f32\"`",
        );
        return None;
    };
    let kind: NumberType = checker.parse(word)?;
    if table.is_bits() && kind != NumberType::Bool {
        checker.note(word.span(), "a coil or discrete input is a single bit", "write `type = \"bool\"`");
        return None;
    }
    let kind = half(checker, file, kind)?;
    if kind != NumberType::Bool {
        checker.refuse(file.bit.as_ref(), "bit", "only `type = \"bool\"` is a single bit");
        return Some(kind);
    }
    let Some(bit) = &file.bit else {
        if !table.is_bits() {
            checker.note(
                word.span(),
                "a register is no single bit",
                "say which of its bits it is, like `bit = 0` for the least significant, or write a numeric type",
            );
            return None;
        }
        return Some(kind);
    };
    if table.is_bits() {
        checker.refuse(Some(bit), "bit", "a coil or discrete input is a single bit as it is");
        return None;
    }
    let hint = "a register has the bits 0 (the least significant) to 15";
    checker.whole(bit, &[0, 15], "bit", hint).map(NumberType::Bit)
}

/// What can be said of a number that lies nobody knows where.
pub(super) fn check_words(checker: &mut Checker<'_>, file: &PointFile) {
    if let Some(word) = &file.kind {
        checker.parse::<NumberType>(word);
    }
    if let Some(word) = &file.order {
        checker.parse::<Order>(word);
    }
}

fn half(checker: &mut Checker<'_>, file: &PointFile, kind: NumberType) -> Option<NumberType> {
    let Some(word) = &file.half else { return Some(kind) };
    let Some(high) = kind.high() else {
        checker.refuse(Some(word), "half", "only `u8` and `i8` are half of a register");
        return None;
    };
    checker.read(word, |word| find_word(word, "half", &[("low", kind), ("high", high)]))
}

pub(super) fn order(checker: &mut Checker<'_>, file: &PointFile, kind: NumberType) -> Option<Order> {
    let Some(word) = &file.order else { return Some(Order::default()) };
    if matches!(kind, NumberType::Bool | NumberType::Bit(_)) {
        checker.refuse(Some(word), "order", "a bit has no order");
        return None;
    }
    let order: Order = checker.parse(word)?;
    let is_of_four = word.get_ref().len() == 8;
    if !order.fits(kind) || is_of_four && kind.width() != 4 {
        checker.note(
            word.span(),
            format!("the order `{}` is one of four registers", word.get_ref()),
            "this type takes fewer: it is one of `abcd`, `cdab`, `badc`, `dcba`",
        );
        return None;
    }
    Some(order)
}

pub(super) fn no_value(checker: &mut Checker<'_>, file: &PointFile, kind: NumberType) -> Option<NoValue> {
    let Some(written) = &file.not_available else { return Some(NoValue::default()) };
    if matches!(kind, NumberType::Bool | NumberType::Bit(_)) {
        checker.refuse(Some(written), "not_available", "a bit is 0 or 1");
        return None;
    }
    let WrittenNumbers(numbers) = written.get_ref();
    let read = NoValue::of_registers(kind, numbers);
    if let Err(error) = &read {
        let hint = format!("it is the raw number, before `scale`, of {} bits", kind.bits());
        checker.note(written.span(), error.to_string(), hint);
    }
    read.ok()
}

pub(super) fn no_value_of_text(file: &PointFile) -> NoValue {
    let written = file.not_available.as_ref().map(Spanned::get_ref);
    written.map_or_else(NoValue::default, |WrittenNumbers(numbers)| NoValue::of_text(numbers))
}
