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
        ("abcd", 6) => &[0, 1, 2, 3, 4, 5],
        ("cdab", 6) => &[4, 5, 2, 3, 0, 1],
        ("badc", 6) => &[1, 0, 3, 2, 5, 4],
        ("dcba", 6) => &[5, 4, 3, 2, 1, 0],
        (letters, 8) if letters.len() == 8 => {
            let shown: Vec<u8> = letters.bytes().map(|letter| bytes[usize::from(letter - b'a')]).collect();
            return shown.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        }
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
        let low_six = |number: i64| number.to_be_bytes()[2..].to_vec();
        let of_six = large >> 6;
        #[expect(clippy::cast_precision_loss, reason = "within 2⁴⁷")]
        let exact_of_six = of_six as f64;
        prop_assert_eq!(decoded(NumberType::I48, order, &low_six(of_six)), Ok(exact_of_six));
        prop_assert_eq!(decoded(NumberType::U48, order, &low_six(of_six.abs())), Ok(exact_of_six.abs()));
        if single.is_finite() {
            prop_assert_eq!(decoded(NumberType::F32, order, &single.to_be_bytes()), Ok(f64::from(single)));
        }
        if double.is_finite() {
            prop_assert_eq!(decoded(NumberType::F64, order, &double.to_be_bytes()), Ok(double));
        }
    }

    #[test]
    fn a_number_of_four_registers_is_found_in_each_of_their_orders(
        order in prop::sample::select(Order::OF_FOUR_REGISTERS), double: f64, large in -(1_i64 << 53)..=(1_i64 << 53),
    ) {
        prop_assume!(double.is_finite());
        prop_assert_eq!(decoded(NumberType::F64, order.0, &double.to_be_bytes()), Ok(double));
        #[expect(clippy::cast_precision_loss, reason = "within 2⁵³")]
        let exact = large as f64;
        prop_assert_eq!(decoded(NumberType::I64, order.0, &large.to_be_bytes()), Ok(exact));
    }

    #[test]
    fn every_order_is_its_own_inverse(four: [u16; 4], order in prop::sample::select(Order::OF_FOUR_REGISTERS)) {
        for width in [1, 2, 3, 4] {
            let mut registers = four[..width].to_vec();
            order.1.arrange(&mut registers);
            order.1.arrange(&mut registers);
            prop_assert_eq!(&registers, &four[..width]);
        }
    }

    #[test]
    fn decimal_digits_are_read_as_they_are_shown(number in 0_u64..=9_007_199_254_740_992) {
        for (kind, digits) in [(NumberType::Bcd16, 4), (NumberType::Bcd32, 8), (NumberType::Bcd64, 16)] {
            let shown = format!("{:0>16}", number)[16 - digits..].to_owned();
            let bytes = u64::from_str_radix(&shown, 16).expect("digits").to_be_bytes();
            let expected: f64 = shown.parse().expect("a number");
            prop_assert_eq!(decoded(kind, "abcd", &bytes[8 - digits / 2..]), Ok(expected));
        }
    }

    #[test]
    fn a_digit_over_nine_is_no_number(number in 0_u32..100_000_000, place in 0_u32..8, digit in 10_u32..16) {
        let shown = u32::from_str_radix(&number.to_string(), 16).expect("digits");
        let wrong = shown & !(0xF << (4 * place)) | digit << (4 * place);
        prop_assert_eq!(decoded(NumberType::Bcd32, "abcd", &wrong.to_be_bytes()), Err(Cause::NotANumber));
    }

    #[test]
    fn bits_and_bytes_of_a_register_are_its_own(register: u16) {
        let shown = format!("{register:016b}");
        for (bit, digit) in (0_u8..16).zip(shown.chars().rev()) {
            let expected = f64::from(digit.to_digit(2).expect("a bit"));
            prop_assert_eq!(decode(NumberType::Bit(bit), Order::Abcd, &[register]), Ok(expected));
        }
        let [high, low] = register.to_be_bytes();
        for (kind, expected) in [
            (NumberType::U8, f64::from(low)),
            (NumberType::I8, f64::from(low.cast_signed())),
            (NumberType::HighU8, f64::from(high)),
            (NumberType::HighI8, f64::from(high.cast_signed())),
        ] {
            prop_assert_eq!(decode(kind, Order::Abcd, &[register]), Ok(expected));
        }
    }

    #[test]
    fn the_number_that_stands_for_none_is_no_value_and_no_other_is(raw: i16, none: i16) {
        let no_value = NoValue::of_registers(NumberType::I16, &[WrittenNumber::Whole(none.into())]).expect("fits");
        let expected = if raw == none { Err(Cause::NotAvailable) } else { Ok(f64::from(raw)) };
        prop_assert_eq!(no_value.decode(NumberType::I16, Order::Abcd, &[raw.cast_unsigned()]), expected);
    }

    #[test]
    fn what_a_simulated_device_encodes_is_decoded(
        (kind, order) in (prop::sample::select(&NumberType::ALL[1..]), prop::sample::select(Order::OF_FOUR_REGISTERS)),
        raw in 0_u16..=i16::MAX.cast_unsigned(),
    ) {
        prop_assume!(order.1.fits(kind.1));
        let raw = if kind.1.bits() == 8 { raw % 128 } else if kind.1 == NumberType::Bcd16 { raw % 10_000 } else { raw };
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
            for (_, order) in Order::OF_FOUR_REGISTERS {
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

/// 2⁶⁴ − 1 is no value that could be kept, and the word of many meters for none.
#[test]
fn no_value_is_understood_as_manuals_write_it() {
    let none = |kind, written: WrittenNumber, registers: &[u16]| {
        NoValue::of_registers(kind, &[written]).expect("it fits").decode(kind, Order::Abcd, registers)
    };
    let whole = WrittenNumber::Whole;
    for (kind, written, registers) in [
        (NumberType::I16, whole(0x8000), &[0x8000_u16][..]),
        (NumberType::I16, whole(-32_768), &[0x8000]),
        (NumberType::U32, whole(0xFFFF_FFFF), &[0xFFFF, 0xFFFF]),
        (NumberType::U64, whole(u64::MAX.into()), &[0xFFFF; 4]),
        (NumberType::I64, whole(0x8000_0000_0000_0000), &[0x8000, 0, 0, 0]),
        (NumberType::I48, whole(-1), &[0xFFFF; 3]),
        (NumberType::Bcd16, whole(9_999), &[0x9999]),
        (NumberType::Bcd16, whole(0xFFFF), &[0xFFFF]),
        (NumberType::HighU8, whole(255), &[0xFF00]),
        (NumberType::F32, WrittenNumber::Float(-9_999.9), &[0xC61C, 0x3F9A]),
        (NumberType::F32, WrittenNumber::Float(f64::NAN), &[0x7FC0, 0]),
    ] {
        assert_eq!(none(kind, written, registers), Err(Cause::NotAvailable), "{kind:?} {written}");
    }
    assert_eq!(none(NumberType::F32, WrittenNumber::Float(-9_999.9), &[0x7FC0, 0]), Err(Cause::NotANumber));
    for (kind, written) in [
        (NumberType::U16, whole(-1)),
        (NumberType::U16, whole(65_536)),
        (NumberType::I8, whole(-129)),
        (NumberType::U32, WrittenNumber::Float(0.5)),
    ] {
        assert!(NoValue::of_registers(kind, &[written]).is_err(), "{kind:?} {written}");
    }
    let of_text = NoValue::of_text(&[WrittenNumber::Float(-99.9)]);
    assert_eq!((of_text.sift(-99.9), of_text.sift(-99.8)), (Err(Cause::NotAvailable), Ok(-99.8)));
}

#[test]
fn what_an_order_of_four_registers_cannot_be() {
    assert!(!Order::Efghabcd.fits(NumberType::F32) && !Order::Cdabghef.fits(NumberType::U48));
    assert!(Order::Efghabcd.fits(NumberType::U64) && Order::Dcba.fits(NumberType::U48));
}
