//! The shape of the file. Texts stay texts here, with their places, so that the check can report all
//! that is wrong with them at once.

use serde::Deserialize;
use toml::Spanned;

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
    pub(super) bus: Vec<BusFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpoolFile {
    pub(super) dir: Spanned<String>,
    pub(super) max_bytes: Option<Spanned<String>>,
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
    pub(super) connect_pause: Option<Spanned<String>>,
    pub(super) idle_close: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) down_report: Option<Spanned<String>>,
    pub(super) poll: Option<Spanned<String>>,
    pub(super) terminator: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) device: Vec<DeviceFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceFile {
    pub(super) name: Spanned<String>,
    pub(super) unit_id: Option<Spanned<i64>>,
    pub(super) base: Option<Spanned<i64>>,
    pub(super) gap: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) point: Vec<PointFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointFile {
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
    pub(super) sentence: Option<Spanned<String>>,
    pub(super) field: Option<Spanned<i64>>,
    pub(super) column: Option<Spanned<i64>>,
    pub(super) separator: Option<Spanned<String>>,
    pub(super) pattern: Option<Spanned<String>>,
}

/// A number that may be written `1` or `1.0`: serde's `f64` takes both.
pub(super) type Number = f64;
