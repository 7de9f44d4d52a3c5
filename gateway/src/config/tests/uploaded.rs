//! What is uploaded of a configuration: the lake reads it, and reads what is in force, whatever stands in it.

use std::collections::HashMap;

use proptest::prelude::*;
use tjern_readings::configuration::units;

use super::parse;

/// A configuration with these words in it, as they stand in the file.
fn configuration(comment: &str, number: &str, poll: &str, pattern: &str) -> String {
    format!(
        "version = 1 # {comment}\ngateway = 'test'\nlake = 'memory:///'\n[spool]\ndir = 'unused'\n\
         [[bus]]\nname = 'meters'\nkind = 'modbus-tcp'\naddress = '10.0.3.7:502'\n\
         [[bus.device]]\nname = 'meter'\nunit_id = 1\n\
         [[bus.device.point]]\nsensor = 'tarn/pulses'\nregister = 'input:0'\ntype = 'u64'\nnot_available = {number}\nevery = '1min'\n\
         [[bus.device.point]]\nsensor = 'tarn/temperature'\nregister = 'input:10'\ntype = 'f32'\nunit = 'K'\nevery = '1min'\n\
         [[bus]]\nname = 'loggers'\nkind = 'text-lines'\naddress = '10.0.3.8:4001'\npoll = {poll} # {comment}\n\
         [[bus.device]]\nname = 'logger'\n\
         [[bus.device.point]]\nsensor = 'mast/wind'\npattern = {pattern}\nunit = 'm/s'\nevery = '1min'\n"
    )
}

/// Says what the lake reads of this text, where a gateway runs by it.
fn read_by_the_lake(text: &str) -> Option<Result<HashMap<String, String>, String>> {
    let config = parse(text).ok()?;
    let public = config.public_text();
    // Readings are computed again by what was uploaded.
    let again = parse(&public).map_err(|error| format!("{error}\n{public}"));
    Some(again.and_then(|_| units(&public)))
}

fn expected() -> HashMap<String, String> {
    [("tarn/temperature", "K"), ("mast/wind", "m/s")].map(|(sensor, unit)| (sensor.to_owned(), unit.to_owned())).into()
}

/// `check` took each of them, and none of the gateway's units was checked in the lake: "no TOML".
#[test]
fn what_a_technician_wrote_is_read_by_the_lake() {
    for (number, poll, pattern) in [
        ("0xFFFFFFFFFFFFFFFF", "'?'", "'(?<value>[0-9]+)'"),
        ("18446744073709551615", "'?'", "'(?<value>[0-9]+)'"),
        ("7", r#""PASSWORD=1234\r\nDUMP\r\n""#, "'(?<value>[0-9]+)'"),
        ("7", "'?'", r"'http://(?<value>[0-9]+)@x?\d'"),
        ("7", "'?'", r"'token=(?<value>[0-9]+)'"),
    ] {
        let read = read_by_the_lake(&configuration("", number, poll, pattern));
        assert_eq!(read, Some(Ok(expected())), "{number} {poll} {pattern}");
    }
    let text = configuration("", "7", r#""PASSWORD=1234\r\nDUMP\r\n""#, r"'http://(?<value>[0-9]+)@x?\d'");
    let public = parse(&text).expect("good").public_text();
    assert!(!public.contains("1234"), "{public}");
    assert!(public.contains(r"pattern = 'http://(?<value>[0-9]+)@x?\d'"), "another pattern: {public}");
}

/// The lake would check readings against another unit than the one in force.
#[test]
fn a_unit_that_would_be_hidden_is_refused() {
    let text = configuration("", "7", "'?'", "'(?<value>[0-9]+)'").replace("'m/s'", "'token=m/s'");
    let error = parse(&text).expect_err("hidden").to_string();
    assert!(error.contains("looks like a secret"), "{error}");
}

proptest! {
    #[test]
    fn what_check_accepts_is_read_by_the_lake(
        comment in "([ -~]|token=|password = |://|\"\"\"){0,6}",
        number in "[0-9]{1,20}|0x[0-9A-F]{1,16}|\\[1, 0xFFFFFFFFFFFFFFFF\\]",
        poll in "\"([ -!#-\\[\\]-~]|\\\\[\"\\\\rnt]|token=|PASSWORD = |://|u:p@|\\?){1,9}\"|'([ -&(-~]|secret=|://|@){1,9}'",
        pattern in "'([a-zæ=@/\" -]|://|token=|\\?x){0,6}\\(\\?<value>[0-9]+\\)([a-z@/ -]|://|token=){0,4}'",
    ) {
        let text = configuration(&comment, &number, &poll, &pattern);
        if let Some(read) = read_by_the_lake(&text) {
            prop_assert_eq!(read, Ok(expected()), "{}", text);
        }
    }
}
