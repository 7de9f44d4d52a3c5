//! What a machine cannot play is said in one form, on the test's own stderr, which is shown although the test passes.

use std::io::Write;

/// Says that a test is skipped, and why.
pub fn skip(test: &str, why: &str) {
    // Where nobody reads it, nobody misses it.
    let _ = writeln!(std::io::stderr(), "{test}: SKIPPED: {why}");
}
