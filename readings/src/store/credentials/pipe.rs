//! A pipe in the place of a file of credentials: it is waited for so long, and holds nobody for longer.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use super::FILE_BYTES_MAX;

/// So long a pipe may say nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// It is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The bytes that somebody writes to a pipe, up to one more than there may be; `None` where nobody does, or does not end.
pub(super) fn bytes_of(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Opening one to which nobody writes would not return.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let mut pipe = OpenOptions::new().read(true).custom_flags(flags).open(path)?.take(FILE_BYTES_MAX + 1);
    let mut bytes = Vec::new();
    for _ in 0..PATIENCE.as_millis() / LOOK_EVERY.as_millis() {
        match pipe.read_to_end(&mut bytes) {
            // Nobody has opened it yet.
            Ok(_) if bytes.is_empty() => {}
            Ok(_) => return Ok(Some(bytes)),
            // What was read before is kept.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(None)
}
