//! Backups of two lakes, links that lead into a lake, and folders that nobody asked for.

use std::fs;
use std::os::unix::fs::symlink;

use crate::place::{Place, said};

const TARN: &str = "tarn/water_temperature";
const SENSORS: &str = "tarn/water_temperature,tarn,water_temperature,Cel,sample,public,\n";

fn city() -> Place {
    let place = Place::new(SENSORS);
    place.land("tarn-01", 1, &[TARN]);
    place.done(&[&["ingest"], &["ingest", "--personal"]]);
    place
}

/// `restore` took the newest backup that lay there, the personal one, into the common lake.
#[test]
fn personal_backups_and_others_never_lie_together() {
    let place = city();
    let (common, personal) = (place.url("backups"), place.url("backups-personal"));
    place.done(&[&["backup", "--to", &common], &["backup", "--personal", "--to", &personal]]);
    for refused in [
        &["backup", "--personal", "--to", &common][..],
        &["backup", "--to", &personal],
        &["restore", "--dry-run", "--from", &personal],
        &["restore", "--dry-run", "--personal", "--from", &common],
    ] {
        let output = place.run(refused);
        assert_eq!(output.status.code(), Some(2), "{refused:?}");
        assert!(said(&output).contains("lake of personal readings"), "{}", said(&output));
    }
    assert_eq!(place.names("backups/manifests").len(), 1, "nothing was added");
    let list = said(&place.run(&["restore", "--list", "--from", &personal]));
    assert!(list.contains(&format!("{}/ (personal)", place.url("personal"))), "{list}");
    // After a disaster the lake has another address, and none of its backups is of it. The personal one is refused there too.
    place.configure("drill.toml", "drill/lake", "drill/personal");
    let refused = place.run_by("drill.toml", &["restore", "--from", &personal]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!place.path("drill").exists(), "what was refused left a folder");
    assert_eq!(place.run_by("drill.toml", &["restore", "--from", &common]).status.code(), Some(0));
    assert_eq!(place.run_by("drill.toml", &["verify"]).status.code(), Some(0));
    assert_eq!(place.run_by("drill.toml", &["restore", "--personal", "--from", &personal]).status.code(), Some(0));
}

/// `--keep` removed the only backup of the other lake that had its backups in the same place.
#[test]
fn a_lakes_backups_are_pruned_by_themselves() {
    let place = city();
    place.configure("other.toml", "other", "other-personal");
    let to = place.url("backups");
    assert_eq!(place.run_by("other.toml", &["ingest"]).status.code(), Some(0));
    assert_eq!(place.run_by("other.toml", &["backup", "--to", &to]).status.code(), Some(0));
    place.done(&[&["backup", "--to", &to], &["backup", "--to", &to]]);
    // All of them are old.
    for name in place.names("backups/manifests") {
        let path = place.path(&format!("backups/manifests/{name}"));
        let text = fs::read_to_string(&path).expect("read");
        let at = text.find("\"ended\":\"").expect("it says when it ended") + 9;
        fs::write(&path, format!("{}2020{}", &text[..at], &text[at + 4..])).expect("written");
    }
    place.done(&[&["backup", "--to", &to, "--keep", "1d"]]);
    let list = said(&place.run(&["restore", "--list", "--from", &to]));
    assert_eq!(list.lines().count(), 2, "the two old ones of this lake are gone: {list}");
    assert_eq!(list.matches(&*(place.url("other") + "/")).count(), 1, "{list}");
    // Each lake has its own; a third one has to say which it means.
    place.done(&[&["restore", "--dry-run", "--only", "landing", "--from", &to]]);
    place.configure("third.toml", "third", "third-personal");
    let refused = place.run_by("third.toml", &["restore", "--from", &to]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("--at"), "{}", said(&refused));
    assert!(!place.path("third").exists());
}

/// A link to the lake was another folder by its name: the personal lake was the common one, and a backup lay in its own lake.
#[test]
fn a_link_to_a_lake_is_that_lake() {
    let place = city();
    symlink(place.path("lake"), place.path("link")).expect("linked");
    place.configure("linked.toml", "lake", "link");
    let refused = place.run_by("linked.toml", &["status"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("lies in the other one"), "{}", said(&refused));
    place.configure("below.toml", "lake", "link/personal");
    assert_eq!(place.run_by("below.toml", &["status"]).status.code(), Some(2));
    let before = place.names("lake");
    for to in ["link", "link/backups", "lake/backups", "lake"] {
        let output = place.run(&["backup", "--to", &place.url(to)]);
        assert_eq!(output.status.code(), Some(2), "{to}");
        assert!(said(&output).contains("has it in it"), "{}", said(&output));
    }
    assert_eq!(place.names("lake"), before, "what is refused leaves no folder");
}

/// A name that was written wrong was a new, empty folder, and "no backup".
#[test]
fn who_only_looks_creates_no_folder() {
    let place = city();
    let nowhere = place.url("nowhere");
    for looks in [&["restore", "--from", &nowhere][..], &["restore", "--list", "--from", &nowhere]] {
        let output = place.run(looks);
        assert_eq!(output.status.code(), Some(2), "{looks:?}");
        assert!(said(&output).contains("there is no folder"), "{}", said(&output));
    }
    assert!(!place.path("nowhere").exists());
    place.configure("new.toml", "new", "new-personal");
    assert_eq!(place.run_by("new.toml", &["status"]).status.code(), Some(0));
    assert_eq!(
        place.run_by("new.toml", &["backup", "--to", &nowhere]).status.code(),
        Some(1),
        "there is nothing to back up"
    );
    assert!(!place.path("new").exists() && !place.path("nowhere").exists());
}
