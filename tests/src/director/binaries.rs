//! Where the programs under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub lbd: PathBuf,
    pub lbctl: PathBuf,
}

impl Binaries {
    pub fn in_dir(dir: &Path) -> anyhow::Result<Self> {
        let [lbd, lbctl] = ["lbd", "lbctl"].map(|name| dir.join(name));
        for program in [&lbd, &lbctl] {
            ensure!(
                program.is_file(),
                "{} does not exist; `cargo build -p lb-daemon` makes it",
                program.display()
            );
        }
        Ok(Self { lbd, lbctl })
    }

    /// For tests: in `TANDEM_BIN_DIR`, else where cargo puts them beside the tests.
    pub fn of_tests() -> anyhow::Result<Self> {
        if let Some(dir) = std::env::var_os("TANDEM_BIN_DIR") {
            return Self::in_dir(Path::new(&dir));
        }
        let test = std::env::current_exe().context("find the directory of the tests")?;
        let dir = test.parent().and_then(Path::parent);
        Self::in_dir(dir.with_context(|| format!("{} has no parent", test.display()))?)
    }
}
