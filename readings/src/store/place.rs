//! Whether two stores lie in one another: folders by where they really are, and not by how their paths are written.
//!
//! A link to a folder is the folder, and so is a path through a link. Of a path that is not there yet its last part that is
//! there counts. Limits: a folder that is mounted at two places is two folders, and one bucket under two names is two buckets.

use std::path::{Path, PathBuf};

use super::LakeUrl;

/// More links in a row are a circle.
const LINKS_MAX: u32 = 40;

impl LakeUrl {
    /// Whether one of two lies in the other, or both are the same. Looks at the disk for folders.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if let (Some(one), Some(other)) = (self.local_folder(), other.local_folder()) {
            let (one, other) = (real(&one, LINKS_MAX), real(&other, LINKS_MAX));
            return one.starts_with(&other) || other.starts_with(&one);
        }
        let (one, other) = (self.url().as_str(), other.url().as_str());
        one.starts_with(other) || other.starts_with(one)
    }
}

/// Where a path really is: links are followed, also one that leads to what is not there yet.
fn real(path: &Path, links: u32) -> PathBuf {
    if let Ok(found) = path.canonicalize() {
        return found;
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return path.to_owned() };
    // A stroke at the end of a path asks for what the link leads to.
    match std::fs::read_link(folder.join(name)) {
        Ok(to) if links > 0 => real(&folder.join(to), links - 1),
        _ => real(folder, links).join(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn lake(path: &Path) -> LakeUrl {
        LakeUrl::folder(path).expect("absolute")
    }

    #[test]
    fn a_link_is_the_folder_that_it_leads_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("lake/tables")).expect("created");
        symlink(path("lake"), path("link")).expect("linked");
        symlink("lake", path("relative")).expect("linked");
        symlink(path("away"), path("dangling")).expect("linked");
        symlink(path("circle"), path("circle")).expect("linked");
        for (one, other) in [
            ("lake", "link"),
            ("lake", "relative/"),
            ("lake", "link/not/there/yet"),
            ("lake/tables", "link"),
            ("away", "dangling"),
            ("away", "dangling/below"),
        ] {
            assert!(lake(&path(one)).overlaps(&lake(&path(other))), "{one} {other}");
            assert!(lake(&path(other)).overlaps(&lake(&path(one))), "{other} {one}");
        }
        for (one, other) in [("lake", "lake-2"), ("link", "away"), ("lake", "dangling"), ("lake", "circle")] {
            assert!(!lake(&path(one)).overlaps(&lake(&path(other))), "{one} {other}");
        }
    }

    #[test]
    fn buckets_are_told_apart_by_their_urls() {
        let lake = |text: &str| text.parse::<LakeUrl>().expect("a lake");
        assert!(lake("s3://city/lake").overlaps(&lake("s3://city/lake/backup")));
        assert!(!lake("s3://city/lake").overlaps(&lake("s3://city/lake-2")));
        assert!(!lake("s3://city/lake").overlaps(&lake("file:///city/lake")));
    }
}
