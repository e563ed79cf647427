//! Where the repository and its build products are.

use std::path::{Path, PathBuf};

/// The root of the repository: the folder above this crate's.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Cargo's target directory, wherever the environment or a configuration file has put it.
///
/// This program is `TARGET/PROFILE/xtask`; reading that is right for `CARGO_TARGET_DIR`, for
/// `build.target-dir` and for `build.target` (then it is the triple's folder, which holds the
/// release binaries as well).
pub(crate) fn target_dir() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.parent()?.to_path_buf()))
        .unwrap_or_else(|| root().join("target"))
}
