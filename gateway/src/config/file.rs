//! The shape of the file. Texts stay texts here, with their places, so that the check can report all
//! that is wrong with them at once.

use serde::Deserialize;
use toml::Spanned;

use crate::value::WrittenNumbers;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfigFile {
    pub(super) version: Spanned<i64>,
    pub(super) gateway: Spanned<String>,
    pub(super) lake: Spanned<String>,
    pub(super) down_report: Option<Spanned<String>>,
    pub(super) spool: SpoolFile,
    #[serde(default)]
    pub(super) upload: UploadFile,
    #[serde(default)]
    pub(super) status: StatusFile,
    #[serde(default)]
    pub(super) profile: Vec<ProfileFile>,
    #[serde(default)]
    pub(super) clock: ClockFile,
    #[serde(default)]
    pub(super) bus: Vec<BusFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatusFile {
    pub(super) listen: Option<Spanned<String>>,
}

/// What devices of one model have in common.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileFile {
    pub(super) name: Spanned<String>,
    pub(super) base: Option<Spanned<i64>>,
    pub(super) gap: Option<Spanned<String>>,
    pub(super) max_registers: Option<Spanned<i64>>,
    pub(super) max_bits: Option<Spanned<i64>>,
    pub(super) max_hole: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) point: Vec<PointFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpoolFile {
    pub(super) dir: Spanned<String>,
    pub(super) max_bytes: Option<Spanned<String>>,
    pub(super) max_disk_share: Option<Spanned<Number>>,
    pub(super) sync_every: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadFile {
    pub(super) every: Option<Spanned<String>>,
    pub(super) in_flight: Option<Spanned<i64>>,
    pub(super) max_bytes: Option<Spanned<String>>,
    pub(super) max_rate: Option<Spanned<String>>,
    pub(super) live_first: Option<Spanned<bool>>,
    pub(super) live_first_after: Option<Spanned<String>>,
    pub(super) credentials_file: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClockFile {
    pub(super) patience: Option<Spanned<String>>,
    pub(super) trusted: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BusFile {
    pub(super) name: Spanned<String>,
    pub(super) kind: Spanned<String>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) port: Option<Spanned<String>>,
    pub(super) baud: Option<Spanned<i64>>,
    pub(super) data_bits: Option<Spanned<i64>>,
    pub(super) parity: Option<Spanned<String>>,
    pub(super) stop_bits: Option<Spanned<i64>>,
    pub(super) gap: Option<Spanned<String>>,
    pub(super) echo: Option<Spanned<bool>>,
    pub(super) rs485: Option<Spanned<bool>>,
    pub(super) rts_delay_before: Option<Spanned<String>>,
    pub(super) rts_delay_after: Option<Spanned<String>>,
    pub(super) rts: Option<Spanned<String>>,
    pub(super) rx_during_tx: Option<Spanned<bool>>,
    pub(super) connect_pause: Option<Spanned<String>>,
    pub(super) idle_close: Option<Spanned<String>>,
    pub(super) in_flight: Option<Spanned<i64>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) down_report: Option<Spanned<String>>,
    pub(super) poll: Option<Spanned<String>>,
    pub(super) terminator: Option<Spanned<String>>,
    pub(super) length: Option<Spanned<i64>>,
    pub(super) max_line: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) device: Vec<DeviceFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceFile {
    pub(super) name: Spanned<String>,
    pub(super) unit_id: Option<Spanned<i64>>,
    pub(super) base: Option<Spanned<i64>>,
    pub(super) profile: Option<Spanned<String>>,
    pub(super) place: Option<Spanned<String>>,
    pub(super) max_registers: Option<Spanned<i64>>,
    pub(super) max_bits: Option<Spanned<i64>>,
    pub(super) max_hole: Option<Spanned<i64>>,
    pub(super) gap: Option<Spanned<String>>,
    pub(super) time_column: Option<Spanned<i64>>,
    pub(super) time_field: Option<Spanned<i64>>,
    pub(super) time_pattern: Option<Spanned<String>>,
    pub(super) time_format: Option<Spanned<String>>,
    pub(super) time_zone: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) point: Vec<PointFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointFile {
    /// In a profile `quantity`: the check sees to it that each stands where it belongs.
    #[serde(alias = "quantity")]
    pub(super) sensor: Spanned<String>,
    pub(super) every: Spanned<String>,
    pub(super) phase: Option<Spanned<String>>,
    pub(super) unit: Option<Spanned<String>>,
    pub(super) scale: Option<Spanned<Number>>,
    pub(super) offset: Option<Spanned<Number>>,
    pub(super) register: Option<Spanned<String>>,
    #[serde(rename = "type")]
    pub(super) kind: Option<Spanned<String>>,
    pub(super) order: Option<Spanned<String>>,
    pub(super) bit: Option<Spanned<i64>>,
    pub(super) half: Option<Spanned<String>>,
    pub(super) not_available: Option<Spanned<WrittenNumbers>>,
    pub(super) sentence: Option<Spanned<String>>,
    pub(super) field: Option<Spanned<i64>>,
    pub(super) column: Option<Spanned<i64>>,
    pub(super) separator: Option<Spanned<String>>,
    pub(super) pattern: Option<Spanned<String>>,
    pub(super) decimal: Option<Spanned<String>>,
}

/// A number that may be written `1` or `1.0`: serde's `f64` takes both.
pub(super) type Number = f64;
