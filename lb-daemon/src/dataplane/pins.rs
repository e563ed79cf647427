//! Where the datapath outlives the daemon: a bpffs of the director's own.
//!
//! ```text
//! bpf/layout-2/SERVICES, …    the maps, apart for each version of their layout
//! bpf/link-eth0-native        the attachment, which keeps the program alive
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use lb_ebpf::abi::LAYOUT;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::Mode;

/// A directory that is a bpffs, mounted if it was not.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct PinError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Pins {
    /// Mounts a bpffs at `root` unless there is one.
    pub fn open(root: &Path) -> Result<Self, PinError> {
        let pins = Self { root: root.to_owned() };
        fs::create_dir_all(root).map_err(fault("create", root))?;
        if !is_bpffs(root)? {
            mount(Some("bpf"), root, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
                .map_err(|errno| fault("mount a bpffs at", root)(errno.into()))?;
        }
        let layout = pins.layout();
        fs::create_dir_all(&layout).map_err(fault("create", &layout))?;
        Ok(pins)
    }

    /// The bpffs at `root`, if there is one.
    pub fn find(root: &Path) -> Result<Option<Self>, PinError> {
        Ok((root.is_dir() && is_bpffs(root)?).then(|| Self { root: root.to_owned() }))
    }

    fn layout(&self) -> PathBuf {
        self.root.join(format!("layout-{LAYOUT}"))
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.layout().join(name)
    }

    pub(super) fn link(&self, interface: &str, mode: Mode) -> PathBuf {
        self.root.join(format!("link-{interface}-{}", mode.name()))
    }

    /// Interfaces that a link is pinned for.
    pub fn linked(&self) -> Result<Vec<(String, Mode)>, PinError> {
        let entries = fs::read_dir(&self.root).map_err(fault("list", &self.root))?;
        Ok(entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                let (interface, mode) = name.strip_prefix("link-")?.rsplit_once('-')?;
                Some((interface.to_owned(), Mode::from_name(mode)?))
            })
            .collect())
    }

    /// Removes the maps of other layouts: the links lead to a program with maps of ours.
    pub fn remove_other_layouts(&self) -> Result<(), PinError> {
        let ours = self.layout();
        for entry in fs::read_dir(&self.root).map_err(fault("list", &self.root))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("layout-") && entry.path() != ours {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(fault("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes every pin, and the bpffs.
    pub fn remove(self) -> Result<(), PinError> {
        umount2(&self.root, MntFlags::MNT_DETACH)
            .map_err(|errno| fault("unmount", &self.root)(errno.into()))?;
        fs::remove_dir(&self.root).map_err(fault("remove", &self.root))
    }

    pub(super) fn unpin(&self, interface: &str, mode: Mode) -> Result<(), PinError> {
        let path = self.link(interface, mode);
        fs::remove_file(&path).map_err(fault("remove", &path))
    }
}

fn is_bpffs(root: &Path) -> Result<bool, PinError> {
    let found = statfs(root).map_err(|errno| fault("look at", root)(errno.into()))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}

fn fault(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    move |source| PinError { operation, path, source }
}
