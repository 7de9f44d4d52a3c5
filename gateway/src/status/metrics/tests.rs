//! Each number of a status is on the page, under its own name: none is left out, none stands for another.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::pages::tests::STATUS;
use super::*;
use crate::modbus::stats::WireCounts;
use crate::status::report::WireReport;

/// 2026-12-01.
const NOW_US: i64 = 1_796_083_200_000_000;

/// A status in which no two counters have the same number.
fn status() -> GatewayStatus {
    let mut counts = WireCounts {
        opened: 40,
        echoes: 41,
        strangers: 42,
        noise: 49,
        never_silent: 43,
        doubted: 39,
        ..Default::default()
    };
    let hardware = &mut counts.hardware;
    (hardware.frame, hardware.overrun, hardware.parity) = (44, 45, 46);
    (hardware.line_break, hardware.buffer_overrun) = (47, 48);
    let point = |missed: u64| json!({"sensor": "a/b", "every_us": 1_000_000, "missed": missed});
    let told = json!({
        "version": "1", "gateway": "g", "time_us": NOW_US, "uptime_s": 10, "health": {"state": "ok", "details": []},
        "configuration": {"path": "g.toml", "sha256": "ab", "reloads": 11, "refusals": 12, "unchanged": 13},
        "clock": {"is_known": true, "is_synchronised": true, "ahead_ms": 1_500, "falls": 14},
        "spool": {
            "epoch": "00", "bytes": 20, "sealed_objects": 21, "unsealed_readings": 22, "unsynced_readings": 23,
            "dropped_readings": 24, "dropped_batches": 25, "set_aside_objects": 26, "torn_tails": 27, "bad_records": 28,
            "in_trouble": false,
        },
        "upload": {
            "waiting_batches": 3, "waiting_bytes": 30, "last_lag_us": 31_000_000, "last_success_us": NOW_US,
            "requests": 32, "uploaded_batches": 33, "uploaded_bytes": 34,
        },
        "buses": [{
            "name": "north", "kind": "modbus-rtu", "incarnation": 1, "turns": 50, "line_up": true,
            "lines": {
                "lines": 70, "dropped": 71, "bad_checksums": 72, "unparsed": 73, "unwanted": 74, "bad_times": 75, "repeated": 76,
                "forgotten": 77, "undecided": 78,
            },
            "devices": [{
                "name": "meter", "unit_id": 1, "state": "healthy", "round_trip_us": 60_000, "timeouts": 61, "unreachable": 62,
                "exceptions": 63, "broken_frames": 64, "points": [point(30), point(35)],
            }],
        }],
    });
    let mut status: GatewayStatus = serde_json::from_value(told).expect("a status");
    status.buses[0].wire = Some(WireReport::from(&counts));
    status
}

/// The samples of a page.
fn samples(status: GatewayStatus) -> BTreeMap<String, f64> {
    let text = text(&Arc::new(status)).expect("to memory");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let series = series.strip_prefix("tjern_gateway_").expect("our prefix");
        (series.to_owned(), value.parse().expect("a number"))
    };
    lines.map(sample).collect()
}

/// Two counters that were swapped, or one that was never set, passed a test that asked for 0 or more.
#[test]
fn each_counter_of_the_page_is_that_of_the_status() {
    let samples = samples(status());
    let device = "{bus=\"north\",device=\"meter\"}";
    let plain = [
        ("uptime_seconds", 10.0),
        ("clock_falls_total", 14.0),
        ("clock_offset_seconds", 1.5),
        ("spool_bytes", 20.0),
        ("spool_sealed_objects", 21.0),
        ("spool_unsealed_readings", 22.0),
        ("spool_unsynced_readings", 23.0),
        ("spool_dropped_readings_total", 24.0),
        ("spool_dropped_batches_total", 25.0),
        ("spool_set_aside_objects_total", 26.0),
        ("spool_torn_tails_total", 27.0),
        ("spool_bad_records_total", 28.0),
        ("upload_waiting_bytes", 30.0),
        ("upload_lag_seconds", 31.0),
        ("upload_requests_total", 32.0),
        ("upload_batches_total", 33.0),
        ("upload_bytes_total", 34.0),
    ];
    let mut expected: BTreeMap<String, f64> = plain.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let reloads = [("applied", 11.0), ("refused", 12.0), ("unchanged", 13.0)];
    expected.extend(reloads.map(|(result, count)| (format!("reloads_total{{result=\"{result}\"}}"), count)));
    let of_bus = [("line_opened", 40.0), ("line_noise_bytes", 49.0), ("bus_turns", 50.0)];
    expected.extend(of_bus.map(|(name, count)| (format!("{name}_total{{bus=\"north\"}}"), count)));
    let of_line = [
        ("echo", 41.0),
        ("stranger", 42.0),
        ("never_silent", 43.0),
        ("doubted", 39.0),
        ("frame", 44.0),
        ("overrun", 45.0),
        ("parity", 46.0),
        ("break", 47.0),
        ("buffer_overrun", 48.0),
    ];
    let kind = |family: &str, kind: &str| format!("{family}_total{{bus=\"north\",kind=\"{kind}\"}}");
    expected.extend(of_line.map(|(name, count)| (kind("line_errors", name), count)));
    let of_text = [
        ("whole", 70.0),
        ("dropped", 71.0),
        ("bad_checksum", 72.0),
        ("unparsed", 73.0),
        ("unwanted", 74.0),
        ("bad_time", 75.0),
        ("repeated", 76.0),
        ("forgotten", 77.0),
        ("undecided", 78.0),
    ];
    expected.extend(of_text.map(|(name, count)| (kind("lines", name), count)));
    let of_device = [
        ("device_timeouts_total", 61.0),
        ("device_unreachable_total", 62.0),
        ("device_exceptions_total", 63.0),
        ("device_broken_frames_total", 64.0),
        ("device_missed_slots_total", 65.0),
        ("device_round_trip_seconds", 0.06),
    ];
    expected.extend(of_device.map(|(name, count)| (format!("{name}{device}"), count)));
    for (name, value) in &expected {
        assert_eq!(samples.get(name), Some(value), "{name}");
    }
    let unexpected: Vec<_> =
        samples.keys().filter(|name| name.contains("_total") && !expected.contains_key(*name)).collect();
    assert!(unexpected.is_empty(), "counters that nobody looked at: {unexpected:?}");
}

/// How far the lake is behind: by what waits, else by what came last, and nothing where neither is known.
#[test]
fn the_upload_lag_is_that_of_what_waits_or_of_what_landed_last() {
    let lag = |oldest_waiting_us: Option<i64>, last_lag_us: Option<i64>| {
        let mut status = status();
        (status.upload.oldest_waiting_us, status.upload.last_lag_us) = (oldest_waiting_us, last_lag_us);
        let samples = samples(status);
        (samples.get("upload_lag_seconds").copied(), samples["spool_age_seconds"])
    };
    assert_eq!(lag(None, None), (None, 0.0));
    assert_eq!(lag(None, Some(2_500_000)), (Some(2.5), 0.0));
    assert_eq!(lag(Some(NOW_US - 90_000_000), Some(2_500_000)), (Some(90.0), 90.0));
    assert_eq!(lag(Some(NOW_US + 1), None), (Some(0.0), 0.0), "the clock was set back");
}

/// Answers under another id were counted nowhere. On Modbus TCP nothing else is: zeros of a port would be no counts.
#[test]
fn strangers_on_modbus_tcp_are_a_kind_of_line_errors() {
    let bus =
        r#"[{"name":"north","kind":"modbus-tcp","incarnation":1,"turns":5,"wire":null,"strangers":3,"devices":[]}]"#;
    let status = STATUS.replace("\"buses\":[]", &format!("\"buses\":{bus}"));
    let status: GatewayStatus = serde_json::from_str(&status).expect("a status");
    let text = text(&Arc::new(status)).expect("it is written");
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("tjern_gateway_line_errors")).collect();
    assert_eq!(errors, ["tjern_gateway_line_errors_total{bus=\"north\",kind=\"stranger\"} 3"], "{text}");
}
