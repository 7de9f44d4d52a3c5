//! A pattern whose group `value` holds the number: `T=(?<value>[-0-9.]+)`.

use regex::Regex;
use tjern_readings::reading::Cause;

use super::Notation;

/// The number that the pattern finds; `None` where the line does not match.
#[must_use]
pub fn read(regex: &Regex, notation: &mut Notation, line: &str) -> Option<Result<f64, Cause>> {
    let found = regex.captures(line)?;
    Some(notation.read(found.name("value").map_or("", |group| group.as_str()), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(regex: &Regex, line: &str) -> Option<Result<f64, Cause>> {
        super::read(regex, &mut Notation::default(), line)
    }

    #[test]
    fn the_group_holds_the_number() {
        let regex = Regex::new("T=(?<value>[-0-9.]+)").expect("valid");
        assert_eq!(read(&regex, "H=45 T=-12.5 C"), Some(Ok(-12.5)));
        assert_eq!(read(&regex, "T=-.-"), Some(Err(Cause::NoMatch)));
        assert_eq!(read(&regex, "T=none"), None);
    }
}
