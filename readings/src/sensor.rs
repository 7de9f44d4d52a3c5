//! Names that travel with readings: sensors, sources, epochs.
//!
//! Each is a validated newtype: a value of the type is proof that the text is well formed, so that
//! nothing further in needs to check again. Limits: a part of a name has 1 to 31 characters.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

/// The first part of ids that only the product itself writes (spool age, clock offset, …).
pub const SYSTEM_SITE: &str = "_system";

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A part does not match `[a-z0-9][a-z0-9_-]{0,30}`.
    #[error("`{part}` in `{name}` is not a valid part: 1 to 31 of a-z, 0-9, `_`, `-`, starting with a letter or digit")]
    Part {
        /// The part that is wrong.
        part: String,
        /// The whole name.
        name: String,
    },
    /// A sensor id has fewer than two or more than five parts.
    #[error("sensor id `{name}` has {count} parts: it needs two to five, like `landfalltjern/water_temperature`")]
    PartCount {
        /// The whole name.
        name: String,
        /// How many parts it has.
        count: usize,
    },
    /// A source's prefix is not one of the known ones.
    #[error("source `{name}` is neither a gateway's name nor `import:…` or `manual:…`")]
    Source {
        /// The whole name.
        name: String,
    },
    /// An epoch is not 32 lower-case hex digits.
    #[error("epoch `{name}` is not 32 lower-case hex digits")]
    Epoch {
        /// The whole text.
        name: String,
    },
}

/// Whether `part` matches `[a-z0-9][a-z0-9_-]{0,30}`.
#[must_use]
pub fn is_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    let inner = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=31).contains(&bytes.len()) && matches!(bytes[0], b'a'..=b'z' | b'0'..=b'9') && bytes.iter().all(inner)
}

fn check_part(part: &str, name: &str) -> Result<(), NameError> {
    if is_part(part) {
        return Ok(());
    }
    Err(NameError::Part { part: part.to_owned(), name: name.to_owned() })
}

/// A sensor id: two to five parts, `site[/position…]/quantity`, like
/// `landfalltjern/depth-2m/water_temperature`. Ids are never reused.
#[derive(Clone, Eq, PartialOrd, Ord)]
pub struct SensorId(Arc<str>);

/// Clones of one id are the same without a look at their text: a gateway compares each reading's several times.
impl PartialEq for SensorId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl std::hash::Hash for SensorId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl SensorId {
    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first part: where the sensor is.
    #[must_use]
    pub fn site(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The last part: what it measures.
    #[must_use]
    pub fn quantity(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Whether only the product may write it.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.site() == SYSTEM_SITE
    }
}

impl FromStr for SensorId {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let count = name.split('/').count();
        if !(2..=5).contains(&count) {
            return Err(NameError::PartCount { name: name.to_owned(), count });
        }
        for (index, part) in name.split('/').enumerate() {
            if !(index == 0 && part == SYSTEM_SITE) {
                check_part(part, name)?;
            }
        }
        Ok(Self(name.into()))
    }
}

/// Who sent readings: a gateway's name (`landfall-01`), or `import:…`, `manual:…`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a gateway's, and not that of an import or of what somebody read off.
    #[must_use]
    pub fn is_gateway(&self) -> bool {
        !self.0.contains(':')
    }
}

impl FromStr for SourceName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        match name.split_once(':') {
            None => check_part(name, name)?,
            Some(("import" | "manual", rest)) => check_part(rest, name)?,
            Some(_) => return Err(NameError::Source { name: name.to_owned() }),
        }
        Ok(Self(name.into()))
    }
}

/// One ordered stream of readings from one spool: 128 random bits, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch([u8; 16]);

impl Epoch {
    /// A new random epoch.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().into_bytes())
    }

    /// The epoch with these bytes (as they stand in a spool segment's header).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The epoch's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Epoch {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let refused = || NameError::Epoch { name: name.to_owned() };
        let digits = name.as_bytes();
        if digits.len() != 32 {
            return Err(refused());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = hex_digit(pair[0]).ok_or_else(refused)?;
            let low = hex_digit(pair[1]).ok_or_else(refused)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

macro_rules! text_like {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
text_like!(SensorId);
text_like!(SourceName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_the_design_names() {
        for name in [
            "landfalltjern/water_temperature",
            "landfalltjern/depth-2m/water_temperature",
            "_system/landfall-01/spool_age",
            "a/b/c/d/e",
            "0/1",
        ] {
            assert_eq!(name.parse::<SensorId>().expect(name).as_str(), name);
        }
    }

    #[test]
    fn refuses_what_could_escape_or_confuse() {
        let long = format!("a/{}", "b".repeat(32));
        for name in [
            "",
            "a",
            "/",
            "a/",
            "/a",
            "a//b",
            "a/b/c/d/e/f",
            "../a",
            "a/..",
            "a/.",
            "A/b",
            "a/B",
            "a/b c",
            "å/b",
            "a/b\0",
            "a/b\n",
            "-a/b",
            "_a/b",
            "a/_b",
            "a/_system",
            "_system",
            "a%2fb/c",
            "a\\b/c",
            &long,
        ] {
            assert!(name.parse::<SensorId>().is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn sources_are_parts_or_have_a_known_prefix() {
        for name in ["landfall-01", "import:history-2020", "manual:lifeguard"] {
            assert_eq!(name.parse::<SourceName>().expect(name).as_str(), name);
        }
        for name in ["", "a/b", "other:x", "import:", "import:a:b", "Landfall", "_system", ".."] {
            assert!(name.parse::<SourceName>().is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn site_and_quantity_are_the_ends() {
        let sensor: SensorId = "elva/depth-2m/water_temperature".parse().expect("valid");
        assert_eq!((sensor.site(), sensor.quantity()), ("elva", "water_temperature"));
    }

    proptest! {
        #[test]
        fn epochs_survive_their_text(bytes: [u8; 16]) {
            let epoch = Epoch::from_bytes(bytes);
            prop_assert_eq!(epoch.to_string().parse::<Epoch>(), Ok(epoch));
        }

        #[test]
        fn no_accepted_id_has_a_strange_character(name in "\\PC{0,40}") {
            if name.parse::<SensorId>().is_ok() {
                prop_assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'/')));
            }
        }
    }
}
