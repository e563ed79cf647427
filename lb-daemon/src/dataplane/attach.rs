//! Attaching the program to interfaces: native where the driver can, in place of a former
//! daemon's program where there is one.

use std::io;

use aya::programs::{
    ProgramError, Xdp, XdpMode as Flag,
    links::{FdLink, PinnedLink},
    xdp::{XdpLink, XdpLinkId},
};

use nix::net::if_::if_nametoindex;

use super::{LoadError, PinError, Pins};
use crate::config::XdpMode;

/// How the kernel runs the program of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, after the packet has been copied: several times slower.
    Generic,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// Whether it is what the configuration wishes.
    pub fn fits(self, wish: XdpMode) -> bool {
        match wish {
            XdpMode::Auto => true,
            XdpMode::Native => self == Self::Native,
            XdpMode::Generic => self == Self::Generic,
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Native, Self::Generic].into_iter().find(|mode| mode.name() == name)
    }

    const fn flag(self) -> Flag {
        match self {
            Self::Native => Flag::Driver,
            Self::Generic => Flag::Skb,
        }
    }
}

/// The program on one interface.
#[derive(Debug)]
pub struct Attached {
    /// An interface that is made anew has another.
    pub ifindex: u32,
    pub mode: Mode,
    /// Why the mode is not native, where that was wished.
    pub reason: Option<String>,
    /// Whether a former daemon's program was replaced.
    pub adopted: bool,
    link: XdpLinkId,
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(transparent)]
    Load(LoadError),
    #[error("no interface `{0}`, which [director] interfaces names")]
    NoInterface(String),
    #[error("attach to {interface} in {} mode", mode.name())]
    Attach {
        interface: String,
        mode: Mode,
        #[source]
        source: ProgramError,
    },
    #[error(
        "another XDP program is on {0}: `ip link show {0}` has its number, \
         `ip link set {0} xdp off` takes it off"
    )]
    Busy(String),
    #[error("attach to {0}: the kernel gave no BPF link, which Linux 5.9 and newer have")]
    NoLink(String),
    #[error(transparent)]
    Pin(PinError),
    #[error("pin the link of {interface}")]
    PinLink {
        interface: String,
        #[source]
        source: aya::pin::PinError,
    },
    #[error("detach from {interface}")]
    Detach {
        interface: String,
        #[source]
        source: ProgramError,
    },
}

/// The index of an interface.
pub fn find_interface(interface: &str) -> Result<u32, AttachError> {
    if_nametoindex(interface).map_err(|_| AttachError::NoInterface(interface.to_owned()))
}

pub(super) fn attach(
    program: &mut Xdp,
    interface: &str,
    ifindex: u32,
    wish: XdpMode,
    pins: Option<&Pins>,
) -> Result<Attached, AttachError> {
    if let Some(pins) = pins
        && let Some(adopted) = adopt(program, interface, ifindex, wish, pins)?
    {
        return Ok(adopted);
    }
    let modes: &[Mode] = match wish {
        XdpMode::Native => &[Mode::Native],
        XdpMode::Generic => &[Mode::Generic],
        XdpMode::Auto => &[Mode::Native, Mode::Generic],
    };
    let mut reason = None;
    for &mode in modes {
        match program.attach(interface, mode.flag()) {
            Ok(id) => {
                let link = hold(program, id, interface, mode, pins)?;
                return Ok(Attached { ifindex, mode, reason, adopted: false, link });
            }
            Err(source) if is_busy(&source) => {
                return Err(AttachError::Busy(interface.to_owned()));
            }
            Err(source) if Some(&mode) != modes.last() => {
                reason = Some(format!("native mode: {}", innermost(&source)));
            }
            Err(source) => {
                return Err(AttachError::Attach { interface: interface.to_owned(), mode, source });
            }
        }
    }
    unreachable!("every wish has a mode, and the last one returns")
}

/// Replaces the program behind a pinned link, without a packet in between that meets none.
fn adopt(
    program: &mut Xdp,
    interface: &str,
    ifindex: u32,
    wish: XdpMode,
    pins: &Pins,
) -> Result<Option<Attached>, AttachError> {
    let linked = pins.linked().map_err(AttachError::Pin)?;
    let mut adopted = None;
    for (_, mode) in linked.into_iter().filter(|(name, _)| name == interface) {
        if mode.fits(wish)
            && adopted.is_none()
            && let Ok(pinned) = PinnedLink::from_pin(pins.link(interface, mode))
            && let Ok(link) = XdpLink::try_from(FdLink::from(pinned))
            && let Ok(id) = program.attach_to_link(link)
        {
            let reason = (mode == Mode::Generic && wish == XdpMode::Auto).then(|| {
                "as the former lbd left it; restart after a stop to try native".to_owned()
            });
            adopted = Some(Attached { ifindex, mode, reason, adopted: true, link: id });
        } else {
            // Of an interface that is gone, or in a mode that is no longer wished.
            pins.unpin(interface, mode).map_err(AttachError::Pin)?;
        }
    }
    Ok(adopted)
}

/// Pins a new link, so that it outlives the daemon.
fn hold(
    program: &mut Xdp,
    id: XdpLinkId,
    interface: &str,
    mode: Mode,
    pins: Option<&Pins>,
) -> Result<XdpLinkId, AttachError> {
    let Some(pins) = pins else { return Ok(id) };
    let fault = |source| AttachError::Attach { interface: interface.to_owned(), mode, source };
    let no_link = |_| AttachError::NoLink(interface.to_owned());
    // aya falls back to netlink where the kernel refuses links, and says nothing.
    let link = FdLink::try_from(program.take_link(id).map_err(fault)?).map_err(no_link)?;
    let pinned = link
        .pin(pins.link(interface, mode))
        .map_err(|source| AttachError::PinLink { interface: interface.to_owned(), source })?;
    let link = XdpLink::try_from(FdLink::from(pinned)).map_err(no_link)?;
    program.attach_to_link(link).map_err(fault)
}

pub(super) fn detach(
    program: &mut Xdp,
    interface: &str,
    attached: Attached,
    pins: Option<&Pins>,
) -> Result<(), AttachError> {
    if let Some(pins) = pins {
        pins.unpin(interface, attached.mode).map_err(AttachError::Pin)?;
    }
    program
        .detach(attached.link)
        .map_err(|source| AttachError::Detach { interface: interface.to_owned(), source })
}

fn is_busy(error: &ProgramError) -> bool {
    if let ProgramError::SyscallError(error) = error {
        error.io_error.kind() == io::ErrorKind::ResourceBusy
    } else {
        false
    }
}

/// The last of a chain of causes: what the kernel said.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
