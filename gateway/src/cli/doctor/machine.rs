//! The clock, and the certificates by which a cloud is trusted.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::utc;
use super::Finding;
use crate::clock::{ChronyError, Tracking, Witness};

/// 2025: no machine that runs this has an older time.
const SANE_US: i64 = 1_735_689_600_000_000;

/// Where other clients of NTP leave something while they run, but for chrony, which is asked.
const CLIENTS: [(&str, &str); 1] = [("ntpd", "run/ntpd.pid")];

/// Where distributions keep the certificates, as OpenSSL finds them.
const TRUST_STORES: [&str; 6] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
    "usr/local/share/certs/ca-root-nss.crt",
];

/// What it means that root asks: nothing of what follows says what the gateway's own user may do.
pub(super) fn asker(root: &Path) -> Option<Finding> {
    let is_root = fs::metadata(root.join("proc/self")).is_ok_and(|process| process.uid() == 0);
    is_root.then(|| {
        Finding::warn(
            "user",
            "root asks, who may use every port and write everywhere: whether the gateway's user may is not known",
            "ask as that user: `tjern-gateway doctor --help` has the command for the packaged unit",
        )
    })
}

pub(super) fn clock(root: &Path, now_us: i64) -> Finding {
    let set = "set it, or give the machine a time server: readings of a wrong time are of no use";
    if now_us < SANE_US {
        return Finding::fail("clock", format!("it says {}", utc(now_us)), set);
    }
    let witness = Witness::at(root);
    let says = utc(now_us);
    if let Some(answer) = witness.chrony() {
        return by_chrony(answer, &says);
    }
    let client = CLIENTS.iter().find(|(_, file)| root.join(file).exists()).map(|(client, _)| *client);
    match (witness.is_synchronised(), client) {
        (Some(true), _) => Finding::ok("clock", format!("synchronised; it says {says}")),
        (_, Some(client)) => Finding::ok("clock", format!("{client} keeps it; it says {says}")),
        (Some(false), None) => Finding::warn(
            "clock",
            format!("not synchronised yet; it says {says}"),
            "is a time server reachable? readings wait until the clock is known, if it has no battery",
        ),
        (None, None) => Finding::warn(
            "clock",
            format!("whether it is synchronised is not known; it says {says}"),
            "compare it with a watch; `systemctl enable --now systemd-timesyncd` keeps it right",
        ),
    }
}

fn off(ahead_ms: i64) -> String {
    let word = if ahead_ms < 0 { "behind" } else { "ahead" };
    format!("{} ms {word}", ahead_ms.unsigned_abs())
}

fn by_chrony(answer: Result<Tracking, ChronyError>, says: &str) -> Finding {
    let wait = "readings wait until the clock is known, if it has no battery";
    match answer {
        Ok(tracking) if tracking.is_synchronised() => {
            let off = tracking.ahead_ms().map_or(String::new(), off);
            Finding::ok("clock", format!("synchronised by chrony, which finds it {off}; it says {says}"))
        }
        Ok(tracking) => match tracking.ahead_ms() {
            Some(ahead_ms) => Finding::warn(
                "clock",
                format!("chrony finds it {}, and is moving it; it says {says}", off(ahead_ms)),
                format!("`makestep` in chrony's configuration sets it at once after a start; {wait}"),
            ),
            None if tracking.follows_itself() => Finding::warn(
                "clock",
                format!("chrony follows nobody but itself; it says {says}"),
                "compare it with a watch; where there is no time server, `[clock] trusted = true` says that it is right",
            ),
            None => Finding::warn(
                "clock",
                format!("chrony follows no time server yet; it says {says}"),
                format!("`chronyc sources` tells which of them answer; {wait}"),
            ),
        },
        Err(error) => Finding::warn(
            "clock",
            format!("chrony keeps it, and whether it is synchronised is not known: {error}; it says {says}"),
            "compare it with a watch",
        ),
    }
}

/// `named` is what the environment names in `SSL_CERT_FILE`. The client passes over a file without certificates, and trusts
/// the system's: who named it meant his own authority, and would look everywhere but there.
pub(super) fn certificates(root: &Path, named: Option<PathBuf>) -> Finding {
    let count = |path: &Path| fs::read_to_string(path).map(|text| text.matches("-----BEGIN CERTIFICATE-----").count());
    if let Some(path) = &named {
        let what = match count(path) {
            Ok(count) if count > 0 => {
                return Finding::ok("certificates", format!("{count} are trusted, from {}", path.display()));
            }
            Ok(_) => "has no certificate in it".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        return Finding::fail(
            "certificates",
            format!("{}, which SSL_CERT_FILE names, {what}", path.display()),
            "name a file in PEM (`-----BEGIN CERTIFICATE-----`) that this user may read, or nothing: then the system's are trusted",
        );
    }
    let found = TRUST_STORES.iter().map(|path| root.join(path)).find_map(|path| {
        let count = count(&path).ok().filter(|count| *count > 0)?;
        Some((path, count))
    });
    match found {
        Some((path, count)) => Finding::ok("certificates", format!("{count} are trusted, from {}", path.display())),
        None => Finding::fail(
            "certificates",
            "no trusted certificates are here: no cloud can be reached",
            "install the package ca-certificates, or name a file of them in SSL_CERT_FILE",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    const NOW_US: i64 = 1_790_000_000_000_000;

    /// As root every check of permissions passes, and a gateway that may use no port was said to be well.
    #[test]
    fn root_is_told_that_its_word_is_no_proof() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(asker(root.path()), None, "nobody knows");
        fs::create_dir_all(root.path().join("proc/self")).expect("created");
        let is_root = fs::metadata(root.path()).expect("there").uid() == 0;
        assert_eq!(asker(root.path()).map(|finding| finding.state), is_root.then_some(State::Warn));
    }

    #[test]
    fn a_clock_of_1970_fails_and_an_unknown_one_is_told() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(clock(root.path(), 60_000_000).state, State::Fail);
        assert_eq!(clock(root.path(), NOW_US).state, State::Warn);
        fs::create_dir_all(root.path().join("run/systemd/timesync")).expect("created");
        fs::write(root.path().join("run/systemd/timesync/synchronized"), "").expect("written");
        let finding = clock(root.path(), NOW_US);
        assert_eq!(finding, Finding::ok("clock", "synchronised; it says 2026-09-21 14:13:20 UTC"));
    }

    #[test]
    fn a_machine_without_certificates_is_told_how_to_get_them() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(certificates(root.path(), None).state, State::Fail);
        fs::create_dir_all(root.path().join("etc/ssl")).expect("created");
        fs::write(root.path().join("etc/ssl/cert.pem"), "-----BEGIN CERTIFICATE-----\n").expect("written");
        assert_eq!(certificates(root.path(), None).state, State::Ok);
        // The client passes such a file over, and trusts whom the system trusts.
        let named = root.path().join("own-authority.pem");
        assert_eq!(certificates(root.path(), Some(named.clone())).state, State::Fail);
        fs::write(&named, "junk").expect("written");
        assert_eq!(certificates(root.path(), Some(named)).state, State::Fail);
    }
}
