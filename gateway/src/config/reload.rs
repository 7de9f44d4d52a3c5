//! What of a configuration may change while the gateway runs.
//!
//! Buses with their devices and points, `[upload]` and `[status]` may. Whatever else differs needs a new
//! start: also a setting that this module was never told about, since everything is compared and only
//! what may change is left out.

use std::fmt::{self, Write};

use sha2::{Digest, Sha256};

use super::{Bus, Config};

impl Config {
    /// What of `new` cannot be taken over while the gateway runs, by the names that the file has for it.
    pub(crate) fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let known = [
            ("`gateway`", self.gateway != new.gateway),
            ("`lake`", self.lake != new.lake),
            ("`[spool]`", self.spool != new.spool),
            ("`[clock]`", self.clock != new.clock),
        ];
        let mut differs: Vec<&str> = known.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
        if differs.is_empty() && self.with_what_may_change(new).fingerprint() != new.fingerprint() {
            differs.push("a setting outside of the buses");
        }
        differs
    }

    fn with_what_may_change(&self, new: &Self) -> Self {
        Self {
            text: new.text.clone(),
            upload: new.upload.clone(),
            status_listen: new.status_listen.clone(),
            buses: new.buses.clone(),
            warnings: new.warnings.clone(),
            places: new.places.clone(),
            ..self.clone()
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self)
    }
}

impl Bus {
    /// Equal for buses that are read in the same way. Patterns cannot be compared as such; how a value is
    /// shown for debugging names every field of it, also those that are added later.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self)
    }
}

/// The SHA-256 of how a value is shown for debugging, which for ten thousand points is megabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(value: &impl fmt::Debug) -> Self {
        let mut hashed = Hashed(Sha256::new());
        // Hashing never refuses, and what is derived does not either.
        let _ = write!(hashed, "{value:?}");
        Self(hashed.0.finalize().into())
    }
}

struct Hashed(Sha256);

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tjern_readings::configuration::ConfigText;

    const HEAD: &str = "version = 1\ngateway = \"one\"\nlake = \"memory:///\"\n[spool]\ndir = \"spool\"\n";
    const BUS: &str = "[[bus]]\nname = \"mast\"\nkind = \"text-lines\"\nport = \"/dev/ttyUSB0\"\n[[bus.device]]\nname = \"a\"\n\
        [[bus.device.point]]\nsensor = \"mast/wind\"\npattern = \"(?<value>1)\"\nevery = \"1s\"\n";

    fn config(text: &str) -> Config {
        Config::parse(&ConfigText::new("test.toml", text.to_owned())).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn buses_upload_and_status_may_change_and_nothing_else() {
        let old = config(HEAD);
        for more in ["# a word", "[upload]\nevery = \"1s\"", "[status]\nlisten = \"127.0.0.1:1\"", BUS] {
            assert_eq!(old.needs_restart(&config(&format!("{HEAD}{more}\n"))), [""; 0], "{more}");
        }
        for (from, to, named) in [
            ("one", "two", "`gateway`"),
            ("memory:///", "file:///lake", "`lake`"),
            ("\"spool\"", "\"other\"", "`[spool]`"),
            ("\"spool\"", "\"spool\"\nmax_bytes = \"2GiB\"", "`[spool]`"),
            ("\"spool\"", "\"spool\"\n[clock]\npatience = \"2h\"", "`[clock]`"),
        ] {
            assert_eq!(old.needs_restart(&config(&HEAD.replace(from, to))), [named], "{to}");
        }
    }

    #[test]
    fn a_bus_is_the_same_until_something_of_it_differs() {
        let bus = |text: &str| config(&format!("{HEAD}{text}")).buses()[0].fingerprint();
        assert_eq!(bus(BUS), bus(&format!("# a word\n{BUS}")));
        for (from, to) in [("<value>1", "<value>2"), ("1s", "2s"), ("USB0", "USB1"), ("mast/wind", "mast/rain")] {
            assert_ne!(bus(BUS), bus(&BUS.replace(from, to)), "{to}");
        }
    }
}
