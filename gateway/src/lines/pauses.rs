//! What silence on a line of text says: how long it is within a line at most, and between two.
//!
//! Limits: a server that prints its line as soon as somebody connects is not told from one that was amid a line; a
//! connection's first line is lost there. No I/O, no clock.

use std::time::Duration;

use crate::config::LinePlace;

/// Between two parts of one line there is no longer a pause: what is half there after it is the end of a prompt, or
/// has lost its rest.
pub(crate) const LINE_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Within a line of a fixed length no pause is as long: adapters hand over what they have every 16 ms.
const SERIAL_LENGTH_PAUSE: Duration = Duration::from_millis(50);

/// The same over TCP, where a sender may wait with the second half for our delayed acknowledgement of the first (Linux:
/// 40 ms) and the way there and back; short enough for a device that talks ten times a second.
const TCP_LENGTH_PAUSE: Duration = Duration::from_millis(60);

/// So many characters of a slow line are a pause within none.
const LENGTH_PAUSE_CHARS: u64 = 4;

/// What was lost on its way is sent again after so long and the way there and back (Linux, `TCP_RTO_MIN`).
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How long a line that was just opened has to be silent until what comes next certainly is the beginning of a line.
/// Over TCP what a server sent when it accepted comes after a way there and back, for which connecting took one, and if it
/// was lost once after another one and a wait.
pub(crate) fn silence_at_start(place: &LinePlace, connecting: Duration) -> Duration {
    match place {
        LinePlace::Serial(_) => LINE_PAUSE_MAX,
        LinePlace::Tcp(_) => LINE_PAUSE_MAX + SENT_AGAIN_AFTER + 2 * connecting,
    }
}

/// After which silence a line of a fixed length has ended, also one that lost bytes: well within the timeout in which the
/// slot that waits for it has to have it.
pub(crate) fn line_pause(place: &LinePlace, timeout: Duration) -> Duration {
    match place {
        LinePlace::Serial(serial) => {
            let characters = Duration::from_micros(serial.line().chars_us(LENGTH_PAUSE_CHARS));
            SERIAL_LENGTH_PAUSE.min(timeout / 2).max(characters)
        }
        LinePlace::Tcp(_) => TCP_LENGTH_PAUSE.min(timeout / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Parity, Serial};

    fn serial(baud: u32) -> LinePlace {
        let port = "/dev/ttyS0".into();
        LinePlace::Serial(Serial { port, baud, data_bits: 8, parity: Parity::None, stop_bits: 1, rs485: None })
    }

    /// Half lines came later than a fixed silence over a mobile network: what a server says takes a way there and back.
    #[test]
    fn a_far_server_is_listened_to_for_longer() {
        let far = LinePlace::Tcp("logger:4001".into());
        assert_eq!(silence_at_start(&far, Duration::from_millis(1)), Duration::from_millis(302));
        assert_eq!(silence_at_start(&far, Duration::from_millis(600)), Duration::from_millis(1_500));
        assert_eq!(silence_at_start(&serial(9_600), Duration::from_millis(5)), LINE_PAUSE_MAX);
    }

    #[test]
    fn a_pause_is_longer_than_what_adapters_and_slow_lines_make() {
        let timeout = Duration::from_millis(500);
        assert_eq!(line_pause(&serial(9_600), timeout), Duration::from_millis(50));
        assert_eq!(line_pause(&serial(300), timeout), Duration::from_micros(133_334));
        assert_eq!(line_pause(&serial(9_600), Duration::from_millis(60)), Duration::from_millis(30));
        assert_eq!(line_pause(&LinePlace::Tcp("logger:4001".into()), timeout), Duration::from_millis(60));
    }
}
