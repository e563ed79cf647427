//! From facts to steps. Pure, so that machines we do not have can be tried.

use super::facts::{Core, Facts, Linker};
use super::host::{Lists, Privilege, Rustup, System};

/// A Debian package, known to be there by a program of its own, or by a file where the name is an
/// absolute path; so a nginx of another origin will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) program: &'static str,
    pub(super) why: &'static str,
}

/// What the lab starts.
pub(super) const LAB: [Package; 7] = [
    Package { name: "iproute2", program: "ip", why: "network namespaces and links of the lab" },
    Package { name: "util-linux", program: "nsenter", why: "programs inside of a namespace" },
    Package { name: "procps", program: "sysctl", why: "kernel settings of the lab's real servers" },
    Package {
        name: "ethtool",
        program: "ethtool",
        why: "offloads that native XDP on veth cannot have",
    },
    Package { name: "tshark", program: "tshark", why: "a second opinion on every packet we send" },
    Package { name: "nginx-light", program: "nginx", why: "a real server that is not ours" },
    Package {
        name: "keepalived",
        program: "keepalived",
        why: "the VRRP peer of the interoperability tests",
    },
];

/// What a user would run in our place; `bench --compare` starts them.
pub(super) const PEERS: [Package; 3] = [
    Package { name: "haproxy", program: "haproxy", why: "compared with: a TCP proxy" },
    Package {
        name: "libnginx-mod-stream",
        program: "/usr/lib/nginx/modules/ngx_stream_module.so",
        why: "compared with: nginx as a TCP proxy",
    },
    Package { name: "nftables", program: "nft", why: "compared with: DNAT in the kernel" },
];

const LLVM: Package =
    Package { name: "llvm-22-dev", program: "llvm-config-22", why: "LLVM 22, to build bpf-linker" };
const CXX: Package =
    Package { name: "g++", program: "c++", why: "libstdc++, which bpf-linker is linked with" };
const RUSTC_WEB: Package = Package {
    name: "rustc-web",
    program: "rustc",
    why: "builds the XDP programs in place of rust-src",
};
const BPF_CORE: Package = Package {
    name: "libstd-rust-web-dev-bpf",
    program: "",
    why: "its `core` library for the BPF target",
};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    RustSrc,
    RefreshLists,
    Packages(Vec<Package>),
    Linker,
}

impl Step {
    /// The thing as a person knows it.
    pub(super) fn what(&self) -> String {
        match self {
            Self::RustSrc => "rust-src".into(),
            Self::RefreshLists => "package lists".into(),
            Self::Packages(packages) => {
                packages.iter().map(|package| package.name).collect::<Vec<_>>().join(" ")
            }
            Self::Linker => "bpf-linker".into(),
        }
    }

    /// The step in a line of progress.
    pub(super) fn label(&self) -> String {
        match self {
            Self::RustSrc => "add rust-src".into(),
            Self::RefreshLists => "refresh the package lists".into(),
            Self::Packages(packages) if packages.len() == 1 => "install 1 Debian package".into(),
            Self::Packages(packages) => format!("install {} Debian packages", packages.len()),
            Self::Linker => "build and install bpf-linker".into(),
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
pub(super) enum Plan {
    Nothing,
    /// In this order.
    Install(Vec<Step>),
    /// What a person has to do, and each reason why we cannot.
    ByHand {
        why: Vec<String>,
        steps: Vec<Step>,
    },
}

pub(super) fn plan(facts: &Facts) -> Plan {
    let mut why = Vec::new();
    let mut steps = Vec::new();
    let mut packages = Vec::new();

    if facts.core == Core::Missing {
        match (facts.host.rustup, &facts.host.system) {
            (Rustup::Present, _) => steps.push(Step::RustSrc),
            (Rustup::Absent | Rustup::Refused, System::Debian) => {
                packages.extend([RUSTC_WEB, BPF_CORE])
            }
            (Rustup::Absent, System::Other(_)) => {
                why.push("there is no rustup to add rust-src with".into());
                steps.push(Step::RustSrc);
            }
            (Rustup::Refused, System::Other(_)) => {
                why.push("rustup could not add rust-src".into());
                steps.push(Step::RustSrc);
            }
        }
    }
    let linker = facts.linker != Linker::Ready;
    if linker && !facts.llvm {
        packages.push(LLVM);
    }
    if linker && !facts.cxx {
        packages.push(CXX);
    }
    packages.extend(&facts.missing_packages);

    if !packages.is_empty() {
        match (&facts.host.system, facts.host.privilege) {
            (System::Other(name), _) => {
                why.push(format!("packages are installed on Debian only, and this is {name}"))
            }
            (System::Debian, Privilege::None) => {
                why.push("apt-get needs root, and sudo is not here or would ask".into())
            }
            (System::Debian, Privilege::Root | Privilege::Sudo | Privilege::SudoAsks) => {}
        }
        if facts.host.lists == Lists::Stale && facts.host.system == System::Debian {
            steps.push(Step::RefreshLists);
        }
        steps.push(Step::Packages(packages));
    }
    if linker {
        steps.push(Step::Linker);
    }

    match (steps.is_empty(), why.is_empty()) {
        (true, _) => Plan::Nothing,
        (false, true) => Plan::Install(steps),
        (false, false) => Plan::ByHand { why, steps },
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::Host;
    use super::*;

    #[test]
    fn nothing_missing_is_nothing_to_do_whatever_the_host() {
        let facts = Facts { host: not_debian(), ..complete() };
        assert_eq!(plan(&facts), Plan::Nothing);
    }

    #[test]
    fn a_fresh_debian_as_root_gets_everything_in_an_order_that_works() {
        assert_eq!(
            what(&plan(&fresh())),
            [
                "rust-src",
                "package lists",
                "llvm-22-dev iproute2 util-linux procps ethtool tshark nginx-light keepalived \
                 haproxy libnginx-mod-stream nftables",
                "bpf-linker"
            ]
        );
        assert!(matches!(plan(&fresh()), Plan::Install(_)));
    }

    #[test]
    fn without_root_sudo_is_used_and_without_sudo_a_person_gets_the_same_steps() {
        let with_sudo = with(fresh(), |host| host.privilege = Privilege::Sudo);
        assert_eq!(plan(&with_sudo), plan(&fresh()));

        let Plan::ByHand { why, steps } =
            plan(&with(fresh(), |host| host.privilege = Privilege::None))
        else {
            panic!("installed without a way to")
        };
        assert_eq!(why, ["apt-get needs root, and sudo is not here or would ask"]);
        assert_eq!(Plan::Install(steps), plan(&fresh()));
    }

    #[test]
    fn rust_src_alone_needs_neither_debian_nor_root() {
        let facts = Facts { core: Core::Missing, host: not_debian(), ..complete() };
        assert_eq!(plan(&facts), Plan::Install(vec![Step::RustSrc]));
    }

    #[test]
    fn what_is_not_debian_is_for_a_person() {
        let Plan::ByHand { why, steps } = plan(&Facts { host: not_debian(), ..fresh() }) else {
            panic!("apt-get where there is none")
        };
        assert_eq!(why, ["packages are installed on Debian only, and this is Fedora Linux 42"]);
        assert!(!steps.contains(&Step::RefreshLists));
    }

    #[test]
    fn without_rustup_debians_own_core_is_used() {
        for rustup in [Rustup::Absent, Rustup::Refused] {
            let facts =
                Facts { core: Core::Missing, ..with(complete(), |host| host.rustup = rustup) };
            assert_eq!(what(&plan(&facts)), ["rustc-web libstd-rust-web-dev-bpf"], "{rustup:?}");
        }
    }

    #[test]
    fn without_rustup_and_without_debian_a_person_hears_why() {
        for (rustup, reason) in [
            (Rustup::Absent, "there is no rustup to add rust-src with"),
            (Rustup::Refused, "rustup could not add rust-src"),
        ] {
            let facts =
                Facts { core: Core::Missing, host: Host { rustup, ..not_debian() }, ..complete() };
            assert_eq!(
                plan(&facts),
                Plan::ByHand { why: vec![reason.into()], steps: vec![Step::RustSrc] }
            );
        }
    }

    #[test]
    fn a_linker_that_does_not_start_is_built_again_with_what_that_takes() {
        let facts = Facts { linker: Linker::Unusable("version 0.9.15".into()), ..complete() };
        assert_eq!(what(&plan(&facts)), ["bpf-linker"]);
        let facts = Facts { llvm: false, cxx: false, ..facts };
        assert_eq!(what(&plan(&facts)), ["llvm-22-dev g++", "bpf-linker"]);
    }

    #[test]
    fn a_working_linker_of_another_origin_needs_no_llvm() {
        assert_eq!(plan(&Facts { llvm: false, cxx: false, ..complete() }), Plan::Nothing);
    }

    fn complete() -> Facts {
        Facts {
            core: Core::RustSrc,
            linker: Linker::Ready,
            linker_off_path: None,
            llvm: true,
            cxx: true,
            missing_packages: Vec::new(),
            host: Host {
                rustup: Rustup::Present,
                system: System::Debian,
                privilege: Privilege::Root,
                lists: Lists::Fresh,
            },
        }
    }

    fn fresh() -> Facts {
        let facts = Facts {
            core: Core::Missing,
            linker: Linker::Missing,
            llvm: false,
            missing_packages: [LAB.as_slice(), &PEERS].concat(),
            ..complete()
        };
        with(facts, |host| host.lists = Lists::Stale)
    }

    fn with(mut facts: Facts, change: impl FnOnce(&mut Host)) -> Facts {
        change(&mut facts.host);
        facts
    }

    fn not_debian() -> Host {
        Host {
            rustup: Rustup::Present,
            system: System::Other("Fedora Linux 42".into()),
            privilege: Privilege::Root,
            lists: Lists::Stale,
        }
    }

    fn what(plan: &Plan) -> Vec<String> {
        match plan {
            Plan::Nothing => Vec::new(),
            Plan::Install(steps) | Plan::ByHand { steps, .. } => {
                steps.iter().map(Step::what).collect()
            }
        }
    }
}
