//! Decoding is held against an independent reading of the same bytes, scaling against the decimal
//! text that a person would write.

use super::*;
use proptest::prelude::*;

/// The registers that a device with this order shows for these big-endian bytes, spelled out letter
/// by letter and not by the rule that the decoder follows.
fn lay_out(order: &str, bytes: &[u8]) -> Vec<u16> {
    let places: &[usize] = match (order, bytes.len()) {
        ("abcd" | "cdab", 2) => &[0, 1],
        ("badc" | "dcba", 2) => &[1, 0],
        ("abcd", 4) => &[0, 1, 2, 3],
        ("cdab", 4) => &[2, 3, 0, 1],
        ("badc", 4) => &[1, 0, 3, 2],
        ("dcba", 4) => &[3, 2, 1, 0],
        ("abcd", 8) => &[0, 1, 2, 3, 4, 5, 6, 7],
        ("cdab", 8) => &[6, 7, 4, 5, 2, 3, 0, 1],
        ("badc", 8) => &[1, 0, 3, 2, 5, 4, 7, 6],
        ("dcba", 8) => &[7, 6, 5, 4, 3, 2, 1, 0],
        other => panic!("no such layout: {other:?}"),
    };
    let shown: Vec<u8> = places.iter().map(|place| bytes[*place]).collect();
    shown.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

fn decoded(kind: NumberType, order: &str, bytes: &[u8]) -> Result<f64, Cause> {
    decode(kind, order.parse().expect("an order"), &lay_out(order, bytes))
}

const ORDERS: [&str; 4] = ["abcd", "cdab", "badc", "dcba"];

proptest! {
    #[test]
    fn every_order_of_every_type_gives_the_number_that_went_in(
        order in prop::sample::select(&ORDERS),
        small: u16, middle: u32, double: f64, single: f32,
        large in -(1_i64 << 53)..=(1_i64 << 53),
    ) {
        prop_assert_eq!(decoded(NumberType::U16, order, &small.to_be_bytes()), Ok(f64::from(small)));
        prop_assert_eq!(decoded(NumberType::I16, order, &small.to_be_bytes()), Ok(f64::from(small.cast_signed())));
        prop_assert_eq!(decoded(NumberType::U32, order, &middle.to_be_bytes()), Ok(f64::from(middle)));
        prop_assert_eq!(decoded(NumberType::I32, order, &middle.to_be_bytes()), Ok(f64::from(middle.cast_signed())));
        #[expect(clippy::cast_precision_loss, reason = "within 2⁵³")]
        let exact = large as f64;
        prop_assert_eq!(decoded(NumberType::I64, order, &large.to_be_bytes()), Ok(exact));
        prop_assert_eq!(decoded(NumberType::U64, order, &large.abs().to_be_bytes()), Ok(exact.abs()));
        if single.is_finite() {
            prop_assert_eq!(decoded(NumberType::F32, order, &single.to_be_bytes()), Ok(f64::from(single)));
        }
        if double.is_finite() {
            prop_assert_eq!(decoded(NumberType::F64, order, &double.to_be_bytes()), Ok(double));
        }
    }

    #[test]
    fn what_a_simulated_device_encodes_is_decoded(
        (kind, order) in (prop::sample::select(&NumberType::ALL[1..]), prop::sample::select(Order::ALL)),
        raw in 0_u16..=i16::MAX.cast_unsigned(),
    ) {
        let registers = encode(kind.1, order.1, f64::from(raw));
        prop_assert_eq!(decode(kind.1, order.1, &registers), Ok(f64::from(raw)));
    }

    #[test]
    fn a_scaled_integer_is_the_decimal_number_that_a_person_expects(
        raw: i16, decimals in 0_u32..6, steps in 1_i64..400, offset_steps in -100_000_i64..100_000,
    ) {
        let text = |whole: i64| decimal_text(i128::from(whole), decimals);
        let scaling = Scaling::new(text(steps).parse().expect("a number"), text(offset_steps).parse().expect("a number"));
        let expected: f64 = text(i64::from(raw) * steps + offset_steps).parse().expect("a number");
        prop_assert_eq!(scaling.apply(f64::from(raw)), expected);
    }

    #[test]
    fn any_other_scaling_is_the_formula(raw: f32, scale in 0.1_f64..10.0, offset in -1e3_f64..1e3) {
        let (raw, scaling) = (f64::from(raw), Scaling::new(scale, offset));
        prop_assume!(raw.is_finite());
        let formula = raw * scale + offset;
        prop_assert!((scaling.apply(raw) - formula).abs() <= formula.abs() * 1e-12 + 1e-9);
    }

    #[test]
    fn no_registers_make_the_decoder_panic(registers: Vec<u16>) {
        for (_, kind) in NumberType::ALL {
            for (_, order) in Order::ALL {
                if let Ok(value) = decode(*kind, *order, &registers) {
                    prop_assert!(value.is_finite());
                }
            }
        }
    }
}

/// `whole` / 10^`decimals` as text, by moving the point and not by dividing.
fn decimal_text(whole: i128, decimals: u32) -> String {
    let digits = format!("{:0>width$}", whole.unsigned_abs(), width = decimals as usize + 1);
    let (front, back) = digits.split_at(digits.len() - decimals as usize);
    format!("{}{front}.{back}0", if whole < 0 { "-" } else { "" })
}

#[test]
fn a_tenth_of_125_is_twelve_and_a_half() {
    assert_eq!(Scaling::new(0.1, 0.0).apply(125.0).to_string(), "12.5");
    assert_eq!(Scaling::new(0.1, 0.0).apply(3.0).to_string(), "0.3");
    assert_eq!(Scaling::new(0.01, -273.15).apply(29_315.0).to_string(), "20");
    assert_eq!(Scaling::default().apply(0.1), 0.1);
}

#[test]
fn what_is_no_number_says_why() {
    let nan = f32::NAN.to_be_bytes();
    assert_eq!(decoded(NumberType::F32, "cdab", &nan), Err(Cause::NotANumber));
    assert_eq!(decoded(NumberType::F64, "abcd", &f64::INFINITY.to_be_bytes()), Err(Cause::NotANumber));
    assert_eq!(decoded(NumberType::U64, "abcd", &u64::MAX.to_be_bytes()), Err(Cause::Precision));
    assert_eq!(decode(NumberType::U32, Order::Abcd, &[1]), Err(Cause::Malformed));
}

#[test]
fn words_are_a_closed_list() {
    assert!("float".parse::<NumberType>().is_err());
    let error = "abdc".parse::<Order>().expect_err("no order").to_string();
    assert!(error.contains("`cdab`"), "{error}");
}
