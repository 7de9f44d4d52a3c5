//! What pages link to: files inside the program, under names that change when their bytes do, so that
//! a browser may keep them for ever.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// The style sheet.
pub(crate) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("tjern", "css", "text/css; charset=utf-8", include_str!("style.css")));
/// The icon.
pub(crate) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("tjern", "svg", "image/svg+xml", include_str!("icon.svg")));

/// A file inside the program.
#[derive(Debug)]
pub(crate) struct Asset {
    file: String,
    pub(crate) media_type: &'static str,
    pub(crate) text: &'static str,
}

impl Asset {
    fn new(name: &str, extension: &str, media_type: &'static str, text: &'static str) -> Self {
        let hash = Sha256::digest(text.as_bytes());
        let hash: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self { file: format!("{name}-{hash}.{extension}"), media_type, text }
    }

    /// Where the server has it.
    pub(crate) fn path(&self) -> String {
        format!("/static/{}", self.file)
    }

    /// The asset with this file name.
    pub(crate) fn find(file: &str) -> Option<&'static Self> {
        [&*STYLE, &*ICON].into_iter().find(|asset| asset.file == file)
    }
}
