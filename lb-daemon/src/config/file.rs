//! Reading the configuration file: the one place of this module that touches the machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Config, ConfigErrors, load};

/// Why a configuration file could not be used. Each message names the file.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{}: {}", file.display(), io_problem(source))]
    Io { file: PathBuf, source: io::Error },
    #[error("{}: not UTF-8 text at byte {valid_up_to}", file.display())]
    NotUtf8 { file: PathBuf, valid_up_to: usize },
    #[error(transparent)]
    Invalid(ConfigErrors),
}

/// Reads and checks `file`; also returns its text, for an edit to start from.
pub fn read(file: &Path) -> Result<(Config, String), ReadError> {
    let bytes = fs::read(file).map_err(|source| ReadError::Io { file: file.to_owned(), source })?;
    let text = String::from_utf8(bytes).map_err(|error| ReadError::NotUtf8 {
        file: file.to_owned(),
        valid_up_to: error.utf8_error().valid_up_to(),
    })?;
    let config = load(file, &text).map_err(ReadError::Invalid)?;
    Ok((config, text))
}

fn io_problem(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "no such file".to_owned()
    } else if error.kind() == io::ErrorKind::IsADirectory {
        "is a directory, expected a file".to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_readable_file_gives_one_message_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("binary.toml");
        fs::write(&binary, b"[director]\nid = \"\xff\"\n").unwrap();
        for (file, want) in [
            (dir.path().join("none.toml"), "no such file"),
            (dir.path().to_owned(), "is a directory, expected a file"),
            (binary, "not UTF-8 text at byte 17"),
        ] {
            let error = read(&file).unwrap_err();
            assert_eq!(error.to_string(), format!("{}: {want}", file.display()));
        }
    }
}
