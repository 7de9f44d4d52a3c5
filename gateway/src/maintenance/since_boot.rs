//! How long this machine has been up: a reckoning that all of its processes share, and that nobody sets.
//!
//! The command that says what is under maintenance and the gateway that marks readings are two processes, and while the machine's
//! clock is not believed they do not mean the same by a time. Limits: to a hundredth of a second, and only where there is a `/proc`;
//! a boot has nothing in common with the one before.

use std::fs;
use std::path::Path;

const UPTIME: &str = "proc/uptime";
const BOOT: &str = "proc/sys/kernel/random/boot_id";

/// What it is read to.
pub(super) const PRECISION_US: i64 = 10_000;

/// A moment of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinceBoot {
    /// Which start of the machine: its id.
    pub boot: String,
    /// How long ago that was, in microseconds.
    pub up_us: i64,
}

impl SinceBoot {
    /// This moment of this machine, where it says so.
    #[must_use]
    pub fn now() -> Option<Self> {
        Self::at(Path::new("/"))
    }

    /// The same of a folder that looks like a machine.
    pub(crate) fn at(root: &Path) -> Option<Self> {
        let boot = fs::read_to_string(root.join(BOOT)).ok()?.trim().to_owned();
        let uptime = fs::read_to_string(root.join(UPTIME)).ok()?;
        let up_us = micros(uptime.split(' ').next()?.trim())?;
        is_boot(&boot).then_some(Self { boot, up_us })
    }
}

/// Whether a text can be a boot's id.
pub(super) fn is_boot(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Seconds with two decimals.
fn micros(seconds: &str) -> Option<i64> {
    let (whole, hundredths) = seconds.split_once('.')?;
    let hundredths: i64 = hundredths.parse().ok().filter(|hundredths| (0..100).contains(hundredths))?;
    whole.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(hundredths * PRECISION_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_says_is_read() {
        let machine = tempfile::tempdir().expect("a folder");
        assert_eq!(SinceBoot::at(machine.path()), None, "it says nothing");
        fs::create_dir_all(machine.path().join("proc/sys/kernel/random")).expect("created");
        let says = |boot: &str, uptime: &str| {
            fs::write(machine.path().join(BOOT), boot).expect("written");
            fs::write(machine.path().join(UPTIME), uptime).expect("written");
            SinceBoot::at(machine.path())
        };
        let boot = "2b4c8f0e-0f5b-4f0e-9f4b-0c4b8f0e0f5b";
        let read = says(&format!("{boot}\n"), "350735.07 234388.90\n");
        assert_eq!(read, Some(SinceBoot { boot: boot.to_owned(), up_us: 350_735_070_000 }));
        for (boot, uptime) in [("", "1.00 1.00"), ("a\"b", "1.00 1.00"), (boot, ""), (boot, "1 1"), (boot, "x.00")] {
            assert_eq!(says(boot, uptime), None, "{boot} {uptime}");
        }
    }
}
