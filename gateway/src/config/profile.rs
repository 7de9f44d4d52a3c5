//! Points that a device has from its profile.
//!
//! A profile's point is a point whose sensor is made of two texts: the device's `place` and the point's
//! `quantity`. So fifty meters of one model are fifty short tables.

use super::checker::{Checker, Through};
use super::file::{DeviceFile, PointFile};

/// What a device's own points and those of its profile stand for; nothing where one of them is wrong.
pub(super) fn points_of<'text, T>(
    checker: &mut Checker<'text>,
    device: &DeviceFile,
    mut read: impl FnMut(&mut Checker<'text>, &PointFile) -> Option<T>,
) -> Option<Vec<T>> {
    let mut points: Vec<Option<T>> = device.point.iter().map(|point| read(checker, point)).collect();
    let Some(named) = &device.profile else {
        checker.refuse(device.place.as_ref(), "place", "it is put before the quantities of a `profile`");
        return points.into_iter().collect();
    };
    let profile = checker.use_profile(named);
    let through = through(checker, device)?;
    let profile = profile?;
    if profile.point.is_empty() && checker.is_complete() {
        checker.note(profile.name.span(), "the profile has no point", "add a `[[profile.point]]`, or take it out");
    }
    checker.look_through(Some(through));
    points.extend(profile.point.iter().map(|point| read(checker, point)));
    checker.look_through(None);
    points.into_iter().collect()
}

/// The device as a profile sees it.
fn through(checker: &mut Checker<'_>, device: &DeviceFile) -> Option<Through> {
    let named = device.profile.as_ref()?;
    let Some(place) = &device.place else {
        checker.note(
            named.span(),
            "a device with a `profile` needs a `place`",
            "write what its sensors' ids begin with, like `place = \"pumphouse\"`",
        );
        return None;
    };
    let is_place = format!("{}/quantity", place.get_ref()).parse::<tjern_readings::sensor::SensorId>();
    if is_place.is_err() {
        checker.note(
            place.span(),
            format!("`{}` is no place", place.get_ref()),
            "write one to four parts of a-z, 0-9, `_`, `-`, like \"pumphouse\" or \"pumphouse/meter-3\"",
        );
        return None;
    }
    Some(Through {
        device: device.name.get_ref().clone(),
        named: named.span(),
        place: place.get_ref().clone(),
        place_span: place.span(),
    })
}
