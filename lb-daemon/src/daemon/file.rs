//! Replacing the configuration file: whole or not at all, also when the power fails.

use std::{fs, fs::File, io, io::Write, path::Path};

/// Writes `text` beside `file`, to the disk, and renames it into place. Mode and owner stay.
pub(super) fn replace(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let before = fs::metadata(file)?;
    let mut next = tempfile::Builder::new().prefix(".lbd-").tempfile_in(folder)?;
    next.write_all(text.as_bytes())?;
    next.as_file().set_permissions(before.permissions())?;
    let owner = std::os::unix::fs::MetadataExt::uid(&before);
    let group = std::os::unix::fs::MetadataExt::gid(&before);
    std::os::unix::fs::fchown(next.as_file(), Some(owner), Some(group))?;
    next.as_file().sync_all()?;
    next.persist(file)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lbd.toml");
        fs::write(&file, "before").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();

        replace(&file, "after").unwrap();

        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_gone_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        assert!(replace(&folder.path().join("lbd.toml"), "text").is_err());
    }
}
