//! What a command says on stderr, the log left out: a line of talk, or what is wrong.

use std::fmt::Arguments;
use std::io::Write;

/// Says a line on stderr, as `eprintln!` does, which panics where it cannot: a disk of logs that is full, a reader that left
/// (`2>&1 | head`), a terminal that was closed. Nobody hears it then, and the work goes on.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::cli::say::line(::core::format_args!($($argument)*))
    };
}

/// What [`say!`](crate::say) does.
#[doc(hidden)]
pub fn line(what: Arguments<'_>) {
    // In one piece, as far as the system lets it: others may write there too.
    let text = format!("{what}\n");
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
