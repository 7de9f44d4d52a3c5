//! The status for Prometheus, as OpenMetrics text. Made anew for every scrape: nothing is counted twice.
//!
//! Labels are names of the configuration, so that nothing from outside makes a series. What is not known is
//! left out rather than shown as 0.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::report::{BusReport, DeviceReport, GatewayStatus, HealthState};
use crate::bus::state::DeviceState;

/// Before every name.
const PREFIX: &str = "tjern_gateway";

type Labels = Vec<(&'static str, String)>;

/// The text of `/metrics`.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn text(status: &Arc<GatewayStatus>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Scrape(Arc::clone(status))));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(Arc<GatewayStatus>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(&mut encoder);
        gateway(&mut page, &self.0)?;
        spool(&mut page, &self.0)?;
        upload(&mut page, &self.0)?;
        buses(&mut page, &self.0)
    }
}

/// Families, one after the other.
struct Page<'encoder, 'text>(&'encoder mut DescriptorEncoder<'text>);

impl Page<'_, '_> {
    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| family.encode_gauge(&value))
    }

    /// `_total` is added to the name.
    fn counters(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }
}

fn gateway(page: &mut Page<'_, '_>, status: &GatewayStatus) -> fmt::Result {
    let configuration = &status.configuration;
    let labels = vec![
        ("version", status.version.clone()),
        ("gateway", status.gateway.clone()),
        ("configuration", configuration.sha256.clone()),
    ];
    page.gauges("info", "What runs, and by which configuration", [(labels, 1.0)])?;
    page.gauge("uptime_seconds", "For how long the gateway has run", Some(number(status.uptime_s)))?;
    let healthy = status.health.state != HealthState::Failing;
    page.gauge("healthy", "Whether the gateway does its work", Some(flag(healthy)))?;
    clock(page, status)?;
    let refused = flag(configuration.refused.is_some());
    page.gauge("configuration_refused", "Whether the configuration's file was refused last", Some(refused))?;
    let (applied, refused, unchanged) = (configuration.reloads, configuration.refusals, configuration.unchanged);
    let reloads = [("applied", applied), ("refused", refused), ("unchanged", unchanged)];
    let reloads = reloads.map(|(result, count)| (vec![("result", result.to_owned())], count));
    page.counters("reloads", "Reloads of the configuration", reloads)
}

fn clock(page: &mut Page<'_, '_>, status: &GatewayStatus) -> fmt::Result {
    let Some(clock) = &status.clock else { return Ok(()) };
    page.gauge(
        "clock_known",
        "Whether the time is known: until then readings wait, or have an estimated time",
        Some(flag(clock.is_known)),
    )?;
    let synchronised = clock.is_synchronised.map(flag);
    page.gauge("clock_synchronised", "Whether the time service has synchronised the clock", synchronised)?;
    let ahead_s = clock.ahead_ms.map(|ahead_ms| seconds(ahead_ms.saturating_mul(1_000)));
    page.gauge("clock_offset_seconds", "How far the clock is ahead of the true time", ahead_s)?;
    let fallen_s = seconds(clock.fallen_ms.unwrap_or(0).saturating_mul(1_000));
    page.gauge(
        "clock_fallen_seconds",
        "How far the clock fell back while the gateway ran, while it is not believed; 0 while it is",
        Some(fallen_s),
    )?;
    page.counter("clock_falls", "How often the clock fell back and was not believed", clock.falls)
}

fn spool(page: &mut Page<'_, '_>, status: &GatewayStatus) -> fmt::Result {
    let spool = &status.spool;
    page.gauge("spool_bytes", "What the spool takes of the disk", Some(number(spool.bytes)))?;
    let age_s = age_seconds(status.upload.oldest_waiting_us, status.time_us);
    page.gauge(
        "spool_age_seconds",
        "Age of the oldest reading that waits and is sealed, or should be; 0 if none does",
        Some(age_s),
    )?;
    page.gauge("spool_sealed_objects", "Sealed objects that wait", Some(number(spool.sealed_objects)))?;
    page.gauge("spool_unsealed_readings", "Readings on disk, not sealed", Some(number(spool.unsealed_readings)))?;
    page.gauge("spool_unsynced_readings", "Readings not on disk", Some(number(spool.unsynced_readings)))?;
    let trouble = flag(spool.in_trouble);
    page.gauge("spool_disk_refuses", "Whether the disk refuses readings", Some(trouble))?;
    let trouble = flag(spool.sealing_trouble.is_some());
    page.gauge("spool_seal_failing", "Whether batches cannot be written", Some(trouble))?;
    page.counter("spool_dropped_readings", "Readings lost for want of room", spool.dropped_readings)?;
    page.counter("spool_dropped_batches", "Batches whose place a gap took", spool.dropped_batches)?;
    page.counter("spool_set_aside_objects", "Objects for which the lake has no place", spool.set_aside_objects)?;
    page.counter("spool_torn_tails", "Segments found with a torn tail", spool.torn_tails)?;
    page.counter("spool_bad_records", "Damaged records and files found", spool.bad_records)
}

fn upload(page: &mut Page<'_, '_>, status: &GatewayStatus) -> fmt::Result {
    let upload = &status.upload;
    let waited_s = upload.oldest_waiting_us.map(|_| age_seconds(upload.oldest_waiting_us, status.time_us));
    let lag_s = waited_s.or_else(|| upload.last_lag_us.map(seconds));
    page.gauge("upload_lag_seconds", "How far the lake is behind: the age of the oldest reading that waits and is sealed, or should be, or that of the newest in the last batch when it landed", lag_s)?;
    page.gauge("upload_failing", "Whether the last upload failed", Some(flag(upload.last_error.is_some())))?;
    let success_s = upload.last_success_us.map(seconds);
    page.gauge("upload_last_success_timestamp_seconds", "When the lake last answered as it should", success_s)?;
    page.gauge("upload_waiting_bytes", "Bytes that wait for the lake", Some(number(upload.waiting_bytes)))?;
    page.counter("upload_requests", "Requests to the lake's store", upload.requests)?;
    page.counter("upload_batches", "Batches that the lake took", upload.uploaded_batches)?;
    page.counter("upload_bytes", "Their bytes", upload.uploaded_bytes)
}

fn buses(page: &mut Page<'_, '_>, status: &GatewayStatus) -> fmt::Result {
    let turns = status.buses.iter().map(|bus| (vec![("bus", bus.name.clone())], bus.turns));
    page.counters("bus_turns", "How often a bus came round", turns)?;
    wires(page, status)?;
    lines(page, status)?;
    let states = devices(status).flat_map(|(bus, device)| {
        DeviceState::ALL.iter().map(|(name, _)| {
            let mut labels = labels(bus, device);
            labels.push(("state", (*name).to_owned()));
            (labels, flag(device.state == *name))
        })
    });
    page.gauges("device_state", "1 for the state that a device is in", states)?;
    let trips = devices(status).filter_map(|(bus, device)| {
        let time_us = i64::try_from(device.round_trip_us?).ok()?;
        Some((labels(bus, device), seconds(time_us)))
    });
    page.gauges("device_round_trip_seconds", "How long a device's last answer took", trips)?;
    device_counts(page, status)
}

fn device_counts(page: &mut Page<'_, '_>, status: &GatewayStatus) -> fmt::Result {
    type Count = fn(&DeviceReport) -> u64;
    let counts: [(&str, &str, Count); 5] = [
        ("device_timeouts", "Requests without an answer in time", |device| device.timeouts),
        (
            "device_unreachable",
            "Requests that nothing could be sent for: the line or the server is missing; or that the server hung up on",
            |device| device.unreachable,
        ),
        ("device_exceptions", "Answers that were exceptions", |device| device.exceptions),
        ("device_broken_frames", "Answers that made no sense", |device| device.broken_frames),
        ("device_missed_slots", "Slots of a device's points that passed without a poll", |device| {
            device.points.iter().map(|point| point.missed).sum()
        }),
    ];
    for (name, help, count) in counts {
        page.counters(name, help, devices(status).map(|(bus, device)| (labels(bus, device), count(device))))?;
    }
    Ok(())
}

fn lines(page: &mut Page<'_, '_>, status: &GatewayStatus) -> fmt::Result {
    let up = status.buses.iter().filter_map(|bus| Some((vec![("bus", bus.name.clone())], flag(bus.line_up?))));
    page.gauges("line_up", "Whether a bus's line or server was there, and fell silent, when it was last needed", up)?;
    let counts = status.buses.iter().filter_map(|bus| Some((&bus.name, bus.lines?))).flat_map(|(bus, lines)| {
        let labels = move |kind: &str| vec![("bus", bus.clone()), ("kind", kind.to_owned())];
        let all = std::iter::once((labels("whole"), lines.lines));
        all.chain(lines.kinds().map(move |(kind, count)| (labels(kind), count)))
    });
    page.counters("lines", "Text lines: those that came whole, and what was wrong with lines", counts)
}

fn wires(page: &mut Page<'_, '_>, status: &GatewayStatus) -> fmt::Result {
    let wires = || status.buses.iter().filter_map(|bus| Some((bus.name.clone(), bus.wire.as_ref()?)));
    let opened = wires().map(|(bus, wire)| (vec![("bus", bus)], wire.opened));
    page.counters("line_opened", "How often a port or its connection was opened", opened)?;
    let noise = wires().map(|(bus, wire)| (vec![("bus", bus)], wire.noise_bytes));
    page.counters("line_noise_bytes", "Bytes that belonged to no frame", noise)?;
    let errors = wires().flat_map(|(bus, wire)| {
        let kinds = [
            ("echo", wire.echoes),
            ("stranger", wire.strangers),
            ("never_silent", wire.never_silent),
            ("doubted", wire.doubted),
            ("frame", wire.frame),
            ("overrun", wire.overrun),
            ("parity", wire.parity),
            ("break", wire.line_break),
            ("buffer_overrun", wire.buffer_overrun),
        ];
        kinds.map(|(kind, count)| (vec![("bus", bus.clone()), ("kind", kind.to_owned())], count))
    });
    let strangers = status
        .buses
        .iter()
        .filter_map(|bus| Some((vec![("bus", bus.name.clone()), ("kind", "stranger".to_owned())], bus.strangers?)));
    let errors = errors.chain(strangers);
    page.counters("line_errors", "What went wrong on a line, and what was passed over", errors)
}

fn devices(status: &GatewayStatus) -> impl Iterator<Item = (&BusReport, &DeviceReport)> {
    status.buses.iter().flat_map(|bus| bus.devices.iter().map(move |device| (bus, device)))
}

fn labels(bus: &BusReport, device: &DeviceReport) -> Labels {
    vec![("bus", bus.name.clone()), ("device", device.name.clone())]
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes: exact up to 2⁵³")]
fn number(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 are exact up to 2⁵³")]
fn seconds(time_us: i64) -> f64 {
    time_us as f64 / 1e6
}

/// 0 also for what lies ahead: the clock may have been set back.
fn age_seconds(since_us: Option<i64>, now_us: i64) -> f64 {
    since_us.map_or(0.0, |since_us| seconds(now_us.saturating_sub(since_us).max(0)))
}

#[cfg(test)]
mod tests;
