//! A wrong scale or order, found after months: what comes out is what the right configuration would have
//! stored from the same registers, or it is left.

use super::*;
use proptest::prelude::*;

fn configuration(kind: &str, words: &str) -> String {
    format!(
        "version = 1\ngateway = \"landfall-01\"\nlake = \"file:///lake\"\n[spool]\ndir = \"/spool\"\n[[bus]]\nname = \"b\"\n\
         kind = \"modbus-tcp\"\naddress = \"localhost:502\"\n[[bus.device]]\nname = \"d\"\nunit_id = 1\n\
         [[bus.device.point]]\nsensor = \"tjern/t\"\nregister = \"input:0\"\ntype = \"{kind}\"\nevery = \"1h\"\n{words}\n"
    )
}

fn sensor() -> SensorId {
    "tjern/t".parse().expect("valid")
}

fn formula(kind: &str, words: &str, change: Change) -> Result<Formula, FormulaError> {
    change.formula(&configuration(kind, words), &sensor())
}

fn scale(scale: f64) -> Change {
    Change { scale: Some(scale), ..Change::default() }
}

fn order(order: Order) -> Change {
    Change { order: Some(order), ..Change::default() }
}

#[test]
fn a_wrong_scale_is_undone() {
    let formula = formula("i16", "scale = 0.1", scale(0.01)).expect("a formula");
    assert_eq!(formula.again(Ok(-12.5)), Ok(Again::Value(-1.25)));
    assert_eq!(formula.again(Err(Cause::Timeout)), Ok(Again::AsItIs));
    assert_eq!(formula.again(Ok(0.123)), Err(NotRecoverable::Raw), "it did not come from this configuration");
}

/// The transmitter's range was taken from another data sheet.
#[test]
fn a_wrong_offset_is_undone() {
    let offset = |offset: f64| Change { offset: Some(offset), ..Change::default() };
    let found = formula("i16", "scale = 0.1\noffset = -40.0", offset(0.0)).expect("a formula");
    assert_eq!(found.again(Ok(-27.5)), Ok(Again::Value(12.5)), "the scale stays");
    assert_eq!(found.again(Ok(-27.55)), Err(NotRecoverable::Raw));
    let found = formula("f32", "scale = 0.5", offset(-273.15)).expect("a formula");
    assert_eq!(found.again(Ok(150.0)), Ok(Again::Value(-123.15)), "there was none");
    let both = Change { scale: Some(0.01), ..offset(-5.0) };
    let found = formula("i16", "scale = 0.1\noffset = -40.0", both).expect("a formula");
    assert_eq!(found.again(Ok(-27.5)), Ok(Again::Value(-3.75)));
    // Beside such an offset many a raw number gives the same value.
    let found = formula("f32", "offset = 1e9", offset(0.0)).expect("a formula");
    assert_eq!(found.again(Ok(1e9)), Err(NotRecoverable::Raw));
}

#[test]
fn a_wrong_order_is_undone_where_the_words_are_known() {
    let water = encode(NumberType::F32, Order::Abcd, 18.5);
    let stored = decode(NumberType::F32, Order::Cdab, &water).expect("a number, though not the right one");
    let formula = formula("f32", "order = \"cdab\"", order(Order::Abcd)).expect("a formula");
    assert_eq!(formula.again(Ok(stored)), Ok(Again::Value(18.5)));
    assert_eq!(formula.again(Err(Cause::NotANumber)), Err(NotRecoverable::NoValue(Cause::NotANumber)));
    assert_eq!(formula.again(Err(Cause::Timeout)), Ok(Again::AsItIs));
}

/// A tenth of the smallest normal number has lost digits when it is stored: another number would come back.
#[test]
fn digits_that_were_lost_in_storing_are_not_made_up() {
    let raw = -9.718_449_699_522_234e-308;
    let stored = Scaling::new(0.1, 0.0).apply(raw);
    assert!(stored != 0.0 && !stored.is_normal(), "{stored:e}");
    for (kind, words) in [("f64", "scale = 0.1\norder = \"dcba\""), ("f64", "scale = 0.1")] {
        let formula = formula(kind, words, scale(1.0)).expect("a formula");
        assert_eq!(formula.again(Ok(stored)), Err(NotRecoverable::Raw));
        assert_eq!(formula.again(Ok(0.0)), Ok(Again::Value(0.0)));
    }
}

#[test]
fn what_is_not_stored_whole_has_no_formula() {
    let found = |kind, words, change| formula(kind, words, change).expect_err("no formula");
    assert_eq!(found("u8", "half = \"high\"", order(Order::Badc)), FormulaError::PartOfRegister);
    assert_eq!(found("i16", "", order(Order::Efghabcd)), FormulaError::Order);
    assert_eq!(
        scale(2.0).formula("version = 7", &sensor()).err().map(|error| error.to_string().is_empty()),
        Some(false)
    );
    let other = "tjern/other".parse().expect("valid");
    assert_eq!(scale(2.0).formula(&configuration("i16", ""), &other).err(), Some(FormulaError::NoPoint));
}

#[test]
fn no_value_is_known_in_the_right_order_too() {
    // 0x8000 in the right order is this device's "no value".
    let formula = formula("i16", "order = \"badc\"\nnot_available = -32768", order(Order::Abcd)).expect("a formula");
    assert_eq!(formula.again(Ok(128.0)), Ok(Again::Missing(Cause::NotAvailable)));
}

const KINDS: [(&str, NumberType); 8] = [
    ("i16", NumberType::I16),
    ("u16", NumberType::U16),
    ("i32", NumberType::I32),
    ("u32", NumberType::U32),
    ("f32", NumberType::F32),
    ("u48", NumberType::U48),
    ("bcd32", NumberType::Bcd32),
    ("f64", NumberType::F64),
];

/// Scale and offset: as they were, and as they should have been.
type Scales = ((f64, f64), (f64, f64));

const SCALES: [Scales; 11] = [
    ((1.0, 0.0), (1.0, 0.0)),
    ((0.1, 0.0), (1.0, 0.0)),
    ((1.0, 0.0), (0.1, 0.0)),
    ((0.1, 0.0), (0.01, 0.0)),
    ((10.0, 0.0), (0.5, 0.0)),
    ((0.1, -40.0), (0.1, 0.0)),
    ((1.0, 0.0), (1.0, -273.15)),
    ((0.01, -50.0), (0.1, -40.0)),
    ((1.0, 1e6), (1.0, 0.0)),
    ((0.125, 0.5), (0.125, -0.5)),
    ((-1.0, 100.0), (1.0, 0.0)),
];

proptest! {
    /// Whatever a device held, and however wrong the configuration was: the corrected value is the one
    /// that the right configuration reads from the same registers, or none is given.
    #[test]
    fn what_comes_out_is_what_the_right_configuration_reads(
        kind in prop::sample::select(KINDS.to_vec()),
        registers in prop::collection::vec(any::<u16>(), 4),
        wrong in prop::sample::select(Order::ALL.to_vec()),
        right in prop::sample::select(Order::ALL.to_vec()),
        ((scale_before, offset_before), (scale_after, offset_after)) in prop::sample::select(SCALES.to_vec()),
        reorder in any::<bool>(),
        names_all in any::<bool>(),
    ) {
        let (name, kind) = kind;
        let registers = &registers[..usize::from(kind.width())];
        let right = if reorder { right } else { wrong };
        let (before, after) =
            (Scaling::new(scale_before, offset_before), Scaling::new(scale_after, offset_after));
        let stored = decode(kind, wrong.1, registers).map(|raw| before.apply(raw));
        let wanted = decode(kind, right.1, registers).map(|raw| after.apply(raw));
        let words = format!("order = \"{}\"\nscale = {scale_before:?}\noffset = {offset_before:?}", wrong.0);
        // What is not named stays as it was.
        let named = |before: f64, after: f64| (names_all || before != after).then_some(after);
        let change = Change {
            scale: named(scale_before, scale_after),
            offset: named(offset_before, offset_after),
            order: Some(right.1),
        };
        let formula = formula(name, &words, change).expect("a formula");
        // A stored infinity does not exist: such a reading is missing.
        let stored = stored.and_then(|value| if value.is_finite() { Ok(value) } else { Err(Cause::NotANumber) });
        match formula.again(stored) {
            Ok(Again::Value(value)) => {
                let wanted = wanted.expect("it has a value");
                // The sign of zero is not kept. Of a float of 64 bits a neighbour may have given the value: those that give
                // one are as far apart as its last digit is worth, or the offset's, and each product is rounded by half of that. One
                // that the scale brought below the smallest normal number may have been stored as zero.
                let lost = stored.map_or(0.0, |stored| (stored.abs() + offset_before.abs()) * (scale_after / scale_before).abs());
                let lost = if offset_before == 0.0 { 0.0 } else { lost };
                let digits = wanted.abs().max(f64::MIN_POSITIVE) + offset_after.abs() + lost;
                let near = (value - wanted).abs() <= digits * 2.0 * f64::EPSILON
                    || stored == Ok(0.0) && wanted.abs() < f64::MIN_POSITIVE;
                prop_assert!(value == wanted || kind == NumberType::F64 && near, "{} for {}", value, wanted);
            }
            Ok(Again::Missing(_)) => prop_assert!(!matches!(wanted, Ok(value) if value.is_finite())),
            Ok(Again::AsItIs) => prop_assert!(stored.is_err()),
            Err(_) => {}
        }
    }
}
