//! `[upload]`: how often, how much, in which order, and where the credentials lie.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use tjern_readings::batch;
use tjern_readings::configuration::{Period, parse_size};

use super::check::Checker;
use super::file::UploadFile;
use crate::upload::{BATCH_BYTES_LEAST, UploadLimits};

const EVERY_DEFAULT: Period = Period::from_seconds(60);
const LIVE_FIRST_AFTER_DEFAULT: Period = Period::from_seconds(3600);

/// The most that may be asked to be under way at once: each is a batch in memory.
const IN_FLIGHT_MAX: i64 = 64;

/// `[upload]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadConfig {
    /// How often batches are sealed and sent.
    pub every: Period,
    /// What the link may be used for.
    pub limits: UploadLimits,
    /// After an outage of this length what is new goes first, where that is wanted.
    pub live_first_after: Option<Duration>,
    /// The file of the lake's credentials.
    pub credentials_file: Option<PathBuf>,
}

pub(super) fn upload(checker: &mut Checker<'_>, file: &UploadFile) -> UploadConfig {
    let default = UploadLimits::default();
    let in_flight = file.in_flight.as_ref().and_then(|number| {
        checker.whole::<usize>(number, &[1, IN_FLIGHT_MAX], "in_flight", "it is from 1 to 64, like 4")
    });
    let batch_bytes = file.max_bytes.as_ref().and_then(|text| checker.read(text, batch_size));
    let bytes_per_s = file.max_rate.as_ref().and_then(|text| checker.read(text, rate));
    let after = checker.period(file.live_first_after.as_ref(), LIVE_FIRST_AFTER_DEFAULT);
    let live_first = file.live_first.as_ref().is_some_and(|live_first| *live_first.get_ref());
    if !live_first {
        checker.refuse(file.live_first_after.as_ref(), "live_first_after", "write `live_first = true` beside it");
    }
    if let Some(path) = file.credentials_file.as_ref().filter(|path| path.get_ref().is_empty()) {
        checker.note(path.span(), "`credentials_file` is empty", "write a path, like \"/etc/tjern/lake.env\"");
    }
    UploadConfig {
        every: checker.period(file.every.as_ref(), EVERY_DEFAULT),
        limits: UploadLimits {
            in_flight: in_flight.unwrap_or(default.in_flight),
            batch_bytes: batch_bytes.unwrap_or(default.batch_bytes),
            bytes_per_s,
        },
        live_first_after: live_first.then(|| after.duration()),
        credentials_file: file.credentials_file.as_ref().map(|path| path.get_ref().into()),
    }
}

/// The size of a batch: what is out of bounds counts as the bound.
fn batch_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    Ok(bytes.clamp(BATCH_BYTES_LEAST, batch::SIZE_MAX))
}

/// A size a second, like `50KiB/s`.
fn rate(text: &str) -> Result<NonZeroU64, String> {
    let bytes = text.trim_end().strip_suffix("/s").and_then(|size| parse_size(size.trim_end()).ok());
    bytes.and_then(NonZeroU64::new).ok_or_else(|| {
        format!(
            "`{text}` is no rate; hint: write a size and `/s`, like \"50KiB/s\"; without `max_rate` there is no limit"
        )
    })
}

#[cfg(test)]
mod tests {
    use tjern_readings::configuration::{ConfigError, ConfigText};

    use super::*;
    use crate::config::Config;

    fn parsed(upload: &str) -> Result<UploadConfig, ConfigError> {
        let head = "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n[upload]\n";
        Config::parse(&ConfigText::new("test.toml", format!("{head}{upload}\n"))).map(|config| config.upload().clone())
    }

    #[test]
    fn a_mobile_link_is_told_what_it_may_carry() {
        let upload = parsed(
            "every = \"5min\"\nin_flight = 2\nmax_rate = \"50KiB/s\"\nmax_bytes = \"1MiB\"\nlive_first = true\nlive_first_after = \"30min\"\ncredentials_file = \"/etc/tjern/lake.env\"",
        );
        let upload = upload.expect("good");
        assert_eq!(upload.every.duration(), Duration::from_secs(300));
        let limits = UploadLimits { in_flight: 2, batch_bytes: 1 << 20, bytes_per_s: NonZeroU64::new(51_200) };
        assert_eq!(upload.limits, limits);
        assert_eq!(upload.live_first_after, Some(Duration::from_secs(1800)));
        assert_eq!(upload.credentials_file, Some("/etc/tjern/lake.env".into()));
        let plain = parsed("").expect("good");
        assert_eq!((plain.limits, plain.live_first_after), (UploadLimits::default(), None));
        let first = parsed("live_first = true").expect("good");
        assert_eq!(first.live_first_after, Some(Duration::from_secs(3600)));
    }

    /// What is uploaded can be read by anyone who may read the bucket.
    #[test]
    fn what_is_uploaded_of_a_configuration_has_no_secret_and_one_hash() {
        let text = |secret: &str| {
            format!(
                "version = 1\ngateway = \"test\"\nlake = \"s3://bucket\"\n# was s3://key:{secret}@bucket, password = {secret}\n[spool]\ndir = \"unused\"\n"
            )
        };
        let parsed = |secret: &str| Config::parse(&ConfigText::new("test.toml", text(secret))).expect("good");
        let (before, after) = (parsed("canary-one"), parsed("canary-another"));
        assert!(!before.public_text().contains("canary"), "{}", before.public_text());
        assert_eq!(before.sha256(), after.sha256(), "a rotation is no new configuration");
        assert!(!format!("{before:?}").contains("canary"), "{before:?}");
        let plain = "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n";
        assert_eq!(Config::parse(&ConfigText::new("test.toml", plain)).expect("good").public_text(), plain);
    }

    #[test]
    fn what_makes_no_sense_is_told_with_what_would() {
        for (wrong, said) in [
            ("in_flight = 0", "from 1 to 64"),
            ("max_rate = \"50KiB\"", "write a size and `/s`"),
            ("max_rate = \"0B/s\"", "write a size and `/s`"),
            ("max_bytes = \"much\"", "is not a size"),
            ("live_first_after = \"1h\"", "write `live_first = true`"),
            ("credentials_file = \"\"", "/etc/tjern/lake.env"),
        ] {
            let error = parsed(wrong).expect_err(wrong).to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
