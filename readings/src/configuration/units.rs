//! The units that a gateway's configuration says of its sensors: what the lake reads of it.
//!
//! The one reader of it, for the gateway that uploads a configuration and the pipeline that checks readings against it. Numbers stay as they
//! are written: one that is too large for a machine's (`not_available = 0xFFFFFFFFFFFFFFFF`) keeps no unit from being read.

use std::collections::HashMap;

use toml::de::{DeArray, DeTable, DeValue};

/// The units by sensor, whatever else the configuration says.
///
/// # Errors
/// What keeps the text from being TOML.
pub fn units(configuration: &str) -> Result<HashMap<String, String>, String> {
    let root = DeTable::parse(configuration).map_err(|error| error.message().to_owned())?;
    let root = root.get_ref();
    let mut units = HashMap::new();
    collect(root, &mut units);
    let profiles = array(root, "profile").map(|profiles| tables(profiles).collect()).unwrap_or_default();
    collect_of_profiles(root, &profiles, &mut units);
    Ok(units)
}

fn text<'table>(table: &'table DeTable<'_>, key: &str) -> Option<&'table str> {
    table.get(key)?.get_ref().as_str()
}

fn array<'table, 'text>(table: &'table DeTable<'text>, key: &str) -> Option<&'table DeArray<'text>> {
    table.get(key)?.get_ref().as_array()
}

fn tables<'array, 'text>(array: &'array DeArray<'text>) -> impl Iterator<Item = &'array DeTable<'text>> {
    array.iter().filter_map(|value| value.get_ref().as_table())
}

/// The tables within a table, and in its arrays.
fn within<'table, 'text>(table: &'table DeTable<'text>) -> impl Iterator<Item = &'table DeTable<'text>> {
    let mut waiting: Vec<&DeValue<'text>> = table.values().map(|value| value.get_ref()).collect();
    std::iter::from_fn(move || {
        loop {
            match waiting.pop()? {
                DeValue::Table(found) => return Some(found),
                DeValue::Array(values) => waiting.extend(values.iter().map(|value| value.get_ref())),
                _ => {}
            }
        }
    })
}

fn collect(table: &DeTable<'_>, units: &mut HashMap<String, String>) {
    if let (Some(sensor), Some(unit)) = (text(table, "sensor"), text(table, "unit")) {
        units.insert(sensor.to_owned(), unit.to_owned());
    }
    within(table).for_each(|found| collect(found, units));
}

/// A device with a `profile` has its points, each with the device's `place` before its `quantity`.
fn collect_of_profiles(table: &DeTable<'_>, profiles: &Vec<&DeTable<'_>>, units: &mut HashMap<String, String>) {
    if let (Some(name), Some(place)) = (text(table, "profile"), text(table, "place")) {
        let own = profiles.iter().filter(|profile| text(profile, "name") == Some(name));
        for point in own.filter_map(|profile| array(profile, "point")).flat_map(tables) {
            if let (Some(quantity), Some(unit)) = (text(point, "quantity"), text(point, "unit")) {
                units.insert(format!("{place}/{quantity}"), unit.to_owned());
            }
        }
    }
    within(table).for_each(|found| collect_of_profiles(found, profiles, units));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(configuration: &str) -> Vec<(String, String)> {
        let mut found: Vec<_> = units(configuration).expect("TOML").into_iter().collect();
        found.sort();
        found
    }

    fn pair((sensor, unit): (&str, &str)) -> (String, String) {
        (sensor.to_owned(), unit.to_owned())
    }

    #[test]
    fn units_of_a_profile_hold_for_each_device_that_uses_it() {
        let configuration = "[[profile]]\nname = 'gauge'\n[[profile.point]]\nquantity = 'level'\nunit = 'm'\n\
            [[bus]]\n[[bus.device]]\nprofile = 'gauge'\nplace = 'tarn'\n[[bus.device.point]]\nsensor = 'tarn/wind'\nunit = 'm/s'\n\
            [[bus.device]]\nprofile = 'gauge'\nplace = 'elva/north'\n[[bus.device]]\nprofile = 'other'\nplace = 'x'\n";
        let expected = [("elva/north/level", "m"), ("tarn/level", "m"), ("tarn/wind", "m/s")];
        assert_eq!(sorted(configuration), expected.map(pair));
        assert!(units("no TOML at all = = =").is_err());
    }

    /// One number of 64 bits made the file "no TOML": none of the gateway's units was checked any more.
    #[test]
    fn a_number_that_no_machine_has_hides_no_unit() {
        for number in ["0xFFFFFFFFFFFFFFFF", "18446744073709551615", "[1, 99999999999999999999]", "1e999"] {
            let configuration = format!(
                "[[bus]]\n[[bus.point]]\nsensor = 'a/b'\nnot_available = {number}\n[[bus.point]]\nsensor = 'a/c'\nunit = 'K'\n"
            );
            assert_eq!(sorted(&configuration), [pair(("a/c", "K"))], "{number}");
        }
    }
}
